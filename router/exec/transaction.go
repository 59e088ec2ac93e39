package exec

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// transaction is the session's transaction. Outside of a block there is at most the implicit one of a
// pipeline, which the servers keep by themselves until Sync.
type transaction struct {
	status byte // wire.TxIdle, TxOpen or TxFailed, as the client sees it
	// block: the shards get a BEGIN. explicit: the client sent one; else it is the implicit block of a
	// Query with several statements.
	block, explicit bool
	begin           string // what begins it on a shard
	later           []later
	isolation       string
	savepoints      []string
	modes           planner.Transaction // that it was begun with
	present         string              // its time, as Present told it
	first           *directory.Map      // map of the first statement of a REPEATABLE READ transaction
	snapshots       bool                // all shards have taken their snapshots of it
}

// later is what the client has said since the beginning and a shard that is reached later must be told, in this order: a
// statement, or a savepoint.
type later struct {
	sql       string
	savepoint bool
	access    string // of SET TRANSACTION
}

// back forgets what was said behind savepoint i; with released the statements stay, without their savepoints,
// but for READ ONLY and READ WRITE, which end with their subtransaction.
func (t *transaction) back(i int, released bool) {
	seen := 0
	for at, l := range t.later {
		if !l.savepoint {
			continue
		}
		if seen++; seen <= i {
			continue
		}
		if !released {
			t.later = t.later[:at+1]
			return
		}
		kept := t.later[:at]
		for _, behind := range t.later[at:] {
			if !behind.savepoint && behind.access == "" {
				kept = append(kept, behind)
			}
		}
		t.later = kept
		return
	}
}

// isolated reports whether the transaction keeps one snapshot.
func (t *transaction) isolated() bool {
	return t.isolation == "repeatable read" || t.isolation == "serializable"
}

// Serializable reports whether the open transaction is SERIALIZABLE.
func (x *Executor) Serializable() bool { return x.tx.block && x.tx.isolation == "serializable" }

// KeepsMap reports whether the transaction has one snapshot and so goes by the map that it began with.
func (x *Executor) KeepsMap() bool { return x.tx.block && x.tx.isolated() && x.tx.first != nil }

// Status is the status that ReadyForQuery tells.
func (x *Executor) Status() byte {
	if x.tx.block && !x.tx.explicit {
		return wire.TxIdle
	}
	return x.tx.status
}

// Failed reports whether the transaction only waits for its end.
func (x *Executor) Failed() bool { return x.tx.status == wire.TxFailed }

// InBlock reports whether the client has begun a transaction.
func (x *Executor) InBlock() bool { return x.tx.explicit }

// InImplicitBlock reports whether a Query with several statements runs outside of a transaction.
func (x *Executor) InImplicitBlock() bool { return x.tx.block && !x.tx.explicit }

// Begin opens a transaction. Shards learn of it when a statement goes to them; defaults is the session's
// default_transaction_isolation.
func (x *Executor) Begin(modes planner.Transaction, defaultIsolation string) {
	x.tx.block, x.tx.explicit, x.tx.status = true, true, wire.TxOpen
	x.tx.begin = "BEGIN" + modesSQL(modes)
	x.tx.modes, x.tx.later = modes, x.tx.later[:0]
	x.tx.isolation = modes.Isolation
	if modes.Isolation == "" {
		x.tx.isolation = defaultIsolation
	}
}

// BeginImplicit opens the block of a Query with several statements.
func (x *Executor) BeginImplicit(defaultIsolation string) {
	x.tx = transaction{status: wire.TxOpen, block: true, begin: "BEGIN", isolation: defaultIsolation}
}

func modesSQL(t planner.Transaction) string {
	sql := ""
	if t.Isolation != "" {
		sql += " ISOLATION LEVEL " + t.Isolation
	}
	if t.Access != "" {
		sql += " " + t.Access
	}
	if t.Deferrable != "" {
		sql += " " + t.Deferrable
	}
	return sql
}

// SetModes changes the modes of the open transaction: on the shards it has reached at once, on others when
// it reaches them.
func (x *Executor) SetModes(ctx context.Context, modes planner.Transaction) error {
	sql := "SET TRANSACTION" + modesSQL(modes)
	for _, l := range slices.Clone(x.links) {
		if l.begun {
			if err := x.Command(ctx, l, sql); err != nil {
				return err
			}
		}
	}
	x.tx.later = append(x.tx.later, later{sql: sql, access: modes.Access})
	if modes.Isolation != "" {
		x.tx.isolation = modes.Isolation
	}
	if modes.Deferrable != "" {
		x.tx.modes.Deferrable = modes.Deferrable
	}
	return nil
}

