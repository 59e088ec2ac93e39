package schema

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/shardsql"
	"github.com/shardyard/shardyard/router/pgerr"
)

// change performs SHARD TABLE … BY, SHARD TABLE … ON and UNSHARD TABLE.
func (p *Performer) change(ctx context.Context, r Request) (result *Result, err error) {
	m, err := p.register(ctx, r.Database)
	if err != nil {
		return nil, err
	}
	h, planned, err := p.firstLook(ctx, m, r)
	if err != nil {
		return nil, err
	}
	defer p.close(ctx, h.conn)
	_, unshard := r.Statement.(*shardsql.UnshardTable)
	holders := planned.holders
	if unshard {
		holders = m.ShardsOf(&planned.table)
	}
	shards := changedShards(m.Home, holders)
	for _, shard := range shards {
		if err := p.join(ctx, m, h.conn, shard); err != nil {
			return nil, err
		}
	}
	name := planned.rel.Name
	op := p.newOperation(m, tagOf(r.Statement)+" "+name.String(), []directory.TableName{name}, shards)
	defer func() { op.end(ctx, err) }()
	if err := op.setHold(ctx); err != nil {
		return nil, err
	}
	var decision directory.Change
	if unshard {
		decision, err = op.unshard(ctx, name)
	} else {
		decision, err = op.distribute(ctx, r, name)
	}
	if err != nil {
		return nil, err
	}
	if err := op.prepare(ctx); err != nil {
		return nil, err
	}
	if err := op.decide(ctx, decision); err != nil {
		return nil, err
	}
	return &Result{Tag: tagOf(r.Statement)}, nil
}

// firstLook refuses what can be refused before anybody has to wait.
func (p *Performer) firstLook(ctx context.Context, m *directory.Map, r Request) (*homeShard, *target, error) {
	conn, err := p.dial(ctx, m, m.Home, "shardyard-look")
	if err != nil {
		return nil, nil, err
	}
	h := &homeShard{conn: conn, loader: &p.catalogs}
	planned, err := look(ctx, h, m, r)
	if err != nil {
		p.close(ctx, conn)
		return nil, nil, err
	}
	return h, planned, nil
}

func look(ctx context.Context, h *homeShard, m *directory.Map, r Request) (*target, error) {
	if err := applySettings(ctx, h.conn, literals(r.Settings), false); err != nil {
		return nil, err
	}
	if err := h.load(ctx); err != nil {
		return nil, err
	}
	planned, err := plan(ctx, h, m, r)
	if err != nil {
		return nil, err
	}
	if _, unshard := r.Statement.(*shardsql.UnshardTable); !unshard && planned.table.Kind != directory.TableReference {
		err = checkEmpty(ctx, h.conn, planned.rel.Name, "sharded")
	}
	return planned, err
}

// ownSettings are those of a session that its statements must not bring here: this connection's are needed
// for it to work, and a session may wait for a lock without end where we must not.
var ownSettings = map[string]bool{
	"client_encoding": true, "application_name": true, "search_path": true, "role": true, "session_authorization": true,
	"lock_timeout": true, "idle_in_transaction_session_timeout": true, "idle_session_timeout": true,
	"transaction_isolation": true, "transaction_read_only": true, "transaction_deferrable": true,
}

// literalSettings are those that say what a literal means.
var literalSettings = map[string]bool{"datestyle": true, "intervalstyle": true, "timezone": true}

// literals keeps the settings that a sharding statement needs.
func literals(settings map[string]string) map[string]string {
	kept := make(map[string]string)
	for name, value := range settings {
		if literalSettings[strings.ToLower(name)] {
			kept[name] = value
		}
	}
	return kept
}

// applySettings sets the session's settings, so that the statement means the same here.
func applySettings(ctx context.Context, conn *pgx.Conn, settings map[string]string, local bool) error {
	for name, value := range settings {
		if ownSettings[strings.ToLower(name)] {
			continue
		}
		if _, err := conn.Exec(ctx, "SELECT pg_catalog.set_config($1, $2, $3)", name, value, local); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

func checkEmpty(ctx context.Context, conn *pgx.Conn, name directory.TableName, verb string) error {
	var rows bool
	// The service role is a superuser: no policy hides a row.
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM ONLY "+name.String()+")").Scan(&rows); err != nil {
		return fmt.Errorf("look for rows of %s: %w", name, err)
	}
	if rows {
		return pgerr.Unsupported(fmt.Sprintf("table %q has rows and cannot be %s", name.Name, verb),
			"Moving rows between shards is not supported yet: copy them out, TRUNCATE the table, run the statement, and copy them in.")
	}
	return nil
}

