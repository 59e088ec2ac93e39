// Package planner turns one SQL statement into a Plan: a printable value that
// says which shards run it, what text they get and how their answers are put
// together.
//
// Routing is a proof. What cannot be proved to give the answer of one Postgres
// holding all the rows is refused with SQLSTATE 0A000, a reason and a hint; the
// planner never guesses a shard.
//
// The package is pure: it takes the partition map, the catalog and the session's
// settings as input, and imports no net, os, etcd or slog. It may import
// directory and its own subpackages lexer, shardsql and catalog. parse.go is the
// only file that knows pg_query_go.
package planner
