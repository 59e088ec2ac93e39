package planner

import (
	"slices"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

const hintInsertKey = "Give each column of the shard key as a constant or a parameter."

// insert analyses INSERT. The rows that it stores in a sharded table are a filter of their own.
func (a *analysis) insert(i *insertStmt, outer *scope, ctx *context) {
	s := &scope{outer: outer}
	if outer != nil {
		s.tables = outer.tables
	}
	a.with(i.WithClause, s, outer, ctx)
	source := i.SelectStmt.GetSelectStmt()
	a.noteNextvals(i)
	var rows result
	rowsCtx := ctx.child()
	if source != nil {
		rows = a.selectInto(source, &scope{outer: outer, tables: s.tables}, rowsCtx)
	}
	r := a.relation(i.Relation, ctx)
	r.written = true
	if a.insertion != nil && a.insertion.stmt == i {
		a.insertion.target = r
		a.insertion.rows, a.insertion.context = rows, rowsCtx
	}
	columns, open := r.columnsOf()
	it := named(result{columns: columns, open: open}, i.Relation.Relname, r.name.Schema, i.Relation.Alias)
	target := &scope{outer: outer, tables: s.tables, items: it.items, columns: it.columns, open: it.open}
	if c := i.OnConflictClause; c != nil {
		excluded := unprovenItem("excluded", columns, open)
		conflict := &scope{outer: outer, tables: s.tables, items: append([]item{excluded}, it.items...), open: true}
		a.keepsOnConflict(i, r)
		a.keepsNumbers(r, c.TargetList)
		a.walkMessage(c, conflict, ctx)
	}
	a.walkList(i.ReturningList, target, ctx)
	if r.place != sharded {
		return
	}
	stored, err := a.storedRows(i, r, source, rows, rowsCtx)
	if err != nil {
		a.refuse(err, r.position)
		return
	}
	r.stored = stored
}

// unprovenItem is the item of a relation whose columns prove nothing.
func unprovenItem(alias string, columns []column, open bool) item {
	it := item{alias: alias, open: open}
	for _, c := range columns {
		it.columns = append(it.columns, column{name: c.name})
	}
	return it
}

// storedRows finds the shard key of every row that an INSERT stores.
func (a *analysis) storedRows(i *insertStmt, r *reference, source *selectStmt, rows result, rowsCtx *context) (*Filter, *Error) {
	if r.relation == nil {
		return nil, refuse("Try again.", "the columns of table %s are not known", r.name)
	}
	places, err := a.insertColumns(i, r)
	if err != nil {
		return nil, err
	}
	f := r.bareFilter()
	f.Stored = true
	if a.insertion != nil && a.insertion.target == r {
		a.insertion.places = places
	}
	if err := a.numbersOf(i, r, places, source, rows); err != nil {
		return nil, err
	}
	switch {
	case source == nil: // DEFAULT VALUES
		alternative, err := a.storedRow(i, r, 0, nil, nil)
		if err != nil {
			return nil, err
		}
		f.Any = []Alternative{alternative}
	case len(source.ValuesLists) > 0 && source.Op == setOpNone:
		for n, row := range source.ValuesLists {
			alternative, err := a.storedRow(i, r, n, places, row.GetList().GetItems())
			if err != nil {
				return nil, err
			}
			f.Any = append(f.Any, alternative)
		}
	default:
		if in := a.insertion; in != nil && in.target == r {
			if in.selected {
				return nil, nil
			}
			in.unproved = true
		}
		alternative, err := a.selectedRow(i, r, places, source, rows, rowsCtx)
		if err != nil {
			return nil, err
		}
		f.Any = []Alternative{alternative}
	}
	return &f, nil
}

// insertColumns lists, for each value of a row, the column that it is for.
func (a *analysis) insertColumns(i *insertStmt, r *reference) ([]*catalog.Column, *Error) {
	if len(i.Cols) == 0 {
		return r.relation.Live(), nil
	}
	list := make([]*catalog.Column, 0, len(i.Cols))
	for _, n := range i.Cols {
		t := n.GetResTarget()
		c, ok := r.relation.Column(t.GetName())
		if !ok {
			c = &catalog.Column{Name: t.GetName()} // a shard says the error
		}
		if len(t.GetIndirection()) > 0 && keyIndex(r.table, c.Name) >= 0 {
			return nil, refuse(hintInsertKey, "column %q of the shard key is given in parts", c.Name).at(a.position(int(t.Location)))
		}
		list = append(list, c)
	}
	return list, nil
}

// storedRow is the shard key of row n of VALUES.
func (a *analysis) storedRow(i *insertStmt, r *reference, n int, places []*catalog.Column, values []*node) (Alternative, *Error) {
	return a.eachKey(r, func(name string) (ValueRef, *Error) {
		place := -1
		for p, c := range places {
			if c.Name != name || p >= len(values) {
				continue
			}
			place = p
			if _, _, ok := a.numberFor(i, c, values[p]); ok && a.rowsOf(r) {
				return a.supplyNumber(i, r, c, n, p, values[p])
			}
			if values[p].GetSetToDefault() != nil {
				break
			}
			if err := a.overridden(i, c); err != nil {
				return ValueRef{}, err
			}
			return a.storedValue(r, n, c, p, values[p])
		}
		if c, ok := r.relation.Column(name); ok && c.Sequence.Name != "" && a.rowsOf(r) {
			return a.supplyNumber(i, r, c, n, place, nil)
		}
		return a.defaultValue(r, name, n, place)
	})
}

// eachKey collects a value for each key column.
func (a *analysis) eachKey(r *reference, value func(name string) (ValueRef, *Error)) (Alternative, *Error) {
	var out Alternative
	for _, list := range [][]string{r.table.Key, r.table.SubKey} {
		for _, name := range list {
			v, err := value(name)
			if err != nil {
				return Alternative{}, err
			}
			out.Columns = append(out.Columns, Condition{In: []ValueRef{v}})
		}
	}
	return out, nil
}

// overridden refuses what makes Postgres ignore the value given.
func (a *analysis) overridden(i *insertStmt, c *catalog.Column) *Error {
	if c.Generated {
		return refuse("Shard by another column.", "column %q of the shard key is generated", c.Name)
	}
	if c.Identity != 0 && i.Override == overridingUser {
		return refuse(hintInsertKey, "with OVERRIDING USER VALUE the value of column %q of the shard key is not known", c.Name)
	}
	return nil
}

// storedValue is the value of a key column that a row gives.
func (a *analysis) storedValue(r *reference, row int, c *catalog.Column, place int, n *node) (ValueRef, *Error) {
	v, _, ok := a.value(n, column{name: c.Name, id: columnID{r.entry, c.Name}, cat: c})
	if !ok && a.computable(n) {
		if v, ok = a.supply(r, row, c, place, false); ok {
			a.insertion.clock = a.insertion.clock || a.clockIn(n) >= 0
		}
	}
	if !ok {
		return ValueRef{}, refuse(hintInsertKey, "the value of column %q of the shard key of table %s is an expression", c.Name, r.name).
			at(a.position(location(unwrap(n))))
	}
	return v, nil
}

// defaultValue is the value of a key column that a row does not give; place is where it says DEFAULT instead, -1 if nowhere.
func (a *analysis) defaultValue(r *reference, name string, row, place int) (ValueRef, *Error) {
	c, ok := r.relation.Column(name)
	if !ok {
		return ValueRef{}, refuse("Try again.", "column %q of table %s is not known", name, r.name)
	}
	if _, ok := directory.KeyTypeOf(a.env.Catalog.BaseType(c.Type)); ok && c.HasDefault && !c.DefaultIsConst {
		if def := a.defaultNode(c); def != nil && a.computable(def) {
			if v, supplied := a.supply(r, row, c, place, true); supplied {
				a.insertion.clock = a.insertion.clock || a.clockIn(def) >= 0
				return v, nil
			}
		}
	}
	return a.constantDefault(r, c)
}

// constantDefault is the default of a key column, if it is one value.
func (a *analysis) constantDefault(r *reference, c *catalog.Column) (ValueRef, *Error) {
	t, ok := directory.KeyTypeOf(a.env.Catalog.BaseType(c.Type))
	domain := a.env.Catalog.BaseType(c.Type) != c.Type
	switch {
	case !ok || c.Generated || c.Identity != 0 || c.HasDefault && !c.DefaultIsConst || domain && !c.HasDefault:
		return ValueRef{}, refuse(hintInsertKey, "column %q of the shard key of table %s is not given, and its default is known to the shard alone", c.Name, r.name)
	case !c.HasDefault || c.DefaultIsNull:
		return ValueRef{Null: true, Type: t}, nil
	}
	return fixed(c.DefaultValue, t), nil
}

// selectedRow is the shard key of all rows of INSERT … SELECT, if they provably have the same.
func (a *analysis) selectedRow(i *insertStmt, r *reference, places []*catalog.Column, source *selectStmt, rows result, ctx *context) (Alternative, *Error) {
	if rows.open || source.Op != setOpNone || hasGroupingSets(source) {
		return Alternative{}, a.notPinned(r, r.table.Key[0])
	}
	k := ctx.classes()
	return a.eachKey(r, func(name string) (ValueRef, *Error) {
		for p, c := range places {
			if c.Name != name || p >= len(rows.columns) {
				continue
			}
			if err := a.overridden(i, c); err != nil {
				return ValueRef{}, err
			}
			if p < len(source.TargetList) && !hasStar(source) {
				if v, _, ok := a.value(source.TargetList[p].GetResTarget().GetVal(), column{name: c.Name, cat: c}); ok {
					return v, nil
				}
			}
			if !a.convertsAlike(rows.columns[p], c) {
				return ValueRef{}, a.notPinned(r, name)
			}
			cond := ctx.conditionOn(rows.columns[p].id, k)
			if len(cond.In) == 1 && !cond.In[0].Array {
				return cond.In[0], nil
			}
			return ValueRef{}, a.notPinned(r, name)
		}
		return a.defaultValue(r, name, 0, -1)
	})
}

// convertsAlike reports whether values that are equal in the source column are equal after they are
// stored in the target column.
func (a *analysis) convertsAlike(source column, target *catalog.Column) bool {
	if !source.known() {
		return false
	}
	from, fromOK := a.keyTypeOf(source)
	to, toOK := directory.KeyTypeOf(a.env.Catalog.BaseType(target.Type))
	if !fromOK || !toOK {
		return false
	}
	return from.Family() == to.Family() || isNumber(from.OID()) && isNumber(to.OID())
}

func (a *analysis) notPinned(r *reference, name string) *Error {
	return refuse("Restrict the SELECT so that the column has one value (column = value).",
		"it cannot be proved that all rows have the same value of column %q of the shard key of table %s", name, r.name)
}

func hasStar(sel *selectStmt) bool {
	for _, n := range sel.TargetList {
		if star, _ := isStar(n.GetResTarget().GetVal().GetColumnRef()); star {
			return true
		}
	}
	return false
}

func hasGroupingSets(sel *selectStmt) bool {
	for _, n := range sel.GroupClause {
		if n.GetGroupingSet() != nil {
			return true
		}
	}
	return false
}

// keepsOnConflict refuses ON CONFLICT DO UPDATE that may change the shard key of the row that is there.
func (a *analysis) keepsOnConflict(i *insertStmt, r *reference) {
	if r.place != sharded {
		return
	}
	arbiter := arbiterColumns(i, r)
	for _, n := range i.OnConflictClause.TargetList {
		t := n.GetResTarget()
		if t == nil || keyIndex(r.table, t.Name) < 0 {
			continue
		}
		if parts, ok := names(assigned(t.Val).GetColumnRef().GetFields()); ok && len(t.Indirection) == 0 && len(parts) == 2 && parts[1] == t.Name {
			target := i.Relation.Relname
			if i.Relation.Alias != nil {
				target = i.Relation.Alias.Aliasname
			}
			// The row that is there has the values of the arbiter's columns that the new one has.
			if parts[0] == target || parts[0] == "excluded" && slices.Contains(arbiter, t.Name) {
				continue
			}
		}
		a.refuse(refuse("Delete the row and insert it with the new key.",
			"column %q is part of the shard key of table %s and cannot be changed", t.Name, r.name), int(t.Location))
	}
}

// assigned is the value of an assignment: that of its column in (a, b) = (x, y).
func assigned(n *node) *node {
	if multi := n.GetMultiAssignRef(); multi != nil {
		row, at := multi.Source.GetRowExpr(), int(multi.Colno)-1
		if row == nil || at < 0 || at >= len(row.Args) {
			return nil
		}
		return row.Args[at]
	}
	return n
}

// arbiterColumns are the columns, compared by the equality of their types, of the index that finds conflicts.
func arbiterColumns(i *insertStmt, r *reference) []string {
	infer := i.OnConflictClause.Infer
	if infer == nil || r.relation == nil {
		return nil
	}
	for _, key := range r.relation.Keys {
		if infer.Conname != "" && key.Name == infer.Conname && key.DefaultOperators {
			return key.Columns
		}
	}
	var columns []string
	for _, n := range infer.IndexElems {
		if e := n.GetIndexElem(); e != nil && e.Name != "" && len(e.Opclass) == 0 && len(e.Collation) == 0 {
			columns = append(columns, e.Name)
		}
	}
	return columns
}
