package router

import (
	"context"
	"strconv"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// explain shows the routing of a statement above Postgres's own plan on each shard.
func (c *Session) explain(ctx context.Context, st *planner.Statement, plan *planner.Plan) (result, error) {
	r := result{columns: []string{"QUERY PLAN"}, tag: "EXPLAIN"}
	inner := plan.Explain.Inner
	args := planner.Args{Map: c.view.partitions, Statement: st}
	target, err := c.targetOf(ctx, plan, args)
	if err != nil {
		return r, err
	}
	var texts []planner.ShardText
	if plan.Insert != nil && !target.Whole {
		if target.Ask || len(plan.Insert.Values) > 0 {
			return r, pgerr.Unsupported("EXPLAIN of an INSERT with values that are computed for several shards is not supported",
				"Write the values themselves.")
		}
		if texts, err = plan.Split(args, target); err != nil {
			return r, err
		}
	}
	if target.Transfer {
		return explainTransfer(r, plan)
	}
	if target.Combine {
		return c.explainCombination(ctx, r, plan, args)
	}
	readOnly := inner.ReadOnly || !plan.Explain.Analyze
	if !readOnly && len(target.Shards) > 1 && !c.x.InBlock() && !c.x.InImplicitBlock() {
		if !c.rest.simple {
			return r, pgerr.Unsupported("EXPLAIN ANALYZE of a write on several shards is not supported in the extended protocol outside of a transaction",
				"Use BEGIN first, or the simple protocol.")
		}
		c.beginImplicit()
	}
	if err := c.x.MayUse(ctx, target.Shards, readOnly); err != nil {
		return r, err
	}
	add := func(line string) { r.rows = append(r.rows, []string{line}) }
	add("Shardyard: " + shardList(target.Shards))
	for _, line := range plan.RouteLines() {
		if target.Whole && !strings.HasPrefix(line, "route: ") {
			continue // what happens on several shards only
		}
		add("Shardyard: " + line)
	}
	text := st.Text
	if !target.Whole && inner.SQL != "" {
		text = plan.Explain.Prefix + inner.SQL
	}
	if clock := inner.Clock; clock != nil && !target.Whole {
		transaction, statement, err := c.x.Present(ctx, target.Shards)
		if err != nil {
			return r, err
		}
		text = clock.InlineClock(text, transaction, statement)
	}
	for i, shard := range target.Shards {
		if texts != nil {
			text = texts[i].Text
		}
		own := text
		if plan.Modify != nil && plan.Modify.Spread != nil && !target.Whole {
			own = plan.Modify.Spread.Inline(text, plan.Modify.Spread.Numbers(target, i))
		}
		add("Shard " + string(shard) + ":")
		if r.rows, err = c.explainOn(ctx, r.rows, plan, shard, own, readOnly); err != nil {
			return r, err
		}
	}
	c.x.Idle()
	return r, nil
}

// explainTransfer shows the routing of an INSERT … SELECT whose rows go from shard to shard.
func explainTransfer(r result, plan *planner.Plan) (result, error) {
	if plan.Explain.Analyze {
		return r, pgerr.Unsupported("EXPLAIN ANALYZE of an INSERT … SELECT whose rows go from shard to shard is not supported", "Use EXPLAIN without ANALYZE.")
	}
	for _, line := range plan.RouteLines() {
		if !strings.HasPrefix(line, "route: ") {
			r.rows = append(r.rows, []string{"Shardyard: " + line})
		}
	}
	return r, nil
}

// explainCombination shows the pieces of a query, with Postgres's plans of them, and what runs over their rows.
func (c *Session) explainCombination(ctx context.Context, r result, plan *planner.Plan, args planner.Args) (result, error) {
	if plan.Explain.Analyze {
		return r, pgerr.Unsupported("EXPLAIN ANALYZE of a query whose rows are brought together on the home shard is not supported", "Use EXPLAIN without ANALYZE.")
	}
	combined, err := c.server.planner.Combine(args.Statement, plan, nil, &c.vars.env)
	if err != nil {
		return r, err
	}
	add := func(line string) { r.rows = append(r.rows, []string{line}) }
	data := combined.Combine
	requests, err := c.combinePieces(ctx, data, "", args, &wire.Bind{}, nil)
	if err != nil {
		return r, err
	}
	add("Shardyard: combined on the home shard: " + data.SQL)
	for i, request := range requests {
		add("Shardyard: piece " + data.Pieces[i].Table + ", " + shardList(request.Shards) + ": " + request.Statement.Text)
		text := plan.Explain.Prefix + request.Statement.Text
		if data.Clock != nil {
			transaction, statement, err := c.x.Present(ctx, request.Shards)
			if err != nil {
				return r, err
			}
			text = data.Clock.InlineClock(text, transaction, statement)
		}
		for _, shard := range request.Shards {
			add("Shard " + string(shard) + ":")
			if r.rows, err = c.explainOn(ctx, r.rows, plan, shard, text, true); err != nil {
				return r, err
			}
		}
	}
	c.x.Idle()
	return r, nil
}

// explainOn appends what a shard says of its plan.
func (c *Session) explainOn(
	ctx context.Context, lines [][]string, plan *planner.Plan, shard directory.ShardID, text string, readOnly bool,
) ([][]string, error) {
	l, err := c.x.Link(ctx, shard)
	if err != nil {
		return lines, err
	}
	c.x.Used(l, readOnly)
	if plan.Mirrors {
		c.x.Captures(l)
	}
	rows, err := c.x.Ask(ctx, l, text)
	for _, row := range rows {
		if len(row) == 1 && row[0] != nil {
			lines = append(lines, []string{"  " + *row[0]})
		}
	}
	return lines, err
}

func shardList(shards []directory.ShardID) string {
	names := make([]string, len(shards))
	for i, shard := range shards {
		names[i] = string(shard)
	}
	list := strings.Join(names, ", ")
	if len(names) == 1 {
		return "one shard: " + list
	}
	return strconv.Itoa(len(names)) + " shards: " + list
}
