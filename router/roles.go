package router

import (
	"context"
	"crypto/rand"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
)

// shardText is a statement of the client as shards get it.
type shardText struct {
	sql  string
	part *exec.Part // what of it the client sent; nil: all
}

// textOf is the text that shards get for DDL: with a verifier in place of each password, the same one for all of them,
// so that a password stands in no server's log, and the verifiers of all shards are alike.
func (c *Session) textOf(ctx context.Context, st *planner.Statement, plan *planner.Plan) (shardText, error) {
	if plan.Role == nil {
		return shardText{sql: st.Text}, nil
	}
	if !c.vars.env.StandardConformingStrings && strings.Contains(st.Text, `\`) {
		return shardText{}, pgerr.Unsupported("a backslash in a statement that sets a password is not supported under standard_conforming_strings = off",
			"SET standard_conforming_strings = on.")
	}
	l, err := c.x.Link(ctx, c.view.partitions.Home)
	if err != nil {
		return shardText{}, err
	}
	rows, err := c.x.Ask(ctx, l, "SELECT pg_catalog.current_setting('password_encryption'), coalesce(pg_catalog.current_setting('scram_iterations', true), '')")
	if err != nil {
		return shardText{}, err
	}
	encryption := *rows[0][0]
	iterations, err := strconv.Atoi(*rows[0][1])
	if err != nil { // Postgres before 16 has no such setting
		iterations = defaultIterations
	}
	var text strings.Builder
	parts := keptParts{shift: st.Chars}
	at := 0
	for _, password := range plan.Role.Passwords {
		verifier, err := c.verifierOf(password.Value(), plan.Role, encryption, iterations)
		if err != nil {
			return shardText{}, err
		}
		parts.same(&text, st.Text[at:password.Start])
		parts.other(&text, st.Text[password.Start:password.End], quote(verifier))
		at = password.End
	}
	parts.same(&text, st.Text[at:])
	return shardText{text.String(), parts.first}, nil
}

// defaultIterations is Postgres's default of scram_iterations.
const defaultIterations = 4096

// verifierOf is what Postgres would store for a password. What it would not encrypt stays as it is: a verifier, and the
// empty password, which it clears with a notice.
func (c *Session) verifierOf(password string, role *planner.RoleData, encryption string, iterations int) (string, error) {
	switch {
	case password == "" || isVerifier(password):
		return password, nil
	case encryption == "md5":
		return md5Verifier(password, c.roleNamed(role)), nil
	case c.vars.foreign && !isASCII(password):
		return "", pgerr.Unsupported("a password that is not ASCII is not supported under client_encoding "+c.vars.value("client_encoding"),
			"Use SET client_encoding = 'UTF8'.")
	}
	salt := make([]byte, saltLength)
	rand.Read(salt) // never fails
	return scramVerifier(password, salt, iterations)
}

// roleNamed is the name of the role that a statement is about.
func (c *Session) roleNamed(role *planner.RoleData) string {
	switch {
	case role.Current:
		return c.vars.env.User
	case role.Session:
		if name, ok := c.vars.current.Get("session_authorization"); ok && name != "default" {
			return name
		}
		return c.user
	}
	return role.Name
}

// keptParts collects which parts of a text are the client's, in characters.
type keptParts struct {
	shift       int // characters in front of the statement in what the client sent
	ours, its   int // characters so far
	first, last *exec.Part
}

func (p *keptParts) same(to *strings.Builder, text string) {
	n := utf8.RuneCountInString(text)
	part := &exec.Part{Start: p.ours, Length: n, Client: p.shift + p.its}
	if p.last == nil {
		p.first = part
	} else {
		p.last.Next = part
	}
	p.last = part
	p.ours, p.its = p.ours+n, p.its+n
	to.WriteString(text)
}

func (p *keptParts) other(to *strings.Builder, was, is string) {
	p.ours += utf8.RuneCountInString(is)
	p.its += utf8.RuneCountInString(was)
	to.WriteString(is)
}

// roleBringer brings roles to shards that do not let them in, because they were made or changed around the routers.
type roleBringer struct {
	mu   sync.Mutex
	last map[broughtRole]time.Time
}

type broughtRole struct {
	shard directory.ShardID
	role  string
}

// bringPause is the time between two attempts to bring the same role to the same shard; maxBrought bounds what is
// remembered of them.
const (
	bringPause = 2 * time.Second
	maxBrought = 10_000
)

// mayTry reports whether it is time for an attempt, and notes it.
func (b *roleBringer) mayTry(role broughtRole, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if at, ok := b.last[role]; ok && now.Sub(at) < bringPause {
		return false
	}
	if b.last == nil || len(b.last) >= maxBrought {
		b.last = make(map[broughtRole]time.Time)
	}
	b.last[role] = now
	return true
}

// bringRole is for a session whose role a shard did not let in. It reports whether there is a reason to try again.
func (c *Session) bringRole(ctx context.Context, shard directory.ShardID) bool {
	s := c.server
	if s.schema == nil || !s.bringer.mayTry(broughtRole{shard, c.user}, time.Now()) {
		return false
	}
	err := s.schema.SyncRole(ctx, c.view.partitions, shard, c.user)
	if err != nil {
		s.log.Debug("role not brought to a shard", "session_id", c.id, "shard", string(shard), "error", err)
	}
	return err == nil
}

// storedDefaults prints what the role and the current database have for the settings of new sessions.
func storedDefaults(role string) string {
	return `SELECT coalesce(pg_catalog.string_agg(s.setdatabase || ' ' || s.setrole || ' ' || s.setconfig::text, '; ' ORDER BY s.setdatabase, s.setrole), '')
	FROM pg_catalog.pg_db_role_setting s WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
	AND s.setrole IN (0, (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = ` + quote(role) + `))`
}

// freshLink is a connection to the home shard that started with the settings which roles and databases have now. stored
// tells them.
func (c *Session) freshLink(ctx context.Context, id backend.Identity) (l *link, stored string, err error) {
	home := c.view.partitions.Home
	if l, err = c.x.Link(ctx, home); err != nil {
		return nil, "", err
	}
	rows, err := c.x.Ask(ctx, l, storedDefaults(id.User))
	if err != nil {
		return nil, "", err
	}
	stored = oneValue(rows)
	if _, before, known := c.server.greeting.last(id); known && before == stored {
		return l, stored, nil
	}
	// This connection may have started before they were changed.
	c.x.Idle()
	c.server.pinSessions(func(other *Session) bool {
		return other != c && other.user == id.User && other.databaseName == id.Database
	})
	c.server.pools.Renew(func(other backend.Identity) bool { return other == id })
	l, err = c.x.Link(ctx, home)
	return l, stored, err
}

// knownGreeting returns the settings that a session starts with although they were read long ago, if all connections to the home shard
// are in use and nothing has changed for the role or the database since: the session need not wait for one before it has to do something.
func (c *Session) knownGreeting(ctx context.Context, id backend.Identity) (map[string]string, bool) {
	settings, before, known := c.server.greeting.last(id)
	home, there := c.view.partitions.Shard(c.view.partitions.Home)
	if !known || !there || !c.server.pools.AllInUse(home.ID, id) {
		return nil, false
	}
	conn, err := c.server.pools.Service(ctx, *home, id.Database)
	if err != nil {
		return nil, false // who waits for a connection is told
	}
	defer func() { c.server.pools.KeepService(context.WithoutCancel(ctx), conn) }()
	var stored string
	err = conn.QueryRow(ctx, storedDefaults(id.User)).Scan(&stored)
	return settings, err == nil && stored == before
}

// noteRoles notes what a statement does with roles, until its transaction ends.
func (c *Session) noteRoles(plan *planner.Plan) {
	switch plan.DDL.Command {
	case "CREATE ROLE", "ALTER ROLE", "DROP ROLE":
		c.newRoles = true
	}
	c.newDefaults = c.newDefaults || plan.Everywhere != nil && plan.Everywhere.Defaults
}

// redefaulted makes it known that a transaction has changed roles, or the settings that new sessions start with: all that begin
// from now on, in any router, go by the new ones.
func (c *Session) redefaulted(ctx context.Context, committed bool) {
	newRoles, newDefaults := c.newRoles, c.newDefaults
	c.newRoles, c.newDefaults = false, false
	if !committed || !newRoles && !newDefaults {
		return
	}
	c.server.greeting.expire("")
	if newRoles {
		c.server.rolesChanged(ctx)
	}
	bounded, cancel := context.WithTimeout(ctx, etcdLook)
	defer cancel()
	c.announceDDL(bounded)
}

// pinSessions has the sessions that match keep the settings that they began with.
func (s *Server) pinSessions(match func(*Session) bool) {
	s.mu.Lock()
	all := make([]*database, 0, len(s.databases))
	for _, d := range s.databases {
		all = append(all, d)
	}
	s.mu.Unlock()
	for _, d := range all {
		d.mu.Lock()
		for other := range d.sessions {
			if match(other) {
				other.pins.Store(true)
			}
		}
		d.mu.Unlock()
	}
}

// pinDefaults makes the settings that the session began with, as far as the router's plans rest on them, settings of its
// own: the connections that it will get have started with others.
func (c *Session) pinDefaults() {
	if len(c.vars.saved) > 0 || c.vars.defaults == nil {
		return // after the transaction
	}
	c.pins.Store(false)
	v := &c.vars
	for name, value := range v.defaults {
		switch name {
		case "application_name", "is_superuser", "session_authorization":
			continue
		}
		if !slices.Contains(askedSettings, name) && !slices.Contains(reportedSettings, name) {
			continue
		}
		for _, s := range []**backend.Settings{&v.base, &v.current, &v.persistent} {
			if _, set := (*s).Get(name); !set {
				*s = (*s).With(name, value)
			}
		}
	}
	c.settingsChanged()
}
