package router

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/console"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/loop"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

type link = exec.Link

// Session is one client's session. It belongs to one goroutine at a time, but for the methods that say
// otherwise. Between two requests all its state is in this struct: no goroutine has anything of it on
// its stack.
type Session struct {
	server *Server
	id     uint64
	conn   net.Conn // encrypted or not
	socket net.Conn // under conn; any goroutine may use it
	// encrypted: the client speaks TLS.
	encrypted bool
	entry     *entry // while it logs in
	reader    *wire.Reader
	out       *exec.Output
	x         *exec.Executor
	task      *loop.Task // nil: a goroutine runs the session
	rested    bool       // its last turn on the loop ended while it waited for the client

	databaseName, user string
	role               uint32      // the OID of the role that logged in, on the home shard
	disowned           atomic.Bool // that role has another name now, or is gone
	database           *database
	pid                uint32
	secret             []byte
	minor              uint16 // of the protocol's version
	serving            bool   // it got its first ReadyForQuery
	dumping            bool   // the client is pg_dump

	// inFlight is the epoch of the oldest view that the running request planned under; 0: nothing runs.
	inFlight atomic.Uint64
	// busySince is when the running request began, in Unix nanoseconds; 0: none runs.
	busySince atomic.Int64
	// copying: a COPY waits for the client's data.
	copying atomic.Bool
	// What the admin database shows of the session: shown since it has started, requested is when its last request began.
	shown           atomic.Pointer[console.Client]
	applicationName atomic.Pointer[string]
	requested       atomic.Int64
	preparedCount   atomic.Int32
	statementsSeen  int
	killed          atomic.Bool      // it is to end
	counted         bool             // among the clients of its database and user; guarded by the server's mutex
	console         *console.Session // not nil: a client of the admin database
	tally           tally

	view      *view
	vars      variables
	request   []byte // frames of the request that is being collected
	skipping  bool   // after an error of the extended protocol: everything up to Sync is skipped
	temps     []string
	tempsOld  bool // temps must be read again
	changes   schemaChanges
	used      []usedTable // by the open transaction
	redefines bool        // the open transaction has changed definitions where nothing is sharded
	// newDefaults: the open transaction has changed the settings that sessions start with.
	newDefaults bool
	newRoles    bool // it has made, changed, renamed or dropped roles
	idle        idleTimer
	// beganReadOnly: transactions were read-only by default when the open one began.
	beganReadOnly bool
	// pins: the settings that sessions start with have changed since this one began; see pinDefaults.
	pins       atomic.Bool
	meant      meant
	values     sequenceValues
	rest       multiQuery
	unseen     unseen
	only       [1]planner.Statement // what rest has if that is one: it views the request while its plan is short
	listens    listening
	nextID     uint64
	statements map[string]*statement
	portals    map[string]*portal
	spare      *portal           // one that is forgotten, for its buffers
	cursors    map[string]cursor // declared in SQL
	// pending was parsed by the client and not yet by a shard: its ParseComplete is owed.
	pending *statement
	// unconfirmed were parsed in this request; a shard may yet refuse them.
	unconfirmed []*statement
	bind        wire.Bind // reused
}

// serve runs a session that has a goroutine of its own.
func (c *Session) serve(ctx context.Context) {
	var err error
	for err == nil {
		if err = c.advance(ctx); err == nil {
			c.restIdle()
			err = c.fill(ctx)
		}
	}
	c.end(ctx, err)
}

// fill waits for the client.
func (c *Session) fill(ctx context.Context) error {
	for {
		err := c.reader.Fill()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		// Woken by a drain, a shutdown or a notification. Who wakes it after this has it woken once more.
		if err := c.conn.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		if err := c.whileIdle(ctx); err != nil {
			return err
		}
	}
}

// restIdle gives memory back before a wait.
func (c *Session) restIdle() {
	c.out.Rest()
	if len(c.request) == 0 {
		c.reader.Release()
		if cap(c.request) > keptRequest {
			c.request = nil
		}
	}
}

