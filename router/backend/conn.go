package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/loop"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// Conn is one connection to a shard. From Acquire to Release it belongs to one goroutine at a time; only a Canceller
// may be used from others.
type Conn struct {
	pool     *pool
	net      net.Conn
	tls      *tls.Config // nil: not encrypted
	raw      syscall.RawConn
	polled   *loop.Conn // nil: the runtime waits for it
	task     *loop.Task // who has it, nil: a goroutine
	reader   *wire.Reader
	pid      uint32
	secret   []byte
	params   map[string]string
	settings *Settings
	named    uint64 // Pools.named when the settings were applied
	prepared *registry

	tx         byte // of the last ReadyForQuery
	busy       bool // the server owes answers
	pending    pending
	fresh      bool // nothing was written since Acquire
	dirty      bool
	drawn      uint64 // see MarkDrawn
	drawer     uint64 // the session that did it last
	broken     bool
	deadline   bool // a read deadline is set
	skipCloses int  // answers to Close messages of our own that the caller must not see

	writing chan error // not nil: a large write runs in a goroutine, which sends its outcome

	generation uint64 // of the pool when it was opened
	number     uint64 // tells it from every other of the process
	opened     time.Time
	expires    time.Time
	lastUsed   time.Time
	peek       peeker

	lease lease

	// Who has it, and since when; guarded by the pool's mutex.
	held    bool
	session uint64
	since   time.Time
}

// hold notes who has got the connection. The pool's mutex is held.
func (c *Conn) hold(session uint64, now time.Time) {
	c.held, c.session, c.since = true, session, now
}

// own says who waits for the connection's answers.
func (c *Conn) own(t *loop.Task) {
	if c.task = t; c.polled != nil {
		c.polled.Own(t)
	}
}

// Retired reports whether the connection is not to be used by another session: its shard has another address now, or
// Reconnect was called.
func (c *Conn) Retired() bool {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	return c.generation != c.pool.generation
}

// maxDirectWrite is what surely fits into the buffers between us and a server that is not reading, because it waits
// for us to read its answers. A larger write could block both for ever, so it goes out on its own goroutine while the
// caller reads.
const maxDirectWrite = 32 << 10

// Shard returns the shard that c is connected to.
func (c *Conn) Shard() directory.ShardID { return c.pool.key.shard }

// Identity returns the database and user of the connection.
func (c *Conn) Identity() Identity { return c.pool.key.id }

// PID returns the process id of the server's backend.
func (c *Conn) PID() uint32 { return c.pid }

// Idle reports whether the server owes no answer: as many ReadyForQuery messages were read as were asked for.
func (c *Conn) Idle() bool { return !c.busy }

// TxStatus returns the transaction status of the last ReadyForQuery: wire.TxIdle, TxOpen or TxFailed.
func (c *Conn) TxStatus() byte { return c.tx }

// ParameterStatus returns a setting as the server last reported it, "" if it never did.
func (c *Conn) ParameterStatus(name string) string { return c.params[name] }

// ParameterStatuses calls yield for each setting that the server reported, in no order.
func (c *Conn) ParameterStatuses(yield func(name, value string) bool) {
	for name, value := range c.params {
		if !yield(name, value) {
			return
		}
	}
}

// Broken reports whether the connection is lost or no longer understood. Release then closes it.
func (c *Conn) Broken() bool { return c.broken }

// MarkBroken makes Release close the connection.
func (c *Conn) MarkBroken() { c.broken = true }

// MarkDirty makes Release run DISCARD ALL before anybody else gets the connection: it has temp tables, advisory
// locks, or ran something whose effects on the session are unknown.
func (c *Conn) MarkDirty() { c.dirty = true }

// MarkDrawn notes by whom sequences were drawn from on the connection, which remembers their values (currval, lastval), and Drawn is
// the last such mark. 0: by nobody, or what was remembered has been discarded.
func (c *Conn) MarkDrawn(mark uint64) { c.drawn, c.drawer = mark, c.session }

// Drawn is the last mark of MarkDrawn.
func (c *Conn) Drawn() uint64 { return c.drawn }

// Dirty reports whether MarkDirty was called since the connection was last cleaned.
func (c *Conn) Dirty() bool { return c.dirty }

