package planner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

// CopyRows is what there is to know to divide the rows of COPY … FROM STDIN over the shards of a table.
type CopyRows struct {
	// Filter has the table and its key. It is of use for Locate only.
	Filter Filter
	// Key says for each column of the key, then of the subkey, where a row's value comes from.
	Key []CopyKey
	// Types are the types of the fields of a row, the home shard's OIDs.
	Types []uint32
	// Numbers are columns that the rows leave out and the router numbers: the first fields of a row as shards get it. SQL is the
	// statement that names them, the client's but for what is inserted behind InsertedAt characters, InsertedLength of them.
	Numbers                    []Number
	SQL                        string
	InsertedAt, InsertedLength int

	// What the statement says of the data, besides CopyData. Empty and 0 stand for what the format makes of it.
	Delimiter, Quote, Escape string
	Null, Default            string
	HasNull, HasDefault      bool
	ForceNotNull, ForceNull  []bool // a flag for each field
	Encoding                 string // of the data; "" is client_encoding
	// NoMarkerInCSV: the servers do not know \. as the end of CSV data.
	NoMarkerInCSV bool

	// Refusal is why the statement is not run all the same. It is told if a shard finds nothing wrong with the statement.
	Refusal *Error
}

// CopyKey says where the value of a column of the key comes from.
type CopyKey struct {
	Field int // of the row, from 0; -1: the column's default
	// Default is the column's default, where a row asks for it; DefaultRefusal is why it is not known.
	Default        ValueRef
	DefaultRefusal *Error
}

// Value is the default that a row stores, coerced to the column i of the key.
func (c *CopyRows) Value(i int) (directory.Value, error) {
	k := &c.Key[i]
	if k.DefaultRefusal != nil {
		return directory.Value{}, k.DefaultRefusal
	}
	v, err := k.Default.scalar(&Args{})
	if err != nil {
		return directory.Value{}, err
	}
	return c.Column(i).stored(v)
}

// Column is a column of the key followed by the subkey.
func (c *CopyRows) Column(i int) *KeyColumn { return c.Filter.column(i) }

// Stored is the value as the key column i stores it. The error is one of directory's.
func (c *CopyRows) Stored(i int, v directory.Value) (directory.Value, error) {
	return c.Filter.column(i).stored(v)
}

// Locate finds the shard of a row by the values that its key columns store. The error is 23514 where no partition takes it. missing is
// the entry that must be looked up, or made, before it can be told.
func (c *CopyRows) Locate(g *directory.Group, entries *directory.Entries, values []directory.Value) (shard directory.ShardID, missing *directory.MissingEntry, err error) {
	return c.Filter.locate(g, entries, values)
}

// ReadsClock reports whether the text of a key is a word that stands for the present, which each server has for itself.
func (c *CopyRows) ReadsClock(text string) bool { return readsClock(text) }

const (
	hintCopyKey = "Add the column to the column list and give its value in every row."
	// markerNotInCSV is the server version from which on \. is an end marker in text only.
	markerNotInCSV = 180000
)

// planCopyFrom plans COPY … FROM STDIN into a sharded table.
func (a *analysis) planCopyFrom(c *copyStmt, r *reference, plan *Plan, data *CopyData) (*Plan, *Error) {
	if r.relation == nil {
		return nil, refuse("Try again.", "the columns of table %s are not known", r.name)
	}
	a.valuesUsed = true // the options are literals
	plan.Route = Route{Kind: RouteFilters, Filters: []Filter{r.bareFilter()}}
	plan.Refusal, plan.Merge = nil, &Merge{}
	rows := &CopyRows{Filter: r.bareFilter(), NoMarkerInCSV: a.env.Catalog.ServerVersion >= markerNotInCSV}
	rows.Filter.Stored = true
	data.Rows = rows
	fields, err := a.copyNumbers(c, r, rows)
	if err != nil {
		return nil, err
	}
	for _, col := range fields {
		rows.Types = append(rows.Types, col.Type)
	}
	for _, list := range [][]string{r.table.Key, r.table.SubKey} {
		for _, name := range list {
			rows.Key = append(rows.Key, a.copyKey(r, fields, name, rows))
		}
	}
	for _, n := range c.Options {
		a.copyOption(n, fields, data)
	}
	a.checkCopyNumbers(r, rows)
	switch {
	case a.functions.clock != "" || a.clockParameters() != nil:
		rows.refuse(refuse("Write the time as a constant.", "now() and its kin in the WHERE of COPY are not supported over several shards: each shard would have a time of its own"))
	case a.clockText >= 0:
		rows.refuse(clockRefusal().at(a.position(a.clockText)))
	}
	return plan, nil
}

// refuse notes a reason; the first one counts.
func (c *CopyRows) refuse(err *Error) {
	if c.Refusal == nil {
		c.Refusal = err
	}
}

