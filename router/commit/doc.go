// Package commit owns what transactions over several shards leave on the shards: the identifier of such a
// transaction (GID), the decision table's SQL, and the recovery of transactions whose router is gone or
// lost a shard (Resolver). docs/transactions.md says how a commit goes.
//
// It works over service connections of its own, never over a client's; the commit itself is done by
// router/exec. It may import directory, migrations and router/pgerr.
package commit
