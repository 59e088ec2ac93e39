// Package deadlock finds transactions that wait for each other over several shards, where no server sees the
// whole circle, and ends the youngest of each.
//
// It owns the graph of who waits for whom (pure), the query that reads it from a shard, and the loop that
// runs on every router. What runs on a router and how it is cancelled it is told by functions.
//
// It may import directory, router/backend and router/pgerr.
package deadlock
