package backend

// Renew lets no connection of the identities that match be used for another session: idle ones are closed now, the
// others when they are released.
func (p *Pools) Renew(match func(Identity) bool) {
	for _, pool := range p.list("") {
		if !match(pool.key.id) {
			continue
		}
		pool.mu.Lock()
		idle := pool.retire()
		pool.mu.Unlock()
		closeAll(idle)
	}
}
