package planner

import (
	"errors"
	"slices"

	"github.com/shardyard/shardyard/directory"
)

// InsertData is what an INSERT needs whose rows may belong to several shards, or whose values the router must know
// before they are stored. Plan.Split makes the texts for the shards.
type InsertData struct {
	Table directory.TableName
	// Params is the greatest number of a parameter in the text.
	Params int
	// Supplied are the columns that get values which are computed by a shard for the execution, because a row is
	// routed by them or because they must be alike on all shards. Values are these values, one for each row that
	// needs one: the first Routing of them are needed by Plan.Targets, the others by Plan.Split if the target is
	// not Whole. Args.Supplied has them in this order.
	Supplied []SuppliedColumn
	Values   []SuppliedValue
	Routing  int
	// Clock says that a computed value depends on the time of the transaction.
	Clock bool
	// Each says that each row that is given is stored (or the statement fails) and is returned, if any are.
	Each bool
	// Blind says that nothing is read but the rows themselves, not by triggers either.
	Blind bool

	// overriding: values are supplied for identity columns.
	overriding bool

	keys    []SuppliedColumn // the key columns that the rows give, in the filter's order; those that they do not have no name
	wrong   bool             // no Postgres accepts it: any shard gives the error
	start   int              // tokens up to the end of the table's name and alias
	rows    int              // in VALUES
	shared  []int            // parameters that stand in several places, or in a value that is computed
	columns []string         // that the values of a row are for, in their order
	clocks  []ValueRef       // texts that must not stand for the present, on several shards
	tail    []tailEdit       // what differs behind the rows, in the text's order
}

// SuppliedColumn is a column that gets computed values.
type SuppliedColumn struct {
	Name string
	// Type is the type that the values are sent as: the column's, beneath domains and without modifier.
	Type uint32
	// TypeSQL is the type's name in SQL.
	TypeSQL string
	// Default is the column's default in SQL, for rows that do not give a value.
	Default string

	place int // among the values of a row; beyond those that the client gives for a column that is added
}

// SuppliedValue is one computed value.
type SuppliedValue struct {
	Row, Column int  // Row is -1 behind the rows; Column is the index in InsertData.Supplied
	Default     bool // computed from the column's default, not from what the row gives
	// Sequence is where the value is drawn from instead of being computed; see InsertData.Draws.
	Sequence directory.TableName
	// Granted: the client needs no privilege on the sequence, which is that of an identity column.
	Granted bool

	order int // in which Postgres draws the values of a row
}

// insertTarget is Targets for the rows of an INSERT … VALUES.
func (pl *Plan) insertTarget(a *Args) (Target, error) {
	f, data := &pl.Route.Filters[0], pl.Insert
	g, ok := a.Map.Group(f.Group)
	if !ok {
		return Target{}, &Error{Code: codeStaleMap, Message: "the partition map has changed", Hint: "Try again."}
	}
	if len(a.Supplied) < data.Routing {
		return Target{}, refuse(hintOneInsert, "an INSERT whose shard key is computed is not supported in this place")
	}
	first := g.Shards()[0]
	if data.wrong && slices.Contains(g.Shards(), a.Map.Home) {
		first = a.Map.Home // which alone knows of identity columns
	}
	if data.Params > len(a.Params) || data.wrong {
		return one(a.Map, first) // it says that there is no such parameter, for one
	}
	parts, err := f.storedIn(g, a)
	if shardKnows(err) {
		if data.Routing == 0 {
			return one(a.Map, first)
		}
		// A value that was computed is not computed again: that it cannot be stored is certain of this one only.
		return Target{Shards: []directory.ShardID{first}, Rows: make([]int32, data.rows)}, nil
	}
	if errors.Is(err, directory.ErrUncertain) && data.keys != nil {
		return Target{Ask: true}, nil
	}
	if errors.Is(err, directory.ErrUncertain) {
		return Target{}, f.uncertain()
	}
	if err != nil || len(a.missing) > 0 {
		return Target{}, err
	}
	shards := make([]directory.ShardID, 0, len(g.Shards()))
	for _, p := range parts {
		if id := g.Partitions[p].Shard; !slices.Contains(shards, id) {
			shards = append(shards, id)
		}
	}
	slices.Sort(shards)
	if len(shards) == 1 && data.Routing == 0 {
		return one(a.Map, shards[0])
	}
	if len(shards) > 1 {
		if err := data.checkClocks(a); err != nil {
			return Target{}, err
		}
	}
	rows := make([]int32, len(parts))
	for i, p := range parts {
		at, _ := slices.BinarySearch(shards, g.Partitions[p].Shard)
		rows[i] = int32(at)
	}
	return Target{Shards: shards, Rows: rows}, nil
}

// checkClocks refuses values that stand for the present: each shard has one of its own.
func (d *InsertData) checkClocks(a *Args) error {
	for i := range d.clocks {
		if text, ok := d.clocks[i].text(a); ok && readsClock(text) {
			return clockRefusal()
		}
	}
	return nil
}

// NeedsTypes reports whether the types of the parameters must be asked of a shard, the client having declared these: a
// parameter that stands in several places has one type, by the first of them, even in a text that has only another.
func (d *InsertData) NeedsTypes(declared []uint32) bool {
	for _, number := range d.shared {
		if number > len(declared) || declared[number-1] == 0 {
			return true
		}
	}
	return false
}

// Asking is the plan of an INSERT that has all keys computed which its rows give, for an execution of which Targets said Ask.
func (pl *Plan) Asking() *Plan {
	asking, data := *pl, *pl.Insert
	f := pl.Route.Filters[0]
	f.Any = slices.Clone(f.Any)
	data.Supplied, data.Values, data.Routing = slices.Clone(data.Supplied), slices.Clone(data.Values[:data.Routing]), 0
	for row := range f.Any {
		columns := slices.Clone(f.Any[row].Columns)
		for i := range columns {
			ref := columns[i].In[0]
			if data.keys[i].Name == "" || ref.Null || ref.Kind == RefSupplied {
				continue
			}
			if ref.Kind == RefConst && !ref.Unsure && !ref.Invalid {
				if _, err := f.column(i).stored(ref.Const); err == nil { // the default, for one
					continue
				}
			}
			columns[i].In = []ValueRef{{Kind: RefSupplied, Param: len(data.Values), Type: f.column(i).Type}}
			data.Values = append(data.Values, SuppliedValue{Row: row, Column: data.supplied(data.keys[i])})
		}
		f.Any[row].Columns = columns
	}
	data.Routing = len(data.Values)
	data.Values = append(data.Values, pl.Insert.Values[pl.Insert.Routing:]...)
	data.tail = slices.Clone(data.tail)
	for i := range data.tail {
		data.tail[i].value += data.Routing - pl.Insert.Routing
	}
	data.shared = nil
	for number := range data.Params {
		data.shared = append(data.shared, number+1)
	}
	data.keys = nil
	asking.Insert, asking.Route.Filters = &data, []Filter{f}
	return &asking
}

// supplied is the index of a column among those that get computed values.
func (d *InsertData) supplied(c SuppliedColumn) int {
	if i := slices.IndexFunc(d.Supplied, func(s SuppliedColumn) bool { return s.Name == c.Name }); i >= 0 {
		return i
	}
	d.Supplied = append(d.Supplied, c)
	return len(d.Supplied) - 1
}
