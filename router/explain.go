package router

import (
	"context"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
)

// explain shows the routing of a statement above Postgres's own plan on each shard.
func (c *Session) explain(ctx context.Context, st *planner.Statement, plan *planner.Plan) (result, error) {
	r := result{columns: []string{"QUERY PLAN"}, tag: "EXPLAIN"}
	inner := plan.Explain.Inner
	target, err := plan.Targets(planner.Args{Map: c.view.partitions, Statement: st})
	if err != nil {
		return r, err
	}
	readOnly := inner.ReadOnly || !plan.Explain.Analyze
	if err := c.x.MayUse(ctx, target.Shards, readOnly); err != nil {
		return r, err
	}
	add := func(line string) { r.rows = append(r.rows, []string{line}) }
	add("Shardyard: " + inner.Kind.String() + " on " + shardList(target.Shards))
	for line := range strings.Lines(strings.TrimSpace(inner.String())) {
		add("  " + strings.TrimRight(line, "\n"))
	}
	text := st.Text
	if !target.Whole && inner.SQL != "" {
		text = plan.Explain.Prefix + inner.SQL
	}
	for _, shard := range target.Shards {
		if len(target.Shards) > 1 {
			add("Shard " + string(shard) + ":")
		} else {
			add("Shard " + string(shard) + ":")
		}
		l, err := c.x.Link(ctx, shard)
		if err != nil {
			return r, err
		}
		c.x.Used(l, readOnly)
		rows, err := c.x.Ask(ctx, l, text)
		if err != nil {
			return r, err
		}
		for _, row := range rows {
			if len(row) == 1 && row[0] != nil {
				add("  " + *row[0])
			}
		}
	}
	c.x.Idle()
	return r, nil
}

func shardList(shards []directory.ShardID) string {
	names := make([]string, len(shards))
	for i, shard := range shards {
		names[i] = string(shard)
	}
	if len(names) == 1 {
		return "shard " + names[0]
	}
	return "shards " + strings.Join(names, ", ")
}
