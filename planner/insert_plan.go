package planner

import (
	"maps"
	"slices"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

const hintOneInsert = "Insert the rows of each shard in a statement of its own."

// inserting is what is known of the outermost INSERT while it is analysed.
type inserting struct {
	stmt     *insertStmt
	source   *selectStmt // nil: DEFAULT VALUES
	target   *reference
	places   []*catalog.Column // for each value of a row the column that it is for
	supplied []SuppliedColumn
	values   []SuppliedValue
	// Of INSERT … SELECT: the columns of the result, and the context of its rows. selected: it is not asked for one shard;
	// unproved: one shard was asked for, and it could not be proved that it has all rows.
	rows               result
	context            *context
	selected, unproved bool
	known              map[[2]int]bool // row and column of values
	clock              bool            // a value that is computed reads the time
	numbered           bool            // a row needs a value of a sequence
	generatedGiven     bool            // a row gives a value for a column GENERATED ALWAYS AS IDENTITY
	drawn              []Number        // of INSERT … SELECT: the columns that sequences number
	nextvals           map[*funcCall]directory.TableName
}

// planInsert plans an INSERT.
func (a *analysis) planInsert(i *insertStmt) (*Plan, *Error) {
	a.insertion = &inserting{stmt: i, source: i.SelectStmt.GetSelectStmt()}
	plan, err := a.planModification(i, "INSERT")
	if err != nil && a.refused != nil && a.insertion.unproved {
		plan, why := a.planSelected(i, err)
		if why != nil {
			return a.planTransfer(i, why)
		}
		return plan, nil
	}
	if err != nil {
		return a.planTransfer(i, err)
	}
	if plan.Refusal != nil && !a.insertion.hasRows() && !plan.Route.certain() {
		transfer, why := a.planTransfer(i, plan.Refusal)
		if plan.Route.whole() {
			return transfer, why
		}
		if why != nil {
			plan.Refusal = why
			return plan, nil
		}
		plan.Kind, plan.Modify, plan.Transfer, plan.Refusal = Modify, &ModifyData{}, transfer.Transfer, nil
		plan.Tables, plan.Dirty = transfer.Tables, plan.Dirty || transfer.Dirty
		return plan, nil
	}
	if plan.Route.Kind != RouteFilters || !a.insertion.hasRows() {
		return plan, err
	}
	data, err := a.splitRows()
	switch {
	case err == nil:
		plan.Kind, plan.Modify, plan.Insert, plan.Refusal = Modify, &ModifyData{}, data, nil
	case len(a.insertion.values) > 0 || a.insertion.numbered:
		return nil, err // one shard could not run the client's text either
	default:
		plan.Refusal = err
	}
	return plan, nil
}

// hasRows reports whether the rows stand in the statement: VALUES, or DEFAULT VALUES.
func (in *inserting) hasRows() bool {
	return in.source == nil || len(in.source.ValuesLists) > 0 && in.source.Op == setOpNone
}

// splitRows says how the rows of VALUES are spread over the shards.
func (a *analysis) splitRows() (*InsertData, *Error) {
	in := a.insertion
	if err := a.checkSplit(); err != nil {
		return nil, err
	}
	data := &InsertData{Table: in.target.name, Each: eachRow(in.stmt), rows: 1, Blind: len(in.target.relation.Triggers) == 0 && !a.functions.reads()}
	if in.source != nil {
		data.rows = len(in.source.ValuesLists)
	}
	for number, use := range a.params {
		data.Params = max(data.Params, number)
		if use.occurrences > 1 {
			data.shared = append(data.shared, number)
		}
	}
	var ok bool
	if data.start, ok = behindTarget(a.sql, in.stmt.Relation); !ok {
		return nil, a.notSplit("a table name in this notation")
	}
	if l, ok := layout(a.sql, data.start); !ok || len(l.rows) != data.rows {
		return nil, a.notSplit("VALUES in this notation")
	}
	if in.source != nil {
		data.wrong = len(in.places) < in.given() ||
			slices.ContainsFunc(in.source.ValuesLists, func(row *node) bool { return len(row.GetList().GetItems()) != in.given() })
	}
	data.wrong = data.wrong || in.generatedGiven
	if data.wrong {
		return data, nil
	}
	a.columnsOfRows(data)
	a.keysOfRows(data)
	if err := a.numberRows(data); err != nil {
		return nil, err
	}
	data.Routing = len(in.values)
	if err := a.clockValues(data); err != nil {
		return nil, err
	}
	inRows := len(in.values)
	if err := a.clocksOfTail(data); err != nil {
		return nil, err
	}
	data.Supplied, data.Values, data.Clock = in.supplied, in.values, in.clock || len(in.values) > data.Routing
	// An expression is computed outside of the statement that tells its types.
	if slices.ContainsFunc(data.Values[:inRows], func(v SuppliedValue) bool { return v.Sequence.Name == "" }) {
		data.shared = slices.Sorted(maps.Keys(a.params))
	}
	return data, nil
}

// columnsOfRows notes for which columns the values of a row are.
func (a *analysis) columnsOfRows(data *InsertData) {
	in := a.insertion
	if in.source == nil {
		return
	}
	given := len(in.source.ValuesLists[0].GetList().GetItems())
	for p, c := range in.places {
		if p < given {
			data.columns = append(data.columns, c.Name)
		}
	}
}

// keysOfRows notes how the values of the key columns that the rows give are computed, should they turn out not to be certain.
func (a *analysis) keysOfRows(data *InsertData) {
	t := a.insertion.target.table
	for _, name := range append(slices.Clone(t.Key), t.SubKey...) {
		var column SuppliedColumn
		place := slices.Index(data.columns, name)
		if c, ok := a.insertion.target.relation.Column(name); ok && place >= 0 {
			column, _ = a.suppliedColumn(c)
			column.place = place
		}
		data.keys = append(data.keys, column)
	}
}

func (a *analysis) notSplit(what string) *Error {
	return refuse(hintOneInsert, "INSERT with %s on several shards is not supported", what)
}

// checkSplit refuses statements whose parts would not add up to the whole.
func (a *analysis) checkSplit() *Error {
	in, u := a.insertion, &a.functions
	var lists []*node
	if in.source != nil {
		s := in.source
		if s.WithClause != nil || len(s.SortClause) > 0 || s.LimitCount != nil || s.LimitOffset != nil || len(s.LockingClause) > 0 {
			return a.notSplit("ORDER BY, LIMIT or WITH behind VALUES")
		}
		lists = append(lists, s.ValuesLists...)
	}
	switch {
	case in.stmt.WithClause != nil:
		return a.notSplit("WITH")
	case len(a.references) > 1:
		r := a.references[0]
		if r == in.target {
			r = a.references[1]
		}
		return a.notSplit("a subquery on a table").at(a.position(r.position))
	case u.unknown != "":
		return refuse(hintOneInsert, "function %s is not known, so it cannot be called on several shards", u.unknown).at(a.position(u.unknownP))
	case a.ofOneServer(hintOneInsert) != nil:
		return a.ofOneServer(hintOneInsert)
	case u.unusual:
		return a.notSplit("XML and JSON table functions")
	}
	if u.volatile != "" && slices.ContainsFunc(lists, hasSubLink) {
		// Once for all rows on one Postgres.
		return refuse(hintOneInsert, "volatile function %s in a statement with subqueries over several shards is not supported", u.volatile).at(a.position(u.volatileP))
	}
	a.target = in.target
	return a.checkTransitions()
}

func hasSubLink(n *node) bool {
	found := false
	walk(n, func(m message) bool {
		_, is := m.(*subLink)
		found = found || is
		return !found
	})
	return found
}

// reads reports whether a function may read tables.
func (u *functionUse) reads() bool { return u.writes || u.unknown != "" || u.unusual }

// eachRow reports whether an INSERT stores and returns each of its rows, if it does not fail.
func eachRow(i *insertStmt) bool {
	c := i.OnConflictClause
	return c == nil || c.Action == conflictUpdate && c.WhereClause == nil
}

// clockIn is where an expression reads the transaction's time, -1 if it does not.
func (a *analysis) clockIn(n *node) int {
	at := -1
	walk(n, func(m message) bool {
		switch m := m.(type) {
		case *sqlValueFunction:
			if name, _ := clockValue(m); name != "" {
				at = int(m.Location)
			}
		case *funcCall:
			if info := a.function(m); !info.user && (clocks[info.name] || info.name == "age" && len(m.Args) == 1) {
				at = int(m.Location)
			}
		}
		return at < 0
	})
	return at
}
