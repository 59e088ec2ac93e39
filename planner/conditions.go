package planner

import (
	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

// where analyses the WHERE clause of a query level.
func (a *analysis) where(n *node, s *scope, ctx *context) { a.condition(n, s, ctx) }

// condition analyses a condition that every row of the context satisfies: its facts are stated in ctx.
func (a *analysis) condition(n *node, s *scope, ctx *context) {
	if n == nil {
		return
	}
	if b := n.GetBoolExpr(); b != nil && b.Boolop == boolAnd {
		for _, arg := range b.Args {
			a.condition(arg, s, ctx)
		}
		return
	}
	if link := n.GetSubLink(); link != nil && link.SubLinkType == subLinkAny {
		a.member(link, s, ctx)
		return
	}
	a.conjuncts = append(a.conjuncts, conjunct{n, s, ctx})
	a.expression(n, s, ctx)
	a.fact(n, s, ctx)
}

// member analyses x IN (SELECT …) where it must be true: only rows of the subquery that equal x matter.
func (a *analysis) member(link *subLink, s *scope, ctx *context) {
	a.expression(link.Testexpr, s, ctx)
	sel := link.Subselect.GetSelectStmt()
	if sel == nil {
		a.expression(link.Subselect, s, ctx)
		return
	}
	inner := ctx.child()
	simple := a.simple(sel)
	r := a.selectInto(sel, s, inner)
	if !simple || !isEqualitySign(link.OperName) {
		return
	}
	tests := []*node{link.Testexpr}
	if row := link.Testexpr.GetRowExpr(); row != nil {
		tests = row.Args
	}
	if r.open || len(tests) != len(r.columns) {
		return
	}
	for i, test := range tests {
		if ref := test.GetColumnRef(); ref != nil {
			if c, _, ok := s.resolve(ref); ok {
				a.equate("=", c, r.columns[i], inner)
			}
		}
	}
}

// isEqualitySign: the operator of IN (none) or a plain =.
func isEqualitySign(name []*node) bool {
	if len(name) == 0 {
		return true
	}
	op, ok := operatorName(name)
	return ok && op == "="
}

// operatorName is the bare name of an operator that is written plainly or as one of pg_catalog.
func operatorName(list []*node) (string, bool) {
	parts, ok := names(list)
	if !ok || len(parts) == 0 || len(parts) > 2 || len(parts) == 2 && parts[0] != "pg_catalog" {
		return "", false
	}
	return parts[len(parts)-1], true
}

// fact states what a conjunct says, if it is something that we understand.
func (a *analysis) fact(n *node, s *scope, ctx *context) {
	if op := n.GetAExpr(); op != nil {
		if a.columnEquality(op, s, ctx) {
			return
		}
	}
	limits, alternatives := a.limitsOf(n, s)
	ctx.limits = append(ctx.limits, limits...)
	ctx.either = append(ctx.either, alternatives...)
}

// columnEquality states column = column, also inside of (a, b) = (c, d).
func (a *analysis) columnEquality(op *operation, s *scope, ctx *context) bool {
	name, ok := operatorName(op.Name)
	if op.Kind != opPlain || !ok || name != "=" || op.Lexpr == nil || op.Rexpr == nil {
		return false
	}
	left, right := pair(op.Lexpr, op.Rexpr)
	stated := false
	for i := range left {
		lref, rref := left[i].GetColumnRef(), right[i].GetColumnRef()
		if lref == nil || rref == nil {
			continue
		}
		l, _, lok := s.resolve(lref)
		r, _, rok := s.resolve(rref)
		if lok && rok {
			a.equate(name, l, r, ctx)
			a.equateValues(l, r, ctx)
			a.equateValues(r, l, ctx)
			stated = true
		}
	}
	return stated && len(left) == 1
}

// pair takes row constructors of the same length apart.
func pair(l, r *node) (left, right []*node) {
	lrow, rrow := l.GetRowExpr(), r.GetRowExpr()
	if lrow != nil && rrow != nil && len(lrow.Args) == len(rrow.Args) {
		return lrow.Args, rrow.Args
	}
	return []*node{l}, []*node{r}
}

// equate states that two columns are equal, if the operator between their types is equality of one
// operator family.
func (a *analysis) equate(op string, l, r column, ctx *context) {
	if !l.known() || !r.known() || l.id == r.id {
		return
	}
	lt, rt := a.baseType(l), a.baseType(r)
	k, ok := catalog.KeyOperator(op, lt, rt)
	if !ok || k.Comparison != catalog.Equal || !k.Hash || a.overloaded(op, lt, rt) {
		return
	}
	if !l.cat.CollationDeterministic || !r.cat.CollationDeterministic {
		return
	}
	ctx.equal = append(ctx.equal, equality{l.id, r.id})
}

// equateValues states that a column is equal to one of the values of another.
func (a *analysis) equateValues(c, given column, ctx *context) {
	if !c.known() || len(given.values) == 0 {
		return
	}
	texts := a.texts // a literal that is no time here may be cast to one elsewhere
	if l, ok := a.oneOf(c, given.values, a.givenValue); ok {
		ctx.limits = append(ctx.limits, l)
	}
	a.texts = texts
}

func (a *analysis) baseType(c column) uint32 { return a.env.Catalog.BaseType(c.cat.Type) }

// overloaded reports whether a user-defined operator could be meant.
func (a *analysis) overloaded(op string, left, right uint32) bool {
	for _, user := range a.env.Catalog.UserOperators(op) {
		if a.env.Catalog.BaseType(user.Left) == left && a.env.Catalog.BaseType(user.Right) == right {
			return true
		}
	}
	return false
}

// limitsOf reads conditions on columns out of a conjunct: those that all hold, and disjunctions.
func (a *analysis) limitsOf(n *node, s *scope) ([]limit, []either) {
	if b := n.GetBoolExpr(); b != nil {
		switch b.Boolop {
		case boolAnd:
			var limits []limit
			var alternatives []either
			for _, arg := range b.Args {
				l, e := a.limitsOf(arg, s)
				limits, alternatives = append(limits, l...), append(alternatives, e...)
			}
			return limits, alternatives
		case boolOr:
			return a.disjunction(b, s)
		}
		return nil, nil
	}
	op := n.GetAExpr()
	if op == nil {
		return nil, nil
	}
	switch op.Kind {
	case opPlain:
		return a.comparison(op, s)
	case opIn:
		return a.inList(op, s)
	case opAny:
		return a.anyArray(op, s)
	case opBetween, opBetweenSym:
		return a.between(op, s)
	}
	return nil, nil
}

func (a *analysis) disjunction(b *boolExpr, s *scope) ([]limit, []either) {
	var e either
	for _, arg := range b.Args {
		limits, nested := a.limitsOf(arg, s)
		if len(limits) == 0 && len(nested) == 1 {
			e.branches = append(e.branches, nested[0].branches...)
			continue
		}
		if len(limits) == 0 {
			return nil, nil
		}
		e.branches = append(e.branches, limits)
	}
	if len(e.branches) > maxAlternatives {
		return nil, nil
	}
	return nil, []either{e}
}

// comparison reads column op value, either way round, and row = row.
func (a *analysis) comparison(op *operation, s *scope) ([]limit, []either) {
	name, ok := operatorName(op.Name)
	if !ok || op.Lexpr == nil || op.Rexpr == nil {
		return nil, nil
	}
	left, right := pair(op.Lexpr, op.Rexpr)
	if len(left) > 1 && name != "=" {
		return nil, nil
	}
	var limits []limit
	for i := range left {
		if l, ok := a.compare(name, left[i], right[i], s); ok {
			limits = append(limits, l)
		}
	}
	return limits, nil
}

func (a *analysis) compare(op string, left, right *node, s *scope) (limit, bool) {
	c, value, swapped := left, right, false
	if c.GetColumnRef() == nil {
		c, value, swapped = right, left, true
	}
	ref := c.GetColumnRef()
	if ref == nil {
		return limit{}, false
	}
	col, _, ok := s.resolve(ref)
	if !ok || !col.known() {
		return limit{}, false
	}
	v, valueType, ok := a.value(value, col)
	if !ok {
		return limit{}, false
	}
	return a.bound(op, col, v, valueType, swapped)
}

// bound makes a limit of column op value (or value op column).
func (a *analysis) bound(op string, col column, v ValueRef, valueType uint32, swapped bool) (limit, bool) {
	comparison, ok := a.keyComparison(op, col, valueType)
	if !ok {
		return limit{}, false
	}
	if swapped {
		comparison = comparison.Commute()
	}
	l := limit{column: col.id}
	switch comparison {
	case catalog.Equal:
		l.cond.In = []ValueRef{v}
	case catalog.Less, catalog.LessEqual:
		l.cond.Hi, l.cond.HiOpen = &v, comparison == catalog.Less
	case catalog.Greater, catalog.GreaterEqual:
		l.cond.Lo, l.cond.LoOpen = &v, comparison == catalog.Greater
	default:
		return limit{}, false
	}
	return l, true
}

// keyComparison tells what an operator between a column and a value of a type is. Equality must be that
// of the column's own family, an inequality needs an order that is the same everywhere.
func (a *analysis) keyComparison(op string, col column, valueType uint32) (catalog.Comparison, bool) {
	columnType := a.baseType(col)
	if !col.cat.CollationDeterministic || a.overloaded(op, columnType, valueType) || a.overloaded(op, valueType, columnType) {
		return 0, false
	}
	left, right := columnType, valueType
	if isInteger(left) && right == numericOID || left == numericOID && isInteger(right) {
		// Postgres compares both as numeric, which is exact.
		left, right = numericOID, numericOID
	}
	k, ok := catalog.KeyOperator(op, left, right)
	if !ok || !k.Hash {
		return 0, false
	}
	if k.Comparison != catalog.Equal && isText(columnType) && !col.cat.CollationIsC {
		return 0, false
	}
	return k.Comparison, true
}

const numericOID = 1700

func isInteger(oid uint32) bool { return oid == 20 || oid == 21 || oid == 23 }

func isText(oid uint32) bool { return oid == 25 || oid == 1043 }

// inList reads column IN (values), (a, b) IN ((…), (…)).
func (a *analysis) inList(op *operation, s *scope) ([]limit, []either) {
	name, ok := operatorName(op.Name)
	list := op.Rexpr.GetList()
	if !ok || name != "=" || list == nil || len(list.Items) == 0 {
		return nil, nil
	}
	if op.Lexpr.GetRowExpr() != nil {
		return a.rowList(op.Lexpr, list.Items, s)
	}
	ref := op.Lexpr.GetColumnRef()
	if ref == nil {
		return nil, nil
	}
	col, _, ok := s.resolve(ref)
	if !ok || !col.known() {
		return nil, nil
	}
	if l, ok := a.oneOf(col, list.Items, a.value); ok {
		return []limit{l}, nil
	}
	return nil, nil
}

// oneOf makes a limit of column = any of the values, which read reads.
func (a *analysis) oneOf(col column, values []*node, read func(*node, column) (ValueRef, uint32, bool)) (limit, bool) {
	l := limit{column: col.id, cond: Condition{In: make([]ValueRef, 0, len(values))}}
	// The list is compared as an array of one common type if it can be; with constants of several
	// types that type need not be any of theirs.
	var common uint32
	inferred, decimal := false, false
	for _, n := range values {
		v, valueType, ok := read(n, col)
		if !ok {
			return limit{}, false
		}
		inferred = inferred || v.Kind == RefParam && a.declared(v.Param) == 0
		decimal = decimal || valueType == numericOID && a.baseType(col) != numericOID
		if c, ok := a.keyComparison("=", col, valueType); !ok || c != catalog.Equal {
			return limit{}, false
		}
		if !v.Null && common != 0 && common != valueType && !(isInteger(common) && isInteger(valueType)) &&
			!(isNumber(common) && isNumber(valueType)) {
			return limit{}, false
		}
		if !v.Null {
			common = valueType
		}
		l.cond.In = append(l.cond.In, v)
	}
	if inferred && decimal {
		return limit{}, false // the parameter would be a numeric
	}
	return l, true
}

func isNumber(oid uint32) bool { return isInteger(oid) || oid == numericOID }

func (a *analysis) rowList(row *node, items []*node, s *scope) ([]limit, []either) {
	var e either
	for _, n := range items {
		left, right := pair(row, n)
		if len(left) < 2 {
			return nil, nil
		}
		var branch []limit
		for i := range left {
			if l, ok := a.compare("=", left[i], right[i], s); ok {
				branch = append(branch, l)
			}
		}
		if len(branch) == 0 {
			return nil, nil
		}
		e.branches = append(e.branches, branch)
	}
	if len(e.branches) > maxAlternatives {
		return nil, nil
	}
	return nil, []either{e}
}

// anyArray reads column = ANY (array).
func (a *analysis) anyArray(op *operation, s *scope) ([]limit, []either) {
	name, ok := operatorName(op.Name)
	ref := op.Lexpr.GetColumnRef()
	if !ok || name != "=" || ref == nil {
		return nil, nil
	}
	col, _, ok := s.resolve(ref)
	if !ok || !col.known() {
		return nil, nil
	}
	in, elementType, ok := a.arrayValue(op.Rexpr, col)
	if !ok {
		return nil, nil
	}
	if c, ok := a.keyComparison("=", col, elementType); !ok || c != catalog.Equal {
		return nil, nil
	}
	return []limit{{column: col.id, cond: Condition{In: in}}}, nil
}

func (a *analysis) between(op *operation, s *scope) ([]limit, []either) {
	list := op.Rexpr.GetList()
	ref := op.Lexpr.GetColumnRef()
	if op.Kind == opBetweenSym || ref == nil || list == nil || len(list.Items) != 2 {
		return nil, nil
	}
	var limits []limit
	for i, name := range []string{">=", "<="} {
		if l, ok := a.compare(name, op.Lexpr, list.Items[i], s); ok {
			limits = append(limits, l)
		}
	}
	return limits, nil
}

// keyTypeOf is the key type of a column, false if it is of another type.
func (a *analysis) keyTypeOf(c column) (directory.KeyType, bool) {
	return directory.KeyTypeOf(a.baseType(c))
}
