package oracle

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// generated is one random statement; whole is the same without LIMIT if its order does not
// fix which rows it gives.
type generated struct {
	statement Statement
	whole     *Statement
}

// generator makes random reads over the tables of generatedTables.
type generator struct {
	random *rand.Rand
	args   []Arg
	params bool     // values may be parameters
	first  []string // statements to begin with
	parts  parts    // of the last INSERT, UPDATE or DELETE
}

// generatedTable is what the generator knows of a table.
type generatedTable struct {
	name    string
	columns []generatedColumn
}

// generatedColumn has values in every form that people write them in; keys are first.
type generatedColumn struct {
	name, kind string
	declared   []string // types that a client may declare for a parameter
}

var generatedTables = []generatedTable{
	{"rh", []generatedColumn{
		{"k", "int", []string{"", "int4", "int8", "int2", "numeric"}}, {"a", "int", []string{"", "int4"}},
		{"b", "numeric", []string{"", "numeric"}}, {"c", "text", []string{"", "text"}},
	}},
	{"rr", []generatedColumn{
		{"k", "date", []string{"", "date", "timestamp"}}, {"a", "int", []string{"", "int8"}}, {"c", "text", []string{"", "text", "varchar"}},
	}},
	{"rl", []generatedColumn{
		{"k", "text", []string{"", "text", "varchar"}}, {"a", "int", []string{"", "int4"}}, {"b", "numeric", []string{""}},
	}},
	{"rc", []generatedColumn{
		{"k", "text", []string{"", "text"}}, {"s", "int", []string{"", "int8"}}, {"a", "int", []string{""}},
	}},
	{"rn", []generatedColumn{
		{"k", "numeric", []string{"", "numeric", "int4", "int8"}}, {"a", "int", []string{"", "int4"}}, {"c", "text", []string{""}},
	}},
}

// generatedSetup makes and fills the tables; the bounds of partitions are among their values.
var generatedSetup = struct{ both, cluster []string }{
	both: []string{
		`CREATE TABLE rh (k int PRIMARY KEY, a int, b numeric, c text COLLATE "C")`,
		`CREATE TABLE rr (k date, a int, c text COLLATE "C")`,
		`CREATE TABLE rl (k text, a int, b numeric)`,
		`CREATE TABLE rc (k text, s int, a int)`,
		`CREATE TABLE rn (k numeric, a int, c text COLLATE "C")`,
	},
	cluster: []string{
		`SHARD TABLE rh BY HASH (k) PARTITIONS 8`,
		`SHARD TABLE rr BY RANGE (k) (PARTITION a VALUES LESS THAN ('2024-01-05') PLACEMENT POLICY = s1,
			PARTITION b VALUES LESS THAN ('2024-01-10') PLACEMENT POLICY = s2, PARTITION c VALUES LESS THAN (MAXVALUE) PLACEMENT POLICY = s3)`,
		`SHARD TABLE rl BY LIST (k) (PARTITION a VALUES IN ('a', 'b') PLACEMENT POLICY = s1,
			PARTITION b VALUES IN ('c', NULL) PLACEMENT POLICY = s2, PARTITION z DEFAULT PLACEMENT POLICY = s3)`,
		`SHARD TABLE rc BY LIST (k) SUBPARTITION BY HASH (s) SUBPARTITIONS 4 (PARTITION a VALUES IN ('a'), PARTITION z DEFAULT)`,
		`SHARD TABLE rn BY RANGE (k) (PARTITION a VALUES LESS THAN (-1) PLACEMENT POLICY = s1,
			PARTITION b VALUES LESS THAN (2.5) PLACEMENT POLICY = s2, PARTITION c VALUES LESS THAN (MAXVALUE) PLACEMENT POLICY = s3)`,
	},
}

