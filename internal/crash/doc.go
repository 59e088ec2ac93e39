// Package crash kills routers (-9) between any two steps of a commit over several shards and of its recovery,
// and compares what the client was told with what stands on the shards.
//
// The steps are marked in router/exec and router/commit by failpoints (comments of go.etcd.io/gofail), which a
// production build does not contain: the tests enable them in a copy of the source tree, in bin/crash, and build
// the router from it. `make test` runs some of the cases, `make crash` all of them.
package crash
