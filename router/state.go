package router

import (
	"cmp"
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/console"
	"github.com/shardyard/shardyard/router/metrics"
)

// samplePeriod is how often totals are kept for averages, which reach over the last one or two of them.
const samplePeriod = time.Minute

// sample is what was counted at a moment.
type sample struct {
	at     time.Time
	totals map[string]metrics.Totals
	pools  map[string]backend.Counters
}

// samples are the last two, of which the older one is where averages begin.
type samples struct{ older, newer *sample }

// sampleTotals keeps what was counted, until ctx ends.
func (s *Server) sampleTotals(ctx context.Context) {
	for sleep(ctx, samplePeriod) {
		now := s.takeSample()
		before := s.samples.Load()
		s.samples.Store(&samples{older: before.newer, newer: now})
	}
}

func (s *Server) takeSample() *sample {
	now := &sample{at: time.Now(), totals: make(map[string]metrics.Totals), pools: s.pools.Counted()}
	for _, d := range s.snapshotDatabases() {
		now.totals[d.name] = d.counts.Totals()
	}
	return now
}

func (s *Server) snapshotDatabases() []*database {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Collect(maps.Values(s.databases))
	slices.SortFunc(list, func(a, b *database) int { return cmp.Compare(a.name, b.name) })
	return list
}

// State is what there is to see of the router now. Its parts are taken one after the other.
func (s *Server) State() *console.State {
	state := &console.State{
		Version: "Shardyard " + Version(), Router: s.config.Name, Now: time.Now(), Started: s.started, Draining: s.draining.Load(),
		Pools: s.pools.Stats(), Connections: s.pools.Connections(), Waiting: s.pools.Waiting(), Times: s.pools.Times(), Lifetime: s.pools.Lifetime(),
		Errors: maps.Collect(s.errors.Each), Limits: s.pools.Limits, MaxClients: s.limits.Load().Total,
	}
	if cluster := s.current.Load(); cluster != nil {
		state.Shards, state.Home = cluster.Shards, cluster.Home
	}
	state.PlansMade, state.PlansFound = s.planner.Plans()
	if s.settings != nil {
		state.Settings = s.settings()
	}
	s.addClients(state)
	s.addDatabases(state)
	s.addUsers(state)
	return state
}

func (s *Server) addClients(state *console.State) {
	for _, c := range s.snapshotClients() {
		if client, ok := c.clientState(); ok {
			state.Clients = append(state.Clients, client)
		} else {
			state.LoggingIn++
		}
	}
	slices.SortFunc(state.Clients, func(a, b console.Client) int { return cmp.Compare(a.ID, b.ID) })
}

func (s *Server) addDatabases(state *console.State) {
	limits, pools, before := s.limits.Load(), s.pools.Counted(), s.samples.Load().older
	clients := make(map[string]int)
	for _, c := range state.Clients {
		clients[c.Identity.Database]++
	}
	for _, d := range s.snapshotDatabases() {
		state.Databases = append(state.Databases, console.DatabaseState{
			Name: d.name, MaxClients: limits.bound(backend.Identity{Database: d.name}), Clients: clients[d.name], Totals: d.counts.Totals(), Pools: pools[d.name],
			Before: before.totals[d.name], BeforePools: before.pools[d.name], Since: before.at,
		})
	}
}

func (s *Server) addUsers(state *console.State) {
	limits := s.limits.Load()
	clients := make(map[string]int)
	for _, p := range state.Pools {
		clients[p.Identity.User] += 0
	}
	for _, c := range state.Clients {
		clients[c.Identity.User]++
	}
	for id := range limits.rules {
		if id.User != "" {
			clients[id.User] += 0
		}
	}
	for _, user := range slices.Sorted(maps.Keys(clients)) {
		state.Users = append(state.Users, console.UserState{
			Name: user, MaxClients: limits.bound(backend.Identity{User: user}), Clients: clients[user],
		})
	}
}

func addressOf(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		at := tcp.AddrPort()
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return netip.AddrPort{}
}