// enlist queues the BEGIN for a link and the savepoints that stand.
func (x *Executor) enlist(l *Link) {
	sql := x.tx.begin
	if name := x.memberName(l); name != "" {
		sql += "; SET LOCAL application_name = " + Quote(name)
		l.member = true
	}
	if x.idleLimit && x.Busy() {
		sql += "; " + noIdleLimit
		l.lifted = true
	}
	for i := range x.tx.later {
		sql += "; " + x.tx.later[i].sql
	}
	x.queueQuery(l, sql, step{kind: stepQuery, silent: true})
	l.begun = true
	if len(l.saved) == 0 { // else the settings changed in a pipeline that this BEGIN adopts
		l.saved = append(l.saved, l.conn.Settings())
	}
	for range x.tx.savepoints {
		l.saved = append(l.saved, l.conn.Settings())
	}
}

const noIdleLimit = "SET LOCAL idle_in_transaction_session_timeout = 0"

// LimitIdle says that the session has idle_in_transaction_session_timeout set. Its owner keeps that: in a transaction on
// several shards one shard is idle while the client waits for another.
func (x *Executor) LimitIdle(limit bool) { x.idleLimit = limit }

// liftIdle lets the shards of the transaction be idle, because another one is about to work in it, too.
func (x *Executor) liftIdle(ctx context.Context) error {
	if !x.idleLimit {
		return nil
	}
	for _, l := range slices.Clone(x.links) {
		if !l.begun || l.lifted {
			continue
		}
		if err := x.Drain(ctx, l); err != nil {
			return err
		}
		if err := x.Command(ctx, l, noIdleLimit); err != nil {
			return err
		}
		l.lifted = true
	}
	return nil
}

// EnlistAll sends the BEGIN to the connections of a pipeline that a BEGIN of the client has just adopted.
func (x *Executor) EnlistAll(ctx context.Context) error {
	for _, l := range slices.Clone(x.links) {
		if l.pipelined && !l.begun {
			x.enlist(l)
			if err := x.run(ctx, l); err != nil {
				return err
			}
			l.pipelined = false // a Query ends a pipeline
		}
	}
	return nil
}

// Fail marks the transaction as failed after an error; outside of a block it does nothing.
func (x *Executor) Fail() {
	if x.tx.block {
		x.tx.status = wire.TxFailed
	}
}

// MayUse checks that the transaction may go to these shards, before anything is sent: one with one snapshot sees those
// that have taken it, which at its first statement are all (one shard only if it is SERIALIZABLE). It may write on any
// number of shards.
func (x *Executor) MayUse(ctx context.Context, shards []directory.ShardID, _ bool) error {
	if x.capturing() {
		if err := x.Settle(ctx); err != nil {
			return err
		}
	}
	if x.tx.isolated() && x.tx.block {
		return x.sameSnapshot(ctx, shards)
	}
	return nil
}

func (x *Executor) pipelining() bool {
	return slices.ContainsFunc(x.links, func(l *Link) bool { return l.pipelined })
}

func (x *Executor) sameSnapshot(ctx context.Context, shards []directory.ShardID) error {
	switch {
	case x.tx.first == nil:
		if x.tx.isolation == "repeatable read" && x.gate != nil && x.snapshotMode != NoSnapshot && x.view.Map.AnythingSharded() {
			if err := x.takeSnapshots(ctx); err != nil {
				return err
			}
		}
		x.tx.first = x.view.Map
	case x.tx.first != x.view.Map && !x.samePlacement(x.tx.first, x.view.Map):
		return pgerr.New(pgerr.StaleMap, "could not serialize access due to a change of the partition map").
			WithHint("Run the transaction again.")
	}
	if x.tx.snapshots || x.tx.isolation == "repeatable read" && x.snapshotMode == NoSnapshot {
		return nil
	}
	at := shards[0]
	for _, l := range x.links {
		if l.used {
			at = l.shard
		}
	}
	for _, shard := range shards {
		if shard != at {
			return pgerr.Unsupported(
				fmt.Sprintf("a %s transaction on several shards is not supported", x.tx.isolation),
				fmt.Sprintf("The transaction reads shard %s and this statement needs shard %s. Use REPEATABLE READ or READ COMMITTED.", at, shard))
		}
	}
	return nil
}

