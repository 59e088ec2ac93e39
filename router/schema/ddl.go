package schema

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
	"github.com/shardyard/shardyard/router/catalogs"
	"github.com/shardyard/shardyard/router/pgerr"
)

// DDL runs one DDL statement on the sharded and pinned tables that it is about, on all shards that hold them,
// wholly or not at all. A shard's error is returned as it is. It returns when every live router works with
// the new map.
func (p *Performer) DDL(ctx context.Context, r Request) (*Result, error) {
	result, err := p.ddl(ctx, r)
	return result, withoutPosition(err)
}

func (p *Performer) ddl(ctx context.Context, r Request) (result *Result, err error) {
	if r.InTransaction {
		return nil, inTransaction(r.Tag + " on a sharded table")
	}
	if err := refuseForm(r); err != nil {
		return nil, err
	}
	m, err := p.config.Store.LoadMap(ctx, r.Database)
	if err != nil {
		return nil, err
	}
	if len(r.Tables) == 0 {
		return p.objectDDL(ctx, m, r)
	}
	holders, err := holdersOf(m, r.Tables)
	if err != nil {
		return nil, err
	}
	if err := p.syncRoles(ctx, m, holders); err != nil {
		return nil, err
	}
	op := p.newOperation(m, r.Tag+" "+r.Tables[0].String(), r.Tables, changedShards(m.Home, holders))
	defer func() { op.end(ctx, err) }()
	if err := op.setHold(ctx); err != nil {
		return nil, err
	}
	d := &ddl{operation: op, request: r, holders: holders, sums: make(map[directory.TableName]string)}
	decision, err := d.run(ctx)
	if err != nil {
		return nil, err
	}
	if err := op.prepare(ctx); err != nil {
		return nil, err
	}
	if err := op.decide(ctx, decision...); err != nil {
		return nil, err
	}
	return &Result{Tag: r.Tag, Notices: d.notices}, nil
}

// refuseForm refuses statements that cannot run in a transaction.
func refuseForm(r Request) error {
	if strings.Contains(strings.ToLower(r.SQL), "concurrently") && (strings.HasSuffix(r.Tag, "INDEX") || r.Tag == "ALTER TABLE") {
		return pgerr.Unsupported(r.Tag+" CONCURRENTLY on a sharded table is not supported",
			"Leave CONCURRENTLY out; writes wait while the statement runs.")
	}
	return nil
}

func holdersOf(m *directory.Map, tables []directory.TableName) ([]directory.ShardID, error) {
	var holders []directory.ShardID
	for i, name := range tables {
		t, ok := m.Table(name)
		if !ok {
			return nil, pgerr.Unsupported(fmt.Sprintf("table %q is not sharded, the statement's other tables are", name.Name),
				"Use one statement for each table.")
		}
		if t.Hold != nil {
			return nil, held(t)
		}
		shards := slices.Clone(m.ShardsOf(t))
		slices.Sort(shards)
		if i > 0 && !slices.Equal(shards, holders) {
			return nil, pgerr.Unsupported(fmt.Sprintf("tables %q and %q are not on the same shards", tables[0].Name, name.Name),
				"Use one statement for each table.")
		}
		holders = shards
	}
	return holders, nil
}

// ddl is one DDL statement on tables.
type ddl struct {
	*operation
	request Request
	holders []directory.ShardID
	notices []string

	before map[directory.TableName]*definition // on the first holder
	after  map[directory.TableName]*definition // by the name before; nil: dropped
	sums   map[directory.TableName]string      // of the rows of reference tables whose columns changed
}

func (d *ddl) run(ctx context.Context) ([]directory.Change, error) {
	if err := d.reached("run"); err != nil {
		return nil, err
	}
	needs, err := d.needs(ctx)
	if err != nil {
		return nil, err
	}
	for i, shard := range d.holders {
		before, after, err := d.runOn(ctx, shard, needs)
		if err != nil {
			return nil, err
		}
		if err := d.checkCopies(ctx, shard, before, after); err != nil {
			return nil, err
		}
		if i == 0 {
			d.before, d.after = before, after
			// Before the other shards, where a table that is not on them fails with less of a reason.
			if err := d.check(ctx); err != nil {
				return nil, err
			}
			continue
		}
		if err := d.compare(shard, after); err != nil {
			return nil, err
		}
	}
	if !slices.Contains(d.holders, d.m.Home) {
		if err := d.followAtHome(ctx); err != nil {
			return nil, err
		}
	}
	return d.decision(), nil
}

func (d *ddl) reached(step string) error { return d.p.reached(step) }

