package planner

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

const hintTransfer = "Read the rows and insert them in statements of their own."

// TransferData is how the rows of an INSERT … SELECT are brought to the shards that store them: the SELECT is run as a
// statement of its own, and its rows are inserted as parameters.
type TransferData struct {
	// Source is the plan of the SELECT. Text is its text for one shard; several get Source.SQL, or Text if that is empty.
	Source *Plan
	Text   string
	// Clock says which parameters, behind the client's own, stand for the present, in all texts; nil: none.
	Clock *Clock
	// Params is the number of the client's parameters.
	Params int
	// Head, rows and Tail are the INSERT. A row is Values, in parentheses; an empty one is a parameter that has the value which
	// the SELECT gives for that place. The SELECT has Columns columns.
	Head, Tail string
	Values     []string
	Columns    int
	// Numbers are the columns behind those of the SELECT that the router numbers in each row; they are parameters, too.
	Numbers []Number
	// Rows divides the rows over the shards of a sharded table; nil: all of them go to Shard ("": the home shard).
	Rows  *CopyRows
	Shard directory.ShardID
	// Each says that each row is stored and returned, if the statement does not fail. Once says that all rows of a shard must be
	// inserted by one statement.
	Each, Once bool
	// Dirty: the INSERT may leave session state behind on the shards.
	Dirty bool
}

// planTransfer plans an INSERT … SELECT whose rows are brought to their shards by the router.
func (a *analysis) planTransfer(i *insertStmt, why *Error) (*Plan, *Error) {
	sel := i.SelectStmt.GetSelectStmt()
	if sel == nil || len(sel.ValuesLists) > 0 && sel.Op == setOpNone || !a.env.Map.AnythingSharded() {
		return nil, why
	}
	whole := a.fresh()
	whole.modification(i, nil, &context{})
	whole.finishAll()
	if err := cmp.Or(whole.refused, whole.unseen, whole.later); err != nil {
		return nil, err
	}
	in := whole.insertion
	switch {
	case in.target == nil || in.target.relation == nil:
		return nil, why
	case in.target.place == everywhere:
		return nil, refuse(hintTransfer, "INSERT … SELECT into reference table %s from tables that are not on the home shard is not supported", in.target.name)
	}
	data := &TransferData{Numbers: in.drawn, Each: eachRow(i), Once: i.OnConflictClause != nil && i.OnConflictClause.Action == conflictUpdate}
	for number := range whole.params {
		data.Params = max(data.Params, number)
	}
	data.Params = max(data.Params, len(a.types))
	if err := whole.transferColumns(i, data); err != nil {
		return nil, err
	}
	if err := whole.checkTransfer(i); err != nil {
		return nil, err
	}
	timed, err := whole.timedDefaults(data.Columns)
	if err != nil {
		return nil, err
	}
	data.clock(whole.functions.now || len(timed) > 0, whole.functions.statementTime)
	source := cloneNode(i.SelectStmt).GetSelectStmt()
	if i.WithClause != nil {
		source.WithClause = i.WithClause
	}
	if err := whole.planSource(source, data); err != nil {
		return nil, err
	}
	shell, err := whole.shell(i, data, timed)
	if err != nil && err.Message == why.Message {
		return nil, why // which says where
	}
	if err != nil {
		return nil, err
	}
	a.valuesUsed = true
	tables := append(slices.Clone(shell.Tables), data.Source.Tables...)
	return &Plan{
		Kind: Modify, Tag: "INSERT", Modify: &ModifyData{}, Transfer: data, Tables: tables, Route: Route{Kind: RouteHome}, Dirty: shell.Dirty,
	}, nil
}

// whole reports whether all shards of a table are read, whatever the values.
func (r *Route) whole() bool {
	return slices.ContainsFunc(r.Filters, func(f Filter) bool { return !f.Stored && len(f.Any) == 0 })
}

