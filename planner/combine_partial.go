package planner

import (
	"slices"
	"strconv"
	"strings"

	"github.com/shardyard/shardyard/planner/catalog"
)

// partial is a query whose groups the shards compute in part: the only piece has a row for each group of a shard, and the rest puts
// those of one group together. Its FROM clause would do for a scatter: every row of it is made of rows of one shard.
//
// Invariant: only aggregates are taken apart whose value is the same however the rows are divided: what is exact is exact again when it
// is added up, and least and greatest values are found in any order.
type partial struct {
	*combining
	sel    *selectStmt
	groups []*node // expressions of GROUP BY
	values []*node // partial aggregates
}

const partialTable = "shardyard_1"

// partially divides a query into groups that the shards compute in part and the rest; nil if it cannot be divided so.
func (c *combining) partially(sel *selectStmt) *CombineData {
	if spread, _, _ := c.sorted(); len(spread) == 0 {
		return nil
	}
	sc := &scatter{analysis: c.analysis, sel: sel, top: c.top}
	if sel.Op != setOpNone || len(sel.ValuesLists) > 0 || sel.WithClause != nil || len(sel.WindowClause) > 0 || sel.GroupDistinct ||
		!c.functions.aggregate && len(sel.GroupClause) == 0 || sc.checkTables() != nil || sc.checkFunctions() != nil || hasInner(sel) ||
		!plainFrom(sel.FromClause) || c.topScope.open {
		return nil
	}
	p := &partial{combining: c, sel: sel}
	if !p.group() {
		return nil
	}
	rest := cloneSelect(sel)
	if !p.divide(rest) {
		return nil
	}
	piece, ok := p.piece()
	if !ok {
		return nil
	}
	sql, err := rewrite(rest, func(message) error { return nil })
	if err != nil {
		return nil
	}
	return &CombineData{Pieces: []Piece{piece}, SQL: sql, Params: c.data.Params}
}

// hasInner reports whether a query holds another one, a window function, or reads the time.
func hasInner(sel *selectStmt) bool {
	found := false
	walk(sel, func(m message) bool {
		switch m := m.(type) {
		case *selectStmt:
			found = found || m != sel
		case *subLink, *sqlValueFunction:
			found = true
		case *funcCall:
			parts, _ := names(m.Funcname)
			found = found || m.Over != nil || len(parts) == 0 || clocks[parts[len(parts)-1]]
		}
		return !found
	})
	return found
}

// plainFrom reports whether a FROM list has nothing but tables and joins of them.
func plainFrom(list []*node) bool {
	return len(list) > 0 && !slices.ContainsFunc(list, func(n *node) bool {
		switch m := unwrap(n).(type) {
		case *rangeVar:
			return false
		case *joinExpr:
			return !plainFrom([]*node{m.Larg, m.Rarg})
		}
		return true
	})
}

// group finds the expressions of GROUP BY, which may be written as numbers or names of result columns.
func (p *partial) group() bool {
	for _, n := range p.sel.GroupClause {
		if k := n.GetAConst(); k != nil {
			kind, text := constantOf(k)
			at, err := strconv.Atoi(text)
			if kind != constInt || err != nil || at < 1 || at > len(p.sel.TargetList) {
				return false
			}
			n = p.sel.TargetList[at-1].GetResTarget().GetVal()
		} else if ref := n.GetColumnRef(); ref != nil {
			if _, _, ok := p.topScope.resolve(ref); !ok {
				if n = p.target(ref); n == nil {
					return false
				}
			}
		}
		kind := kindName(unwrap(n))
		if kind == "GroupingSet" || kind == "RowExpr" || n.GetAConst() != nil || !p.movable(n) || p.changesRows(unwrap(n)) {
			return false
		}
		p.groups = append(p.groups, n)
	}
	return true
}

// target is the expression of the result column that a bare name means.
func (p *partial) target(ref *columnRef) *node {
	parts, ok := names(ref.Fields)
	if !ok || len(parts) != 1 {
		return nil
	}
	var found *node
	for _, n := range p.sel.TargetList {
		if t := n.GetResTarget(); t.GetName() == parts[0] {
			if found != nil {
				return nil
			}
			found = t.Val
		}
	}
	return found
}

// movable reports whether an expression can be computed anywhere: it has no parameters, whose types are not known here.
func (p *partial) movable(n *node) bool {
	movable := n != nil
	walk(unwrap(n), func(m message) bool {
		if _, isParam := m.(*paramRef); isParam {
			movable = false
		}
		return movable
	})
	return movable
}