// samePlacement reports whether everything that the statement reads lives where it lived.
func (x *Executor) samePlacement(was, now *directory.Map) bool {
	for _, name := range x.view.Tables {
		before, knownBefore := was.Table(name)
		after, known := now.Table(name)
		if knownBefore != known || known && !samePlace(was, before, now, after) {
			return false
		}
	}
	// The statement's tables on the home shard are not among those: one may have come there.
	for i := range was.Tables {
		name := was.Tables[i].Name
		if _, known := now.Table(name); known {
			continue
		}
		if x.view.Catalog == nil {
			return false
		}
		if _, exists := x.view.Catalog.Relation(name); exists {
			return false
		}
	}
	return true
}

func samePlace(a *directory.Map, was *directory.Table, b *directory.Map, now *directory.Table) bool {
	if was.Kind != now.Kind || was.Shard != now.Shard || was.Group != now.Group {
		return false
	}
	if was.Group == "" {
		return true
	}
	wasGroup, _ := a.Group(was.Group)
	nowGroup, _ := b.Group(now.Group)
	return wasGroup == nowGroup || wasGroup.Entries == nowGroup.Entries && reflect.DeepEqual(wasGroup.Partitions, nowGroup.Partitions)
}

// Used notes that a statement of the client ran on the link.
func (x *Executor) Used(l *Link, readOnly bool) {
	l.used = true
	if l.watch != nil {
		l.watch.fresh = false
	}
	x.usage.note(l.shard)
	if !readOnly {
		l.wrote, x.wrote = true, true
	}
}

// TakeWrote reports whether statements that may have written have run since it was called last.
func (x *Executor) TakeWrote() bool {
	wrote := x.wrote
	x.wrote = false
	return wrote
}

// Savepoint sets a savepoint.
func (x *Executor) Savepoint(ctx context.Context, name string) error {
	err := x.onAll(ctx, "SAVEPOINT "+directory.QuoteIdentifier(name))
	if err != nil {
		return err
	}
	x.tx.savepoints = append(x.tx.savepoints, name)
	x.tx.later = append(x.tx.later, later{sql: "SAVEPOINT " + directory.QuoteIdentifier(name), savepoint: true})
	for _, l := range x.links {
		if l.begun {
			l.saved = append(l.saved, l.conn.Settings())
		}
	}
	return nil
}

// ReleaseSavepoint releases a savepoint and those after it.
func (x *Executor) ReleaseSavepoint(ctx context.Context, name string) error {
	i, err := x.savepoint(name)
	if err != nil {
		return err
	}
	if err := x.onAll(ctx, "RELEASE SAVEPOINT "+directory.QuoteIdentifier(name)); err != nil {
		return err
	}
	x.tx.savepoints = x.tx.savepoints[:i]
	x.tx.back(i, true)
	for _, l := range x.links {
		if l.begun {
			l.saved = l.saved[:i+1]
		}
	}
	return nil
}

// RollbackTo goes back to a savepoint; it ends the failure of the transaction. The number of savepoints
// that stand behind it is returned.
func (x *Executor) RollbackTo(ctx context.Context, name string) (int, error) {
	i, err := x.savepoint(name)
	if err != nil {
		return 0, err
	}
	// A connection lost in the transaction cannot come back to the savepoint.
	if x.tx.status == wire.TxFailed && x.lost {
		return 0, pgerr.New(pgerr.ConnectionFailure, "the connection to a shard of this transaction was lost").
			WithHint("Roll the transaction back and run it again.")
	}
	if err := x.onAll(ctx, "ROLLBACK TO SAVEPOINT "+directory.QuoteIdentifier(name)); err != nil {
		return 0, err
	}
	x.tx.savepoints = x.tx.savepoints[:i+1]
	x.tx.back(i, false)
	for _, l := range x.links {
		if l.begun {
			l.conn.SetSettings(l.saved[i+1])
			l.saved = l.saved[:i+2]
		}
		if l.watch != nil {
			l.watch.fresh, l.watch.running = false, false
		}
		l.unsettled = l.captured // what was settled since then is in the outbox again
	}
	x.heldTag = x.heldTag[:0]
	x.tx.status = wire.TxOpen
	several := 0
	for _, l := range x.links {
		if l.lifted = false; l.begun {
			several++
		}
	}
	if several > 1 {
		return i + 1, x.liftIdle(ctx)
	}
	return i + 1, nil
}

