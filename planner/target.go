package planner

import (
	"errors"
	"slices"
	"strconv"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/lexer"
)

// maxKeyColumns is how many key columns the path without allocations has room for.
const maxKeyColumns = 8

// Targets finds the shards of one execution of the plan. It is pure and does not allocate for one key
// on one shard. An error is a *Error: a refusal (0A000) when the values lead to several shards and the
// statement may not run on several, 23514 when a row to be stored has no partition, 40001 when the map
// is not the one that the plan was made under. Where the entry of a key must be known first it says so
// (Target.Missing).
func (pl *Plan) Targets(a Args) (Target, error) {
	switch pl.Route.Kind {
	case RouteNone, RouteAny:
		return Target{}, nil
	case RouteHome, RouteShard:
		if pl.Transfer != nil {
			return Target{Shards: pl.Route.fixed, Transfer: true}, nil
		}
		if pl.Combine != nil {
			return pl.combineTarget(&a)
		}
		return Target{Shards: pl.Route.fixed, Whole: true}, nil
	}
	if a.Map.Epoch != pl.Epoch {
		return Target{}, &Error{Code: codeStaleMap, Message: "the partition map has changed", Hint: "Try again."}
	}
	moves := pl.Modify != nil && pl.Modify.Move != nil
	if pl.Route.Also == "" && len(pl.Route.Filters) == 1 && (pl.Insert == nil || pl.Insert.Routing == 0 && !pl.Insert.wrong) {
		if t, ok := pl.Route.Filters[0].exact(&a); ok {
			t.Whole = t.Whole && !moves
			return t, nil
		}
	}
	var t Target
	var err error
	switch {
	case pl.Insert != nil:
		t, err = pl.insertTarget(&a)
	case pl.Modify != nil && pl.Modify.Spread != nil:
		t, err = pl.spreadTarget(&a)
	default:
		t, err = pl.several(&a)
	}
	t.Whole = t.Whole && !moves
	if len(a.missing) > 0 {
		return Target{Missing: a.missing}, nil // what else was found out is of half of the keys
	}
	return t, err
}

// one is the target of a single shard.
func one(m *directory.Map, id directory.ShardID) (Target, error) {
	for i := range m.Groups {
		shards := m.Groups[i].Shards()
		if at, ok := slices.BinarySearch(shards, id); ok {
			return Target{Shards: shards[at : at+1 : at+1], Whole: true}, nil
		}
	}
	return Target{Shards: []directory.ShardID{id}, Whole: true}, nil
}

// exact is the shard of one key whose columns have one value each; ok is false where it is not so simple.
func (f *Filter) exact(a *Args) (Target, bool) {
	if len(f.Any) != 1 || len(f.Key)+len(f.Sub) > maxKeyColumns {
		return Target{}, false
	}
	var values [maxKeyColumns]directory.Value
	columns := f.Any[0].Columns
	for i := range columns {
		c := &columns[i]
		if len(c.In) != 1 || c.In[0].Array || c.Lo != nil || c.Hi != nil {
			return Target{}, false
		}
		v, err := c.In[0].scalar(a)
		if err != nil {
			return Target{}, false
		}
		if v, err = f.converted(i, v); err != nil || v.IsNull() {
			return Target{}, false
		}
		values[i] = v
	}
	g, ok := a.Map.Group(f.Group)
	if !ok {
		return Target{}, false
	}
	key := values[:len(f.Key)]
	part, where := a.Entries.Locate(g, key, values[len(f.Key):len(columns)], f.Stored)
	switch where {
	case directory.Placed:
	case directory.Unknown:
		return Target{Missing: []directory.MissingEntry{g.Missing(key, f.Stored)}}, true
	case directory.Nowhere:
		return Target{}, false
	}
	shards := g.Shards()
	at, ok := slices.BinarySearch(shards, g.Partitions[part].Shard)
	if !ok {
		return Target{}, false
	}
	return Target{Shards: shards[at : at+1 : at+1], Whole: true}, true
}

func (f *Filter) column(i int) *KeyColumn {
	if i < len(f.Key) {
		return &f.Key[i]
	}
	return &f.Sub[i-len(f.Key)]
}

