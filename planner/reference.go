package planner

import (
	"slices"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

// A reference table has a full copy on every shard. What only reads it goes wherever the rest of the statement
// goes; what writes or locks it goes to the home shard, its authority, from where the router mirrors the rows.

// atAuthority reports whether a mention of a reference table must be run on the home shard.
func (r *reference) atAuthority() bool { return r.written || r.locked }

// reference reports whether one of the names is a reference table.
func (a *analysis) anyReference(list []directory.TableName) bool {
	return slices.ContainsFunc(list, func(name directory.TableName) bool {
		t, ok := a.env.Map.Table(name)
		return ok && t.Kind == directory.TableReference
	})
}

// anyReferences reports whether there is any reference table.
func (a *analysis) anyReferences() bool {
	return slices.ContainsFunc(a.env.Map.Tables, func(t directory.Table) bool { return t.Kind == directory.TableReference })
}

// mirrors reports whether the statement may write a reference table: by itself, by a trigger of what it writes, or
// by a function.
func (a *analysis) mirrors() bool {
	return a.functions.mirrors || slices.ContainsFunc(a.references, func(r *reference) bool {
		return r.written && (r.place == everywhere || r.relation != nil && a.triggersMirror(r.relation))
	})
}

// triggersMirror reports whether a trigger that a write of the relation may fire can write a reference table.
func (a *analysis) triggersMirror(rel *catalog.Relation) bool {
	if rel.System || !a.anyReference(rel.Reaches) {
		return false
	}
	fires := func(rel *catalog.Relation) bool {
		return len(rel.Rules) > 0 || slices.ContainsFunc(rel.Triggers, func(t catalog.Trigger) bool {
			touches, _ := a.env.Catalog.ExpressionReach(t.Definition)
			return a.anyReference(touches)
		})
	}
	if fires(rel) {
		return true
	}
	return slices.ContainsFunc(rel.Reaches, func(name directory.TableName) bool {
		other, ok := a.env.Catalog.Relation(name)
		return ok && fires(other)
	})
}

// onlyReferences reports whether the statement reads reference tables and nothing that is on the home shard alone,
// so that any shard can run it. What calls functions of users runs where those are sure to find what they use.
func (a *analysis) onlyReferences() bool {
	u := &a.functions
	return len(a.references) > 0 && !slices.ContainsFunc(a.references, func(r *reference) bool { return r.place != everywhere || r.atAuthority() }) &&
		a.homeOnly == "" && !u.user && u.central == "" && u.unknown == "" && u.server == "" && u.volatile == "" && u.sessionValue == "" && u.clock == "" && !u.now && !u.statementTime &&
		u.setConfig == 0 && !u.advisory && !u.writes && !a.writes && !a.locking && a.systemCol < 0 && a.regCast < 0
}

// lock marks the references of a query level that its FOR UPDATE or FOR SHARE locks: those made since the first.
func (a *analysis) lock(sel *selectStmt, first int) {
	for _, n := range sel.LockingClause {
		clause := n.GetLockingClause()
		for _, r := range a.references[first:] {
			named := slices.ContainsFunc(clause.GetLockedRels(), func(n *node) bool { return n.GetRangeVar().GetRelname() == r.alias })
			if len(clause.GetLockedRels()) == 0 || named {
				r.locked = true
			}
		}
	}
}

// touchedReferences sorts the reference tables that a statement names to the tables that it changes on several
// shards, or to those of the home shard, where it only reads them or refers to them.
func (a *analysis) touchedReferences(m message, references, away, home []directory.TableName) (_, _ []directory.TableName) {
	if len(references) == 0 {
		return away, home
	}
	switch kindName(m) {
	case "CreateTableAsStmt", "SelectStmt", "ViewStmt", "RefreshMatViewStmt":
		return away, append(home, references...)
	}
	main := mainRelation(m)
	switch {
	case main == nil:
		return append(away, references...), home
	case a.mainIsAway(m):
		if rel, ok := a.env.Catalog.ResolveTable(main.Schemaname, main.Relname, a.path); ok {
			for _, name := range references {
				if name == rel.Name || name == rel.OwnedBy {
					away = appendName(away, name)
				}
			}
		}
	}
	return away, home
}

// The lock modes of LOCK TABLE that keep off readers or FOR KEY SHARE (src/include/storage/lockdefs.h).
const exclusiveLock = 7

// maintainReferences plans TRUNCATE and LOCK of reference tables. They run on the home shard: TRUNCATE is mirrored,
// and every writer of a reference table needs its lock there.
func (a *analysis) maintainReferences(m message, plan *Plan, tables []directory.TableName) (*Plan, *Error) {
	for _, name := range tables {
		if !a.anyReference([]directory.TableName{name}) {
			return nil, refuse("Use one statement for each table.", "%s of reference table and of table %s, which is not on the home shard alone, is not supported", plan.Tag, name)
		}
	}
	switch kindName(m) {
	case "TruncateStmt":
		if isCascade(m) {
			return nil, refuse("Name the tables, those that refer to the others too.", "TRUNCATE … CASCADE of reference table %s is not supported", tables[0])
		}
		plan.Mirrors = true
		return plan, nil
	case "LockStmt":
		if lockMode(m) < exclusiveLock {
			return plan, nil
		}
		return nil, refuse("LOCK TABLE … IN SHARE ROW EXCLUSIVE MODE keeps all writers off; readers and foreign keys use the copies on all shards.",
			"LOCK TABLE IN EXCLUSIVE or ACCESS EXCLUSIVE MODE of reference table %s is not supported", tables[0])
	}
	return plan, nil
}
