package oracle

import (
	"fmt"
	"strings"
)

// nextInsert makes an INSERT of several rows, with ON CONFLICT often.
func (g *generator) nextInsert() (statement Statement, table string) {
	g.args, g.params = nil, g.chance(50)
	into := generatedTables[g.random.IntN(len(generatedTables))]
	if g.chance(30) {
		into = generatedTables[0] // the one with a unique constraint
	}
	columns, list := into.columns, ""
	if g.chance(40) {
		columns = nil
		for _, i := range g.random.Perm(len(into.columns)) {
			if i == 0 || g.chance(70) {
				columns = append(columns, into.columns[i])
			}
		}
		list = " (" + names(columns) + ")"
	}
	alias, target := "", into.name
	if g.chance(30) {
		alias, target = " AS x", "x"
	}
	// Few rows fail: which one's error is told, if several fail, is not fixed.
	risky := g.chance(15)
	rows := make([]string, 1+g.random.IntN(7))
	for i := range rows {
		rows[i] = g.row(into, columns, risky)
	}
	sql := "INSERT INTO " + into.name + alias + list + " VALUES " + strings.Join(rows, ", ")
	g.parts = parts{head: "INSERT INTO " + into.name + alias + list + " VALUES ", rows: rows}
	each := true
	if into.name == "rh" && g.chance(70) || g.chance(20) {
		var clause string
		clause, each = g.conflict(into, target)
		sql += clause
		g.parts.tail = clause
	}
	st := Statement{AnyMessage: true}
	if g.chance(60) {
		sql += " RETURNING " + g.pick("*", target+"."+into.columns[0].name, "1 AS one, a, "+into.columns[0].name, "a IS NULL AS missing, "+into.columns[0].name)
		st.Ordered = each
	}
	st.SQL, st.Args = sql, g.args
	return st, into.name
}

func names(columns []generatedColumn) string {
	list := make([]string, len(columns))
	for i, c := range columns {
		list[i] = c.name
	}
	return strings.Join(list, ", ")
}

// row is one row of VALUES. Only a risky one may have a key that no row can have.
func (g *generator) row(table generatedTable, columns []generatedColumn, risky bool) string {
	values := make([]string, len(columns))
	for i, c := range columns {
		switch {
		case c.name != table.columns[0].name:
			values[i] = g.value(c)
			if c.kind == "int" && !risky && strings.Contains(values[i], "3000000000") {
				values[i] = "DEFAULT"
			}
		case risky && table.name != "rr" && table.name != "rn": // a RANGE has no partition for NULL
			values[i] = g.value(c)
		default:
			values[i] = g.key(table, c)
		}
	}
	return "(" + strings.Join(values, ", ") + ")"
}

// key is a value of a shard key that can be stored: mostly a new one where keys are unique.
func (g *generator) key(table generatedTable, c generatedColumn) string {
	for {
		if table.name == "rh" && g.chance(60) {
			text := fmt.Sprint(g.random.IntN(1_000_000) - 500_000)
			return g.pick(text, "'"+text+"'", text+"::int8", text+".2", text+" + 1", "abs("+text+")", "numeric '"+text+".6'")
		}
		before := len(g.args)
		value := g.value(c)
		if null := len(g.args) > before && g.args[before].Null; !null && value != "NULL" && value != "3000000000" {
			return value
		}
		g.args = g.args[:before]
	}
}

// conflict makes an ON CONFLICT clause; each tells that every row is returned.
func (g *generator) conflict(table generatedTable, target string) (clause string, each bool) {
	if table.name != "rh" {
		return " ON CONFLICT DO NOTHING", false
	}
	if g.chance(40) {
		return " ON CONFLICT" + g.pick("", " (k)", " ON CONSTRAINT rh_pkey") + " DO NOTHING", false
	}
	sets := g.pick("a = excluded.a", "a = "+target+".a + 1, c = excluded.c", "k = excluded.k, b = excluded.b * 2", "k = "+target+".k, c = 'again'",
		"(a, b) = (excluded.k, "+target+".b)", "a = DEFAULT", "c = excluded.c || "+target+".c")
	clause = " ON CONFLICT (k) DO UPDATE SET " + sets
	if g.chance(30) {
		return clause + " WHERE " + g.pick(target+".a > 2", "excluded.a IS NOT NULL", target+".k < 0", target+".a IS DISTINCT FROM excluded.a"), false
	}
	return clause, true
}