// keptRequest is the largest buffer that an idle session keeps for its requests.
const keptRequest = 16 << 10

// advance runs every whole request that has arrived.
func (c *Session) advance(ctx context.Context) error {
	return c.server.guard(c, func() error {
		for {
			ready, err := c.collect()
			if err != nil {
				return c.beforeEnd(ctx, err)
			}
			if !ready {
				return c.whileIdle(ctx)
			}
			request := c.request
			c.request = c.request[:0]
			if err := c.Handle(ctx, request); err != nil {
				return err
			}
		}
	})
}

// beforeEnd runs what came before a message that cannot be read. The error is why the session ends.
func (c *Session) beforeEnd(ctx context.Context, err error) error {
	var malformed *wire.ProtocolError
	if !errors.As(err, &malformed) || len(c.request) == 0 {
		return err
	}
	request := c.request
	c.request = nil
	if earlier := c.Handle(ctx, request); earlier != nil {
		return earlier
	}
	return err
}

// whileIdle does what is due while the session waits for its client.
func (c *Session) whileIdle(ctx context.Context) error {
	if err := c.checkDrain(); err != nil {
		return err
	}
	return c.notifyIdle(ctx)
}

// checkDrain ends a session that has nothing to do while the server drains.
func (c *Session) checkDrain() error {
	closed := c.server.isClosed() || c.killed.Load() || c.database != nil && c.database.ending.Load()
	if closed || c.server.draining.Load() && c.x.Status() == wire.TxIdle && !c.x.CopyingIn() && len(c.request) == 0 {
		return pgerr.New(pgerr.AdminShutdown, "terminating connection due to administrator command").Fatal()
	}
	return c.checkIdle()
}

// collect gathers the frames of one request: up to Query, Sync, Flush, FunctionCall or Terminate, a batch of
// COPY data, or as many as the bound allows.
func (c *Session) collect() (ready bool, err error) {
	for {
		frame, ok, err := c.reader.Poll()
		if err != nil {
			return false, err
		}
		if !ok {
			return c.x.CopyingIn() && len(c.request) > 0, nil
		}
		c.request = append(c.request, frame.Raw...)
		switch frame.Type {
		case wire.TypeQuery, wire.TypeSync, wire.TypeFlush, wire.TypeFunctionCall, wire.TypeTerminate,
			wire.TypeCopyDone, wire.TypeCopyFail:
			return true, nil
		}
		if len(c.request) >= c.server.config.RequestBound || c.x.CopyingIn() && len(c.request) >= copyBatch {
			return true, nil
		}
	}
}

// copyBatch is the number of bytes of COPY data that are passed on at a time.
const copyBatch = 32 << 10

// Handle runs one whole request: all frames up to and including Query, Sync or Flush, or a batch of COPY
// data. An error ends the session; io.EOF means that the client said goodbye.
func (c *Session) Handle(ctx context.Context, request []byte) error {
	c.leaveFor(request)
	if c.console != nil {
		return c.handleConsole(ctx, request)
	}
	now := time.Now().UnixNano()
	c.busySince.Store(now)
	c.requested.Store(now)
	c.tally.begin(now, len(request))
	c.disarmIdle()
	c.x.StartRequest()
	if c.pins.Load() {
		c.pinDefaults()
	}
	err := c.handleFrames(ctx, request)
	if copying := c.x.CopyingIn(); copying != c.copying.Load() {
		c.copying.Store(copying)
	}
	if !c.copying.Load() { // rows of a COPY go where the map said when it began
		c.leaveFlight()
	}
	c.x.EndRequest()
	c.noteStatements()
	c.busySince.Store(0)
	if flushed := c.out.Flush(); err == nil {
		err = flushed
	}
	c.armIdle(ctx)
	return err
}

