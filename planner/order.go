package planner

import (
	"slices"
	"strconv"
	"strings"

	"github.com/shardyard/shardyard/planner/catalog"
)

var bigintColumn = &catalog.Column{Type: 20, CollationDeterministic: true}

// order finds the sort keys in the shards' rows.
func (s *scatter) order() *Error {
	for _, n := range s.sel.SortClause {
		by := n.GetSortBy()
		if by == nil || by.SortbyDir == sortUsing || len(by.UseOp) > 0 {
			return s.several("ORDER BY … USING")
		}
		key := SortKey{Desc: by.SortbyDir == sortDesc}
		key.NullsFirst = by.SortbyNulls == nullsFirst || key.Desc && by.SortbyNulls != nullsLast
		if err := s.sortKey(by.Node, &key); err != nil {
			return err.at(s.position(location(unwrap(by.Node))))
		}
		s.merge.OrderBy = append(s.merge.OrderBy, key)
	}
	s.merge.Hidden = len(s.hidden)
	for i := range s.merge.OrderBy {
		key := &s.merge.OrderBy[i]
		if key.Column >= hiddenBase {
			key.Column = -len(s.hidden) + key.Column - hiddenBase
		} else if key.Column < 0 {
			key.Column -= len(s.hidden) // counted from the end of the client's columns
		}
	}
	return nil
}

// hiddenBase marks positions among the hidden columns until their number is known.
const hiddenBase = 1 << 20

// sortKey finds one key: an ordinal, the name of a result column, or an expression over the input.
func (s *scatter) sortKey(n *node, key *SortKey) *Error {
	scope := s.topScope
	if c := n.GetAConst(); c != nil {
		kind, text := constantOf(c)
		ordinal, err := strconv.Atoi(text)
		if kind != constInt || err != nil {
			return refuse("Sort by a column.", "ORDER BY a constant over several shards is not supported")
		}
		return s.ordinalKey(ordinal, key, scope)
	}
	if ref := n.GetColumnRef(); ref != nil {
		if parts, ok := names(ref.Fields); ok && len(parts) == 1 {
			if found, err := s.outputKey(parts[0], key, scope); found || err != nil {
				return err
			}
		}
	}
	if err := s.sortType(n, key, scope); err != nil {
		return err
	}
	if at, ok := s.sameTarget(n, scope); ok {
		key.Column = at
		return nil
	}
	key.Column = hiddenBase + len(s.hidden)
	s.hidden = append(s.hidden, n)
	return nil
}

// ordinalKey is ORDER BY 2. The columns in front of it must be known one by one.
func (s *scatter) ordinalKey(ordinal int, key *SortKey, scope *scope) *Error {
	if ordinal < 1 {
		return refuse("Sort by a column.", "ORDER BY position %d is not in the select list", ordinal)
	}
	for i, n := range s.sel.TargetList {
		target := n.GetResTarget()
		if star, _ := isStar(target.GetVal().GetColumnRef()); star {
			return refuse("Sort by the column's name.", "ORDER BY a position behind * over several shards is not supported")
		}
		if i+1 == ordinal {
			key.Column = i
			return s.sortType(target.GetVal(), key, scope)
		}
	}
	return refuse("Sort by a column.", "ORDER BY position %d is not in the select list", ordinal)
}

// outputKey is ORDER BY name where name is that of a result column.
func (s *scatter) outputKey(name string, key *SortKey, scope *scope) (found bool, err *Error) {
	ambiguous := refuse("Give the result columns different names.", "ORDER BY %q is ambiguous", name)
	match := -1
	var starred *column
	for i, n := range s.sel.TargetList {
		target := n.GetResTarget()
		if star, parts := isStar(target.GetVal().GetColumnRef()); star {
			columns, ok := scope.starColumns(parts)
			if !ok {
				return true, refuse("Name the columns instead of *.", "ORDER BY with columns that are not known over several shards is not supported")
			}
			for j := range columns {
				if columns[j].name != name {
					continue
				}
				if starred != nil && starred.id != columns[j].id {
					return true, ambiguous
				}
				starred = &columns[j]
			}
			continue
		}
		figured := targetName(target.GetName(), target.GetVal())
		if figured == unknownName {
			return true, refuse("Give every result column a name with AS.", "ORDER BY with a result column whose name is not certain over several shards is not supported")
		}
		if figured == name {
			if match >= 0 {
				return true, ambiguous
			}
			match = i
		}
	}
	switch {
	case match >= 0 && starred != nil:
		c, _, ok := scope.resolve(s.sel.TargetList[match].GetResTarget().GetVal().GetColumnRef())
		if !ok || c.id != starred.id {
			return true, ambiguous
		}
		fallthrough
	case match >= 0:
		return true, s.targetKey(match, key, scope)
	case starred != nil:
		// A column of *: it is an input column too, of the same name or not.
		ref := s.inputName(name, starred, scope)
		if ref == nil {
			return true, refuse("Name the columns instead of *.", "ORDER BY column %q over several shards is not supported", name)
		}
		return false, nil
	}
	return false, nil
}

// inputName checks that the bare name means the same column among the input columns.
func (s *scatter) inputName(name string, starred *column, scope *scope) *column {
	c, state := lookupIn(scope.columns, scope.open, name)
	if state != lookupFound || c.id != starred.id {
		return nil
	}
	return &c
}

