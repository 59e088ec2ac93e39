package planner

import "slices"

// cte is one entry of a WITH clause.
type cte struct {
	name    string
	query   *selectStmt
	alias   *aliasNode
	outer   *scope // where its query is resolved
	context *context
	inlined bool // analysed where it is referenced
	done    bool
	columns []column
	unknown bool // its columns are not known
	itself  bool // being analysed: a reference is recursive
	// Of a query that changes data: the table, nil if each shard cannot be left to change its own rows.
	target *reference
}

// result is what a query gives to the query around it.
type result struct {
	columns []column
	open    bool
}

// opaque forgets which columns of tables the columns of a result are, and what they are equal to.
func (a *analysis) opaque(r result) result {
	out := result{open: r.open}
	entry := a.newEntry()
	for _, c := range r.columns {
		out.columns = append(out.columns, column{name: c.name, id: columnID{entry, c.name}, values: c.values})
	}
	return out
}

// query analyses a SELECT (or VALUES, or a set operation) that is a level of its own: outer is what its
// names may refer to outside of it, parent the context of the place where it stands.
func (a *analysis) query(sel *selectStmt, outer *scope, parent *context) result {
	return a.selectInto(sel, outer, parent.child())
}

// selectInto analyses a query whose facts hold in ctx.
func (a *analysis) selectInto(sel *selectStmt, outer *scope, ctx *context) result {
	s := &scope{outer: outer}
	if outer != nil {
		s.tables = outer.tables
	}
	if outer == nil {
		a.topScope = s
	}
	a.with(sel.WithClause, s, outer, ctx)
	if len(sel.LockingClause) > 0 {
		a.locking = true
		a.innerLocking = a.innerLocking || outer != nil
	}
	if sel.Op != setOpNone {
		return a.setOperation(sel, s, ctx)
	}
	if sel.IntoClause != nil && sel.IntoClause.Rel != nil {
		a.walkList(sel.IntoClause.Options, s, ctx)
	}
	for _, row := range sel.ValuesLists {
		a.expression(row, s, ctx)
	}
	if len(sel.ValuesLists) > 0 {
		a.tail(sel, s, ctx)
		return a.valuesResult(sel)
	}
	first := len(a.references)
	a.from(sel.FromClause, s, ctx)
	a.lock(sel, first)
	a.where(sel.WhereClause, s, ctx)
	a.walkList(sel.TargetList, s, ctx)
	a.walkList(sel.DistinctClause, s, ctx)
	a.walkList(sel.GroupClause, s, ctx)
	a.expression(sel.HavingClause, s, ctx)
	a.walkList(sel.WindowClause, s, ctx)
	a.tail(sel, s, ctx)
	r := a.targets(sel.TargetList, s)
	if hasGroupingSets(sel) {
		r.columns = unvalued(r.columns)
	}
	return r
}

// unvalued are the columns without their values.
func unvalued(columns []column) []column {
	columns = slices.Clone(columns)
	for i := range columns {
		columns[i].values = nil
	}
	return columns
}

// tail analyses ORDER BY, LIMIT and OFFSET.
func (a *analysis) tail(sel *selectStmt, s *scope, ctx *context) {
	a.walkList(sel.SortClause, s, ctx)
	a.expression(sel.LimitCount, s, ctx)
	a.expression(sel.LimitOffset, s, ctx)
}

func (a *analysis) setOperation(sel *selectStmt, s *scope, ctx *context) result {
	left := a.arm(sel.Larg, s, ctx)
	a.arm(sel.Rarg, s, ctx)
	a.tail(sel, &scope{outer: s.outer, tables: s.tables, open: true}, ctx)
	left.columns = unvalued(left.columns)
	return a.opaque(left)
}

// arm analyses one side of a set operation. It sees the WITH clause of the whole and what is outside.
func (a *analysis) arm(sel *selectStmt, s *scope, ctx *context) result {
	if sel == nil {
		return result{open: true}
	}
	outer := &scope{outer: s.outer, tables: s.tables}
	return a.query(sel, outer, ctx)
}

func (a *analysis) valuesResult(sel *selectStmt) result {
	var r result
	entry := a.newEntry()
	if len(sel.ValuesLists) == 0 {
		return r
	}
	list := sel.ValuesLists[0].GetList()
	if list == nil {
		return result{open: true}
	}
	for i := range list.Items {
		name := "column" + itoa(i+1)
		r.columns = append(r.columns, column{name: name, id: columnID{entry, name}, values: valuesOf(sel.ValuesLists, i)})
	}
	return r
}

// valuesOf are the values of column i of VALUES, if all of them are constants and parameters.
func valuesOf(rows []*node, i int) []*node {
	values := make([]*node, 0, len(rows))
	for _, row := range rows {
		items := row.GetList().GetItems()
		if i >= len(items) || !isGiven(items[i]) {
			return nil
		}
		values = append(values, items[i])
	}
	return values
}

// isGiven tells constants and parameters, also with a cast.
func isGiven(n *node) bool {
	if c := n.GetTypeCast(); c != nil {
		n = c.Arg
	}
	return n.GetAConst() != nil || n.GetParamRef() != nil
}