// converted is a value as it is compared with, or stored in, key column i.
func (f *Filter) converted(i int, v directory.Value) (directory.Value, error) {
	if f.Stored {
		return f.column(i).stored(v)
	}
	return f.column(i).compared(v)
}

// several is Targets for everything but one exact key.
func (pl *Plan) several(a *Args) (Target, error) {
	var shards []directory.ShardID
	uncertain := false
	add := func(id directory.ShardID) {
		if !slices.Contains(shards, id) {
			shards = append(shards, id)
		}
	}
	if pl.Route.Also != "" {
		add(pl.Route.Also)
	}
	var first directory.ShardID
	for i := range pl.Route.Filters {
		f := &pl.Route.Filters[i]
		g, ok := a.Map.Group(f.Group)
		if !ok {
			return Target{}, &Error{Code: codeStaleMap, Message: "the partition map has changed", Hint: "Try again."}
		}
		if first == "" {
			first = g.Shards()[0]
		}
		parts, unsure, err := f.partitions(g, a)
		if shardKnows(err) {
			return one(a.Map, first)
		}
		if err != nil {
			return Target{}, err
		}
		uncertain = uncertain || unsure
		for _, p := range parts {
			add(g.Partitions[p].Shard)
		}
	}
	slices.Sort(shards)
	switch {
	case len(shards) == 0:
		// No row can match; a shard still gives the columns and the tag.
		return one(a.Map, first)
	case len(shards) == 1:
		return one(a.Map, shards[0])
	case pl.Transfer != nil:
		return Target{Shards: []directory.ShardID{a.Map.Home}, Transfer: true}, nil
	case pl.Combinable:
		return pl.combineTarget(a)
	case pl.Refusal != nil:
		return Target{}, pl.refusal(uncertain)
	case pl.Modify != nil:
		if a.readsClock(pl.texts) {
			return Target{}, clockRefusal()
		}
		return Target{Shards: shards}, nil
	case pl.Merge == nil:
		return Target{}, refuse(hintPin, "this statement is supported on one shard only")
	}
	return pl.spread(a, shards)
}

// combineTarget is the target of what is combined on the home shard.
func (pl *Plan) combineTarget(a *Args) (Target, error) {
	if a.readsClock(pl.texts) {
		return Target{}, clockRefusal()
	}
	return Target{Shards: []directory.ShardID{a.Map.Home}, Combine: true}, nil
}

// shardKnows reports whether an error is about a value that no Postgres accepts: any shard gives the
// real message.
func shardKnows(err error) bool {
	return errors.Is(err, directory.ErrInvalid) || errors.Is(err, directory.ErrOutOfRange) || errors.Is(err, errMissing)
}

// refusal says why the statement does not run on several shards.
func (pl *Plan) refusal(uncertain bool) *Error {
	if !uncertain {
		return pl.Refusal
	}
	e := *pl.Refusal
	e.Detail = "The meaning of a value given for the shard key depends on settings, or its type is not certain."
	e.Hint = "Write the value in a form that means the same everywhere (an ISO date, a time zone offset), or declare the parameter's type."
	return &e
}

// spread checks the values that matter only where there are several shards.
func (pl *Plan) spread(a *Args, shards []directory.ShardID) (Target, error) {
	for _, count := range []*ValueRef{pl.Merge.Limit, pl.Merge.Offset} {
		if count == nil {
			continue
		}
		_, err := count.scalar(a)
		if errors.Is(err, directory.ErrUncertain) {
			return Target{}, refuse("Give a number or a parameter.", "LIMIT or OFFSET with such a value over several shards is not supported")
		}
		if n, null, ok := count.Number(*a); err != nil || !ok || !null && n < 0 {
			return one(a.Map, shards[0]) // a shard says what is wrong with it
		}
	}
	if a.readsClock(pl.texts) {
		return Target{}, clockRefusal()
	}
	return Target{Shards: shards}, nil
}

