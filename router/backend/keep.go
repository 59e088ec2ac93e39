package backend

import "time"

// sweep takes out the idle connections that are old, unused or dead, which the caller closes. unused: nobody has used the
// pool for long; fill: it has fewer connections than it is to keep.
func (p *pool) sweep(now time.Time) (old []*Conn, unused, fill bool) {
	cfg := &p.owner.cfg
	p.mu.Lock()
	defer p.mu.Unlock()
	least, left := p.least(now), p.open
	old = p.takeIdle(func(c *Conn) bool { // those that were used longest ago come first
		idle := now.Sub(c.lastUsed)
		superfluous := left > least && idle > cfg.IdleTimeout || left > p.limits.Size && idle > cfg.ReserveTimeout
		if superfluous || now.After(c.expires) || !c.alive() {
			left--
			return true
		}
		return false
	})
	unused = p.open == 0 && p.waiting.length == 0 && now.Sub(p.lastUsed) > cfg.IdleTimeout
	fill = p.open < least && !p.filling
	if fill {
		p.filling = true
	}
	return old, unused && !fill, fill
}

// least is how many connections the pool is to keep. p.mu is held.
func (p *pool) least(now time.Time) int {
	if p.resting || p.removed || !p.limits.Lasting && now.Sub(p.lastUsed) > p.owner.cfg.IdleTimeout {
		return 0
	}
	return p.limits.Min
}

// fill opens connections up to what the pool is to keep, until one cannot be opened: then the next sweep tries again.
func (p *pool) fill() {
	for p.fillOne() {
	}
	p.mu.Lock()
	p.filling = false
	p.mu.Unlock()
}

func (p *pool) fillOne() bool {
	p.mu.Lock()
	if p.owner.closed() || p.open >= p.least(time.Now()) {
		p.mu.Unlock()
		return false
	}
	p.open++
	epoch := p.epoch
	p.mu.Unlock()
	ctx, cancel := p.owner.cleanContext()
	defer cancel()
	c, err := p.openSlot(ctx, epoch, 0)
	if err != nil {
		p.owner.cfg.Log.Debug("minimum of a pool not reached", "shard", string(p.key.shard), "error", err)
		return false
	}
	p.put(c)
	return true
}
