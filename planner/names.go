package planner

import (
	"strings"
)

// lower folds ASCII letters, as Postgres folds names of settings.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// unknownName is what figureName gives where it does not know; no name of a column is like that.
const unknownName = "\x00"

// figureName is the name that Postgres gives to a result column without alias.
//
// Source: FigureColnameInternal in src/backend/parser/parse_target.c.
func figureName(n *node) string {
	name, _ := figure(n)
	return name
}

// figure returns the name and whether it is a good one (strength 2 there).
func figure(n *node) (name string, strong bool) {
	switch m := unwrap(n).(type) {
	case *columnRef:
		if parts, ok := names(m.Fields); ok && len(parts) > 0 {
			return parts[len(parts)-1], true
		}
		return unknownName, true
	case *funcCall:
		if parts, ok := names(m.Funcname); ok && len(parts) > 0 {
			return parts[len(parts)-1], true
		}
	case *typeCast:
		if name, strong := figure(m.Arg); strong {
			return name, true
		}
		if parts, ok := names(m.TypeName.GetNames()); ok && len(parts) > 0 {
			return parts[len(parts)-1], false
		}
	case *collateClause:
		return figure(m.Arg)
	case *operation:
		if m.Kind == opPlain || m.Kind == opIn || m.Kind == opBetween || m.Kind == opAny {
			return "?column?", false
		}
	case *sqlValueFunction:
		if name := clockName(m); name != "" {
			return name, true
		}
	case *boolExpr, *constant, *paramRef:
		return "?column?", false
	case *subLink:
		if m.SubLinkType == subLinkExists {
			return "exists", true
		}
	}
	if n.GetNullTest() != nil || n.GetBooleanTest() != nil {
		return "?column?", false
	}
	if c := n.GetCaseExpr(); c != nil {
		if name, strong := figure(c.Defresult); strong && c.Defresult != nil {
			return name, true
		}
		return "case", false
	}
	if n.GetCoalesceExpr() != nil {
		return "coalesce", true
	}
	return unknownName, true
}