func (c *Session) handleFrames(ctx context.Context, request []byte) error {
	for len(request) > 0 {
		size := 1 + int(binary.BigEndian.Uint32(request[1:]))
		frame := wire.Frame{Type: request[0], Body: request[5:size:size], Raw: request[:size:size]}
		request = request[size:]
		if err := c.handleFrame(ctx, frame); err != nil {
			return err
		}
	}
	return c.settle(ctx)
}

// settle reads what shards still owe at the end of a request.
func (c *Session) settle(ctx context.Context) error {
	if c.skipping {
		return nil
	}
	if c.x.CopyingIn() {
		if ended, err := c.x.CopySend(ctx); ended {
			return c.copyEnded(ctx, err)
		}
		return nil
	}
	err := c.flushPending(ctx)
	if err == nil {
		err = c.x.DrainAll(ctx)
	}
	if err == nil {
		c.unconfirmed = c.unconfirmed[:0]
	}
	return c.extendedError(ctx, err)
}

// handleFrame runs one message. Its error ends the session.
func (c *Session) handleFrame(ctx context.Context, frame wire.Frame) error {
	if c.x.CopyingIn() {
		return c.copyFrame(ctx, frame)
	}
	if c.skipping && frame.Type != wire.TypeSync && frame.Type != wire.TypeTerminate {
		return nil
	}
	switch frame.Type {
	case wire.TypeQuery:
		return c.queryMessage(ctx, frame.Body)
	case wire.TypeParse:
		return c.extendedError(ctx, c.parseMessage(ctx, frame.Body))
	case wire.TypeBind:
		return c.extendedError(ctx, c.bindMessage(ctx, frame.Body))
	case wire.TypeDescribe:
		return c.extendedError(ctx, c.describeMessage(ctx, frame.Body))
	case wire.TypeExecute:
		return c.extendedError(ctx, c.executeMessage(ctx, frame.Body))
	case wire.TypeClose:
		return c.extendedError(ctx, c.closeMessage(ctx, frame.Body))
	case wire.TypeSync:
		return c.syncMessage(ctx, frame.Body)
	case wire.TypeFlush:
		return c.extendedError(ctx, wire.DecodeEmpty(frame.Body)) // the end of the request reads and writes everything
	case wire.TypeFunctionCall:
		return c.functionCall(ctx, frame)
	case wire.TypeTerminate:
		return io.EOF
	case wire.TypeCopyData, wire.TypeCopyDone, wire.TypeCopyFail:
		return nil // what follows a COPY that failed
	}
	return pgerr.Newf(pgerr.ProtocolViolation, "invalid frontend message type %d", frame.Type).Fatal()
}

// copyFrame takes a message while a shard waits for COPY data.
func (c *Session) copyFrame(ctx context.Context, frame wire.Frame) error {
	var err error
	var ended bool
	switch frame.Type {
	case wire.TypeCopyData:
		ended, err = c.x.CopyData(ctx, frame.Raw)
	case wire.TypeCopyDone, wire.TypeCopyFail:
		err = c.x.CopyEnd(ctx, frame.Raw)
		ended = !c.x.CopyingIn()
	case wire.TypeSync, wire.TypeFlush:
		return nil
	case wire.TypeTerminate:
		return io.EOF
	default:
		return c.breakCopy(ctx, frame.Type)
	}
	if !ended {
		return nil
	}
	return c.copyEnded(ctx, err)
}

// breakCopy ends a COPY into which another message came, and the session: as in Postgres nobody knows what the client means by it.
func (c *Session) breakCopy(ctx context.Context, kind byte) error {
	reason := fmt.Sprintf("unexpected message type 0x%02X during COPY from stdin", kind)
	told := pgerr.New(pgerr.ProtocolViolation, reason)
	if e := pgerr.Of(c.x.AbortCopy(ctx, reason)); e != nil {
		told = told.Within(e.Where)
	}
	if err := c.fail(told); err != nil {
		return err
	}
	return pgerr.New(pgerr.ProtocolViolation, "terminating connection because protocol synchronization was lost").Fatal()
}

