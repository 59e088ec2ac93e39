package router

import (
	"bytes"
	"context"

	"github.com/shardyard/shardyard/planner/catalog"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// Postgres fixes the columns that a prepared statement returns, and the types of its parameters, when it is prepared: the
// client may rely on them. A server connection that gets the statement after a change of a table would take it as a new one, so
// the router itself compares.

// definitionsSeen says which definitions a prepared statement was last compared under.
type definitionsSeen struct {
	version, redefined uint64
	own                *catalog.Snapshot // of a transaction that has changed some
}

func (c *Session) definitionsNow() definitionsSeen {
	return definitionsSeen{c.view.partitions.CatalogVersion, c.database.redefined.Load(), c.changes.catalog}
}

// checkShape makes sure that a statement still returns the columns that it was described with, once after each change of
// definitions. It takes a round trip then.
func (c *Session) checkShape(ctx context.Context, st *statement) error {
	now := c.definitionsNow()
	if st.seen == now || !st.described.Described || st.empty || st.plan.ParseOnly || c.x.Failed() {
		return nil
	}
	if st.described.Columns == nil {
		st.seen = now // it cannot return any
		return nil
	}
	l, _, err := c.describer(ctx, st)
	if err == nil {
		err = c.x.Drain(ctx, l)
	}
	if err != nil {
		return err
	}
	c.nextID += 2
	if st.described.Parameters != nil {
		st.sent.Types = st.described.Parameters
	}
	fresh := c.statementFor(c.nextID, "", st.parsed.Text, st.sent.Types)
	fresh.NoPosition = true
	var described exec.Description
	name, err := c.x.Parse(ctx, l, &fresh, false, c.meaning())
	if err == nil {
		c.x.DescribeStatement(l, name, true, &described)
		if c.rest.simple { // else the client's Sync ends the pipeline, after an error too
			err = c.x.SyncLink(ctx, l)
		}
	}
	if err == nil {
		err = c.x.Drain(ctx, l)
	}
	if err != nil {
		return err
	}
	same, err := sameColumns(st.described.Columns, described.Columns)
	if err != nil {
		return err
	}
	if !same {
		return pgerr.New("0A000", "cached plan must not change result type")
	}
	st.seen = now
	return nil
}

// sameColumns compares two bodies of RowDescription but for the tables that the columns are of.
func sameColumns(a, b []byte) (bool, error) {
	if a == nil || b == nil {
		return a == nil && b == nil, nil
	}
	have, err := wire.DecodeRowDescription(nil, a)
	if err != nil {
		return false, err
	}
	want, err := wire.DecodeRowDescription(nil, b)
	if err != nil || len(have) != len(want) {
		return false, err
	}
	for i := range have {
		if !bytes.Equal(have[i].Name, want[i].Name) || have[i].Type != want[i].Type || have[i].Typmod != want[i].Typmod {
			return false, nil
		}
	}
	return true, nil
}

// learnShape has a shard describe a named statement that it is about to parse, for checkShape.
func (c *Session) learnShape(l *link, st *statement, name string) {
	if st.name == "" || st.described.Described || st.describing {
		return
	}
	st.seen = c.definitionsNow()
	c.x.DescribeStatement(l, name, true, &st.described)
}
