package schema

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/router/pgerr"
)

// Links are the connections of a client's transaction, one for each shard that it has reached or now reaches.
type Links struct {
	// Cancellable gives a context that ends when the client cancels its statement, for a wait; release must be called.
	Cancellable func(ctx context.Context) (_ context.Context, release func())
	// Lend lends the connection to a shard, for statements of ours inside the transaction.
	Lend func(ctx context.Context, shard directory.ShardID, use func(*pgx.Conn) error) error
	// Run runs the client's statement on a shard; told: what the shard notices on the way reaches the client.
	Run func(ctx context.Context, shard directory.ShardID, told bool) error
}

// Transaction is what one transaction of a client changes of the catalog, on all shards concerned. The
// statements run on the client's own connections and commit with everything else that the transaction does;
// see docs/decisions/ddl-in-transactions.md. It belongs to one goroutine at a time.
//
// Invariant: nothing of it is committed on any shard before its holds note the transaction's ids there (Note),
// which fails when a hold is gone. So a hold without ids may be cleared at any time, and one with ids as soon
// as the shards say what became of them.
type Transaction struct {
	p      *Performer
	id     string
	m      *directory.Map // as published with the newest hold
	tables []*changing
	shards []directory.ShardID // where it has changed something
	noted  bool
}

// changing is a table that the transaction holds.
type changing struct {
	name   directory.TableName // in the map
	hold   directory.Hold
	depth  int // savepoints that stood when it was held
	at     directory.ShardID
	oid    uint32               // there
	now    *directory.TableName // its name as the transaction sees it; nil: dropped
	before directory.TableName  // its name when it was held
}

// Begin is for a transaction's first statement that changes the catalog.
func (p *Performer) Begin() *Transaction {
	t := &Transaction{p: p, id: newID()}
	p.setActive(t.id, true)
	return t
}

// Holds reports whether a table's hold is the transaction's own.
func (t *Transaction) Holds(table *directory.Table) bool {
	return table.Hold != nil && table.Hold.ID == t.id
}

// Run performs one statement. m is the map as the transaction sees it; depth is the number of the
// transaction's savepoints. Errors of shards are returned as they are; the transaction has failed then.
func (t *Transaction) Run(ctx context.Context, links Links, m *directory.Map, r Request, depth int) error {
	if err := refuseForm(r); err != nil {
		return err
	}
	w := &work{t: t, links: links, m: m, request: r, sums: make(map[directory.TableName]string)}
	if len(r.Tables) == 0 {
		return w.object(ctx, depth)
	}
	holders, err := holdersOf(m, r.Tables)
	if err != nil {
		return err
	}
	w.holders = holders
	if err := t.p.syncRoles(ctx, m, holders); err != nil {
		return err
	}
	if err := t.hold(ctx, links, m, r.Tag+" "+r.Tables[0].String(), r.Tables, depth); err != nil {
		return err
	}
	return w.tables(ctx)
}