// Write sends frames. b may be used again when Write returns. An error means that the connection is lost; ErrStale
// among them that nothing of b reached the server. A b of more than 32 KiB is copied and goes out while the caller
// reads; what goes wrong with it is reported by the next Write, Next, or ReadyForQuery that never comes.
func (c *Conn) Write(b []byte) error {
	if c.broken {
		return fmt.Errorf("write to shard %s: %w", c.Shard(), net.ErrClosed)
	}
	if err := c.finishWrite(); err != nil {
		return c.lost("write to", err)
	}
	first := c.fresh
	c.fresh, c.busy = false, true
	c.pending.wrote(b)
	if first && len(c.prepared.closing) > 0 {
		b = append(c.AppendCloses(nil), b...)
	}
	if len(b) > maxDirectWrite {
		c.startWrite(b)
		return nil
	}
	n, err := c.net.Write(b)
	if err == nil {
		return nil
	}
	if first && n == 0 {
		c.broken = true
		return fmt.Errorf("write to shard %s: %w: %w", c.Shard(), ErrStale, err)
	}
	return c.lost("write to", err)
}

// startWrite hands b to a goroutine; finishWrite waits for it, also in close.
func (c *Conn) startWrite(b []byte) {
	c.task.Leave()
	data := append([]byte(nil), b...)
	c.writing = make(chan error, 1)
	go func(done chan<- error) {
		_, err := c.net.Write(data)
		done <- err
	}(c.writing)
}

// Send is Write for a stream of data whose receiver may have much to say meanwhile: it never waits for the network.
// b must not be changed before Sent has reported true, which the caller awaits before each Send.
func (c *Conn) Send(b []byte) error {
	if c.broken {
		return fmt.Errorf("write to shard %s: %w", c.Shard(), net.ErrClosed)
	}
	if err := c.finishWrite(); err != nil {
		return c.lost("write to", err)
	}
	c.task.Leave()
	c.fresh, c.busy = false, true
	c.pending.wrote(b)
	c.writing = make(chan error, 1)
	go func(done chan<- error) {
		_, err := c.net.Write(b)
		done <- err
	}(c.writing)
	return nil
}

// Sent reports whether everything written is on its way. It waits for that, at most for as long as told.
func (c *Conn) Sent(atMost time.Duration) (bool, error) {
	if c.writing == nil {
		return true, nil
	}
	var err error
	select {
	case err = <-c.writing:
	default:
		timer := time.NewTimer(atMost)
		defer timer.Stop()
		select {
		case err = <-c.writing:
		case <-timer.C:
			return false, nil
		}
	}
	c.writing = nil
	if err != nil {
		return false, c.lost("write to", err)
	}
	return true, nil
}

// Readable reports whether Next has something to return, or begins to: the server has said something, or is gone. It
// does not wait.
func (c *Conn) Readable() bool {
	if c.reader.Buffered() > 0 || c.broken {
		return true
	}
	if c.raw == nil {
		return false
	}
	err := c.raw.Read(c.peek.look)
	return err != nil || c.peek.result != peekNothing
}

func (c *Conn) finishWrite() error {
	if c.writing == nil {
		return nil
	}
	err := <-c.writing
	c.writing = nil
	return err
}

// lost marks the connection and returns what the client sees: 08006.
func (c *Conn) lost(doing string, err error) error {
	c.broken = true
	return pgerr.Newf(pgerr.ConnectionFailure, "connection to shard %s was lost", c.Shard()).
		Because(fmt.Errorf("%s shard %s: %w", doing, c.Shard(), err))
}

// Next returns the next frame of the server, valid until the next call of Next or Poll. It keeps the state of the connection:
// transaction status, reported settings, prepared statements that went with a DISCARD ALL. Frames that answer
// what Conn itself sent are left out. An error other than an expired SetReadDeadline means that the connection is
// lost (08006) or not understood (08P01).
func (c *Conn) Next() (wire.Frame, error) {
	for {
		frame, err := c.reader.Next()
		if err != nil {
			return wire.Frame{}, c.readFailed(err)
		}
		if frame.Type == wire.TypeDataRow || frame.Type == wire.TypeCopyData || c.track(frame) {
			return frame, nil
		}
	}
}

