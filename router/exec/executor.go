package exec

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/mirror"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/planner/catalog"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/commit"
	"github.com/shardyard/shardyard/router/loop"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// View is what the current statement was planned under.
type View struct {
	Map *directory.Map
	// Catalog is nil where nothing is sharded.
	Catalog *catalog.Snapshot
	// Table is the home shard's OID of the one sharded table that the statement is about, or 0.
	Table uint32
	// Tables are the tables in the map that the statement is about.
	Tables []directory.TableName
}

// Executor runs the statements of one session on the shards. It belongs to one goroutine at a time, but
// for Cancel, which any may call.
type Executor struct {
	pools    *backend.Pools
	out      *Output
	identity backend.Identity
	origin   *commit.Origin

	gate         *commit.Gate // nil: each shard has its own snapshot
	snapshotMode SnapshotMode

	view     View
	settings *backend.Settings // what the session wants on every connection
	links    []*Link
	sides    []*sideLink // of queries that are combined
	tx       transaction
	// copyIn waits for the client's COPY data; copyStep is what its server answers afterwards.
	copyIn   *Link
	copyStep step
	// copyNext: the text has another COPY; copyFailed is the error of this one.
	copyNext   bool
	copyFailed error
	secrets    *mirror.Secrets
	heldTag    []byte  // of a statement that captures
	spread     *copyIn // a COPY whose rows go to several shards
	drawn      bool    // see PreferDrawn
	lost       bool    // a connection of the transaction was lost
	wrote      bool    // see TakeWrote
	idleLimit  bool    // see LimitIdle
	bringRole  func(ctx context.Context, shard directory.ShardID) bool
	scratch    []byte
	lastPool   backend.LastPool
	spare      *Link // one that was given back, for its buffers
	columns    []wire.Column
	session    uint64 // whose connections they are, for who asks
	role       uint32 // see ServeRole
	disowned   *atomic.Bool
	keeps      bool // connections stay with the session
	unreadLost bool // see Unread
	notifying  []directory.ShardID
	usage      usage
	task       *loop.Task // nil: a goroutine runs the session
	waiting    func(ctx context.Context) (context.Context, func())
	stopped    func() bool // isCancelled

	// mu guards running, cancelled and, for others than the session, task; for Cancel.
	mu        sync.Mutex
	running   []backend.Canceller
	cancelled bool
	stop      context.CancelFunc // ends a wait for a connection
	request   uint64             // counts the requests
	broken    *pgerr.Error       // why Break ended the request
	breaking  sync.WaitGroup     // cancel requests of Break
}

// New returns an executor without any connection. origin names its transactions; nil: it commits none over
// several shards.
func New(pools *backend.Pools, out *Output, identity backend.Identity, origin *commit.Origin) *Executor {
	x := &Executor{pools: pools, out: out, identity: identity, origin: origin, tx: transaction{status: wire.TxIdle}}
	x.waiting, x.stopped = x.cancellable, x.isCancelled
	return x
}

// SetTask says which task runs the session. It holds no connection yet.
func (x *Executor) SetTask(t *loop.Task) {
	if x.task != t {
		x.mu.Lock()
		x.task = t
		x.mu.Unlock()
	}
}

// SetSession says which number the session has among the router's.
func (x *Executor) SetSession(number uint64) { x.session = number }

// SetView says under which map and catalog the next statements run.
func (x *Executor) SetView(v View) { x.view = v }

// SetSettings says which settings the next statements run under.
func (x *Executor) SetSettings(s *backend.Settings) { x.settings = s }

// Out is where answers go.
func (x *Executor) Out() *Output { return x.out }

// StartRequest begins a request: what is cancelled from here on is the request's.
func (x *Executor) StartRequest() {
	if x.CopyingIn() {
		return // the request that began the COPY still runs
	}
	x.mu.Lock()
	x.cancelled, x.broken = false, nil
	x.request++
	for _, l := range x.links {
		x.running = append(x.running, l.conn.Canceller())
	}
	for _, side := range x.sides {
		x.running = append(x.running, side.conn.Canceller())
	}
	x.mu.Unlock()
}

// EndRequest says that nothing runs on any shard.
func (x *Executor) EndRequest() {
	if x.CopyingIn() {
		return
	}
	x.mu.Lock()
	x.running = x.running[:0]
	broken := x.broken != nil
	x.mu.Unlock()
	if broken {
		x.breaking.Wait() // so that no cancel request hits the next one
	}
}

