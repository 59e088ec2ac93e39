package router

import (
	"context"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// write is a statement that writes on several shards, bound to a portal of the client.
type write interface {
	Run(ctx context.Context, maxRows int32, describe bool) error
	AppendDescription(dst []byte) []byte
	Fresh() bool
	Close(ctx context.Context) error
}

// simpleTransfer runs an INSERT … SELECT of a Query whose rows are brought from shard to shard.
func (c *Session) simpleTransfer(ctx context.Context, st *planner.Statement, plan *planner.Plan, args planner.Args) error {
	return c.transferWhole(ctx, c.queryInsertion(st, plan, args))
}

// transferWhole runs an INSERT … SELECT to its end, for a Query.
func (c *Session) transferWhole(ctx context.Context, in *insertion) error {
	return c.writeWhole(ctx, false, func() (write, error) { return c.openWrite(ctx, in) })
}

// bindTransfer binds a portal of an INSERT … SELECT whose rows are brought from shard to shard.
func (c *Session) bindTransfer(ctx context.Context, p *portal) error {
	if err := c.readable(p); err != nil {
		return err
	}
	w, err := c.openWrite(ctx, c.portalInsertion(p))
	if err == nil {
		p.modify = w
	}
	return err
}

func (c *Session) portalInsertion(p *portal) *insertion {
	return &insertion{
		plan: p.plan, sent: &p.st.sent, types: p.st.sent.Types, seen: &p.st.described, bind: &p.bind, portal: p.name, name: p.st.name,
		args: planner.Args{
			Map: c.view.partitions, Statement: &p.st.parsed, Params: p.bind.Params, Formats: p.bind.Formats, Types: p.st.types(),
		},
	}
}

// openWrite opens an INSERT … SELECT, or what begins by making the table.
func (c *Session) openWrite(ctx context.Context, in *insertion) (write, error) {
	if in.plan.CreateAs != nil {
		return c.openCreation(ctx, in)
	}
	return c.openTransfer(ctx, in)
}

// openTransfer has the home shard accept the statement, which tells the types of its parameters and the columns of its rows.
func (c *Session) openTransfer(ctx context.Context, in *insertion) (write, error) {
	if c.vars.foreign {
		return nil, errForeignEncoding(c.vars.value("client_encoding"))
	}
	if err := c.x.DrainAll(ctx); err != nil {
		return nil, err
	}
	if err := c.describeAtHome(ctx, in, in.plan.Transfer.Params); err != nil {
		return nil, err
	}
	data := in.plan.Transfer
	if n := len(in.bind.Params); n != data.Params {
		return nil, pgerr.Newf(pgerr.ProtocolViolation, "bind message supplies %d parameters, but prepared statement requires %d", n, data.Params)
	}
	in.args.Types = in.seen.Parameters
	source, err := c.locate(ctx, data.Source, in.args)
	if err != nil {
		return nil, err
	}
	if len(source.Shards) == 0 {
		source.Shards, source.Whole = []directoryShard{c.view.partitions.Home}, true
	}
	if err := c.x.MayUse(ctx, source.Shards, true); err != nil {
		return nil, err
	}
	sent := c.transferText(data.Text, in.seen.Parameters)
	if !source.Whole && data.Source.SQL != "" {
		sent.Text = data.Source.SQL
	}
	timed, bind, err := c.fixTime(ctx, data.Clock, source.Shards, &sent, in.bind)
	if err != nil {
		return nil, err
	}
	r := exec.TransferRequest{
		Data: data, Bind: bind, Types: timed.Types, Tag: "INSERT 0", Meaning: c.meaning(), Portal: in.portal, Statement: c.transferText,
		Entries: c.server.entries.Known(), Open: c.transferSource(in, source, timed, bind), Draw: c.drawNumber,
		Resolve: c.resolveAll,
	}
	if in.plan.CreateAs != nil {
		r.Tag = "SELECT"
	}
	if in.seen.Columns != nil {
		columns, err := wire.DecodeRowDescription(nil, in.seen.Columns)
		if err != nil {
			return nil, err
		}
		for i := range columns {
			columns[i].Format = wire.FormatAt(in.bind.ResultFormats, i)
		}
		r.Columns = wire.AppendRowDescription(nil, columns)[5:]
	}
	return c.x.NewTransfer(r)
}

// transferSource opens the SELECT.
func (c *Session) transferSource(in *insertion, source planner.Target, st *exec.Statement, bind *wire.Bind) func(context.Context, string) (exec.Rows, error) {
	if source.Combine {
		return c.combinedSource(in, st, bind)
	}
	return func(ctx context.Context, portal string) (exec.Rows, error) {
		plan := *in.plan.Transfer.Source
		plan.Clock = nil // its value is in bind
		read := *bind
		read.ResultFormats = []int16{1}
		r := exec.ScatterRequest{
			Shards: source.Shards, Statement: st, Meaning: c.meaning(), Portal: portal, Bind: &read, Types: st.Types, Tag: "SELECT",
		}
		if source.Whole {
			plan.Merge = nil
		}
		r.Merge = plan.Merge
		return c.openScatter(ctx, &plan, r, in.args)
	}
}

// combinedSource opens a SELECT that is combined.
func (c *Session) combinedSource(in *insertion, st *exec.Statement, bind *wire.Bind) func(context.Context, string) (exec.Rows, error) {
	return func(ctx context.Context, portal string) (exec.Rows, error) {
		data := in.plan.Transfer.Source.Combine
		read := *bind
		read.ResultFormats = []int16{1}
		pieces, err := c.combinePieces(ctx, data, portal, in.args, &read, st.Types)
		if err != nil {
			return nil, err
		}
		return c.x.OpenCombination(ctx, exec.CombineRequest{Data: data, Pieces: pieces, Bind: &read, Types: st.Types, Portal: portal})
	}
}

// transferText is a text of ours as shards get it.
func (c *Session) transferText(sql string, types []uint32) exec.Statement {
	c.nextID++
	st := c.statementFor(c.nextID, "", sql, types)
	st.NoPosition = true
	return st
}

// describeAtHome has the home shard accept the client's text, which has so many parameters.
func (c *Session) describeAtHome(ctx context.Context, in *insertion, params int) error {
	if in.seen.Described && (in.seen.Parameters != nil || params == 0) {
		return nil
	}
	home := c.view.partitions.Home
	if err := c.x.MayUse(ctx, []directoryShard{home}, true); err != nil {
		return err
	}
	l, err := c.x.Link(ctx, home)
	if err != nil {
		return err
	}
	name, err := c.x.Parse(ctx, l, in.sent, false, c.meaning())
	if err == nil {
		c.x.DescribeStatement(l, name, true, in.seen)
		err = c.x.Drain(ctx, l)
	}
	if in.shift > 0 {
		err = movedBy(err, in.shift)
	}
	return err
}
