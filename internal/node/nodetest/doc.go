// Package nodetest starts routers for tests: in front of a database of the test's own, or of any development cluster.
//
// It owns the routers it starts, until their test ends. It may import node and what that imports, testbed and devcluster.
package nodetest
