package schema

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/mirror"
	"github.com/shardyard/shardyard/planner/catalog"
	"github.com/shardyard/shardyard/router/pgerr"
)

// planReference makes a reference table of the target: on all shards, written on the home shard.
func planReference(m *directory.Map, t *target) error {
	key := mirrorKey(t.rel)
	if key == nil {
		return pgerr.Unsupported(fmt.Sprintf("cannot make table %q a reference table: it has no primary key that tells its rows apart at any moment", t.rel.Name.Name),
			"Give it a PRIMARY KEY that is not DEFERRABLE (or a unique index, neither partial nor of expressions, on NOT NULL columns).")
	}
	t.table.Kind, t.table.Shard, t.table.Key = directory.TableReference, m.Home, key
	for _, shard := range m.Shards {
		t.holders = append(t.holders, shard.ID)
	}
	return nil
}

// mirrorKey are the columns by which mirrored writes find a row: the primary key, else another key that is checked at
// once, for every row.
func mirrorKey(rel *catalog.Relation) []string {
	var found []string
	for _, key := range rel.Keys {
		if tellsApart(rel, key) && (found == nil || key.Primary) {
			found = slices.Clone(key.Columns)
		}
	}
	return found
}

func tellsApart(rel *catalog.Relation, key catalog.Key) bool {
	return !key.Exclusion && !key.Deferrable && !key.Partial && key.Valid && key.DefaultOperators &&
		!slices.ContainsFunc(key.Columns, func(name string) bool {
			column, ok := rel.Column(name)
			return !ok || !column.NotNull
		})
}

// checkMirrorKey refuses to take the key away that mirrored writes find rows by.
func (s *subject) checkMirrorKey() error {
	want := slices.Sorted(slices.Values(s.table.Key))
	if slices.ContainsFunc(s.rel.Keys, func(key catalog.Key) bool {
		return tellsApart(s.rel, key) && slices.Equal(slices.Sorted(slices.Values(key.Columns)), want)
	}) {
		return nil
	}
	return s.refuse(fmt.Sprintf("its rows are mirrored by the key (%s)", strings.Join(s.table.Key, ", ")),
		"UNSHARD the table, change its key, and SHARD it AS REFERENCE again.")
}

// mirrored is the definition of a reference table's copy: without sequences, as the values come from the authority.
func (d *definition) mirrored() *definition {
	return d.with(func(c *columnDef) {
		if !c.Generated && usesSequence(c.Default) {
			c.Default = ""
		}
	})
}

// with is the definition with changed columns.
func (d *definition) with(change func(c *columnDef)) *definition {
	copied := *d
	copied.Columns = slices.Clone(d.Columns)
	old, plain := make([]string, len(d.Columns)), make([]string, len(d.Columns))
	for i := range copied.Columns {
		old[i] = copied.Columns[i].text()
		change(&copied.Columns[i])
		plain[i] = copied.Columns[i].text()
	}
	copied.Table = strings.Replace(d.Table, "("+strings.Join(old, ", ")+")", "("+strings.Join(plain, ", ")+")", 1)
	return &copied
}

// copyReference makes the copies of a reference table and starts the capture on the home shard, where the
// table is locked.
func (op *operation) copyReference(ctx context.Context, home *pgx.Conn, needs []need, d *definition, t *target) error {
	of := mirror.Mirror{ID: t.table.Mirror, Table: t.table.Name, Key: t.table.Key, Guarded: true}
	for _, shard := range t.holders {
		if shard == op.m.Home {
			continue
		}
		if err := op.createOn(ctx, shard, needs, d.mirrored()); err != nil {
			return err
		}
		conn := op.conns[shard]
		if err := mirror.CopyRows(ctx, home, conn, t.table.Name); err != nil {
			return fmt.Errorf("copy to shard %s: %w", shard, err)
		}
		if err := run(ctx, conn, of.InstallCopy()); err != nil {
			return fmt.Errorf("install mirror of %s on shard %s: %w", t.table.Name, shard, err)
		}
	}
	op.wrote = append(op.wrote, op.m.Home)
	if err := run(ctx, home, of.InstallSource()); err != nil {
		return fmt.Errorf("install capture of %s: %w", t.table.Name, err)
	}
	return nil
}

