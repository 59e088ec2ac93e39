package backend

import (
	"sort"
	"time"

	"github.com/shardyard/shardyard/directory"
)

// PoolStats is the state of one pool at one moment. Counters count from the pool's beginning.
type PoolStats struct {
	Shard    directory.ShardID
	Identity Identity
	Endpoint directory.Endpoint
	Size     int // the bound
	Open     int // idle, in use, being opened or cleaned
	Idle     int
	Waiting  int
	Counters
}

// Counters count what happened in a pool.
type Counters struct {
	Acquired   uint64        // connections given out
	Opened     uint64        // server connections opened
	OpenFailed uint64        // attempts to open one that failed
	Closed     uint64        // server connections closed
	Stale      uint64        // of those, found closed by the server when they were wanted
	Waited     uint64        // acquires that had to wait, and for how long in all
	WaitTime   time.Duration //
	Timeouts   uint64        // waits that were given up, by timeout or by the caller
	Refused    uint64        // acquires refused because the queue was full
}

// InUse returns the connections that are not idle.
func (s *PoolStats) InUse() int { return s.Open - s.Idle }

// Stats returns the state of each pool, ordered by shard, database and user.
func (p *Pools) Stats() []PoolStats {
	pools := p.list("")
	stats := make([]PoolStats, 0, len(pools))
	for _, pool := range pools {
		stats = append(stats, pool.snapshot())
	}
	sort.Slice(stats, func(i, j int) bool {
		a, b := &stats[i], &stats[j]
		switch {
		case a.Shard != b.Shard:
			return a.Shard < b.Shard
		case a.Identity.Database != b.Identity.Database:
			return a.Identity.Database < b.Identity.Database
		}
		return a.Identity.User < b.Identity.User
	})
	return stats
}

func (p *pool) snapshot() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return PoolStats{
		Shard: p.key.shard, Identity: p.key.id, Endpoint: p.endpoint, Size: p.owner.cfg.PoolSize,
		Open: p.open, Idle: len(p.idle), Waiting: p.waiting.length, Counters: p.stats,
	}
}