// copyEnded goes on behind a COPY.
func (c *Session) copyEnded(ctx context.Context, err error) error {
	if err == nil {
		c.noteUnseen(true)
	} else {
		err = c.failedUnseen(ctx, err)
	}
	if !c.rest.simple {
		return c.extendedError(ctx, err)
	}
	return c.resumeQuery(ctx, err)
}

// enter counts the request in at the current view, if it is not yet, and takes the newest view.
func (c *Session) enter() {
	if c.inFlight.Load() == 0 {
		c.view = c.database.enter(&c.inFlight)
	} else {
		c.view = c.database.current.Load()
	}
	c.vars.env.Map, c.vars.env.Catalog = c.view.partitions, c.view.catalog
	c.x.SetView(exec.View{Map: c.view.partitions, Catalog: c.view.catalog})
}

// leaveFlight says that nothing of the session is in flight on any shard.
func (c *Session) leaveFlight() { c.inFlight.Store(0) }

// notice sends a notice or warning to the client, unless client_min_messages keeps it back.
func (c *Session) notice(n *pgerr.Error) {
	least := c.vars.value("client_min_messages")
	if least == "error" || least == "warning" && n.Severity != "WARNING" {
		return
	}
	c.x.Local(n.AppendNotice(nil))
}

func warning(code, message string) *pgerr.Error {
	return &pgerr.Error{Severity: "WARNING", Code: code, Message: message}
}

// fail tells the client of an error; it is the one place that does. An error that must end the session
// is returned.
func (c *Session) fail(err error) error {
	if errors.Is(err, exec.ErrClientGone) || errors.Is(err, io.EOF) && !c.serving {
		return err
	}
	e := c.x.Broken(pgerr.Of(err))
	if e.IsFatal() {
		return e
	}
	if e.Code == pgerr.InternalError {
		c.server.log.Error("internal error", "session_id", c.id, "error", err)
	}
	c.server.errors.Count(e.Code)
	c.x.Fail()
	c.values.failed()
	c.out.Put(e.Append)
	return nil
}

// extendedError tells the client of an error in the extended protocol and skips to the next Sync.
func (c *Session) extendedError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	// What stands before the message that failed is run and answered first; if it fails, that is the error.
	earlier := c.flushPending(ctx)
	if earlier == nil {
		earlier = c.x.DrainAll(ctx)
	}
	if earlier != nil {
		err = earlier
	}
	c.dropUnconfirmed()
	c.skipping = true
	return c.fail(err)
}

// dropUnconfirmed forgets the statements of this request that no shard accepted, or whose description was lost:
// a Postgres that has accepted a statement also describes it, so drivers take such a preparation for failed.
func (c *Session) dropUnconfirmed() {
	if st := c.pending; st != nil {
		c.pending = nil
		c.unconfirmed = append(c.unconfirmed, st)
	}
	for _, st := range c.unconfirmed {
		lost := !st.sent.Parsed || st.describing && !st.described.Described
		if lost && c.statements[st.name] == st {
			delete(c.statements, st.name)
		}
	}
	c.unconfirmed = c.unconfirmed[:0]
}

// end closes the session. err is why; io.EOF and a lost client are no errors.
func (c *Session) end(ctx context.Context, err error) {
	// Each in a guard of its own: what is wrong with one must neither end the process, nor keep what the next gives back.
	for _, part := range []func(){
		func() { c.tellEnd(err) },
		c.giveBack,
		func() { c.undoChanges(ctx) },
		c.leaveDatabase,
	} {
		_ = c.server.guard(c, func() error { part(); return nil })
	}
	c.server.forget(c)
	_ = c.conn.Close()
}

// tellEnd tells the client why its session ends, unless it knows.
func (c *Session) tellEnd(err error) {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, exec.ErrClientGone) || errors.Is(err, net.ErrClosed) {
		return
	}
	e := pgerr.Of(err)
	if e.Code == pgerr.InternalError {
		c.server.log.Error("session ended", "session_id", c.id, "error", err)
	}
	c.server.errors.Count(e.Code)
	_ = c.conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
	c.out.Put(e.Fatal().Append)
	_ = c.out.Flush() // the client may be gone
}