// lockReferenced keeps the writers of reference tables out while a table gets foreign keys to them. Writers go from
// the home shard to the others, so it is locked there first; else each could wait for the other on another shard.
func (op *operation) lockReferenced(ctx context.Context, home *pgx.Conn, rel *catalog.Relation) error {
	for _, fk := range rel.ForeignKeys {
		if to, ok := op.m.Table(fk.References); ok && to.Kind == directory.TableReference && to.Name != rel.Name {
			if err := op.lockIn(ctx, home, to.Name, "SHARE ROW EXCLUSIVE"); err != nil {
				return err
			}
		}
	}
	return nil
}

// enforce lets the foreign keys of a new table to reference tables hold where those are mirrored.
func (op *operation) enforce(ctx context.Context, conn *pgx.Conn, rel *catalog.Relation) error {
	for _, fk := range rel.ForeignKeys {
		if to, ok := op.m.Table(fk.References); ok && to.Kind == directory.TableReference {
			if _, err := conn.Exec(ctx, "SELECT shardyard.mirror_enforce("+quoteLiteral(fk.References.String())+"::pg_catalog.regclass)"); err != nil {
				return fmt.Errorf("enforce foreign key %s: %w", fk.Name, err)
			}
		}
	}
	return nil
}

// unshardReference drops the copies of a reference table; the table stays on the home shard with its rows.
func (op *operation) unshardReference(ctx context.Context, table *directory.Table) (directory.Change, error) {
	for _, shard := range op.m.ShardsOf(table) {
		conn, err := op.begin(ctx, shard)
		if err != nil {
			return nil, err
		}
		if err := op.lock(ctx, conn, table.Name); err != nil {
			return nil, err
		}
		op.wrote = append(op.wrote, shard)
		statements := []string{
			"DROP TABLE " + table.Name.String(),
			"DELETE FROM shardyard.mirror WHERE id = " + quoteLiteral(table.Mirror),
		}
		if shard == op.m.Home {
			if err := op.checkUnreferenced(ctx, conn, table.Name); err != nil {
				return nil, err
			}
			statements = mirror.OfTable(op.m, table).RemoveSource()
		}
		if err := run(ctx, conn, statements); err != nil {
			if isState(err, "2BP01") {
				err = pgerr.Of(err).WithHint("Drop the foreign keys to it first.")
			}
			return nil, err
		}
	}
	hold := op.decidedHold()
	hold.Drop = true
	return directory.SetHold{Table: table.Name, Hold: hold}, nil
}

// checkUnreferenced refuses to take a reference table away from tables of several shards, or other reference tables.
func (op *operation) checkUnreferenced(ctx context.Context, conn *pgx.Conn, name directory.TableName) error {
	snapshot, err := op.p.catalogs.LoadOn(ctx, conn)
	if err != nil {
		return err
	}
	rel, ok := snapshot.Relation(name)
	if !ok {
		return fmt.Errorf("unshard table %s: it is not on the home shard", name)
	}
	for _, other := range rel.ReferencedBy {
		if _, distributed := op.m.Table(other); distributed && other != name {
			return pgerr.Unsupported(fmt.Sprintf("cannot unshard table %q: table %q references it", name.Name, other.String()),
				"Drop the foreign key first.")
		}
	}
	return nil
}

// AddShard adds a shard that has joined to the map of a database; first it gives it copies of all reference tables.
// It may be repeated after a failure.
func (p *Performer) AddShard(ctx context.Context, database string, shard directory.Shard) error {
	err := p.addShard(ctx, database, shard)
	for attempt := 1; errors.Is(err, directory.ErrNoCopy) && attempt < p.config.LockAttempts; attempt++ {
		err = p.addShard(ctx, database, shard) // a table has become a reference table meanwhile
	}
	return err
}

