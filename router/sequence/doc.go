// Package sequence gives the rows of sharded tables their numbers. The sequences are on the home shard; a Source draws
// values there in blocks, over connections of its own, and hands them out to the sessions of one router.
//
// What is promised: a value is handed out once over all routers, because Postgres's own nextval gave it; it is handed out
// only when the transaction that drew it is on the home shard's disk, so that it is not given again after a crash; and one
// session never gets a value that Postgres drew before one that it got earlier. What is not promised, as by
// Postgres for sequences with CACHE: that there are no gaps, and that the values of several sessions are in the order of time.
//
// It may import directory and router/pgerr.
package sequence
