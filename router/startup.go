package router

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/console"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/loop"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// welcome serves one connection from its first byte to its end, or until it is parked.
func (s *Server) welcome(ctx context.Context, conn net.Conn) {
	c := &Session{
		server: s, id: s.sessions.Add(1), conn: conn, socket: conn, reader: wire.NewReader(conn, wire.Authenticating),
		out: exec.NewOutput(conn, s.config.OutputBound),
	}
	err := s.receive(c)
	if err == nil {
		err = s.guard(c, func() error { return c.start(ctx) })
	}
	if err != nil || !c.serving {
		c.end(ctx, err)
		return
	}
	if c.console == nil {
		c.idle.readied = true
		c.armIdle(ctx)
	}
	if s.loop == nil {
		c.serve(ctx)
		return
	}
	s.work.Add(1)
	s.loop.Serve(func(t *loop.Task) *loop.Conn {
		c.runOn(t)
		return c.turn(ctx)
	})
}

// start does everything up to the first ReadyForQuery. serving stays false if the connection was for
// something else (a cancel request) or is over.
func (c *Session) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.server.config.StartupTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	if err := c.conn.SetDeadline(deadline); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.socket.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	c.entry = &entry{policy: c.server.policy.Load()}
	defer func() { c.entry = nil }()
	packet, err := c.readStartup(ctx)
	if err != nil {
		return c.startupFailed(ctx, err, packet)
	}
	if packet.Kind == wire.CancelRequest {
		return c.server.cancelSession(ctx, packet.CancelPID, packet.CancelSecret)
	}
	if err := c.open(ctx, packet); err != nil {
		return c.startupFailed(ctx, err, packet)
	}
	if err := c.out.Flush(); err != nil {
		return err
	}
	c.reader.SetPhase(wire.Frontend)
	if !stop() {
		return pgerr.New(pgerr.AdminShutdown, "the router is shutting down").Fatal()
	}
	c.serving = true
	return c.conn.SetDeadline(time.Time{})
}

// open authenticates the client and greets it.
func (c *Session) open(ctx context.Context, packet *wire.Startup) error {
	if err := c.readParameters(packet); err != nil {
		return err
	}
	cluster, err := c.server.cluster(ctx)
	if err != nil {
		return err
	}
	home, ok := findShard(cluster, cluster.Home)
	if !ok {
		return pgerr.Newf(pgerr.CannotConnectNow, "the home shard %s is not in the cluster", cluster.Home).Fatal()
	}
	if err := c.authenticate(ctx, home); err != nil {
		return err
	}
	if err := c.server.admit(c); err != nil {
		return err
	}
	if c.databaseName == console.Database {
		return c.openConsole()
	}
	if err := c.server.admitAs(c); err != nil {
		return err
	}
	if err := c.readOptions(); err != nil {
		return err
	}
	if c.database, err = c.server.openDatabase(ctx, cluster, home, c.databaseName); err != nil {
		return err
	}
	c.x = exec.New(c.server.pools, c.out, backend.Identity{Database: c.databaseName, User: c.user}, c.server.origin)
	c.x.SetSession(c.id)
	c.x.ServeRole(c.role, &c.disowned)
	c.tally.counts = c.database.counts.Stripe(c.id)
	c.tally.counts.Logins.Add(1)
	c.x.UseGate(c.server.gate)
	c.x.SetSecrets(c.server.secrets)
	c.x.BringRole(c.bringRole)
	c.statements, c.portals = make(map[string]*statement), make(map[string]*portal)
	c.database.join(c)
	// Invariant: who publishes the mark looks for sessions afterwards, so one of the two sees the other.
	if now := c.database.current.Load(); now.partitions.Drop != nil || c.database.isGone() {
		return errBeingDropped(c.databaseName)
	}
	if err := c.greet(ctx); err != nil {
		return err
	}
	if c.server.pools.Limits(backend.Identity{Database: c.databaseName, User: c.user}).Mode == backend.SessionMode {
		c.x.KeepConnections()
	}
	c.pid, c.secret = c.server.keys.add(c)
	c.out.Put(func(dst []byte) []byte { return wire.AppendBackendKeyData(dst, c.pid, c.secret) })
	c.out.Put(func(dst []byte) []byte { return wire.AppendReady(dst, wire.TxIdle) })
	c.showName(c.vars.value("application_name"))
	c.show()
	return nil
}