func (p *Performer) addShard(ctx context.Context, database string, shard directory.Shard) (err error) {
	m, err := p.config.Store.LoadMap(ctx, database)
	if err != nil {
		return err
	}
	tables, err := referenceTables(m)
	if err != nil {
		return err
	}
	if len(tables) == 0 {
		if err := p.dropStale(ctx, database, shard); err != nil {
			return err
		}
		_, err := p.config.Store.Apply(ctx, database, directory.AddShard{Shard: shard})
		return err
	}
	op := p.newOperation(m, "ADD SHARD "+string(shard.ID), tables, []directory.ShardID{m.Home})
	defer func() { op.end(ctx, err) }()
	if err := op.setHold(ctx); err != nil {
		return err
	}
	// Invariant: copies that are in use are never made anew. While the tables are held nobody else adds the shard.
	if _, added := op.m.Shard(shard.ID); added {
		return pgerr.Newf("55006", "shard %q has just been added by another session", shard.ID)
	}
	if err := op.copyAll(ctx, shard); err != nil {
		return err
	}
	if err := p.reached("decide"); err != nil {
		return err
	}
	return op.decide(ctx, directory.AddShard{Shard: shard, Copies: tables})
}

// referenceTables are those of a map; none of them may be under change.
func referenceTables(m *directory.Map) ([]directory.TableName, error) {
	var tables []directory.TableName
	for i := range m.Tables {
		if t := &m.Tables[i]; t.Kind == directory.TableReference {
			if t.Hold != nil {
				return nil, held(t)
			}
			tables = append(tables, t.Name)
		}
	}
	return tables, nil
}

// dropStale takes away what attempts to add the shard have left on it.
func (p *Performer) dropStale(ctx context.Context, database string, shard directory.Shard) error {
	conn, err := p.config.Dial(ctx, shard, database)
	if err != nil {
		return fmt.Errorf("connect to shard %s: %w", shard.ID, err)
	}
	defer p.close(ctx, conn)
	if _, err := conn.Exec(ctx, dropStale); err != nil {
		return fmt.Errorf("clean shard %s: %w", shard.ID, err)
	}
	return nil
}

// copyAll makes the copies on a shard that nobody uses yet, and commits them there: until the map has the
// shard they mean nothing, and the next attempt makes them anew.
func (op *operation) copyAll(ctx context.Context, shard directory.Shard) error {
	home, err := op.begin(ctx, op.m.Home)
	if err != nil {
		return err
	}
	for _, name := range op.tables {
		if err := op.lock(ctx, home, name); err != nil {
			return err
		}
	}
	to, err := op.p.config.Dial(ctx, shard, op.m.Database)
	if err != nil {
		return fmt.Errorf("connect to shard %s: %w", shard.ID, err)
	}
	defer op.p.close(ctx, to)
	if err := run(ctx, to, []string{
		"BEGIN", "SET LOCAL check_function_bodies = off", "SELECT pg_catalog.set_config('search_path', '', true)", dropStale,
	}); err != nil {
		return fmt.Errorf("prepare shard %s: %w", shard.ID, err)
	}
	snapshot, err := op.p.catalogs.LoadOn(ctx, home)
	if err != nil {
		return err
	}
	var last []string // foreign keys and capture: when all tables are there
	for _, name := range op.tables {
		later, err := op.copyTable(ctx, home, to, snapshot, shard.ID, name)
		if err != nil {
			return fmt.Errorf("copy table %s to shard %s: %w", name, shard.ID, err)
		}
		last = append(last, later...)
	}
	return run(ctx, to, append(last, "COMMIT"))
}

// dropStale drops the copies that an attempt before this one has left.
const dropStale = `DO $shardyard$ DECLARE stale regclass; BEGIN
	FOR stale IN SELECT c.oid::pg_catalog.regclass FROM shardyard.mirror m JOIN pg_catalog.pg_class c ON c.oid = m.relation WHERE NOT m.source
	LOOP EXECUTE 'DROP TABLE ' || stale || ' CASCADE'; END LOOP;
	DELETE FROM shardyard.mirror WHERE NOT source; END $shardyard$`