// generatedRows are the rows of all tables as INSERT statements. Equal numerics have the same number of digits: which of several DISTINCT
// keeps is open.
func generatedRows() []string {
	var rows []string
	for i := -20; i <= 20; i++ {
		a := fmt.Sprint((i + 20) % 7)
		if i%5 == 0 {
			a = "NULL"
		}
		rows = append(rows, fmt.Sprintf(`INSERT INTO rh VALUES (%d, %s, round(%d / 4.0, 2), '%c')`, i, a, i%9, 'a'+(i+20)%6))
		if i >= 0 {
			rows = append(rows,
				fmt.Sprintf(`INSERT INTO rr VALUES ('2024-01-%02d', %s, '%c')`, 1+i%14, a, 'a'+i%6),
				fmt.Sprintf(`INSERT INTO rl VALUES ('%c', %s, round(%d / 2.0, 1))`, 'a'+i%6, a, i),
				fmt.Sprintf(`INSERT INTO rc VALUES ('%c', %d, %s)`, 'a'+i%3, i, a),
				fmt.Sprintf(`INSERT INTO rn VALUES (%.1f, %s, '%c')`, float64(i-8)/2, a, 'a'+i%6))
		}
	}
	return append(rows,
		`INSERT INTO rr VALUES ('infinity', 1, NULL)`, `INSERT INTO rl VALUES (NULL, 3, 1.0), (NULL, NULL, 2.0)`,
		`INSERT INTO rc VALUES (NULL, NULL, 1)`, `INSERT INTO rc VALUES ('a', NULL, 2)`, `INSERT INTO rn VALUES ('NaN', 4, 'n')`)
}

func newGenerator(seed uint64) *generator {
	return &generator{random: rand.New(rand.NewPCG(seed, 17))}
}

func (g *generator) pick(choices ...string) string { return choices[g.random.IntN(len(choices))] }

func (g *generator) chance(percent int) bool { return g.random.IntN(100) < percent }

// next makes a statement.
func (g *generator) next() generated {
	if len(g.first) > 0 {
		sql := g.first[0]
		g.first = g.first[1:]
		return generated{statement: Statement{SQL: sql}}
	}
	g.args, g.params = nil, g.chance(50)
	table := generatedTables[g.random.IntN(len(generatedTables))]
	alias := g.pick("", "", "t", "x")
	from, prefix := table.name, ""
	if alias != "" {
		from, prefix = table.name+g.pick(" ", " AS ")+alias, alias+"."
	}
	sql := "SELECT " + g.selectList(table, prefix) + " FROM " + from
	if g.chance(90) {
		sql += " WHERE " + g.condition(table, prefix, g.random.IntN(4))
	}
	order, total := g.order(table, prefix)
	sql += order
	whole := sql
	limit := g.limit()
	st := Statement{SQL: sql + limit, Args: g.args, Ordered: order != "" && total, AnyMessage: true}
	result := generated{statement: st}
	if limit != "" && !st.Ordered {
		result.whole = &Statement{SQL: whole}
		if len(g.args) > 0 { // numbers of LIMIT's parameters are not in it
			result.whole.SQL = inline(Statement{SQL: whole, Args: g.args})
		}
	}
	return result
}

func (g *generator) selectList(table generatedTable, prefix string) string {
	column := func() string { return prefix + table.columns[g.random.IntN(len(table.columns))].name }
	switch g.random.IntN(12) {
	case 0:
		return prefix + table.columns[0].name
	case 1:
		return column() + ", " + column()
	case 2:
		return "1 AS one, " + column() + " AS renamed"
	case 3:
		return g.pick("count(*)", "max("+column()+")", "count(DISTINCT "+column()+")")
	case 4:
		return fmt.Sprintf("CASE WHEN %s THEN 1 ELSE 0 END AS flag, %s", g.condition(table, prefix, 1), column())
	case 5:
		return "DISTINCT " + column()
	case 6:
		return column() + " IS NULL AS missing"
	}
	return "*"
}

// condition makes a tree of conditions.
func (g *generator) condition(table generatedTable, prefix string, depth int) string {
	if depth > 0 {
		left, right := g.condition(table, prefix, depth-1), g.condition(table, prefix, g.random.IntN(depth))
		switch g.random.IntN(6) {
		case 0, 1:
			return left + " AND " + right
		case 2, 3:
			return "(" + left + " OR " + right + ")"
		case 4:
			return "NOT (" + left + ")"
		}
		return "(" + left + ")" + g.pick("", " IS TRUE", " IS NOT FALSE", " IS NOT TRUE") + " AND (" + right + ")"
	}
	column := table.columns[0]
	if g.chance(35) {
		column = table.columns[g.random.IntN(len(table.columns))]
	}
	name := prefix + column.name
	switch g.random.IntN(14) {
	case 0, 1, 2, 3:
		return name + " = " + g.value(column)
	case 4:
		return g.value(column) + g.pick(" = ", " < ", " >= ") + name
	case 5:
		var list []string
		for range 1 + g.random.IntN(4) {
			list = append(list, g.value(column))
		}
		return name + g.pick(" IN (", " IN (", " NOT IN (") + strings.Join(list, ", ") + ")"
	case 6:
		return name + g.pick(" BETWEEN ", " BETWEEN ", " BETWEEN SYMMETRIC ") + g.value(column) + " AND " + g.value(column)
	case 7:
		return name + g.pick(" IS NULL", " IS NOT NULL")
	case 8:
		return name + g.pick(" IS DISTINCT FROM ", " IS NOT DISTINCT FROM ") + g.value(column)
	case 9:
		return name + " = ANY (ARRAY[" + g.literal(column) + ", " + g.literal(column) + "])"
	}
	return name + g.pick(" < ", " <= ", " > ", " >= ", " <> ") + g.value(column)
}