// certain reports whether all filters lead to the same partition, whatever the values: each has the same values for the same
// key.
func (r *Route) certain() bool {
	first := &r.Filters[0]
	return r.Also == "" && !slices.ContainsFunc(r.Filters, func(f Filter) bool {
		return f.Group != first.Group || len(f.Any) != 1 || !slices.EqualFunc(f.Any[0].Columns, first.Any[0].Columns, func(c, d Condition) bool {
			return len(c.In) == 1 && len(d.In) == 1 && !c.In[0].Array && c.describe("") == d.describe("")
		})
	})
}

// clock numbers the parameters for the clocks.
func (d *TransferData) clock(transaction, statement bool) {
	if !transaction && !statement {
		return
	}
	d.Clock = &Clock{}
	next := d.Params
	if transaction {
		next++
		d.Clock.Transaction = next
	}
	if statement {
		next++
		d.Clock.Statement = next
	}
}

// transferColumns counts the columns of the SELECT.
func (a *analysis) transferColumns(i *insertStmt, data *TransferData) *Error {
	in := a.insertion
	places, err := a.insertColumns(i, in.target)
	if err != nil {
		return err
	}
	in.places = places
	if len(in.rows.columns) == 0 && !in.rows.open {
		return refuse(hintTransfer, "INSERT … SELECT of rows without columns is not supported")
	}
	switch {
	case len(i.Cols) > 0:
		data.Columns = len(i.Cols)
	case !in.rows.open:
		data.Columns = min(len(in.rows.columns), len(places))
	default:
		return refuse("Name the columns of the table.", "INSERT … SELECT without column names from a query whose columns are not known is not supported")
	}
	return nil
}

// checkTransfer refuses what the shards would not do together as one Postgres does.
func (a *analysis) checkTransfer(i *insertStmt) *Error {
	tail := slices.Clone(i.ReturningList)
	if c := i.OnConflictClause; c != nil {
		tail = append(append(tail, c.TargetList...), c.WhereClause)
	}
	if slices.ContainsFunc(tail, hasSubLink) {
		return refuse(hintTransfer, "INSERT … SELECT between tables of different shards with a subquery in ON CONFLICT or RETURNING is not supported")
	}
	for _, t := range a.insertion.target.relation.Triggers {
		if strings.Contains(t.Definition, " FOR EACH STATEMENT ") {
			return refuse(hintTransfer, "trigger %q of table %s is for each statement, so INSERT … SELECT between tables of different shards is not supported", t.Name, a.insertion.target.name)
		}
	}
	if i.WithClause != nil && i.SelectStmt.GetSelectStmt().WithClause != nil {
		return refuse(hintTransfer, "INSERT … SELECT between tables of different shards with two WITH clauses is not supported")
	}
	if i.Override == overridingUser {
		return refuse(hintTransfer, "INSERT … SELECT between tables of different shards with OVERRIDING USER VALUE is not supported")
	}
	return a.checkClock()
}

// checkClock refuses functions that tell each shard another time.
func (a *analysis) checkClock() *Error {
	if a.functions.clock != "" {
		return refuse("Give the time as a parameter or as a constant.", "function %s in INSERT … SELECT between tables of different shards is not supported: each shard would have a time of its own", a.functions.clock)
	}
	return nil
}

// timedDefaults are the columns that are not given and whose defaults read the time: these are given as expressions.
func (a *analysis) timedDefaults(given int) ([]*catalog.Column, *Error) {
	var timed []*catalog.Column
	for _, c := range a.insertion.target.relation.Live() {
		if p := slices.Index(a.insertion.places, c); p >= 0 && p < given {
			continue
		}
		if slices.ContainsFunc(a.insertion.drawn, func(n Number) bool { return n.Column == c.Name }) {
			continue
		}
		if a.insertion.target.place == sharded && (c.Identity != 0 || strings.Contains(c.Default, "nextval(")) {
			return nil, refuse("Give the column a value in the query.", "INSERT … SELECT between tables of different shards is not supported where column %q is left to its sequence", c.Name)
		}
		if !c.HasDefault || c.DefaultIsConst || c.Generated || c.Identity != 0 {
			continue
		}
		def := a.defaultNode(c)
		if def == nil {
			return nil, refuse("Give the value itself.", "the default of column %q cannot be read, so it cannot be used in INSERT … SELECT between tables of different shards", c.Name)
		}
		if a.clockIn(def) >= 0 {
			timed = append(timed, c)
		}
	}
	return timed, nil
}

