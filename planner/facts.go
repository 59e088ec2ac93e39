package planner

import (
	"github.com/shardyard/shardyard/directory"
)

// context is a place of the statement with the facts that hold there: in every row that survives it,
// or (below the nullable side of an outer join) in every combination of rows that matches.
//
// Invariant: a row of a table that is read in the context and violates a fact, or what follows from
// the facts of the context and its parents, cannot influence the result of the statement. Every fact
// is strict: it is not true where a column in it is NULL.
type context struct {
	parent *context
	equal  []equality
	limits []limit
	either []either
}

func (c *context) child() *context { return &context{parent: c} }

// equality is column = column, both of one operator family.
type equality struct{ a, b columnID }

// limit is a condition on one column.
type limit struct {
	column columnID
	cond   Condition
}

// either is a disjunction: in each branch all of the limits hold.
type either struct{ branches [][]limit }

// maxAlternatives bounds how many alternatives a filter may have; beyond it a disjunction is ignored.
const maxAlternatives = 256

// classes are the equivalence classes of the columns that a context knows to be equal.
type classes struct {
	parent map[columnID]columnID
}

func (k *classes) find(c columnID) columnID {
	for {
		p, ok := k.parent[c]
		if !ok || p == c {
			return c
		}
		c = p
	}
}

func (k *classes) union(a, b columnID) {
	ra, rb := k.find(a), k.find(b)
	if ra != rb {
		k.parent[ra] = rb
	}
}

func (k *classes) same(a, b columnID) bool { return k.find(a) == k.find(b) }

// classes closes the equalities of the context and its parents.
func (c *context) classes() *classes {
	k := &classes{parent: make(map[columnID]columnID)}
	for at := c; at != nil; at = at.parent {
		for _, e := range at.equal {
			k.union(e.a, e.b)
		}
	}
	return k
}

// conditionOn is what the context says about one column: an equality if there is one, with what
// bounds there are.
func (c *context) conditionOn(id columnID, k *classes) Condition {
	var out Condition
	for at := c; at != nil; at = at.parent {
		for i := range at.limits {
			if k.same(at.limits[i].column, id) {
				out.narrow(&at.limits[i].cond)
			}
		}
	}
	return out
}

// narrow adds what other says. Where both say something of the same sort, one is kept: the shorter list
// of values, the first bound. That is sound, since each alone holds.
func (c *Condition) narrow(other *Condition) {
	if other.In != nil && (c.In == nil || better(other.In, c.In)) {
		c.In = other.In
	}
	if other.Lo != nil && c.Lo == nil {
		c.Lo, c.LoOpen = other.Lo, other.LoOpen
	}
	if other.Hi != nil && c.Hi == nil {
		c.Hi, c.HiOpen = other.Hi, other.HiOpen
	}
}

func better(a, b []ValueRef) bool {
	if hasArray(a) != hasArray(b) {
		return !hasArray(a)
	}
	return len(a) < len(b)
}

func hasArray(refs []ValueRef) bool {
	for i := range refs {
		if refs[i].Array {
			return true
		}
	}
	return false
}

func (c *Condition) empty() bool { return c.In == nil && c.Lo == nil && c.Hi == nil }

// filter says which rows of a reference can matter, by the facts of its context.
func (r *reference) filter() Filter {
	f := r.bareFilter()
	columns := r.keyColumns()
	k := r.context.classes()
	base := Alternative{Columns: make([]Condition, len(columns))}
	bound := false
	for i, id := range columns {
		base.Columns[i] = r.context.conditionOn(id, k)
		bound = bound || !base.Columns[i].empty()
	}
	alternatives := []Alternative{base}
	for at := r.context; at != nil; at = at.parent {
		for i := range at.either {
			if product, ok := multiply(alternatives, &at.either[i], columns, k); ok {
				alternatives, bound = product, true
			}
		}
	}
	if bound {
		f.Any = alternatives
	}
	return f
}

// multiply combines each alternative with each branch of a disjunction. ok is false when that says
// nothing new about the columns.
func multiply(alternatives []Alternative, e *either, columns []columnID, k *classes) ([]Alternative, bool) {
	branches := make([]Alternative, 0, len(e.branches))
	for _, limits := range e.branches {
		branch := Alternative{Columns: make([]Condition, len(columns))}
		relevant := false
		for i := range limits {
			for c, id := range columns {
				if k.same(limits[i].column, id) {
					branch.Columns[c].narrow(&limits[i].cond)
					relevant = true
				}
			}
		}
		if !relevant {
			return nil, false
		}
		branches = append(branches, branch)
	}
	if len(branches)*len(alternatives) > maxAlternatives {
		return nil, false
	}
	out := make([]Alternative, 0, len(branches)*len(alternatives))
	for i := range alternatives {
		for j := range branches {
			both := Alternative{Columns: append([]Condition(nil), alternatives[i].Columns...)}
			for c := range both.Columns {
				both.Columns[c].narrow(&branches[j].Columns[c])
			}
			out = append(out, both)
		}
	}
	return out, true
}

// bareFilter is the filter of every row.
func (r *reference) bareFilter() Filter { return tableFilter(r.table) }

func tableFilter(t *directory.Table) Filter {
	f := Filter{Table: t.Name, Group: t.Group}
	for i, name := range t.Key {
		f.Key = append(f.Key, KeyColumn{Name: name, Type: t.KeyTypes[i], Typmod: t.KeyTypmod(i)})
	}
	for i, name := range t.SubKey {
		f.Sub = append(f.Sub, KeyColumn{Name: name, Type: t.SubKeyTypes[i], Typmod: t.SubKeyTypmod(i)})
	}
	return f
}

// keyColumns are the IDs of the reference's key columns, the subkey's behind the key's.
func (r *reference) keyColumns() []columnID {
	ids := make([]columnID, 0, len(r.table.Key)+len(r.table.SubKey))
	for _, name := range r.table.Key {
		ids = append(ids, columnID{r.entry, name})
	}
	for _, name := range r.table.SubKey {
		ids = append(ids, columnID{r.entry, name})
	}
	return ids
}

// joinedByKey reports whether, by the facts of r's context, every row of r that can matter to a row of
// anchor has the same key and so is on the same shard.
func (r *reference) joinedByKey(anchor *reference) bool {
	if r.table.Group != anchor.table.Group {
		return false
	}
	mine, theirs := r.keyColumns(), anchor.keyColumns()
	if len(mine) != len(theirs) {
		return false
	}
	k := r.context.classes()
	for i := range mine {
		if !k.same(mine[i], theirs[i]) {
			return false
		}
	}
	return true
}