// readParameters takes user, database and settings out of the start-up message.
func (c *Session) readParameters(packet *wire.Startup) error {
	if packet.Major != 3 {
		return pgerr.Newf("0A000", "unsupported frontend protocol %d.%d: server supports 3.0 to 3.%d", packet.Major, packet.Minor, newestMinor).Fatal()
	}
	c.minor = min(packet.Minor, newestMinor)
	var unknown []string
	c.vars.startup, c.vars.options = make(map[string]string), ""
	for _, p := range packet.Parameters {
		switch {
		case p.Name == "user":
			c.user = truncateName(p.Value)
		case p.Name == "database":
			c.databaseName = truncateName(p.Value)
		case p.Name == "replication":
			if v := strings.ToLower(p.Value); v != "false" && v != "off" && v != "0" && v != "no" {
				return pgerr.Unsupported("replication connections are not supported",
					"Connect to a shard itself for replication.").Fatal()
			}
		case p.Name == "options":
			c.vars.options = p.Value // read when the client has proved who it is
		case strings.HasPrefix(p.Name, "_pq_."):
			unknown = append(unknown, p.Name)
		default:
			c.vars.startup[strings.ToLower(p.Name)] = p.Value
		}
	}
	if c.user == "" {
		return pgerr.New(codeInvalidAuthorization, "no PostgreSQL user name specified in startup packet").Fatal()
	}
	if c.databaseName == "" {
		c.databaseName = c.user
	}
	if packet.Minor > newestMinor || len(unknown) > 0 {
		c.out.Put(func(dst []byte) []byte { return wire.AppendNegotiateVersion(dst, uint32(c.minor), unknown) })
	}
	return nil
}

// readOptions takes the settings out of the parameter options; those that the start-up message names itself count.
func (c *Session) readOptions() error {
	settings := make(map[string]string)
	if err := parseOptions(c.vars.options, settings); err != nil {
		return err
	}
	for name, value := range settings {
		if _, named := c.vars.startup[name]; !named {
			c.vars.startup[name] = value
		}
	}
	return nil
}

// newestMinor is the newest minor version of protocol 3 that is spoken. What 3.2 adds is longer keys of cancel requests.
const newestMinor = 2

// truncateName cuts a name as Postgres does.
func truncateName(name string) string {
	if len(name) > 63 {
		name = name[:63]
	}
	return name
}

// parseOptions reads the options parameter: -c name=value and --name=value, with backslashes escaping blanks.
func parseOptions(options string, into map[string]string) error {
	words := splitOptions(options)
	for i := 0; i < len(words); i++ {
		word := words[i]
		var assignment string
		switch {
		case word == "-c" && i+1 < len(words):
			i++
			assignment = words[i]
		case strings.HasPrefix(word, "-c"):
			assignment = word[2:]
		case strings.HasPrefix(word, "--"):
			assignment = word[2:]
		default:
			return pgerr.Newf("0A000", "command-line option %q of the start-up message is not supported", word).
				WithHint("Use -c name=value.").Fatal()
		}
		name, value, ok := strings.Cut(assignment, "=")
		if !ok {
			return pgerr.Newf("42601", "-c %s requires a value", assignment).Fatal()
		}
		into[strings.ToLower(strings.ReplaceAll(name, "-", "_"))] = value
	}
	return nil
}

