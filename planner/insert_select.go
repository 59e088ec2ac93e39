package planner

import (
	"slices"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

// planSelected plans an INSERT … SELECT that no single shard can run: each shard runs it on its own rows. why is the reason
// against a single shard, and stands if that cannot be proved to be right.
func (a *analysis) planSelected(i *insertStmt, why *Error) (*Plan, *Error) {
	if a.insertion.source == nil || len(a.insertion.source.ValuesLists) > 0 && a.insertion.source.Op == setOpNone {
		return nil, why
	}
	if plan := a.fresh().planLocal(i); plan != nil {
		return plan, nil
	}
	return nil, why
}

// fresh is an analysis of the same statement that has seen nothing of it yet.
func (a *analysis) fresh() *analysis {
	b := newAnalysis(&Statement{Text: a.sql, literals: a.literals}, a.types, a.env, a.insertion.stmt)
	b.insertion = &inserting{stmt: a.insertion.stmt, source: a.insertion.source, selected: true}
	return b
}

// planLocal plans an INSERT … SELECT whose rows are provably on the shard that stores them; nil if it is not.
func (a *analysis) planLocal(i *insertStmt) *Plan {
	in := a.insertion
	if in.source.LimitCount != nil || in.source.LimitOffset != nil || len(in.source.ValuesLists) > 0 {
		return nil
	}
	a.modification(i, nil, &context{})
	a.finishAll()
	plan, err := a.plan("INSERT")
	if err != nil || len(in.drawn) > 0 || i.WithClause != nil && !a.writes || plan.Route.Kind != RouteFilters || in.target == nil ||
		in.target.place != sharded || a.functions.now || a.functions.statementTime || a.functions.setConfig > 0 {
		return nil
	}
	a.target = in.target
	sc := &scatter{analysis: a, sel: in.source, top: in.context, writing: true}
	for _, check := range []func() *Error{sc.checkClauses, sc.checkFunctions, a.checkTransitions, sc.checkPlaces} {
		if check() != nil {
			return nil
		}
	}
	anchor := a.sourceOfKey()
	if anchor == nil || a.timeInDefaults() {
		return nil
	}
	if a.checkParts() != nil {
		return nil
	}
	var read []*reference
	for _, r := range a.references {
		if r != in.target && r.place != sharded {
			return nil
		}
		if r != in.target {
			read = append(read, r)
		}
	}
	for _, r := range a.ofPart(nil) {
		if r != in.target && r != anchor && !r.joinedByKey(anchor) {
			return nil
		}
	}
	plan.Route = a.routeByKey(read)
	plan.Kind, plan.Modify, plan.Refusal, plan.texts = Modify, &ModifyData{}, nil, a.texts
	return plan
}

// sourceOfKey is the table of the outermost FROM whose whole key the rows are stored under, unchanged; nil if there is none.
func (a *analysis) sourceOfKey() *reference {
	in := a.insertion
	if in.rows.open || in.source.Op != setOpNone {
		return nil
	}
	k := in.context.classes()
	target := in.target
	for _, r := range a.ofPart(nil) {
		if r == target || r.context != in.context || r.table.Group != target.table.Group {
			continue
		}
		from, into := r.keyColumns(), target.keyColumns()
		same := len(from) == len(into)
		for n := 0; same && n < len(into); n++ {
			p := slices.IndexFunc(in.places, func(c *catalog.Column) bool { return c.Name == into[n].name })
			same = p >= 0 && p < len(in.rows.columns) && in.rows.columns[p].known() && k.same(in.rows.columns[p].id, from[n]) &&
				a.storesAlike(in.rows.columns[p].cat, in.places[p]) && a.overridden(in.stmt, in.places[p]) == nil
		}
		if same {
			return r
		}
	}
	return nil
}

// storesAlike reports whether every value of one column is the same, as a key, when it is stored in another.
func (a *analysis) storesAlike(from, into *catalog.Column) bool {
	x, xOK := directory.KeyTypeOf(a.env.Catalog.BaseType(from.Type))
	y, yOK := directory.KeyTypeOf(a.env.Catalog.BaseType(into.Type))
	return xOK && yOK && x.Family() == y.Family() && (into.Typmod < 0 || x == y && from.Typmod == into.Typmod)
}

// timeInDefaults reports whether a column that is not given has a default that reads the time, or one that cannot be read.
func (a *analysis) timeInDefaults() bool {
	for _, c := range a.insertion.target.relation.Live() {
		if !c.HasDefault || c.DefaultIsConst || c.Generated || c.Identity != 0 {
			continue
		}
		if p := slices.Index(a.insertion.places, c); p >= 0 && p < len(a.insertion.rows.columns) {
			continue
		}
		if def := a.defaultNode(c); def == nil || a.clockIn(def) >= 0 {
			return true
		}
	}
	return false
}
