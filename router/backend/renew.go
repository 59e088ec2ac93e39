package backend

// NoteRoles says that roles may have been made, renamed or dropped: connections whose settings name a role take it again before
// their next use.
func (p *Pools) NoteRoles() { p.named.Add(1) }

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
