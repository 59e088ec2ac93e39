package exec

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/commit"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// Commit ends the transaction. It reports whether it was committed: a failed one is rolled back, as in
// Postgres. An error means that it was rolled back, but for 08007, which says that nobody knows.
//
// If at most one shard wrote, each gets a plain COMMIT. Else the shards commit in two phases, as
// docs/transactions.md says: all but one prepare, the last agent decides by its COMMIT.
func (x *Executor) Commit(ctx context.Context) (committed bool, err error) {
	if x.tx.status == wire.TxFailed {
		return false, x.Rollback(ctx)
	}
	err = x.settleWatched(ctx, true)
	if err == nil {
		err = x.settleMirrors(ctx, true)
	}
	if err != nil {
		return false, errors.Join(err, x.Rollback(ctx))
	}
	writers, err := x.writers(ctx)
	if err != nil {
		return false, errors.Join(err, x.Rollback(ctx))
	}
	if len(writers) > 1 {
		return x.commitTogether(ctx, writers)
	}
	var few [fewLinks]*Link
	links := append(few[:0], x.links...)
	// Who wrote goes first: what it answers is the outcome. The others have only read, so nothing that
	// happens to them afterwards changes it.
	slices.SortStableFunc(links, func(a, b *Link) int { return boolOrder(b.wrote) - boolOrder(a.wrote) })
	decided := false
	for _, l := range links {
		if !l.begun {
			continue
		}
		wrote := l.wrote
		if err = x.commitLink(ctx, l); err == nil {
			decided = decided || wrote
			// gofail: var afterCommitOne struct{}
			continue
		}
		if !decided {
			return false, errors.Join(err, x.Rollback(ctx))
		}
		l.conn.MarkBroken()
	}
	x.ended()
	return true, nil
}

