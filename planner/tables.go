package planner

import (
	"slices"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

// planTables plans TRUNCATE and LOCK TABLE: on every shard that holds the tables, one after the other.
func (a *analysis) planTables(m message) (*Plan, *Error) {
	if !a.env.Map.AnythingSharded() {
		return a.planMaintenance(m)
	}
	away, home := a.touched(m)
	tables := make([]*directory.Table, 0, len(away))
	for _, name := range away {
		if t, _ := a.env.Map.Table(name); t.Kind == directory.TableSharded {
			tables = append(tables, t)
		}
	}
	if len(tables) == 0 || len(tables) < len(away) || len(home) > 0 {
		return a.planMaintenance(m)
	}
	tag := commandTag(m)
	plan := &Plan{Kind: Modify, Tag: tag, Tables: away, Route: Route{Kind: RouteFilters}}
	plan.Modify = &ModifyData{InOrder: true, Block: kindName(m) == "LockStmt"}
	first, _ := a.env.Map.Group(tables[0].Group)
	for i, t := range tables {
		if !slices.ContainsFunc(tables[:i], func(other *directory.Table) bool { return other.Group == t.Group }) {
			plan.Route.Filters = append(plan.Route.Filters, tableFilter(t))
		}
		if g, ok := a.env.Map.Group(t.Group); !ok || !slices.Equal(g.Shards(), first.Shards()) {
			return nil, refuse("Use a statement for each table.", "%s of tables %s and %s, which are not on the same shards, is not supported",
				tag, tables[0].Name, t.Name)
		}
	}
	if truncate, ok := m.(*truncateStmt); ok {
		return plan, a.checkTruncate(truncate, plan)
	}
	return plan, nil
}

// checkTruncate adds what CASCADE reaches to the tables of the plan. RESTART IDENTITY restarts sequences on the home shard, where
// all of them are.
func (a *analysis) checkTruncate(t *truncateStmt, plan *Plan) *Error {
	if t.Behavior == dropCascade {
		plan.Tables = a.referencing(plan.Tables)
	}
	if !t.RestartSeqs {
		return nil
	}
	for _, r := range a.env.Catalog.UserRelations() {
		if r.Kind == catalog.KindSequence && slices.Contains(plan.Tables, r.OwnedBy) {
			plan.Restarts = true
		}
	}
	return nil
}

// referencing are the tables, and those that refer to them by foreign keys, directly or not.
func (a *analysis) referencing(tables []directory.TableName) []directory.TableName {
	tables = slices.Clone(tables)
	for i := 0; i < len(tables); i++ {
		if r, ok := a.env.Catalog.Relation(tables[i]); ok {
			for _, other := range r.ReferencedBy {
				tables = appendName(tables, other)
			}
		}
	}
	return tables
}
