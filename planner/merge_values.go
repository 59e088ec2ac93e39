package planner

import (
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

// SpreadData says how the rows of a MERGE's VALUES are spread over the shards: each runs the same text, in which a
// parameter has the numbers of the rows that are its own.
type SpreadData struct {
	// Param is the number of the parameter, behind the client's and those of the clocks. It is of type int4[], the first
	// row has the number 1.
	Param int

	filter int // of Route.Filters: the keys of the rows
	rows   int
}

// rowColumn is the column with the number of the row.
const rowColumn = "shardyard_row"

// Numbers are the numbers of the rows of one shard of a target, as the text of an int4[].
func (*SpreadData) Numbers(t Target, shard int) string {
	var b strings.Builder
	for row, at := range t.Rows {
		if int(at) != shard {
			continue
		}
		b.WriteByte(map[bool]byte{true: '{', false: ','}[b.Len() == 0])
		b.WriteString(strconv.Itoa(row + 1))
	}
	if b.Len() == 0 {
		return "{}"
	}
	return b.String() + "}"
}

// Inline puts the numbers of a shard's rows, as a literal, where their parameter is in a text.
func (d *SpreadData) Inline(sql, numbers string) string {
	return inlined(sql, map[int]string{d.Param: numbers})
}

// spreadTarget is Targets for rows that are spread.
func (pl *Plan) spreadTarget(a *Args) (Target, error) {
	f := &pl.Route.Filters[pl.Modify.Spread.filter]
	g, ok := a.Map.Group(f.Group)
	if !ok {
		return Target{}, &Error{Code: codeStaleMap, Message: "the partition map has changed", Hint: "Try again."}
	}
	parts, err := f.storedIn(g, a)
	switch {
	case shardKnows(err):
		return one(a.Map, g.Shards()[0])
	case errors.Is(err, directory.ErrUncertain):
		return Target{}, f.uncertain()
	case err != nil || len(a.missing) > 0:
		return Target{}, err
	}
	var shards []directory.ShardID
	for _, p := range parts {
		if id := g.Partitions[p].Shard; !slices.Contains(shards, id) {
			shards = append(shards, id)
		}
	}
	slices.Sort(shards)
	if len(shards) == 1 {
		return one(a.Map, shards[0])
	}
	if a.readsClock(pl.texts) {
		return Target{}, clockRefusal()
	}
	rows := make([]int32, len(parts))
	for i, p := range parts {
		at, _ := slices.BinarySearch(shards, g.Partitions[p].Shard)
		rows[i] = int32(at)
	}
	return Target{Shards: shards, Rows: rows}, nil
}

// spread prepares a MERGE whose source is VALUES to run on several shards: each on the rows whose keys are its own; nil if
// rows may match, or be stored, elsewhere.
func (a *analysis) spread(plan *Plan) *SpreadData {
	in := a.merging
	first := in.inserts[0].stored
	if !isValues(in.stmt.SourceRelation) || in.source.open || first == nil || plan.Route.Also != "" {
		return nil
	}
	rows := len(in.stmt.SourceRelation.GetRangeSubselect().GetSubquery().GetSelectStmt().ValuesLists)
	names := make(map[string]bool)
	for _, c := range in.source.columns {
		if names[c.name] || c.name == rowColumn {
			return nil
		}
		names[c.name] = true
	}
	if rows < 2 || len(first.Any) != rows || slices.ContainsFunc(in.inserts, func(i *mergeInsert) bool {
		return i.stored == nil || !reflect.DeepEqual(i.stored.Any, first.Any)
	}) {
		return nil
	}
	for _, name := range append(slices.Clone(a.target.table.Key), a.target.table.SubKey...) {
		if !a.joinedToValues(name) {
			return nil
		}
	}
	next := len(a.types)
	for number := range a.params {
		next = max(next, number)
	}
	at := slices.IndexFunc(plan.Route.Filters, func(f Filter) bool { return f.Stored && reflect.DeepEqual(f.Any, first.Any) })
	return &SpreadData{Param: next + a.clockParameters().Count() + 1, filter: at, rows: rows}
}

// joinedToValues reports whether the target's key column is joined to the column of VALUES that every action inserts as
// its key.
func (a *analysis) joinedToValues(name string) bool {
	in := a.merging
	rows := &scope{items: in.source.items, columns: in.source.columns}
	for _, insert := range in.inserts {
		p := slices.IndexFunc(insert.places, func(c *catalog.Column) bool { return c.Name == name })
		if p < 0 || p >= len(insert.when.Values) {
			return false
		}
		c, _, ok := rows.resolve(insert.when.Values[p].GetColumnRef())
		if !ok || !slices.Contains(in.joined, [2]columnID{{a.target.entry, name}, c.id}) {
			return false
		}
	}
	return true
}

// spreadRows has a MERGE take only those rows of its VALUES whose numbers a parameter has.
func (a *analysis) spreadRows(m *mergeStmt, d *SpreadData) {
	source := m.SourceRelation.GetRangeSubselect()
	for i, row := range source.Subquery.GetSelectStmt().ValuesLists {
		list := row.GetList()
		list.Items = append(list.Items, integerNode(int64(i+1)))
	}
	var columns []string
	for _, c := range a.merging.source.columns {
		columns = append(columns, c.name)
	}
	m.SourceRelation = chosenRows(source, columns, rowColumn, d.Param)
}
