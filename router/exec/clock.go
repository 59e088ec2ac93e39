package exec

import (
	"context"
	"slices"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
)

// TimestamptzOID is the OID of timestamptz.
const TimestamptzOID = timestamptzOID

// present asks for the time of the transaction and that of the statement, in a form that every DateStyle reads alike.
const present = `SELECT pg_catalog.to_char(pg_catalog.timezone('UTC', pg_catalog.transaction_timestamp()), 'YYYY-MM-DD HH24:MI:SS.US"+00"'),
 pg_catalog.to_char(pg_catalog.timezone('UTC', pg_catalog.statement_timestamp()), 'YYYY-MM-DD HH24:MI:SS.US"+00"')`

// ClockShard is the shard whose clock is that of the transaction: the first that it has used, or the given one.
func (x *Executor) ClockShard(otherwise directory.ShardID) directory.ShardID {
	if i := slices.IndexFunc(x.links, func(l *Link) bool { return l.used && (l.begun || l.pipelined) }); i >= 0 {
		return x.links[i].shard
	}
	return otherwise
}

// Present returns what now() and statement_timestamp() are for a statement on these shards, as text for a timestamptz.
// The time of the transaction is that of the first shard that it has used, and stays so.
func (x *Executor) Present(ctx context.Context, shards []directory.ShardID) (transaction, statement string, err error) {
	shard := x.ClockShard(shards[0])
	l, err := x.Link(ctx, shard)
	if err != nil {
		return "", "", err
	}
	if !x.tx.block {
		l.pipelined = true // the time of the implicit transaction, not of one that ends here
	}
	rows, err := x.Ask(ctx, l, present)
	if err != nil {
		return "", "", err
	}
	if len(rows) != 1 || len(rows[0]) != 2 || rows[0][0] == nil || rows[0][1] == nil {
		return "", "", pgerr.Newf(pgerr.InternalError, "shard %s does not tell the time", shard)
	}
	if x.tx.present == "" {
		x.tx.present = *rows[0][0]
	}
	if x.InImplicitBlock() {
		return x.tx.present, x.tx.present, nil // Postgres counts both from the arrival of the Query
	}
	return x.tx.present, *rows[0][1], nil
}
