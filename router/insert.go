package router

import (
	"context"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// insertion is one execution of an INSERT whose rows are split by shard, or whose values are computed first.
type insertion struct {
	plan   *planner.Plan
	sent   *exec.Statement // the client's text, for a shard that describes it
	args   planner.Args
	types  []uint32 // declared types of the parameters
	seen   *exec.Description
	bind   *wire.Bind
	portal string
	name   string // the client's of the statement
	shift  int
	quiet  bool // the client did not send the text: positions in it mean nothing
}

// queryInsertion is an INSERT of a Query.
func (c *Session) queryInsertion(st *planner.Statement, plan *planner.Plan, args planner.Args) *insertion {
	c.nextID++
	return &insertion{
		plan: plan, args: args, seen: &exec.Description{}, bind: &wire.Bind{}, shift: st.Chars,
		sent: &exec.Statement{ID: c.nextID, Text: st.Text, Settings: c.vars.current, Meaning: c.vars.meaning},
	}
}

// simpleInsert runs an INSERT of a Query that one shard cannot run as it is.
func (c *Session) simpleInsert(ctx context.Context, st *planner.Statement, plan *planner.Plan, args planner.Args) error {
	return c.insertWhole(ctx, c.queryInsertion(st, plan, args))
}

// insertWhole runs an insertion to its end, for a Query. Outside of a transaction it is one of its own.
func (c *Session) insertWhole(ctx context.Context, in *insertion) error {
	return c.writeWhole(ctx, false, func() (write, error) {
		target, err := c.insertTarget(ctx, in)
		if err != nil {
			return nil, err
		}
		return c.openInsert(ctx, in, target)
	})
}

// insertTarget finds the shards of the rows, having values computed where it needs them.
func (c *Session) insertTarget(ctx context.Context, in *insertion) (planner.Target, error) {
	if err := c.compute(ctx, in, in.plan.Insert.Routing); err != nil {
		return planner.Target{}, err
	}
	target, err := c.locate(ctx, in.plan, in.args)
	if err != nil || !target.Ask {
		return target, err
	}
	in.plan = in.plan.Asking() // the values computed already are the first of its
	if err := c.compute(ctx, in, in.plan.Insert.Routing); err != nil {
		return planner.Target{}, err
	}
	return c.locate(ctx, in.plan, in.args)
}

// bindInsert binds a portal of an INSERT that one shard cannot run as it is.
func (c *Session) bindInsert(ctx context.Context, p *portal) error {
	m, err := c.openInsert(ctx, p.insert, p.target)
	if err == nil {
		p.modify = m
	}
	return err
}

// insertPortal finds the shards of a portal that inserts rows.
func (c *Session) insertPortal(ctx context.Context, p *portal) (planner.Target, error) {
	if p.insert != nil { // its values are computed, for the old map
		return planner.Target{}, errNewerMap("the partition map changed since the portal was bound")
	}
	if p.st.plan.Insert.Routing == 0 {
		target, err := c.targets(ctx, p)
		if err != nil || target.Whole {
			return target, err
		}
	}
	if err := c.flushPending(ctx); err != nil {
		return planner.Target{}, err
	}
	p.insert = &insertion{
		plan: p.st.plan, sent: &p.st.sent, types: p.st.sent.Types, seen: &p.st.described, bind: &p.bind, portal: p.name, quiet: p.st.sent.NoPosition,
		args: planner.Args{
			Map: c.view.partitions, Statement: &p.st.parsed, Params: p.bind.Params, Formats: p.bind.Formats, Types: p.st.types(),
		},
	}
	if err := c.readable(p); err != nil {
		return planner.Target{}, err
	}
	return c.insertTarget(ctx, p.insert)
}

// insertExecute runs the EXECUTE of an INSERT that one shard cannot run as it is; done is false for any other.
func (c *Session) insertExecute(ctx context.Context, st *statement, outer *planner.Statement, data *planner.ExecuteData) (done bool, err error) {
	values, constant := argsOf(data)
	if st.plan.Insert == nil || !constant {
		return false, nil
	}
	args := planner.Args{Map: c.view.partitions, Statement: &st.parsed, Params: values, Types: st.described.Parameters}
	if st.plan.Insert.Routing == 0 {
		if target, err := c.locate(ctx, st.plan, args); err != nil || target.Whole {
			return false, nil
		}
	}
	if err := c.readArguments(ctx, st, outer, data); err != nil {
		return true, err
	}
	return true, c.insertWhole(ctx, &insertion{
		plan: st.plan, sent: &st.sent, args: args, types: st.sent.Types, seen: &st.described, bind: &wire.Bind{Params: values}, quiet: true,
	})
}

// types are those of the statement's parameters, as far as they are known.
func (st *statement) types() []uint32 {
	if st.described.Parameters != nil {
		return st.described.Parameters
	}
	return st.sent.Types
}

// openInsert binds the texts of an insertion on its shards.
func (c *Session) openInsert(ctx context.Context, in *insertion, target planner.Target) (*exec.Modification, error) {
	if err := c.x.MayUse(ctx, target.Shards, false); err != nil {
		return nil, err
	}
	if err := c.x.DrainAll(ctx); err != nil {
		return nil, err
	}
	if target.Rows == nil { // one shard has the error, or all of the rows
		m, err := c.x.Modify(ctx, exec.ModifyRequest{Meaning: c.meaning(), Portal: in.portal, Pieces: []exec.Piece{
			{Shard: target.Shards[0], Statement: in.sent, Bind: in.bind, Types: in.args.Types, Shift: in.shift},
		}})
		return m, err
	}
	if err := c.compute(ctx, in, len(in.plan.Insert.Values)); err != nil {
		return nil, err
	}
	texts, err := in.plan.Split(in.args, target)
	if err != nil {
		return nil, err
	}
	if err := c.describeInsert(ctx, in); err != nil {
		return nil, err
	}
	r := exec.ModifyRequest{Meaning: c.meaning(), Portal: in.portal, Order: target.Rows, EachRow: in.plan.Insert.Each, Blind: in.plan.Insert.Blind}
	for i := range texts {
		r.Pieces = append(r.Pieces, c.insertPiece(in, &texts[i]))
	}
	m, err := c.x.Modify(ctx, r)
	if err == nil && in.plan.Dirty {
		c.values.obscured()
		for _, shard := range target.Shards {
			c.x.MarkDirty(shard)
		}
	}
	return m, err
}

// insertPiece is a text made of the client's, with the parameters that it has.
func (c *Session) insertPiece(in *insertion, text *planner.ShardText) exec.Piece {
	c.nextID++
	sent := c.statementFor(c.nextID, "", text.Text, make([]uint32, len(text.Params)))
	if !in.quiet {
		sent.Part = partsOf(text.Parts)
	}
	sent.NoPosition = sent.Part == nil
	bind := &wire.Bind{ResultFormats: in.bind.ResultFormats}
	for i, p := range text.Params {
		format, value := int16(0), []byte(nil)
		switch {
		case p.Type != 0:
			sent.Types[i], format, value = p.Type, 1, in.args.Supplied[p.Supplied]
		case p.Number == 0:
			sent.Types[i] = textOID // or its type could not be told
		default:
			if i < len(in.args.Types) {
				sent.Types[i] = in.args.Types[i]
			}
			format, value = in.bind.Format(i), in.args.Params[i]
		}
		bind.Formats, bind.Params = append(bind.Formats, format), append(bind.Params, value)
	}
	return exec.Piece{Shard: text.Shard, Statement: &sent, Bind: bind, Types: sent.Types, Shift: in.shift}
}

// partsOf are the parts of a text that the client sent. The planner counts the characters of the client's whole text.
func partsOf(parts []planner.TextPart) *exec.Part {
	all := make([]exec.Part, len(parts))
	for i, p := range parts {
		all[i] = exec.Part{Start: p.Start, Length: p.Length, Client: p.Client}
		if i > 0 {
			all[i-1].Next = &all[i]
		}
	}
	if len(all) == 0 {
		return nil
	}
	return &all[0]
}

// describeInsert learns the types of the parameters, where what a shard gets would not tell them by itself.
func (c *Session) describeInsert(ctx context.Context, in *insertion) error {
	if !in.plan.Insert.NeedsTypes(in.types) && !in.binary() || in.seen.Parameters != nil {
		return nil
	}
	l, err := c.insertDescriber(ctx, in)
	if err != nil {
		return err
	}
	name, err := c.x.Parse(ctx, l, in.sent, false, c.meaning())
	if err != nil {
		return err
	}
	c.x.DescribeStatement(l, name, true, in.seen)
	if err := c.x.Drain(ctx, l); err != nil {
		return err
	}
	in.args.Types = in.seen.Parameters
	return nil
}

// binary reports whether a parameter is given in binary format, which may hold the OID of a type.
func (in *insertion) binary() bool {
	for _, format := range in.bind.Formats {
		if format == 1 {
			return true
		}
	}
	return false
}

// insertDescriber is a link to a shard that can tell what is wrong with the statement, and what its types are.
func (c *Session) insertDescriber(ctx context.Context, in *insertion) (*link, error) {
	shard := in.plan.Describer(c.view.partitions)
	if err := c.x.MayUse(ctx, []directoryShard{shard}, true); err != nil {
		return nil, err
	}
	return c.x.Link(ctx, shard)
}

// compute has the values of an insertion computed up to the given one. The shard that does it accepts the whole statement
// first, so that a value is computed only where it can be stored.
func (c *Session) compute(ctx context.Context, in *insertion, upTo int) error {
	from := len(in.args.Supplied)
	if from >= upTo {
		return nil
	}
	supplied := make([][]byte, upTo)
	copy(supplied, in.args.Supplied)
	if drawn, err := c.drawNumbers(ctx, in.plan.Insert, from, upTo, supplied); err != nil {
		return err
	} else if drawn == upTo-from {
		in.args.Supplied = supplied
		return nil
	}
	if err := c.describeInsert(ctx, in); err != nil {
		return err
	}
	texts, indexes, err := in.plan.Computations(in.args, from, upTo)
	if err != nil {
		return err
	}
	pieces := make([]exec.Piece, len(texts))
	plain := *in
	plain.bind = &wire.Bind{Formats: in.bind.Formats}
	for i := range texts {
		pieces[i] = c.insertPiece(&plain, &texts[i])
	}
	l, err := c.insertDescriber(ctx, in)
	if err != nil {
		return err
	}
	var accepted *exec.Statement
	if !in.seen.Described {
		accepted = in.sent
	}
	if at := c.x.ClockShard(l.Shard()); in.plan.Insert.Clock && at != l.Shard() {
		if _, err := c.x.Compute(ctx, l, accepted, nil, c.meaning()); err != nil {
			return err
		}
		accepted = nil
		if l, err = c.x.Link(ctx, at); err != nil {
			return err
		}
	}
	values, err := c.x.Compute(ctx, l, accepted, pieces, c.meaning())
	if err != nil {
		return err
	}
	for i, list := range indexes {
		if len(values[i]) != len(list) {
			return errComputed()
		}
		for j, index := range list {
			supplied[index] = values[i][j]
		}
	}
	in.args.Supplied = supplied
	return nil
}

func errComputed() error {
	return pgerr.New(pgerr.InternalError, "a shard computed another number of values than it was asked for")
}
