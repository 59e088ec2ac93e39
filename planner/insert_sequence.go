package planner

import (
	"slices"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

const hintNumbers = "Give the column a value: SELECT nextval('…') first."

// maxColumns is greater than the number of a table's columns.
const maxColumns = 10_000

// Draw is a number of values to be drawn from one sequence.
type Draw struct {
	Sequence directory.TableName
	// Granted: the client needs no privilege on the sequence.
	Granted bool
	// Values are the indexes in InsertData.Values that get the values drawn, in this order.
	Values []int
}

// Draws are the values from from up to to of Values that come from sequences, in the order in which Postgres would draw
// them: row by row.
func (d *InsertData) Draws(from, to int) []Draw {
	var draws []Draw
	for i := from; i < to; i++ {
		v := &d.Values[i]
		if v.Sequence.Name == "" {
			continue
		}
		at := slices.IndexFunc(draws, func(w Draw) bool { return w.Sequence == v.Sequence })
		if at < 0 {
			draws, at = append(draws, Draw{Sequence: v.Sequence, Granted: true}), len(draws)
		}
		draws[at].Values = append(draws[at].Values, i)
		draws[at].Granted = draws[at].Granted && v.Granted
	}
	for _, draw := range draws {
		slices.SortFunc(draw.Values, func(x, y int) int {
			a, b := &d.Values[x], &d.Values[y]
			if a.Row != b.Row {
				return a.Row - b.Row
			}
			return a.order - b.order
		})
	}
	return draws
}

// LastDrawn is the sequence that lastval() is about after the values were drawn.
func (d *InsertData) LastDrawn() directory.TableName {
	var last *SuppliedValue
	for i := range d.Values {
		v := &d.Values[i]
		if v.Sequence.Name != "" && (last == nil || v.Row > last.Row || v.Row == last.Row && v.order > last.order) {
			last = v
		}
	}
	if last == nil {
		return directory.TableName{}
	}
	return last.Sequence
}

// rowsOf reports whether the rows that are stored in r stand in the statement, so that values can be supplied for them.
func (a *analysis) rowsOf(r *reference) bool {
	return a.insertion != nil && a.insertion.target == r && a.insertion.hasRows()
}

// noteNextvals notes the calls of nextval that are a whole value of a row for a sharded table: their values are supplied.
func (a *analysis) noteNextvals(i *insertStmt) {
	in := a.insertion
	if in == nil || in.stmt != i || !in.hasRows() || in.source == nil {
		return
	}
	rel, ok := a.env.Catalog.ResolveTable(i.Relation.Schemaname, i.Relation.Relname, a.path)
	if !ok || a.temporary(i.Relation) || !a.isSharded(rel.Name) {
		return
	}
	for _, row := range in.source.ValuesLists {
		for _, value := range row.GetList().GetItems() {
			f := value.GetFuncCall()
			if name, ok := a.nextvalOf(f); ok {
				if in.nextvals == nil {
					in.nextvals = make(map[*funcCall]directory.TableName)
				}
				in.nextvals[f] = name
			}
		}
	}
}

func (a *analysis) isSuppliedNextval(f *funcCall) bool {
	if a.insertion == nil {
		return false
	}
	_, ok := a.insertion.nextvals[f]
	return ok
}

// nextvalOf is the sequence of a call nextval('s') or nextval('s'::regclass).
func (a *analysis) nextvalOf(f *funcCall) (directory.TableName, bool) {
	if f == nil || len(f.Args) != 1 {
		return directory.TableName{}, false
	}
	if info := a.function(f); info.name != "nextval" || info.user || info.unknown {
		return directory.TableName{}, false
	}
	return a.sequenceNamed(f.Args[0])
}

// sequenceNamed is the sequence that a constant names, as a regclass.
func (a *analysis) sequenceNamed(n *node) (directory.TableName, bool) {
	k := n.GetAConst()
	if c := n.GetTypeCast(); c != nil {
		parts, ok := names(c.TypeName.GetNames())
		if !ok || len(parts) == 0 || parts[len(parts)-1] != "regclass" || len(c.TypeName.GetArrayBounds()) > 0 {
			return directory.TableName{}, false
		}
		k = c.Arg.GetAConst()
	}
	if k == nil {
		return directory.TableName{}, false
	}
	kind, text := constantOf(k)
	if kind != constString {
		return directory.TableName{}, false
	}
	if _, _, open := a.findLiteral(int(k.Location)); open {
		a.valuesUsed = true
	}
	parts, ok := identifiers(text)
	if !ok {
		return directory.TableName{}, false
	}
	schema, name := qualified(parts)
	rel, found := a.env.Catalog.ResolveTable(schema, name, a.path)
	if !found || rel.Kind != catalog.KindSequence || a.temporary(&rangeVar{Schemaname: schema, Relname: name}) {
		return directory.TableName{}, false
	}
	return rel.Name, true
}

// qualified are the schema, "" if there is none, and the name.
func qualified(parts []string) (schema, name string) {
	if len(parts) > 1 {
		schema = parts[len(parts)-2]
	}
	return schema, parts[len(parts)-1]
}

// identifiers splits a text such as regclass reads: names, quoted or not, with dots between them.
func identifiers(text string) (parts []string, ok bool) {
	for {
		text = strings.TrimLeft(text, " \t\n\r\f")
		var part string
		if strings.HasPrefix(text, `"`) {
			end := 1
			for ; end < len(text); end++ {
				if text[end] != '"' {
					continue
				}
				if end+1 >= len(text) || text[end+1] != '"' {
					break
				}
				end++
			}
			if end >= len(text) {
				return nil, false
			}
			part, text = strings.ReplaceAll(text[1:end], `""`, `"`), text[end+1:]
		} else {
			end := strings.IndexAny(text, ". \t\n\r\f\"")
			if end < 0 {
				end = len(text)
			}
			part, text = lower(text[:end]), text[end:]
		}
		if part == "" || len(parts) > 1 {
			return nil, false
		}
		parts = append(parts, part)
		text = strings.TrimLeft(text, " \t\n\r\f")
		if text == "" {
			return parts, true
		}
		if text[0] != '.' {
			return nil, false
		}
		text = text[1:]
	}
}

// numberFor is the sequence that gives the value of a column for a row that has n there; nil: the row does not give it.
func (a *analysis) numberFor(i *insertStmt, c *catalog.Column, n *node) (sequence directory.TableName, granted, ok bool) {
	if n == nil || n.GetSetToDefault() != nil || c.Identity != 0 && i.Override == overridingUser {
		return c.Sequence, c.Identity != 0, c.Sequence.Name != ""
	}
	if a.insertion != nil {
		sequence, ok = a.insertion.nextvals[n.GetFuncCall()]
	}
	return sequence, false, ok
}

// supplyNumber has a key column of a row numbered.
func (a *analysis) supplyNumber(i *insertStmt, r *reference, c *catalog.Column, row, place int, n *node) (ValueRef, *Error) {
	t, ok := directory.KeyTypeOf(a.env.Catalog.BaseType(c.Type))
	if !ok {
		return ValueRef{}, refuse(hintInsertKey, "column %q of the shard key of table %s has another type", c.Name, r.name)
	}
	if err := a.addNumber(i, c, row, place, n); err != nil {
		return ValueRef{}, err
	}
	return ValueRef{Kind: RefSupplied, Param: len(a.insertion.values) - 1, Type: t}, nil
}

// addNumber notes that a column of a row gets a value of a sequence.
func (a *analysis) addNumber(i *insertStmt, c *catalog.Column, row, place int, n *node) *Error {
	in := a.insertion
	sequence, granted, _ := a.numberFor(i, c, n)
	if _, ok := a.integerType(c); !ok {
		return notInteger(c, sequence)
	}
	column, ok := a.supplyColumn(c, place)
	if !ok {
		return refuse(hintNumbers, "the type of column %q is not known", c.Name)
	}
	in.numbered = true
	order := c.Ordinal
	if in.source != nil && len(in.source.ValuesLists) > 1 && place >= 0 && place < in.given() {
		order = place - maxColumns // Postgres computes the rows of VALUES before what they do not give
	}
	in.add(SuppliedValue{Row: row, Column: column, Sequence: sequence, Granted: granted, order: order})
	return nil
}

// Number is a column that the router numbers in each row, from a sequence.
type Number struct {
	Column string
	// Type is the integer type, beneath domains, that the values are sent as.
	Type     uint32
	Sequence directory.TableName
	// Granted: the client needs no privilege on the sequence.
	Granted bool
}

// numberOf is how a column is numbered that rows leave out.
func (a *analysis) numberOf(c *catalog.Column) (Number, *Error) {
	t, ok := a.integerType(c)
	if !ok {
		return Number{}, notInteger(c, c.Sequence)
	}
	return Number{Column: c.Name, Type: t, Sequence: c.Sequence, Granted: c.Identity != 0}, nil
}

// integerType is the integer type that a column is of, beneath domains; ok is false if it is of another.
func (a *analysis) integerType(c *catalog.Column) (oid uint32, ok bool) {
	switch oid = a.env.Catalog.BaseType(c.Type); oid {
	case 20, 21, 23:
		return oid, true
	}
	return 0, false
}

func notInteger(c *catalog.Column, sequence directory.TableName) *Error {
	return refuse(hintNumbers, "column %q gets values of sequence %s and is not an integer: this is not supported", c.Name, sequence)
}

// numbersOf looks which rows of an INSERT into a sharded table need values of sequences, and refuses those for which
// they cannot be supplied.
func (a *analysis) numbersOf(i *insertStmt, r *reference, places []*catalog.Column, source *selectStmt, rows result) *Error {
	values := source == nil || len(source.ValuesLists) > 0 && source.Op == setOpNone
	for _, c := range r.relation.Live() {
		if c.Sequence.Name == "" {
			continue
		}
		place := slices.IndexFunc(places, func(p *catalog.Column) bool { return p.Name == c.Name })
		if source == nil {
			place = -1
		}
		needed, given := false, false
		if values {
			lists := []*node{nil}
			if source != nil {
				lists = source.ValuesLists
			}
			for _, list := range lists {
				items := list.GetList().GetItems()
				missing := place < 0 || place >= len(items) || items[place].GetSetToDefault() != nil
				needed, given = needed || missing, given || !missing
			}
		} else {
			given = place >= 0 && !rows.open && place < len(rows.columns)
			needed = !given
		}
		alwaysGiven := given && c.Identity == 'a' && i.Override == 0 || given && c.Identity == 'a' && i.Override == overridingNone
		userValue := given && c.Identity != 0 && i.Override == overridingUser
		switch {
		case a.rowsOf(r):
			a.insertion.numbered = a.insertion.numbered || needed || userValue
			a.insertion.generatedGiven = a.insertion.generatedGiven || alwaysGiven
		case alwaysGiven:
			err := &Error{Code: codeGenerated, Message: "cannot insert a non-DEFAULT value into column \"" + c.Name + "\"",
				Detail: "Column \"" + c.Name + "\" is an identity column defined as GENERATED ALWAYS.", Hint: "Use OVERRIDING SYSTEM VALUE to override."}
			a.refuse(err, -1) // Postgres gives no position
			return err
		case needed && a.insertion != nil && a.insertion.target == r && a.insertion.selected:
			n, err := a.numberOf(c)
			if err != nil {
				return err
			}
			a.insertion.drawn = append(a.insertion.drawn, n)
		case needed || userValue:
			return refuse(hintNumbers, "column %q of table %s gets values of a sequence, which is supported in INSERT at the top level only", c.Name, r.name)
		}
	}
	return nil
}

// numberRows has the columns numbered that are not in the key.
func (a *analysis) numberRows(data *InsertData) *Error {
	in := a.insertion
	for _, c := range in.target.relation.Live() {
		data.overriding = data.overriding || c.Identity == 'a' && c.Sequence.Name != "" && in.stmt.Override != overridingSystem ||
			c.Identity != 0 && in.stmt.Override == overridingUser
	}
	given := in.given()
	for row := range data.rows {
		for _, c := range in.target.relation.Live() {
			place := slices.IndexFunc(in.places, func(p *catalog.Column) bool { return p.Name == c.Name })
			var value *node
			if place >= given {
				place = -1
			}
			if place >= 0 {
				value = in.source.ValuesLists[row].GetList().GetItems()[place]
			}
			if _, _, ok := a.numberFor(in.stmt, c, value); !ok || in.isSupplied(row, c.Name) {
				continue
			}
			if err := a.addNumber(in.stmt, c, row, place, value); err != nil {
				return err
			}
		}
	}
	data.overriding = data.overriding && in.numbered
	return nil
}

// keepsNumbers refuses SET column = DEFAULT where the default is a value of a sequence, and, as Postgres, any other value
// of a column GENERATED ALWAYS AS IDENTITY.
func (a *analysis) keepsNumbers(r *reference, targets []*node) {
	if r.place != sharded || r.relation == nil {
		return
	}
	for _, n := range targets {
		t := n.GetResTarget()
		c, ok := r.relation.Column(t.GetName())
		if !ok || c.Sequence.Name == "" {
			continue
		}
		if len(defaulted(t)) > 0 {
			a.refuse(refuse("Give the value itself: SELECT nextval('…') first.",
				"the default of column %q is a value of a sequence, which is supported in INSERT only", c.Name), int(t.Location))
		} else if c.Identity == 'a' {
			a.refuse(&Error{Code: codeGenerated, Message: "column \"" + c.Name + "\" can only be updated to DEFAULT",
				Detail: "Column \"" + c.Name + "\" is an identity column defined as GENERATED ALWAYS."}, -1)
		}
	}
}
