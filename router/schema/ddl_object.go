package schema

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
	"github.com/shardyard/shardyard/router/pgerr"
)

// object runs a statement about an object that is no table (a type, a function, a schema, a role, …) on the home
// shard and on every shard that holds a table of the map. A shard that lacks what the statement needs is left
// out: there the object cannot be made, or is not.
func (w *work) object(ctx context.Context, depth int) error {
	if w.request.Alters {
		if err := w.t.hold(ctx, w.links, w.m, w.request.Tag, tablesOf(w.m), depth); err != nil {
			return err
		}
	}
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
	if !w.request.Alters {
		return nil
	}
	return w.recheckAll(ctx)
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
// statement is about, or what it needs: undefined objects, functions, tables, schemas, columns. A role that is
// there already was brought with a table.
func (w *work) dispensable(err error) bool {
	if isState(err, "42704", "42883", "42P01", "3F000", "42703") {
		return true
	}
	e := pgerr.Of(err)
	switch e.Code {
	case "42704", "42883", "42P01", "3F000", "42703":
		return true
	case "42710":
		return w.request.Tag == "CREATE ROLE"
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
