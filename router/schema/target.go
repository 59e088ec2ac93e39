package schema

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
	"github.com/shardyard/shardyard/planner/shardsql"
	"github.com/shardyard/shardyard/router/catalogs"
	"github.com/shardyard/shardyard/router/pgerr"
)

// homeShard is a connection to the home shard and what it knew when it was last asked.
type homeShard struct {
	conn    *pgx.Conn
	loader  *catalogs.Loader
	catalog *catalog.Snapshot
}

func (h *homeShard) load(ctx context.Context) (err error) {
	h.catalog, err = h.loader.LoadOn(ctx, h.conn)
	return err
}

// target is what a sharding statement is to make of a table.
type target struct {
	rel   *catalog.Relation
	table directory.Table
	group *directory.Group // a new one, or nil
	// holders are the shards that will have the table, in the map's order.
	holders []directory.ShardID
}

// resolve finds the table of a statement on the home shard and checks that the user may change it.
func resolve(ctx context.Context, h *homeShard, name shardsql.Name, r Request) (*catalog.Relation, error) {
	path := h.catalog.EffectivePath(r.SearchPath, r.User)
	rel, ok := h.catalog.ResolveTable(name.Schema, name.Name, path)
	if !ok {
		if name.Schema != "" && !h.catalog.SchemaExists(name.Schema) {
			return nil, pgerr.Newf("3F000", "schema %q does not exist", name.Schema).At(name.Position)
		}
		return nil, pgerr.Newf("42P01", "relation %q does not exist", displayName(name)).At(name.Position)
	}
	var owner bool
	err := h.conn.QueryRow(ctx, `SELECT pg_catalog.pg_has_role($1::name, c.relowner, 'USAGE') FROM pg_catalog.pg_class c WHERE c.oid = $2`,
		r.User, rel.OID).Scan(&owner)
	if err != nil {
		return nil, err
	}
	if !owner && !rel.System {
		return nil, pgerr.Newf("42501", "must be owner of table %s", rel.Name.Name)
	}
	return rel, nil
}

// plan works out what the statement makes of its table, and refuses what cannot be.
func plan(ctx context.Context, h *homeShard, m *directory.Map, r Request) (*target, error) {
	var name shardsql.Name
	switch s := r.Statement.(type) {
	case *shardsql.ShardTable:
		name = s.Table
	case *shardsql.PinTable:
		name = s.Table
	case *shardsql.ReferenceTable:
		name = s.Table
	case *shardsql.UnshardTable:
		name = s.Table
	}
	rel, err := resolve(ctx, h, name, r)
	if err != nil {
		return nil, err
	}
	existing, mapped := m.Table(rel.Name)
	if mapped && existing.Hold != nil {
		return nil, held(existing)
	}
	if _, unshard := r.Statement.(*shardsql.UnshardTable); unshard {
		return planUnshard(rel, existing)
	}
	if mapped {
		return nil, pgerr.Newf("55000", "table %q is already %s", rel.Name.Name, existing.Kind).At(name.Position).
			WithHint("UNSHARD TABLE brings an empty table back to the home shard.")
	}
	t := &target{rel: rel, table: directory.Table{Name: rel.Name}}
	s := &subject{catalog: h.catalog, rel: rel, m: m, table: &t.table}
	switch statement := r.Statement.(type) {
	case *shardsql.PinTable:
		s.verb, t.table.Kind = "pin", directory.TablePinned
		if err := s.checkKind(); err != nil {
			return nil, err
		}
		if t.table.Shard, err = namedShard(m, statement.Shard, statement.ShardPosition); err != nil {
			return nil, err
		}
		if t.table.Shard == m.Home {
			return nil, pgerr.Newf("55000", "table %q is on the home shard %q already", rel.Name.Name, m.Home).At(statement.ShardPosition).
				WithHint("Name another shard; SHOW SHARDS lists them.")
		}
		t.holders = []directory.ShardID{t.table.Shard}
	case *shardsql.ReferenceTable:
		s.verb = "shard"
		if err := s.checkKind(); err != nil {
			return nil, err
		}
		if err := planReference(m, t); err != nil {
			return nil, err
		}
	case *shardsql.ShardTable:
		s.verb, t.table.Kind, s.local = "shard", directory.TableSharded, statement.UniqueLocal
		if err := s.checkKind(); err != nil {
			return nil, err
		}
		if err := planSharded(ctx, h, m, r, statement, t); err != nil {
			return nil, err
		}
	}
	s.holders = t.holders
	return t, s.check()
}

func held(t *directory.Table) error {
	return pgerr.Newf("55006", "table %q is being changed", t.Name.Name).
		WithDetail("By: " + t.Hold.Reason + ", on router " + t.Hold.Owner + ".").WithHint("Try again when that has ended.")
}