// readsClock reports whether a literal or a parameter is a word that may stand for the present. The literals in texts do
// not, whatever they are.
func (a *Args) readsClock(texts []int) bool {
	if st := a.Statement; st != nil {
		for i := range st.literals {
			if st.literals[i].Kind != lexer.LiteralString || slices.Contains(texts, i) {
				continue
			}
			if text, ok := lexer.StringValue(st.Text, st.literals[i]); ok && readsClock(text) {
				return true
			}
		}
	}
	for i := range a.Params {
		if i < len(a.Types) && !mayHoldTime(a.Types[i]) {
			continue
		}
		wire, isBinary, null, err := a.bytes(i + 1)
		if err == nil && !isBinary && !null && len(wire) < 64 && readsClock(string(wire)) {
			return true
		}
	}
	return false
}

// partitions are those that a filter leaves. unsure reports that a value was not certain, so that it
// left more than it might have.
func (f *Filter) partitions(g *directory.Group, a *Args) (parts []int, unsure bool, err error) {
	if f.Stored {
		parts, err = f.storedIn(g, a)
		if errors.Is(err, directory.ErrUncertain) {
			err = f.uncertain()
		}
		slices.Sort(parts)
		return slices.Compact(parts), false, err
	}
	if len(f.Any) == 0 {
		return g.Prune(make([]directory.Constraint, len(f.Key)), make([]directory.Constraint, len(f.Sub))), false, nil
	}
	constraints := make([]directory.Constraint, len(f.Key)+len(f.Sub))
	for i := range f.Any {
		for j := range f.Any[i].Columns {
			c, doubt, err := f.constraint(j, &f.Any[i].Columns[j], a)
			if err != nil {
				return nil, false, err
			}
			constraints[j] = c
			unsure = unsure || doubt
		}
		left, missing := a.Entries.Prune(g, constraints[:len(f.Key)], constraints[len(f.Key):])
		parts, a.missing = append(parts, left...), append(a.missing, missing...)
	}
	slices.Sort(parts)
	return slices.Compact(parts), unsure, nil
}

// constraint evaluates a condition. What is not certain is left out.
func (f *Filter) constraint(i int, c *Condition, a *Args) (out directory.Constraint, unsure bool, err error) {
	if c.In != nil {
		values := make([]directory.Value, 0, len(c.In))
		var raw []directory.Value
		for k := range c.In {
			raw, err = c.In[k].elements(a, raw[:0])
			if errors.Is(err, directory.ErrUncertain) {
				values, unsure = nil, true
				break
			}
			if err != nil {
				return out, false, err
			}
			if values, err = f.comparedAll(i, raw, values); err != nil {
				values, unsure = nil, true
				break
			}
		}
		out.Values = values
	}
	out.Lo, err = f.edge(i, c.Lo, a, &unsure)
	if err != nil {
		return out, false, err
	}
	out.LoOpen = c.LoOpen
	out.Hi, err = f.edge(i, c.Hi, a, &unsure)
	if err != nil {
		return out, false, err
	}
	out.HiOpen = c.HiOpen
	return out, unsure, nil
}

// comparedAll appends the values that can be equal to something in the column.
func (f *Filter) comparedAll(i int, raw, into []directory.Value) ([]directory.Value, error) {
	for _, v := range raw {
		if v.IsNull() {
			continue
		}
		v, err := f.column(i).compared(v)
		if errors.Is(err, errNever) {
			continue
		}
		if err != nil {
			return nil, directory.ErrUncertain
		}
		into = append(into, v)
	}
	return into, nil
}

// edge evaluates a bound; nil where there is none or it is not certain. A bound that is NULL leaves no
// row, which nothing is gained by knowing.
func (f *Filter) edge(i int, ref *ValueRef, a *Args, unsure *bool) (*directory.Value, error) {
	if ref == nil {
		return nil, nil
	}
	v, err := ref.scalar(a)
	if err == nil && !v.IsNull() {
		v, err = f.column(i).compared(v)
	}
	switch {
	case errors.Is(err, directory.ErrUncertain), errors.Is(err, errNever):
		*unsure = true
		return nil, nil
	case err != nil:
		return nil, err
	case v.IsNull():
		return nil, nil
	}
	return &v, nil
}

