package commit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
)

// GateConfig configures a Gate.
type GateConfig struct {
	// Dial opens a connection as the service role. Required.
	Dial func(ctx context.Context, shard directory.Shard, database string) (*pgx.Conn, error)
	// Rounds bounds how many rounds may be under way in one database, which is also the number of connections to
	// each shard. Defaults to 4.
	Rounds int
	// LockTimeout is how long a round waits for decisions under way, and they may wait for it. Defaults to 40 ms.
	LockTimeout time.Duration
	// Patience is how long a round tries again before Hold fails with 55P03. Defaults to 10 s.
	Patience time.Duration
	// IdleTimeout closes connections that were not used for so long. Defaults to 30 s.
	IdleTimeout time.Duration
	// Log defaults to none.
	Log *slog.Logger
}

const (
	defaultRounds      = 4
	defaultLockTimeout = 40 * time.Millisecond
	defaultPatience    = 10 * time.Second
	defaultIdleTimeout = 30 * time.Second
	// Waits between two attempts of a round are random, up to a bound that doubles from the first to the last.
	firstRetryWait = 5 * time.Millisecond
	lastRetryWait  = 160 * time.Millisecond
)

// lockNotAvailable is Postgres's SQLSTATE for a lock that was not granted in time.
const lockNotAvailable = "55P03"

// Gate stops the decisions of all routers for the moment in which a reader's snapshots are taken on several shards,
// and sees to it that every transaction decided before is committed on all of them. It is safe for concurrent use.
//
// A decision holds ROW EXCLUSIVE on shardyard.decision of its last agent until it is committed; the gate holds SHARE on all
// shards that hold anything of the database. All, not only those that are read: a transaction that wrote on two of these may be
// decided on any.
type Gate struct {
	cfg GateConfig

	mu        sync.Mutex
	databases map[string]*gateDatabase
	forming   map[formingKey]*round // rounds that can still be joined
	closed    bool
}

type formingKey struct {
	database string
	epoch    directory.Epoch
}

// gateDatabase is what the gate keeps for a database.
type gateDatabase struct {
	rounds chan struct{} // a place for each round under way
	idle   map[directory.ShardID][]*gateConn
	users  int // rounds that have the database or wait for it
	used   time.Time
}

// round is one taking of the gate, for all readers that came before it began. Its fields but those of Gate.mu and work
// are written by the reader that leads it, before ready is closed.
type round struct {
	gate     *Gate
	database string
	state    *gateDatabase
	shards   []directory.Shard
	ready    chan struct{}
	conns    []*gateConn // of shards, in their order
	err      error

	members int        // under Gate.mu: readers that wait for it or use it
	work    sync.Mutex // for the connections, once ready is closed
}

// NewGate returns a Gate without connections. Run must run for idle ones to be closed.
func NewGate(cfg GateConfig) (*Gate, error) {
	if cfg.Dial == nil {
		return nil, errors.New("configure the gate: Dial is required")
	}
	if cfg.Rounds <= 0 {
		cfg.Rounds = defaultRounds
	}
	if cfg.LockTimeout <= 0 {
		cfg.LockTimeout = defaultLockTimeout
	}
	if cfg.Patience <= 0 {
		cfg.Patience = defaultPatience
	}
	if cfg.IdleTimeout <= 0 {
		cfg.IdleTimeout = defaultIdleTimeout
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Gate{cfg: cfg, databases: make(map[string]*gateDatabase), forming: make(map[formingKey]*round)}, nil
}

// Hold is a reader's part in a round.
type Hold struct {
	round    *round
	released bool
}

// Hold returns when no transaction can be decided on any shard of the map and every transaction decided before is
// committed wherever it was prepared: snapshots taken between Hold and Release show each of them everywhere or nowhere.
// Release must be called, and soon.
//
// Readers that come while others wait for their turn share a round with them. Errors: 55P03 if decisions or snapshots stand in the
// way for longer than Patience, with the process that does; 08006 if a shard of the map cannot be reached; ctx's.
func (g *Gate) Hold(ctx context.Context, m *directory.Map) (*Hold, error) {
	for {
		r, leads, err := g.join(m)
		if err != nil {
			return nil, err
		}
		if leads {
			g.lead(ctx, r, formingKey{m.Database, m.Epoch})
		}
		select {
		case <-r.ready:
		case <-ctx.Done():
			g.leave(ctx, r)
			return nil, fmt.Errorf("wait for a snapshot of all shards: %w", context.Cause(ctx))
		}
		if r.err == nil {
			return &Hold{round: r}, nil
		}
		g.leave(ctx, r)
		if leads || !errors.Is(r.err, errLeaderLeft) {
			return nil, r.err
		}
	}
}

// errLeaderLeft says that the reader that led a round was cancelled. The others start again.
var errLeaderLeft = errors.New("the reader that led the round was cancelled")

// join finds a round that has not begun yet, or makes one.
func (g *Gate) join(m *directory.Map) (r *round, leads bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, false, pgerr.New(pgerr.AdminShutdown, "the router is shutting down")
	}
	key := formingKey{m.Database, m.Epoch}
	if r = g.forming[key]; r != nil {
		r.members++
		return r, false, nil
	}
	state := g.databases[m.Database]
	if state == nil {
		state = &gateDatabase{rounds: make(chan struct{}, g.cfg.Rounds), idle: make(map[directory.ShardID][]*gateConn)}
		g.databases[m.Database] = state
	}
	state.users++
	r = &round{gate: g, database: m.Database, state: state, shards: m.Holders(), ready: make(chan struct{}), members: 1}
	g.forming[key] = r
	return r, true, nil
}

