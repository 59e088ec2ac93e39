package router

import (
	"strings"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/planner/lexer"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// pg_dump through the router reads the catalog of the home shard. Three things there are the cluster's and not
// the application's: the schema shardyard, the wrapper of placeholders, and the triggers that capture changes. A
// session of pg_dump does not see them: common table expressions stand in front of its queries of the catalog,
// and hide what they must not show. What stands elsewhere, behind a placeholder, is shown as a table, so that
// pg_dump locks it, and is refused there: the home shard lacks its indexes and constraints, and a dump without
// them would be incomplete.

// dumper is the application_name under which pg_dump begins a session.
const dumper = "pg_dump"

// dumpViews are the catalogs as pg_dump shall see them. It never dumps a schema whose name begins with pg_.
const dumpViews = `WITH pg_namespace AS (SELECT tableoid, oid, CASE nspname WHEN 'shardyard' THEN 'pg_shardyard' ELSE nspname END AS nspname, nspowner, nspacl FROM pg_catalog.pg_namespace), ` +
	`pg_foreign_data_wrapper AS (SELECT tableoid, * FROM pg_catalog.pg_foreign_data_wrapper WHERE fdwname <> 'shardyard_elsewhere'), ` +
	`pg_foreign_server AS (SELECT tableoid, * FROM pg_catalog.pg_foreign_server WHERE srvname <> 'shardyard_elsewhere') `

// dumpTriggers are the triggers of the application.
const dumpTriggers = `(SELECT x.tableoid, x.* FROM pg_catalog.pg_trigger x WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_proc f ` +
	`JOIN pg_catalog.pg_namespace s ON s.oid = f.pronamespace WHERE f.oid = x.tgfoid AND s.nspname = 'shardyard')) `

// dumpKind shows a placeholder as a table.
const dumpKind = `c.relnamespace, CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_foreign_table x JOIN pg_catalog.pg_foreign_server y ON y.oid = x.ftserver ` +
	`WHERE x.ftrelid = c.oid AND y.srvname = 'shardyard_elsewhere') THEN 'r'::"char" ELSE c.relkind END AS relkind, `

// dumpText is a text of pg_dump as it is run.
func dumpText(text string) string {
	switch {
	case strings.HasPrefix(text, "LOCK TABLE "):
		return lockEach(text)
	case !strings.HasPrefix(text, "SELECT "):
		return text
	case strings.Contains(text, "pg_catalog.pg_trigger t "):
		return strings.ReplaceAll(text, "pg_catalog.pg_trigger t ", dumpTriggers+"t ")
	case strings.Contains(text, "FROM pg_class c"):
		return strings.Replace(text, "c.relnamespace, c.relkind, ", dumpKind, 1)
	case strings.Contains(text, "FROM pg_namespace n"), strings.Contains(text, "FROM pg_foreign_data_wrapper"), strings.Contains(text, "FROM pg_foreign_server"):
		return dumpViews + text
	}
	return text
}

// lockEach makes of one LOCK TABLE of many tables one for each: they may stand on different shards.
func lockEach(text string) string {
	list, mode, ok := strings.Cut(strings.TrimPrefix(text, "LOCK TABLE "), " IN ACCESS SHARE MODE")
	if !ok || strings.TrimSpace(mode) != "" && strings.TrimSpace(mode) != ";" {
		return text
	}
	var statements []string
	start := 0
	add := func(name string) {
		statements = append(statements, "LOCK TABLE "+strings.TrimSpace(name)+" IN ACCESS SHARE MODE")
	}
	for lex := lexer.New(list); ; {
		token, ok := lex.Next()
		if !ok {
			break
		}
		if token.IsPunct(list, ',') {
			add(list[start:token.Start])
			start = token.End
		}
	}
	add(list[start:])
	return strings.Join(statements, ";")
}

// dumpable refuses to dump a table of which the home shard has a placeholder only.
func (c *Session) dumpable(plan *planner.Plan) error {
	if plan.Tag != "LOCK TABLE" {
		return nil
	}
	m := c.view.partitions
	for _, name := range plan.Tables {
		table, ok := m.Table(name)
		if !ok {
			continue
		}
		elsewhere := true
		for _, shard := range m.ShardsOf(table) {
			elsewhere = elsewhere && shard != m.Home
		}
		if elsewhere {
			return pgerr.Unsupported("pg_dump through the router of table "+name.String()+", which has no partition on the home shard, is not supported",
				"Leave it out with --exclude-table, and dump it on its own shards.")
		}
	}
	return nil
}

// queryText is the text of a Query as it is run.
func (c *Session) queryText(body []byte) (string, error) {
	text, err := wire.DecodeQuery(body)
	if err != nil || !c.dumping {
		return wire.View(text), err
	}
	return dumpText(string(text)), nil
}
