package oracle

import (
	"fmt"
	"slices"
	"strings"
)

// queryGenerator makes SELECTs of every shape: joins of any tables, grouping, windows, set operations, subqueries, WITH. Their answers
// are determined but for the order of rows: what is cut is sorted by all of its columns.
type queryGenerator struct {
	*generator
	aliases  int
	features map[string]int
	withs    []string // queries of WITH
	named    []relationColumns
}

// queryTables are those of all random statements, and one on the home shard, one on another, and one on every shard.
var queryTables = append(slices.Clone(generatedTables),
	generatedTable{"ru", []generatedColumn{{name: "k", kind: "int"}, {name: "b", kind: "numeric"}, {name: "c", kind: "text"}}},
	generatedTable{"rp", []generatedColumn{{name: "k", kind: "int"}, {name: "d", kind: "date"}}},
	generatedTable{"rf", []generatedColumn{{name: "k", kind: "int"}, {name: "c", kind: "text"}}},
)

var querySetup = struct{ both, cluster, rows []string }{
	both: []string{
		`CREATE TABLE ru (k int, b numeric, c text COLLATE "C")`, `CREATE TABLE rp (k int, d date)`, `CREATE TABLE rf (k int PRIMARY KEY, c text COLLATE "C")`,
	},
	cluster: []string{`SHARD TABLE rp ON s3`, `SHARD TABLE rf AS REFERENCE`},
	rows: []string{
		`INSERT INTO ru SELECT i, round(i / 2.0, 1), chr(97 + i % 6) FROM generate_series(-3, 12) i`,
		`INSERT INTO rp SELECT i, date '2024-01-01' + i FROM generate_series(0, 12) i`,
		`INSERT INTO rf SELECT i, chr(97 + i % 7) FROM generate_series(-2, 9) i`,
	},
}

// relationColumns are the columns of an item of FROM.
type relationColumns struct {
	from    string
	columns []typedColumn
}

// typedColumn is an expression of a kind: int, numeric, text or date.
type typedColumn struct{ sql, kind string }

func newQueryGenerator(seed uint64) *queryGenerator {
	return &queryGenerator{generator: newGenerator(seed), features: make(map[string]int)}
}

func (g *queryGenerator) note(feature string) { g.features[feature]++ }

// next makes a statement.
func (g *queryGenerator) next() Statement {
	g.args, g.params = nil, g.chance(40)
	g.withs, g.named, g.aliases = nil, nil, 0
	if g.chance(20) {
		g.with()
	}
	sql, columns := g.query(2)
	ordered := g.chance(50)
	if ordered {
		sql += g.sorted(len(columns))
	}
	if len(g.withs) > 0 {
		sql = "WITH " + strings.Join(g.withs, ", ") + " " + sql
	}
	return Statement{SQL: sql, Args: g.args, Ordered: ordered, AnyMessage: true}
}

func (g *queryGenerator) alias() string {
	g.aliases++
	return fmt.Sprintf("q%d", g.aliases)
}

func (g *queryGenerator) with() {
	g.note("with")
	sql, columns := g.query(1)
	name := g.alias()
	g.withs = append(g.withs, name+g.columnNames(len(columns))+" AS "+g.pick("", "", "MATERIALIZED ", "NOT MATERIALIZED ")+"("+sql+")")
	r := relationColumns{from: name}
	for i, c := range columns {
		r.columns = append(r.columns, typedColumn{fmt.Sprintf("c%d", i+1), c.kind})
	}
	g.named = append(g.named, r)
}

func (g *queryGenerator) columnNames(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("c%d", i+1)
	}
	return " (" + strings.Join(names, ", ") + ")"
}

// sorted is an ORDER BY of all columns, perhaps with LIMIT and OFFSET.
func (g *queryGenerator) sorted(columns int) string {
	keys := make([]string, columns)
	for i, at := range g.random.Perm(columns) {
		keys[i] = fmt.Sprint(at+1) + g.pick("", "", " DESC", " NULLS FIRST", " DESC NULLS LAST")
	}
	sql := " ORDER BY " + strings.Join(keys, ", ")
	if g.chance(40) {
		g.note("limit")
		sql += g.pick(fmt.Sprintf(" LIMIT %d", g.random.IntN(8)), fmt.Sprintf(" OFFSET %d", g.random.IntN(5)),
			fmt.Sprintf(" LIMIT %d + 1 OFFSET %d", g.random.IntN(5), g.random.IntN(3)), fmt.Sprintf(" FETCH FIRST %d ROWS WITH TIES", 1+g.random.IntN(5)))
	}
	return sql
}

