package planner

import (
	"slices"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

// CombineData is how a query is computed that the shards cannot answer each for itself. The pieces are read on the shards, each into a
// temporary table of the combine shard, which is the home shard. The rest of the query, with those tables in place of the pieces, runs
// there: the same Postgres functions, collations and operators compute the answer as on one Postgres.
type CombineData struct {
	Pieces []Piece
	// SQL is the rest.
	SQL string
	// Clock says which parameters, behind the client's own, stand for the present, in all texts; nil: none.
	Clock *Clock
	// Params is the number of the client's parameters.
	Params int
}

// Piece is a part of a query that the shards compute.
type Piece struct {
	// Source is the plan of its SELECT, whose rows are those of the piece without duplicates or gaps. Text is its text for one shard;
	// several get Source.SQL, or Text if that is empty.
	Source *Plan
	Text   string
	// Table is the name of its temporary table, Create makes that.
	Table, Create string
	// Uses are the numbers of the client's parameters that it has.
	Uses []int
}

// combining makes the pieces and the rest of a query that was analysed.
type combining struct {
	*analysis
	data *CombineData
	// mentioned are all names that may be those of columns; all: any column may be meant.
	mentioned map[string]bool
	all       bool
	grouped   bool
	// tables are the temporary tables, by the place in the text of the name that they replace.
	tables map[int32]string
}

// combined is the plan of a query that several shards cannot answer, or err, which says why they cannot, if it cannot be combined
// either.
func (a *analysis) combined(sel *selectStmt, err *Error) (*Plan, *Error) {
	if !a.combines || a.refused != nil || a.unseen != nil || a.later != nil {
		return nil, err
	}
	data, refusal := a.combine(sel)
	if refusal != nil {
		return nil, err
	}
	return &Plan{
		Kind: Combine, Tag: "SELECT", ReadOnly: true, Tables: a.mapTables(), Route: Route{Kind: RouteHome}, Combine: data, texts: a.texts,
	}, nil
}

// mayCombine marks a plan that is refused on several shards as one that may be combined there. The pieces are made by Planner.Combine
// when several shards are found, as they are of one text, and the plan serves all that differ in literals.
func (a *analysis) mayCombine(sel *selectStmt, plan *Plan) {
	if !a.combines || plan.Refusal == nil || plan.Route.Kind != RouteFilters || plan.Watched {
		return
	}
	plan.Combinable, plan.texts = true, a.texts
	if !a.pieces {
		return
	}
	if data, refusal := a.combine(sel); refusal == nil {
		plan.Kind, plan.Combine, plan.Refusal = Combine, data, nil
	}
}

// combine divides a query into pieces and the rest.
func (a *analysis) combine(sel *selectStmt) (*CombineData, *Error) {
	c := &combining{analysis: a, data: &CombineData{Params: len(a.types)}, mentioned: make(map[string]bool), tables: make(map[int32]string)}
	for number := range a.params {
		c.data.Params = max(c.data.Params, number)
	}
	if err := c.check(sel); err != nil {
		return nil, err
	}
	c.data.Clock = a.clockParameters()
	c.mention(sel)
	if data := c.partially(sel); data != nil {
		a.valuesUsed = true
		return data, nil
	}
	for i, r := range a.references {
		if c.tables[int32(r.position)] != "" {
			continue // read twice by the analysis, not by the query
		}
		if err := c.piece(r, i); err != nil {
			return nil, err
		}
	}
	sql, err := rewrite(sel, func(edited message) error {
		replaceTables(edited, c.tables)
		if c.data.Clock == nil {
			return nil
		}
		return a.fixTime(edited, c.data.Clock)
	})
	if err != nil {
		return nil, refuse(hintOneShard, "the statement cannot be rewritten for several shards")
	}
	c.data.SQL = sql
	a.valuesUsed = true
	return c.data, nil
}

// check refuses what does not mean the same on the combine shard, outside of the client's transaction.
func (c *combining) check(sel *selectStmt) *Error {
	u := &c.functions
	cannot := refuse(hintOneShard, "this statement is supported on one shard only")
	switch {
	case c.locking, c.writes, c.clockText >= 0, u.clock != "", u.sample, u.currentOf, u.writes, u.dirty, u.advisory, u.notifies, u.listening,
		u.native, u.sessionValue != "", len(u.sequences) > 0, u.setConfig > 0, u.unknown != "", c.systemCol >= 0:
		return cannot
	}
	if sel.IntoClause != nil || !c.functionsAllowed(sel) || !c.tablesAllowed() {
		return cannot
	}
	return nil
}

// Built-in functions that tell of the server what all servers of a database have alike.
var alikeEverywhere = map[string]bool{"pg_typeof": true, "format_type": true, "pg_input_is_valid": true, "pg_input_error_info": true}

// functionsAllowed reports whether all functions give on the combine shard what they would give in the client's transaction.
func (c *combining) functionsAllowed(sel *selectStmt) bool {
	allowed := true
	walk(sel, func(m message) bool {
		if f, ok := m.(*funcCall); ok {
			info := c.function(f)
			switch {
			case info.unknown, info.reaches, info.opaque, info.touches != "", info.user && info.volatile:
				allowed = false
			case info.user, clocks[info.name], harmless[info.name], alikeEverywhere[info.name]:
			case info.volatile, serverBound(info.name):
				allowed = false
			}
		}
		return allowed
	})
	return allowed
}

// tablesAllowed reports whether every table can be read into a temporary one, whose name is then unique where it stands.
func (c *combining) tablesAllowed() bool {
	bare := make(map[string]directory.TableName)
	for _, r := range c.references {
		if r.relation == nil || r.system || r.position < 0 || r.written || r.locked || r.part != nil {
			return false
		}
		switch r.relation.Kind {
		case catalog.KindTable, catalog.KindPartitionedTable, catalog.KindView, catalog.KindMaterializedView, catalog.KindForeignTable:
		default:
			return false
		}
		if r.alias != r.name.Name {
			continue
		}
		if other, known := bare[r.alias]; known && other != r.name {
			return false // told apart by their schemas
		}
		bare[r.alias] = r.name
	}
	return true
}

// mention collects the names that may be columns of tables.
func (c *combining) mention(sel *selectStmt) {
	walk(sel, func(m message) bool {
		switch m := m.(type) {
		case *columnRef:
			parts, plain := names(m.Fields)
			c.all = c.all || !plain
			for _, part := range parts {
				c.mentioned[part] = true
			}
		case *joinExpr:
			c.all = c.all || m.IsNatural
			parts, _ := names(m.UsingClause)
			for _, part := range parts {
				c.mentioned[part] = true
			}
		case *rangeVar:
			c.all = c.all || len(m.Alias.GetColnames()) > 0
		case *selectStmt:
			c.grouped = c.grouped || len(m.GroupClause) > 0
		}
		return true
	})
}

// piece makes the piece for a table: its columns that the query mentions, of the rows that can matter.
func (c *combining) piece(r *reference, i int) *Error {
	if c.mentioned[r.alias] {
		if _, isColumn := r.relation.Column(r.alias); !isColumn && c.wholeRow(r) {
			return refuse(hintOneShard, "a whole row of table %s over several shards is not supported", r.name)
		}
	}
	var columns []*catalog.Column
	for _, column := range r.relation.Live() {
		if c.all || c.mentioned[column.Name] {
			columns = append(columns, column)
		}
	}
	if live := r.relation.Live(); len(columns) == 0 && len(live) > 0 {
		columns = live[:1]
	}
	sel := tableSelect(r, columns, c.filters(r))
	plan, text, err := c.planRead(sel, c.data.Params, c.data.Clock, false)
	if err != nil {
		return err
	}
	table := "shardyard_" + itoa(i+1)
	c.tables[int32(r.position)] = table
	c.data.Pieces = append(c.data.Pieces, Piece{
		Source: plan, Text: text, Table: table, Create: c.createTable(table, r.relation, columns), Uses: parametersOf(sel),
	})
	return nil
}

// parametersOf are the numbers of the parameters in a query.
func parametersOf(sel *selectStmt) (list []int) {
	walk(sel, func(m message) bool {
		if ref, ok := m.(*paramRef); ok && !slices.Contains(list, int(ref.Number)) {
			list = append(list, int(ref.Number))
		}
		return true
	})
	return list
}

// wholeRow reports whether a table's name stands alone somewhere, so that it may mean a row.
func (c *combining) wholeRow(r *reference) bool {
	found := false
	walk(c.root, func(m message) bool {
		if ref, ok := m.(*columnRef); ok {
			parts, plain := names(ref.Fields)
			found = found || plain && (len(parts) == 1 && parts[0] == r.alias || len(parts) == 2 && parts[0] == r.name.Schema && parts[1] == r.alias)
		}
		return !found
	})
	return found
}

// createTable is the statement that makes the temporary table. What groups by a primary key may select all columns, so
// that has one, too.
func (c *combining) createTable(table string, r *catalog.Relation, columns []*catalog.Column) string {
	var b strings.Builder
	b.WriteString("CREATE TEMPORARY TABLE " + table + " (")
	for i, column := range columns {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(directory.QuoteIdentifier(column.Name) + " " + column.Declaration)
	}
	if key := primaryKey(r); c.grouped && len(key) > 0 && !slices.ContainsFunc(key, func(name string) bool {
		return !slices.ContainsFunc(columns, func(c *catalog.Column) bool { return c.Name == name })
	}) {
		b.WriteString(", PRIMARY KEY (")
		for i, name := range key {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(directory.QuoteIdentifier(name))
		}
		b.WriteString(")")
	}
	b.WriteString(")")
	return b.String()
}

func primaryKey(r *catalog.Relation) []string {
	for i := range r.Keys {
		if k := &r.Keys[i]; k.Primary && k.Valid {
			return k.Columns
		}
	}
	return nil
}

// replaceTables puts the temporary tables in place of the pieces, under the names that the query has for them.
func replaceTables(m message, tables map[int32]string) {
	walk(m, func(inner message) bool {
		switch inner := inner.(type) {
		case *rangeVar:
			table := tables[inner.Location]
			if table == "" {
				return true
			}
			if inner.Alias == nil {
				inner.Alias = &aliasNode{Aliasname: inner.Relname}
			}
			inner.Catalogname, inner.Schemaname, inner.Relname, inner.Inh = "", "pg_temp", table, true
		case *columnRef:
			if parts, _ := names(inner.Fields); len(parts) > 2 || len(parts) == 2 && len(inner.Fields) == 3 {
				inner.Fields = inner.Fields[len(inner.Fields)-2:] // schema.table.column: the schema is another one now
			}
		}
		return true
	})
}
