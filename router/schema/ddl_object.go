package schema

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
	"github.com/shardyard/shardyard/router/catalogs"
	"github.com/shardyard/shardyard/router/pgerr"
)

// objectDDL runs a statement about types or functions on the home shard and on every shard that has one of
// the objects that it names. All distributed tables are held meanwhile: any may use them.
func (p *Performer) objectDDL(ctx context.Context, m *directory.Map, r Request) (result *Result, err error) {
	home, err := p.dial(ctx, m, m.Home, "shardyard-look")
	if err != nil {
		return nil, err
	}
	defer p.close(ctx, home)
	snapshot, err := catalogs.LoadOn(ctx, home)
	if err != nil {
		return nil, err
	}
	named, err := p.namedObjects(ctx, home, snapshot, r.SQL)
	if err != nil {
		return nil, err
	}
	shards := []directory.ShardID{m.Home}
	for _, shard := range m.Shards {
		if shard.ID == m.Home {
			continue
		}
		has, err := p.hasAny(ctx, m, shard.ID, named)
		if err != nil {
			return nil, err
		}
		if has {
			shards = append(shards, shard.ID)
		}
	}
	var tables []directory.TableName
	for i := range m.Tables {
		if m.Tables[i].Hold != nil {
			return nil, held(&m.Tables[i])
		}
		tables = append(tables, m.Tables[i].Name)
	}
	if len(tables) == 0 {
		return nil, pgerr.Newf(pgerr.InternalError, "no table of database %s is distributed: %s needs no other shard", m.Database, r.Tag)
	}
	op := p.newOperation(m, r.Tag, tables, shards)
	defer func() { op.end(ctx, err) }()
	if err := op.setHold(ctx); err != nil {
		return nil, err
	}
	d := &ddl{operation: op, request: r, holders: shards}
	for _, shard := range shards {
		conn, err := op.beginAs(ctx, shard, r)
		if err != nil {
			return nil, err
		}
		op.wrote = append(op.wrote, shard)
		if err := d.runAs(ctx, conn); err != nil {
			return nil, err
		}
	}
	if err := op.recheckAll(ctx); err != nil {
		return nil, err
	}
	if err := op.prepare(ctx); err != nil {
		return nil, err
	}
	if err := op.decide(ctx); err != nil {
		return nil, err
	}
	return &Result{Tag: r.Tag}, nil
}

// recheckAll holds every distributed table that stands on the home shard against the rules, with the new
// objects; those that do not stand there have neither triggers nor expressions there, and their own are
// checked through the home shard's functions.
func (op *operation) recheckAll(ctx context.Context) error {
	home, err := catalogs.LoadOn(ctx, op.conns[op.m.Home])
	if err != nil {
		return err
	}
	loaded := map[directory.ShardID]*catalog.Snapshot{op.m.Home: home}
	for i := range op.m.Tables {
		table := op.m.Tables[i]
		holders := op.m.ShardsOf(&table)
		shard := holders[0]
		if slices.Contains(holders, op.m.Home) {
			shard = op.m.Home
		}
		there := loaded[shard]
		if there == nil {
			conn := op.conns[shard]
			if conn == nil {
				if conn, err = op.begin(ctx, shard); err != nil {
					return err
				}
			}
			if there, err = catalogs.LoadOn(ctx, conn); err != nil {
				return err
			}
			loaded[shard] = there
		}
		rel, ok := there.Relation(table.Name)
		if !ok {
			continue
		}
		table.UniqueLocal = slices.Clone(table.UniqueLocal)
		s := &subject{catalog: home, there: there, rel: rel, m: op.m, table: &table, verb: "change", was: table.Name}
		if err := s.check(); err != nil {
			return err
		}
	}
	return nil
}

// namedObjects are the functions and types of the home shard that a statement names.
func (p *Performer) namedObjects(ctx context.Context, conn *pgx.Conn, snapshot *catalog.Snapshot, sql string) ([]dependency, error) {
	functions, types := snapshot.Named(sql)
	var all []dependency
	for _, f := range functions {
		d := dependency{Kind: "function"}
		if err := conn.QueryRow(ctx, "SELECT pg_catalog.format('%I.%I(%s)', $1::text, $2::text, (SELECT pg_catalog.string_agg(pg_catalog.format_type(t, NULL), ',' ORDER BY pos) FROM pg_catalog.unnest($3::oid[]) WITH ORDINALITY x(t, pos)))",
			f.Schema, f.Name, f.ArgTypes).Scan(&d.Identity); err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	for _, t := range types {
		all = append(all, dependency{Kind: "type", Identity: directory.TableName{Schema: t.Schema, Name: t.Name}.String()})
	}
	return all, nil
}

func (p *Performer) hasAny(ctx context.Context, m *directory.Map, shard directory.ShardID, objects []dependency) (bool, error) {
	if len(objects) == 0 {
		return false, nil
	}
	conn, err := p.dial(ctx, m, shard, "shardyard-look")
	if err != nil {
		return false, err
	}
	defer p.close(ctx, conn)
	for _, object := range objects {
		query := "SELECT pg_catalog.to_regtype($1) IS NOT NULL"
		if object.Kind == "function" {
			query = "SELECT pg_catalog.to_regprocedure($1) IS NOT NULL"
		}
		var there bool
		if err := conn.QueryRow(ctx, query, object.Identity).Scan(&there); err != nil || there {
			return there, err
		}
	}
	return false, nil
}