// query makes a query and says what its columns are.
func (g *queryGenerator) query(depth int) (string, []typedColumn) {
	if depth > 0 && g.chance(15) {
		return g.setOperation(depth)
	}
	from, columns := g.from(depth)
	sql := " FROM " + from
	if g.chance(70) {
		sql += " WHERE " + g.where(columns, depth)
	}
	switch g.random.IntN(10) {
	case 0, 1, 2:
		return g.grouped(sql, columns)
	case 3:
		return g.windowed(sql, columns)
	}
	out := g.outputs(columns, depth)
	distinct := ""
	if g.chance(15) {
		g.note("distinct")
		distinct = "DISTINCT "
	}
	return "SELECT " + distinct + list(out) + sql, out
}

func list(columns []typedColumn) string {
	texts := make([]string, len(columns))
	for i, c := range columns {
		texts[i] = c.sql
	}
	return strings.Join(texts, ", ")
}

// shown is a column as a result has it: numerics that are equal look alike.
func shown(c typedColumn) typedColumn {
	if c.kind == "numeric" {
		c.sql = "trim_scale(" + c.sql + ")"
	}
	return c
}

func (g *queryGenerator) outputs(columns []typedColumn, depth int) []typedColumn {
	var out []typedColumn
	for range 1 + g.random.IntN(3) {
		c := columns[g.random.IntN(len(columns))]
		switch g.random.IntN(8) {
		case 0:
			out = append(out, typedColumn{"coalesce(" + shown(c).sql + ", NULL)", c.kind})
		case 1:
			out = append(out, typedColumn{"CASE WHEN " + g.comparison(columns) + " THEN 1 ELSE 0 END", "int"})
		case 2:
			if depth > 0 {
				g.note("scalar subquery")
				from, inner := g.from(0)
				out = append(out, typedColumn{"(SELECT count(*)::int FROM " + from + " WHERE " + g.comparison(append(inner, c)) + ")", "int"})
				continue
			}
			out = append(out, shown(c))
		default:
			out = append(out, shown(c))
		}
	}
	return out
}

func (g *queryGenerator) setOperation(depth int) (string, []typedColumn) {
	g.note("set operation")
	kinds := []string{g.pick("int", "text", "date", "numeric")}
	arm := func() string {
		from, columns := g.from(depth - 1)
		chosen := make([]typedColumn, len(kinds))
		for i, kind := range kinds {
			chosen[i] = typedColumn{"NULL::" + kind, kind}
			for _, at := range g.random.Perm(len(columns)) {
				if columns[at].kind == kind {
					chosen[i] = shown(columns[at])
					break
				}
			}
		}
		sql := "SELECT " + list(chosen) + " FROM " + from
		if g.chance(60) {
			sql += " WHERE " + g.where(columns, depth-1)
		}
		return sql
	}
	sql := arm() + g.pick(" UNION ", " UNION ALL ", " INTERSECT ", " EXCEPT ", " EXCEPT ALL ", " INTERSECT ALL ") + arm()
	return sql, []typedColumn{{"", kinds[0]}}
}

func (g *queryGenerator) grouped(sql string, columns []typedColumn) (string, []typedColumn) {
	g.note("group by")
	var keys, out []typedColumn
	for range g.random.IntN(3) {
		keys = append(keys, shown(columns[g.random.IntN(len(columns))]))
	}
	out = append(out, keys...)
	for range 1 + g.random.IntN(2) {
		out = append(out, g.aggregate(columns))
	}
	if len(keys) > 0 {
		group := list(keys)
		if g.chance(15) {
			g.note("grouping sets")
			group = g.pick("ROLLUP", "CUBE") + " (" + group + ")"
		}
		sql += " GROUP BY " + group
	}
	if g.chance(30) {
		g.note("having")
		sql += " HAVING count(*)" + g.pick(" > 1", " < 5", " <> 2")
	}
	return "SELECT " + list(out) + sql, out
}

func (g *queryGenerator) aggregate(columns []typedColumn) typedColumn {
	c := columns[g.random.IntN(len(columns))]
	filter := ""
	if g.chance(20) {
		g.note("filter")
		filter = " FILTER (WHERE " + g.comparison(columns) + ")"
	}
	switch g.random.IntN(8) {
	case 0:
		return typedColumn{"count(*)" + filter + "::int", "int"}
	case 1:
		return typedColumn{"count(DISTINCT " + c.sql + ")" + filter + "::int", "int"}
	case 2, 3:
		c.sql = g.pick("min", "max") + "(" + shown(c).sql + ")" + filter
		return c
	case 4, 5:
		for _, n := range columns {
			if n.kind == "int" || n.kind == "numeric" {
				return typedColumn{"trim_scale(" + g.pick("sum", "avg") + "(" + n.sql + ")" + filter + "::numeric)", "numeric"}
			}
		}
	case 6:
		return typedColumn{"string_agg(" + c.sql + "::text, ',' ORDER BY " + c.sql + "::text COLLATE \"C\")" + filter, "text"}
	}
	return typedColumn{"count(" + c.sql + ")" + filter + "::int", "int"}
}

