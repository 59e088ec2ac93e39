// Package fence makes a change of the partition map safe against routers that have not heard of it. It owns
// the floors of the shards (shardyard.epoch) and the termination of server connections of routers that are
// no longer live. It may import directory and directory/etcd.
//
// # What Publish guarantees
//
// When Publish or Settle returns without error, no statement that was planned under a map older than the
// change's epoch is running on the shards concerned, and none will ever start there. The steps, in order:
//
//  1. raise the floor of the shards concerned to the epoch that the change will get,
//  2. publish the change under exactly that epoch,
//  3. wait until every live router has acknowledged the epoch,
//  4. terminate the server connections that belong to no live router which acknowledged it, and wait until
//     they are gone.
//
// After (1) a router with an older map opens no new connection to these shards, so it is enough to look once
// at the connections that exist then: a connection that compared the floor before it was raised is on that
// list. Step 4 goes by this list, not by one of routers known to have expired: a router that started from its
// snapshot file, cut off from etcd, was never registered and is found all the same. The connections are
// listed before the live routers, so a router that registers in between is never taken for a dead one; if it
// turns out live and behind, steps 3 and 4 are repeated for its connections.
//
// # The order of floor and epoch
//
// The floor has to be known before the epoch is taken. Publish reads the map at epoch c, raises the floors
// to c+1 and swaps the map by comparing with exactly c. If it loses that race the map is at c' > c by then;
// it reads again, raises to c'+1, swaps at c'.
//
// Invariant: floor <= published epoch + 1. A floor is only ever raised to one more than an epoch that was
// read from etcd, and epochs never fall.
//
// Safe: a floor refuses; it never admits. It may be above what this change needs (the epoch went to a change
// that has nothing to do with the shard): then routers must merely have that unrelated map too. It is never
// below what a published change needs, since each change that needs a floor had it raised before its swap.
//
// Live: between (1) and (2), some milliseconds, a router with the newest map is refused new connections to
// those shards; it waits for the next map and tries again. If the publisher dies there, or cannot reach one
// of the shards, the floor stays one above the map. Publish itself then advances the epoch with nothing else
// changed; after its death whoever meets the floor does: a router refused under the newest map calls Heal,
// which waits a moment for a publisher that is only slow, and advances the epoch up to the floor. The slow
// publisher loses its race and starts over. Any other change heals as well, by taking the epoch. Healers
// compete by compare-and-swap on a target that stands still, so the epoch moves once.
//
// A restored etcd may be far behind the floors; Heal and Publish then advance the epoch to the floor in one step.
//
// # Dying half-way
//
// After (2) the change is published though not settled. Whoever resumes it (the worker of a move, the owner
// of a hold) calls Settle with its epoch; every step may be repeated. The wait in (3) includes the router
// that publishes: the session that calls must not itself hold a statement of the older epoch in flight.
//
// Prepared transactions outlive the connections that prepared them: they are ended by the recovery of
// two-phase commits, not here. A floor is written with synchronous_commit on; an asynchronous failover of a
// shard can lose it like any other commit, and Settle then raises it again.
package fence