// distribute does the work of SHARD TABLE on all shards, up to the decision that it returns.
func (op *operation) distribute(ctx context.Context, r Request, name directory.TableName) (directory.Change, error) {
	if err := op.p.reached("lock"); err != nil {
		return nil, err
	}
	home, err := op.begin(ctx, op.m.Home)
	if err != nil {
		return nil, err
	}
	if err := op.lock(ctx, home, name); err != nil {
		return nil, err
	}
	// Everything may have changed since the first look; under the lock and the hold it cannot any more.
	if err := applySettings(ctx, home, literals(r.Settings), true); err != nil {
		return nil, err
	}
	h := &homeShard{conn: home, loader: &op.p.catalogs}
	if err := h.load(ctx); err != nil {
		return nil, err
	}
	before, err := op.mapWithoutHold(name)
	if err != nil {
		return nil, err
	}
	t, err := plan(ctx, h, before, r)
	if err != nil {
		return nil, err
	}
	if t.rel.Name != name {
		return nil, pgerr.New(pgerr.StaleMap, "the table was replaced by another session").WithHint("Run the statement again.")
	}
	if t.table.Kind == directory.TableReference {
		t.table.Mirror = op.id
	} else if err := checkEmpty(ctx, home, name, "sharded"); err != nil {
		return nil, err
	}
	if err := op.lockReferenced(ctx, home, t.rel); err != nil {
		return nil, err
	}
	if err := op.create(ctx, h, t); err != nil {
		return nil, err
	}
	return op.decision(t), nil
}

// mapWithoutHold is the map as it would be without this operation's hold: what the checks reason about.
func (op *operation) mapWithoutHold(name directory.TableName) (*directory.Map, error) {
	return directory.ClearHold{Table: name, ID: op.id}.Apply(op.m)
}

// create makes the table on its shards and, where the home shard will not have it, the placeholder.
func (op *operation) create(ctx context.Context, h *homeShard, t *target) error {
	name := t.rel.Name
	dependencies, err := dependenciesOf(ctx, h.conn, h.catalog, t.rel.OID)
	if err != nil {
		return err
	}
	dependencies = append([]dependency{{Kind: "schema", Identity: directory.QuoteIdentifier(name.Schema)}}, dependencies...)
	needs, err := defineAll(ctx, h.conn, dependencies)
	if err != nil {
		return err
	}
	d, err := describe(ctx, h.conn, name)
	if err != nil {
		return err
	}
	if t.table.Kind == directory.TableReference {
		return op.copyReference(ctx, h.conn, needs, d, t)
	}
	for _, shard := range t.holders {
		if shard == op.m.Home {
			continue
		}
		if err := op.createOn(ctx, shard, needs, d.numbered()); err != nil {
			return err
		}
		if err := op.enforce(ctx, op.conns[shard], t.rel); err != nil {
			return err
		}
	}
	if slices.Contains(t.holders, op.m.Home) {
		return nil
	}
	op.wrote = append(op.wrote, op.m.Home)
	if err := run(ctx, h.conn, append([]string{"DROP TABLE " + name.String()}, d.placeholder()...)); err != nil {
		return fmt.Errorf("replace table %s by a placeholder: %w", name, err)
	}
	return nil
}

// createOn makes the table on one shard and compares the outcome with the home shard's definition.
func (op *operation) createOn(ctx context.Context, shard directory.ShardID, needs []need, d *definition) error {
	if err := op.p.reached("create " + string(shard)); err != nil {
		return err
	}
	conn, err := op.begin(ctx, shard)
	if err != nil {
		return err
	}
	op.wrote = append(op.wrote, shard)
	if _, err := conn.Exec(ctx, "SELECT pg_catalog.set_config('search_path', '', false)"); err != nil {
		return err
	}
	if err := bring(ctx, conn, shard, needs); err != nil {
		return err
	}
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.to_regclass($1) IS NOT NULL", d.Name.String()).Scan(&exists); err != nil {
		return err
	}
	if exists {
		return pgerr.Newf("42P07", "relation %q exists already on shard %q", d.Name.String(), shard).
			WithHint("It was not made by this router: connect to the shard and rename or drop it.")
	}
	if err := run(ctx, conn, d.statements()); err != nil {
		return fmt.Errorf("create table %s on shard %s: %w", d.Name, shard, err)
	}
	there, err := describe(ctx, conn, d.Name)
	if err != nil {
		return err
	}
	if !there.equal(d) {
		return pgerr.Newf(pgerr.InternalError, "table %s came out differently on shard %s", d.Name, shard).
			WithDetail(d.firstDifference(there))
	}
	return nil
}

// decision is the change of the map; with it the hold is decided.
func (op *operation) decision(t *target) directory.Change {
	hold := op.decidedHold()
	table := t.table
	table.Hold = &hold
	switch {
	case table.Kind == directory.TableReference:
		return directory.AddReference{Table: table, Copies: t.holders}
	case table.Kind == directory.TablePinned:
		return directory.PinTable{Table: table.Name, Shard: table.Shard, Hold: &hold}
	case t.group != nil:
		return directory.AddTable{Group: *t.group, Table: table}
	}
	return directory.ColocateTable{Table: table}
}

func (op *operation) decidedHold() directory.Hold {
	hold := op.hold
	hold.Decided = true
	return hold
}
