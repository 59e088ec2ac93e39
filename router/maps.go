package router

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
	"github.com/shardyard/shardyard/router/metrics"
	"github.com/shardyard/shardyard/router/notify"
	"github.com/shardyard/shardyard/router/pgerr"
)

// view is what statements of one database are planned under. It is immutable.
type view struct {
	partitions *directory.Map
	// catalog is as new as the map's CatalogVersion, if anything is sharded. Else it may be older: then
	// only the clean-up of connections rests on it.
	catalog *catalog.Snapshot
	// redefined is database.redefined when the catalog was read.
	redefined uint64
}

// sharded reports whether statements must be planned: whether anything lives elsewhere than on the home shard.
func (v *view) sharded() bool { return v.partitions.AnythingSharded() }

func (v *view) epoch() directory.Epoch { return v.partitions.Epoch }

// database is one database that this router serves. Its view is read without a lock.
type database struct {
	name    string
	hub     *notify.Hub
	current atomic.Pointer[view]

	mu       sync.Mutex
	newer    chan struct{} // closed, and replaced, when current changes
	sessions map[*Session]struct{}

	// refresh asks the database's loader to look at the newest map; it holds one request.
	refresh chan struct{}
	newest  atomic.Pointer[directory.Map]
	// counts are what its sessions have done.
	counts metrics.Database
	// definitions counts the statements of this router that changed the catalog, so that prepared
	// statements of before are not taken for those of after.
	definitions atomic.Uint64
	// redefined counts those of them that others than the session can see.
	redefined atomic.Uint64
	// stale: the catalog is to be read again although the map's version of it is the same.
	stale atomic.Bool
	// announcing: a change of the catalog waits to be announced in the background.
	announcing atomic.Bool
	// listed: the directory has had a map of it. Only the watch uses it.
	listed bool
	// gone is closed when the directory has its map no more: the database was dropped.
	gone chan struct{}
	// ending: its sessions are to end.
	ending atomic.Bool
}

// errGone says that the database was dropped.
var errGone = errors.New("the database was dropped")

func newDatabase(name string) *database {
	return &database{
		name: name, newer: make(chan struct{}), sessions: make(map[*Session]struct{}),
		refresh: make(chan struct{}, 1), gone: make(chan struct{}),
	}
}

func (d *database) isGone() bool {
	select {
	case <-d.gone:
		return true
	default:
		return false
	}
}

// noteDefinition counts a statement that changed the catalog; shared: for others than its session, too.
func (d *database) noteDefinition(shared bool) {
	d.definitions.Add(1)
	if shared {
		d.redefined.Add(1)
	}
}

// publish makes the view current, unless a newer one is.
func (d *database) publish(next *view) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := d.current.Load(); now != nil && now.epoch() > next.epoch() {
		return
	}
	d.current.Store(next)
	close(d.newer)
	d.newer = make(chan struct{})
}

