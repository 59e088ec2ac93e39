package router

import (
	"context"
	"runtime/debug"
	"slices"
	"time"

	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/console"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// openConsole greets a client of the admin database.
func (c *Session) openConsole() error {
	config := &c.server.config
	admin := slices.Contains(config.AdminUsers, c.user)
	if !admin && !slices.Contains(config.StatsUsers, c.user) {
		return pgerr.Newf(codeInvalidAuthorization, "role %q may not use the admin database", c.user).
			WithHint("The configuration lists who may, in admin_users and stats_users.").Fatal()
	}
	// It holds no connection to any shard, but what ends and wakes sessions asks for an executor.
	c.x = exec.New(c.server.pools, c.out, backend.Identity{Database: c.databaseName, User: c.user}, nil)
	c.console = console.NewSession(console.Actions{
		State: c.server.State, Reload: c.server.reload, Reconnect: c.server.pools.ReconnectDatabase, Kill: c.server.killClient,
	}, admin, c.out.Put)
	c.console.Greet(Version() + "/shardyard")
	c.pid, c.secret = c.server.keys.add(c)
	c.out.Put(func(dst []byte) []byte { return wire.AppendBackendKeyData(dst, c.pid, c.secret[:]) })
	c.out.Put(func(dst []byte) []byte { return wire.AppendReady(dst, wire.TxIdle) })
	c.showName(cleanASCII(c.vars.startup["application_name"]))
	c.show()
	return nil
}

// handleConsole is Handle for a client of the admin database.
func (c *Session) handleConsole(ctx context.Context, request []byte) error {
	c.requested.Store(time.Now().UnixNano())
	err := c.console.Handle(ctx, request)
	if flushed := c.out.Flush(); err == nil {
		err = flushed
	}
	return err
}

// Version is the router's version, as the build knows it.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

// show lets others see the session, which has started.
func (c *Session) show() {
	c.shown.Store(&console.Client{
		ID: c.id, Identity: backend.Identity{Database: c.databaseName, User: c.user}, Admin: c.console != nil,
		Remote: addressOf(c.conn.RemoteAddr()), Local: addressOf(c.conn.LocalAddr()), Connected: time.Now(), PID: c.pid, TLS: backend.DescribeTLS(c.conn),
	})
}

// showName tells others the session's application_name.
func (c *Session) showName(name string) { c.applicationName.Store(&name) }

// noteStatements tells others how many statements the client has prepared by name.
func (c *Session) noteStatements() {
	if n := len(c.statements); n != c.statementsSeen {
		c.statementsSeen = n
		if _, unnamed := c.statements[""]; unnamed {
			n--
		}
		c.preparedCount.Store(int32(n))
	}
}

// clientState is the session as the admin database shows it; ok is false while it is not authenticated.
func (c *Session) clientState() (client console.Client, ok bool) {
	shown := c.shown.Load()
	if shown == nil {
		return client, false
	}
	client = *shown
	if at := c.requested.Load(); at != 0 {
		client.Requested = time.Unix(0, at)
	}
	if name := c.applicationName.Load(); name != nil {
		client.Application = *name
	}
	client.Prepared, client.Closing = int(c.preparedCount.Load()), c.killed.Load()
	return client, true
}

// killPoll and killWait say how often and for how long a client is told to end by KILL_CLIENT.
const (
	killPoll = 100 * time.Millisecond
	killWait = 5 * time.Second
)

// killClient ends a client and waits until it has ended, or killWait. It reports whether there was one.
func (s *Server) killClient(ctx context.Context, id uint64) bool {
	s.mu.Lock()
	var victim *Session
	for c := range s.clients {
		if c.id == id {
			victim = c
		}
	}
	s.mu.Unlock()
	if victim == nil {
		return false
	}
	victim.killed.Store(true)
	ctx, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	for there := true; there; {
		victim.terminate(ctx)
		if !sleep(ctx, killPoll) {
			break
		}
		s.mu.Lock()
		_, there = s.clients[victim]
		s.mu.Unlock()
	}
	return true
}

func (s *Server) reload(ctx context.Context) error {
	if s.reloadConfig == nil {
		return pgerr.Unsupported("this router has no configuration file to read again", "Start it by shardyard serve.")
	}
	if err := s.reloadConfig(ctx); err != nil {
		return pgerr.New("F0000", "the configuration was not reloaded").WithDetail(err.Error()).Because(err)
	}
	return nil
}