func planSharded(ctx context.Context, h *homeShard, m *directory.Map, r Request, s *shardsql.ShardTable, t *target) error {
	table := &t.table
	var err error
	if table.Key, table.KeyTypes, table.KeyTypmods, err = keyColumns(t.rel, s.Key, directory.Method(s.Method)); err != nil {
		return err
	}
	if s.SubMethod != "" {
		table.SubKey, table.SubKeyTypes, table.SubKeyTypmods, err = keyColumns(t.rel, s.SubKey, directory.Method(s.SubMethod))
		if err != nil {
			return err
		}
	}
	if s.Colocate != nil {
		return planColocated(h, m, r, s, t)
	}
	var group directory.Group
	if r.directory != nil {
		group, err = newDirectoryGroup(m, r.directory, table)
	} else {
		group, err = newGroup(ctx, h, m, s, table)
	}
	if err != nil {
		return err
	}
	t.group, table.Group = &group, group.ID
	for _, shard := range m.Shards {
		if slices.ContainsFunc(group.Partitions, func(p directory.Partition) bool { return p.Shard == shard.ID }) {
			t.holders = append(t.holders, shard.ID)
		}
	}
	// The group's other invariants are those of the map: a trial tells before anything is changed.
	if _, err := (directory.AddTable{Group: group, Table: *table}).Apply(m); err != nil {
		return pgerr.Newf("42P17", "the partitions of table %q do not fit together", t.rel.Name.Name).WithDetail(err.Error())
	}
	return nil
}

func planColocated(h *homeShard, m *directory.Map, r Request, s *shardsql.ShardTable, t *target) error {
	path := h.catalog.EffectivePath(r.SearchPath, r.User)
	rel, ok := h.catalog.ResolveTable(s.Colocate.Schema, s.Colocate.Name, path)
	if !ok {
		return pgerr.Newf("42P01", "relation %q does not exist", displayName(*s.Colocate)).At(s.Colocate.Position)
	}
	with, ok := m.Table(rel.Name)
	if !ok || with.Kind != directory.TableSharded {
		return pgerr.Newf("55000", "table %q is not sharded", rel.Name.Name).At(s.Colocate.Position).
			WithHint("Shard it first, then this one COLOCATE WITH it.")
	}
	if with.Hold != nil {
		return held(with)
	}
	group, ok := m.Group(with.Group)
	if !ok {
		return pgerr.Newf(pgerr.InternalError, "group %q of table %s is not in the map", with.Group, with.Name)
	}
	if directory.Method(s.Method) != group.Method || directory.Method(s.SubMethod) != group.SubMethod {
		return pgerr.Newf("42P16", "table %q is sharded by %s, not by %s", rel.Name.Name, methodText(group.Method, group.SubMethod),
			methodText(directory.Method(s.Method), directory.Method(s.SubMethod))).At(s.Colocate.Position).
			WithHint("Colocated tables are sharded by the same method.")
	}
	if s.Partitions > 0 || len(s.Defs) > 0 {
		return pgerr.New("42P16", "COLOCATE WITH takes the partitions of the other table").At(s.Colocate.Position).
			WithHint("Leave the partitions out.")
	}
	if err := matchKeys(t.table.KeyTypes, group.Key, s.Key); err != nil {
		return err
	}
	if err := matchKeys(t.table.SubKeyTypes, group.SubKey, s.SubKey); err != nil {
		return err
	}
	t.table.Group = with.Group
	for _, shard := range m.Shards {
		if slices.Contains(group.Shards(), shard.ID) {
			t.holders = append(t.holders, shard.ID)
		}
	}
	return nil
}

func methodText(method, sub directory.Method) string {
	if sub == "" {
		return string(method)
	}
	return string(method) + ", then " + string(sub)
}

func matchKeys(own, group []directory.KeyType, columns []shardsql.Column) error {
	if len(own) != len(group) {
		return pgerr.Newf("42P16", "the key has %d columns, that of the other table %d", len(own), len(group)).At(columns[0].Position)
	}
	for i := range own {
		if own[i].Family() != group[i].Family() {
			return pgerr.Newf("42804", "column %q is of type %s, the key of the other table of type %s", columns[i].Name, own[i], group[i]).
				At(columns[i].Position).WithHint("Their values do not hash or compare alike; give the columns types of one family.")
		}
	}
	return nil
}

// planUnshard is the way back of a table without rows.
func planUnshard(rel *catalog.Relation, existing *directory.Table) (*target, error) {
	if existing == nil {
		return nil, pgerr.Newf("55000", "table %q is not sharded", rel.Name.Name).WithHint("It is on the home shard.")
	}
	return &target{rel: rel, table: *existing}, nil
}