func (x *Executor) savepoint(name string) (int, error) {
	for i := len(x.tx.savepoints) - 1; i >= 0; i-- {
		if x.tx.savepoints[i] == name {
			return i, nil
		}
	}
	return 0, pgerr.Newf("3B001", "savepoint %s does not exist", `"`+name+`"`)
}

// Savepoints is the number of savepoints that stand.
func (x *Executor) Savepoints() int { return len(x.tx.savepoints) }

// onAll runs a statement on every shard of the transaction.
func (x *Executor) onAll(ctx context.Context, sql string) error {
	for _, l := range slices.Clone(x.links) {
		if l.begun {
			if err := x.Command(ctx, l, sql); err != nil {
				return err
			}
		}
	}
	return nil
}

// OnAll runs a client's statement that concerns every shard of the transaction (SET CONSTRAINTS).
func (x *Executor) OnAll(ctx context.Context, sql string) error {
	for _, l := range x.links { // it runs what watched statements have deferred
		if l.begun && l.watch != nil {
			if err := x.Watch(ctx, l, l.watch.list); err != nil {
				return err
			}
		}
	}
	if err := x.onAll(ctx, sql); err != nil {
		return err
	}
	return x.settleWatched(ctx, false)
}

// Rollback rolls the transaction back on every shard.
func (x *Executor) Rollback(ctx context.Context) error {
	for _, l := range slices.Clone(x.links) {
		if !l.begun {
			continue
		}
		// A connection that cannot roll back is closed, which rolls back too.
		if err := x.Command(ctx, l, "ROLLBACK"); err != nil {
			l.conn.MarkBroken()
			continue
		}
		l.conn.SetSettings(l.saved[0])
		l.begun = false
	}
	x.ended()
	return nil
}

// ended forgets the transaction and gives its connections back.
func (x *Executor) ended() {
	x.tx = transaction{status: wire.TxIdle, savepoints: x.tx.savepoints[:0]}
	x.lost = false
	for _, l := range x.links {
		l.endTransaction()
	}
	x.releaseSides()
	x.releaseIdle()
}

func (l *Link) endTransaction() {
	l.begun, l.used, l.wrote, l.alone, l.member = false, false, false, false, false
	l.captured, l.unsettled, l.notified, l.watch = false, false, false, nil
	l.saved, l.lifted = l.saved[:0], false
	l.rows.none()
}

func textRow(body []byte) []*string {
	row := wire.NewRow(body)
	values := make([]*string, 0, row.Len())
	for {
		value, ok := row.Next()
		if !ok {
			return values
		}
		if value == nil {
			values = append(values, nil)
			continue
		}
		text := string(value)
		values = append(values, &text)
	}
}

// Modes of the open transaction, for COMMIT AND CHAIN. Access and Deferrable are empty where they are the default that it began with.
func (x *Executor) Modes() planner.Transaction {
	modes := x.tx.modes
	modes.Isolation = x.tx.isolation
	for _, l := range x.tx.later {
		if l.access != "" {
			modes.Access = l.access
		}
	}
	return modes
}

// AdoptImplicit makes the implicit block of a Query the client's transaction.
func (x *Executor) AdoptImplicit() { x.tx.explicit = true }

// AddBegin adds a statement to what begins the transaction on shards that it has not reached yet.
func (x *Executor) AddBegin(sql string) { x.tx.later = append(x.tx.later, later{sql: sql}) }

// EndPipeline commits what a pipeline has done so far, as a Query or COMMIT behind it does.
func (x *Executor) EndPipeline(ctx context.Context) error {
	if !x.pipelining() {
		return nil
	}
	return x.Sync(ctx, false)
}

// RollbackPipeline undoes what a pipeline has done so far, as a ROLLBACK in it does.
func (x *Executor) RollbackPipeline(ctx context.Context) error {
	if !x.pipelining() {
		return nil
	}
	return x.Sync(ctx, true)
}