// value is a literal or a new parameter.
func (g *generator) value(column generatedColumn) string {
	if !g.params || len(g.args) >= 6 || g.chance(40) {
		return g.literal(column)
	}
	arg := Arg{Text: g.plain(column), Type: column.declared[g.random.IntN(len(column.declared))]}
	arg.Null = g.chance(4)
	g.args = append(g.args, arg)
	return fmt.Sprintf("$%d", len(g.args))
}

// plain is a value in text format.
func (g *generator) plain(column generatedColumn) string {
	switch column.kind {
	case "int":
		return fmt.Sprint(g.random.IntN(44) - 22)
	case "numeric":
		return g.pick(fmt.Sprint(g.random.IntN(10)-5), fmt.Sprintf("%d.5", g.random.IntN(6)), "2.50", "-1", "0.25")
	case "date":
		return g.pick(fmt.Sprintf("2024-01-%02d", 1+g.random.IntN(15)), "2024-01-05", "2024-01-10")
	}
	return g.pick("a", "b", "c", "d", "e", "zz", "")
}

// literal writes a value in one of the forms that Postgres takes.
func (g *generator) literal(column generatedColumn) string {
	text := g.plain(column)
	switch column.kind {
	case "int":
		return g.pick(text, text, text, "'"+text+"'", text+"::int8", "("+text+")", text+".0", "'0"+strings.TrimPrefix(text, "-")+"'", "int '"+text+"'",
			text+"::numeric", text+"::float8", "NULL", text+" + 0", "3000000000")
	case "numeric":
		return g.pick(text, text, "'"+text+"'", text+"::numeric", text+"::numeric(10,4)", text+"00::numeric", text+"::float8", "NULL")
	case "date":
		return g.pick("'"+text+"'", "'"+text+"'", "date '"+text+"'", "'"+text+"'::date", "'"+strings.ReplaceAll(text, "-", "")+"'",
			"timestamp '"+text+" 12:00'", "'"+text+"'::timestamp", "NULL", "'infinity'", "'January 5, 2024'", "'01/05/2024'")
	}
	return g.pick("'"+text+"'", "'"+text+"'", "E'"+text+"'", "$$"+text+"$$", "'"+text+"'::text", "'"+text+"'::varchar", "'"+text+" '::char(3)", "NULL")
}

// order makes an ORDER BY; total tells that rows that compare equal are equal in all columns.
func (g *generator) order(table generatedTable, prefix string) (sql string, total bool) {
	if g.chance(35) {
		return "", false
	}
	direction := func() string {
		return g.pick("", " ASC", " DESC") + g.pick("", "", " NULLS FIRST", " NULLS LAST")
	}
	columns := g.random.Perm(len(table.columns))
	if g.chance(30) {
		columns = columns[:1+g.random.IntN(len(columns))]
	}
	var keys []string
	for _, i := range columns {
		name := prefix + table.columns[i].name
		if table.columns[i].kind == "text" {
			name += ` COLLATE "C"`
		}
		keys = append(keys, name+direction())
	}
	return " ORDER BY " + strings.Join(keys, ", "), len(columns) == len(table.columns)
}

func (g *generator) limit() string {
	number := func() string {
		n := fmt.Sprint(g.random.IntN(12))
		if g.params && g.chance(40) {
			g.args = append(g.args, Arg{Text: n, Type: g.pick("", "int8")})
			return fmt.Sprintf("$%d", len(g.args))
		}
		return n
	}
	switch g.random.IntN(6) {
	case 0, 1:
		return " LIMIT " + number()
	case 2:
		return " LIMIT " + number() + " OFFSET " + number()
	case 3:
		return " OFFSET " + number()
	}
	return ""
}
