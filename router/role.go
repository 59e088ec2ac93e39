package router

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/auth"
)

// role is what is known of a role that logs in.
type role struct {
	exists   bool
	oid      uint32 // on the home shard
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

// disown ends the sessions that logged in under a name which another role has now; oid 0: none has it. They get no server
// connection any more: it would be that of the other role.
func (s *Server) disown(name string, oid uint32) {
	for _, c := range s.snapshotClients() {
		if c.user == name && c.role != oid {
			c.disowned.Store(true)
		}
	}
}

// rolesChanged is called when roles may have been made, changed, renamed or dropped: nothing that is remembered of them counts.
func (s *Server) rolesChanged(ctx context.Context) {
	s.roles.clear()
	s.pools.NoteRoles()
	if err := s.checkRoles(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn("roles of the sessions not looked up after a change", "error", err)
	}
}

// checkRoles disowns the sessions whose role has another name now, or is gone.
func (s *Server) checkRoles(ctx context.Context) error {
	roles := make(map[string]uint32)
	for _, c := range s.snapshotClients() {
		roles[c.user] = 0
	}
	cluster := s.current.Load()
	if len(roles) == 0 || cluster == nil {
		return nil
	}
	home, ok := findShard(cluster, cluster.Home)
	if !ok {
		return nil
	}
	conn, err := s.pools.Service(ctx, home, "postgres")
	if err != nil {
		return err
	}
	defer func() { s.pools.KeepService(context.WithoutCancel(ctx), conn) }()
	rows, err := conn.Query(ctx, "SELECT rolname::text, oid FROM pg_catalog.pg_roles WHERE rolname = ANY ($1::text[])", slices.Collect(maps.Keys(roles)))
	if err != nil {
		return err
	}
	var name string
	var oid uint32
	if _, err := pgx.ForEachRow(rows, []any{&name, &oid}, func() error { roles[name] = oid; return nil }); err != nil {
		return err
	}
	for name, oid := range roles {
		s.disown(name, oid)
	}
	return nil
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
	s.disown(name, r.oid)
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
	err = conn.QueryRow(ctx, `SELECT oid, rolcanlogin, coalesce(rolvaliduntil < now(), false), coalesce(`+verifier+`, '')
		FROM pg_catalog.`+source+` WHERE rolname = $1`, name).Scan(&r.oid, &r.mayLogIn, &r.expired, &own)
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