// Poll is Next for what has already been read from the network; it never blocks.
func (c *Conn) Poll() (frame wire.Frame, ok bool, err error) {
	for {
		frame, ok, err = c.reader.Poll()
		if err != nil {
			return wire.Frame{}, false, c.readFailed(err)
		}
		if !ok || c.track(frame) {
			return frame, ok, nil
		}
	}
}

// Buffered returns the number of bytes that Poll or Next can return without reading from the network.
func (c *Conn) Buffered() int { return c.reader.Buffered() }

// SetReadDeadline makes Next return an error that is os.ErrDeadlineExceeded at t, without losing anything. The zero
// time means never. It is cleared by Release.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.deadline = !t.IsZero()
	if err := c.net.SetReadDeadline(t); err != nil {
		return c.lost("set deadline of", err)
	}
	return nil
}

func (c *Conn) clearReadDeadline() {
	if c.deadline {
		_ = c.SetReadDeadline(time.Time{})
	}
}

func (c *Conn) readFailed(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("read from shard %s: %w", c.Shard(), err)
	}
	var protocol *wire.ProtocolError
	if errors.As(err, &protocol) {
		c.broken = true
		return fmt.Errorf("read from shard %s: %w", c.Shard(), err)
	}
	return c.lost("read from", err)
}

// track follows the connection's state; it reports whether the caller gets to see the frame.
func (c *Conn) track(frame wire.Frame) bool {
	switch frame.Type {
	case wire.TypeReady:
		c.ready(frame.Body)
	case wire.TypeCloseComplete:
		if c.skipCloses > 0 {
			c.skipCloses--
			return false
		}
	case wire.TypeParameterStatus:
		name, value, err := wire.DecodeParameterStatus(frame.Body)
		if err == nil && c.params[wire.View(name)] != wire.View(value) {
			// A statement changed the name by which fencing finds the connection: DISCARD ALL brings it back.
			// That of a member of a transaction (MemberName) begins in the same way, and ends with it.
			if string(name) == applicationSetting && c.params[applicationSetting] != "" &&
				!strings.HasPrefix(wire.View(value), c.pool.owner.cfg.ApplicationName) {
				c.dirty = true
			}
			c.params[string(name)] = string(value)
		}
	case wire.TypeCopyInResponse:
		c.pending.copyStarted()
	case wire.TypeErrorResponse:
		c.pending.failed()
		c.serverError(frame.Body)
	case wire.TypeCommandComplete:
		switch string(frame.Body) {
		case "DISCARD ALL\x00":
			c.settings = nil
			c.prepared.reset()
		case "DEALLOCATE ALL\x00":
			c.prepared.reset()
		}
	}
	return true
}

func (c *Conn) ready(body []byte) {
	status, err := wire.DecodeReady(body)
	if err != nil {
		c.broken = true
		return
	}
	c.tx, c.busy = status, c.pending.ready()
	if !c.busy {
		c.skipCloses = 0
		c.prepared.forgetPending()
	}
}

// serverError looks for errors that say something about the connection.
func (c *Conn) serverError(body []byte) {
	switch string(wire.ErrorField(body, wire.FieldSeverityVerbatim)) {
	case pgerr.SeverityFatal, "PANIC":
		c.broken = true
		return
	}
	// "cached plan must not change result type": the prepared statements are older than the tables. A client that
	// prepares anew must get a new statement, as it would from Postgres.
	if string(wire.ErrorField(body, wire.FieldCode)) == pgerr.FeatureNotSupported &&
		string(wire.ErrorField(body, wire.FieldRoutine)) == "RevalidateCachedQuery" {
		c.prepared.forgetAll()
	}
}

// Prepared returns the server's name for the statement with this content (see PreparedKey), if it is prepared on c.
func (c *Conn) Prepared(key string) (name string, ok bool) { return c.prepared.lookup(key) }

// Prepare returns the name under which the caller must now send a Parse of that content. When its ParseComplete has
// arrived the caller calls ConfirmPrepared; what is not confirmed when ReadyForQuery arrives counts as failed and is
// forgotten. The least recently used statement makes room; its name stays good until the next AppendCloses.
func (c *Conn) Prepare(key string) (name string) { return c.prepared.reserve(key) }