// needs are the user objects of the home shard that the statement names: another shard may lack them.
func (d *ddl) needs(ctx context.Context) ([]need, error) {
	conn, err := d.p.dial(ctx, d.m, d.m.Home, "shardyard-look")
	if err != nil {
		return nil, err
	}
	defer d.p.close(ctx, conn)
	snapshot, err := catalogs.LoadOn(ctx, conn)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(d.request.Tag, "ALTER TABLE") && !strings.HasPrefix(d.request.Tag, "CREATE") {
		return nil, nil
	}
	functions, types := snapshot.Named(d.request.SQL)
	all, err := dependenciesOfNamed(ctx, conn, snapshot, functions, types)
	if err != nil {
		return nil, err
	}
	var schemas []dependency
	for _, name := range snapshot.SchemasNamed(d.request.SQL) {
		schemas = append(schemas, dependency{Kind: "schema", Identity: directory.QuoteIdentifier(name)})
	}
	return defineAll(ctx, conn, append(schemas, all...))
}

// runOn runs the statement on one shard as the user, and describes the tables before and after.
func (d *ddl) runOn(ctx context.Context, shard directory.ShardID, needs []need) (before, after map[directory.TableName]*definition, err error) {
	if err := d.reached("run " + string(shard)); err != nil {
		return nil, nil, err
	}
	if shard != d.m.Home {
		if err := d.p.bringFirst(ctx, d.m, shard, needs); err != nil {
			return nil, nil, err
		}
	}
	conn, err := d.beginAs(ctx, shard, d.request)
	if err != nil {
		return nil, nil, err
	}
	d.wrote = append(d.wrote, shard)
	oids := make(map[directory.TableName]uint32)
	before = make(map[directory.TableName]*definition)
	for _, name := range d.tables {
		if before[name], err = describe(ctx, conn, name); err != nil {
			return nil, nil, err
		}
		var oid uint32
		if err := conn.QueryRow(ctx, "SELECT $1::text::pg_catalog.regclass::oid", name.String()).Scan(&oid); err != nil {
			return nil, nil, err
		}
		oids[name] = oid
	}
	if err := d.runAs(ctx, conn); err != nil {
		return nil, nil, err
	}
	after = make(map[directory.TableName]*definition)
	for name, oid := range oids {
		if after[name], err = describeByOID(ctx, conn, oid); err != nil {
			return nil, nil, err
		}
	}
	return before, after, nil
}

// runAs runs the statement with the session's settings and search path on a connection of beginAs.
func (d *ddl) runAs(ctx context.Context, conn *pgx.Conn) error {
	r := d.request
	if err := applySettings(ctx, conn, r.Settings, true); err != nil {
		return err
	}
	quoted := make([]string, len(r.SearchPath))
	for i, schema := range r.SearchPath {
		quoted[i] = `"` + strings.ReplaceAll(schema, `"`, `""`) + `"`
	}
	if _, err := conn.Exec(ctx, "SELECT pg_catalog.set_config('search_path', $1, true)", strings.Join(quoted, ", ")); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "SET LOCAL check_function_bodies = on"); err != nil {
		return err
	}
	// The extended protocol takes one statement only, whatever the text holds.
	if err := conn.PgConn().ExecParams(ctx, r.SQL, nil, nil, nil, nil).Read().Err; err != nil {
		return pgerr.Of(err)
	}
	return nil
}

// bringFirst makes the objects that the statement names and the shard lacks, in a transaction of its own by the
// service role: they are as on the home shard, so they may stay if the statement fails.
func (p *Performer) bringFirst(ctx context.Context, m *directory.Map, shard directory.ShardID, needs []need) error {
	if len(needs) == 0 {
		return nil
	}
	conn, err := p.dial(ctx, m, shard, "shardyard-bring")
	if err != nil {
		return err
	}
	defer p.close(ctx, conn)
	if err := run(ctx, conn, []string{"BEGIN", "SET LOCAL check_function_bodies = off", "SELECT pg_catalog.set_config('search_path', '', false)"}); err != nil {
		return err
	}
	if err := bring(ctx, conn, shard, needs); err != nil {
		return err
	}
	return run(ctx, conn, []string{"COMMIT"})
}

// describeByOID describes the table with that OID under the name that it has now; nil if it is gone.
func describeByOID(ctx context.Context, conn *pgx.Conn, oid uint32) (*definition, error) {
	var name directory.TableName
	err := conn.QueryRow(ctx, `SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1`, oid).Scan(&name.Schema, &name.Name)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return describe(ctx, conn, name)
}

