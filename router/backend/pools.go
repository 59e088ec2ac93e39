package backend

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/loop"
)

// Identity is what a pool is for on a shard. Database and user are as the client gave them.
type Identity struct{ Database, User string }

type poolKey struct {
	shard directory.ShardID
	id    Identity
	side  bool // see Wish.Side
}

// Pools holds all server connections of a router. It is safe for concurrent use.
type Pools struct {
	cfg          Config
	cleanContext func() (context.Context, context.CancelFunc) // of one clean-up; ends with Close
	stop         context.CancelFunc
	closing      <-chan struct{} // closed by Close

	services    services
	credentials credentials
	limits      atomic.Pointer[limitTable]
	numbers     atomic.Uint64 // given to connections
	named       atomic.Uint64 // counts the calls of NoteRoles

	mu    sync.RWMutex
	pools map[poolKey]*pool
	// times are those of each shard, gone what the forgotten pools of each database have counted.
	times map[directory.ShardID]*shardTimes
	gone  map[string]Counters

	down       atomic.Bool
	tasks      sync.WaitGroup // Invariant: grows only under taskMu while down is false
	taskMu     sync.Mutex
	sweepEvery time.Duration
}

// New returns Pools without any connection. Close must be called; that ctx ends changes nothing.
func New(ctx context.Context, cfg Config) (*Pools, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("configure pools: %w", err)
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	p := &Pools{
		cfg: cfg, pools: make(map[poolKey]*pool), times: make(map[directory.ShardID]*shardTimes), gone: make(map[string]Counters),
		stop: stop, closing: background.Done(),
	}
	table, err := newLimitTable(cfg.limits(), cfg.Rules)
	if err != nil {
		stop()
		return nil, fmt.Errorf("configure pools: %w", err)
	}
	p.limits.Store(table)
	p.cleanContext = func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(background, cfg.CleanTimeout)
	}
	p.sweepEvery = max(min(cfg.IdleTimeout, cfg.MaxLifetime, cfg.ReserveTimeout, serviceIdleTimeout)/4, time.Millisecond)
	p.goroutine(p.sweepLoop)
	return p, nil
}

// Acquire returns a connection to the shard's primary for the identity, waiting in the order of arrival if all are in
// use. epoch is that of the map that the statement was planned under.
//
// Errors: *FloorError (57P03) if the shard wants a newer map; 53300 if none became free in time; 57014 if ctx ended;
// 08006 if the shard cannot be reached; else what the server said. The connection must be given back by Release.
func (p *Pools) Acquire(ctx context.Context, shard directory.Shard, id Identity, epoch directory.Epoch) (*Conn, error) {
	return p.AcquireFor(ctx, shard, id, epoch, Wish{})
}

// Wish says for whom a connection is, and what it should be like.
type Wish struct {
	// Settings that it should have already, if there is such a one. They are not applied: see Conn.ApplySettings.
	Settings *Settings
	// Role is the OID, on the home shard, of the role that the session logged in as; 0: whatever has the name. A pool serves one role:
	// connections that were opened for another one of the same name are not used again.
	Role uint32
	// Session is who gets it, for Connections and Waiting. 0: nobody in particular.
	Session uint64
	// Holds: the session holds connections to other shards meanwhile. It comes before those that hold none, and gives way (40P01) if
	// it and others wait for each other.
	Holds bool
	// Task is who gets it, nil: a goroutine. It leaves the loop while a connection is opened.
	Task *loop.Task
	// Waiting, unless nil, is called before Acquire waits for anything. Its context bounds the wait; release is called behind it.
	Waiting func(ctx context.Context) (_ context.Context, release func())
	// Stopped, unless nil, reports whether the wait is over, for one on the loop: ctx alone does not wake Task. Who stops it does.
	Stopped func() bool
	// Side: the connection is from a pool of its own, with the same limits, whose holders wait for no other connection.
	Side bool
	// Last, unless nil, is the pool that was asked last, which need not be looked for again.
	Last *LastPool
	// Drawn: the session has drawn from sequences, and would like the connection that remembers their values.
	Drawn bool
}

// LastPool is the pool that a session has asked last. It belongs to one goroutine at a time.
type LastPool struct{ pool *pool }

func (w *Wish) waits(ctx context.Context) (_ context.Context, release func()) {
	if w.Waiting == nil {
		return ctx, func() {}
	}
	return w.Waiting(ctx)
}

// AcquireFor is Acquire with a wish.
func (p *Pools) AcquireFor(
	ctx context.Context, shard directory.Shard, id Identity, epoch directory.Epoch, want Wish,
) (*Conn, error) {
	key, last := poolKey{shard.ID, id, want.Side}, want.Last
	if last == nil {
		last = new(LastPool)
	}
	for {
		if p.closed() {
			return nil, ErrClosed
		}
		if last.pool == nil || last.pool.key != key {
			last.pool = p.pool(key)
		}
		c, retry, err := last.pool.acquire(ctx, shard, epoch, want)
		if !retry {
			return c, err
		}
		last.pool = nil
	}
}

// Release takes back a connection. The caller has read every answer up to the last ReadyForQuery; a connection of
// which that is not true, or that is broken, is closed. One in a transaction is rolled back, one that is dirty is cleaned by
// DISCARD ALL, both in the background. c must not be used any more.
func (p *Pools) Release(c *Conn) {
	c.pool.release(c)
}