func boolOrder(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (x *Executor) commitLink(ctx context.Context, l *Link) error {
	// What is deferred to the end has notices for the client.
	x.queueQuery(l, "COMMIT", step{kind: stepQuery, silent: true, notices: true})
	err := x.run(ctx, l)
	switch {
	case err == nil:
		l.begun = false
		return nil
	case l.conn.Broken() && l.wrote:
		return pgerr.Newf(pgerr.OutcomeUnknown,
			"the connection to shard %s was lost while it committed; the outcome is unknown", l.shard).Because(err)
	}
	l.noteEnd()
	return err
}

// noteEnd notes that a COMMIT or PREPARE TRANSACTION that failed has rolled back what it was to end.
func (l *Link) noteEnd() {
	if !l.conn.Broken() && l.conn.TxStatus() == wire.TxIdle {
		l.begun = false
		l.conn.SetSettings(l.saved[0])
	}
}

// errand is a statement of ours for one link.
type errand struct {
	link *Link
	sql  string
	rows [][]*string // what it answered
	err  error
}

// runAll runs the errands at the same time and waits for all. It returns the first error; each has its own too.
func (x *Executor) runAll(ctx context.Context, errands []errand) error {
	for i := range errands {
		e := &errands[i]
		if e.link.conn.Broken() {
			e.err = pgerr.Newf(pgerr.ConnectionFailure, "connection to shard %s was lost", e.link.shard)
			continue
		}
		x.queueQuery(e.link, e.sql, step{kind: stepQuery, silent: true, notices: true, collect: &e.rows})
		e.err = x.send(e.link)
		// gofail: var afterSend struct{}
	}
	var first error
	for i := range errands {
		e := &errands[i]
		if e.err == nil {
			e.err = x.run(ctx, e.link)
		} else {
			e.link.steps = e.link.steps[:0]
			x.drop(e.link)
		}
		if e.err != nil && first == nil {
			first = e.err
		}
	}
	return first
}

// writer is a shard that has written in the transaction.
type writer struct {
	link *Link
	xid  uint64
	// lazy: synchronous_commit is less than "on" there.
	lazy bool
	// bound: it certainly cannot prepare.
	bound bool
}

// askWriter fires what is deferred, so that nothing writes or waits later, and asks who has written.
const askWriter = "SET CONSTRAINTS ALL IMMEDIATE; SELECT pg_catalog.pg_current_xact_id_if_assigned(), " +
	"pg_catalog.current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')"

// askPinned asks a connection that a session is pinned to, besides, whether the transaction did what cannot be
// prepared: used a temporary relation (or dropped one: what it has locked is not there any more), or declared a
// cursor WITH HOLD.
const askPinned = askWriter + `, EXISTS (
	SELECT FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) l.relation
	WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND l.relation IS NOT NULL
	AND (c.oid IS NULL OR c.relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())
) OR EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable AND creation_time OPERATOR(pg_catalog.>=) pg_catalog.now())`

// askNotified asks a connection whose transaction sends notifications: they are part of what it commits, and it cannot
// prepare.
const askNotified = "SET CONSTRAINTS ALL IMMEDIATE; SELECT pg_catalog.pg_current_xact_id(), " +
	"pg_catalog.current_setting('synchronous_commit') NOT IN ('on', 'remote_apply'), true"

// mayHaveWritten reports a link whose statements are not proved to be read-only, or not by us: a function may
// be declared STABLE and write all the same.
func (l *Link) mayHaveWritten() bool { return (l.begun || l.pipelined) && (l.alone || l.wrote) }

// severalWriters reports whether more than one shard may have written.
func (x *Executor) severalWriters() bool {
	n := 0
	for _, l := range x.links {
		if l.mayHaveWritten() {
			n++
		}
	}
	return n > 1
}

// writers asks Postgres who has written, if more than one may have. One that may have written alone is not asked.
func (x *Executor) writers(ctx context.Context) ([]writer, error) {
	if !x.severalWriters() {
		return nil, nil
	}
	if err := x.DrainAll(ctx); err != nil {
		return nil, err
	}
	var errands []errand
	for _, l := range x.links {
		if l.mayHaveWritten() {
			sql := askWriter
			switch {
			case l.notified:
				sql = askNotified
			case l.pinned != "":
				sql = askPinned
			}
			errands = append(errands, errand{link: l, sql: sql})
		}
	}
	if err := x.runAll(ctx, errands); err != nil {
		return nil, err
	}
	var writers []writer
	for i := range errands {
		e := &errands[i]
		if len(e.rows) != 1 || len(e.rows[0]) < 2 || e.rows[0][1] == nil {
			return nil, fmt.Errorf("ask shard %s for its transaction: unexpected answer", e.link.shard)
		}
		bound := len(e.rows[0]) == 3 && e.rows[0][2] != nil && *e.rows[0][2] == "t"
		if e.link.wrote = e.rows[0][0] != nil; !e.link.wrote {
			continue
		}
		xid, err := strconv.ParseUint(*e.rows[0][0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("ask shard %s for its transaction: %w", e.link.shard, err)
		}
		writers = append(writers, writer{link: e.link, xid: xid, lazy: *e.rows[0][1] == "t", bound: bound})
	}
	return writers, nil
}

// lastAgent moves to the front the writer that decides: one that cannot or may not be able to prepare. What makes a
// connection dirty (a trigger, a function) may have used NOTIFY, which nothing shows; plain NOTIFY runs on the home shard.
func lastAgent(writers []writer) {
	score := func(w writer) int {
		return 8*boolOrder(w.bound) + 4*boolOrder(w.link.conn.Dirty() && w.link.pinned == "") + 2*boolOrder(w.link.pinned != "") + boolOrder(w.link.home)
	}
	slices.SortStableFunc(writers, func(a, b writer) int { return score(b) - score(a) })
}

// commitTogether commits in two phases.
func (x *Executor) commitTogether(ctx context.Context, writers []writer) (committed bool, err error) {
	x.usage.twoPhase()
	lastAgent(writers)
	agent, others := writers[0].link, writers[1:]
	t := &together{x: x, agent: agent, gid: x.origin.Next(x.view.Map.ClusterID, agent.shard, writers[0].xid)}
	for _, w := range others {
		t.participants = append(t.participants, w.link.shard)
	}
	if t.seal, err = x.seal(ctx, agent, commit.DecideMessage(t.gid, t.participants)); err != nil {
		return false, errors.Join(err, x.Rollback(ctx))
	}
	// gofail: var beforePrepare struct{}
	if err := t.prepare(ctx, others); err != nil {
		return false, errors.Join(err, t.rollback(ctx))
	}
	// gofail: var beforeDecide struct{}
	if err := t.decide(ctx); err != nil {
		if pgerr.Of(err).Code == pgerr.OutcomeUnknown {
			t.giveUp()
			return false, err
		}
		return false, errors.Join(err, t.rollback(ctx))
	}
	// gofail: var afterDecide struct{}
	t.finish(ctx)
	return true, nil
}

// together is a commit in two phases under way.
type together struct {
	x            *Executor
	gid          commit.GID
	agent        *Link
	participants []directory.ShardID
	seal         string  // proves to the last agent that the decision is the router's
	prepared     []*Link // those that have prepared
}

// prepare prepares the transaction on all writers but the last agent.
func (t *together) prepare(ctx context.Context, others []writer) error {
	errands := make([]errand, len(others))
	for i, w := range others {
		sql := "PREPARE TRANSACTION '" + t.gid.String() + "'"
		if w.lazy {
			sql = "SET LOCAL synchronous_commit = 'on'; " + sql
		}
		errands[i] = errand{link: w.link, sql: sql}
	}
	err := t.x.runAll(ctx, errands)
	for i := range errands {
		l := errands[i].link
		if errands[i].err == nil && l.conn.TxStatus() == wire.TxIdle {
			l.begun = false
			t.prepared = append(t.prepared, l)
			continue
		}
		l.noteEnd()
		if errands[i].err == nil && err == nil {
			err = pgerr.Newf(pgerr.InternalError, "shard %s did not prepare the transaction", l.shard)
		}
	}
	for i := range errands {
		if explained := explainPrepare(errands[i].link.shard, errands[i].err); explained != nil {
			return explained
		}
	}
	return err
}

// explainPrepare adds to an error of PREPARE TRANSACTION what a client, which sent a COMMIT, cannot know.
func explainPrepare(shard directory.ShardID, err error) error {
	var e *pgerr.Error
	if !errors.As(err, &e) {
		return nil
	}
	switch e.Code {
	case pgerr.FeatureNotSupported:
		return pgerr.Newf(pgerr.FeatureNotSupported, "shard %s cannot commit this transaction together with other shards", shard).
			WithDetail("It said: " + e.Message + ".").
			WithHint("Only one of the shards that a transaction writes on may use temporary tables, NOTIFY or cursors WITH HOLD in it.").Because(err)
	case "55000":
		return pgerr.Newf("55000", "shard %s cannot prepare transactions", shard).
			WithDetail("It said: " + e.Message + ".").
			WithHint("Set max_prepared_transactions on that server to at least max_connections and restart it.").Because(err)
	}
	return nil
}

// decide has the last agent decide and commit. An error means that the transaction is not committed and never
// will be, but for 08007.
func (t *together) decide(ctx context.Context) error {
	l := t.agent
	errands := []errand{{link: l, sql: commit.DecideSQL(t.gid, t.participants, t.seal)}}
	err := t.x.runAll(ctx, errands)
	if err == nil && l.conn.TxStatus() == wire.TxIdle {
		l.begun = false
		return nil
	}
	if l.conn.Broken() {
		return t.inquire(ctx, err)
	}
	l.noteEnd()
	var e *pgerr.Error
	switch {
	case err == nil:
		return pgerr.Newf(pgerr.InternalError, "shard %s did not decide the transaction", l.shard)
	case errors.As(err, &e) && e.Code == "23505" && e.Constraint == "decision_pkey":
		return pgerr.New("40001", "the transaction took too long to commit and was rolled back by recovery").
			WithHint("Run the transaction again.").Because(err)
	case errors.As(err, &e) && e.Code == "25006":
		return pgerr.Unsupported("a transaction that has written on several shards cannot be made READ ONLY",
			"Use READ ONLY only for transactions that write nothing.").Because(err)
	}
	return err
}

// inquireTimeout bounds the attempts to learn what became of a decision whose answer was lost.
const inquireTimeout = 5 * time.Second

// inquirePause is the pause between them.
const inquirePause = 100 * time.Millisecond

// inquire asks the last agent, over another connection, what became of the decision. nil: it stands.
func (t *together) inquire(ctx context.Context, lost error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), inquireTimeout)
	defer cancel()
	// gofail: var beforeInquire struct{}
	for {
		outcome, err := t.ask(ctx)
		// gofail: var afterInquire struct{}
		switch {
		case err == nil && outcome == commit.Committed:
			return nil
		case err == nil:
			return pgerr.Newf(pgerr.ConnectionFailure,
				"the connection to shard %s was lost while the transaction committed; it was rolled back", t.agent.shard).
				WithHint("Run the transaction again.").Because(lost)
		}
		if !pause(ctx, inquirePause) {
			return t.unknown(lost)
		}
	}
}