// track adds a connection to those that Cancel reaches.
func (x *Executor) track(c *backend.Conn) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cancelled {
		return errCancelled()
	}
	x.running = append(x.running, c.Canceller())
	return nil
}

func errCancelled() error {
	return pgerr.New(pgerr.QueryCanceled, "canceling statement due to user request")
}

// Cancel cancels what the request that runs now does on all its connections, and only that.
func (x *Executor) Cancel(ctx context.Context) error {
	x.mu.Lock()
	x.cancelled = true
	running := append([]backend.Canceller(nil), x.running...)
	x.endWaits()
	x.mu.Unlock()
	var failed error
	for _, c := range running {
		failed = errors.Join(failed, c.Cancel(ctx))
	}
	return failed
}

// endWaits ends those for a connection. x.mu is held.
func (x *Executor) endWaits() {
	if x.stop != nil {
		x.stop()
	}
	if x.task != nil {
		x.task.Wake()
	}
}

func (x *Executor) isCancelled() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.cancelled
}

// Backends are the process ids of the servers' backends that work for the request that runs now. Any goroutine may call it.
func (x *Executor) Backends() []uint32 {
	x.mu.Lock()
	defer x.mu.Unlock()
	var list []uint32
	for _, c := range x.running {
		if pid, ok := c.PID(); ok && !slices.Contains(list, pid) {
			list = append(list, pid)
		}
	}
	return list
}

// Cancellable returns a context that Cancel ends, for waits of the request that is not on a shard: a task leaves the
// loop for them. release must be called.
func (x *Executor) Cancellable(ctx context.Context) (_ context.Context, release func()) {
	x.task.Leave()
	return x.cancellable(ctx)
}

func (x *Executor) cancellable(ctx context.Context) (_ context.Context, release func()) {
	ctx, cancel := context.WithCancel(ctx)
	x.mu.Lock()
	x.stop = cancel
	if x.cancelled {
		cancel()
	}
	x.mu.Unlock()
	return ctx, func() {
		x.mu.Lock()
		x.stop = nil
		x.mu.Unlock()
		cancel()
	}
}

// Link is a server connection that the session holds.
type Link struct {
	shard directory.ShardID
	conn  *backend.Conn
	oids  *catalog.OIDMap // nil for the home shard

	begun     bool   // BEGIN was sent
	copying   bool   // it has answered COPY … TO, whose data is still to be read
	member    bool   // its application_name says that it belongs to the transaction of another link
	pipelined bool   // extended messages were sent since the last Sync
	skipping  bool   // the server skips what comes until Sync
	renamed   bool   // a statement changed its application_name
	alone     bool   // a statement ran in this transaction that only this shard ran
	used      bool   // a statement of the client ran in this transaction: it has its snapshot
	wrote     bool   // it may have written in this transaction
	captured  bool   // a statement that writes what is mirrored ran in this transaction
	unsettled bool   // the mirrors may lack something of it
	watch     *watch // of statements whose tables cannot be seen; nil: none ran in this transaction
	kept      bool   // a statement is not done with it
	lifted    bool   // the transaction may be idle on it for as long as it takes
	pinned    string // why it stays with the session after the transaction
	unnamed   uint64 // Statement.ID of the server's unnamed statement, 0: none of the client's
	home      bool   // it leads to the home shard
	notified  bool   // a statement of this transaction sends notifications
	unread    bool   // a statement may have changed its settings, and they have not been read since the transaction ended

	out   []byte // frames to be sent
	steps []step // answers that are expected
	rows  rowTranslation

	// saved are the connection's settings at the beginning of the transaction and at each savepoint.
	saved []*backend.Settings
}

// Shard is where the link leads to.
func (l *Link) Shard() directory.ShardID { return l.shard }

func (x *Executor) find(shard directory.ShardID) *Link {
	for _, l := range x.links {
		if l.shard == shard {
			return l
		}
	}
	return nil
}

// Holds reports whether the session holds a connection to the shard.
func (x *Executor) Holds(shard directory.ShardID) bool { return x.find(shard) != nil }

// AnyHeld is a shard that the session holds a connection to: one that the transaction has used, if there is one.
func (x *Executor) AnyHeld() (directory.ShardID, bool) {
	if len(x.links) == 0 {
		return "", false
	}
	for _, l := range x.links {
		if l.used {
			return l.shard, true
		}
	}
	return x.links[0].shard, true
}

