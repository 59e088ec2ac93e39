package router

import (
	"context"
	"slices"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// executeMessage takes an Execute.
func (c *Session) executeMessage(ctx context.Context, body []byte) error {
	m, err := wire.DecodeExecute(body)
	if err != nil {
		return err
	}
	if err := c.flushPending(ctx); err != nil {
		return err
	}
	p, err := c.findPortal(ctx, m.Portal)
	if err != nil {
		return err
	}
	if err := c.checkFailed(p.plan, nil); err != nil {
		return err
	}
	if err := c.recheck(ctx, p); err != nil {
		return err
	}
	// A portal may have been bound long ago: what has written since then counts.
	if !p.local {
		if err := c.mayUse(ctx, p.plan, p.target.Shards); err != nil {
			return err
		}
	}
	if !p.local {
		c.noteUsed(p.plan)
	}
	c.expectUnseen(p.plan, p.st.parsed.Text, p.bind.Params)
	if p.inner != nil {
		c.expectUnseen(p.inner, "", nil)
	}
	err = c.executePortal(ctx, p, m.MaxRows)
	if err == nil && !c.x.CopyingIn() {
		c.noteUnseen(m.MaxRows == 0)
	}
	return err
}

// executePortal runs a portal, as it was bound.
func (c *Session) executePortal(ctx context.Context, p *portal, maxRows int32) error {
	switch {
	case p.local:
		return c.executeLocal(ctx, p, maxRows)
	case p.bound.Link() != nil:
		return c.executeOn(ctx, p, maxRows)
	case p.modify != nil:
		return c.executeModify(ctx, p, maxRows)
	case p.plan.Kind == planner.Copy && p.plan.Copy.Rows != nil:
		return c.afresh(ctx, p, func() error { return c.copyIn(ctx, p.st.parsed.Text, p.plan, p.target, 0) })
	case p.plan.Kind == planner.Copy:
		return c.x.CopyOut(ctx, p.target.Shards, p.st.parsed.Text, p.plan.Copy, 0)
	}
	if err := c.afresh(ctx, p, func() error { return c.openPortal(ctx, p) }); err != nil {
		return err
	}
	if err := c.x.DrainAll(ctx); err != nil {
		return err
	}
	return p.scatter.Run(ctx, maxRows)
}

// recheck makes sure that a portal which was bound under an older map would be bound on the same shards now.
func (c *Session) recheck(ctx context.Context, p *portal) error {
	if c.inFlight.Load() == 0 {
		c.enter()
	}
	if p.local || p.view == c.view || p.scatter != nil && !p.scatter.Fresh() || p.modify != nil && !p.modify.Fresh() {
		return nil
	}
	if err := c.replan(ctx, p.st); err != nil {
		return err
	}
	if p.st.plan.Kind != p.plan.Kind {
		return errNewerMap("the partition map changed since the portal was bound")
	}
	target, err := c.portalTarget(ctx, p)
	if err != nil {
		return err
	}
	if !slices.Equal(target.Shards, p.target.Shards) {
		return errNewerMap("the partition map changed since the portal was bound")
	}
	p.view = c.view
	return nil
}

// executeLocal runs a statement of the router itself; its result can be fetched in parts.
func (c *Session) executeLocal(ctx context.Context, p *portal, maxRows int32) error {
	if p.st.empty || p.plan.Kind == planner.Empty {
		c.x.Local(wire.AppendEmptyQuery(nil))
		return nil
	}
	if err := c.x.DrainAll(ctx); err != nil {
		return err
	}
	if p.done && p.result.columns == nil {
		return pgerr.Newf("55000", "portal %q cannot be run", p.name)
	}
	if !p.done {
		p.done = true
		r, err := c.runLocal(ctx, &p.st.parsed, p.plan)
		if err != nil {
			return err
		}
		p.result = r
	}
	if maxRows > 0 && len(p.result.rows) >= int(maxRows) {
		part := result{rows: p.result.rows[:maxRows]}
		p.result.rows = p.result.rows[maxRows:]
		return c.sendRows(part, wire.AppendPortalSuspended)
	}
	r := p.result
	p.result.rows = nil
	return c.sendResult(r)
}

// sendRows sends rows without a tag, then what end appends.
func (c *Session) sendRows(r result, end func([]byte) []byte) error {
	if err := c.appendRows(r); err != nil {
		return err
	}
	c.out.Put(end)
	return nil
}

// executeOn runs a portal on its shard.
func (c *Session) executeOn(ctx context.Context, p *portal, maxRows int32) error {
	l := p.bound.Link()
	if err := c.cursorTaken(ctx, p.plan, l.Shard()); err != nil {
		return err
	}
	if err := c.x.Focus(ctx, l); err != nil {
		return err
	}
	plan := p.plan
	if inner := p.inner; inner != nil { // an EXECUTE does what its statement does
		plan = inner
	}
	if err := c.watch(ctx, l, plan); err != nil {
		return err
	}
	undo := c.prepareEffects(l, plan)
	c.noteNotifier(ctx, l, plan)
	c.x.Execute(&p.bound, maxRows)
	if plan.Mirrors || c.watched(plan) {
		if err := c.x.Drain(ctx, l); err != nil || c.x.CopyingIn() {
			return err
		}
		if err := c.x.Settle(ctx); err != nil {
			return err
		}
	}
	if plan.Kind == planner.Copy && plan.Copy.From && plan.Copy.Stdio {
		return c.x.Drain(ctx, l)
	}
	if plan.Pins == "" && len(plan.SetConfig) == 0 && !moves(plan) && !plan.Restarts && plan.Kind != planner.DDL && !((plan.Kind == planner.Relay || plan.Kind == planner.Modify) && len(c.temps) > 0) {
		return nil
	}
	// What it leaves behind must be known before the next statement.
	if err := c.x.Drain(ctx, l); err != nil {
		undo()
		return err
	}
	return c.afterEffects(ctx, l, plan)
}

// closeMessage takes a Close. What does not exist is closed without an error, as in Postgres.
func (c *Session) closeMessage(ctx context.Context, body []byte) error {
	o, err := wire.DecodeClose(body)
	if err != nil {
		return err
	}
	if err := c.flushPending(ctx); err != nil {
		return err
	}
	if o.Kind == wire.ObjectStatement {
		delete(c.statements, string(o.Name))
	} else if p, ok := c.portals[string(o.Name)]; ok {
		delete(c.portals, string(o.Name))
		if err := c.closePortal(ctx, p); err != nil {
			return err
		}
	}
	c.x.Local(wire.AppendCloseComplete(nil))
	return nil
}

func (c *Session) closePortal(ctx context.Context, p *portal) error {
	if p.scatter != nil {
		return p.scatter.Close(ctx)
	}
	if p.modify != nil {
		return p.modify.Close(ctx)
	}
	if l := p.bound.Link(); l != nil {
		if err := c.x.Focus(ctx, l); err != nil {
			return err
		}
		c.x.ClosePortal(&p.bound, false)
	}
	return nil
}
