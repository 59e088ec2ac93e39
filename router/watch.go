package router

import (
	"context"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
)

// watched reports whether a statement, or the one that an EXECUTE or FETCH names, runs code of which it cannot be seen which tables
// it uses: it is run in a transaction and looked at afterwards (exec.Executor.Watch).
func (c *Session) watched(plan *planner.Plan) bool {
	switch plan.Kind {
	case planner.Execute:
		st, ok := c.statements[plan.Execute.Name]
		return ok && st.plan.Watched
	case planner.Fetch:
		return c.cursors[plan.Name].watched
	}
	return plan.Watched
}

func isReference(t directory.Table) bool { return t.Kind == directory.TableReference }

// watch prepares for such a statement.
func (c *Session) watch(ctx context.Context, l *link, plan *planner.Plan) error {
	if !c.watched(plan) {
		return nil
	}
	var tables []uint32
	for i := range c.view.partitions.Tables {
		t := &c.view.partitions.Tables[i]
		if t.Kind != directory.TableSharded {
			continue // the home shard has all of it, or a placeholder that fails
		}
		if rel, ok := c.view.catalog.Relation(t.Name); ok && rel.OID != 0 {
			tables = append(tables, rel.OID)
		}
	}
	return c.x.Watch(ctx, l, tables)
}