func (g *queryGenerator) windowed(sql string, columns []typedColumn) (string, []typedColumn) {
	g.note("window")
	c, by := shown(columns[g.random.IntN(len(columns))]), columns[g.random.IntN(len(columns))]
	window := " OVER (PARTITION BY " + by.sql + " ORDER BY " + c.sql + ")"
	out := []typedColumn{c, {g.pick("rank()", "dense_rank()", "count(*)", "max("+c.sql+"::text)") + window + "::text", "text"}}
	return "SELECT " + list(out) + sql, out
}

// from makes a FROM clause.
func (g *queryGenerator) from(depth int) (string, []typedColumn) {
	r := g.item(depth)
	from, columns := r.from, r.columns
	for depth > 0 && g.chance(45) {
		other := g.item(depth - 1)
		kind := g.pick("JOIN", "JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN")
		g.note(strings.ToLower(kind))
		from += " " + kind + " " + other.from
		if kind != "CROSS JOIN" {
			from += " ON " + g.joined(columns, other.columns)
		}
		columns = append(append([]typedColumn(nil), columns...), other.columns...)
		depth--
	}
	return from, columns
}

// item makes an item of FROM.
func (g *queryGenerator) item(depth int) relationColumns {
	name := g.alias()
	var r relationColumns
	switch {
	case len(g.named) > 0 && g.chance(40):
		with := g.named[g.random.IntN(len(g.named))]
		r.from = with.from + " AS " + name
		r.columns = with.columns
	case depth > 0 && g.chance(25):
		g.note("subquery in from")
		sql, columns := g.query(depth - 1)
		if g.chance(25) {
			sql += g.sorted(len(columns))
		}
		r.from = "(" + sql + ") AS " + name + g.columnNames(len(columns))
		for i, c := range columns {
			r.columns = append(r.columns, typedColumn{fmt.Sprintf("c%d", i+1), c.kind})
		}
	default:
		table := queryTables[g.random.IntN(len(queryTables))]
		r.from = table.name + " AS " + name
		for _, c := range table.columns {
			r.columns = append(r.columns, typedColumn{c.name, c.kind})
		}
	}
	qualified := make([]typedColumn, len(r.columns))
	for i, c := range r.columns {
		qualified[i] = typedColumn{name + "." + c.sql, c.kind}
	}
	return relationColumns{r.from, qualified}
}

// joined is the condition of a join.
func (g *queryGenerator) joined(left, right []typedColumn) string {
	for _, i := range g.random.Perm(len(left)) {
		for _, j := range g.random.Perm(len(right)) {
			if left[i].kind == right[j].kind {
				sql := left[i].sql + " = " + right[j].sql
				if g.chance(25) {
					sql += " AND " + g.comparison(append(append([]typedColumn(nil), left...), right...))
				}
				return sql
			}
		}
	}
	return "true"
}

func (g *queryGenerator) where(columns []typedColumn, depth int) string {
	sql := g.comparison(columns)
	for g.chance(35) {
		sql += g.pick(" AND ", " AND ", " OR ") + g.comparison(columns)
	}
	if depth == 0 || !g.chance(30) {
		return sql
	}
	from, inner := g.from(depth - 1)
	switch g.random.IntN(3) {
	case 0:
		g.note("exists")
		return "(" + sql + ") AND " + g.pick("", "NOT ") + "EXISTS (SELECT 1 FROM " + from + " WHERE " + g.joined(columns, inner) + ")"
	case 1:
		g.note("in subquery")
		c := columns[g.random.IntN(len(columns))]
		for _, i := range inner {
			if i.kind == c.kind {
				return "(" + sql + ") AND " + c.sql + g.pick(" IN ", " IN ", " NOT IN ") + "(SELECT " + i.sql + " FROM " + from + " WHERE " + g.comparison(inner) + ")"
			}
		}
	}
	return sql
}

// comparison is a condition on some of the columns.
func (g *queryGenerator) comparison(columns []typedColumn) string {
	c := columns[g.random.IntN(len(columns))]
	if g.chance(25) {
		for _, i := range g.random.Perm(len(columns)) {
			if other := columns[i]; other.kind == c.kind && other.sql != c.sql {
				return c.sql + g.pick(" = ", " < ", " >= ", " <> ") + other.sql
			}
		}
	}
	if g.chance(12) {
		return c.sql + g.pick(" IS NULL", " IS NOT NULL")
	}
	column := generatedColumn{kind: c.kind, declared: []string{map[string]string{"int": "int4", "numeric": "numeric", "text": "text", "date": "date"}[c.kind]}}
	return c.sql + g.pick(" = ", " = ", " < ", " >= ", " <> ") + g.value(column)
}