// lead takes the gate for the round, as soon as there is a place for it.
func (g *Gate) lead(ctx context.Context, r *round, key formingKey) {
	var err error
	placed := false
	select {
	case r.state.rounds <- struct{}{}:
		placed = true
	case <-ctx.Done():
		err = ctx.Err()
	}
	g.mu.Lock()
	delete(g.forming, key) // Invariant: who joined did so before anything was asked of a shard
	g.mu.Unlock()
	if err == nil {
		err = r.take(ctx)
	}
	if err != nil && ctx.Err() != nil {
		err = errors.Join(errLeaderLeft, context.Cause(ctx))
	}
	if err != nil {
		r.closeConns()
		if placed {
			<-r.state.rounds
		}
	}
	if r.err = err; err != nil {
		g.mu.Lock()
		r.state.users--
		g.mu.Unlock()
	}
	close(r.ready)
}

// leave takes a reader out of a round; the last one releases it. The leader stays until the round is ready, so
// the last one is never before that.
func (g *Gate) leave(ctx context.Context, r *round) {
	g.mu.Lock()
	r.members--
	last := r.members == 0
	g.mu.Unlock()
	if last && r.err == nil {
		r.release(ctx)
	}
}

// Release ends the reader's part. It does not wait for the shards.
func (h *Hold) Release(ctx context.Context) {
	if h == nil || h.released {
		return
	}
	h.released = true
	h.round.gate.leave(ctx, h.round)
}

// take locks the decisions of all shards and finishes what is decided.
func (r *round) take(ctx context.Context) error {
	deadline := time.Now().Add(r.gate.cfg.Patience)
	bound := firstRetryWait
	for {
		busy, err := r.attempt(ctx)
		if err == nil {
			return nil
		}
		var waits *blockedError
		if !errors.As(err, &waits) {
			return err
		}
		if time.Now().After(deadline) {
			return r.blocked(waits, busy)
		}
		r.cancel()
		if err := sleep(ctx, rand.N(bound)+time.Millisecond); err != nil {
			return err
		}
		bound = min(2*bound, lastRetryWait)
	}
}

// blockedError says that an attempt can be made again.
type blockedError struct {
	shard directory.ShardID
	what  string
	err   error
}

func (e *blockedError) Error() string { return fmt.Sprintf("shard %s: %s", e.shard, e.what) }
func (e *blockedError) Unwrap() error { return e.err }

// attempt tries once to lock all shards; busy is the connection whose lock was not granted.
func (r *round) attempt(ctx context.Context) (busy *gateConn, err error) {
	if err := r.connect(ctx); err != nil {
		return nil, err
	}
	lock := fmt.Sprintf("BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL lock_timeout = %d; LOCK TABLE shardyard.decision IN SHARE MODE", r.gate.cfg.LockTimeout.Milliseconds())
	for _, c := range r.conns {
		c.send(lock)
	}
	var failed error
	for _, c := range r.conns { // all of them: each owes an answer
		_, err := c.receive()
		if err == nil || failed != nil {
			continue
		}
		failed = err
		var e *pgerr.Error
		switch {
		case errors.As(err, &e) && e.Code == lockNotAvailable:
			busy, failed = c, &blockedError{shard: c.shard, what: "decisions of other transactions are under way", err: err}
		case c.lost && c.reused:
			failed = &blockedError{shard: c.shard, what: "its connection was lost", err: err}
		}
	}
	if failed != nil {
		return busy, failed
	}
	// Only now: until every shard was locked a transaction prepared on one could be decided on another.
	return nil, r.finishDecided(ctx)
}

