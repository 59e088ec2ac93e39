package router

import (
	"context"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/wire"
)

// describeMessage takes a Describe.
func (c *Session) describeMessage(ctx context.Context, body []byte) error {
	o, err := wire.DecodeDescribe(body)
	if err != nil {
		return err
	}
	if o.Kind == wire.ObjectStatement {
		st, err := c.find(o.Name)
		if err != nil {
			return err
		}
		return c.describeStatement(ctx, st)
	}
	p, err := c.findPortal(ctx, o.Name)
	if err != nil {
		return err
	}
	if err := c.flushPending(ctx); err != nil {
		return err
	}
	return c.describePortal(ctx, p)
}

// findPortal looks a portal up by name; cursors that SQL declared are portals too.
func (c *Session) findPortal(ctx context.Context, name []byte) (*portal, error) {
	if p, ok := c.portals[wire.View(name)]; ok {
		return p, nil
	}
	return c.cursorPortal(ctx, string(name))
}

func (c *Session) describeStatement(ctx context.Context, st *statement) error {
	if c.pending != st {
		if err := c.flushPending(ctx); err != nil {
			return err
		}
	}
	if err := c.checkFailed(st.plan, nil); err != nil {
		return err
	}
	if st.empty || c.isLocal(st.plan) && st.plan.Kind != planner.Execute {
		c.x.Local(appendDescription(wire.AppendParameterDescription(nil, nil), localColumns(st.plan)))
		return nil
	}
	if err := c.checkShape(ctx, st); err != nil {
		return err
	}
	l, sent, err := c.describer(ctx, st)
	if err != nil {
		return err
	}
	name, err := c.x.Parse(ctx, l, sent, c.takePending(st), c.meaning())
	if err != nil {
		return err
	}
	st.describing, st.seen = true, c.definitionsNow()
	c.x.DescribeStatement(l, name, false, &st.described)
	return nil
}

func appendDescription(dst []byte, columns []string) []byte {
	if columns == nil {
		return wire.AppendNoData(dst)
	}
	return wire.AppendRowDescription(dst, textColumns(columns))
}

func (c *Session) describePortal(ctx context.Context, p *portal) error {
	switch {
	case p.local:
		c.x.Local(appendDescription(nil, localColumns(p.plan)))
	case p.bound.Link() != nil:
		if err := c.x.Focus(ctx, p.bound.Link()); err != nil {
			return err
		}
		c.x.DescribePortal(&p.bound)
	case p.modify != nil:
		c.x.Local(p.modify.AppendDescription(nil))
	case p.plan.Kind == planner.Copy:
		c.x.Local(wire.AppendNoData(nil))
	default:
		if err := c.afresh(ctx, p, func() error { return c.openPortal(ctx, p) }); err != nil {
			return err
		}
		c.out.Put(func(dst []byte) []byte { return wire.AppendFrame(dst, wire.TypeRowDescription, p.scatter.Columns()) })
	}
	return nil
}

// openPortal opens the scatter of a portal.
func (c *Session) openPortal(ctx context.Context, p *portal) error {
	if p.scatter != nil {
		return nil
	}
	if err := c.x.DrainAll(ctx); err != nil {
		return err
	}
	st := p.st
	sent := c.severalText(p)
	args := planner.Args{
		Map: c.view.partitions, Statement: &st.parsed, Params: p.bind.Params, Formats: p.bind.Formats, Types: st.sent.Types,
	}
	scatter, err := c.openScatter(ctx, p.plan, exec.ScatterRequest{
		Shards: p.target.Shards, Statement: sent, Meaning: c.meaning(), Portal: p.name, Bind: &p.bind,
		Types: st.described.Parameters, Merge: p.plan.Merge, Tag: p.plan.Tag,
	}, args)
	p.scatter = scatter
	return err
}
