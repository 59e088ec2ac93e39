package schema

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
	"github.com/shardyard/shardyard/router/pgerr"
)

// object runs a statement about an object that is no table (a type, a function, a schema, …) on the home
// shard and on every shard that holds a table of the map, or on all (a role, …). A shard that lacks what the statement needs is left
// out: there the object cannot be made, or is not.
func (w *work) object(ctx context.Context, depth int) error {
	holds := w.request.Replaces
	if w.request.Alters && !holds {
		var err error
		if holds, err = w.tablesRest(ctx); err != nil {
			return err
		}
	}
	if holds {
		if err := w.t.hold(ctx, w.links, w.m, w.request.Tag, tablesOf(w.m), depth); err != nil {
			return err
		}
	}
	run := w.objectWhereUsed
	if w.request.Everywhere {
		run = w.everywhere
	}
	if err := run(ctx); err != nil {
		return err
	}
	if !holds {
		return nil
	}
	return w.recheckAll(ctx)
}

func (w *work) objectWhereUsed(ctx context.Context) error {
	if err := w.t.p.reached("run " + string(w.m.Home)); err != nil {
		return err
	}
	if err := w.run(ctx, w.m.Home, true); err != nil {
		return err
	}
	for _, shard := range usedShards(w.m) {
		if shard == w.m.Home {
			continue
		}
		if err := w.t.p.reached("run " + string(shard)); err != nil {
			return err
		}
		if err := w.objectOn(ctx, shard); err != nil {
			return err
		}
	}
	return nil
}

// restQuery tells whether any of the tables with these schemas and names rests on an object that is not Postgres's own, such as
// a type or a function, or is not on this shard.
const restQuery = `
WITH tables AS MATERIALIZED (
  SELECT c.oid, c.relkind FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) t(s, n)
  LEFT JOIN (pg_catalog.pg_class c JOIN pg_catalog.pg_namespace ns ON ns.oid = c.relnamespace) ON ns.nspname = t.s AND c.relname = t.n
), indexes AS MATERIALIZED (
  SELECT i.indexrelid AS oid FROM pg_catalog.pg_index i WHERE i.indrelid IN (SELECT oid FROM tables)
), parts(class, oid) AS (
  SELECT 'pg_catalog.pg_class'::regclass, oid FROM tables UNION ALL SELECT 'pg_catalog.pg_class'::regclass, oid FROM indexes
  UNION ALL SELECT 'pg_catalog.pg_constraint'::regclass, oid FROM pg_catalog.pg_constraint WHERE conrelid IN (SELECT oid FROM tables)
  UNION ALL SELECT 'pg_catalog.pg_attrdef'::regclass, oid FROM pg_catalog.pg_attrdef WHERE adrelid IN (SELECT oid FROM tables)
  UNION ALL SELECT 'pg_catalog.pg_trigger'::regclass, oid FROM pg_catalog.pg_trigger WHERE tgrelid IN (SELECT oid FROM tables)
  UNION ALL SELECT 'pg_catalog.pg_policy'::regclass, oid FROM pg_catalog.pg_policy WHERE polrelid IN (SELECT oid FROM tables)
  UNION ALL SELECT 'pg_catalog.pg_rewrite'::regclass, oid FROM pg_catalog.pg_rewrite WHERE ev_class IN (SELECT oid FROM tables)
  UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::regclass, oid FROM pg_catalog.pg_statistic_ext WHERE stxrelid IN (SELECT oid FROM tables)
)
SELECT EXISTS (SELECT FROM tables WHERE oid IS NULL OR relkind = 'f')
  OR $3 AND EXISTS (SELECT FROM pg_catalog.pg_shdepend s JOIN tables t ON s.objid = t.oid AND s.classid = 'pg_catalog.pg_class'::regclass
                    AND s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))
  OR EXISTS (
  SELECT FROM parts p JOIN pg_catalog.pg_depend d ON d.classid = p.class AND d.objid = p.oid
  WHERE d.refobjid >= 16384
    AND d.refclassid NOT IN ('pg_catalog.pg_namespace'::regclass, 'pg_catalog.pg_constraint'::regclass)
    AND NOT (d.refclassid = 'pg_catalog.pg_class'::regclass AND (d.refobjid IN (SELECT oid FROM tables) OR d.refobjid IN (SELECT oid FROM indexes)))
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace ns ON ns.oid = f.pronamespace
                    WHERE d.refclassid = 'pg_catalog.pg_proc'::regclass AND f.oid = d.refobjid AND ns.nspname = 'shardyard'))`