// divide makes the rest of a copy of the query.
func (p *partial) divide(rest *selectStmt) bool {
	for _, n := range rest.TargetList {
		t := n.GetResTarget()
		if t == nil {
			return false
		}
		if t.Name == "" {
			if t.Name = figureName(t.Val); t.Name == unknownName {
				t.Name = ""
			}
		}
		if !p.replace(t.Val) {
			return false
		}
	}
	if rest.HavingClause != nil && !p.replace(rest.HavingClause) {
		return false
	}
	for _, list := range [][]*node{rest.SortClause, rest.DistinctClause} {
		for _, n := range list {
			if s := n.GetSortBy(); s != nil {
				n = s.Node
			}
			if n.GetAConst() != nil || n.GetColumnRef() != nil && p.names(rest, n.GetColumnRef()) {
				continue // a result column
			}
			if unwrap(n) != nil && !p.replace(n) {
				return false
			}
		}
	}
	rest.GroupClause = nil
	for i := range p.groups {
		rest.GroupClause = append(rest.GroupClause, columnNode(partialTable, "g"+itoa(i+1)))
	}
	rest.FromClause, rest.WhereClause = []*node{tempTableNode(partialTable)}, nil
	return true
}

// names reports whether a reference is the name of a result column.
func (p *partial) names(rest *selectStmt, ref *columnRef) bool {
	parts, ok := names(ref.Fields)
	return ok && len(parts) == 1 && slices.ContainsFunc(rest.TargetList, func(n *node) bool { return n.GetResTarget().GetName() == parts[0] })
}

// replace puts columns of the piece in place of groups and aggregates; ok is false if anything else of the tables is left.
func (p *partial) replace(n *node) bool {
	ok := true
	visit := func(n *node) bool {
		if !ok {
			return false
		}
		if i := slices.IndexFunc(p.groups, func(g *node) bool { return p.same(g, n) }); i >= 0 {
			n.Node = columnNode(partialTable, "g"+itoa(i+1)).Node
			return false
		}
		if f := n.GetFuncCall(); f != nil {
			if info := p.function(f); info.aggregate || info.unknown {
				final := p.aggregate(f, info)
				if ok = final != nil; ok {
					n.Node = final.Node
				}
				return false
			}
		}
		ok = ok && n.GetColumnRef() == nil && !isAggregateNode(unwrap(n))
		return ok
	}
	if visit(n) {
		eachNode(unwrap(n), visit)
	}
	return ok
}

// same reports whether two expressions are the same, columns by what they mean.
func (p *partial) same(a, b *node) bool {
	left, right := a.GetColumnRef(), b.GetColumnRef()
	if left == nil || right == nil {
		return sameNode(a, b)
	}
	l, _, lok := p.topScope.resolve(left)
	r, _, rok := p.topScope.resolve(right)
	return lok && rok && l.id == r.id && l.id.entry != 0
}

// aggregate takes an aggregate apart: its part is added to the piece, what puts the parts together is returned; nil if that
// would not be exact.
func (p *partial) aggregate(f *funcCall, info functionInfo) *node {
	if info.user || info.unknown || f.AggDistinct || f.AggWithinGroup || f.FuncVariadic || len(f.AggOrder) > 0 || len(f.Args) > 1 {
		return nil
	}
	for _, n := range append(slices.Clone(f.Args), f.AggFilter) {
		if n != nil && (!p.movable(n) || p.changesRows(unwrap(n))) {
			return nil
		}
	}
	switch info.name {
	case "count":
		return castNode(callNode("sum", p.value(callOf(f, "count"))), "int8")
	case "min", "max", "bool_and", "bool_or", "every", "bit_and", "bit_or", "bit_xor":
		return callNode(info.name, p.value(callOf(f, info.name)))
	case "sum", "avg":
		return p.added(f, info.name)
	}
	return nil
}

// added is sum or avg of what is added exactly.
func (p *partial) added(f *funcCall, name string) *node {
	if len(f.Args) != 1 {
		return nil
	}
	oid := p.numberType(f.Args[0])
	if oid == 0 {
		return nil
	}
	sum := callNode("sum", p.value(callOf(f, "sum")))
	if name == "avg" {
		count := callNode("sum", p.value(callOf(f, "count")))
		return quotientNode(castNode(sum, "numeric"), castNode(count, "numeric"))
	}
	if oid != numericOID && oid != int8OID {
		return castNode(sum, "int8") // sum(bigint) is a numeric
	}
	return sum
}

const (
	int2OID = 21
	int4OID = 23
	int8OID = 20
)