// planSource plans the SELECT.
func (a *analysis) planSource(sel *selectStmt, data *TransferData) *Error {
	source, text, err := a.planRead(sel, data.Params, data.Clock, true)
	if err != nil {
		return err
	}
	data.Source, data.Text = source, text
	return nil
}

// planRead plans a SELECT that is run as a part of the statement, and makes its text for one shard. Its parameters are the
// statement's, with those for the clocks behind them. combines: it may be combined.
func (a *analysis) planRead(sel *selectStmt, params int, clock *Clock, combines bool) (*Plan, string, *Error) {
	types := make([]uint32, params)
	copy(types, a.types)
	b := newAnalysis(&Statement{Text: a.sql, literals: a.literals}, types, a.env, sel)
	if clock != nil {
		b.functions.now, b.functions.statementTime = clock.Transaction > 0, clock.Statement > 0
	}
	b.combines, b.pieces = combines, combines
	source, err := b.planSelect(sel)
	if err != nil {
		return nil, "", err
	}
	switch {
	case source.Kind != Relay && source.Kind != Scatter && source.Kind != Combine || source.Mirrors || source.Pins != "" || source.SessionValue != "" || len(source.SetConfig) > 0 || source.Dirty || !source.ReadOnly:
		return nil, "", refuse(hintTransfer, "a query whose rows go to another shard is not supported where it may write, lock, or depends on the session")
	case source.Route.Kind == RouteNone:
		return nil, "", refuse(hintTransfer, "a query without tables whose rows go to another shard is not supported")
	}
	text, failed := rewrite(sel, func(edited message) error {
		if clock == nil {
			return nil
		}
		return b.fixTime(edited, clock)
	})
	if failed != nil {
		return nil, "", refuse(hintTransfer, "the query cannot be rewritten for other shards")
	}
	finish(source, a.env)
	return source, text, nil
}

// untyped are the items of the select list, by place, whose type is that of the column which they are assigned to.
func (a *analysis) untyped(data *TransferData) map[int]*node {
	found := make(map[int]*node)
	sel := a.insertion.source
	if sel.Op != setOpNone || len(sel.DistinctClause) > 0 || hasStar(sel) {
		return found
	}
	for p, n := range sel.TargetList {
		value := n.GetResTarget().GetVal()
		if c := value.GetAConst(); c != nil && p < data.Columns {
			if kind, _ := constantOf(c); kind == constString || kind == constNull {
				found[p] = value
			}
		}
	}
	return found
}

// shell plans the INSERT of one row of parameters, and makes the texts around the rows.
func (a *analysis) shell(i *insertStmt, data *TransferData, timed []*catalog.Column) (*Plan, *Error) {
	cannot := refuse(hintTransfer, "this INSERT cannot be rewritten for other shards than the query's")
	edited := cloneInsert(i)
	edited.WithClause = nil
	base := data.Params + data.Clock.Count()
	untyped := a.untyped(data)
	var row []*node
	for p := range data.Columns {
		if c := untyped[p]; c != nil {
			row = append(row, c)
			continue
		}
		row = append(row, paramNode(base+p+1))
	}
	if len(timed)+len(data.Numbers) > 0 && len(edited.Cols) == 0 {
		for _, c := range a.insertion.places[:data.Columns] {
			edited.Cols = append(edited.Cols, targetNode(c.Name, nil))
		}
	}
	for n, number := range data.Numbers {
		edited.Cols = append(edited.Cols, targetNode(number.Column, nil))
		row = append(row, paramNode(base+data.Columns+n+1))
		if c, ok := a.insertion.target.relation.Column(number.Column); ok && c.Identity == 'a' {
			edited.Override = overridingSystem
		}
	}
	for _, c := range timed {
		edited.Cols = append(edited.Cols, targetNode(c.Name, nil))
		row = append(row, cloneNode(a.defaultNode(c)))
	}
	edited.SelectStmt = valuesNode(row)
	sql, failed := rewrite(edited, func(m message) error {
		if data.Clock == nil {
			return nil
		}
		return a.fixTime(m, data.Clock)
	})
	if failed != nil {
		return nil, cannot
	}
	parsed, failed := parse(sql)
	if failed != nil {
		return nil, cannot
	}
	m, _ := parsed.statement()
	insert, ok := m.(*insertStmt)
	if !ok {
		return nil, cannot
	}
	start, ok := behindTarget(sql, insert.Relation)
	l, found := layout(sql, start)
	if !ok || !found || len(l.rows) != 1 {
		return nil, cannot
	}
	data.Head, data.Tail = sql[:l.rows[0].start], sql[l.rows[0].end:]
	for p, s := range l.cut(0, nil) {
		text := sql[s.start:s.end]
		if p < data.Columns+len(data.Numbers) && untyped[p] == nil {
			text = ""
		}
		data.Values = append(data.Values, text)
	}
	if len(data.Values) != len(row) {
		return nil, cannot
	}
	return a.planShell(insert, sql, data)
}

