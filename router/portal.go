package router

import (
	"context"
	"fmt"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// portal is a bound statement of the client.
type portal struct {
	name    string
	st      *statement
	plan    *planner.Plan
	inner   *planner.Plan // of what an EXECUTE executes
	view    *view
	target  planner.Target
	bound   exec.Portal // where one shard runs it
	bind    wire.Bind   // views tail
	tail    []byte
	scatter *exec.Scatter
	modify  write
	insert  *insertion // of an INSERT that one shard cannot run as it is
	local   bool
	done    bool // a local statement ran
	// savepoints is the number of savepoints that stood when it was bound.
	savepoints int
	result     result
}

// bindMessage takes a Bind.
func (c *Session) bindMessage(ctx context.Context, body []byte) error {
	if err := c.bind.Decode(body); err != nil {
		if c.bind.Statement != nil {
			if _, unknown := c.find(c.bind.Statement); unknown != nil {
				return unknown // Postgres looks for it before it reads on
			}
		}
		return err
	}
	c.tally.counts.Binds.Add(1)
	name := string(c.bind.Portal)
	st, err := c.find(c.bind.Statement)
	if err != nil {
		return err
	}
	if err := c.readBetween(ctx, st.parsed.Text); err != nil {
		return err
	}
	if c.pending != nil && c.pending != st {
		if err := c.flushPending(ctx); err != nil {
			return err
		}
	}
	p, err := c.newPortal(name, st)
	if err != nil {
		return err
	}
	p.tail = append(p.tail[:0], c.bind.Tail...)
	c.bind.Portal, c.bind.Statement = nil, nil
	if err := p.bind.DecodeTail(p.tail); err != nil {
		return err
	}
	for range maxRetries {
		retry, err := c.staleMap(ctx, c.bindPortal(ctx, p))
		if !retry {
			if err == nil {
				c.portals[name] = p
			}
			return err
		}
	}
	return errNewerMap("the shards kept asking for a newer partition map")
}

func (c *Session) newPortal(name string, st *statement) (*portal, error) {
	if old, ok := c.portals[name]; ok {
		if name != "" {
			return nil, pgerr.Newf("42P03", "cursor %q already exists", name)
		}
		delete(c.portals, name)
		if l := old.bound.Link(); l == nil && old.scatter == nil && old.modify == nil {
			c.spare = old
		}
	}
	p := c.spare
	if c.spare = nil; p == nil {
		p = new(portal)
	}
	p.bound.Reset()
	*p = portal{name: name, st: st, tail: p.tail[:0], bind: p.bind, bound: p.bound, savepoints: c.x.Savepoints()}
	return p, nil
}

// sparePortal keeps the unnamed portal, which is about to be forgotten, for the next one.
func (c *Session) sparePortal() {
	if p := c.portals[""]; p != nil && cap(p.tail) <= keptRequest && p.scatter == nil && p.modify == nil && p.insert == nil {
		c.spare = p // as it is: it may be the one of the COMMIT that is running
	}
}

// bindPortal plans the portal's execution and binds it where one shard runs it.
func (c *Session) bindPortal(ctx context.Context, p *portal) error {
	st := p.st
	if err := c.replan(ctx, st); err != nil {
		return err
	}
	if err := c.checkFailed(st.plan, nil); err != nil {
		return err
	}
	if st.seen != c.definitionsNow() {
		if err := c.checkShape(ctx, st); err != nil {
			return err
		}
	}
	if st.plan.Calls != nil {
		var err error
		if st, err = c.valued(ctx, p); err != nil {
			return err
		}
	}
	p.plan, p.view = st.plan, c.view
	if st.empty || c.isLocal(st.plan) && st.plan.Kind != planner.Execute {
		if n := len(p.bind.Params); n > 0 {
			return errParameterCount(st, n, 0)
		}
		p.local = true
		return c.answerBind(st)
	}
	if st.plan.ParseOnly && c.view.sharded() {
		return c.parseOnly(ctx, &st.parsed)
	}
	if st.plan.Kind == planner.Execute && c.view.sharded() {
		if done, err := c.bindExecute(ctx, p); done || err != nil {
			return err
		}
	}
	target, err := c.portalTarget(ctx, p)
	if err != nil {
		return err
	}
	p.target = target
	if inner, ok := c.statements[executeName(st.plan)]; ok {
		p.plan = inner.plan // what an EXECUTE leaves behind is what its statement does
	}
	if err := c.mayUse(ctx, st.plan, target.Shards); err != nil {
		return err
	}
	return c.bindTarget(ctx, p, st)
}

// bindTarget binds a portal on its shards. asked is the statement that the client bound.
func (c *Session) bindTarget(ctx context.Context, p *portal, asked *statement) error {
	st, target := p.st, p.target
	if !target.Whole || len(target.Shards) > 1 || st.plan.Kind == planner.Copy && st.plan.Copy.Rows != nil {
		if err := c.flushPending(ctx); err != nil {
			return err
		}
		if p.insert != nil {
			if err := c.bindInsert(ctx, p); err != nil {
				return err
			}
		} else if target.Transfer {
			if err := c.bindTransfer(ctx, p); err != nil {
				return err
			}
		} else if target.Combine {
			if err := c.bindCombination(ctx, p); err != nil {
				return err
			}
		} else if p.plan.Modify != nil {
			if err := c.bindModify(ctx, p); err != nil {
				return err
			}
		} else if st.plan.Kind != planner.Copy {
			if err := c.openPortal(ctx, p); err != nil {
				return err
			}
		}
		return c.answerBind(asked)
	}
	return c.bindOn(ctx, p, target.Shards[0])
}

func errParameterCount(st *statement, have, want int) error {
	return pgerr.New(pgerr.ProtocolViolation, fmt.Sprintf(
		"bind message supplies %d parameters, but prepared statement %q requires %d", have, st.name, want))
}

// answerBind answers Bind, and Parse if that is still owed, for what no single shard runs.
func (c *Session) answerBind(st *statement) error {
	var frames []byte
	if c.takePending(st) {
		frames = wire.AppendParseComplete(frames)
	}
	c.x.Local(wire.AppendBindComplete(frames))
	return nil
}

func (c *Session) portalTarget(ctx context.Context, p *portal) (planner.Target, error) {
	if p.st.plan.Insert != nil {
		return c.insertPortal(ctx, p)
	}
	return c.targets(ctx, p)
}

// readable refuses values of parameters that cannot be read for the routing.
func (c *Session) readable(p *portal) error {
	if !c.vars.foreign || !c.view.sharded() {
		return nil
	}
	for _, value := range p.bind.Params {
		if !isASCII(wire.View(value)) {
			return errForeignEncoding(c.vars.value("client_encoding"))
		}
	}
	return nil
}

func (c *Session) targets(ctx context.Context, p *portal) (planner.Target, error) {
	st := p.st
	if err := c.readable(p); err != nil {
		return planner.Target{}, err
	}
	if st.plan.Kind == planner.Execute {
		return c.executeTargets(ctx, st)
	}
	return c.targetOf(ctx, st.plan, planner.Args{
		Map: c.view.partitions, Statement: &st.parsed, Params: p.bind.Params, Formats: p.bind.Formats, Types: st.types(),
	})
}

// bindOn binds a portal on the only shard that runs it.
func (c *Session) bindOn(ctx context.Context, p *portal, shard directory.ShardID) error {
	st := p.st
	if st.plan.Kind == planner.DDL {
		if err := c.beforeDDL(ctx); err != nil {
			return err
		}
	}
	err := c.showListening(ctx, st.plan)
	if err != nil {
		return err
	}
	l, err := c.x.Link(ctx, shard)
	if err == nil {
		err = c.mayAsk(l, st.plan, p.bind.Params)
	}
	if err != nil {
		return err
	}
	sent := &st.sent
	if st.plan.Kind == planner.Execute {
		if sent, err = c.rewriteExecute(ctx, l, st); err != nil {
			return err
		}
		if named, err := c.find([]byte(st.plan.Execute.Name)); err == nil {
			p.inner = named.plan
		}
	}
	if st.plan.Executes != "" {
		if sent, err = c.rewriteExecuting(ctx, l, st); err != nil {
			return err
		}
	}
	if l.NeedsParameterTypes(&p.bind) {
		if err := c.describeParameters(ctx, l, st); err != nil {
			return err
		}
	}
	if !c.readOnly(st.plan) {
		c.x.NameMember(l)
	}
	first := c.takePending(st)
	name, err := c.x.Parse(ctx, l, sent, first, c.meaning())
	if err != nil {
		return err
	}
	if first && st.plan.Kind != planner.Execute {
		c.learnShape(l, st, name)
	}
	tail := p.tail
	if l.NeedsParameterTypes(&p.bind) {
		if err := c.x.TranslateParameters(l, &p.bind, st.described.Parameters); err != nil {
			return err
		}
		tail = wire.AppendBind(nil, "", "", p.bind.Formats, p.bind.Params, p.bind.ResultFormats)[7:]
	}
	p.bound.SetReadOnly(c.readOnly(st.plan))
	p.bound.SetNoPosition(sent.NoPosition)
	p.bound.SetPart(sent.Part)
	c.x.Bind(l, &p.bound, p.name, name, tail, true)
	c.x.DescribeRows(&p.bound, &p.bind)
	return nil
}

// valued binds the portal to its statement with values in place of the calls of currval, lastval and nextval.
func (c *Session) valued(ctx context.Context, p *portal) (*statement, error) {
	if err := c.flushPending(ctx); err != nil {
		return nil, err
	}
	given, types, err := c.withValues(ctx, &p.st.parsed, p.st.plan, p.st.sent.Types, p.bind.Params)
	if err != nil {
		return nil, err
	}
	st := &statement{parsed: given}
	if st.plan, err = c.plan(ctx, &st.parsed, types); err != nil {
		return nil, err
	}
	st.planned = planKey{c.view, c.vars.version}
	c.nextID += 2
	st.sent = c.statementFor(c.nextID, "", given.Text, types)
	st.sent.NoPosition = !given.Native
	p.st = st
	return st, nil
}

// describeParameters learns the types of a statement's parameters from a shard.
func (c *Session) describeParameters(ctx context.Context, l *link, st *statement) error {
	if st.described.Parameters != nil {
		return nil
	}
	name, err := c.x.Parse(ctx, l, &st.sent, c.takePending(st), c.meaning())
	if err != nil {
		return err
	}
	c.x.DescribeStatement(l, name, true, &st.described)
	return c.x.Drain(ctx, l)
}