// numberType is the type of an expression of integers and numerics, 0 if it is another one or not evident.
func (p *partial) numberType(n *node) uint32 {
	sc := &scatter{analysis: p.analysis, sel: p.sel, top: p.top}
	switch m := unwrap(n).(type) {
	case *constant:
		kind, text := constantOf(m)
		switch {
		case kind == constInt && len(text) < 10:
			return int4OID
		case kind == constFloat:
			return numericOID
		}
		return 0
	case *operation:
		name, ok := operatorName(m.Name)
		if !ok || m.Kind != opPlain || !strings.Contains("+-*/%", name) || len(p.env.Catalog.UserOperators(name)) > 0 || m.Lexpr == nil || m.Rexpr == nil {
			return 0
		}
		left, right := p.numberType(m.Lexpr), p.numberType(m.Rexpr)
		if left == 0 || right == 0 {
			return 0
		}
		for _, oid := range []uint32{numericOID, int8OID, int4OID} { // the wider one
			if left == oid || right == oid {
				return oid
			}
		}
		return int2OID
	}
	oid, _, ok := sc.expressionType(n, p.topScope)
	if ok && (oid == int2OID || oid == int4OID || oid == int8OID || oid == numericOID) {
		return oid
	}
	return 0
}

// value adds an aggregate to the piece, and is its column there.
func (p *partial) value(n *node) *node {
	i := slices.IndexFunc(p.values, func(other *node) bool { return sameNode(other, n) }) // expressions that were alike stay alike
	if i < 0 {
		i = len(p.values)
		p.values = append(p.values, n)
	}
	return columnNode(partialTable, "p"+itoa(i+1))
}

// piece is the piece that has a row for each group of a shard.
func (p *partial) piece() (Piece, bool) {
	sel := cloneSelect(p.sel)
	sel.TargetList, sel.GroupClause, sel.HavingClause, sel.SortClause, sel.DistinctClause = nil, nil, nil, nil, nil
	sel.LimitCount, sel.LimitOffset, sel.LimitOption = nil, nil, limitDefault
	for i, n := range p.groups {
		sel.TargetList = append(sel.TargetList, targetNode("g"+itoa(i+1), cloneNode(n)))
		sel.GroupClause = append(sel.GroupClause, cloneNode(n))
	}
	for i, n := range p.values {
		sel.TargetList = append(sel.TargetList, targetNode("p"+itoa(i+1), n))
	}
	if len(sel.TargetList) == 0 {
		return Piece{}, false
	}
	create, ok := p.shape(sel)
	if !ok {
		return Piece{}, false
	}
	text, err := rewrite(sel, func(message) error { return nil })
	if err != nil {
		return Piece{}, false
	}
	source := p.source(sel)
	if source == nil {
		return Piece{}, false
	}
	return Piece{Source: source, Text: text, Table: partialTable, Create: create, Uses: parametersOf(sel)}, true
}

// source plans the piece: on each shard that has rows of its tables.
func (p *partial) source(sel *selectStmt) *Plan {
	types := make([]uint32, p.data.Params)
	copy(types, p.types)
	b := newAnalysis(&Statement{Text: p.sql, literals: p.literals}, types, p.env, sel)
	top := &context{}
	b.selectInto(sel, nil, top)
	plan, err := b.plan("SELECT")
	if err != nil || plan.Route.Kind != RouteFilters || plan.Dirty || plan.Watched || plan.Pins != "" || b.functions.volatile != "" {
		return nil
	}
	plan.Kind, plan.ReadOnly, plan.Merge, plan.Refusal, plan.texts = Scatter, true, &Merge{}, nil, b.texts
	finish(plan, p.env)
	return plan
}

// shape makes what makes the piece's table: by the query itself over empty tables like the ones that it reads, so that types and
// collations are what Postgres finds.
func (p *partial) shape(sel *selectStmt) (string, bool) {
	var b strings.Builder
	tables := make(map[int32]string)
	for i, r := range p.references {
		name := "shardyard_like_" + itoa(i+1)
		tables[int32(r.position)] = name
		var columns []*catalog.Column
		for _, column := range r.relation.Live() {
			if p.all || p.mentioned[column.Name] {
				columns = append(columns, column)
			}
		}
		b.WriteString(p.createTable(name, r.relation, columns) + "; ")
	}
	like := cloneSelect(sel)
	like.WhereClause = nil
	walk(like, func(m message) bool {
		if j, ok := m.(*joinExpr); ok && j.Quals != nil {
			j.Quals = trueNode()
		}
		return true
	})
	replaceTables(like, tables)
	text, err := rewrite(like, func(message) error { return nil })
	if err != nil {
		return "", false
	}
	b.WriteString("CREATE TEMPORARY TABLE " + partialTable + " AS " + text + " WITH NO DATA")
	return b.String(), true
}