// planShell plans the INSERT of one row, which tells where rows go and what is refused.
func (a *analysis) planShell(insert *insertStmt, sql string, data *TransferData) (*Plan, *Error) {
	b := newAnalysis(&Statement{Text: sql}, make([]uint32, data.Params+data.Clock.Count()), a.env, insert)
	plan, err := b.planInsert(insert)
	if err != nil {
		return nil, err.withoutPosition()
	}
	target := a.insertion.target
	switch {
	case plan.Mirrors || plan.Pins != "":
		return nil, refuse(hintTransfer, "INSERT … SELECT into table %s, whose triggers write reference tables, from tables of other shards is not supported", target.name)
	case plan.Route.Kind == RouteShard:
		data.Shard = plan.Route.Shard
	case plan.Route.Kind == RouteFilters && plan.Kind != Modify:
		return nil, plan.Refusal.withoutPosition()
	}
	data.Dirty = plan.Dirty
	if target.place != sharded {
		return plan, nil
	}
	data.Rows = &CopyRows{Filter: target.bareFilter()}
	data.Rows.Filter.Stored = true
	fields := slices.Clone(a.insertion.places[:data.Columns])
	for _, n := range data.Numbers {
		if c, ok := target.relation.Column(n.Column); ok {
			fields = append(fields, c)
		}
	}
	for _, list := range [][]string{target.table.Key, target.table.SubKey} {
		for _, name := range list {
			k := a.copyKey(target, fields, name, data.Rows)
			if k.Field >= 0 {
				if err := a.overridden(a.insertion.stmt, fields[k.Field]); err != nil {
					return nil, err
				}
			}
			data.Rows.Key = append(data.Rows.Key, k)
		}
	}
	if data.Rows.Refusal != nil {
		return nil, data.Rows.Refusal
	}
	return plan, nil
}

// Integers are the types of the Numbers.
func (d *TransferData) Integers() []uint32 {
	var types []uint32
	for _, n := range d.Numbers {
		types = append(types, n.Type)
	}
	return types
}

// AppendRow appends the values of a row, whose parameters are numbered from first.
func (d *TransferData) AppendRow(sql []byte, first int) []byte {
	for p, text := range d.Values {
		sql = append(sql, map[bool]string{true: "(", false: ", "}[p == 0]...)
		if text != "" {
			sql = append(sql, text...)
			continue
		}
		sql = strconv.AppendInt(append(sql, '$'), int64(first), 10)
		first++
	}
	return append(sql, ')')
}

// Given are the places of a row that the SELECT's values are for, in their order.
func (d *TransferData) Given() []int {
	var given []int
	for p, text := range d.Values {
		if text == "" {
			given = append(given, p)
		}
	}
	return given
}

// insert is the INSERT of one row.
func (d *TransferData) insert() string {
	return string(d.AppendRow([]byte(d.Head), d.Params+d.Clock.Count()+1)) + d.Tail
}
