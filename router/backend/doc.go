// Package backend owns the connections to the shards: pools, the state that a server connection carries between
// sessions (settings, prepared statements), cancel requests, and what becomes of a connection when a session gives
// it back.
//
// Connections are opened by pgx's pgconn and then hijacked: frames are relayed as they are (package wire). A role whose password
// nobody configured logs in with the SCRAM keys that a client of it has shown (LearnKeys). Before its
// first use each new connection compares the shard's floor with the epoch that the caller planned under, so that a
// router with an old map can neither read nor write what has moved.
//
// It imports directory, router/metrics, router/wire, router/pgerr, and pgx.
package backend
