package backend

import (
	"cmp"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/metrics"
)

// PoolStats is the state of one pool at one moment. Counters count from the pool's beginning.
type PoolStats struct {
	Shard    directory.ShardID
	Identity Identity
	Endpoint directory.Endpoint
	Limits   Limits
	Size     int // the bound, without the reserve
	Open     int // idle, in use, being opened or cleaned
	Idle     int
	Held     int // by sessions
	Cleaning int
	Opening  int
	Waiting  int
	// Oldest is how long the first in the queue has waited.
	Oldest time.Duration
	Counters
}

// Counters count what happened in a pool.
type Counters struct {
	Acquired   uint64        // connections given out
	Opened     uint64        // server connections opened
	OpenFailed uint64        // attempts to open one that failed
	OpenTime   time.Duration // of all attempts
	Closed     uint64        // server connections closed
	Stale      uint64        // of those, found closed by the server when they were wanted
	Cleaned    uint64        // given back dirty, in a transaction or with a cancel request under way
	Reserved   uint64        // opened beyond the size
	Waited     uint64        // acquires that had to wait, and for how long in all
	WaitTime   time.Duration //
	Timeouts   uint64        // waits that were given up, by timeout or by the caller
	Refused    uint64        // acquires refused because the queue was full
}

func (c *Counters) add(other *Counters) {
	c.Acquired += other.Acquired
	c.Opened += other.Opened
	c.OpenFailed += other.OpenFailed
	c.OpenTime += other.OpenTime
	c.Closed += other.Closed
	c.Stale += other.Stale
	c.Cleaned += other.Cleaned
	c.Reserved += other.Reserved
	c.Waited += other.Waited
	c.WaitTime += other.WaitTime
	c.Timeouts += other.Timeouts
	c.Refused += other.Refused
}

// Add adds another pool's numbers; the oldest wait is the longer one.
func (s *PoolStats) Add(other *PoolStats) {
	s.Size += other.Size
	s.Limits.Size += other.Limits.Size
	s.Limits.Reserve += other.Limits.Reserve
	s.Open += other.Open
	s.Idle += other.Idle
	s.Held += other.Held
	s.Cleaning += other.Cleaning
	s.Opening += other.Opening
	s.Waiting += other.Waiting
	s.Oldest = max(s.Oldest, other.Oldest)
	s.Counters.add(&other.Counters)
}

// InUse returns the connections that are not idle.
func (s *PoolStats) InUse() int { return s.Open - s.Idle }

// Stats returns the state of each pool, ordered by shard, database and user. Connections for what is combined (Wish.Side) count with the
// others.
func (p *Pools) Stats() []PoolStats {
	pools, now := p.list(""), time.Now()
	stats := make([]PoolStats, 0, len(pools))
	for _, pool := range pools {
		stats = append(stats, pool.snapshot(now))
	}
	slices.SortFunc(stats, func(a, b PoolStats) int {
		return cmp.Or(cmp.Compare(a.Shard, b.Shard), compareIdentity(a.Identity, b.Identity))
	})
	merged := stats[:0]
	for i := range stats {
		if last := len(merged) - 1; last >= 0 && merged[last].Shard == stats[i].Shard && merged[last].Identity == stats[i].Identity {
			merged[last].Add(&stats[i])
			continue
		}
		merged = append(merged, stats[i])
	}
	return merged
}

func compareIdentity(a, b Identity) int {
	return cmp.Or(cmp.Compare(a.Database, b.Database), cmp.Compare(a.User, b.User))
}

func (p *pool) snapshot(now time.Time) PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := PoolStats{
		Shard: p.key.shard, Identity: p.key.id, Endpoint: p.endpoint, Limits: p.limits, Size: p.limits.Size,
		Open: p.open, Idle: len(p.idle), Opening: p.open - len(p.all), Waiting: p.waiting.length, Counters: p.stats,
	}
	for c := range p.all {
		if c.held {
			s.Held++
		}
	}
	s.Cleaning = len(p.all) - s.Held - s.Idle
	if first := p.waiting.first; first != nil {
		s.Oldest = now.Sub(first.since)
	}
	return s
}