func (t *together) unknown(lost error) error {
	return pgerr.Newf(pgerr.OutcomeUnknown,
		"the connection to shard %s was lost while the transaction committed; the outcome is unknown", t.agent.shard).
		WithDetail("The transaction is " + t.gid.String() + ".").
		WithHint("When shard " + string(t.agent.shard) + " is back the transaction is committed or rolled back on all shards within seconds: " +
			"SHOW TRANSACTIONS does not list it any more then, and its rows are there or not. Do not run it again before.").
		Because(lost)
}

func (t *together) ask(ctx context.Context) (commit.Outcome, error) {
	shard, ok := t.x.view.Map.Shard(t.agent.shard)
	if !ok {
		return "", fmt.Errorf("ask shard %s for the decision: not in the map", t.agent.shard)
	}
	conn, err := t.x.pools.Service(ctx, *shard, t.x.identity.Database)
	if err != nil {
		return "", err
	}
	defer commit.Close(ctx, conn)
	return commit.Settle(ctx, conn, t.gid, true)
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// finish commits the prepared transactions, after the decision, and ends those that only read. What cannot be
// done here is done by recovery: the transaction is committed whatever happens from now on.
func (t *together) finish(ctx context.Context) {
	defer t.x.uncancellable()()
	var errands []errand
	for _, l := range t.prepared {
		errands = append(errands, errand{link: l, sql: "COMMIT PREPARED '" + t.gid.String() + "'"})
	}
	for _, l := range t.x.links {
		if l.begun {
			errands = append(errands, errand{link: l, sql: "COMMIT"})
		}
	}
	_ = t.x.runAll(ctx, errands) // each has its own
	// gofail: var afterCommitPrepared struct{}
	for i := range errands {
		e := &errands[i]
		switch {
		case e.err == nil:
			e.link.begun = false
		case i >= len(t.prepared):
			e.link.conn.MarkBroken()
		case !e.link.conn.Broken():
			t.finishOtherwise(ctx, e.link.shard, true)
		}
	}
	t.x.ended()
}

// finishTimeout bounds the attempt to finish a prepared transaction over a service connection.
const finishTimeout = 2 * time.Second

// finishOtherwise finishes a prepared transaction as the service role, where the client's may not (SET LOCAL
// ROLE) or was cancelled.
func (t *together) finishOtherwise(ctx context.Context, id directory.ShardID, committed bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	shard, ok := t.x.view.Map.Shard(id)
	if !ok {
		return
	}
	conn, err := t.x.pools.Service(ctx, *shard, t.x.identity.Database)
	if err != nil {
		return // recovery does it
	}
	defer commit.Close(ctx, conn)
	// gofail: var beforeFinishOtherwise struct{}
	_ = commit.Finish(ctx, conn, t.gid, committed) // recovery does it
	// gofail: var afterFinishOtherwise struct{}
}

// rollback undoes everything: nothing was decided, and after the end of the last agent's transaction nothing
// can be.
func (t *together) rollback(ctx context.Context) error {
	defer t.x.uncancellable()()
	var errands []errand
	for _, l := range t.x.links {
		if l.begun {
			errands = append(errands, errand{link: l, sql: "ROLLBACK"})
		}
	}
	begun := len(errands)
	for _, l := range t.prepared {
		errands = append(errands, errand{link: l, sql: "ROLLBACK PREPARED '" + t.gid.String() + "'"})
	}
	// gofail: var beforeRollback struct{}
	_ = t.x.runAll(ctx, errands) // each has its own
	// gofail: var afterRollback struct{}
	for i := range errands {
		e := &errands[i]
		switch {
		case i >= begun:
			// PREPARE TRANSACTION has made the settings of the transaction the session's, for good.
			if e.err != nil && !e.link.conn.Broken() {
				t.finishOtherwise(ctx, e.link.shard, false)
			}
		case e.err != nil:
			e.link.conn.MarkBroken() // which rolls back too
		default:
			e.link.conn.SetSettings(e.link.saved[0])
			e.link.begun = false
		}
	}
	t.x.ended()
	return nil
}

// giveUp forgets a transaction whose outcome is not known: recovery finishes it.
func (t *together) giveUp() {
	for _, l := range t.x.links {
		if l.begun {
			l.conn.MarkBroken()
		}
	}
	t.x.ended()
}

// uncancellable lets no cancel request reach the shards until restore is called.
func (x *Executor) uncancellable() (restore func()) {
	x.mu.Lock()
	running := x.running
	x.running = nil
	x.mu.Unlock()
	return func() {
		x.mu.Lock()
		x.running = running
		x.mu.Unlock()
	}
}

// syncTogether ends a pipeline outside of a block in which several shards may have written: their implicit
// transactions become blocks, which commit together.
func (x *Executor) syncTogether(ctx context.Context) error {
	x.tx = transaction{status: wire.TxOpen, block: true, begin: "BEGIN", savepoints: x.tx.savepoints[:0]}
	var errands []errand
	for _, l := range x.links {
		if l.pipelined && !l.begun {
			errands = append(errands, errand{link: l, sql: x.tx.begin})
		}
	}
	for _, e := range errands {
		l := e.link
		l.begun = true
		if len(l.saved) == 0 {
			l.saved = append(l.saved, l.conn.Settings())
		}
	}
	err := x.runAll(ctx, errands)
	for _, e := range errands {
		e.link.pipelined = false // a Query ends a pipeline
	}
	if err != nil {
		return errors.Join(err, x.Rollback(ctx))
	}
	// gofail: var afterAdopt struct{}
	_, err = x.Commit(ctx)
	return err
}
