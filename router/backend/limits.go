package backend

import (
	"errors"
	"fmt"

	"github.com/shardyard/shardyard/directory"
)

// Mode says for how long a session keeps a server connection.
type Mode string

// The modes. In either one a session that holds what cannot be carried over keeps its connection.
const (
	// TransactionMode gives connections back at the end of each transaction.
	TransactionMode Mode = "transaction"
	// SessionMode keeps each connection from its first use to the end of the session.
	SessionMode Mode = "session"
)

// Limits are the bounds of the pools of one database and user. There is a pool on each shard.
type Limits struct {
	// Size bounds the connections of a pool.
	Size int
	// Reserve is how many more there may be while somebody has waited for Config.ReserveTimeout.
	Reserve int
	// Min is how many a pool that is in use keeps open.
	Min  int
	Mode Mode
	// Lasting: the pool is named by a rule of its own, so its Min stays open though nobody uses it.
	Lasting bool
}

// LimitRule changes the limits of the pools that it matches. What it leaves out is that of a less special rule, or the default.
type LimitRule struct {
	// Database and User that it is for; "" is any. One of them must be given.
	Database, User string
	// Size; 0 leaves it out.
	Size int
	// Reserve and Min; nil leaves them out.
	Reserve, Min *int
	// Mode; "" leaves it out.
	Mode Mode
}

func (r *LimitRule) validate() error {
	switch {
	case r.Database == "" && r.User == "":
		return errors.New("it names neither a database nor a user")
	case r.Size < 0:
		return fmt.Errorf("size: want at least 1, got %d", r.Size)
	case r.Reserve != nil && *r.Reserve < 0:
		return fmt.Errorf("reserve: %d is negative", *r.Reserve)
	case r.Min != nil && *r.Min < 0:
		return fmt.Errorf("min: %d is negative", *r.Min)
	case r.Mode != "" && r.Mode != TransactionMode && r.Mode != SessionMode:
		return fmt.Errorf("mode %q is neither transaction nor session", r.Mode)
	}
	return nil
}

// limitTable finds the limits of a pool.
type limitTable struct {
	defaults Limits
	rules    map[Identity]LimitRule
}

func newLimitTable(defaults Limits, rules []LimitRule) (*limitTable, error) {
	if defaults.Size < 1 || defaults.Reserve < 0 || defaults.Min < 0 || defaults.Min > defaults.Size {
		return nil, fmt.Errorf("pool size %d, reserve %d, min %d: want a size of at least 1, no negative number, and a min within the size",
			defaults.Size, defaults.Reserve, defaults.Min)
	}
	if defaults.Mode != TransactionMode && defaults.Mode != SessionMode {
		return nil, fmt.Errorf("pool mode %q is neither transaction nor session", defaults.Mode)
	}
	t := &limitTable{defaults: defaults, rules: make(map[Identity]LimitRule, len(rules))}
	for i, r := range rules {
		if err := r.validate(); err != nil {
			return nil, fmt.Errorf("pools[%d]: %w", i, err)
		}
		id := Identity{Database: r.Database, User: r.User}
		if _, twice := t.rules[id]; twice {
			return nil, fmt.Errorf("pools[%d]: there is another one for database %q and user %q", i, r.Database, r.User)
		}
		t.rules[id] = r
	}
	return t, nil
}

// find applies the rules from the least to the most special: the database's, the user's, that of both.
func (t *limitTable) find(id Identity) Limits {
	l := t.defaults
	for _, key := range [...]Identity{{Database: id.Database}, {User: id.User}, id} {
		r, ok := t.rules[key]
		if !ok {
			continue
		}
		if r.Size > 0 {
			l.Size = r.Size
		}
		if r.Reserve != nil {
			l.Reserve = *r.Reserve
		}
		if r.Min != nil {
			l.Min = *r.Min
		}
		if r.Mode != "" {
			l.Mode = r.Mode
		}
		l.Lasting = key == id
	}
	l.Min = min(l.Min, l.Size)
	return l
}

// Limits are those of a database and user now.
func (p *Pools) Limits(id Identity) Limits { return p.limits.Load().find(id) }

// SetLimits changes the sizes, modes and rules of c's; the rest of c is not looked at. Pools that have become too large
// shrink as connections come back, pools that have become larger serve who waits at once. Sessions keep their mode.
func (p *Pools) SetLimits(c Config) error {
	c = c.withDefaults()
	table, err := newLimitTable(c.limits(), c.Rules)
	if err != nil {
		return fmt.Errorf("change the limits of pools: %w", err)
	}
	p.limits.Store(table)
	for _, pool := range p.list("") {
		pool.setLimits(table.find(pool.key.id))
	}
	return nil
}

// AllInUse reports whether a session of the identity would have to wait for a connection to the shard.
func (p *Pools) AllInUse(shard directory.ShardID, id Identity) bool {
	p.mu.RLock()
	pool := p.pools[poolKey{shard: shard, id: id}]
	p.mu.RUnlock()
	if pool == nil {
		return false
	}
	pool.mu.Lock()
	defer pool.mu.Unlock()
	return len(pool.idle) == 0 && pool.open >= pool.limits.Size
}

func (p *pool) setLimits(l Limits) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limits = l
	for p.open < l.Size && p.waiting.length > 0 {
		p.open++
		p.stats.Acquired++
		p.waiting.pop().give(nil)
	}
}

// most is the greatest number of connections. p.mu is held.
func (p *pool) most() int { return p.limits.Size + p.limits.Reserve }
