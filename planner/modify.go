package planner

// modification analyses a data-modifying statement, at the top or in WITH. Of UPDATE and DELETE it returns the target and
// what RETURNING gives.
func (a *analysis) modification(m message, outer *scope, parent *context) (target *reference, returned result) {
	ctx := parent.child()
	switch m := m.(type) {
	case *insertStmt:
		a.insert(m, outer, ctx)
	case *updateStmt:
		return a.update(m, outer, ctx)
	case *deleteStmt:
		return a.delete(m, outer, ctx)
	case *mergeStmt:
		if in := a.mergeInto(m, outer, ctx); outer == nil {
			a.merging = in
		}
	default:
		a.refuse(refuse("Use SELECT, INSERT, UPDATE or DELETE.", "statement %s in WITH is not supported", kindName(m)), location(m))
	}
	return nil, result{open: true}
}

// planModification plans an INSERT, UPDATE, DELETE or MERGE.
func (a *analysis) planModification(m message, tag string) (*Plan, *Error) {
	a.modification(m, nil, &context{})
	a.finishAll()
	plan, err := a.plan(tag)
	if err != nil {
		return nil, err
	}
	if a.functions.setConfig > 0 {
		plan.Dirty = true
	}
	if plan.Route.Kind != RouteFilters {
		return plan, nil
	}
	switch tag {
	case "UPDATE", "DELETE", "MERGE":
		err = a.mayModify(m, plan)
	default:
		if a.moved != nil {
			err = refuse(hintMove, "column %q is part of the shard key of table %s and cannot be changed here", a.moved.column, a.target.name).
				at(a.position(a.moved.at))
		}
	}
	return plan, err
}

// targetScope makes the scope of a modification and the reference to its target.
func (a *analysis) targetScope(rv *rangeVar, w *withClause, outer *scope, ctx *context) (*scope, *reference) {
	s := &scope{outer: outer}
	if outer != nil {
		s.tables = outer.tables
	}
	a.with(w, s, outer, ctx)
	r := a.relation(rv, ctx)
	r.written = true
	if outer == nil {
		a.target = r
	}
	// An UPDATE of it sets the settings of the session.
	if rv.Relname == "pg_settings" {
		a.functions.dirty, a.functions.sets = true, true
	}
	columns, open := r.columnsOf()
	it := named(result{columns: columns, open: open}, rv.Relname, r.name.Schema, rv.Alias)
	s.items, s.columns, s.open = it.items, it.columns, it.open
	return s, r
}

// update analyses UPDATE.
func (a *analysis) update(u *updateStmt, outer *scope, ctx *context) (*reference, result) {
	s, r := a.targetScope(u.Relation, u.WithClause, outer, ctx)
	a.from(u.FromClause, s, ctx)
	a.where(u.WhereClause, s, ctx)
	a.assignments(r, u.TargetList, s, ctx)
	a.eachRow(u.ReturningList, s, ctx)
	return r, a.targets(u.ReturningList, s)
}

// assignments analyses the list of SET. ctx holds the facts of the rows that are changed.
func (a *analysis) assignments(r *reference, targets []*node, s *scope, ctx *context) {
	a.keepsKey(r, targets, s, ctx)
	a.keepsNumbers(r, targets)
	a.defaults(r, targets)
	a.noTimes(r, targets)
	a.eachRow(targets, s, ctx)
}

// delete analyses DELETE.
func (a *analysis) delete(d *deleteStmt, outer *scope, ctx *context) (*reference, result) {
	s, r := a.targetScope(d.Relation, d.WithClause, outer, ctx)
	a.from(d.UsingClause, s, ctx)
	a.where(d.WhereClause, s, ctx)
	a.eachRow(d.ReturningList, s, ctx)
	return r, a.targets(d.ReturningList, s)
}
