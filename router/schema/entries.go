package schema

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/planner/shardsql"
	"github.com/shardyard/shardyard/router/pgerr"
)

// asShardTable is SHARD TABLE … BY DIRECTORY as SHARD TABLE by the method directory.
func asShardTable(s *shardsql.DirectoryTable) *shardsql.ShardTable {
	return &shardsql.ShardTable{
		Table: s.Table, Method: shardsql.Method(directory.MethodDirectory), Key: s.Key, Colocate: s.Colocate, UniqueLocal: s.UniqueLocal,
	}
}

// newDirectoryGroup makes the group of SHARD TABLE … BY DIRECTORY: one partition for each shard.
func newDirectoryGroup(m *directory.Map, s *shardsql.DirectoryTable, t *directory.Table) (directory.Group, error) {
	g := directory.Group{
		ID: groupID(m, t.Name), Method: directory.MethodDirectory, Key: t.KeyTypes,
		Assign: directory.Assign(s.Assign), Entries: etcd.NewEntriesName(),
	}
	shards := activeShards(m)
	if s.Shards != nil {
		shards = nil
		for _, named := range s.Shards {
			shard, err := namedShard(m, named.Name, named.Position)
			if err != nil {
				return g, err
			}
			shards = append(shards, shard)
		}
	}
	if len(shards) == 0 {
		return g, pgerr.New("55000", "no shard is active").WithHint("Add a shard, or make one active again.")
	}
	for _, shard := range shards {
		g.Partitions = append(g.Partitions, directory.Partition{Name: string(shard), Shard: shard})
	}
	return g, nil
}

// tableOfEntries finds a table by DIRECTORY that a statement names, and its group.
func (p *Performer) tableOfEntries(
	ctx context.Context, h *homeShard, m *directory.Map, name shardsql.Name, r Request, privilege string,
) (*directory.Table, *directory.Group, error) {
	path := h.catalog.EffectivePath(r.SearchPath, r.User)
	rel, ok := h.catalog.ResolveTable(name.Schema, name.Name, path)
	if !ok {
		return nil, nil, pgerr.Newf("42P01", "relation %q does not exist", displayName(name)).At(name.Position)
	}
	var allowed bool
	query := `SELECT pg_catalog.pg_has_role($1::name, c.relowner, 'USAGE') FROM pg_catalog.pg_class c WHERE c.oid = $2`
	if privilege != "" {
		query = `SELECT pg_catalog.has_table_privilege($1::name, $2::oid, '` + privilege + `')`
	}
	if err := h.conn.QueryRow(ctx, query, r.User, rel.OID).Scan(&allowed); err != nil {
		return nil, nil, err
	}
	if !allowed && privilege != "" {
		return nil, nil, pgerr.Newf("42501", "permission denied for table %s", rel.Name.Name)
	}
	if !allowed {
		return nil, nil, pgerr.Newf("42501", "must be owner of table %s", rel.Name.Name)
	}
	t, ok := m.Table(rel.Name)
	if !ok || t.Kind != directory.TableSharded {
		return nil, nil, pgerr.Newf("55000", "table %q is not sharded", rel.Name.Name).At(name.Position).
			WithHint("SHOW TABLES lists the tables that are.")
	}
	g, ok := m.Group(t.Group)
	if !ok {
		return nil, nil, pgerr.Newf(pgerr.InternalError, "group %q of table %s is not in the map", t.Group, t.Name)
	}
	if g.Method != directory.MethodDirectory {
		return nil, nil, pgerr.Newf("42809", "table %q is sharded by %s and has no entries", rel.Name.Name, methodText(g.Method, g.SubMethod)).
			At(name.Position).WithHint("Tables by DIRECTORY have entries; SHOW PARTITIONS shows where the rows of this one are.")
	}
	return t, g, nil
}

// withHome runs something that needs the home shard's catalog and the map of a database.
func (p *Performer) withHome(ctx context.Context, r Request, do func(*homeShard, *directory.Map) error) error {
	m, err := p.config.Store.LoadMap(ctx, r.Database)
	if errors.Is(err, etcd.ErrNotFound) {
		m, err = p.emptyMap(ctx, r.Database)
	}
	if err != nil {
		return err
	}
	conn, err := p.dial(ctx, m, m.Home, "shardyard-look")
	if err != nil {
		return err
	}
	defer p.close(ctx, conn)
	h := &homeShard{conn: conn, loader: &p.catalogs}
	if err := applySettings(ctx, conn, literals(r.Settings), false); err != nil {
		return err
	}
	if err := h.load(ctx); err != nil {
		return err
	}
	return do(h, m)
}