// tablesRest reports whether any table of the map rests on an object of somebody's own.
//
// DROP OWNED and REASSIGN OWNED are about the tables themselves, if a role owns one or was granted something on it.
func (w *work) tablesRest(ctx context.Context) (rest bool, err error) {
	var schemas, names []string
	for _, table := range tablesOf(w.m) {
		schemas, names = append(schemas, table.Schema), append(names, table.Name)
	}
	err = w.links.Lend(ctx, w.m.Home, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, restQuery, schemas, names, strings.HasSuffix(w.request.Tag, " OWNED")).Scan(&rest)
	})
	return rest, err
}

func tablesOf(m *directory.Map) []directory.TableName {
	names := make([]directory.TableName, len(m.Tables))
	for i := range m.Tables {
		names[i] = m.Tables[i].Name
	}
	return names
}

// usedShards are those that hold a table of the map, in order.
func usedShards(m *directory.Map) []directory.ShardID {
	var shards []directory.ShardID
	for i := range m.Tables {
		shards = appendNew(shards, m.ShardsOf(&m.Tables[i])...)
	}
	slices.Sort(shards)
	return shards
}

// objectSavepoint stands while a statement runs that the shard may have no use for.
const objectSavepoint = "shardyard_object"

// objectOn runs the statement on a shard other than the home shard.
func (w *work) objectOn(ctx context.Context, shard directory.ShardID) error {
	var bodies string
	err := w.links.Lend(ctx, shard, func(conn *pgx.Conn) error {
		if err := run(ctx, conn, []string{"SAVEPOINT " + objectSavepoint}); err != nil {
			return err
		}
		if err := conn.QueryRow(ctx, "SELECT pg_catalog.current_setting('check_function_bodies')").Scan(&bodies); err != nil {
			return err
		}
		// A function's body may name tables that the shard does not have.
		return setLocal(ctx, conn, "check_function_bodies", "off")
	})
	if err != nil {
		return err
	}
	failed := w.run(ctx, shard, false)
	if failed != nil && !w.dispensable(failed) {
		return failed
	}
	return w.links.Lend(ctx, shard, func(conn *pgx.Conn) error {
		if failed != nil {
			return run(ctx, conn, []string{"ROLLBACK TO " + objectSavepoint, "RELEASE " + objectSavepoint})
		}
		if err := setLocal(ctx, conn, "check_function_bodies", bodies); err != nil {
			return err
		}
		return run(ctx, conn, []string{"RELEASE " + objectSavepoint})
	})
}

// dispensable tells whether an error, on another shard than home, says that the shard lacks what the
// statement is about, or what it needs: undefined objects, functions, tables, schemas, columns.
func (w *work) dispensable(err error) bool {
	switch pgerr.Of(err).Code {
	case "42704", "42883", "42P01", "3F000", "42703":
		return true
	}
	return false
}

// recheckAll holds every distributed table against the rules, with the new objects; those that do not stand on
// the home shard have neither triggers nor expressions there, and their own are checked through the home
// shard's functions.
func (w *work) recheckAll(ctx context.Context) error {
	home, err := w.catalogOn(ctx, w.m.Home)
	if err != nil {
		return err
	}
	loaded := map[directory.ShardID]*catalog.Snapshot{w.m.Home: home}
	for i := range w.m.Tables {
		table := w.m.Tables[i]
		holders := w.m.ShardsOf(&table)
		shard := holders[0]
		if slices.Contains(holders, w.m.Home) {
			shard = w.m.Home
		}
		there := loaded[shard]
		if there == nil {
			if there, err = w.catalogOn(ctx, shard); err != nil {
				return err
			}
			loaded[shard] = there
		}
		rel, ok := there.Relation(table.Name)
		if !ok {
			continue
		}
		table.UniqueLocal = slices.Clone(table.UniqueLocal)
		s := &subject{catalog: home, there: there, rel: rel, m: w.m, table: &table, verb: "change", was: table.Name}
		if err := s.check(); err != nil {
			return err
		}
	}
	return nil
}
