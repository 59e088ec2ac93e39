package planner

import (
	"cmp"
	"slices"

	"github.com/shardyard/shardyard/directory"
)

// CreateAsData is the table that a CREATE TABLE AS or SELECT INTO from tables which are not on the home shard alone makes. It is a
// table of the home shard, which analyses the query to make it; the rows come as Plan.Transfer says.
type CreateAsData struct {
	Schema, Name string // as written; no schema: the one that tables are created in
	// IfNotExists: if there is a relation of the name, nothing is done.
	IfNotExists bool
	// Define makes the table without rows.
	Define string
}

// Head begins the INSERT of the rows.
func (d *CreateAsData) Head(schema string) string {
	name := directory.QuoteIdentifier(d.Name)
	if schema != "" {
		name = directory.QuoteIdentifier(schema) + "." + name
	}
	return "INSERT INTO " + name + " VALUES "
}

// planCreateFrom plans a CREATE TABLE AS whose query reads tables that are not on the home shard alone.
func (a *analysis) planCreateFrom(c *createTableAs, plan *Plan) (*Plan, *Error) {
	if c.Into.SkipData {
		return plan, nil // the home shard only analyses the query, and knows the columns of all tables
	}
	sel := c.Query.GetSelectStmt()
	query := newAnalysis(&Statement{Text: a.sql, literals: a.literals}, a.types, a.env, sel)
	rows := query.selectInto(sel, nil, &context{})
	query.finishAll()
	switch {
	case query.refused != nil:
		return nil, query.refused
	case query.unseen != nil || query.later != nil:
		return nil, cmp.Or(query.unseen, query.later)
	case rows.open:
		return nil, refuse("Name the columns in the query.", "%s from a query whose columns are not known is not supported", plan.DDL.Command)
	case len(rows.columns) == 0:
		return nil, refuse(hintTransfer, "%s of rows without columns is not supported", plan.DDL.Command)
	}
	if err := query.checkClock(); err != nil {
		return nil, err
	}
	data := &TransferData{Columns: len(rows.columns), Values: make([]string, len(rows.columns)), Each: true, Params: len(a.types)}
	for number := range query.params {
		data.Params = max(data.Params, number)
	}
	data.clock(query.functions.now, query.functions.statementTime)
	if err := query.planSource(sel, data); err != nil {
		return nil, err
	}
	define, failed := rewrite(c, func(m message) error {
		edited := m.(*createTableAs)
		edited.IfNotExists, edited.Into.SkipData = false, true
		return nil
	})
	if failed != nil {
		return nil, refuse("CREATE TABLE first, then INSERT the rows.", "this %s cannot be rewritten to make the table first", plan.DDL.Command)
	}
	into := c.Into.Rel
	plan.CreateAs = &CreateAsData{Schema: into.Schemaname, Name: into.Relname, IfNotExists: c.IfNotExists, Define: define}
	data.Head = plan.CreateAs.Head(into.Schemaname)
	plan.Transfer, plan.Tables = data, slices.Clone(data.Source.Tables)
	a.valuesUsed = true
	return plan, nil
}
