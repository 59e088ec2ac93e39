// Package console is the admin database: what a client sees that connects to database "shardyard". SHOW commands tell the state of
// the router in PgBouncer's words and columns, with a column for the shard at the end; a few commands change something.
//
// It owns the commands, their columns and the protocol of such a session, simple and extended. What is shown is a State,
// which the router takes when a command runs; what is changed is done by functions of the router (Actions).
//
// It may import directory, router/backend, router/metrics, router/pgerr and router/wire.
package console
