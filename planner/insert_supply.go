package planner

import (
	"slices"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

// supply has the value of a key column computed for a row, so that the row is stored as it was routed. It can be done
// for the outermost statement only, whose text is under our control.
func (a *analysis) supply(r *reference, row int, c *catalog.Column, place int, isDefault bool) (ValueRef, bool) {
	in := a.insertion
	if in == nil || in.target != r || !in.hasRows() {
		return ValueRef{}, false
	}
	t, ok := directory.KeyTypeOf(a.env.Catalog.BaseType(c.Type))
	if !ok {
		return ValueRef{}, false
	}
	column, ok := a.supplyColumn(c, place)
	if !ok {
		return ValueRef{}, false
	}
	in.add(SuppliedValue{Row: row, Column: column, Default: isDefault})
	return ValueRef{Kind: RefSupplied, Param: len(in.values) - 1, Type: t}, true
}

// supplyColumn is the index of a column among those that get computed values.
func (a *analysis) supplyColumn(c *catalog.Column, place int) (int, bool) {
	in := a.insertion
	if i := slices.IndexFunc(in.supplied, func(s SuppliedColumn) bool { return s.Name == c.Name }); i >= 0 {
		return i, true
	}
	column, ok := a.suppliedColumn(c)
	if !ok {
		return 0, false
	}
	if place < 0 {
		place = in.given()
		for _, s := range in.supplied {
			if s.place >= place {
				place = s.place + 1
			}
		}
	}
	column.place = place
	in.supplied = append(in.supplied, column)
	return len(in.supplied) - 1, true
}

// suppliedColumn says how values of a column are computed; ok is false for types that cannot be carried to another shard.
func (a *analysis) suppliedColumn(c *catalog.Column) (SuppliedColumn, bool) {
	base := a.env.Catalog.BaseType(c.Type)
	typeSQL, ok := a.typeSQL(base)
	return SuppliedColumn{Name: c.Name, Type: base, TypeSQL: typeSQL, Default: c.Default}, ok && !a.env.Catalog.BinaryCarriesOIDs(base)
}

// given is the number of values that the client gives for a row.
func (in *inserting) given() int {
	if in.source == nil || len(in.source.ValuesLists) == 0 {
		return 0
	}
	return len(in.source.ValuesLists[0].GetList().GetItems())
}

// typeSQL is the name of a type in SQL, whatever the search path.
func (a *analysis) typeSQL(oid uint32) (string, bool) {
	if t, ok := a.env.Catalog.TypeByOID(oid); ok {
		return directory.QuoteIdentifier(t.Schema) + "." + directory.QuoteIdentifier(t.Name), true
	}
	if t, ok := directory.KeyTypeOf(oid); ok {
		return "pg_catalog." + t.String(), true
	}
	return "", false
}

// computable reports whether an expression has a value that any shard may compute, once, instead of the one that
// stores it: it reads no table, and writes and leaves nothing behind.
func (a *analysis) computable(n *node) bool {
	ok := true
	walk(n, func(m message) bool {
		switch m := m.(type) {
		case *subLink, *columnRef:
			ok = false
		case *sqlValueFunction:
		case *funcCall:
			info := a.function(m)
			ok = ok && !info.unknown && !info.aggregate && !info.window && !info.returnsSet && !info.reaches && !info.opaque && info.touches == "" &&
				(!info.volatile || harmless[info.name] && !info.user) && (info.user || !serverBound(info.name))
		case *operation:
			ok = ok && a.computableOperator(m)
		default:
			switch kindName(m) {
			case "XmlExpr", "XmlSerialize", "JsonFuncExpr", "JsonObjectAgg", "JsonArrayAgg", "GroupingFunc", "SetToDefault":
				ok = false
			}
		}
		return ok
	})
	return ok
}

// computableOperator refuses names of user-defined operators whose functions are volatile or use tables.
func (a *analysis) computableOperator(op *operation) bool {
	parts, ok := names(op.Name)
	if !ok || len(parts) == 0 {
		return false
	}
	for _, user := range a.env.Catalog.UserOperators(parts[len(parts)-1]) {
		f, found := a.env.Catalog.FunctionByOID(user.Function)
		if !found || f.Volatility == catalog.Volatile || f.Opaque || len(f.Reaches) > 0 {
			return false
		}
	}
	return true
}

// defaultNode is a column's default as an expression; nil where it cannot be read.
func (a *analysis) defaultNode(c *catalog.Column) *node {
	if !c.HasDefault || c.Generated || c.Identity != 0 || len(a.path) > 0 && a.path[0] != "pg_catalog" {
		return nil
	}
	parsed, err := parse("SELECT " + c.Default)
	if err != nil {
		return nil
	}
	m, count := parsed.statement()
	sel, ok := m.(*selectStmt)
	if !ok || count != 1 || len(sel.TargetList) != 1 {
		return nil
	}
	return sel.TargetList[0].GetResTarget().GetVal()
}

// clockValues has values computed that depend on the transaction's time, which each shard has of its own: they are one
// value for all rows of all shards. It notes the texts that may turn out to stand for the present, too.
func (a *analysis) clockValues(data *InsertData) *Error {
	in := a.insertion
	if c := in.stmt.OnConflictClause; c != nil {
		if err := a.clockTexts(data, a.literalsIn(c)...); err != nil {
			return err
		}
	}
	for _, c := range in.target.relation.Live() {
		place := slices.IndexFunc(in.places, func(p *catalog.Column) bool { return p.Name == c.Name })
		if place >= in.given() {
			place = -1
		}
		if err := a.clockColumn(data, c, place); err != nil {
			return err
		}
	}
	return nil
}

// clockColumn is clockValues for the column at a place of the rows; -1: the rows do not give it.
func (a *analysis) clockColumn(data *InsertData, c *catalog.Column, place int) *Error {
	in := a.insertion
	def := a.defaultNode(c)
	if c.HasDefault && !c.Generated && c.Identity == 0 && !c.DefaultIsConst && def == nil {
		return refuse(hintOneInsert, "the default of column %q cannot be read, so it cannot be used on several shards", c.Name)
	}
	byClock := def != nil && a.clockIn(def) >= 0
	temporal := a.temporal(c.Type, 0)
	for row := range data.rows {
		var value *node
		if place >= 0 {
			items := in.source.ValuesLists[row].GetList().GetItems()
			if place >= len(items) {
				return a.notSplit("rows of different lengths") // a shard says the error
			}
			value = items[place]
		}
		isDefault := value == nil || value.GetSetToDefault() != nil
		at := -1
		if !isDefault {
			at = a.clockIn(value)
			if err := a.clockTexts(data, a.clockLiterals(value, temporal)...); err != nil {
				return err
			}
		}
		if isDefault && !byClock || !isDefault && at < 0 || in.isSupplied(row, c.Name) {
			continue
		}
		if isDefault && !a.computable(def) || !isDefault && !a.computable(value) {
			return refuse("Give the time as a parameter or as a constant.",
				"the value of column %q depends on the time of the transaction in a way that cannot be computed for several shards", c.Name).at(a.position(at))
		}
		column, ok := a.supplyColumn(c, place)
		if !ok {
			return refuse("Give the time as a parameter or as a constant.", "the type of column %q is not known", c.Name)
		}
		in.add(SuppliedValue{Row: row, Column: column, Default: isDefault})
	}
	return nil
}

// add notes a value to be computed.
func (in *inserting) add(v SuppliedValue) {
	in.values = append(in.values, v)
	if in.known == nil {
		in.known = make(map[[2]int]bool)
	}
	in.known[[2]int{v.Row, v.Column}] = true
}

// isSupplied reports whether the value is computed already, for the routing.
func (in *inserting) isSupplied(row int, name string) bool {
	column := slices.IndexFunc(in.supplied, func(s SuppliedColumn) bool { return s.Name == name })
	return column >= 0 && in.known[[2]int{row, column}]
}

// temporal reports whether a text for a column of the type may stand for the present.
func (a *analysis) temporal(oid uint32, depth int) bool {
	oid = a.env.Catalog.BaseType(oid)
	switch oid {
	case 1082, 1083, 1114, 1184, 1266:
		return true
	}
	t, ok := a.env.Catalog.TypeByOID(oid)
	if !ok || depth > 10 {
		return false
	}
	switch {
	case t.IsArray():
		return a.temporal(t.Elem, depth+1)
	case t.Kind == 'r' || t.Kind == 'm':
		return a.temporal(t.Subtype, depth+1)
	}
	return slices.ContainsFunc(t.Attributes, func(at catalog.Attribute) bool { return a.temporal(at.Type, depth+1) })
}

// clockLiterals are the constants and parameters of a row's value that may stand for the present.
func (a *analysis) clockLiterals(n *node, temporal bool) []message {
	switch m := unwrap(n).(type) {
	case *constant, *paramRef:
		if temporal {
			return []message{m}
		}
		return nil
	case *typeCast:
		if c := m.Arg.GetAConst(); c != nil {
			parts, ok := names(m.TypeName.GetNames())
			if ok && len(parts) > 0 && !isTimeType(parts[len(parts)-1]) && len(m.TypeName.GetArrayBounds()) == 0 {
				return nil
			}
		}
	}
	return a.literalsIn(unwrap(n))
}

func (a *analysis) literalsIn(m message) []message {
	var found []message
	walk(m, func(m message) bool {
		switch m.(type) {
		case *constant, *paramRef:
			found = append(found, m)
		}
		return true
	})
	return found
}

// clockTexts notes constants and parameters of which Targets must see that they do not stand for the present.
func (a *analysis) clockTexts(data *InsertData, list ...message) *Error {
	for _, m := range list {
		switch m := m.(type) {
		case *paramRef:
			data.clocks = append(data.clocks, ValueRef{Kind: RefParam, Param: int(m.Number)})
		case *constant:
			kind, text := constantOf(m)
			if kind != constString {
				continue
			}
			if ordinal, _, open := a.findLiteral(int(m.Location)); open {
				data.clocks = append(data.clocks, ValueRef{Kind: RefLiteral, Literal: ordinal})
			} else if readsClock(text) {
				return clockRefusal().at(a.position(int(m.Location)))
			}
		}
	}
	return nil
}
