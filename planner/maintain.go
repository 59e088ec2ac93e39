package planner

import (
	"cmp"
	"slices"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/lexer"
)

// MaintenanceData says how a statement is run that Postgres does not run in a transaction block, or that changes
// nothing which a client sees (VACUUM, ANALYZE, REINDEX, CLUSTER, CHECKPOINT, CREATE and DROP INDEX CONCURRENTLY): on one shard
// after the other, by itself.
type MaintenanceData struct {
	// Prefix and Parts are the text of a statement on several tables: each shard gets the parts of the tables
	// that it holds. No parts: each gets the whole text.
	Prefix string
	Parts  []MaintenancePart
	// Everywhere: it is for all shards that hold anything, and the home shard.
	Everywhere bool
	// Block: Postgres runs it inside of a transaction block too.
	Block bool
	// Index is the index that is created or dropped CONCURRENTLY, as it is written in SQL.
	Index string
	// Drops: the index is dropped. The home shard comes last then, as the catalog that names lead to is its.
	Drops bool
	// Verbose: what the shards tell is for the client.
	Verbose bool
}

// MaintenancePart is what stands for one table. Table is the zero value for one of the home shard.
type MaintenancePart struct {
	Table directory.TableName
	Text  string
}

// planMaintenance plans TRUNCATE, LOCK, VACUUM, ANALYZE, CLUSTER and REINDEX, which are neither
// queries nor changes of the catalog.
func (a *analysis) planMaintenance(m message) (*Plan, *Error) {
	tag := commandTag(m)
	plan := a.planHome(tag)
	if !a.env.Map.AnythingSharded() {
		return plan, nil
	}
	switch kindName(m) {
	case "TruncateStmt", "LockStmt":
		return a.planHomeTables(m, plan)
	}
	data := &MaintenanceData{Block: !isVacuumCommand(m) && !isConcurrent(m), Verbose: isVerbose(m)}
	plan.Kind, plan.Maintenance, plan.Route = Maintenance, data, Route{}
	relations := maintainedRelations(m)
	if schema, ok := reindexedSchema(m); ok && !slices.ContainsFunc(a.env.Map.Tables, func(t directory.Table) bool { return t.Name.Schema == schema }) {
		return a.planHome(tag), nil
	}
	if len(relations) == 0 {
		data.Everywhere, data.Block = true, data.Block && kindName(m) == "VacuumStmt"
		return plan, nil
	}
	away, home := a.touched(m)
	if len(away) == 0 {
		return a.planHome(tag), nil
	}
	plan.Tables = away
	if len(relations) > 1 {
		a.valuesUsed = true // texts are cut out of the statement
		return plan, a.cutRelations(data, relations)
	}
	if len(home) > 0 {
		return nil, refuse("Use one statement for each table.", "%s with table %s, which is not on the home shard alone, and %s, which is on it", tag, away[0], home[0])
	}
	return plan, nil
}

// cutRelations cuts the list of tables of a VACUUM or ANALYZE into its parts.
func (a *analysis) cutRelations(data *MaintenanceData, relations []*rangeVar) *Error {
	start := int(relations[0].Location)
	data.Prefix = a.sql[:start]
	list := a.sql[start:]
	var parts []string
	depth, at := 0, 0
	for lex := lexer.New(list); ; {
		token, ok := lex.Next()
		if !ok {
			break
		}
		switch {
		case token.IsPunct(list, '('):
			depth++
		case token.IsPunct(list, ')'):
			depth--
		case token.IsPunct(list, ',') && depth == 0:
			parts = append(parts, list[at:token.Start])
			at = token.End
		}
	}
	parts = append(parts, list[at:])
	if len(parts) != len(relations) {
		return refuse("Use one statement for each table.", "this list of tables is not supported")
	}
	for i, rv := range relations {
		part := MaintenancePart{Text: strings.TrimSpace(parts[i])}
		if rel, ok := a.env.Catalog.ResolveTable(rv.Schemaname, rv.Relname, a.path); ok {
			if _, elsewhere := a.env.Map.Table(rel.Name); elsewhere {
				part.Table = rel.Name
			}
		}
		data.Parts = append(data.Parts, part)
	}
	return nil
}

// planCheckpoint plans CHECKPOINT, which is for all shards.
func (a *analysis) planCheckpoint(m message) *Plan {
	plan := a.planHome(commandTag(m))
	if a.env.Map.AnythingSharded() {
		plan.Kind, plan.Route, plan.Maintenance = Maintenance, Route{}, &MaintenanceData{Everywhere: true, Block: true}
	}
	return plan
}

// planServer plans ALTER SYSTEM, which concerns one server.
func (a *analysis) planServer(m message) (*Plan, *Error) {
	if a.env.Map.AnythingSharded() && len(a.env.Map.Shards) > 1 {
		return nil, refuse("Run it on each shard's server, without the router.", "%s on several shards is not supported", commandTag(m))
	}
	return a.planHome(commandTag(m)), nil
}

// planConcurrently plans CREATE and DROP INDEX CONCURRENTLY on tables of several shards; nil: it is another statement.
func (a *analysis) planConcurrently(m message) (*Plan, *Error) {
	index, drops, ok := concurrentIndex(m)
	if !ok || !a.env.Map.AnythingSharded() {
		return nil, nil
	}
	away, home := a.touched(m)
	if len(away) == 0 {
		return nil, nil
	}
	tag := commandTag(m)
	if len(away) > 1 || len(home) > 0 {
		return nil, refuse("Use a statement for each index.", "%s CONCURRENTLY of several tables is not supported", tag)
	}
	plan := &Plan{Kind: Maintenance, Tag: tag, Tables: away, Maintenance: &MaintenanceData{Index: index, Drops: drops}}
	if drops {
		return plan, nil
	}
	if index == "" {
		return nil, refuse("Give the index a name, so that it is the same on all shards.", "CREATE INDEX CONCURRENTLY without a name on table %s is not supported", away[0])
	}
	walk(m, func(inner message) bool {
		if f, ok := inner.(*funcCall); ok {
			a.reach(a.function(f), int(f.Location))
		}
		return true
	})
	if a.refused != nil || a.unseen != nil {
		return nil, cmp.Or(a.refused, a.unseen)
	}
	table, _ := a.env.Map.Table(away[0])
	if columns, unique := uniqueColumns(m); unique && table.Kind == directory.TableSharded {
		for _, column := range append(slices.Clone(table.Key), table.SubKey...) {
			if !slices.Contains(columns, column) {
				return nil, refuse("Rows of different shards could break it: add the sharding key to it.",
					"cannot create unique index on table %q: it does not contain the sharding key column %q", away[0].Name, column)
			}
		}
	}
	return plan, nil
}