// ConfirmPrepared says that the server has the statement.
func (c *Conn) ConfirmPrepared(key string) { c.prepared.confirm(key) }

// ForgetPrepared drops a statement, as after the server said that it does not know it (26000).
func (c *Conn) ForgetPrepared(key string) { c.prepared.forget(key) }

// AppendCloses appends Close messages for statements that were evicted. Their answers are left out of Next's frames.
// Call it only for the front of a request when no answer of an earlier one is outstanding. The first Write after Acquire does it
// itself; a session that keeps a connection calls it before its later requests.
func (c *Conn) AppendCloses(dst []byte) []byte {
	for _, name := range c.prepared.closing {
		dst = wire.AppendClose(dst, wire.ObjectStatement, name)
	}
	c.skipCloses += len(c.prepared.closing)
	c.prepared.closing = c.prepared.closing[:0]
	return dst
}

// Settings returns what the connection was last brought to.
func (c *Conn) Settings() *Settings { return c.settings }

// SetSettings says that statements that ran on c (a SET inside a transaction that committed, RESET ALL) brought it there.
func (c *Conn) SetSettings(have *Settings) { c.settings = have }

// HasSettings reports whether the connection has these settings, and the roles among them are those that have their names now.
func (c *Conn) HasSettings(want *Settings) bool { return c.settings.Equal(want) && !c.misnamed() }

// misnamed reports that roles may have been renamed or dropped since the connection took one.
func (c *Conn) misnamed() bool {
	return c.settings != nil && c.named != c.pool.owner.named.Load() && c.settings.takesRole() && c.tx == wire.TxIdle && !c.busy
}

// ApplySettings brings the connection to want, in one round trip, in which nothing else may be outstanding, and only
// outside a transaction (a rollback would undo it). The same *Settings as before costs a comparison of pointers.
//
// The round trip is not pipelined with the statement: if a setting were refused, the statement behind it
// would already run under another user's settings.
func (c *Conn) ApplySettings(ctx context.Context, want *Settings) error {
	misnamed := c.misnamed()
	if !misnamed && c.settings.Equal(want) {
		c.settings = want // next time a comparison of pointers does
		return nil
	}
	named := c.pool.owner.named.Load()
	sql := difference(c.settings, want, misnamed, c.params["standard_conforming_strings"] != "off")
	if sql != "" {
		if c.tx != wire.TxIdle || c.busy {
			return pgerr.New(pgerr.InternalError, "settings can be applied only to an idle connection")
		}
		if err := c.exchange(ctx, sql); err != nil {
			return fmt.Errorf("apply settings on shard %s: %w", c.Shard(), err)
		}
	}
	c.settings, c.named = want, named
	return nil
}

// exchange runs a simple query whose rows nobody wants. When ctx ends first the connection is broken.
func (c *Conn) exchange(ctx context.Context, sql string) error {
	stop := context.AfterFunc(ctx, func() { _ = c.net.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() {
			c.broken = true // the deadline may be set at any moment from now on
		}
	}()
	if err := c.Write(wire.AppendQuery(nil, sql)); err != nil {
		return contextError(ctx, err)
	}
	var failed error
	for {
		frame, err := c.Next()
		if err != nil {
			c.broken = true
			return contextError(ctx, err)
		}
		switch frame.Type {
		case wire.TypeErrorResponse:
			failed = pgerr.FromShard(frame.Body)
			if c.broken {
				return failed
			}
		case wire.TypeReady:
			return failed
		}
	}
}

// contextError prefers the reason for which a call was cut off to the expired deadline that it saw.
func contextError(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}

// close ends the connection; the server is told if that costs no wait.
func (c *Conn) close() {
	if !c.broken && !c.busy && c.writing == nil {
		_ = c.net.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		_, _ = c.net.Write(wire.AppendTerminate(nil))
	}
	c.broken = true
	_ = c.net.Close()
	_ = c.finishWrite()
}

// lease says which of the successive holders of a connection may cancel what it runs.
type lease struct {
	mu      sync.Mutex
	number  uint64
	held    bool
	cancels int           // requests on their way
	idle    chan struct{} // not nil: closed when cancels becomes 0
}
