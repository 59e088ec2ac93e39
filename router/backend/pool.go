package backend

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// pool holds the connections of one shard, database and user.
//
// Invariant: open counts connections that are idle, in use, being cleaned or being opened. It never exceeds the size and the
// reserve, unless those became smaller.
// Invariant: while somebody waits nothing is idle: what becomes free goes to the first in the queue.
type pool struct {
	owner *Pools
	key   poolKey
	times *shardTimes

	mu         sync.Mutex
	limits     Limits
	endpoint   directory.Endpoint
	epoch      directory.Epoch // the newest epoch at which the endpoint was seen
	floor      directory.Epoch // the highest floor seen
	role       uint32          // whom it serves, see Wish.Role; 0: not known yet
	generation uint64          // connections of an older one are not used again
	idle       []*Conn         // the most recently used last
	all        map[*Conn]struct{}
	open       int
	waiting    waiters
	spare      waiters     // those on the loop that wait no more, for the next ones
	alarm      *time.Timer // wakes who has waited for too long on the loop; nil: not yet needed
	alarmed    bool        // it is set
	removed    bool        // taken out of the table of pools
	filling    bool        // fill is at work
	resting    bool        // no minimum is kept until somebody wants a connection
	lastUsed   time.Time
	stats      Counters
}

// acquire returns a connection that is alive, or retry when the pool was removed meanwhile.
func (p *pool) acquire(ctx context.Context, shard directory.Shard, epoch directory.Epoch, want Wish) (c *Conn, retry bool, err error) {
	p.mu.Lock()
	if p.removed {
		p.mu.Unlock()
		return nil, true, nil
	}
	if p.owner.closed() {
		p.mu.Unlock()
		return nil, false, ErrClosed
	}
	p.lastUsed, p.resting = time.Now(), false
	stale := append(p.adopt(shard.Primary, epoch), p.serve(want.Role)...)
	if epoch < p.floor {
		floor := p.floor
		p.mu.Unlock()
		closeAll(stale)
		return nil, false, &FloorError{Shard: p.key.shard, Floor: floor, Epoch: epoch}
	}
	c, mayOpen := p.take(want)
	var w *waiter
	reserve := p.limits.Reserve > 0
	if c == nil && !mayOpen {
		if p.waiting.length >= p.owner.cfg.MaxWaiting {
			p.stats.Refused++
			size := p.limits.Size
			p.mu.Unlock()
			closeAll(stale)
			return nil, false, p.full(size, "too many statements wait for a connection")
		}
		holds := want.Holds && want.Session != 0
		if want.Task.OnLoop() && !reserve && !holds {
			w = p.newWaiter()
			w.task = want.Task
			p.setAlarm(p.owner.cfg.AcquireTimeout)
		} else {
			w = &waiter{ready: make(chan *Conn, 1), holds: holds}
		}
		w.session, w.since = want.Session, p.lastUsed
		p.waiting.push(w)
	}
	p.mu.Unlock()
	closeAll(stale)
	if w != nil {
		if w.task != nil {
			c, err = p.waitOnLoop(ctx, w, want.Stopped)
		} else {
			want.Task.Leave()
			within, release := want.waits(ctx)
			c, err = p.wait(within, w, reserve)
			release()
		}
		if err != nil {
			return nil, false, err
		}
	}
	for c != nil && !c.usable(want.Task) {
		c = p.replaceStale(c, want)
	}
	if c == nil {
		want.Task.Leave()
		within, release := want.waits(ctx)
		c, err = p.openSlot(within, epoch, want.Session)
		release()
		if err != nil {
			return nil, false, err
		}
	}
	c.own(want.Task)
	c.lease.begin()
	c.fresh = true
	return c, false, nil
}

// take returns an idle connection, one that already has the settings wanted if there is one, else the one used last;
// or the right to open one. One that remembers the values of a session's sequences is kept for it as long as another will do.
// p.mu is held.
func (p *pool) take(want Wish) (c *Conn, mayOpen bool) {
	if n := len(p.idle); n > 0 {
		best := p.best(want)
		c = p.idle[best]
		copy(p.idle[best:], p.idle[best+1:])
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.stats.Acquired++
		c.hold(want.Session, p.lastUsed)
		return c, false
	}
	if p.open < p.limits.Size {
		p.open++
		p.stats.Acquired++
		return nil, true
	}
	return nil, false
}

// best is which of the idle connections suits most.
func (p *pool) best(want Wish) int {
	n := len(p.idle)
	if want.Drawn {
		for i := range p.idle {
			if c := p.idle[i]; c.drawn != 0 && c.drawer == want.Session {
				return i
			}
		}
	}
	like := -1
	for i := n - 1; i >= 0; i-- {
		if c := p.idle[i]; c.settings.Equal(want.Settings) {
			if c.drawn == 0 {
				return i
			}
			like = max(like, i)
		}
	}
	if like >= 0 {
		return like
	}
	return n - 1
}

