package router

import (
	"context"
	"slices"
	"strconv"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// combineWhole runs a query that is combined to its end, for a Query.
func (c *Session) combineWhole(ctx context.Context, in *insertion) error {
	combination, err := c.openCombination(ctx, in)
	if err == nil {
		err = combination.Run(ctx, 0, true)
	}
	if synced := c.x.Sync(ctx, err != nil); err == nil {
		err = synced
	}
	return err
}

// bindCombination binds a portal of a query that is combined.
func (c *Session) bindCombination(ctx context.Context, p *portal) error {
	if err := c.readable(p); err != nil {
		return err
	}
	combination, err := c.openCombination(ctx, c.portalInsertion(p))
	if err == nil {
		p.modify = combination
	}
	return err
}

// openCombination plans the pieces and the rest, and has the home shard accept the client's text, which tells the types of its
// parameters and the columns of its rows.
func (c *Session) openCombination(ctx context.Context, in *insertion) (*exec.Combination, error) {
	if c.vars.foreign {
		return nil, errForeignEncoding(c.vars.value("client_encoding"))
	}
	c.task.Leave()
	if err := c.x.DrainAll(ctx); err != nil {
		return nil, err
	}
	plan, err := c.server.planner.Combine(in.args.Statement, in.plan, in.types, &c.vars.env)
	if err != nil {
		return nil, err
	}
	if fault := c.server.config.Fault; fault != nil {
		faulty := fault(*plan)
		plan = &faulty
	}
	data := plan.Combine
	if err := c.describeAtHome(ctx, in, data.Params); err != nil {
		return nil, err
	}
	if n := len(in.bind.Params); n != data.Params {
		return nil, pgerr.Newf(pgerr.ProtocolViolation, "bind message supplies %d parameters, but prepared statement %q requires %d", n, in.name, data.Params)
	}
	if data.Params > 0 {
		if err := c.readAtHome(ctx, in); err != nil {
			return nil, err
		}
	}
	in.args.Types = in.seen.Parameters
	columns, err := wire.DecodeRowDescription(nil, in.seen.Columns)
	if err != nil {
		return nil, err
	}
	for i := range columns {
		columns[i].Format = wire.FormatAt(in.bind.ResultFormats, i)
	}
	r := exec.CombineRequest{Data: data, Portal: in.portal, Columns: wire.AppendRowDescription(nil, columns)[5:]}
	rest := c.transferText(data.SQL, in.seen.Parameters)
	timed, bind, err := c.fixTime(ctx, data.Clock, []directoryShard{c.view.partitions.Home}, &rest, in.bind)
	if err != nil {
		return nil, err
	}
	r.Bind, r.Types = bind, timed.Types
	if r.Pieces, err = c.combinePieces(ctx, data, in.portal, in.args, bind, timed.Types); err != nil {
		return nil, err
	}
	return c.x.NewCombination(r), nil
}

// readAtHome has the home shard read the values of the parameters: it says what is wrong with them.
func (c *Session) readAtHome(ctx context.Context, in *insertion) error {
	l, err := c.x.Link(ctx, c.view.partitions.Home)
	if err != nil {
		return err
	}
	text := "SELECT $1"
	for i := range in.bind.Params[1:] {
		text += ", $" + strconv.Itoa(i+2)
	}
	sent := c.transferText(text, in.seen.Parameters)
	name, err := c.x.Parse(ctx, l, &sent, false, c.meaning())
	if err != nil {
		return err
	}
	var p exec.Portal
	c.x.Bind(l, &p, in.portal, name, wire.AppendBind(nil, "", "", in.bind.Formats, in.bind.Params, nil)[7:], false)
	c.x.ClosePortal(&p, false)
	return c.x.Drain(ctx, l)
}

// combinePieces finds the shards of the pieces.
func (c *Session) combinePieces(
	ctx context.Context, data *planner.CombineData, portal string, args planner.Args, bind *wire.Bind, types []uint32,
) ([]exec.ScatterRequest, error) {
	var all []directoryShard
	requests := make([]exec.ScatterRequest, len(data.Pieces))
	for i := range data.Pieces {
		piece := &data.Pieces[i]
		target, err := c.locate(ctx, piece.Source, args)
		if err != nil {
			return nil, err
		}
		target = c.somewhere(piece.Source, target)
		text, merge := piece.Text, piece.Source.Merge
		if target.Whole {
			merge = nil
		} else if piece.Source.SQL != "" {
			text = piece.Source.SQL
		}
		read, own := pieceParameters(piece, data, bind, types)
		sent := c.transferText(text, own)
		if len(data.Pieces) > 1 { // all are parsed before the first is bound
			sent.Key = backend.PreparedKey(text, own, sent.Meaning)
		}
		requests[i] = exec.ScatterRequest{
			Shards: target.Shards, Statement: &sent, Meaning: c.meaning(), Portal: "shardyard_" + strconv.Itoa(i) + "_" + portal, Bind: read,
			Types: own, Merge: merge, Limit: -1, Tag: "SELECT", DateStyle: c.vars.env.DateStyle,
		}
		all = append(all, target.Shards...)
	}
	return requests, c.x.MayUse(ctx, all, true)
}

// pieceParameters are the parameters of a piece: those that it has not are NULL, of a type that every shard knows.
func pieceParameters(piece *planner.Piece, data *planner.CombineData, bind *wire.Bind, types []uint32) (*wire.Bind, []uint32) {
	read := *bind
	read.Params, read.ResultFormats = slices.Clone(bind.Params), []int16{1}
	types = slices.Clone(types)
	for i := range data.Params {
		if !slices.Contains(piece.Uses, i+1) {
			types[i], read.Params[i] = textOID, nil
		}
	}
	return &read, types
}
