// Package mirror is the mechanism of mirrored writes: what one shard, the authority, says of the rows of a
// table is kept on other shards too, in the same transaction. A reference table is mirrored to every other
// shard; a partition that moves is mirrored to its destination.
//
// Triggers on the authority note the keys of changed rows in an outbox (shardyard.change). Whoever runs the
// transaction takes them out again with [DrainQuery] and writes the current state of the rows on the mirrors
// with [ApplyQuery], until the outbox is empty. What writers around the router left in it is applied by
// [Sweep]. The SQL itself stands in migrations/0003_mirror.up.sql.
//
// It is next to directory, and not in router or rebalance, because both work with it and neither may import
// the other. It may import directory.
package mirror