// giveBack gives the session's server connections back.
func (c *Session) giveBack() {
	if c.x == nil {
		return
	}
	if c.x.CopyingIn() {
		c.x.BreakCopy()
	}
	c.x.Release()
}

func (c *Session) undoChanges(ctx context.Context) {
	c.disarmIdle()
	c.leaveFlight()
	if c.changes.work != nil {
		c.changes.work.RolledBack(ctx)
	}
}

func (c *Session) leaveDatabase() {
	if c.database != nil {
		c.unlistenAll()
		c.database.leave(c)
	}
	if c.pid != 0 {
		c.server.keys.remove(c.pid)
	}
}

// goodbyeTimeout bounds the write of a last message to a client.
const goodbyeTimeout = 2 * time.Second

// cancel cancels what the session runs now. Any goroutine may call it.
func (c *Session) cancel(ctx context.Context) {
	if c.busySince.Load() == 0 && !c.copying.Load() || c.x == nil {
		return
	}
	if err := c.x.Cancel(ctx); err != nil {
		c.server.log.Warn("cancel failed", "session_id", c.id, "error", err)
	}
}

// wake makes an idle session look what is due: whether the server drains, a notification, an idle limit. What it is to see must
// have been stored before. Any goroutine may call it.
func (c *Session) wake() {
	_ = c.conn.SetReadDeadline(time.Unix(1, 0)) // fails only if the connection is closed
}

// terminate ends the session soon, whatever it does. Any goroutine may call it.
func (c *Session) terminate(ctx context.Context) {
	// A client that does not read must not keep the session in a write.
	_ = c.conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
	c.cancel(ctx)
	c.wake()
}

// plan plans a statement under the current view; it waits while a table of it is being changed.
func (c *Session) plan(ctx context.Context, st *planner.Statement, types []uint32) (*planner.Plan, error) {
	for {
		c.enter()
		if err := c.refreshTemps(ctx); err != nil {
			return nil, err
		}
		if err := c.seeOwnChanges(ctx); err != nil {
			return nil, err
		}
		if c.vars.foreign && c.view.sharded() && !isASCII(st.Text) {
			return nil, errForeignEncoding(c.vars.value("client_encoding"))
		}
		plan, err := c.server.planner.Plan(st, types, &c.vars.env)
		if err != nil {
			return nil, err
		}
		if fault := c.server.config.Fault; fault != nil {
			faulty := fault(*plan)
			plan = &faulty
		}
		if plan.Executes != "" && c.statements[plan.Executes] != nil {
			if plan, err = c.executing(ctx, plan); err != nil {
				return nil, err
			}
		}
		if !plan.Dirty && !plan.ReadOnly && mentions(st.Text, "pg_settings") {
			dirty := *plan // an UPDATE of that view is a SET that nobody tracks
			dirty.Dirty, dirty.SetsUnseen = true, true
			plan = &dirty
		}
		if !short(plan) {
			st.Own()
		}
		c.leaveUnlessShort(plan)
		held, err := c.heldFrom(ctx, plan)
		if err != nil {
			return nil, err
		}
		if held == nil {
			c.setTable(plan)
			return plan, nil
		}
		if err := c.awaitNewer(ctx, "table "+held.Name.String()+" is being changed: "+held.Hold.Reason); err != nil {
			return nil, err
		}
	}
}

// mentions reports whether a text contains a word of ASCII, in whatever case.
func mentions(text, word string) bool {
	for at := range len(text) - len(word) + 1 {
		if text[at]|0x20 == word[0] && strings.EqualFold(text[at:at+len(word)], word) {
			return true
		}
	}
	return false
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func errForeignEncoding(encoding string) error {
	return pgerr.Unsupported("text that is not ASCII is not supported under client_encoding "+encoding+" where tables are sharded",
		"Use SET client_encoding = 'UTF8'.")
}
