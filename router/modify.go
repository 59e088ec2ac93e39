package router

import (
	"context"
	"errors"
	"slices"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
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
	target planner.Target
}

// simpleModify runs a statement of a Query that writes on several shards.
func (c *Session) simpleModify(ctx context.Context, st *planner.Statement, plan *planner.Plan, target planner.Target) error {
	text, own := scatterText(st, plan)
	c.nextID++
	err := c.modifyWhole(ctx, &writer{
		plan: plan, shards: target.Shards, target: target, bind: &wire.Bind{}, shift: st.Chars,
		sent: &exec.Statement{ID: c.nextID, Text: text, NoPosition: !own, Settings: c.vars.carried, Meaning: c.vars.meaning},
	})
	return c.positioned(ctx, st, plan, target, err)
}

// positioned gives the error of a statement whose shards got another text its place in the client's text, if it is one
// that a shard finds when it parses that.
func (c *Session) positioned(ctx context.Context, st *planner.Statement, plan *planner.Plan, target planner.Target, err error) error {
	var told, again *pgerr.Error
	if plan.SQL == "" || !errors.As(err, &told) || told.Position != 0 {
		return err
	}
	if !errors.As(c.x.ParseElsewhere(ctx, target.Shards[0], st.Text), &again) || again.Code != told.Code || again.Message != told.Message {
		return err
	}
	if again.Position == 0 {
		return err
	}
	return again.At(int(again.Position) + st.Chars)
}

// modifyWhole runs a write on several shards to its end, for a Query.
func (c *Session) modifyWhole(ctx context.Context, w *writer) error {
	return c.writeWhole(ctx, w.plan.Modify.Block, func() (write, error) { return c.openModify(ctx, w) })
}

// writeWhole opens a write on several shards and runs it to its end, for a Query. Outside of a transaction it is one of
// its own, which the end of the Query commits, unless it needs a block of the client.
func (c *Session) writeWhole(ctx context.Context, needsBlock bool, open func() (write, error)) error {
	own := !c.x.InBlock() && !c.x.InImplicitBlock() && !needsBlock
	if own {
		c.beginImplicit()
	}
	m, err := open()
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
	r := exec.ModifyRequest{Meaning: c.meaning(), Portal: w.portal, InOrder: w.plan.Modify.InOrder, Move: w.plan.Modify.Move,
		Entries: c.server.entries.Known(), Resolve: c.resolveAll}
	if r.Move != nil && c.vars.foreign {
		return nil, errForeignEncoding(c.vars.value("client_encoding"))
	}
	sent, bind, err := c.fixTime(ctx, w.plan.Clock, w.shards, w.sent, w.bind)
	if err != nil {
		return nil, err
	}
	if r.Move != nil && len(bind.ResultFormats) > 1 {
		extended := *bind
		extended.ResultFormats = append(slices.Clone(bind.ResultFormats), make([]int16, r.Move.Hidden)...)
		bind = &extended
	}
	spread := w.plan.Modify.Spread
	if spread != nil {
		if sent, err = spreadStatement(sent, len(bind.Params), spread); err != nil {
			return nil, err
		}
	}
	for i, shard := range w.shards {
		own := bind
		if spread != nil {
			own = spreadBind(bind, spread.Numbers(w.target, i))
		}
		r.Pieces = append(r.Pieces, exec.Piece{Shard: shard, Statement: sent, Bind: own, Types: w.types, Shift: w.shift})
	}
	m, err := c.x.Modify(ctx, r)
	if err == nil && w.plan.Dirty {
		for _, shard := range w.shards {
			c.x.MarkDirty(shard)
		}
	}
	return m, err
}

// int4ArrayOID is the OID of int4[].
const int4ArrayOID = 1007

// spreadStatement is a statement with the type of the parameter that has the numbers of a shard's rows, behind the others.
func spreadStatement(st *exec.Statement, params int, spread *planner.SpreadData) (*exec.Statement, error) {
	if params != spread.Param-1 {
		return nil, pgerr.Newf(pgerr.ProtocolViolation, "bind message supplies %d parameters, but prepared statement requires %d", params, spread.Param-1)
	}
	typed := *st
	typed.Types = make([]uint32, spread.Param)
	copy(typed.Types, st.Types)
	typed.Types[spread.Param-1] = int4ArrayOID
	if typed.Key != "" {
		typed.Key = backend.PreparedKey(typed.Text, typed.Types, typed.Meaning)
	}
	return &typed, nil
}

// spreadBind adds the numbers of a shard's rows to the values.
func spreadBind(bind *wire.Bind, numbers string) *wire.Bind {
	own := *bind
	own.Params = append(slices.Clone(bind.Params), []byte(numbers))
	if len(bind.Formats) > 0 {
		own.Formats = make([]int16, len(own.Params))
		for i := range bind.Params {
			own.Formats[i] = bind.Format(i)
		}
	}
	return &own
}

// bindModify binds a portal of a statement that writes on several shards.
func (c *Session) bindModify(ctx context.Context, p *portal) error {
	if err := c.x.DrainAll(ctx); err != nil {
		return err
	}
	if p.plan.Restarts {
		if err := c.beforeDDL(ctx); err != nil {
			return err
		}
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
		plan: p.plan, shards: p.target.Shards, target: p.target, sent: c.severalText(p), bind: &p.bind,
		types: st.described.Parameters, portal: p.name,
	})
	if err == nil {
		p.modify = m
	}
	return err
}

// executeModify runs a portal that writes on several shards, or returns further rows of it.
func (c *Session) executeModify(ctx context.Context, p *portal, maxRows int32) error {
	if err := c.x.DrainAll(ctx); err != nil {
		return err
	}
	if err := p.modify.Run(ctx, maxRows, false); err != nil || !p.plan.Restarts {
		return err
	}
	c.restarted(ctx)
	return nil
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

// fixTime returns the statement and its values with those of the clocks that the plan's text has as parameters.
func (c *Session) fixTime(ctx context.Context, clock *planner.Clock, shards []directoryShard, st *exec.Statement, bind *wire.Bind) (*exec.Statement, *wire.Bind, error) {
	if clock == nil {
		return st, bind, nil
	}
	transaction, statement, err := c.x.Present(ctx, shards)
	if err != nil {
		return nil, nil, err
	}
	client := max(clock.Transaction, clock.Statement) - clock.Count() // how many parameters are the client's
	if n := len(bind.Params); n != client {
		return nil, nil, pgerr.Newf(pgerr.ProtocolViolation, "bind message supplies %d parameters, but prepared statement requires %d", n, client)
	}
	timed, values := *st, *bind
	timed.Types = make([]uint32, client, client+clock.Count())
	copy(timed.Types, st.Types)
	values.Params = slices.Clone(bind.Params)
	for _, value := range clockValues(clock, transaction, statement) {
		timed.Types = append(timed.Types, exec.TimestamptzOID)
		values.Params = append(values.Params, []byte(value))
	}
	if timed.Key != "" {
		timed.Key = backend.PreparedKey(timed.Text, timed.Types, timed.Meaning)
	}
	if len(bind.Formats) > 0 {
		values.Formats = make([]int16, len(values.Params))
		for i := range client {
			values.Formats[i] = bind.Format(i)
		}
	}
	return &timed, &values, nil
}

// clockValues are the values of a plan's clocks in the order of their parameters.
func clockValues(clock *planner.Clock, transaction, statement string) (values []string) {
	if clock.Transaction > 0 {
		values = append(values, transaction)
	}
	if clock.Statement > 0 {
		values = append(values, statement)
	}
	return values
}
