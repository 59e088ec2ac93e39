package router

import (
	"context"
	"errors"
	"slices"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/wire"
)

// writer is a statement of the client that writes on several shards, ready for them.
type writer struct {
	plan   *planner.Plan
	shards []directoryShard
	sent   *exec.Statement
	bind   *wire.Bind
	types  []uint32 // of the parameters, where known
	portal string
	shift  int
}

// simpleModify runs a statement of a Query that writes on several shards.
func (c *Session) simpleModify(ctx context.Context, st *planner.Statement, plan *planner.Plan, target planner.Target) error {
	text, own := scatterText(st, plan)
	c.nextID++
	return c.modifyWhole(ctx, &writer{
		plan: plan, shards: target.Shards, bind: &wire.Bind{}, shift: st.Chars,
		sent: &exec.Statement{ID: c.nextID, Text: text, NoPosition: !own, Settings: c.vars.current, Meaning: c.vars.meaning},
	})
}

// modifyWhole runs a write on several shards to its end, for a Query. Outside of a transaction it is one of its own,
// which the end of the Query commits.
func (c *Session) modifyWhole(ctx context.Context, w *writer) error {
	own := !c.x.InBlock() && !c.x.InImplicitBlock() && !w.plan.Modify.Block
	if own {
		c.beginImplicit()
	}
	m, err := c.openModify(ctx, w)
	if err == nil {
		err = m.Run(ctx, 0, true)
	}
	if synced := c.x.Sync(ctx, err != nil); err == nil {
		err = synced
	}
	if err != nil && own {
		// The transaction is this statement alone: without it the statement can be run again under a newer map.
		err = errors.Join(err, c.rollback(ctx))
	}
	return err
}

// openModify binds the statement on its shards.
func (c *Session) openModify(ctx context.Context, w *writer) (*exec.Modification, error) {
	r := exec.ModifyRequest{Meaning: c.meaning(), Portal: w.portal, InOrder: w.plan.Modify.InOrder}
	for _, shard := range w.shards {
		r.Pieces = append(r.Pieces, exec.Piece{Shard: shard, Statement: w.sent, Bind: w.bind, Types: w.types, Shift: w.shift})
	}
	m, err := c.x.Modify(ctx, r)
	if err == nil && w.plan.Dirty {
		for _, shard := range w.shards {
			c.x.MarkDirty(shard)
		}
	}
	return m, err
}

// bindModify binds a portal of a statement that writes on several shards.
func (c *Session) bindModify(ctx context.Context, p *portal) error {
	if err := c.x.DrainAll(ctx); err != nil {
		return err
	}
	st := p.st
	if slices.Contains(p.bind.Formats, 1) && st.described.Parameters == nil {
		l, _, err := c.describer(ctx, st)
		if err == nil {
			err = c.describeParameters(ctx, l, st)
		}
		if err != nil {
			return err
		}
	}
	m, err := c.openModify(ctx, &writer{
		plan: p.plan, shards: p.target.Shards, sent: c.severalText(p), bind: &p.bind,
		types: st.described.Parameters, portal: p.name,
	})
	p.modify = m
	return err
}

// executeModify runs a portal that writes on several shards, or returns further rows of it.
func (c *Session) executeModify(ctx context.Context, p *portal, maxRows int32) error {
	if err := c.x.DrainAll(ctx); err != nil {
		return err
	}
	return p.modify.Run(ctx, maxRows, false)
}

// severalText is what several shards get for a portal.
func (c *Session) severalText(p *portal) *exec.Statement {
	st := p.st
	if p.plan.SQL == "" {
		return &st.sent
	}
	if st.scatter.Text != p.plan.SQL || st.scatter.Meaning != c.meaning() {
		st.scatter = c.statementFor(st.sent.ID+1, st.name, p.plan.SQL, st.sent.Types)
		st.scatter.NoPosition = true
	}
	return &st.scatter
}