// Link returns the session's connection to a shard, with the session's settings applied and the
// transaction begun (the BEGIN goes out with the next write). It acquires one if there is none.
func (x *Executor) Link(ctx context.Context, shard directory.ShardID) (*Link, error) {
	if l := x.find(shard); l != nil {
		if err := x.Focus(ctx, l); err != nil {
			return nil, err
		}
	} else if err := x.DrainAll(ctx); err != nil {
		return nil, err
	}
	return x.linkWithoutFocus(ctx, shard)
}

// linkWithoutFocus is Link for callers that read the answers of several links themselves.
func (x *Executor) linkWithoutFocus(ctx context.Context, shard directory.ShardID) (*Link, error) {
	l := x.find(shard)
	if l == nil || x.keeps && x.renew(l) {
		if len(x.links) > 0 {
			x.task.Leave() // what works with several shards waits for more than its connections
		}
		var err error
		if l, err = x.acquire(ctx, shard); err != nil {
			return nil, err
		}
		x.links = append(x.links, l)
	}
	if err := x.prepareLink(ctx, l); err != nil {
		if l.conn.Broken() {
			x.drop(l)
		} else if !l.begun && !l.pipelined {
			x.releaseIdle()
		}
		return nil, err
	}
	return l, nil
}

// linkAll takes the connections to all shards of a statement before anything of it is sent: a shard that wants a newer map
// says so while the statement can still be planned anew.
func (x *Executor) linkAll(ctx context.Context, shards []directory.ShardID) error {
	for _, shard := range shards {
		if _, err := x.linkWithoutFocus(ctx, shard); err != nil {
			return err
		}
	}
	return nil
}

func (x *Executor) acquire(ctx context.Context, id directory.ShardID) (*Link, error) {
	shard, ok := x.view.Map.Shard(id)
	if !ok {
		return nil, fmt.Errorf("acquire shard %s: not in the map of epoch %d", id, x.view.Map.Epoch)
	}
	if x.isDisowned() {
		return nil, errDisowned(x.identity.User)
	}
	wish := backend.Wish{
		Settings: x.settings, Role: x.role, Session: x.session, Drawn: x.drawn, Holds: len(x.links) > 0, Task: x.task, Waiting: x.waiting, Stopped: x.stopped,
		Last: &x.lastPool,
	}
	conn, err := x.pools.AcquireFor(ctx, *shard, x.identity, x.view.Map.Epoch, wish)
	if err != nil && x.bringRole != nil && id != x.view.Map.Home && turnedAway(err) && x.bringsRole(ctx, id) {
		conn, err = x.pools.AcquireFor(ctx, *shard, x.identity, x.view.Map.Epoch, wish)
	}
	if err != nil {
		return nil, err
	}
	if x.isDisowned() { // the connection may be another role's of this name
		x.pools.Release(conn)
		return nil, errDisowned(x.identity.User)
	}
	if err := x.track(conn); err != nil {
		x.pools.Release(conn)
		return nil, err
	}
	l := x.spare
	if x.spare = nil; l == nil {
		l = new(Link)
	}
	l.shard, l.conn = id, conn
	return l, nil
}

// release gives the connection of a link back. Nobody uses the link any more: it becomes the session's next one.
func (x *Executor) release(l *Link) {
	conn := l.conn
	x.unreadLost = x.unreadLost || l.unread
	if conn.Broken() {
		x.pools.Release(conn)
		return
	}
	next := Link{saved: l.saved[:0], rows: rowTranslation{types: l.rows.types[:0]}}
	if cap(l.out) <= batchBound {
		next.out = l.out[:0]
	}
	if cap(l.steps) <= keptSteps {
		clear(l.steps[:cap(l.steps)])
		next.steps = l.steps[:0]
	}
	*l = next
	x.spare = l
	x.pools.Release(conn)
}

// keptSteps is how many steps the buffer has room for that a session keeps between its links.
const keptSteps = 8

func (x *Executor) bringsRole(ctx context.Context, id directory.ShardID) bool {
	ctx, release := x.Cancellable(ctx)
	defer release()
	return x.bringRole(ctx, id)
}

// ServeRole says as which role the session logged in: its OID on the home shard. When disowned becomes true its name means another
// role, or none: the session gets no connection any more.
func (x *Executor) ServeRole(oid uint32, disowned *atomic.Bool) { x.role, x.disowned = oid, disowned }