// compare refuses a statement that came out differently on another shard: names that Postgres chose, or
// values that it computed.
func (d *ddl) compare(shard directory.ShardID, after map[directory.TableName]*definition) error {
	for name, first := range d.after {
		other := after[name]
		if (first == nil) != (other == nil) {
			return pgerr.Newf("55000", "table %q exists on one shard only after the statement", name.Name)
		}
		if first == nil {
			continue
		}
		if d.isReference(name) {
			first, other = first.mirrored(), other.mirrored()
		}
		if !first.equal(other) {
			return pgerr.Unsupported(fmt.Sprintf("the statement does not make the same of table %q on all shards", name.Name),
				"Name the constraints and indexes in it.").WithDetail(fmt.Sprintf("Shards %s and %s: %s", d.holders[0], shard, first.firstDifference(other)))
		}
		for i := range first.Columns {
			if first.Columns[i].Missing != other.Columns[i].Missing {
				return pgerr.Unsupported(fmt.Sprintf("the default of new column %q of table %q differs between the shards", first.Columns[i].Name, name.Name),
					"Add the column without a default, set the default in a second statement, and UPDATE the rows that exist.")
			}
		}
	}
	return nil
}

// followAtHome brings the placeholders on the home shard into line.
func (d *ddl) followAtHome(ctx context.Context) error {
	conn, err := d.begin(ctx, d.m.Home)
	if err != nil {
		return err
	}
	d.wrote = append(d.wrote, d.m.Home)
	if _, err := conn.Exec(ctx, "SELECT pg_catalog.set_config('search_path', '', false)"); err != nil {
		return err
	}
	for _, name := range d.tables {
		if err := run(ctx, conn, follow(d.before[name], d.after[name])); err != nil {
			return fmt.Errorf("change placeholder of %s on the home shard: %w", name, err)
		}
	}
	return nil
}

// decision notes in the holds what becomes of the tables.
func (d *ddl) decision() []directory.Change {
	var changes []directory.Change
	for _, name := range d.tables {
		hold := d.decidedHold()
		switch after := d.after[name]; {
		case after == nil:
			hold.Drop = true
		case after.Name != name:
			hold.Rename = &after.Name
		}
		changes = append(changes, directory.SetHold{Table: name, Hold: hold})
	}
	return changes
}

// check holds the outcome against the rules of distributed tables.
func (d *ddl) check(ctx context.Context) error {
	there, err := catalogs.LoadOn(ctx, d.conns[d.holders[0]])
	if err != nil {
		return err
	}
	home := there
	if d.holders[0] != d.m.Home {
		if home, err = d.homeCatalog(ctx); err != nil {
			return err
		}
	}
	for _, name := range d.tables {
		if d.after[name] == nil {
			continue
		}
		table, _ := d.m.Table(name)
		if err := checkOutcome(d.m, table, d.before[name], d.after[name], home, there); err != nil {
			return err
		}
	}
	return nil
}

func (d *ddl) isReference(name directory.TableName) bool {
	t, ok := d.m.Table(name)
	return ok && t.Kind == directory.TableReference
}

// homeCatalog is the home shard's catalog: as this statement's transaction sees it if it runs there.
func (d *ddl) homeCatalog(ctx context.Context) (*catalog.Snapshot, error) {
	if conn := d.conns[d.m.Home]; conn != nil {
		return catalogs.LoadOn(ctx, conn)
	}
	conn, err := d.p.dial(ctx, d.m, d.m.Home, "shardyard-look")
	if err != nil {
		return nil, err
	}
	defer d.p.close(ctx, conn)
	return catalogs.LoadOn(ctx, conn)
}

// checkOutcome: the key must be as it was, and no rule may be broken.
func checkOutcome(m *directory.Map, table *directory.Table, before, after *definition, home, there *catalog.Snapshot) error {
	for _, key := range append(slices.Clone(table.Key), table.SubKey...) {
		was, is := before.column(key), after.column(key)
		switch {
		case was == nil:
			continue
		case is == nil || is.Number != was.Number:
			return pgerr.Unsupported(fmt.Sprintf("cannot drop or rename column %q, the sharding key of table %q", key, table.Name.Name),
				"UNSHARD the table (it must be empty), change it, and shard it again.")
		case is.Type != was.Type || is.Generated != was.Generated:
			return pgerr.Unsupported(fmt.Sprintf("cannot change the type of column %q, the sharding key of table %q", key, table.Name.Name),
				"UNSHARD the table (it must be empty), change it, and shard it again.")
		}
	}
	rel, ok := there.Relation(after.Name)
	if !ok {
		return fmt.Errorf("check table %s: it is not in the catalog", after.Name)
	}
	would := *table
	would.Name, would.UniqueLocal = after.Name, slices.Clone(table.UniqueLocal)
	s := &subject{catalog: home, local: false, there: there, rel: rel, m: m, table: &would, verb: "change", was: table.Name}
	return s.check()
}

func (d *definition) column(name string) *columnDef {
	for i := range d.Columns {
		if d.Columns[i].Name == name {
			return &d.Columns[i]
		}
	}
	return nil
}