// hold publishes the hold of the tables that are not held yet and waits until nothing is in flight on them.
func (t *Transaction) hold(ctx context.Context, links Links, m *directory.Map, reason string, names []directory.TableName, depth int) error {
	var added []*changing
	var change directory.Batch
	var shards []directory.ShardID
	for _, name := range names {
		if slices.ContainsFunc(t.tables, func(c *changing) bool { return c.now != nil && *c.now == name }) {
			continue
		}
		table, ok := m.Table(name)
		if !ok {
			continue
		}
		holders := slices.Clone(m.ShardsOf(table))
		slices.Sort(holders)
		c := &changing{name: name, before: name, now: &name, depth: depth, at: holders[0]}
		c.hold = directory.Hold{ID: t.id, Reason: reason, Owner: t.p.config.Router, Shards: changedShards(m.Home, holders)}
		added = append(added, c)
		change = append(change, directory.SetHold{Table: name, Hold: c.hold})
		shards = appendNew(shards, c.hold.Shards...)
	}
	if len(added) == 0 {
		return nil
	}
	published, err := t.publish(ctx, links, m.Database, shards, change)
	if published != nil {
		t.m = published
		t.tables = append(t.tables, added...)
	}
	if err != nil {
		return err
	}
	for _, c := range added {
		err := links.Lend(ctx, c.at, func(conn *pgx.Conn) error {
			return conn.QueryRow(ctx, `SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
				WHERE n.nspname = $1 AND c.relname = $2`, c.name.Schema, c.name.Name).Scan(&c.oid)
		})
		if errors.Is(err, pgx.ErrNoRows) {
			return pgerr.New(pgerr.StaleMap, "the table was replaced by another session").WithHint("Run the transaction again.")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *Transaction) publish(
	ctx context.Context, links Links, database string, shards []directory.ShardID, change directory.Change,
) (*directory.Map, error) {
	ctx, release := links.Cancellable(ctx)
	defer release()
	return t.p.publishHold(ctx, database, shards, change)
}

// publishHold publishes holds, and waits for other changes of the tables to end, both for a bounded time.
func (p *Performer) publishHold(
	ctx context.Context, database string, shards []directory.ShardID, change directory.Change,
) (*directory.Map, error) {
	waiting, cancel := context.WithTimeout(ctx, p.config.HoldTimeout)
	defer cancel()
	for {
		m, err := p.config.Fence.Publish(waiting, database, shards, change)
		if errors.Is(err, directory.ErrHeld) {
			if etcd.Pause(waiting, heldPause) == nil {
				continue
			}
			if ctx.Err() != nil {
				return m, ctx.Err()
			}
			return m, pgerr.Newf("55006", "the table is being changed by another session").WithDetail(err.Error()).
				WithHint("Try again when that has ended.").Because(err)
		}
		var missing *etcd.NotAcknowledgedError
		if errors.As(err, &missing) && ctx.Err() == nil {
			return m, pgerr.New("55P03", "statements in flight did not end in time").WithDetail(missing.Error()).
				WithHint("Try again when the long statements on the table have ended.").Because(err)
		}
		return m, err
	}
}

// heldPause is the wait between two looks at a table that another session is changing.
const heldPause = 50 * time.Millisecond

func appendNew(to []directory.ShardID, shards ...directory.ShardID) []directory.ShardID {
	for _, shard := range shards {
		if !slices.Contains(to, shard) {
			to = append(to, shard)
		}
	}
	return to
}

// look asks the shards what the transaction has made of its tables so far.
func (t *Transaction) look(ctx context.Context, links Links) error {
	for _, shard := range t.authorities() {
		err := links.Lend(ctx, shard, func(conn *pgx.Conn) error {
			for _, c := range t.tables {
				if c.at != shard {
					continue
				}
				var now directory.TableName
				err := conn.QueryRow(ctx, `SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c
					JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1`, c.oid).Scan(&now.Schema, &now.Name)
				switch {
				case errors.Is(err, pgx.ErrNoRows):
					c.now = nil
				case err != nil:
					return fmt.Errorf("look for table %s: %w", c.name, err)
				default:
					c.now = &now
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *Transaction) authorities() []directory.ShardID {
	var shards []directory.ShardID
	for _, c := range t.tables {
		shards = appendNew(shards, c.at)
	}
	return shards
}

// Map is the map as the transaction sees it: base with its own changes, which nobody else sees.
func (t *Transaction) Map(ctx context.Context, links Links, base *directory.Map) (*directory.Map, error) {
	if err := t.look(ctx, links); err != nil {
		return nil, err
	}
	if len(t.tables) == 0 {
		return base, nil
	}
	change, err := t.conclusion(func(c *changing) directory.Hold { return c.outcome() })
	if err != nil {
		return nil, err
	}
	next, err := change.Apply(base)
	if err != nil {
		return nil, pgerr.New(pgerr.StaleMap, "the transaction's change of a table was given up").
			WithHint("Run the transaction again.").Because(err)
	}
	own := *next // it is of base's epoch: nobody has published it
	own.Epoch = base.Epoch
	return &own, nil
}

// outcome is the table's hold with what is to become of the table.
func (c *changing) outcome() directory.Hold {
	hold := c.hold
	switch {
	case c.now == nil:
		hold.Drop = true
	case *c.now != c.name:
		name := *c.now
		hold.Rename = &name
	}
	return hold
}

// conclusion is the change of the map that ends the holds as decided.
func (t *Transaction) conclusion(outcome func(*changing) directory.Hold) (directory.Batch, error) {
	ended := make([]endedHold, len(t.tables))
	for i, c := range t.tables {
		ended[i] = endedHold{c.name, outcome(c)}
	}
	return concluded(ended)
}

type endedHold struct {
	table directory.TableName
	hold  directory.Hold
}

// concluded orders the ends of decided holds so that each new name is free when its table gets it.
func concluded(holds []endedHold) (directory.Batch, error) {
	var change directory.Batch
	for _, h := range holds {
		change = append(change, directory.NoteHold{Table: h.table, Hold: h.hold}, directory.DecideHold{Table: h.table, ID: h.hold.ID})
	}
	left := slices.Clone(holds)
	for len(left) > 0 {
		i := slices.IndexFunc(left, func(h endedHold) bool {
			return h.hold.Drop || h.hold.Rename == nil ||
				!slices.ContainsFunc(left, func(other endedHold) bool { return other.table == *h.hold.Rename })
		})
		if i < 0 {
			return nil, pgerr.Unsupported("tables that swap their names in one transaction are not supported", "Use two transactions.")
		}
		change = append(change, directory.ClearHold{Table: left[i].table, ID: left[i].hold.ID})
		left = slices.Delete(left, i, i+1)
	}
	return change, nil
}

// RolledBackTo forgets what was held after a savepoint; depth is the number of savepoints that still stand.
func (t *Transaction) RolledBackTo(ctx context.Context, depth int) {
	var undone []*changing
	t.tables = slices.DeleteFunc(t.tables, func(c *changing) bool {
		if c.depth >= depth {
			undone = append(undone, c)
		}
		return c.depth >= depth
	})
	t.clear(ctx, undone)
}

// Released notes that savepoints were released; depth still stand.
func (t *Transaction) Released(depth int) {
	for _, c := range t.tables {
		c.depth = min(c.depth, depth)
	}
}

// Note makes the change known to whoever may have to end it, before the first shard is told to commit.
func (t *Transaction) Note(ctx context.Context, links Links) error {
	if len(t.tables) == 0 {
		return nil
	}
	if err := t.look(ctx, links); err != nil {
		return err
	}
	if _, err := t.conclusion((*changing).outcome); err != nil {
		return err
	}
	xids := make([]string, len(t.shards))
	for i, shard := range t.shards {
		err := links.Lend(ctx, shard, func(conn *pgx.Conn) error {
			return conn.QueryRow(ctx, "SELECT pg_catalog.pg_current_xact_id()::text").Scan(&xids[i])
		})
		if err != nil {
			return err
		}
	}
	var change directory.Batch
	for _, c := range t.tables {
		c.hold = c.outcome()
		c.hold.Shards, c.hold.XIDs = t.shards, xids
		change = append(change, directory.NoteHold{Table: c.name, Hold: c.hold})
	}
	if err := t.p.reached("note"); err != nil {
		return err
	}
	t.noted = true
	m, err := t.p.config.Store.Apply(ctx, t.m.Database, change)
	if errors.Is(err, directory.ErrNotHeld) || errors.Is(err, directory.ErrHeld) {
		return pgerr.New(pgerr.StaleMap, "the transaction's change of a table was given up").
			WithHint("Run the transaction again.").Because(err)
	}
	if err != nil {
		return err
	}
	t.m = m
	return t.p.reached("noted")
}

// Committed ends the holds of a transaction that was committed. It returns when every live router works with
// the new map, or after a bounded time: then Recover ends them.
func (t *Transaction) Committed(ctx context.Context) {
	defer t.p.setActive(t.id, false)
	if len(t.tables) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.p.config.HoldTimeout)
	defer cancel()
	var ended []endedHold
	for _, c := range t.tables {
		ended = append(ended, endedHold{c.name, c.hold})
	}
	for {
		done, err := t.p.conclude(ctx, t.m, ended)
		if err == nil && !done { // a shard has not committed its prepared part yet
			err = etcd.Pause(ctx, resolvePause)
			done = err != nil
		}
		if err != nil {
			t.p.config.Log.WarnContext(ctx, "change left to recovery", "hold", t.id, "error", err)
		}
		if done || err != nil {
			return
		}
	}
}

// RolledBack ends the holds of a transaction of which nothing was committed.
func (t *Transaction) RolledBack(ctx context.Context) {
	defer t.p.setActive(t.id, false)
	t.clear(ctx, t.tables)
	t.tables = nil
}

// Left leaves the holds to Recover: it is not known what became of the transaction.
func (t *Transaction) Left() { t.p.setActive(t.id, false) }

// clear ends undecided holds.
func (t *Transaction) clear(ctx context.Context, undone []*changing) {
	if len(undone) == 0 {
		return
	}
	ctx, cancel := t.p.cleanup(ctx)
	defer cancel()
	names := make([]directory.TableName, len(undone))
	for i, c := range undone {
		names[i] = c.name
	}
	if err := t.p.undo(ctx, t.m, undone[0].hold, names); err != nil {
		t.p.config.Log.WarnContext(ctx, "hold left to recovery", "hold", t.id, "error", err)
	}
}

// conclude ends the holds of a client's transaction as the shards say that it ended; done is false while it
// has not. It may be repeated, by anyone.
func (p *Performer) conclude(ctx context.Context, m *directory.Map, holds []endedHold) (done bool, err error) {
	hold := holds[0].hold
	var names []directory.TableName
	for _, h := range holds {
		names = append(names, h.table)
	}
	if err := p.reached("conclude"); err != nil {
		return false, err
	}
	committed, aborted := 0, 0
	for i, xid := range hold.XIDs {
		status, err := p.transactionStatus(ctx, m, hold.Shards[i], xid)
		if err != nil {
			return false, err
		}
		switch status {
		case "committed":
			committed++
		case "aborted":
			aborted++
		default:
			return false, nil
		}
	}
	switch {
	case committed > 0 && aborted > 0:
		return false, fmt.Errorf("hold %s: its transaction was committed on some shards and rolled back on others", hold.ID)
	case committed == 0:
		return true, p.undo(ctx, m, hold, names)
	}
	change, err := concluded(holds)
	if err != nil {
		return false, err
	}
	_, err = p.config.Fence.Publish(ctx, m.Database, hold.Shards, change)
	if errors.Is(err, directory.ErrNotHeld) {
		return true, nil // another router was faster
	}
	return err == nil, err
}

// transactionStatus is what a shard says of a transaction: "in progress" (prepared, too), "committed" or "aborted".
func (p *Performer) transactionStatus(ctx context.Context, m *directory.Map, shard directory.ShardID, xid string) (string, error) {
	conn, err := p.dial(ctx, m, shard, "shardyard-recover")
	if err != nil {
		return "", err
	}
	defer p.giveBack(ctx, conn)
	var status *string
	err = conn.QueryRow(ctx, "SELECT pg_catalog.pg_xact_status($1::text::pg_catalog.xid8)", xid).Scan(&status)
	if err != nil {
		return "", fmt.Errorf("ask shard %s for transaction %s: %w", shard, xid, err)
	}
	if status == nil {
		return "", fmt.Errorf("shard %s does not know any more what became of transaction %s", shard, xid)
	}
	return *status, nil
}

// Shards are those where the transaction has changed something.
func (t *Transaction) Shards() []directory.ShardID { return t.shards }

// HoldsAny reports whether the transaction holds any table.
func (t *Transaction) HoldsAny() bool { return len(t.tables) > 0 }