// keyOf reads the values of a key as the table stores them.
func keyOf(ctx context.Context, h *homeShard, t *directory.Table, literals []shardsql.Literal) ([]directory.Value, error) {
	if len(literals) != len(t.Key) {
		return nil, pgerr.Newf("42601", "there are %d values for a key of %d columns", len(literals), len(t.Key)).
			At(literals[0].Position).WithHint("The key is " + columnList(t.Key) + ".")
	}
	key := make([]directory.Value, len(literals))
	for i, literal := range literals {
		if literal.Kind == shardsql.LiteralNull {
			key[i] = directory.Null(t.KeyTypes[i])
			continue
		}
		var err error
		if key[i], err = typed(ctx, h, literal, t.KeyTypes[i], t.KeyTypmod(i)); err != nil {
			return nil, err
		}
	}
	if len(directory.EntryKeyOf(key)) > directory.MaxEntryKey {
		return nil, pgerr.New("54000", "the key is too long for an entry").At(literals[0].Position).
			WithHint("Its values may have " + strconv.Itoa(directory.MaxEntryKey) + " bytes together.")
	}
	return key, nil
}

// keyText shows a key as ALTER SHARD TABLE … ASSIGN takes it.
func keyText(key []directory.Value) string {
	texts := make([]string, len(key))
	for i, v := range key {
		texts[i] = v.Literal()
	}
	return "(" + strings.Join(texts, ", ") + ")"
}

// assign performs ALTER SHARD TABLE … ASSIGN.
func (p *Performer) assign(ctx context.Context, r Request, s *shardsql.AssignEntries) (*Result, error) {
	err := p.withHome(ctx, r, func(h *homeShard, m *directory.Map) error {
		t, g, err := p.tableOfEntries(ctx, h, m, s.Table, r, "")
		if err != nil {
			return err
		}
		if t.Hold != nil {
			return held(t)
		}
		shard, err := namedShard(m, s.Shard, s.ShardPosition)
		if err != nil {
			return err
		}
		if _, ok := g.PartitionNamed(string(shard)); !ok {
			return pgerr.Newf("55000", "shard %q does not hold rows of table %q", shard, t.Name.Name).At(s.ShardPosition).
				WithHint("The table's shards are " + shardNames(g.Shards()) + ".")
		}
		texts := make(map[directory.EntryKey]string)
		var keys []directory.EntryKey
		for _, literals := range s.Keys {
			key, err := keyOf(ctx, h, t, literals)
			if err != nil {
				return err
			}
			if encoded := directory.EntryKeyOf(key); !slices.Contains(keys, encoded) {
				keys = append(keys, encoded)
				texts[encoded] = keyText(key)
			}
		}
		err = p.entries.AssignTo(ctx, m, g, keys, shard)
		var there *etcd.NotThereError
		if errors.As(err, &there) {
			return pgerr.Unsupported("key "+texts[there.Key]+" is on shard "+string(there.Shard)+" already",
				"Moving a key to another shard is not supported yet. No key of this statement was assigned.").Because(err)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Result{Tag: tagOf(s)}, nil
}

// showEntries answers SHOW ENTRIES.
func (p *Performer) showEntries(ctx context.Context, r Request, s *shardsql.ShowEntries) (*Result, error) {
	result := &Result{Columns: []string{"key", "shard"}, Tag: "SHOW"}
	err := p.withHome(ctx, r, func(h *homeShard, m *directory.Map) error {
		t, g, err := p.tableOfEntries(ctx, h, m, s.Table, r, "SELECT")
		if err != nil {
			return err
		}
		var entries []etcd.Entry
		switch {
		case s.For != nil:
			key, err := keyOf(ctx, h, t, s.For)
			if err != nil {
				return err
			}
			encoded := directory.EntryKeyOf(key)
			shards, err := p.entries.Lookup(ctx, m, g, []directory.EntryKey{encoded})
			if err != nil {
				return err
			}
			if shards[0] != "" {
				entries = []etcd.Entry{{Key: encoded, Shard: shards[0]}}
			}
		default:
			var after directory.EntryKey
			if s.After != nil {
				key, err := keyOf(ctx, h, t, s.After)
				if err != nil {
					return err
				}
				after = directory.EntryKeyOf(key)
			}
			if entries, err = p.entries.List(ctx, g, after, s.Limit); err != nil {
				return err
			}
		}
		for _, entry := range entries {
			key, err := entry.Key.Values(g.Key)
			if err != nil {
				return pgerr.New("XX001", "an entry is not readable").Because(err)
			}
			result.Rows = append(result.Rows, []string{keyText(key), string(entry.Shard)})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return result, nil
}