// Reconnect lets no connection to the shard be used for another session: idle ones are closed now, the others when they
// are released.
func (p *Pools) Reconnect(shard directory.ShardID) {
	p.each(shard, func(pool *pool) {
		pool.mu.Lock()
		idle := pool.retire()
		pool.mu.Unlock()
		closeAll(idle)
	})
}

// CloseDatabase closes the idle connections to a database on all shards, and lets no other be used for another session. It
// reports whether none is left.
func (p *Pools) CloseDatabase(database string) bool {
	none := true
	p.closeServices(func(key serviceKey, _ time.Time) bool { return key.database == database })
	p.mu.RLock()
	var list []*pool
	for key, pool := range p.pools {
		if key.id.Database == database {
			list = append(list, pool)
		}
	}
	p.mu.RUnlock()
	for _, pool := range list {
		pool.mu.Lock()
		idle := pool.retire()
		pool.resting = true
		none = none && pool.open == 0
		pool.mu.Unlock()
		closeAll(idle)
	}
	return none
}

// ForgetDatabase forgets what was counted for a database that is gone.
func (p *Pools) ForgetDatabase(database string) {
	p.mu.Lock()
	delete(p.gone, database)
	p.mu.Unlock()
}

// ReconnectDatabase is Reconnect for the connections to one database on all shards, or to all databases if it is "".
func (p *Pools) ReconnectDatabase(database string) {
	for _, pool := range p.list("") {
		if database != "" && pool.key.id.Database != database {
			continue
		}
		pool.mu.Lock()
		idle := pool.retire()
		pool.mu.Unlock()
		closeAll(idle)
	}
}

// TerminateAll closes every connection to the shard, those in use too: their holders get 08006.
func (p *Pools) TerminateAll(shard directory.ShardID) {
	p.each(shard, func(pool *pool) {
		pool.mu.Lock()
		idle := pool.retire()
		for c := range pool.all {
			_ = c.net.Close()
		}
		pool.mu.Unlock()
		closeAll(idle)
	})
}

// Close closes what is idle, wakes those who wait with ErrClosed, and returns when all clean-up has ended. Connections
// in use are closed as they are released.
func (p *Pools) Close() {
	p.taskMu.Lock()
	if p.down.Swap(true) {
		p.taskMu.Unlock()
		p.tasks.Wait()
		return
	}
	p.taskMu.Unlock()
	p.stop()
	p.closeServices(func(serviceKey, time.Time) bool { return true })
	for _, pool := range p.list("") {
		pool.mu.Lock()
		idle := pool.retire()
		for w := pool.waiting.pop(); w != nil; w = pool.waiting.pop() {
			w.close()
		}
		pool.mu.Unlock()
		closeAll(idle)
	}
	p.tasks.Wait()
}

func (p *Pools) closed() bool { return p.down.Load() }

// goroutine runs a task that Close waits for; false: Close has begun.
func (p *Pools) goroutine(task func()) bool {
	p.taskMu.Lock()
	defer p.taskMu.Unlock()
	if p.down.Load() {
		return false
	}
	p.tasks.Go(task)
	return true
}

func (p *Pools) pool(key poolKey) *pool {
	p.mu.RLock()
	found := p.pools[key]
	p.mu.RUnlock()
	if found != nil {
		return found
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if found := p.pools[key]; found != nil {
		return found
	}
	times := p.times[key.shard]
	if times == nil {
		times = new(shardTimes)
		p.times[key.shard] = times
	}
	// Invariant: who changes the limits stores the table before it looks for pools, so a new pool has the new ones.
	created := &pool{
		owner: p, key: key, limits: p.limits.Load().find(key.id), times: times, all: make(map[*Conn]struct{}), lastUsed: time.Now(),
	}
	p.pools[key] = created
	return created
}

func (p *Pools) each(shard directory.ShardID, do func(*pool)) {
	for _, pool := range p.list(shard) {
		do(pool)
	}
}

// list returns the pools of a shard, of all if it is "".
func (p *Pools) list(shard directory.ShardID) []*pool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	list := make([]*pool, 0, len(p.pools))
	for key, pool := range p.pools {
		if shard == "" || key.shard == shard {
			list = append(list, pool)
		}
	}
	return list
}

func (p *Pools) sweepLoop() {
	ticker := time.NewTicker(p.sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-p.closing:
			return
		case now := <-ticker.C:
			p.sweep(now)
		}
	}
}

// sweep closes idle connections that are old, unused or dead, and forgets pools that nobody has used for long, so that
// the table does not grow with every user that ever came.
func (p *Pools) sweep(now time.Time) {
	p.closeServices(func(_ serviceKey, since time.Time) bool { return now.Sub(since) > serviceIdleTimeout })
	for _, pool := range p.list("") {
		old, unused, fill := pool.sweep(now)
		closeAll(old)
		if unused {
			p.remove(pool)
		}
		if fill && !p.goroutine(pool.fill) {
			return
		}
	}
}

func (p *Pools) remove(pool *pool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pool.mu.Lock()
	defer pool.mu.Unlock()
	if pool.open == 0 && pool.waiting.length == 0 {
		pool.removed = true
		delete(p.pools, pool.key)
		gone := p.gone[pool.key.id.Database]
		gone.add(&pool.stats)
		p.gone[pool.key.id.Database] = gone
	}
}
