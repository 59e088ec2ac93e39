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
	"github.com/shardyard/shardyard/router/pgerr"
)

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

// work is one statement of a transaction.
type work struct {
	t       *Transaction
	links   Links
	m       *directory.Map // as the transaction sees it
	request Request
	holders []directory.ShardID

	before map[directory.TableName]*definition // on the first holder
	after  map[directory.TableName]*definition // by the name before; nil: dropped
	sums   map[directory.TableName]string      // of the rows of reference tables whose columns changed
}

// tables runs the statement on all shards that hold its tables.
func (w *work) tables(ctx context.Context) error {
	needs, err := w.needs(ctx)
	if err != nil {
		return err
	}
	for i, shard := range w.holders {
		before, after, err := w.runOn(ctx, shard, needs)
		if err != nil {
			return err
		}
		if i == 0 {
			w.before, w.after = before, after
			// Before the other shards, where a table that is not on them fails with less of a reason.
			if err := w.check(ctx); err != nil {
				return err
			}
			continue
		}
		if err := w.compare(shard, after); err != nil {
			return err
		}
	}
	if slices.Contains(w.holders, w.m.Home) {
		return nil
	}
	return w.followAtHome(ctx)
}

// needs are the user objects of the home shard that the statement names: another shard may lack them. What
// the transaction itself has made is on all shards already.
func (w *work) needs(ctx context.Context) ([]need, error) {
	r := w.request
	if !r.Lacking || !strings.HasPrefix(r.Tag, "ALTER TABLE") && !strings.HasPrefix(r.Tag, "CREATE") {
		return nil, nil
	}
	conn, err := w.t.p.dial(ctx, w.m, w.m.Home, "shardyard-look")
	if err != nil {
		return nil, err
	}
	defer w.t.p.close(ctx, conn)
	// The client's transaction may have locked what is read here; what it has changed is on all shards anyway.
	if _, err := conn.Exec(ctx, fmt.Sprintf("SET lock_timeout = '%dms'", w.t.p.config.LockTimeout.Milliseconds())); err != nil {
		return nil, err
	}
	snapshot, err := w.t.p.catalogs.LoadOn(ctx, conn)
	if isState(err, "55P03") {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	functions, types := snapshot.Named(r.SQL)
	all, err := dependenciesOfNamed(ctx, conn, snapshot, functions, types)
	if err != nil {
		return nil, err
	}
	var schemas []dependency
	for _, name := range snapshot.SchemasNamed(r.SQL) {
		schemas = append(schemas, dependency{Kind: "schema", Identity: directory.QuoteIdentifier(name)})
	}
	return defineAll(ctx, conn, append(schemas, all...))
}

// runOn runs the statement on one shard, and describes the tables before and after.
func (w *work) runOn(ctx context.Context, shard directory.ShardID, needs []need) (before, after map[directory.TableName]*definition, err error) {
	if err := w.t.p.reached("run " + string(shard)); err != nil {
		return nil, nil, err
	}
	if shard != w.m.Home {
		if err := w.t.p.bringFirst(ctx, w.m, shard, needs); err != nil {
			return nil, nil, err
		}
	}
	oids := make(map[directory.TableName]uint32)
	before, after = make(map[directory.TableName]*definition), make(map[directory.TableName]*definition)
	err = w.inside(ctx, shard, func(conn *pgx.Conn) error {
		for _, name := range w.request.Tables {
			oid, d, err := describeNamed(ctx, conn, name)
			if err != nil {
				return err
			}
			oids[name], before[name] = oid, d
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if err := w.run(ctx, shard, shard == w.holders[0]); err != nil {
		return nil, nil, err
	}
	err = w.inside(ctx, shard, func(conn *pgx.Conn) error {
		for name, oid := range oids {
			if after[name], err = describeByOID(ctx, conn, oid); err != nil {
				return err
			}
		}
		return w.checkCopies(ctx, conn, shard, before, after)
	})
	return before, after, err
}

// run runs the client's statement on a shard, with a bound on its waits for locks: what holds the lock may be
// a transaction that waits for this one on another shard.
func (w *work) run(ctx context.Context, shard directory.ShardID, told bool) error {
	w.t.shards = appendNew(w.t.shards, shard)
	var before string
	err := w.links.Lend(ctx, shard, func(conn *pgx.Conn) error {
		if err := conn.QueryRow(ctx, "SELECT pg_catalog.current_setting('lock_timeout')").Scan(&before); err != nil || before != "0" {
			return err // the client has a bound of its own
		}
		return setLocal(ctx, conn, "lock_timeout", fmt.Sprintf("%dms", w.t.p.config.LockTimeout.Milliseconds()*int64(w.t.p.config.LockAttempts)))
	})
	if err != nil {
		return err
	}
	if w.request.Others != "" && shard != w.m.Home {
		err = w.runOther(ctx, shard)
	} else {
		err = w.links.Run(ctx, shard, told)
	}
	if err != nil || before != "0" {
		return err
	}
	return w.links.Lend(ctx, shard, func(conn *pgx.Conn) error { return setLocal(ctx, conn, "lock_timeout", before) })
}

// runOther runs what a shard runs that does not have the sequences.
func (w *work) runOther(ctx context.Context, shard directory.ShardID) error {
	err := w.links.Lend(ctx, shard, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, w.request.Others)
		return err
	})
	if isState(err, "0A000") { // of the default: there are rows
		return pgerr.Unsupported(fmt.Sprintf("a column with a sequence cannot be added to sharded table %q, which has rows", w.request.Tables[0].Name),
			"Add the column without the sequence, number the rows, then ALTER COLUMN … ADD GENERATED BY DEFAULT AS IDENTITY and setval.").Because(err)
	}
	return err
}

func setLocal(ctx context.Context, conn *pgx.Conn, name, value string) error {
	if _, err := conn.Exec(ctx, "SELECT pg_catalog.set_config($1, $2, true)", name, value); err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

// inside lends the transaction's connection to a shard for what qualifies every name itself. The client's
// settings are as before afterwards.
func (w *work) inside(ctx context.Context, shard directory.ShardID, use func(*pgx.Conn) error) error {
	return w.links.Lend(ctx, shard, func(conn *pgx.Conn) error {
		var path, digits string
		err := conn.QueryRow(ctx, "SELECT pg_catalog.current_setting('search_path'), pg_catalog.current_setting('extra_float_digits')").Scan(&path, &digits)
		if err != nil {
			return err
		}
		if err := setLocal(ctx, conn, "search_path", ""); err != nil {
			return err
		}
		if err := use(conn); err != nil {
			return err
		}
		if err := setLocal(ctx, conn, "extra_float_digits", digits); err != nil {
			return err
		}
		return setLocal(ctx, conn, "search_path", path)
	})
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
	// The client's own transaction may have changed one of the objects there.
	timeout := fmt.Sprintf("SET LOCAL lock_timeout = '%dms'", p.config.LockTimeout.Milliseconds())
	if err := run(ctx, conn, []string{"BEGIN", timeout, "SET LOCAL check_function_bodies = off", "SELECT pg_catalog.set_config('search_path', '', false)"}); err != nil {
		return err
	}
	if err := bring(ctx, conn, shard, needs); err != nil {
		return err
	}
	return run(ctx, conn, []string{"COMMIT"})
}

// describeNamed describes a table that the transaction holds, with its OID on the shard.
func describeNamed(ctx context.Context, conn *pgx.Conn, name directory.TableName) (oid uint32, d *definition, err error) {
	err = conn.QueryRow(ctx, `SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relname = $2`, name.Schema, name.Name).Scan(&oid)
	if err != nil {
		return 0, nil, fmt.Errorf("look for table %s: %w", name, err)
	}
	d, err = describe(ctx, conn, name)
	return oid, d, err
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
func (w *work) compare(shard directory.ShardID, after map[directory.TableName]*definition) error {
	for name, first := range w.after {
		other := after[name]
		if (first == nil) != (other == nil) {
			return pgerr.Newf("55000", "table %q exists on one shard only after the statement", name.Name)
		}
		if first == nil {
			continue
		}
		if w.isReference(name) {
			first, other = first.mirrored(), other.mirrored()
		} else {
			first, other = first.numbered(), other.numbered()
		}
		if !first.equal(other) {
			return pgerr.Unsupported(fmt.Sprintf("the statement does not make the same of table %q on all shards", name.Name),
				"Name the constraints and indexes in it.").WithDetail(fmt.Sprintf("Shards %s and %s: %s", w.holders[0], shard, first.firstDifference(other)))
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
func (w *work) followAtHome(ctx context.Context) error {
	w.t.shards = appendNew(w.t.shards, w.m.Home)
	return w.inside(ctx, w.m.Home, func(conn *pgx.Conn) error {
		for _, name := range w.request.Tables {
			if err := run(ctx, conn, follow(w.before[name], w.after[name])); err != nil {
				return fmt.Errorf("change placeholder of %s on the home shard: %w", name, err)
			}
		}
		return nil
	})
}

// check holds the outcome against the rules of distributed tables.
func (w *work) check(ctx context.Context) error {
	for _, harmless := range []string{"COMMENT", "GRANT", "REVOKE", "DROP ", "SECURITY LABEL"} {
		if strings.HasPrefix(w.request.Tag, harmless) {
			return nil
		}
	}
	there, err := w.catalogOn(ctx, w.holders[0])
	if err != nil {
		return err
	}
	home := there
	if w.holders[0] != w.m.Home {
		if home, err = w.catalogOn(ctx, w.m.Home); err != nil {
			return err
		}
	}
	for _, name := range w.request.Tables {
		if w.after[name] == nil {
			continue
		}
		table, _ := w.m.Table(name)
		if err := checkOutcome(w.m, table, w.before[name], w.after[name], home, there, w.request.Others != ""); err != nil {
			return err
		}
	}
	return nil
}

func (w *work) isReference(name directory.TableName) bool {
	t, ok := w.m.Table(name)
	return ok && t.Kind == directory.TableReference
}

// catalogOn is a shard's catalog as the transaction sees it.
func (w *work) catalogOn(ctx context.Context, shard directory.ShardID) (snapshot *catalog.Snapshot, err error) {
	err = w.links.Lend(ctx, shard, func(conn *pgx.Conn) error {
		snapshot, err = w.t.p.catalogs.LoadOn(ctx, conn)
		return err
	})
	return snapshot, err
}

// checkOutcome: the key must be as it was, and no rule may be broken.
func checkOutcome(m *directory.Map, table *directory.Table, before, after *definition, home, there *catalog.Snapshot, mayNumber bool) error {
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
	if !mayNumber {
		if err := checkNumbers(table, before, after); err != nil {
			return err
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
