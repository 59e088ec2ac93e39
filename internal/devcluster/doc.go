// Package devcluster starts real PostgreSQL servers, and an embedded etcd if asked, for `shardyard dev` and for
// tests: N primaries with R streaming replicas each, on free loopback ports, in one data directory.
//
// It owns that directory and every process it starts. A server never outlives its owner: Close stops all of them,
// and a small watching process (see supervisor.go) stops them when the owner ends in any other way: a signal,
// os.Exit, a panic, a test's time-out, kill -9. So nothing here installs a signal handler.
//
// It may import directory, directory/etcd and migrations, pgx, and embedded-postgres for its download only.
package devcluster
