package planner

import (
	"slices"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

// planDDL plans a statement that changes the catalog.
func (a *analysis) planDDL(m message) (*Plan, *Error) {
	data := &DDLData{Command: commandTag(m)}
	plan := &Plan{Kind: DDL, Tag: data.Command, DDL: data, Route: Route{Kind: RouteHome}}
	if temporaryObject(m) {
		data.Temp, plan.Pins = true, "temporary table"
	} else if namesTemporary(m) {
		data.Temp, plan.Pins = true, "temporary object"
	}
	if everywhere := a.planEverywhere(m, plan); everywhere != nil {
		return everywhere, nil
	}
	if !a.env.Map.AnythingSharded() {
		return plan, nil
	}
	away, home := a.touched(m)
	if len(away) == 0 {
		if !data.Temp {
			data.Objects, data.Alters = aboutObjects(m)
		}
		if data.Alters {
			data.Alters, data.Replaces = a.replaces(m)
		}
		if err := a.checkDefinition(m); err != nil {
			return nil, err
		}
		if kind := kindName(m); a.watched() && kind != "ViewStmt" && kind != "RuleStmt" { // those run nothing
			plan.Watched, plan.Mirrors = true, a.anyReferences()
		}
		return plan, nil
	}
	if main := mainRelation(m); main != nil && !a.mainIsAway(m) {
		return nil, refuse("Leave the reference out, or shard both tables alike.",
			"%s of table %s refers to table %s, which is not on the home shard alone", data.Command, main.Relname, away[0]).
			at(a.position(int(main.Location)))
	} else if main == nil && len(home) > 0 {
		return nil, refuse("Shard or pin both tables alike, or use one statement for each table.",
			"%s with table %s, which is not on the home shard alone, and %s, which is on it", data.Command, away[0], home[0])
	}
	others, err := a.sequencesElsewhere(m, away)
	if err != nil {
		return nil, err
	}
	data.Others = others
	data.Tables, plan.Tables = away, away
	plan.Route = Route{}
	return plan, nil
}

// touched are the tables of the map, and the other tables, that a statement names.
func (a *analysis) touched(m message) (away, home []directory.TableName) {
	var references []directory.TableName
	note := func(schema, name string) {
		rel, ok := a.env.Catalog.ResolveTable(schema, name, a.path)
		full := directory.TableName{Schema: schema, Name: name}
		if ok {
			full = rel.Name
			if (rel.Kind == catalog.KindIndex || rel.Kind == catalog.KindPartitionedIndex || rel.Kind == catalog.KindSequence && !a.isSharded(rel.OwnedBy)) &&
				rel.OwnedBy.Name != "" {
				full = rel.OwnedBy // a sharded table's sequence is on the home shard alone
			}
		}
		if a.temporary(&rangeVar{Schemaname: schema, Relname: name}) {
			home = appendName(home, full)
			return
		}
		if a.anyReference([]directory.TableName{full}) && (!ok || rel.Kind != catalog.KindSequence) {
			references = appendName(references, full)
		} else if _, elsewhere := a.away([]directory.TableName{full}); elsewhere {
			away = appendName(away, full)
		} else if ok {
			home = appendName(home, full)
		}
	}
	walk(m, func(inner message) bool {
		if rv, ok := inner.(*rangeVar); ok {
			note(rv.Schemaname, rv.Relname)
		}
		return true
	})
	for _, parts := range objectNames(m) {
		schema := ""
		if len(parts) > 1 {
			schema = parts[len(parts)-2]
		}
		note(schema, parts[len(parts)-1])
	}
	return a.touchedReferences(m, references, away, home)
}

func appendName(list []directory.TableName, name directory.TableName) []directory.TableName {
	if slices.Contains(list, name) {
		return list
	}
	return append(list, name)
}

// mainIsAway reports whether the table that a statement changes is one of the map: then what it refers
// to is checked where the statement is performed.
func (a *analysis) mainIsAway(m message) bool {
	main := mainRelation(m)
	if main == nil {
		return false
	}
	rel, ok := a.env.Catalog.ResolveTable(main.Schemaname, main.Relname, a.path)
	if !ok {
		return false
	}
	name := rel.Name
	if rel.OwnedBy.Name != "" && !(rel.Kind == catalog.KindSequence && a.isSharded(rel.OwnedBy)) {
		name = rel.OwnedBy
	}
	_, elsewhere := a.away([]directory.TableName{name})
	return elsewhere || a.anyReference([]directory.TableName{name}) && rel.Kind != catalog.KindSequence
}

// checkDefinition refuses views and rules over tables elsewhere that only their functions show.
func (a *analysis) checkDefinition(m message) *Error {
	switch kindName(m) {
	case "ViewStmt", "RuleStmt", "CreateTableAsStmt":
		walk(m, func(inner message) bool {
			if f, ok := inner.(*funcCall); ok {
				a.reach(a.function(f), int(f.Location))
			}
			return true
		})
		for _, name := range a.namedRelations(m) {
			rel, ok := a.env.Catalog.Relation(name)
			if !ok || rel.System || rel.Kind == catalog.KindTable {
				continue
			}
			if other, elsewhere := a.away(rel.Reaches); elsewhere {
				return refuse("Read the table in the statement itself.", "%s %s leads to table %s, which is not on the home shard alone", rel.Kind.Noun(), rel.Name, other)
			}
		}
		return a.refused
	case "RefreshMatViewStmt":
		for _, name := range a.namedRelations(m) {
			if rel, ok := a.env.Catalog.Relation(name); ok {
				if other, elsewhere := a.away(rel.Reaches); elsewhere {
					return refuse("Drop the materialized view.", "materialized view %s leads to table %s, which is not on the home shard alone", rel.Name, other)
				}
			}
		}
	}
	return nil
}

func (a *analysis) namedRelations(m message) []directory.TableName {
	_, home := a.touched(m)
	return home
}

// planView refuses views over tables elsewhere before it is planned as DDL.
func (a *analysis) planView(m message) (*Plan, *Error) {
	if a.env.Map.AnythingSharded() {
		if away, _ := a.touched(m); len(away) > 0 {
			return nil, refuse("Write the query in the statements that use the view.",
				"a view, materialized view or rule over table %s, which is not on the home shard alone, is not supported", away[0])
		}
	}
	return a.planDDL(m)
}

// planCreateAs plans CREATE TABLE AS and CREATE MATERIALIZED VIEW.
func (a *analysis) planCreateAs(c *createTableAs) (*Plan, *Error) {
	if a.env.Map.AnythingSharded() {
		if away, _ := a.touched(c); len(away) > 0 && isPlainCreateAs(c) {
			plan := &Plan{Kind: DDL, Tag: commandTag(c), DDL: &DDLData{Command: commandTag(c)}, Route: Route{Kind: RouteHome}}
			if temporaryObject(c) {
				plan.DDL.Temp, plan.Pins = true, "temporary table"
			}
			return a.planCreateFrom(c, plan)
		} else if len(away) > 0 {
			return nil, refuse("CREATE TABLE first, then INSERT the rows.",
				"%s from table %s, which is not on the home shard alone, is not supported", commandTag(c), away[0])
		}
	}
	plan, err := a.planDDL(c)
	if e := c.Query.GetExecuteStmt(); err == nil && e != nil {
		plan.Executes = e.Name
	}
	if err == nil {
		a.noteFunctions(c)
		plan.Dirty = a.functions.dirty || a.functions.setConfig > 0
	}
	return plan, err
}

// planSelectInto plans SELECT … INTO.
func (a *analysis) planSelectInto(sel *selectStmt) (*Plan, *Error) {
	plan := &Plan{Kind: DDL, Tag: "SELECT", DDL: &DDLData{Command: "SELECT INTO"}, Route: Route{Kind: RouteHome}}
	if rv := intoTable(sel); rv.Relpersistence == "t" || rv.Schemaname == "pg_temp" {
		plan.DDL.Temp, plan.Pins = true, "temporary table"
	}
	if a.env.Map.AnythingSharded() {
		if away, _ := a.touched(sel); len(away) > 0 {
			return a.planCreateFrom(asCreate(sel), plan)
		}
	}
	a.noteFunctions(sel)
	plan.Dirty = a.functions.dirty || a.functions.setConfig > 0
	if a.env.Map.AnythingSharded() && a.refused != nil {
		return nil, a.refused
	}
	if a.watched() {
		plan.Watched, plan.Mirrors = true, a.anyReferences()
	}
	return plan, nil
}

func (a *analysis) noteFunctions(m message) {
	walk(m, func(inner message) bool {
		if f, ok := inner.(*funcCall); ok {
			a.call(f, &scope{})
		}
		return true
	})
}

// planHomeTables plans TRUNCATE and LOCK of tables of the home shard, of reference tables, or of pinned ones.
func (a *analysis) planHomeTables(m message, plan *Plan) (*Plan, *Error) {
	tag := plan.Tag
	away, home := a.touched(m)
	plan.Tables = away
	if len(away) == 0 {
		for _, name := range home {
			rel, ok := a.env.Catalog.Relation(name)
			if !ok || kindName(m) != "TruncateStmt" {
				continue
			}
			if other, elsewhere := a.away(rel.Reaches); elsewhere {
				return nil, refuse("TRUNCATE the tables one by one.", "table %s leads to table %s, which is not on the home shard alone", name, other)
			}
		}
		return plan, nil
	}
	if a.anyReference(away) {
		return a.maintainReferences(m, plan, away)
	}
	first, _ := a.env.Map.Table(away[0])
	for _, name := range away {
		t, _ := a.env.Map.Table(name)
		if t.Kind != directory.TablePinned || t.Shard != first.Shard || len(home) > 0 {
			return nil, refuse("Run it on each shard, or on one table at a time.", "%s of table %s, which is not on one shard alone, is not supported yet", tag, name)
		}
	}
	plan.Route = Route{Kind: RouteShard, Shard: first.Shard}
	return plan, nil
}
