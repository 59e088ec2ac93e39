package router

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/auth"
)

// role is what is known of a role that logs in.
type role struct {
	exists   bool
	mayLogIn bool
	expired  bool // its password
	verifier auth.Verifier
}

// roleTTL is how long a role is believed to be as it was read. A password that does not fit is checked
// against what the shard says now.
const roleTTL = 5 * time.Second

// maxRoles bounds the cache; when it is full it is emptied.
const maxRoles = 10_000

// lookUps is how many roles are looked up at a time: clients that have proved nothing must not take all of the home shard's
// connections.
const lookUps = 4

// roleCache keeps roles for a moment, so that a storm of logins costs the home shard little.
type roleCache struct {
	mu    sync.Mutex
	roles map[string]cachedRole
}

type cachedRole struct {
	role
	read time.Time
}

func (c *roleCache) get(name string, now time.Time) (role, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.roles[name]
	return r.role, ok && now.Sub(r.read) < roleTTL
}

func (c *roleCache) put(name string, r role, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.roles == nil || len(c.roles) >= maxRoles {
		c.roles = make(map[string]cachedRole)
	}
	c.roles[name] = cachedRole{r, now}
}

func (c *roleCache) forget(name string) {
	c.mu.Lock()
	delete(c.roles, name)
	c.mu.Unlock()
}

func (c *roleCache) clear() {
	c.mu.Lock()
	c.roles = nil
	c.mu.Unlock()
}

// lookUpRole reads a role, unless it was read a moment ago.
func (s *Server) lookUpRole(ctx context.Context, home directory.Shard, policy *auth.Policy, name string) (role, error) {
	if r, ok := s.roles.get(name, time.Now()); ok {
		return r, nil
	}
	select {
	case s.lookUps <- struct{}{}:
		defer func() { <-s.lookUps }()
	case <-ctx.Done():
		return role{}, fmt.Errorf("look up role: %w", ctx.Err())
	}
	if r, ok := s.roles.get(name, time.Now()); ok { // somebody else did meanwhile
		return r, nil
	}
	r, err := s.readRole(ctx, home, policy, name)
	if err != nil {
		return role{}, fmt.Errorf("look up role: %w", err)
	}
	s.roles.put(name, r, time.Now())
	return r, nil
}

// readRole asks the home shard. The verifier is that of the file of users, else what the configured query says, else that of
// pg_authid.
func (s *Server) readRole(ctx context.Context, home directory.Shard, policy *auth.Policy, name string) (role, error) {
	stored, inFile := policy.Stored(name)
	query, database := policy.Query()
	source, verifier := "pg_authid", "rolpassword"
	if inFile || query != "" {
		source, verifier = "pg_roles", "NULL" // anybody may read that
	}
	conn, err := s.pools.Service(ctx, home, "postgres")
	if err != nil {
		return role{}, err
	}
	defer func() { s.pools.KeepService(context.WithoutCancel(ctx), conn) }()
	r := role{exists: true}
	var own string
	err = conn.QueryRow(ctx, `SELECT rolcanlogin, coalesce(rolvaliduntil < now(), false), coalesce(`+verifier+`, '')
		FROM pg_catalog.`+source+` WHERE rolname = $1`, name).Scan(&r.mayLogIn, &r.expired, &own)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return role{}, nil
	case err != nil:
		return role{}, err
	}
	if !inFile {
		stored = own
		if query != "" {
			if stored, err = s.queryVerifier(ctx, home, query, database, name); err != nil {
				return role{}, err
			}
		}
	}
	if r.verifier, err = auth.ParseVerifier(stored, inFile); err != nil {
		s.log.Warn("verifier of a role cannot be used", "user", name, "error", err)
		r.verifier = auth.Verifier{}
	}
	r.verifier = r.verifier.FromPassword(name, s.mockSecret)
	return r, nil
}

// queryVerifier runs the configured query; "": it has no row for the role.
func (s *Server) queryVerifier(ctx context.Context, home directory.Shard, query, database, name string) (string, error) {
	conn, err := s.pools.Service(ctx, home, database)
	if err != nil {
		return "", err
	}
	defer func() { s.pools.KeepService(context.WithoutCancel(ctx), conn) }()
	var found, stored *string
	err = conn.QueryRow(ctx, query, name).Scan(&found, &stored)
	switch {
	case errors.Is(err, pgx.ErrNoRows), err == nil && stored == nil:
		return "", nil
	case err != nil:
		return "", fmt.Errorf("run the configured query for verifiers: %w", err)
	}
	return *stored, nil
}