// Counted is what the pools of each database have counted, those that were forgotten too.
func (p *Pools) Counted() map[string]Counters {
	counted := make(map[string]Counters)
	p.mu.RLock()
	for database, gone := range p.gone {
		counted[database] = gone
	}
	for key, pool := range p.pools {
		sum := counted[key.id.Database]
		pool.mu.Lock()
		sum.add(&pool.stats)
		pool.mu.Unlock()
		counted[key.id.Database] = sum
	}
	p.mu.RUnlock()
	return counted
}

// ConnState is what a server connection does.
type ConnState string

// The states, in PgBouncer's words.
const (
	ConnActive ConnState = "active" // a session has it
	ConnIdle   ConnState = "idle"
	ConnTested ConnState = "tested" // it is being cleaned
)

// ConnStats is one server connection at one moment.
type ConnStats struct {
	Shard         directory.ShardID
	Identity      Identity
	Number        uint64 // tells it from every other of the process
	PID           uint32
	State         ConnState
	Session       uint64 // who has it, 0: nobody
	Opened        time.Time
	Since         time.Time // when it was given out, or came back
	Remote, Local netip.AddrPort
	TLS           string // version and cipher, "" if it is not encrypted
	Prepared      int    // statements
	CloseNeeded   bool   // it is closed when it comes back
}

// Connections lists the server connections of the pools, in the order in which they were opened.
func (p *Pools) Connections() []ConnStats {
	var list []ConnStats
	for _, pool := range p.list("") {
		pool.mu.Lock()
		for c := range pool.all {
			list = append(list, pool.describe(c))
		}
		pool.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b ConnStats) int { return cmp.Compare(a.Number, b.Number) })
	return list
}

// describe says what is known of a connection. p.mu is held.
func (p *pool) describe(c *Conn) ConnStats {
	s := ConnStats{
		Shard: p.key.shard, Identity: p.key.id, Number: c.number, PID: c.pid, State: ConnTested, Opened: c.opened, Since: c.since,
		Remote: addrPort(c.net.RemoteAddr()), Local: addrPort(c.net.LocalAddr()), TLS: DescribeTLS(c.net),
		Prepared: int(c.prepared.count.Load()), CloseNeeded: c.generation != p.generation,
	}
	switch {
	case c.held:
		s.State, s.Session = ConnActive, c.session
	case slices.Contains(p.idle, c):
		s.State, s.Since = ConnIdle, c.lastUsed
	}
	return s
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		at := tcp.AddrPort()
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return netip.AddrPort{}
}

// DescribeTLS names the version and the cipher of an encrypted connection, "" if it is not encrypted.
func DescribeTLS(conn net.Conn) string {
	encrypted, ok := conn.(*tls.Conn)
	if !ok {
		return ""
	}
	state := encrypted.ConnectionState()
	return tls.VersionName(state.Version) + "/" + tls.CipherSuiteName(state.CipherSuite)
}

// Lifetime is how old a connection may become.
func (p *Pools) Lifetime() time.Duration { return p.cfg.MaxLifetime }

// Waiter is somebody who waits for a connection.
type Waiter struct {
	Shard    directory.ShardID
	Identity Identity
	Session  uint64
	Since    time.Time
}

// Waiting lists who waits, by pool in the order of their turns.
func (p *Pools) Waiting() []Waiter {
	var list []Waiter
	for _, pool := range p.list("") {
		pool.mu.Lock()
		for w := pool.waiting.first; w != nil; w = w.next {
			list = append(list, Waiter{Shard: pool.key.shard, Identity: pool.key.id, Session: w.session, Since: w.since})
		}
		pool.mu.Unlock()
	}
	return list
}

// shardTimes are histograms of one shard.
type shardTimes struct{ wait, connect metrics.Histogram }

// ShardTimes says how long acquires of a shard's connections have waited in a queue, those that did not wait left out, and
// how long opening connections took.
type ShardTimes struct {
	Shard         directory.ShardID
	Wait, Connect metrics.Durations
}

// Times returns the histograms of each shard, ordered by its name.
func (p *Pools) Times() []ShardTimes {
	p.mu.RLock()
	defer p.mu.RUnlock()
	list := make([]ShardTimes, 0, len(p.times))
	for shard, times := range p.times {
		t := ShardTimes{Shard: shard}
		times.wait.AddTo(&t.Wait)
		times.connect.AddTo(&t.Connect)
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b ShardTimes) int { return cmp.Compare(a.Shard, b.Shard) })
	return list
}
