package exec

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
)

// Code of which it cannot be seen which tables it uses (dynamic SQL, functions in C) runs on one shard, and would take that
// shard's rows of a sharded table for all of them. Whether it has used such a table can be seen afterwards: its locks stand until the
// transaction ends, and where a rollback to a savepoint has taken them away, or the transaction had them before, Postgres has counted
// the scans and the changed rows.

// watch is what is known of what a link's transaction has done with tables.
type watch struct {
	list   []uint32          // OIDs of the tables
	tables string            // the same, as an array
	traces map[string]string // by OID
	// fresh: no statement of the client ran since the traces were taken.
	fresh bool
	// running: a watched statement runs, or its traces have not been looked at yet.
	running bool
}

// tracesQuery tells what the transaction has done with the tables of an array of OIDs.
const tracesQuery = `SELECT t.o, pg_catalog.concat_ws(',',
  (SELECT pg_catalog.string_agg(l.mode, ' ' ORDER BY l.mode) FROM pg_catalog.pg_locks AS l
   WHERE l.locktype OPERATOR(pg_catalog.=) 'relation' AND l.relation OPERATOR(pg_catalog.=) t.o AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
     AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())),
  pg_catalog.pg_stat_get_xact_numscans(t.o),
  (SELECT pg_catalog.sum(pg_catalog.pg_stat_get_xact_numscans(i.indexrelid)) FROM pg_catalog.pg_index AS i WHERE i.indrelid OPERATOR(pg_catalog.=) t.o),
  pg_catalog.pg_stat_get_xact_tuples_inserted(t.o), pg_catalog.pg_stat_get_xact_tuples_updated(t.o), pg_catalog.pg_stat_get_xact_tuples_deleted(t.o))
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS t(o)`

// Watch says before a statement runs on a link, inside a transaction, that it must not use these tables, given by their OIDs there. Its
// command tag is held back until Settle, which must follow and fails if it has used one.
func (x *Executor) Watch(ctx context.Context, l *Link, tables []uint32) error {
	if len(tables) == 0 {
		return nil
	}
	oids := make([]string, len(tables))
	for i, oid := range tables {
		oids[i] = strconv.FormatUint(uint64(oid), 10)
	}
	array := "{" + strings.Join(oids, ",") + "}"
	if l.watch == nil || !l.watch.fresh || l.watch.tables != array {
		l.watch = &watch{list: tables, tables: array}
		if err := x.trace(ctx, l); err != nil {
			return err
		}
	}
	l.watch.running = true
	return nil
}

// trace reads the traces.
func (x *Executor) trace(ctx context.Context, l *Link) error {
	rows, err := x.askWith(ctx, l, tracesQuery, l.watch.tables)
	if err != nil {
		return err
	}
	l.watch.traces = make(map[string]string, len(rows))
	for _, row := range rows {
		if len(row) == 2 && row[0] != nil && row[1] != nil {
			l.watch.traces[*row[0]] = *row[1]
		}
	}
	l.watch.fresh = true
	return nil
}

// holds reports whether the command tag of what runs next waits for Settle.
func (l *Link) holds() bool { return l.unsettled || l.watch != nil && l.watch.running }

// settleWatched looks at the traces of watched statements. last: the transaction is to end, so what they have deferred runs first.
func (x *Executor) settleWatched(ctx context.Context, last bool) error {
	var few [fewLinks]*Link
	for _, l := range append(few[:0], x.links...) {
		if l.watch == nil || !l.watch.running && !last {
			continue
		}
		if last {
			if !l.watch.fresh {
				if err := x.trace(ctx, l); err != nil {
					return err
				}
			}
			if err := x.runDeferred(ctx, l); err != nil {
				return err
			}
		}
		if err := x.compareTraces(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// runDeferred runs what the transaction has deferred to its end. The client hears the notices, as from COMMIT.
func (x *Executor) runDeferred(ctx context.Context, l *Link) error {
	const sql = "SET CONSTRAINTS ALL IMMEDIATE"
	if l.pipelined && !l.begun {
		x.queueExtended(l, sql)
		last := &l.steps[len(l.steps)-1]
		last.notices, last.noBlock = true, true
		return x.Drain(ctx, l)
	}
	x.queueQuery(l, sql, step{kind: stepQuery, silent: true, notices: true})
	return x.run(ctx, l)
}

// SettleAll is what a commit does first: what is deferred runs, and what must be looked at is.
func (x *Executor) SettleAll(ctx context.Context) error {
	if err := x.settleWatched(ctx, true); err != nil {
		return err
	}
	return x.settleMirrors(ctx, true)
}

// OnlyOn reports whether the transaction has used no other shard, and captured nothing for mirrors.
func (x *Executor) OnlyOn(shard directory.ShardID) bool {
	return !slices.ContainsFunc(x.links, func(l *Link) bool { return l.begun && l.shard != shard || l.captured })
}

func (x *Executor) compareTraces(ctx context.Context, l *Link) error {
	before := l.watch.traces
	l.watch.running = false
	if err := x.trace(ctx, l); err != nil {
		return err
	}
	for oid, trace := range l.watch.traces {
		if before[oid] == trace {
			continue
		}
		n, err := strconv.ParseUint(oid, 10, 32)
		if err != nil {
			return err
		}
		name := "a table"
		if x.view.Catalog != nil {
			if rel, ok := x.view.Catalog.RelationByOID(uint32(n)); ok {
				name = "table " + rel.Name.String()
			}
		}
		return pgerr.Unsupported("a function or DO block has used "+name+", which is not on the home shard alone",
			"It would see the rows of one shard. Use the table in statements of their own.")
	}
	return nil
}
