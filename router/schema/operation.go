package schema

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/router/pgerr"
)

// operation is one change of tables on several shards, under a hold.
//
// Invariant: a transaction is prepared only under a hold that lists its gid; the hold goes only when the
// change is undecided and now never can be decided (its parts are then rolled back), or when it is decided and
// all parts are committed. So a prepared part whose hold is gone is to be rolled back, always.
type operation struct {
	p      *Performer
	m      *directory.Map // as published with the hold
	id     string
	hold   directory.Hold
	tables []directory.TableName
	conns  map[directory.ShardID]*pgx.Conn
	wrote  []directory.ShardID // shards whose transaction must be prepared
}

// newOperation names the change. shards are those that may take part.
func (p *Performer) newOperation(m *directory.Map, reason string, tables []directory.TableName, shards []directory.ShardID) *operation {
	id := newID()
	op := &operation{p: p, m: m, id: id, tables: tables, conns: make(map[directory.ShardID]*pgx.Conn)}
	op.hold = directory.Hold{ID: id, Reason: reason, Owner: p.config.Router, Shards: shards}
	for _, shard := range shards {
		op.hold.GIDs = append(op.hold.GIDs, gid(m.ClusterID, id, shard))
	}
	return op
}

// newID names a change.
func newID() string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

const gidPrefix = "shardyard:ddl:"

func gid(cluster, id string, shard directory.ShardID) string {
	return gidPrefix + cluster + ":" + id + ":" + string(shard)
}

func applicationName(id string) string { return "shardyard-ddl/" + id }

// setHold publishes the hold and waits until nothing is in flight on the tables.
func (op *operation) setHold(ctx context.Context) error {
	if err := op.p.reached("hold"); err != nil {
		return err
	}
	op.p.setActive(op.id, true)
	var change directory.Batch
	for _, table := range op.tables {
		change = append(change, directory.SetHold{Table: table, Hold: op.hold})
	}
	m, err := op.p.publishHold(ctx, op.m.Database, op.hold.Shards, change)
	if m != nil {
		op.m = m
	}
	return err
}

// begin opens a connection of the service role and a transaction on a shard.
func (op *operation) begin(ctx context.Context, shard directory.ShardID) (*pgx.Conn, error) {
	conn, err := op.p.dial(ctx, op.m, shard, applicationName(op.id))
	if err != nil {
		return nil, err
	}
	return conn, op.start(ctx, shard, conn)
}

func (op *operation) start(ctx context.Context, shard directory.ShardID, conn *pgx.Conn) error {
	op.conns[shard] = conn
	timeout := fmt.Sprintf("%dms", op.p.config.LockTimeout.Milliseconds())
	if err := run(ctx, conn, []string{
		"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
		"SET LOCAL lock_timeout = '" + timeout + "'",
		"SET LOCAL statement_timeout = 0",
		"SET LOCAL check_function_bodies = off",
		"SET LOCAL idle_in_transaction_session_timeout = 0",
	}); err != nil {
		return fmt.Errorf("begin on shard %s: %w", shard, err)
	}
	return nil
}

// lock takes a table's lock in the open transaction, which waits for the transactions that have used it, a
// bounded number of times; in between others get their turn.
func (op *operation) lock(ctx context.Context, conn *pgx.Conn, table directory.TableName) error {
	return op.lockIn(ctx, conn, table, "ACCESS EXCLUSIVE")
}

func (op *operation) lockIn(ctx context.Context, conn *pgx.Conn, table directory.TableName, mode string) error {
	var err error
	for range op.p.config.LockAttempts {
		if _, err = conn.Exec(ctx, "SAVEPOINT attempt"); err != nil {
			return err
		}
		if _, err = conn.Exec(ctx, "LOCK TABLE ONLY "+table.String()+" IN "+mode+" MODE"); err == nil {
			_, err = conn.Exec(ctx, "RELEASE attempt")
			return err
		}
		if !isState(err, "55P03", "40P01") {
			return err
		}
		if _, rollback := conn.Exec(ctx, "ROLLBACK TO attempt"); rollback != nil {
			return rollback
		}
	}
	return pgerr.Newf("55P03", "could not lock table %q in time", table.Name).
		WithDetail("A transaction that has used it is still open.").
		WithHint("Try again when it has ended.").Because(err)
}

// prepare ends the first phase on the shards that wrote.
func (op *operation) prepare(ctx context.Context) error {
	for _, shard := range op.wrote {
		if err := op.p.reached("prepare " + string(shard)); err != nil {
			return err
		}
		if _, err := op.conns[shard].Exec(ctx, "PREPARE TRANSACTION "+quoteLiteral(gid(op.m.ClusterID, op.id, shard))); err != nil {
			return fmt.Errorf("prepare on shard %s: %w", shard, err)
		}
	}
	return op.p.reached("decide")
}

// decide publishes the decision and finishes. Once the decision is in the map the change happens, whatever
// becomes of this router.
//
// Invariant: the decision is refused if the hold is gone: somebody has undone the change.
func (op *operation) decide(ctx context.Context, decision ...directory.Change) error {
	var change directory.Batch
	for _, table := range op.tables {
		change = append(change, directory.DecideHold{Table: table, ID: op.id})
	}
	m, err := op.p.config.Store.Apply(ctx, op.m.Database, append(change, decision...))
	if err != nil {
		return op.doubt(ctx, err)
	}
	return op.complete(ctx, m)
}

