package planner

// from analyses a FROM list into the scope; the entries of the list are joined by inner joins.
func (a *analysis) from(list []*node, s *scope, ctx *context) {
	for _, n := range list {
		r := a.fromItem(n, s, ctx)
		s.items = append(s.items, r.items...)
		s.columns = append(s.columns, r.columns...)
		s.open = s.open || r.open
	}
}

// fromResult is what a FROM item adds to the scope.
type fromResult struct {
	items   []item
	columns []column
	open    bool
}

// fromItem analyses one item. s is the scope as far as it is known: what a LATERAL item may refer to.
func (a *analysis) fromItem(n *node, s *scope, ctx *context) fromResult {
	switch m := unwrap(n).(type) {
	case *rangeVar:
		return a.fromTable(m, s, ctx)
	case *rangeSubselect:
		return a.fromSubselect(m, s, ctx)
	case *joinExpr:
		return a.fromJoin(m, s, ctx)
	case *rangeFunction:
		a.inFrom = true
		a.walkList(m.Functions, s, ctx)
		a.inFrom = false
		a.walkList(m.Coldeflist, s, ctx)
		return openItem(m.Alias)
	case nil:
		return fromResult{open: true}
	default:
		// TABLESAMPLE, XMLTABLE, JSON_TABLE: what they read is noted, but proves nothing.
		return a.fromOther(m, s, ctx)
	}
}

func openItem(alias *aliasNode) fromResult {
	return fromResult{items: []item{{alias: alias.GetAliasname(), open: true}}, open: true}
}

// fromOther analyses an item of an unusual sort.
func (a *analysis) fromOther(m message, s *scope, ctx *context) fromResult {
	sample := kindName(m) == "RangeTableSample"
	var r fromResult
	walk(m, func(inner message) bool {
		switch inner := inner.(type) {
		case *rangeVar:
			r = a.fromTable(inner, s, ctx)
			return false
		case *subLink, *funcCall, *sqlValueFunction, *typeCast, *columnRef:
			a.walkMessage(inner, s, ctx)
			return false
		}
		return true
	})
	if sample {
		// A sample of the rows is still a part of the rows: what filters them filters it.
		a.functions.sample = true
		return r
	}
	return fromResult{items: append(r.items, item{open: true}), open: true}
}

func (a *analysis) fromTable(rv *rangeVar, s *scope, ctx *context) fromResult {
	name := rv.Relname
	alias := rv.Alias
	if rv.Schemaname == "" {
		if c := s.tables.find(rv.Relname); c != nil {
			return named(a.useCTE(c, ctx), name, "", alias)
		}
	}
	ref := a.relation(rv, ctx)
	ref.alias = name
	if alias != nil {
		ref.alias = alias.Aliasname
	}
	columns, open := ref.columnsOf()
	return named(result{columns: columns, open: open}, name, ref.name.Schema, alias)
}

// named makes a FROM item of a result: under its alias, or under its own name.
func named(r result, name, schema string, alias *aliasNode) fromResult {
	it := item{alias: name, schema: schema, columns: r.columns, open: r.open}
	if alias != nil {
		columns, ok := renamed(r.columns, alias)
		it = item{alias: alias.Aliasname, columns: columns, open: r.open || !ok}
	}
	return fromResult{items: []item{it}, columns: it.columns, open: it.open}
}

func (a *analysis) fromSubselect(rs *rangeSubselect, s *scope, ctx *context) fromResult {
	sel := rs.Subquery.GetSelectStmt()
	if sel == nil {
		return openItem(rs.Alias)
	}
	outer := s
	if !rs.Lateral {
		outer = &scope{outer: s.outer, tables: s.tables}
	}
	var r result
	if a.simple(sel) {
		a.sortedInner = a.sortedInner || len(sel.SortClause) > 0
		r = a.selectInto(sel, outer, ctx)
	} else {
		r = a.opaque(a.query(sel, outer, ctx))
	}
	return named(r, rs.Alias.GetAliasname(), "", rs.Alias)
}