func (x *Executor) isDisowned() bool { return x.disowned != nil && x.disowned.Load() }

func errDisowned(user string) error {
	return pgerr.Newf("28000", "role %q is not the one any more that the session logged in as", user).
		WithDetail("The role was renamed or dropped.").WithHint("Connect again.").Fatal()
}

// turnedAway reports that a shard did not let the role in: it does not know it, or its password.
func turnedAway(err error) bool {
	code := pgerr.Of(err).Code
	return code == "28000" || code == "28P01"
}

// BringRole says what brings the session's role to a shard that has turned it away; it reports whether there is a
// reason to try again.
func (x *Executor) BringRole(bring func(ctx context.Context, shard directory.ShardID) bool) {
	x.bringRole = bring
}

// prepareLink brings the connection to the session's settings and into its transaction.
func (x *Executor) prepareLink(ctx context.Context, l *Link) error {
	l.oids, l.home = nil, l.shard == x.view.Map.Home
	if x.view.Catalog != nil && !l.home {
		l.oids = x.view.Catalog.TypeMap(l.shard)
		if l.oids.Identical() {
			l.oids = nil
		}
	}
	if !l.conn.HasSettings(x.settings) {
		if err := x.applySettings(ctx, l); err != nil {
			return err
		}
	}
	if x.tx.block && !l.begun {
		if err := x.liftIdle(ctx); err != nil {
			return err
		}
		x.enlist(l)
	}
	return nil
}

// applySettings brings a connection to the session's settings, in its own round trip: what follows must
// not run if it fails.
func (x *Executor) applySettings(ctx context.Context, l *Link) error {
	if !l.begun && !l.pipelined {
		return l.conn.ApplySettings(ctx, x.settings)
	}
	if err := x.Drain(ctx, l); err != nil {
		return err
	}
	statements := difference(l.conn.Settings(), x.settings)
	// Invariant: saved[0] is what the connection goes back to if the transaction is rolled back. A
	// pipeline's implicit transaction has no BEGIN of ours; its settings are saved here.
	if len(l.saved) == 0 {
		l.saved = append(l.saved, l.conn.Settings())
	}
	for _, sql := range statements {
		if err := x.Command(ctx, l, sql); err != nil {
			return fmt.Errorf("apply settings on shard %s: %w", l.shard, err)
		}
	}
	l.conn.SetSettings(x.settings)
	return nil
}

// Command runs a statement of ours on a link and waits for it; its answer is not for the client.
func (x *Executor) Command(ctx context.Context, l *Link, sql string) error {
	if l.pipelined && !l.begun {
		x.queueExtended(l, sql)
		return x.Drain(ctx, l)
	}
	x.queueQuery(l, sql, step{kind: stepQuery, silent: true})
	return x.run(ctx, l)
}

// Ask runs a query of ours on a link and returns its rows as text; nil is NULL.
func (x *Executor) Ask(ctx context.Context, l *Link, sql string) ([][]*string, error) {
	if err := x.Drain(ctx, l); err != nil {
		return nil, err
	}
	var rows [][]*string
	if l.pipelined && !l.begun {
		x.queueExtended(l, sql)
		l.steps[len(l.steps)-1].collect = &rows
		return rows, x.Drain(ctx, l)
	}
	x.queueQuery(l, sql, step{kind: stepQuery, silent: true, collect: &rows})
	err := x.run(ctx, l)
	return rows, err
}

// drop forgets a link whose connection is lost.
func (x *Executor) drop(l *Link) {
	for i, other := range x.links {
		if other == l {
			x.links = append(x.links[:i], x.links[i+1:]...)
			break
		}
	}
	l.conn.MarkBroken()
	x.unreadLost = x.unreadLost || l.unread
	x.pools.Release(l.conn)
	if x.tx.status == wire.TxOpen && (l.begun || l.pinned != "") {
		x.tx.status, x.lost = wire.TxFailed, true
	}
}

// releaseIdle gives back the connections that no transaction and no pin holds.
func (x *Executor) releaseIdle() {
	kept := x.links[:0]
	for _, l := range x.links {
		if !l.conn.Broken() && (l.begun || l.pipelined || l.kept || l.unread || l.pinned != "" || x.keeps) {
			kept = append(kept, l)
		} else {
			x.release(l)
		}
	}
	clear(x.links[len(kept):])
	x.links = kept
}

