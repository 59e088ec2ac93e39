package router

import (
	"context"
	"strconv"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/wire"
)

// arguments are the values of the arguments of an EXECUTE, as text, converted to the types of the parameters; the places
// of the arguments are in the text of outer. computed: a shard had to evaluate them, so that they must not be evaluated
// again.
func (c *Session) arguments(ctx context.Context, st *statement, outer *planner.Statement, data *planner.ExecuteData) (values [][]byte, computed bool, err error) {
	values, constant := argsOf(data)
	if len(values) == 0 || constant && !c.view.sharded() {
		return values, false, nil
	}
	if st.described.Parameters == nil {
		if err := c.describeArguments(ctx, st); err != nil {
			return nil, false, err
		}
		if _, err = c.prepared(ctx, data); err != nil { // their number is known now
			return nil, false, err
		}
	}
	types := st.described.Parameters
	for i := range data.Args {
		constant = constant && i < len(types) && data.Args[i].As(types[i])
	}
	if constant {
		return values, false, nil
	}
	values, err = c.evaluate(ctx, outer, data, types)
	return values, true, err
}

// describeArguments learns the types of the parameters of a statement that an EXECUTE names.
func (c *Session) describeArguments(ctx context.Context, st *statement) error {
	if err := c.flushPending(ctx); err != nil {
		return err
	}
	l, _, err := c.describer(ctx, st)
	if err == nil {
		err = c.describeParameters(ctx, l, st)
	}
	return c.syncQuery(ctx, err)
}

// syncQuery ends what was sent by the extended protocol for a Query; err is what came of it.
func (c *Session) syncQuery(ctx context.Context, err error) error {
	if !c.rest.simple {
		return err
	}
	if synced := c.x.Sync(ctx, err != nil); err == nil {
		err = synced
	}
	return err
}

// readArguments has a shard read the texts among the constant arguments of an EXECUTE, if they are for parameters of other
// types, so that what is wrong with one is told as Postgres tells it. Where one shard runs the EXECUTE it does so itself.
func (c *Session) readArguments(ctx context.Context, st *statement, outer *planner.Statement, data *planner.ExecuteData) error {
	types := st.described.Parameters
	for i := range data.Args {
		if i < len(types) && !data.Args[i].Null && data.Args[i].Kind == planner.ArgString && types[i] != textOID {
			_, err := c.evaluate(ctx, outer, data, types)
			return err
		}
	}
	return nil
}

// evaluate has a shard evaluate the arguments of an EXECUTE for parameters of the types.
func (c *Session) evaluate(ctx context.Context, outer *planner.Statement, data *planner.ExecuteData, types []uint32) ([][]byte, error) {
	if err := c.flushPending(ctx); err != nil {
		return nil, err
	}
	shard := c.view.partitions.Home
	if data.Clock {
		shard = c.x.ClockShard(shard)
	}
	if c.rest.simple && !c.x.InBlock() && !c.x.InImplicitBlock() {
		c.beginImplicit() // what an argument does is undone if the statement fails
	}
	if err := c.x.MayUse(ctx, []directoryShard{shard}, false); err != nil {
		return nil, err
	}
	l, err := c.x.Link(ctx, shard)
	if err != nil {
		return nil, err
	}
	c.x.MarkDirty(shard)
	list := make([]string, len(types))
	for i := range list {
		list[i] = "$" + strconv.Itoa(i+1)
	}
	c.nextID += 2
	returned := c.statementFor(c.nextID, "arguments", "SELECT "+strings.Join(list, ", "), types)
	returned.NoPosition = true
	texts, err := c.x.Arguments(ctx, l, &returned, func(name string) *exec.Statement {
		text := "EXECUTE " + directory.QuoteIdentifier(name) + argumentText(outer.Text)
		c.nextID += 2
		st := c.statementFor(c.nextID, "", text, nil)
		st.Part = argumentPart(outer, text)
		return &st
	}, c.meaning())
	if err = c.syncQuery(ctx, err); err != nil {
		return nil, err
	}
	values := make([][]byte, len(texts))
	for i, text := range texts {
		if text != nil {
			values[i] = []byte(*text)
		}
	}
	return values, nil
}

// withValues is an EXECUTE with the values in place of its arguments.
func withValues(outer *planner.Statement, data *planner.ExecuteData, values [][]byte) (*planner.Statement, *planner.ExecuteData) {
	given := &planner.ExecuteData{Name: data.Name}
	list := make([]string, len(values))
	for i, value := range values {
		list[i] = "NULL"
		if value != nil {
			list[i] = quote(string(value))
		}
		given.Args = append(given.Args, planner.ExecuteArg{Constant: true, Null: value == nil, Text: string(value)})
	}
	written := *outer
	written.Text = "EXECUTE " + directory.QuoteIdentifier(data.Name) + " (" + strings.Join(list, ", ") + ")"
	return &written, given
}

// bindExecute binds a portal of an EXECUTE that one shard cannot run as it is: as one of the statement that it names. done is
// false for any other.
func (c *Session) bindExecute(ctx context.Context, p *portal) (done bool, err error) {
	outer := p.st
	st, err := c.prepared(ctx, outer.plan.Execute)
	if err != nil {
		return false, err
	}
	if st.plan.Route.Kind != planner.RouteFilters && st.plan.Transfer == nil && st.plan.Combine == nil {
		return false, nil
	}
	values, computed, err := c.arguments(ctx, st, &outer.parsed, outer.plan.Execute)
	if err != nil {
		return false, err
	}
	inner := *p
	inner.st, inner.plan, inner.view = st, st.plan, c.view
	inner.bind = wire.Bind{Params: values, ResultFormats: p.bind.ResultFormats}
	inner.tail = wire.AppendBind(nil, "", "", nil, values, p.bind.ResultFormats)[7:]
	target, err := c.portalTarget(ctx, &inner)
	if err != nil {
		return false, err
	}
	if target.Whole && len(target.Shards) == 1 && !computed && inner.insert == nil {
		return false, nil
	}
	if !computed {
		if err := c.readArguments(ctx, st, &outer.parsed, outer.plan.Execute); err != nil {
			return false, err
		}
	}
	*p = inner
	p.target = target
	if err := c.mayUse(ctx, p.plan, target.Shards); err != nil {
		return false, err
	}
	if err := c.bindTarget(ctx, p, outer); err != nil {
		return false, err
	}
	return true, nil
}