// fromJoin analyses a join. The side that an outer join fills with NULLs gets a context of its own, in
// which the join's condition holds; the other side does not.
func (a *analysis) fromJoin(j *joinExpr, s *scope, ctx *context) fromResult {
	leftCtx, rightCtx, onCtx := ctx, ctx, ctx
	switch j.Jointype {
	case joinInner:
	case joinLeft:
		rightCtx = ctx.child()
		onCtx = rightCtx
	case joinRight:
		leftCtx = ctx.child()
		onCtx = leftCtx
	default: // FULL: the condition filters neither side
		leftCtx, rightCtx, onCtx = ctx.child(), ctx.child(), ctx.child()
	}
	left := a.fromItem(j.Larg, s, leftCtx)
	lateral := &scope{outer: s.outer, tables: s.tables, open: s.open || left.open}
	lateral.items = append(append(lateral.items, s.items...), left.items...)
	lateral.columns = append(append(lateral.columns, s.columns...), left.columns...)
	right := a.fromItem(j.Rarg, lateral, rightCtx)
	joined := a.joinColumns(j, left, right, onCtx)
	on := &scope{outer: s.outer, tables: s.tables, open: left.open || right.open}
	on.items = append(append(on.items, left.items...), right.items...)
	on.columns = append(append(on.columns, left.columns...), right.columns...)
	a.condition(j.Quals, on, onCtx)
	r := fromResult{columns: joined, open: left.open || right.open, items: on.items}
	if j.Jointype != joinInner { // it makes NULLs of values
		r.columns = unvalued(r.columns)
		for i := range r.items {
			r.items[i].columns = unvalued(r.items[i].columns)
		}
	}
	if j.JoinUsingAlias != nil {
		r.items = append(r.items, item{alias: j.JoinUsingAlias.Aliasname, open: true})
	}
	if j.Alias != nil {
		return named(result{columns: joined, open: r.open}, "", "", j.Alias)
	}
	return r
}

// joinColumns are the columns of a join in the order of *, and states the equalities of USING and
// NATURAL.
func (a *analysis) joinColumns(j *joinExpr, left, right fromResult, ctx *context) []column {
	common, _ := names(j.UsingClause)
	if j.IsNatural {
		if left.open || right.open {
			return append(append([]column(nil), left.columns...), right.columns...)
		}
		for _, c := range left.columns {
			if _, state := lookupIn(right.columns, false, c.name); state == lookupFound {
				common = append(common, c.name)
			}
		}
	}
	if len(common) == 0 {
		return append(append([]column(nil), left.columns...), right.columns...)
	}
	merged := make(map[string]bool, len(common))
	var columns []column
	for _, name := range common {
		merged[name] = true
		l, lstate := lookupIn(left.columns, left.open, name)
		r, rstate := lookupIn(right.columns, right.open, name)
		c := column{name: name}
		if lstate == lookupFound && rstate == lookupFound {
			a.equate("=", l, r, ctx)
			switch j.Jointype {
			case joinRight:
				c = r
			case joinFull:
			default:
				c = l
			}
		}
		c.name = name
		columns = append(columns, c)
	}
	for _, side := range [][]column{left.columns, right.columns} {
		for _, c := range side {
			if !merged[c.name] {
				columns = append(columns, c)
			}
		}
	}
	return columns
}

// simple reports whether a query's rows are the rows of its FROM clause that its WHERE clause leaves,
// one for one, so that it can be taken for a part of the query around it.
func (a *analysis) simple(sel *selectStmt) bool {
	if sel.Op != setOpNone || len(sel.ValuesLists) > 0 || len(sel.DistinctClause) > 0 ||
		len(sel.GroupClause) > 0 || sel.HavingClause != nil || len(sel.WindowClause) > 0 ||
		sel.LimitCount != nil || sel.LimitOffset != nil || len(sel.LockingClause) > 0 ||
		sel.WithClause != nil || sel.IntoClause != nil || len(sel.FromClause) == 0 {
		return false
	}
	for _, list := range [][]*node{sel.TargetList, sel.SortClause} {
		for _, n := range list {
			if a.changesRows(unwrap(n)) {
				return false
			}
		}
	}
	return true
}

// changesRows reports whether an expression holds an aggregate, a window function or a set-returning
// function of its own level, or a function that we do not know.
func (a *analysis) changesRows(m message) bool {
	found := false
	walk(m, func(inner message) bool {
		switch inner := inner.(type) {
		case *subLink:
			return false
		case *funcCall:
			info := a.function(inner)
			if info.aggregate || info.window || info.returnsSet || info.unknown || inner.Over != nil {
				found = true
			}
		default:
			if isAggregateNode(inner) {
				found = true
			}
		}
		return !found
	})
	return found
}

// isAggregateNode tells aggregates that have a grammar of their own.
func isAggregateNode(m message) bool {
	switch kindName(m) {
	case "GroupingFunc", "JsonObjectAgg", "JsonArrayAgg":
		return true
	}
	return false
}
