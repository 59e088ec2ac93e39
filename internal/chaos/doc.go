// Package chaos holds the test of what survives: clients move money between accounts on three
// shards through two routers, readers add everything up, and meanwhile a seeded nemesis kills (-9),
// restarts and stops (SIGSTOP) shards, routers and etcd, each a process of its own.
//
// What must hold, always: every sum ever read is the same; no acknowledged transfer is missing and
// none that was refused is there; the balances are what the ledger makes them; and when all is healed
// nothing stays prepared.
//
// It is for tests only and may import everything. `make chaos` runs it for five minutes, `make test`
// for one:
//
//	go test ./internal/chaos -chaos.for 5m -chaos.seed 42
package chaos
