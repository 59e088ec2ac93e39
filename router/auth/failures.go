package auth

import (
	"net/netip"
	"sync"
	"time"
)

// Failures counts logins that failed. It is safe for concurrent use.
type Failures struct {
	mu     sync.Mutex
	limits FailureLimits
	counts map[attempt]failed
}

// attempt is whose failures are counted: a role's from a network, or a network's as any role ("").
type attempt struct {
	network netip.Prefix
	user    string
}

type failed struct {
	times int
	last  time.Time
}

const (
	// maxAttempts bounds the table, to about 2 MB. When it is full, others make room at random.
	maxAttempts = 10_000
	// anyRole is how many times as often an address may fail as one role it may fail as any.
	anyRole = 10
	// freely is how often a login may fail without delay.
	freely = 2
	// firstDelay is that of the next one; it doubles with each, up to maxDelay.
	firstDelay = 100 * time.Millisecond
	maxDelay   = 5 * time.Second
)

// NewFailures returns a table that counts none yet. Before SetLimits it turns nobody away.
func NewFailures() *Failures {
	return &Failures{limits: FailureLimits{Max: -1}, counts: make(map[attempt]failed)}
}

// SetLimits changes the bounds.
func (f *Failures) SetLimits(limits FailureLimits) {
	f.mu.Lock()
	f.limits = limits
	f.mu.Unlock()
}

// networkOf is the address, or of IPv6 the /64 that usually belongs to one machine.
func networkOf(address netip.Addr) netip.Prefix {
	address = address.Unmap().WithZone("")
	bits := address.BitLen()
	if address.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(address, bits).Masked()
}

// Locked reports for how long the address is turned away as this role; 0: it is not.
func (f *Failures) Locked(address netip.Addr, user string, now time.Time) time.Duration {
	network := networkOf(address)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.limits.Max < 0 {
		return 0
	}
	return max(f.locked(attempt{network, user}, f.limits.Max, now), f.locked(attempt{network, ""}, anyRole*f.limits.Max, now))
}

func (f *Failures) locked(a attempt, most int, now time.Time) time.Duration {
	if c, ok := f.counts[a]; ok && c.times >= most {
		return max(0, c.last.Add(f.limits.Lockout).Sub(now))
	}
	return 0
}

// Failed notes a failure, and returns how long its client waits for the answer.
func (f *Failures) Failed(address netip.Addr, user string, now time.Time) time.Duration {
	network := networkOf(address)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.limits.Max < 0 {
		return 0
	}
	f.count(attempt{network, ""}, now)
	times := f.count(attempt{network, user}, now)
	if times <= freely {
		return 0
	}
	return min(firstDelay<<min(times-freely-1, 10), maxDelay)
}

func (f *Failures) count(a attempt, now time.Time) int {
	c, ok := f.counts[a]
	if !ok && len(f.counts) >= maxAttempts {
		f.makeRoom(now)
	}
	if now.Sub(c.last) > f.limits.Lockout {
		c.times = 0
	}
	c.times, c.last = c.times+1, now
	f.counts[a] = c
	return c.times
}

// makeRoom looks at a few entries, any, and forgets those that are over or, if none is, the last.
func (f *Failures) makeRoom(now time.Time) {
	const few = 16
	looked := 0
	for a, c := range f.counts {
		looked++
		if now.Sub(c.last) > f.limits.Lockout || looked == few {
			delete(f.counts, a)
		}
		if looked == few && len(f.counts) < maxAttempts {
			return
		}
	}
}

// Succeeded forgets the failures of the address as this role.
func (f *Failures) Succeeded(address netip.Addr, user string) {
	f.mu.Lock()
	delete(f.counts, attempt{networkOf(address), user})
	f.mu.Unlock()
}
