package exec

import (
	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/metrics"
)

// usage notes what the running request and its transaction have needed of the shards, for statistics. It belongs to the session's
// goroutine and costs no more than two comparisons a statement.
type usage struct {
	request, transaction     metrics.Kind
	requestAt, transactionAt directory.ShardID // where the first statement went
	parses                   uint64            // statements prepared on servers
}

// note notes a statement on a shard.
func (u *usage) note(shard directory.ShardID) {
	if shard != u.requestAt {
		u.request = max(u.request, reach(u.requestAt))
		if u.requestAt == "" {
			u.requestAt = shard
		}
	}
	if shard != u.transactionAt {
		u.transaction = max(u.transaction, reach(u.transactionAt))
		if u.transactionAt == "" {
			u.transactionAt = shard
		}
	}
}

// reach is the kind of what goes to one more shard than the first, which is "" while there is none.
func reach(first directory.ShardID) metrics.Kind {
	if first == "" {
		return metrics.Single
	}
	return metrics.Several
}

// twoPhase notes a commit on several shards.
func (u *usage) twoPhase() { u.request, u.transaction = metrics.TwoPhase, metrics.TwoPhase }

// TakeRequestUsage says what the request that ends now needed, and how many statements were prepared on servers for it.
func (x *Executor) TakeRequestUsage() (kind metrics.Kind, parses uint64) {
	kind, parses = x.usage.request, x.usage.parses
	x.usage.request, x.usage.requestAt, x.usage.parses = metrics.Router, "", 0
	return kind, parses
}

// TakeTransactionUsage says what the transaction that has ended needed.
func (x *Executor) TakeTransactionUsage() metrics.Kind {
	kind := x.usage.transaction
	x.usage.transaction, x.usage.transactionAt = metrics.Router, ""
	return kind
}