// replaceStale closes a connection that was found dead and returns another idle one, or nil with the dead one's
// place in the pool kept for opening a new one.
func (p *pool) replaceStale(dead *Conn, want Wish) *Conn {
	dead.broken = true
	dead.close()
	p.mu.Lock()
	delete(p.all, dead)
	p.stats.Closed++
	p.stats.Stale++
	var c *Conn
	if len(p.idle) > 0 {
		c, _ = p.take(want)
		p.stats.Acquired--
		p.open--
	}
	p.mu.Unlock()
	return c
}

// useReserve lets the first in the queue, who has waited longest, open a connection beyond the pool's size.
func (p *pool) useReserve() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open >= p.most() {
		return
	}
	if first := p.waiting.pop(); first != nil {
		p.open++
		p.stats.Acquired++
		p.stats.Reserved++
		first.give(nil)
	}
}

func (p *pool) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.limits.Size
}

func (p *pool) full(size int, detail string) error {
	return pgerr.Newf(pgerr.TooManyConnections, "the pool of connections to shard %s is full", p.key.shard).
		WithDetail(fmt.Sprintf("All %d connections for user %q and database %q are in use: %s.",
			size, p.key.id.User, p.key.id.Database, detail)).
		WithHint("Keep transactions short, or raise the pool size and the server's max_connections.")
}

// openSlot opens a connection for a session in a place of the pool that is already counted.
func (p *pool) openSlot(ctx context.Context, epoch directory.Epoch, session uint64) (*Conn, error) {
	p.mu.Lock()
	endpoint, generation := p.endpoint, p.generation
	p.mu.Unlock()
	began := time.Now()
	c, err := p.connect(ctx, endpoint, generation, epoch)
	now := time.Now()
	p.times.connect.Observe(now.Sub(began))
	p.mu.Lock()
	p.stats.OpenTime += now.Sub(began)
	if err == nil && p.owner.closed() {
		err = ErrClosed
	}
	if err != nil {
		p.stats.OpenFailed++
		p.mu.Unlock()
		if c != nil {
			c.close()
		}
		p.freeSlot()
		return nil, err
	}
	c.number = p.owner.numbers.Add(1)
	c.opened = now
	c.hold(session, now)
	p.all[c] = struct{}{}
	p.stats.Opened++
	p.mu.Unlock()
	return c, nil
}

// freeSlot gives up a place in the pool: the first in the queue may open a connection in it.
func (p *pool) freeSlot() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open <= p.most() {
		if w := p.waiting.pop(); w != nil {
			p.stats.Acquired++
			w.give(nil)
			return
		}
	}
	p.open--
}