// doubt looks whether a decision that failed was taken after all.
func (op *operation) doubt(ctx context.Context, cause error) error {
	ctx, cancel := op.p.cleanup(ctx)
	defer cancel()
	m, err := op.p.config.Store.LoadMap(ctx, op.m.Database)
	if err != nil {
		if errors.Is(cause, etcd.ErrOutcomeUnknown) {
			return &unfinishedError{cause: pgerr.New(pgerr.OutcomeUnknown, "it is not known whether the change was decided").Because(cause)}
		}
		return cause
	}
	if t, ok := m.Table(op.tables[0]); ok && t.Hold != nil && t.Hold.ID == op.id && t.Hold.Decided {
		return op.complete(ctx, m)
	}
	return cause
}

// complete commits the parts and ends the hold. It is done even if the client has gone.
func (op *operation) complete(ctx context.Context, m *directory.Map) error {
	op.m = m
	if err := op.p.reached("commit"); err != nil {
		return &unfinishedError{cause: err}
	}
	ctx, cancel := op.p.cleanup(ctx)
	defer cancel()
	op.closeAll(ctx) // ends the transactions that only locked
	if err := op.p.finish(ctx, m, op.hold, op.tables); err != nil {
		return &unfinishedError{cause: pgerr.New("08006", "the change is decided, but a shard has not carried it out yet").
			WithDetail(err.Error()).WithHint("Routers complete it as soon as the shard is back; the table waits until then.").Because(err)}
	}
	return nil
}

// unfinishedError is a failure behind which the hold must stay: Recover takes it from there.
type unfinishedError struct{ cause error }

func (e *unfinishedError) Error() string { return e.cause.Error() }
func (e *unfinishedError) Unwrap() error { return e.cause }

// end cleans up: after a failure before the decision it undoes what was done.
func (op *operation) end(ctx context.Context, err error) {
	ctx, cancel := op.p.cleanup(ctx)
	defer cancel()
	defer op.p.setActive(op.id, false)
	op.closeAll(ctx)
	var unfinished *unfinishedError
	if err == nil || errors.As(err, &unfinished) || errors.Is(err, errCrash) {
		return
	}
	if undo := op.p.undo(ctx, op.m, op.hold, op.tables); undo != nil {
		op.p.config.Log.WarnContext(ctx, "change left to recovery", "hold", op.id, "error", undo)
	}
}

// errCrash is how tests end an operation as a crash would: nothing is cleaned up.
var errCrash = errors.New("crash")

func (op *operation) closeAll(ctx context.Context) {
	for shard, conn := range op.conns {
		_ = conn.Close(ctx)
		delete(op.conns, shard)
	}
}

// finish carries out a decided hold: commits its parts, then clears it. It may be repeated, by anyone.
func (p *Performer) finish(ctx context.Context, m *directory.Map, hold directory.Hold, tables []directory.TableName) error {
	for i, g := range hold.GIDs {
		if err := p.resolve(ctx, m, hold.Shards[i], hold.ID, g, "COMMIT PREPARED"); err != nil {
			return err
		}
	}
	if err := p.reached("clear"); err != nil {
		return err
	}
	var change directory.Batch
	for _, table := range tables {
		change = append(change, directory.ClearHold{Table: table, ID: hold.ID})
	}
	_, err := p.config.Fence.Publish(ctx, m.Database, hold.Shards, change)
	if errors.Is(err, directory.ErrNotHeld) {
		return nil // another router was faster
	}
	return err
}

// undo ends an undecided hold. The hold goes first: then nobody can decide any more, and its parts are
// rolled back.
func (p *Performer) undo(ctx context.Context, m *directory.Map, hold directory.Hold, tables []directory.TableName) error {
	var change directory.Batch
	current, err := p.config.Store.LoadMap(ctx, m.Database)
	if err != nil {
		return err
	}
	for _, table := range tables {
		t, ok := current.Table(table)
		switch {
		case !ok || t.Hold == nil || t.Hold.ID != hold.ID:
		case t.Hold.Decided:
			return p.finish(ctx, current, hold, tables)
		default:
			change = append(change, directory.ClearHold{Table: table, ID: hold.ID})
		}
	}
	if len(change) > 0 {
		if _, err := p.config.Store.Apply(ctx, m.Database, change); err != nil && !errors.Is(err, directory.ErrNotHeld) {
			return fmt.Errorf("clear hold %s: %w", hold.ID, err)
		}
	}
	var failed error
	for i, g := range hold.GIDs {
		failed = errors.Join(failed, p.resolve(ctx, m, hold.Shards[i], hold.ID, g, "ROLLBACK PREPARED"))
	}
	return failed
}

func changedShards(home directory.ShardID, holders []directory.ShardID) []directory.ShardID {
	all := []directory.ShardID{home}
	for _, shard := range holders {
		if !slices.Contains(all, shard) {
			all = append(all, shard)
		}
	}
	return all
}
