package router

import (
	"context"
	"strings"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// creation is a CREATE TABLE AS or SELECT INTO whose rows are brought to the home shard, bound but for the table. It belongs to the
// goroutine of its session.
type creation struct {
	write   // of the rows
	session *Session
	in      *insertion
	data    *planner.TransferData // that write uses
	started bool
}

// openCreation opens the transfer of the rows; Run makes the table first.
func (c *Session) openCreation(ctx context.Context, in *insertion) (write, error) {
	plan, data := *in.plan, *in.plan.Transfer
	plan.Transfer, in.plan = &data, &plan
	rows, err := c.openTransfer(ctx, in)
	if err != nil {
		return nil, err
	}
	return &creation{write: rows, session: c, in: in, data: &data}, nil
}

// Fresh reports whether it was not run yet.
func (w *creation) Fresh() bool { return !w.started }

// Run makes the table and fills it, in one transaction.
func (w *creation) Run(ctx context.Context, maxRows int32, describe bool) error {
	c, plan := w.session, w.in.plan
	if w.started {
		return pgerr.Newf("55000", "portal %q cannot be run", w.in.portal)
	}
	w.started = true
	if err := c.beforeDDL(ctx); err != nil {
		return err
	}
	if !c.x.InBlock() && !c.x.InImplicitBlock() {
		if err := c.adoptPipeline(ctx); err != nil {
			return err
		}
	}
	home := []directoryShard{c.view.partitions.Home}
	if err := c.x.MayUse(ctx, home, false); err != nil {
		return err
	}
	schema, exists, err := c.placeOf(ctx, plan)
	if err != nil {
		return err
	}
	if exists && plan.CreateAs.IfNotExists {
		c.notice(&pgerr.Error{
			Severity: pgerr.SeverityNotice, Code: "42P07", Message: pgerr.Newf("", "relation %q already exists, skipping", plan.CreateAs.Name).Message,
		})
		c.out.Put(func(dst []byte) []byte { return wire.AppendCommandComplete(dst, plan.Tag) })
		return nil
	}
	if err := w.define(ctx); err != nil {
		return err
	}
	w.data.Head = plan.CreateAs.Head(schema)
	return w.write.Run(ctx, maxRows, describe)
}

// define makes the table.
func (w *creation) define(ctx context.Context) error {
	c, plan, home := w.session, w.in.plan, w.session.view.partitions.Home
	l, err := c.x.Link(ctx, home)
	if err != nil {
		return err
	}
	types := w.in.seen.Parameters
	st := c.transferText(plan.CreateAs.Define, types)
	undo := c.prepareEffects(l, plan)
	m, err := c.x.Modify(ctx, exec.ModifyRequest{
		Pieces: []exec.Piece{{Shard: home, Statement: &st, Bind: w.in.bind, Types: types}}, Meaning: c.meaning(), Portal: "shardyard_define", Blind: true,
	})
	if err == nil {
		err = m.RunSilently(ctx)
	}
	if err != nil {
		undo()
		return err
	}
	return c.afterEffects(ctx, l, plan)
}

// placeOf is the schema that the table is made in, as the home shard sees it ("": there is none), and whether it has a relation of that
// name.
func (c *Session) placeOf(ctx context.Context, plan *planner.Plan) (schema string, exists bool, err error) {
	where := "n.nspname = pg_catalog.current_schema()"
	switch {
	case plan.DDL.Temp:
		where = "n.oid = pg_catalog.pg_my_temp_schema()"
	case plan.CreateAs.Schema != "":
		where = "n.nspname = " + quote(plan.CreateAs.Schema)
	}
	l, err := c.x.Link(ctx, c.view.partitions.Home)
	if err != nil {
		return "", false, err
	}
	rows, err := c.x.Ask(ctx, l, "SELECT n.nspname, c.oid FROM pg_catalog.pg_namespace n LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = "+
		quote(plan.CreateAs.Name)+" WHERE "+where)
	if err != nil {
		return "", false, err
	}
	if len(rows) == 1 && rows[0][0] != nil {
		schema, exists = *rows[0][0], rows[0][1] != nil
	}
	switch {
	case plan.DDL.Temp:
		return "pg_temp", exists, nil
	case strings.HasPrefix(schema, "pg_temp_"):
		return "", false, pgerr.Unsupported("a table that is temporary by search_path cannot be made from tables of several shards", "Use CREATE TEMP TABLE.")
	}
	return schema, exists, nil
}