// connect takes a connection to each shard that the round does not have yet.
func (r *round) connect(ctx context.Context) error {
	if r.conns == nil {
		r.conns = make([]*gateConn, len(r.shards))
	}
	for i, shard := range r.shards {
		if c := r.conns[i]; c != nil && !c.lost {
			continue
		}
		c := r.gate.takeIdle(r.state, shard)
		if c == nil {
			var err error
			if c, err = dialGate(ctx, r.gate.cfg.Dial, shard, r.database); err != nil {
				return err
			}
		}
		if old := r.conns[i]; old != nil {
			old.close()
		}
		r.conns[i] = c
	}
	return nil
}

// cancel gives up what locks an attempt has.
func (r *round) cancel() {
	for _, c := range r.conns {
		if c != nil {
			c.owe("ROLLBACK")
		}
	}
}

func (r *round) blocked(why *blockedError, busy *gateConn) error {
	e := pgerr.New(lockNotAvailable, "could not take a snapshot of all shards").WithDetail(why.Error() + ".").Because(why)
	if busy != nil {
		busy.owe("ROLLBACK")
		busy.send(holdersQuery)
		if rows, err := busy.receive(); err == nil && len(rows) > 0 {
			e = e.WithDetail(fmt.Sprintf("Shard %s: process %s (%q) holds %s on shardyard.decision since %s.",
				busy.shard, rows[0][0], rows[0][1], rows[0][2], rows[0][3]))
		}
	}
	return e.WithHint("Run the statement again, or SET shardyard.snapshot = 'shard' if each shard's own snapshot will do.")
}

// holdersQuery names who stands in the way of the gate on a shard, the oldest first.
const holdersQuery = `SELECT l.pid, coalesce(a.application_name, ''), l.mode, coalesce(a.xact_start, pg_catalog.now())
FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.relation = 'shardyard.decision'::pg_catalog.regclass AND l.granted AND l.pid <> pg_catalog.pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'ShareLock')
ORDER BY a.xact_start LIMIT 1`

// release unlocks the shards, without waiting for them, and gives the connections back.
func (r *round) release(ctx context.Context) {
	for _, c := range r.conns {
		c.owe("COMMIT")
	}
	g := r.gate
	g.mu.Lock()
	now := time.Now()
	r.state.users--
	r.state.used = now
	var spare []*gateConn
	for _, c := range r.conns {
		if c.lost || g.closed {
			spare = append(spare, c)
			continue
		}
		c.used = now
		r.state.idle[c.shard] = append(r.state.idle[c.shard], c)
	}
	g.mu.Unlock()
	r.conns = nil
	<-r.state.rounds
	for _, c := range spare {
		g.cfg.Log.DebugContext(ctx, "gate connection closed", "shard", c.shard)
		c.close()
	}
}

func (r *round) closeConns() {
	for _, c := range r.conns {
		if c != nil {
			c.close()
		}
	}
	r.conns = nil
}

// takeIdle takes a connection that leads where the shard is now.
func (g *Gate) takeIdle(state *gateDatabase, shard directory.Shard) *gateConn {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := state.idle[shard.ID]
	for len(list) > 0 {
		c := list[len(list)-1]
		list = list[:len(list)-1]
		state.idle[shard.ID] = list
		if c.endpoint == shard.Primary {
			c.reused = true
			return c
		}
		c.close()
	}
	return nil
}

// Run closes connections that are not used, until ctx ends; then all, and no more rounds begin.
func (g *Gate) Run(ctx context.Context) {
	ticker := time.NewTicker(max(g.cfg.IdleTimeout/4, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			g.sweep(func(used time.Time) bool { return now.Sub(used) > g.cfg.IdleTimeout })
		case <-ctx.Done():
			g.mu.Lock()
			g.closed = true
			g.mu.Unlock()
			g.sweep(func(time.Time) bool { return true })
			return
		}
	}
}

// sweep closes the idle connections that are old, and forgets databases without any.
func (g *Gate) sweep(old func(used time.Time) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, state := range g.databases {
		for shard, list := range state.idle {
			list = slices.DeleteFunc(list, func(c *gateConn) bool {
				if !old(c.used) {
					return false
				}
				c.close()
				return true
			})
			if state.idle[shard] = list; len(list) == 0 {
				delete(state.idle, shard)
			}
		}
		if len(state.idle) == 0 && state.users == 0 && old(state.used) {
			delete(g.databases, name)
		}
	}
}