// uncertain refuses a row whose key is not certain.
func (f *Filter) uncertain() *Error {
	return refuse("Write the value in a form that means the same everywhere (an ISO date, a time zone offset), or cast it to the column's type.",
		"a value of the shard key of table %s is not certain", f.Table)
}

// storedIn is the partition of each row to be stored; every one must have one. ErrUncertain: a value is not certain.
func (f *Filter) storedIn(g *directory.Group, a *Args) ([]int, error) {
	parts := make([]int, 0, len(f.Any))
	values := make([]directory.Value, len(f.Key)+len(f.Sub))
	for i := range f.Any {
		for j := range f.Any[i].Columns {
			v, err := f.Any[i].Columns[j].In[0].scalar(a)
			if err == nil {
				v, err = f.column(j).stored(v)
			}
			switch {
			case shardKnows(err):
				return nil, err
			case err != nil:
				return nil, directory.ErrUncertain
			}
			values[j] = v
		}
		key := values[:len(f.Key)]
		part, where := a.Entries.Locate(g, key, values[len(f.Key):], true)
		switch where {
		case directory.Placed:
		case directory.Unknown:
			a.missing = append(a.missing, g.Missing(key, true))
		case directory.Nowhere:
			return nil, f.nowhere(g, values)
		}
		parts = append(parts, part)
	}
	return parts, nil
}

// locate finds the shard of a row by the values that its key columns store.
func (f *Filter) locate(
	g *directory.Group, entries *directory.Entries, values []directory.Value,
) (shard directory.ShardID, missing *directory.MissingEntry, err error) {
	key := values[:len(f.Key)]
	part, where := entries.Locate(g, key, values[len(key):], true)
	switch where {
	case directory.Nowhere:
		return "", nil, f.nowhere(g, values)
	case directory.Unknown:
		entry := g.Missing(key, true)
		return "", &entry, nil
	case directory.Placed:
	}
	return g.Partitions[part].Shard, nil, nil
}

// nowhere is the error for a row that no partition takes.
func (f *Filter) nowhere(g *directory.Group, values []directory.Value) *Error {
	e := f.noPartition(values)
	if g.Method != directory.MethodDirectory {
		return e
	}
	e.Hint = "Its key has no entry: ALTER SHARD TABLE … ASSIGN (key) TO shard makes one."
	if len(directory.EntryKeyOf(values)) > directory.MaxEntryKey {
		e.Hint = "Its key is longer than an entry's can be."
	}
	return e
}

// noPartition is Postgres's error for a row without a partition.
func (f *Filter) noPartition(values []directory.Value) *Error {
	columns, texts := "", ""
	for i, v := range values {
		if i > 0 {
			columns, texts = columns+", ", texts+", "
		}
		columns += directory.QuoteIdentifier(f.column(i).Name)
		if v.IsNull() {
			texts += "null"
		} else {
			texts += v.Text()
		}
	}
	return &Error{
		Code:    codeNoPartition,
		Message: `no partition of relation "` + f.Table.Name + `" found for row`,
		Detail:  "Partition key of the failing row contains (" + columns + ") = (" + texts + ").",
	}
}

// Describer is a shard that can Parse and Describe the statement before its values are known.
func (pl *Plan) Describer(m *directory.Map) directory.ShardID {
	switch {
	case pl.Route.Kind == RouteShard:
		return pl.Route.Shard
	case pl.Route.Kind == RouteFilters && pl.Route.Also != "":
		return pl.Route.Also
	case pl.Route.Kind == RouteFilters:
		if g, ok := m.Group(pl.Route.Filters[0].Group); ok {
			return g.Shards()[0]
		}
	}
	return m.Home
}

// Number evaluates the value of a LIMIT or OFFSET: null is true for NULL, which means no limit. ok is
// false when the text is no such number; a shard says the error then.
func (r *ValueRef) Number(a Args) (n int64, null, ok bool) {
	v, err := r.scalar(&a)
	if err != nil || !v.IsNull() && v.Type().Family() != directory.FamilyInteger {
		return 0, false, false
	}
	if v.IsNull() {
		return 0, true, true
	}
	n, parseErr := strconv.ParseInt(v.Text(), 10, 64)
	return n, false, parseErr == nil
}