// copyTable copies one table; it returns the statements that must wait for the others.
func (op *operation) copyTable(ctx context.Context, home, to *pgx.Conn, snapshot *catalog.Snapshot, shard directory.ShardID, name directory.TableName) ([]string, error) {
	rel, ok := snapshot.Relation(name)
	table, known := op.m.Table(name)
	if !ok || !known {
		return nil, fmt.Errorf("it is not on the home shard")
	}
	dependencies, err := dependenciesOf(ctx, home, snapshot, rel.OID)
	if err != nil {
		return nil, err
	}
	needs, err := defineAll(ctx, home, append([]dependency{{Kind: "schema", Identity: directory.QuoteIdentifier(name.Schema)}}, dependencies...))
	if err != nil {
		return nil, err
	}
	if err := bring(ctx, to, shard, needs); err != nil {
		return nil, err
	}
	d, err := describe(ctx, home, name)
	if err != nil {
		return nil, err
	}
	foreignKeys, err := appendStatements(ctx, home, nil, foreignKeysQuery, rel.OID)
	if err != nil {
		return nil, err
	}
	var now []string
	for _, statement := range d.mirrored().statements() {
		if !slices.Contains(foreignKeys, statement) {
			now = append(now, statement)
		}
	}
	if err := run(ctx, to, now); err != nil {
		return nil, err
	}
	if err := mirror.CopyRows(ctx, home, to, name); err != nil {
		return nil, err
	}
	return append(foreignKeys, mirror.OfTable(op.m, table).InstallCopy()...), nil
}

// checkCapture refuses DDL that stops the capture of a reference table: its copies would go out of date.
func checkCapture(ctx context.Context, conn *pgx.Conn, name directory.TableName) error {
	var stands bool
	if err := conn.QueryRow(ctx, mirror.CheckQuery, name.String()).Scan(&stands); err != nil {
		return err
	}
	if !stands {
		return pgerr.Unsupported(fmt.Sprintf("cannot disable or drop the triggers that mirror reference table %q", name.Name),
			"Name the triggers to be disabled; UNSHARD TABLE ends the mirroring.")
	}
	return nil
}

// checkCopies holds a statement on reference tables against what only they need, after it ran on a shard: the capture
// stands, and new columns and types have given the rows the same values on every shard.
func (w *work) checkCopies(ctx context.Context, conn *pgx.Conn, shard directory.ShardID, before, after map[directory.TableName]*definition) error {
	for _, name := range w.request.Tables {
		if !w.isReference(name) || after[name] == nil {
			continue
		}
		if shard == w.m.Home {
			if err := checkCapture(ctx, conn, after[name].Name); err != nil {
				return err
			}
		}
		if slices.Equal(before[name].Columns, after[name].Columns) {
			continue
		}
		sum, err := sumOf(ctx, conn, after[name].Name)
		if err != nil {
			return err
		}
		if first, ok := w.sums[name]; ok && first != sum {
			return pgerr.Unsupported(fmt.Sprintf("the statement gives the rows of reference table %q other values on each shard", name.Name),
				"Add the column without a default (or a sequence), set the default in a second statement, and UPDATE the rows.")
		}
		w.sums[name] = sum
	}
	return nil
}

// sumOf is a sum over all rows that does not depend on their order.
func sumOf(ctx context.Context, conn *pgx.Conn, name directory.TableName) (sum string, err error) {
	if _, err := conn.Exec(ctx, "SET LOCAL extra_float_digits = 3"); err != nil {
		return "", err
	}
	err = conn.QueryRow(ctx, `SELECT pg_catalog.count(*) || ':' || coalesce(pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.format('%s', t), 0)::numeric), 0)
		FROM ONLY `+name.String()+" t").Scan(&sum)
	if err != nil {
		return "", fmt.Errorf("compare the rows of %s: %w", name, err)
	}
	return sum, nil
}
