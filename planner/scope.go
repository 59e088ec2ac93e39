package planner

import (
	"github.com/shardyard/shardyard/planner/catalog"
)

// columnID names one column of one entry of the range table. Two references with the same columnID
// have the same value in every row that survives their query level.
type columnID struct {
	entry int // number of the range table entry, unique in the statement; 0: unknown
	name  string
}

// column is a visible column of a FROM item or of a query's result.
type column struct {
	name string
	id   columnID
	cat  *catalog.Column // of the table it comes from, nil if it is computed
	// values are constants and parameters, one for each row that there is, of a column of VALUES; one of a column
	// that is the same in all rows. nil if they are not known.
	values []*node
}

// known reports whether facts can be stated about the column.
func (c *column) known() bool { return c.cat != nil && c.id.entry != 0 }

// item is something that qualified names can refer to: a table, a subquery, a function or a join with
// an alias.
type item struct {
	alias   string
	schema  string // of a table without an alias, for schema.table.column
	columns []column
	open    bool // has columns that we do not know
}

// scope is what names mean at a place of the statement.
type scope struct {
	outer   *scope
	items   []item   // for qualified names
	columns []column // for unqualified names; those merged by USING once
	open    bool     // an unqualified name may be a column that we do not know
	tables  *cteScope
}

// cteScope is the chain of WITH clauses.
type cteScope struct {
	outer *cteScope
	name  string
	cte   *cte
}

func (s *cteScope) find(name string) *cte {
	for ; s != nil; s = s.outer {
		if s.name == name {
			return s.cte
		}
	}
	return nil
}

// resolve finds the column that a reference means. ok is false when it is none that we know for
// certain (or the statement is wrong; then a shard says so). local tells whether it belongs to the
// innermost scope.
func (s *scope) resolve(ref *columnRef) (found column, local, ok bool) {
	parts, plain := names(ref.GetFields())
	if !plain || len(parts) == 0 || len(parts) > 3 {
		return column{}, false, false
	}
	for level := s; level != nil; level = level.outer {
		c, state := level.lookup(parts)
		switch state {
		case lookupFound:
			return c, level == s, true
		case lookupUnsure:
			return column{}, false, false
		}
	}
	return column{}, false, false
}

type lookupState uint8

const (
	lookupMissing lookupState = iota
	lookupFound
	lookupUnsure
)

func (s *scope) lookup(parts []string) (column, lookupState) {
	if len(parts) == 1 {
		return lookupIn(s.columns, s.open, parts[0])
	}
	var match *item
	for i := range s.items {
		it := &s.items[i]
		if len(parts) == 2 && it.alias != parts[0] {
			continue
		}
		if len(parts) == 3 && (it.schema != parts[0] || it.alias != parts[1]) {
			continue
		}
		if match != nil {
			return column{}, lookupUnsure
		}
		match = it
	}
	if match == nil {
		return column{}, lookupMissing
	}
	c, state := lookupIn(match.columns, match.open, parts[len(parts)-1])
	if state == lookupMissing {
		return column{}, lookupUnsure // an error, or a system column
	}
	return c, state
}

func lookupIn(columns []column, open bool, name string) (column, lookupState) {
	var match *column
	for i := range columns {
		if columns[i].name != name {
			continue
		}
		if match != nil {
			return column{}, lookupUnsure
		}
		match = &columns[i]
	}
	switch {
	case open:
		return column{}, lookupUnsure
	case match == nil:
		return column{}, lookupMissing
	}
	return *match, lookupFound
}

// starColumns are the columns that * or alias.* stands for; ok is false where we do not know them all.
func (s *scope) starColumns(parts []string) (columns []column, ok bool) {
	switch len(parts) {
	case 0:
		return s.columns, !s.open
	case 1, 2:
		for i := range s.items {
			it := &s.items[i]
			if it.alias == parts[len(parts)-1] && (len(parts) == 1 || it.schema == parts[0]) {
				return it.columns, !it.open
			}
		}
	}
	return nil, false
}

// renamed applies the column names of an alias: AS t (a, b).
func renamed(columns []column, alias *aliasNode) ([]column, bool) {
	if alias == nil || len(alias.Colnames) == 0 {
		return columns, true
	}
	list, ok := names(alias.Colnames)
	if !ok || len(list) > len(columns) {
		return columns, false
	}
	out := append([]column(nil), columns...)
	for i, name := range list {
		out[i].name = name
	}
	return out, true
}