// Release gives every connection back, as at the end of the session. What is open is rolled back.
func (x *Executor) Release() {
	x.releaseSides()
	for _, l := range x.links {
		if l.pinned != "" || x.keeps {
			l.conn.MarkDirty()
		}
		if l.pinned == planner.PinsProcess {
			l.conn.MarkBroken()
		}
		x.pools.Release(l.conn)
	}
	x.links = nil
	x.tx = transaction{status: wire.TxIdle}
}

// Pin keeps the connection to a shard with the session: it holds what cannot be carried to another.
func (x *Executor) Pin(shard directory.ShardID, why string) {
	if l := x.find(shard); l != nil {
		l.pinned = why
		l.conn.MarkDirty()
	}
}

// Pinned reports whether the session is pinned to any connection.
func (x *Executor) Pinned() bool {
	for _, l := range x.links {
		if l.pinned != "" {
			return true
		}
	}
	return false
}

// Unpin ends all pins: DISCARD ALL was run or is to be run on those connections.
func (x *Executor) Unpin() {
	for _, l := range x.links {
		if l.pinned == planner.PinsProcess {
			l.conn.MarkBroken() // no DISCARD ALL reaches that
		}
		l.pinned = ""
	}
}

// MarkDirty says that a statement on the shard may have left behind something in its session.
func (x *Executor) MarkDirty(shard directory.ShardID) {
	if l := x.find(shard); l != nil {
		l.conn.MarkDirty()
	}
	x.MayNotify(shard)
}

// MayNotify says that a statement on the shard may send notifications.
func (x *Executor) MayNotify(shard directory.ShardID) {
	if !slices.Contains(x.notifying, shard) {
		x.notifying = append(x.notifying, shard)
	}
}

// TakeNotifying returns the shards of MayNotify since it was called last.
func (x *Executor) TakeNotifying() []directory.ShardID {
	shards := x.notifying
	x.notifying = nil
	return shards
}

// SetSettings says which settings a statement of the session left on the connection.
// In a transaction they are undone with it.
func (l *Link) SetSettings(have *backend.Settings) {
	if (l.begun || l.pipelined) && len(l.saved) == 0 {
		l.saved = append(l.saved, l.conn.Settings())
	}
	l.conn.SetSettings(have)
}

// ParameterStatuses calls yield for each setting that the server reports.
func (l *Link) ParameterStatuses(yield func(name, value string) bool) {
	l.conn.ParameterStatuses(yield)
}

// Busy reports whether a transaction has done anything on a shard.
func (x *Executor) Busy() bool {
	for _, l := range x.links {
		if l.begun || l.pipelined {
			return true
		}
	}
	return false
}

// BreakCopy gives up the connection that waits for COPY data, as the client is gone.
func (x *Executor) BreakCopy() {
	if x.spread != nil {
		x.spread.breakAll()
		x.spread = nil
		return
	}
	x.copyIn.conn.MarkBroken()
	x.copyIn = nil
}

// Keep holds on to a link over the end of a statement, until Unkeep.
func (x *Executor) Keep(l *Link) { l.kept = true }

// Unkeep ends Keep; the link is given back by the next Idle.
func (x *Executor) Unkeep(l *Link) { l.kept = false }

// UnpinLink ends the pin of one link.
func (x *Executor) UnpinLink(l *Link) {
	if l.pinned != planner.PinsProcess {
		l.pinned = ""
	}
}

// MarkDrawn and Drawn are those of the connection.
func (l *Link) MarkDrawn(mark uint64) { l.conn.MarkDrawn(mark) }

// PreferDrawn says that the session has drawn from sequences: it would like the connection that remembers their values.
func (x *Executor) PreferDrawn() { x.drawn = true }

// Drawn is the mark of who drew from sequences last.
func (l *Link) Drawn() uint64 { return l.conn.Drawn() }

// PID is the process id of the server's backend.
func (l *Link) PID() uint32 { return l.conn.PID() }

// MarkNotified says that the transaction sends notifications: Postgres cannot prepare it.
func (l *Link) MarkNotified() { l.notified = true }

// Pinned reports whether the link stays with the session.
func (l *Link) Pinned() bool { return l.pinned != "" }

// OnPinned runs a statement on every connection that the session is pinned to.
func (x *Executor) OnPinned(ctx context.Context, sql string) error {
	for _, l := range slices.Clone(x.links) {
		if l.pinned != "" {
			if err := x.Command(ctx, l, sql); err != nil {
				return err
			}
		}
	}
	return nil
}
