package router

import (
	"errors"
	"fmt"

	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/pgerr"
)

// ClientLimits bound the client connections. One more is refused with 53300.
type ClientLimits struct {
	// Total bounds all of them. Three more may come in for the admin database. Defaults to 10000.
	Total int
	// Database and User bound those of each database and of each user. Default to 0: no bound.
	Database, User int
	// Rules change those for some databases and users, or bound the clients of one user in one database. Default to none.
	Rules []ClientRule
}

// ClientRule bounds the clients of a database, of a user or, if both are given, of the user in the database.
type ClientRule struct {
	Database, User string
	Clients        int // 0: no bound
}

// reservedClients may come in beyond the bound, for the admin database.
const reservedClients = 3

// clientLimits are ClientLimits that can be looked up.
type clientLimits struct {
	ClientLimits
	rules map[backend.Identity]int
}

func newClientLimits(l ClientLimits) (*clientLimits, error) {
	if l.Total < 0 || l.Database < 0 || l.User < 0 {
		return nil, fmt.Errorf("max_clients %d, max_database_clients %d, max_user_clients %d: must not be negative", l.Total, l.Database, l.User)
	}
	setDefault(&l.Total, 10_000)
	limits := &clientLimits{ClientLimits: l, rules: make(map[backend.Identity]int, len(l.Rules))}
	for _, r := range l.Rules {
		if r.Database == "" && r.User == "" {
			return nil, errors.New("a bound of clients names neither a database nor a user")
		}
		if r.Clients < 0 {
			return nil, fmt.Errorf("clients of database %q and user %q: %d is negative", r.Database, r.User, r.Clients)
		}
		limits.rules[backend.Identity{Database: r.Database, User: r.User}] = r.Clients
	}
	return limits, nil
}

// CheckClientLimits reports what is wrong with bounds, without setting them.
func CheckClientLimits(l ClientLimits) error {
	_, err := newClientLimits(l)
	return err
}

// bound is the bound of a database, a user or both; 0: none.
func (l *clientLimits) bound(id backend.Identity) int {
	if n, ok := l.rules[id]; ok {
		return n
	}
	switch {
	case id.User == "":
		return l.Database
	case id.Database == "":
		return l.User
	}
	return 0
}

// SetClientLimits changes the bounds of the client connections. Who is in stays in.
func (s *Server) SetClientLimits(l ClientLimits) error {
	limits, err := newClientLimits(l)
	if err != nil {
		return err
	}
	s.limits.Store(limits)
	return nil
}

// countedAs are what a client counts for.
func countedAs(id backend.Identity) [3]backend.Identity {
	return [...]backend.Identity{{Database: id.Database}, {User: id.User}, id}
}

// admitAs counts an authenticated client in, unless its database or its user has too many.
func (s *Server) admitAs(c *Session) error {
	id, limits := backend.Identity{Database: c.databaseName, User: c.user}, s.limits.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.admitted >= limits.Total {
		return errTooManyClients()
	}
	for _, key := range countedAs(id) {
		bound := limits.bound(key)
		if bound == 0 || s.clientCounts[key] < bound {
			continue
		}
		switch key {
		case backend.Identity{Database: id.Database}:
			return pgerr.Newf(pgerr.TooManyConnections, "too many connections for database %q", id.Database).Fatal()
		case backend.Identity{User: id.User}:
			return pgerr.Newf(pgerr.TooManyConnections, "too many connections for role %q", id.User).Fatal()
		}
		return pgerr.Newf(pgerr.TooManyConnections, "too many connections for role %q to database %q", id.User, id.Database).Fatal()
	}
	for _, key := range countedAs(id) {
		s.clientCounts[key]++
	}
	c.counted = true
	s.admitted++
	return nil
}

// discount undoes admitAs. s.mu is held.
func (s *Server) discount(c *Session) {
	if !c.counted {
		return
	}
	c.counted = false
	s.admitted--
	for _, key := range countedAs(backend.Identity{Database: c.databaseName, User: c.user}) {
		if s.clientCounts[key]--; s.clientCounts[key] == 0 {
			delete(s.clientCounts, key)
		}
	}
}

func errTooManyClients() error {
	return pgerr.New(pgerr.TooManyConnections, "sorry, too many clients already").Fatal()
}