// targets are the columns of a SELECT's result; plain columns keep their identity.
func (a *analysis) targets(list []*node, s *scope) result {
	var r result
	entry := a.newEntry()
	for i, n := range list {
		t := n.GetResTarget()
		if t == nil {
			r.open = true
			continue
		}
		ref := t.Val.GetColumnRef()
		if ref == nil {
			name := t.Name
			if name == "" {
				name = figureName(t.Val)
			}
			c := column{name: name, id: columnID{entry, "?" + itoa(i)}}
			if isGiven(t.Val) {
				c.values = []*node{t.Val}
			}
			r.columns = append(r.columns, c)
			continue
		}
		if star, parts := isStar(ref); star {
			columns, ok := s.starColumns(parts)
			r.columns = append(r.columns, columns...)
			r.open = r.open || !ok
			continue
		}
		c, _, ok := s.resolve(ref)
		if !ok {
			c = column{id: columnID{entry, "?" + itoa(i)}}
		}
		c.name = t.Name
		if c.name == "" {
			if parts, plain := names(ref.Fields); plain && len(parts) > 0 {
				c.name = parts[len(parts)-1]
			}
		}
		r.columns = append(r.columns, c)
	}
	return r
}

// isStar tells *, alias.* and schema.alias.*, and gives what stands in front of the star.
func isStar(ref *columnRef) (bool, []string) {
	n := len(ref.GetFields())
	if n == 0 || ref.Fields[n-1].GetAStar() == nil {
		return false, nil
	}
	parts, _ := names(ref.Fields[:n-1])
	return true, parts
}

// with registers the entries of a WITH clause in s.
func (a *analysis) with(w *withClause, s, outer *scope, ctx *context) {
	if w == nil {
		return
	}
	base := ctx.parent
	if base == nil {
		base = &context{}
	}
	// A query of WITH sees what is outside, and the entries before it (all of them, itself too, if
	// the clause is recursive).
	for _, n := range w.Ctes {
		e := n.GetCommonTableExpr()
		if e == nil {
			continue
		}
		inner := &scope{outer: outer, tables: s.tables}
		c := &cte{name: e.Ctename, outer: inner, context: base, alias: &aliasNode{Aliasname: e.Ctename, Colnames: e.Aliascolnames}}
		if w.Recursive {
			inner.tables = &cteScope{outer: s.tables, name: e.Ctename, cte: c}
		}
		s.tables = &cteScope{outer: s.tables, name: e.Ctename, cte: c}
		c.query = e.Ctequery.GetSelectStmt()
		switch {
		case c.query == nil:
			a.modifies(c, unwrap(e.Ctequery), base)
		case !w.Recursive && a.tableUses[e.Ctename] == 1 && a.simple(c.query):
			c.inlined = true
			a.deferred = append(a.deferred, c)
		default:
			a.finish(c)
		}
	}
	if w.Recursive {
		// Entries may refer to later ones there; such a reference resolved to a table of that name,
		// which need not be right.
		a.forwardReferences(w)
	}
}

// finish analyses a WITH query by itself.
func (a *analysis) finish(c *cte) {
	if c.done {
		return
	}
	c.done, c.itself = true, true
	r := a.opaque(a.query(c.query, c.outer, c.context))
	c.itself = false
	columns, ok := renamed(r.columns, c.alias)
	c.columns, c.unknown = columns, r.open || !ok
}

// finishAll analyses the WITH queries that nothing referred to.
func (a *analysis) finishAll() {
	for _, c := range a.deferred {
		a.finish(c)
	}
}

// forwardReferences finds entries of WITH RECURSIVE that refer to later entries.
func (a *analysis) forwardReferences(w *withClause) {
	seen := map[string]bool{}
	all := map[string]bool{}
	for _, n := range w.Ctes {
		all[n.GetCommonTableExpr().GetCtename()] = true
	}
	for _, n := range w.Ctes {
		e := n.GetCommonTableExpr()
		seen[e.GetCtename()] = true
		walk(e.GetCtequery(), func(m message) bool {
			if rv, ok := m.(*rangeVar); ok && rv.Schemaname == "" && all[rv.Relname] && !seen[rv.Relname] {
				if a.later == nil {
					a.later = refuse("Put the queries of WITH RECURSIVE in the order in which they use each other.",
						"WITH RECURSIVE with a reference to a later query is not supported").at(a.position(int(rv.Location)))
				}
			}
			return true
		})
	}
}

// reference to a WITH query in FROM.
func (a *analysis) useCTE(c *cte, ctx *context) result {
	if c.inlined && !c.done {
		c.done = true
		a.sortedInner = a.sortedInner || len(c.query.SortClause) > 0
		r := a.selectInto(c.query, c.outer, ctx)
		columns, ok := renamed(r.columns, c.alias)
		return result{columns: columns, open: r.open || !ok}
	}
	if c.target != nil {
		return a.mention(c, ctx)
	}
	if c.itself || c.unknown {
		return result{open: true}
	}
	return a.opaque(result{columns: c.columns})
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}
