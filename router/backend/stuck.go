package backend

import (
	"maps"
	"slices"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
)

// stuckEvery is how often one that waits for a connection, and holds others meanwhile, looks whether it waits in vain.
const stuckEvery = 100 * time.Millisecond

// standing is who holds the connections of a pool and who waits for them.
type standing struct {
	free    bool // one is idle, being opened or cleaned, or may be opened
	holders []uint64
	waiting []*waiter
}

func (p *pool) standing() (s standing) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.free = len(p.idle) > 0 || p.open < p.limits.Size || p.open > len(p.all)
	for c := range p.all {
		if !c.held {
			s.free = true
		}
		s.holders = append(s.holders, c.session)
	}
	for w := p.waiting.first; w != nil; w = w.next {
		if w.holds {
			s.waiting = append(s.waiting, w)
		}
	}
	return s
}

// givesWay reports whether a waiter is in a circle of sessions that hold connections and wait for each other's (those of other
// shards, mostly), and is the one that has waited for the shortest time of them. The pools are looked at one after the other, so a
// circle counts only if it is found twice: one that is real stays.
func (p *Pools) givesWay(w *waiter) bool {
	p.mu.RLock()
	pools := slices.Collect(maps.Values(p.pools))
	p.mu.RUnlock()
	states := make([]standing, len(pools))
	for i, pool := range pools {
		states[i] = pool.standing()
	}
	waits := make(map[uint64]int) // the pool in which a session waits
	for i := range states {
		for _, other := range states[i].waiting {
			waits[other.session] = i
		}
	}
	// A pool moves on if one of its connections does not depend on a pool that is stuck.
	moves := make([]bool, len(states))
	for again := true; again; {
		again = false
		for i := range states {
			if !moves[i] && states[i].movesOn(waits, moves) {
				moves[i], again = true, true
			}
		}
	}
	if at, waiting := waits[w.session]; !waiting || moves[at] {
		return false
	}
	for i := range states {
		if moves[i] {
			continue
		}
		for _, other := range states[i].waiting {
			if other.session != w.session && other.since.After(w.since) {
				return false
			}
		}
	}
	return true
}

func (s *standing) movesOn(waits map[uint64]int, moves []bool) bool {
	if s.free {
		return true
	}
	for _, holder := range s.holders {
		if at, waiting := waits[holder]; holder == 0 || !waiting || moves[at] {
			return true
		}
	}
	return false
}

func errCircle(shard directory.ShardID) error {
	return pgerr.New(pgerr.DeadlockDetected, "deadlock detected").
		WithDetail("Transactions hold all server connections of some shards and wait for each other's; this one waited for shard " + string(shard) + ".").
		WithHint("Run the transaction again. A larger pool makes this rarer.")
}
