// Package testbed gives a test what it needs of a cluster that all tests of its package share: a database of its own on
// every shard, with the bookkeeping schema in it, connections to it, a directory in etcd, a map. Package nodetest puts
// routers in front.
//
// It owns the databases it makes, until the cluster is closed, and no server: those are devcluster's. It may import
// devcluster, directory, directory/etcd and migrations, so that the tests inside of all other packages can use it.
package testbed