// copyFields are the columns that the fields of a row are for. One that does not exist, which a shard will say, has no type.
func copyFields(c *copyStmt, relation *catalog.Relation) []*catalog.Column {
	var fields []*catalog.Column
	if len(c.Attlist) == 0 {
		for _, col := range relation.Live() {
			if !col.Generated {
				fields = append(fields, col)
			}
		}
		return fields
	}
	for _, n := range c.Attlist {
		name := n.GetString_().GetSval()
		col, ok := relation.Column(name)
		if !ok {
			col = &catalog.Column{Name: name}
		}
		fields = append(fields, col)
	}
	return fields
}

func (a *analysis) copyKey(r *reference, fields []*catalog.Column, name string, rows *CopyRows) CopyKey {
	k := CopyKey{Field: slices.IndexFunc(fields, func(col *catalog.Column) bool { return col.Name == name })}
	col, ok := r.relation.Column(name)
	if !ok {
		rows.refuse(refuse("Try again.", "column %q of table %s is not known", name, r.name))
		return k
	}
	v, err := a.constantDefault(r, col)
	if err != nil {
		copied := *err
		copied.Hint = hintCopyKey
		err = &copied
	}
	k.Default, k.DefaultRefusal = v, err
	if k.Field < 0 && err != nil {
		rows.refuse(err)
	}
	return k
}

// copyOption reads one option. What is not understood is refused, unless a shard says that it is wrong.
func (a *analysis) copyOption(n *node, fields []*catalog.Column, data *CopyData) {
	o, rows := n.GetDefElem(), data.Rows
	text, _ := optionText(o.GetArg())
	switch o.GetDefname() {
	case "format":
	case "delimiter":
		rows.Delimiter = text
	case "null":
		rows.Null, rows.HasNull = text, true
	case "default":
		rows.Default, rows.HasDefault = text, true
	case "quote":
		rows.Quote = text
	case "escape":
		rows.Escape = text
	case "header":
		if known := []string{"", "true", "on", "1", "match", "false", "off", "0"}; !slices.Contains(known, lower(text)) {
			rows.refuse(refuse("Use HEADER true, false or MATCH.", "COPY with HEADER %s into a sharded table is not supported", text))
		}
		if lower(text) == "match" && len(rows.Numbers) > 0 {
			rows.refuse(refuse(hintCopyNumbers+" Or use HEADER true.", "COPY with HEADER MATCH is not supported where columns get values of sequences"))
		}
	case "force_not_null":
		rows.ForceNotNull = copyFlags(o.GetArg(), fields)
	case "force_null":
		rows.ForceNull = copyFlags(o.GetArg(), fields)
	case "encoding":
		rows.Encoding = text
	case "freeze": // each shard sees to it that the transaction has truncated the table there
	case "log_verbosity": // of ON_ERROR ignore
	case "on_error":
		if lower(text) != "stop" {
			rows.refuse(refuse("Leave ON_ERROR out.", "COPY with ON_ERROR %s into a sharded table is not supported", text))
		}
	default:
		rows.refuse(refuse("Leave the option out.", "COPY with option %s into a sharded table is not supported", o.GetDefname()))
	}
	for _, c := range []string{rows.Quote, rows.Escape} {
		if strings.ContainsAny(c, "\r\n") {
			rows.refuse(refuse("Use another character.", "COPY with a newline as quote or escape is not supported"))
		}
	}
	if rows.Quote == `\` { // a row that begins with it and a point would be an end marker to a shard that has seen no newline yet
		rows.refuse(refuse("Use another character.", "COPY with a backslash as quote into a sharded table is not supported"))
	}
}

func (d *CopyData) print(b *strings.Builder) {
	fmt.Fprintf(b, "  copy: {From:%v Stdio:%v Table:%v Sharded:%v Format:%s Header:%v}\n", d.From, d.Stdio, d.Table, d.Sharded, d.Format, d.Header)
	rows := d.Rows
	if rows == nil {
		return
	}
	for i, k := range rows.Key {
		switch {
		case k.Field >= 0:
			fmt.Fprintf(b, "  key %s: field %d of %d\n", rows.Column(i).Name, k.Field+1, len(rows.Types))
		case k.DefaultRefusal == nil:
			fmt.Fprintf(b, "  key %s: default %s\n", rows.Column(i).Name, k.Default.String())
		}
	}
	for _, n := range rows.Numbers {
		fmt.Fprintf(b, "  number %s: from %s\n", n.Column, n.Sequence)
	}
	if rows.Refusal != nil {
		fmt.Fprintf(b, "  refused, unless a shard finds an error: %s\n", rows.Refusal.Message)
	}
}

// optionOn reads a boolean option; one without argument is on.
func optionOn(n *node) bool {
	text, _ := optionText(n)
	switch lower(text) {
	case "false", "off", "0":
		return false
	}
	return true
}

// copyFlags marks the fields of a list of columns, or of *.
func copyFlags(arg *node, fields []*catalog.Column) []bool {
	flags := make([]bool, len(fields))
	if arg.GetAStar() != nil {
		for i := range flags {
			flags[i] = true
		}
	}
	for _, n := range arg.GetList().GetItems() {
		for i, col := range fields {
			if col.Name == n.GetString_().GetSval() {
				flags[i] = true
			}
		}
	}
	return flags
}
