// Package migrations owns the bookkeeping schema "shardyard" that every database of every shard
// carries: the SQL files (golang-migrate), the version table inside the schema, and the way they are
// applied. It imports nothing else of this module.
//
// Every up migration must be idempotent (IF NOT EXISTS, ON CONFLICT …) and runs as one implicit
// transaction. So a process that dies half-way leaves nothing behind but a "dirty" version, which the
// next Apply runs again instead of asking a person to repair it.
package migrations