// targetKey sorts by a column of the select list: by its position from whichever end is certain, or by
// a copy of it.
func (s *scatter) targetKey(i int, key *SortKey, scope *scope) *Error {
	value := s.sel.TargetList[i].GetResTarget().GetVal()
	if err := s.sortType(value, key, scope); err != nil {
		return err
	}
	if at, ok := s.targetPosition(i); ok {
		key.Column = at
		return nil
	}
	if value.GetColumnRef() == nil {
		return refuse("Name the columns instead of *.", "ORDER BY an expression between several * over several shards is not supported")
	}
	key.Column = hiddenBase + len(s.hidden)
	s.hidden = append(s.hidden, value)
	return nil
}

// targetPosition is the position of a target in the rows: from the front if no * stands before it, else
// from the end (negative).
func (s *scatter) targetPosition(i int) (int, bool) {
	isStarTarget := func(n *node) bool {
		star, _ := isStar(n.GetResTarget().GetVal().GetColumnRef())
		return star
	}
	if !slices.ContainsFunc(s.sel.TargetList[:i], isStarTarget) {
		return i, true
	}
	if !slices.ContainsFunc(s.sel.TargetList[i:], isStarTarget) {
		return i - len(s.sel.TargetList), true
	}
	return 0, false
}

// sameTarget finds a select list entry that is the same column as a sort key.
func (s *scatter) sameTarget(n *node, scope *scope) (int, bool) {
	ref := n.GetColumnRef()
	if ref == nil {
		return 0, false
	}
	c, _, ok := scope.resolve(ref)
	if !ok {
		return 0, false
	}
	for i, t := range s.sel.TargetList {
		other := t.GetResTarget().GetVal().GetColumnRef()
		if star, _ := isStar(other); other == nil || star {
			continue
		}
		if o, _, ok := scope.resolve(other); ok && o.id == c.id {
			return s.targetPosition(i)
		}
	}
	return 0, false
}

func targetName(name string, value *node) string {
	if name != "" {
		return name
	}
	return figureName(value)
}

// sortType finds the type of a sort key and refuses what the router cannot compare exactly.
func (s *scatter) sortType(n *node, key *SortKey, scope *scope) *Error {
	oid, c, ok := s.expressionType(n, scope)
	if !ok {
		return refuse("Sort by a column, or cast the expression to a built-in type.",
			"ORDER BY this expression over several shards is not supported: its type is not known")
	}
	if !mergeable(oid, c) {
		return refuse(`Sort by a number, a time, a uuid or a text with COLLATE "C".`,
			"ORDER BY a value of this type or collation over several shards is not supported yet")
	}
	if isDatetimeOID(oid) && s.env.DateStyle != "" && !strings.HasPrefix(strings.ToUpper(s.env.DateStyle), "ISO") {
		return refuse("SET DateStyle = 'ISO'.", "ORDER BY a date or time over several shards needs DateStyle ISO")
	}
	key.Type = oid
	return nil
}

func isDatetimeOID(oid uint32) bool { return oid == 1082 || oid == 1114 || oid == 1184 }

// mergeable reports whether package router/merge compares values of the type exactly as Postgres does.
func mergeable(oid uint32, collationIsC bool) bool {
	switch oid {
	case 16, 17, 20, 21, 23, 26, 700, 701, 1082, 1114, 1184, 1700, 2950:
		return true
	case 25, 1043:
		return collationIsC
	}
	return false
}

// expressionType is the base type of an expression whose type is evident, and whether its collation is C.
func (s *scatter) expressionType(n *node, scope *scope) (oid uint32, collationIsC, ok bool) {
	switch m := unwrap(n).(type) {
	case *columnRef:
		c, _, found := scope.resolve(m)
		if !found || !c.known() {
			return 0, false, false
		}
		return s.baseType(c), c.cat.CollationIsC, true
	case *collateClause:
		parts, plain := names(m.Collname)
		oid, _, found := s.expressionType(m.Arg, scope)
		if !plain || len(parts) == 0 || !found {
			return 0, false, false
		}
		last := parts[len(parts)-1]
		return oid, last == "C" || last == "POSIX", (len(parts) == 1 || parts[0] == "pg_catalog")
	case *typeCast:
		oid, found := s.builtinType(m.TypeName)
		if isText(oid) {
			return 0, false, false // the collation is that of what is cast
		}
		return oid, false, found
	case *boolExpr:
		return 16, false, true
	case *operation:
		return 16, false, s.isComparison(m)
	}
	if n.GetNullTest() != nil {
		return 16, false, true
	}
	return 0, false, false
}

// isComparison reports whether an operation certainly gives a boolean.
func (s *scatter) isComparison(op *operation) bool {
	if op.Kind == opIn || op.Kind == opBetween || op.Kind == opBetweenSym {
		return true
	}
	name, ok := operatorName(op.Name)
	if !ok || op.Kind != opPlain || len(s.env.Catalog.UserOperators(name)) > 0 {
		return false
	}
	switch name {
	case "=", "<>", "!=", "<", "<=", ">", ">=":
		return true
	}
	return false
}