// put gives a clean connection to the first in the queue, or keeps it.
func (p *pool) put(c *Conn) {
	c.lastUsed = time.Now()
	p.mu.Lock()
	c.held = false
	if p.owner.closed() || c.broken || c.generation != p.generation || c.lastUsed.After(c.expires) || p.open > p.most() {
		p.mu.Unlock()
		p.discard(c)
		return
	}
	if w := p.waiting.pop(); w != nil {
		p.stats.Acquired++
		c.hold(w.session, c.lastUsed)
		w.give(c)
	} else {
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
}

// discard closes a connection and frees its place.
func (p *pool) discard(c *Conn) {
	c.close()
	p.mu.Lock()
	delete(p.all, c)
	p.stats.Closed++
	p.mu.Unlock()
	p.freeSlot()
}

// release takes back a connection. What takes a round trip happens on a goroutine that Pools.Close waits for.
func (p *pool) release(c *Conn) {
	c.own(nil)
	cancelling := c.lease.end()
	c.clearReadDeadline()
	c.reader.Trim()
	lost := c.broken || c.busy || c.reader.Buffered() > 0 || len(c.prepared.closing) > 2*p.owner.cfg.PreparedStatements
	if cancelling == nil && !lost && c.tx == wire.TxIdle && !c.dirty {
		p.put(c)
		return
	}
	if cancelling == nil && lost && (c.broken || !c.busy) {
		p.discard(c)
		return
	}
	if !p.owner.goroutine(func() { p.clean(c, cancelling) }) {
		p.discard(c)
	}
}

// clean makes a connection fit for the next session, or closes it.
func (p *pool) clean(c *Conn, cancelling <-chan struct{}) {
	p.mu.Lock()
	c.held = false
	p.stats.Cleaned++
	p.mu.Unlock()
	ctx, cancel := p.owner.cleanContext()
	defer cancel()
	if err := c.clean(ctx, cancelling); err != nil {
		p.owner.cfg.Log.Debug("server connection not kept", "shard", string(p.key.shard), "error", err)
		p.discard(c)
		return
	}
	p.put(c)
}

func (c *Conn) clean(ctx context.Context, cancelling <-chan struct{}) error {
	if cancelling != nil {
		select {
		case <-cancelling:
		case <-ctx.Done():
			return fmt.Errorf("wait for a cancel request: %w", context.Cause(ctx))
		}
	}
	if c.broken || c.reader.Buffered() > 0 {
		return fmt.Errorf("connection to shard %s is not usable", c.Shard())
	}
	if c.busy { // given back in the middle of a statement: nobody waits for it, so the server need not finish it
		if err := c.abandon(ctx); err != nil {
			return err
		}
		return fmt.Errorf("connection to shard %s was given back in the middle of a statement", c.Shard())
	}
	if c.tx != wire.TxIdle {
		if err := c.exchange(ctx, "ROLLBACK"); err != nil {
			return fmt.Errorf("roll back: %w", err)
		}
	}
	if c.dirty {
		if err := c.discardAll(ctx); err != nil {
			return err
		}
	}
	if c.tx != wire.TxIdle {
		return fmt.Errorf("connection to shard %s is still in a transaction", c.Shard())
	}
	return nil
}

// abandon cancels what the server runs, again and again, because a request that arrives before the statement begins is
// lost, until the server says that it is ready or ends the connection.
func (c *Conn) abandon(ctx context.Context) error {
	if c.pending.queries+c.pending.syncs == 0 { // a pipeline without its end: its implicit transaction would hold its locks
		end := wire.AppendParse(nil, "", "ROLLBACK", nil)
		end = wire.AppendBind(end, "", "", nil, nil, nil)
		end = wire.AppendExecute(end, "", 0)
		if err := c.Write(wire.AppendSync(end)); err != nil {
			return err
		}
	}
	for ctx.Err() == nil {
		if err := c.sendCancel(ctx); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			return err
		}
		for {
			frame, err := c.Next()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
			if frame.Type == wire.TypeReady {
				return nil
			}
		}
	}
	return fmt.Errorf("cancel an abandoned statement: %w", context.Cause(ctx))
}

// discardAll brings the session on the server back to what it was at its start.
func (c *Conn) discardAll(ctx context.Context) error {
	for _, sql := range []string{"RESET ROLE", "DISCARD ALL"} { // two: DISCARD ALL stands alone
		if err := c.exchange(ctx, sql); err != nil {
			return fmt.Errorf("run %s: %w", sql, err)
		}
	}
	c.settings, c.dirty, c.drawn = nil, false, 0
	c.prepared.reset()
	return nil
}

// adopt follows a shard to another address; it returns the idle connections to the old one, to be closed. An older
// map does not bring the old address back. p.mu is held.
func (p *pool) adopt(endpoint directory.Endpoint, epoch directory.Epoch) []*Conn {
	if epoch < p.epoch || endpoint == p.endpoint {
		p.epoch = max(p.epoch, epoch)
		return nil
	}
	p.endpoint, p.epoch = endpoint, epoch
	return p.retire()
}

// serve gives the pool to another role of its name; it returns the idle connections of the former one, to be closed. p.mu is held.
func (p *pool) serve(role uint32) []*Conn {
	if role == 0 || role == p.role {
		return nil
	}
	former := p.role
	if p.role = role; former == 0 {
		return nil
	}
	return p.retire()
}

// retire makes no connection of now be used again, and returns the idle ones, which the caller closes with closeAll. p.mu is held.
func (p *pool) retire() []*Conn {
	p.generation++
	return p.takeIdle(func(*Conn) bool { return true })
}

// takeIdle takes out the idle connections that match. p.mu is held.
func (p *pool) takeIdle(match func(*Conn) bool) []*Conn {
	var taken []*Conn
	kept := p.idle[:0]
	for _, c := range p.idle {
		if match(c) {
			taken = append(taken, c)
			delete(p.all, c)
		} else {
			kept = append(kept, c)
		}
	}
	clear(p.idle[len(kept):])
	p.idle = kept
	p.open -= len(taken)
	p.stats.Closed += uint64(len(taken))
	return taken
}

func (p *pool) raiseFloor(floor directory.Epoch) {
	p.mu.Lock()
	p.floor = max(p.floor, floor)
	p.mu.Unlock()
}

func closeAll(conns []*Conn) {
	for _, c := range conns {
		c.close()
	}
}