func splitOptions(options string) []string {
	var words []string
	var word strings.Builder
	inWord := false
	for i := 0; i < len(options); i++ {
		ch := options[i]
		switch {
		case ch == '\\' && i+1 < len(options):
			i++
			word.WriteByte(options[i])
			inWord = true
		case ch == ' ' || ch >= '\t' && ch <= '\r':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteByte(ch)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words
}

func (c *Session) address() netip.Addr {
	if tcp, ok := c.socket.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

func findShard(cluster *etcd.Cluster, id directory.ShardID) (directory.Shard, bool) {
	for _, shard := range cluster.Shards {
		if shard.ID == id {
			return shard, true
		}
	}
	return directory.Shard{}, false
}

// cluster waits for the first snapshot of the directory.
func (s *Server) cluster(ctx context.Context) (*etcd.Cluster, error) {
	select {
	case <-s.ready:
		return s.current.Load(), nil
	case <-ctx.Done():
		return nil, pgerr.New(pgerr.CannotConnectNow, "the router has no partition map yet").
			WithHint("It could not reach etcd since it started.").Fatal()
	}
}

// openDatabase finds the database, and gives one that exists on the home shard its first map.
func (s *Server) openDatabase(ctx context.Context, cluster *etcd.Cluster, home directory.Shard, name string) (*database, error) {
	for {
		s.mu.Lock()
		d, ok := s.databases[name]
		s.mu.Unlock()
		if !ok {
			if err := s.createMap(ctx, cluster, home, name); err != nil {
				return nil, err
			}
			continue
		}
		_, err := d.await(ctx, func(v *view) bool { return v.partitions.Drop == nil && v.catalog != nil })
		if errors.Is(err, errGone) {
			continue
		}
		if now := d.current.Load(); err != nil && now != nil && now.partitions.Drop != nil {
			return nil, errBeingDropped(name)
		}
		if err != nil {
			return nil, pgerr.Newf(pgerr.CannotConnectNow, "the catalog of database %q could not be read", name).Because(err).Fatal()
		}
		return d, nil
	}
}

func (s *Server) createMap(ctx context.Context, cluster *etcd.Cluster, home directory.Shard, name string) error {
	conn, err := s.pools.Service(ctx, home, "postgres")
	if err != nil {
		return fmt.Errorf("look up database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1)", name).Scan(&exists); err != nil {
		return fmt.Errorf("look up database: %w", err)
	}
	if !exists {
		return pgerr.Newf(codeUnknownDatabase, "database %q does not exist", name).Fatal()
	}
	m, err := directory.NewMap(directory.Map{
		ClusterID: cluster.ID, Database: name, Epoch: 1, Shards: cluster.Shards, Home: cluster.Home,
	})
	if err != nil {
		return fmt.Errorf("make map of database %s: %w", name, err)
	}
	if err := s.maps.CreateMap(ctx, m); err != nil && !errors.Is(err, etcd.ErrExists) {
		return fmt.Errorf("store map of database %s: %w", name, err)
	}
	if m, err = s.maps.LoadMap(ctx, name); err != nil {
		return fmt.Errorf("load map of database %s: %w", name, err)
	}
	s.learnMap(m)
	return nil
}

// greetingTTL is how long the settings that a server connection started with are told to new clients
// without asking a server again.
const greetingTTL = 10 * time.Second

// maxGreetings bounds the cache; when it is full it is emptied.
const maxGreetings = 1000

// greetingCache keeps the settings that servers report at the start of a connection.
type greetingCache struct {
	mu      sync.Mutex
	reports map[backend.Identity]cachedGreeting
}

type cachedGreeting struct {
	settings map[string]string
	stored   string // as roles and databases have them, see storedDefaults
	read     time.Time
}

func (g *greetingCache) get(id backend.Identity) (map[string]string, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r, ok := g.reports[id]
	return r.settings, ok && time.Since(r.read) < greetingTTL
}

// last is what was read last, however long ago; stored is what roles and databases had then.
func (g *greetingCache) last(id backend.Identity) (settings map[string]string, stored string, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r, ok := g.reports[id]
	return r.settings, r.stored, ok
}

func (g *greetingCache) put(id backend.Identity, settings map[string]string, stored string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.reports == nil || len(g.reports) >= maxGreetings {
		g.reports = make(map[backend.Identity]cachedGreeting)
	}
	g.reports[id] = cachedGreeting{settings, stored, time.Now()}
}

// expire has the settings read again for the next session of a database, of any if it is "".
func (g *greetingCache) expire(database string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, r := range g.reports {
		if database == "" || id.Database == database {
			r.read = time.Time{}
			g.reports[id] = r
		}
	}
}

// forget drops what is kept of a database.
func (g *greetingCache) forget(database string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.reports, func(id backend.Identity, _ cachedGreeting) bool { return id.Database == database })
}

// cancelKeys are the keys that clients got, to find their sessions by.
type cancelKeys struct {
	prefix uint32
	mu     sync.Mutex
	last   uint32
	byPID  map[uint32]*Session
}

// keyBits is the number of low bits of a process id that number the sessions of one router.
const keyBits = 20

// Bytes of a key's secret: what protocol 3.0 has, and what we give from 3.2 on, which would take up to 256.
const (
	shortSecret = 4
	longSecret  = 32
)

func (k *cancelKeys) add(c *Session) (pid uint32, secret []byte) {
	secret = make([]byte, shortSecret)
	if c.minor >= 2 {
		secret = make([]byte, longSecret)
	}
	rand.Read(secret) // never fails
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byPID == nil {
		k.byPID = make(map[uint32]*Session)
	}
	for {
		k.last = k.last%(1<<keyBits-1) + 1
		pid = k.prefix | k.last
		if _, taken := k.byPID[pid]; !taken {
			k.byPID[pid] = c
			return pid, secret
		}
	}
}

func (k *cancelKeys) remove(pid uint32) {
	k.mu.Lock()
	delete(k.byPID, pid)
	k.mu.Unlock()
}

// Backends are the process ids of the servers' backends that work for the running request of the session that got this process id.
func (s *Server) Backends(pid uint32) []uint32 {
	s.keys.mu.Lock()
	c := s.keys.byPID[pid]
	s.keys.mu.Unlock()
	if c == nil {
		return nil
	}
	return c.x.Backends()
}

// cancelSession cancels what the session with this key runs. As in Postgres nobody is told whether there is one.
func (s *Server) cancelSession(ctx context.Context, pid uint32, secret []byte) error {
	s.keys.mu.Lock()
	c := s.keys.byPID[pid]
	s.keys.mu.Unlock()
	if c == nil || subtle.ConstantTimeCompare(secret, c.secret) != 1 {
		return nil
	}
	c.cancel(ctx)
	return nil
}
