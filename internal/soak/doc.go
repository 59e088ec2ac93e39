// Package soak holds two long tests of a router under many clients, which `make test` runs in a short form.
//
// TestClients (`make clients`): a thousand clients share 16 server connections of each shard, with settings, prepared statements and
// transactions mixed, while shards restart. No client may see another's settings, statements or rows, none may hang, and what was
// acknowledged is there.
//
// TestSoak (`make soak`): waves of clients that connect, cancel and vanish in every way that a client can. The number of goroutines,
// the memory and the server connections after each wave must not grow: a line is fitted through them, and its slope is bounded.
//
// It is for tests only and may import everything.
package soak
