package planner

import "strings"

// conjunct is a condition that stands where every row of a context must satisfy it.
type conjunct struct {
	node    *node
	scope   *scope
	context *context
}

// filters are the conditions of the query on one table that its shards can apply: a row that does not satisfy one of them cannot
// matter.
//
// Invariant: they stand in the context of the table itself. One of an outer context may be true for the NULLs of an outer join, where
// the table has no row.
func (c *combining) filters(r *reference) []*node {
	if c.regCast >= 0 || c.homeOnly != "" {
		return nil
	}
	for _, other := range c.references {
		if other != r && other.position == r.position {
			return nil
		}
	}
	var list []*node
	for _, k := range c.conjuncts {
		if k.context != r.context || !c.onlyOf(r, k) {
			continue
		}
		n := cloneNode(k.node)
		named := func(inner *node) bool {
			if ref := inner.GetColumnRef(); ref != nil {
				column, _, _ := k.scope.resolve(ref)
				inner.Node = columnNode(r.alias, column.id.name).Node
			}
			return true
		}
		named(n)
		eachNode(unwrap(n), named)
		list = append(list, n)
	}
	return list
}

// onlyOf reports whether a condition rests on nothing but columns of one table, constants and parameters, and is the same on
// every server.
func (c *combining) onlyOf(r *reference, k conjunct) bool {
	only := true
	walk(unwrap(k.node), func(m message) bool {
		switch m := m.(type) {
		case *columnRef:
			column, _, ok := k.scope.resolve(m)
			only = only && ok && column.id.entry == r.entry && !strings.HasPrefix(column.id.name, "?")
		case *funcCall:
			info := c.function(m)
			only = only && !(info.unknown || info.user || info.aggregate || info.window || info.returnsSet || info.volatile || m.Over != nil ||
				serverBound(info.name))
		case *operation:
			parts, ok := names(m.Name)
			only = only && ok && (len(parts) == 0 || len(c.env.Catalog.UserOperators(parts[len(parts)-1])) == 0)
		case *subLink, *selectStmt:
			only = false
		default:
			only = only && !isAggregateNode(m)
		}
		return only
	})
	return only
}
