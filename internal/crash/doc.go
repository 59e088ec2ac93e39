// Package crash kills routers (-9) between any two steps of a commit over several shards, of what goes before it, of its
// recovery, and of the worker of mirrors, and compares what the clients were told with what stands on the shards.
//
// The steps are marked by failpoints (comments of go.etcd.io/gofail), which a production build does not contain: the
// tests enable them in a copy of the files that hold some, in bin/crash, and build the router with those in place of the
// tree's. Into the same copy go mistakes that an executor could make, each made by a router that is told its name: the
// comparison with one Postgres, the contents of the shards or a torn sum must tell each of them.
//
// `make test` runs the steps of a commit on two shards and some of the others, `make crash` all of them with two to
// four shards.
package crash
