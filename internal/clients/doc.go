// Package clients tests Shardyard with the clients that people use: psql, pgbench, pg_dump, pgx and database/sql.
// Wherever there is something to compare with, the same is done on a connection to one plain Postgres, and what
// the client shows must be the same to the letter.
//
// It holds tests only and may import everything. The programs are those of the folder that
// devcluster.FindBinaries finds, or of PATH where that folder has none; a machine without them fails the tests.
package clients
