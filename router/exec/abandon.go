package exec

import (
	"context"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/wire"
)

// Abandon gives up, in a transaction that has failed, the locks of the shards that know nothing of the failure: one
// Postgres gives them up with the error, not when the client says ROLLBACK. What can still be gone back to are the
// savepoints, so the shards go back to the last one.
//
// It is called when all answers of a request were read. A shard that cannot do it loses its connection, which rolls back too.
func (x *Executor) Abandon(ctx context.Context) {
	if x.tx.status != wire.TxFailed || !x.tx.explicit {
		return
	}
	sql := "ROLLBACK"
	if n := len(x.tx.savepoints); n > 0 {
		sql = "ROLLBACK TO SAVEPOINT " + directory.QuoteIdentifier(x.tx.savepoints[n-1])
	}
	// gofail: var beforeAbandon struct{}
	var told []*Link
	for _, l := range x.links {
		if !l.begun || l.conn.Broken() || l.conn.TxStatus() != wire.TxOpen || len(l.steps) > 0 || l.pipelined {
			continue
		}
		x.queueQuery(l, sql, step{kind: stepQuery, silent: true})
		if err := x.send(l); err != nil {
			l.conn.MarkBroken()
		}
		told = append(told, l)
	}
	// gofail: var afterAbandon struct{}
	for _, l := range told {
		if err := x.run(ctx, l); err != nil {
			l.conn.MarkBroken()
			continue
		}
		// Invariant: saved[0] is what a connection had before the transaction, saved[i] at savepoint i.
		last := len(x.tx.savepoints)
		l.conn.SetSettings(l.saved[last])
		l.saved = l.saved[:last+1]
		l.begun = last > 0
	}
	x.releaseIdle()
}