// await waits until the view satisfies the condition. The error is the context's, or errGone.
func (d *database) await(ctx context.Context, satisfied func(*view) bool) (*view, error) {
	for {
		d.mu.Lock()
		changed := d.newer
		d.mu.Unlock()
		if v := d.current.Load(); v != nil && satisfied(v) {
			return v, nil
		}
		select {
		case <-changed:
		case <-d.gone:
			return nil, errGone
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// enter counts a statement in at the view that it is going to be planned under.
//
// Invariant: between the store of the epoch and the second load no view was published, so whoever
// publishes a newer one and looks at inFlight afterwards sees the statement.
func (d *database) enter(inFlight *atomic.Uint64) *view {
	for {
		v := d.current.Load()
		inFlight.Store(uint64(v.epoch()))
		if d.current.Load() == v {
			return v
		}
	}
}

// quiet reports whether nothing planned under an epoch older than this one is in flight.
func (d *database) quiet(epoch directory.Epoch) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s := range d.sessions {
		if at := s.inFlight.Load(); at != 0 && directory.Epoch(at) < epoch {
			return false
		}
	}
	return true
}

func (d *database) join(s *Session) {
	d.mu.Lock()
	d.sessions[s] = struct{}{}
	d.mu.Unlock()
}

func (d *database) leave(s *Session) {
	d.mu.Lock()
	delete(d.sessions, s)
	d.mu.Unlock()
}

// learn takes a newer map. It never waits.
func (d *database) learn(m *directory.Map) {
	for {
		now := d.newest.Load()
		if now != nil && now.Epoch >= m.Epoch {
			return
		}
		if d.newest.CompareAndSwap(now, m) {
			break
		}
	}
	select {
	case d.refresh <- struct{}{}:
	default:
	}
}

// quietPoll is how often the acknowledger looks whether older statements have ended.
const quietPoll = 2 * time.Millisecond

// loadRetry is how long a failed load of the catalog waits before the next.
const loadRetry = 250 * time.Millisecond

// follow is the database's goroutine: it turns each newer map into the current view, with its catalog,
// and acknowledges its epoch when nothing older is in flight. It ends with the database.
func (s *Server) follow(ctx context.Context, d *database) {
	var acknowledged directory.Epoch
	for {
		again := false
		if m := d.newest.Load(); m != nil && !d.isGone() {
			if now := d.current.Load(); now == nil || now.epoch() < m.Epoch || d.stale.Load() {
				if err := s.refreshView(ctx, d, m); err != nil {
					if ctx.Err() != nil {
						return // perhaps without ever having had a view
					}
					s.log.Warn("catalog load failed", "database", d.name, "epoch", m.Epoch, "error", err)
					if !sleep(ctx, loadRetry) {
						return
					}
					continue
				}
			}
			if again = s.acknowledge(ctx, d, &acknowledged); ctx.Err() != nil {
				return
			}
		}
		if again {
			continue
		}
		select {
		case <-d.refresh:
		case <-d.gone:
			s.endDatabase(ctx, d)
			return
		case <-ctx.Done():
			return
		}
	}
}

// acknowledge waits until nothing older than the current view is in flight, or a newer map is there, and acknowledges the view's
// epoch. again: there is a newer map.
func (s *Server) acknowledge(ctx context.Context, d *database, acknowledged *directory.Epoch) (again bool) {
	now := d.current.Load()
	at := now.epoch()
	if at <= *acknowledged {
		return d.newest.Load().Epoch > at
	}
	settled := func() bool { return d.quiet(at) }
	poll := quietPoll
	if drop := now.partitions.Drop; drop != nil {
		if poll = dropPoll; drop.Force {
			poll = forcePoll
		}
		settled = func() bool { return s.letGo(ctx, d, drop.Force) }
	} else if s.member != nil && !settled() {
		s.member.Planning(d.name, at)
	}
	for !settled() {
		if !sleep(ctx, poll) || d.isGone() {
			return false
		}
		if d.newest.Load().Epoch > at {
			return true
		}
	}
	*acknowledged = at
	if s.member != nil {
		s.member.Acknowledge(d.name, at)
	}
	return d.newest.Load().Epoch > at
}

// refreshView makes the map current, with a catalog that is new enough for it.
func (s *Server) refreshView(ctx context.Context, d *database, m *directory.Map) error {
	next := &view{partitions: m}
	now := d.current.Load()
	known := now != nil && now.catalog != nil && now.partitions.CatalogVersion == m.CatalogVersion
	if m.Drop != nil { // it may take no connections, and needs none
		if next.catalog = nil; now != nil {
			next.catalog, next.redefined = now.catalog, now.redefined
		}
		d.stale.Store(true)
	} else if known && !d.stale.Swap(false) {
		next.catalog, next.redefined = now.catalog, now.redefined
	} else {
		next.redefined = d.redefined.Load()
		loaded, err := s.loadCatalog(ctx, m)
		if err != nil {
			d.stale.Store(true)
			return fmt.Errorf("load catalog version %d: %w", m.CatalogVersion, err)
		}
		next.catalog = loaded
		s.greeting.expire(d.name) // roles' and databases' own settings may have changed
		s.rolesChanged(ctx)
	}
	d.hub.Follow(ctx, m.Holders())
	d.publish(next)
	return nil
}

func sleep(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errNewerMap says that a statement waited in vain for a newer map.
func errNewerMap(what string) *pgerr.Error {
	return pgerr.New(pgerr.StaleMap, what).
		WithHint("The partition map is being changed. Try the statement again.")
}
