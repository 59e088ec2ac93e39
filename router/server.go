package router

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/directory/mirror"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/auth"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/catalogs"
	"github.com/shardyard/shardyard/router/commit"
	"github.com/shardyard/shardyard/router/console"
	"github.com/shardyard/shardyard/router/loop"
	"github.com/shardyard/shardyard/router/metrics"
	"github.com/shardyard/shardyard/router/notify"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/schema"
	"github.com/shardyard/shardyard/router/sequence"
)

// Server is a router. Its methods are safe for concurrent use.
type Server struct {
	config   Config
	planner  *planner.Planner
	pools    *backend.Pools
	maps     *etcd.Store
	member   *etcd.Member
	origin   *commit.Origin
	gate     *commit.Gate
	secrets  *mirror.Secrets
	resolver *commit.Resolver
	schema   *schema.Performer
	entries  *etcd.Entries
	numbers  *sequence.Source
	catalogs catalogs.Loader
	heal     func(ctx context.Context, database string, floor directory.Epoch) (*directory.Map, error)
	log      *slog.Logger

	listener net.Listener
	initial  *etcd.Snapshot
	loop     *loop.Loop // nil unless EventLoop
	// policy says who may come in; a reload replaces it.
	policy   atomic.Pointer[auth.Policy]
	failures *auth.Failures
	roles    roleCache
	lookUps  chan struct{} // as many as run
	greeting greetingCache
	keys     cancelKeys
	// mockSecret is what made-up verifiers are made of.
	mockSecret auth.Secret
	bringer    roleBringer
	// current is the newest cluster; ready is closed when there is one.
	current atomic.Pointer[etcd.Cluster]
	// entrySets are the sets of entries of the newest directory; only the watch uses it.
	entrySets []string
	ready     chan struct{}
	// work are the goroutines of clients and requests.
	work     sync.WaitGroup
	draining atomic.Bool
	drained  chan struct{} // closed when a drain has ended
	sessions atomic.Uint64 // numbers given to sessions
	limits   atomic.Pointer[clientLimits]
	// What is counted, and what the admin database asks for.
	started      time.Time
	errors       metrics.Errors
	samples      atomic.Pointer[samples]
	settings     func() []console.Setting
	reloadConfig func(ctx context.Context) error
	// marks numbers who drew from sequences on which connection.
	marks atomic.Uint64
	// ownCatalogs numbers the catalogs that only one transaction sees.
	ownCatalogs atomic.Uint64

	mu sync.Mutex
	// starting are the connections that have not logged in, clients those that have.
	starting  map[*Session]struct{}
	clients   map[*Session]struct{}
	databases map[string]*database
	closed    atomic.Bool // set under mu
	// clientCounts are the authenticated clients of each database, of each user, and of each user in each database.
	clientCounts map[backend.Identity]int
	admitted     int // all of them
	// following are the goroutines behind the clients: the watch, databases, the event loop.
	following sync.WaitGroup
	// follower starts the goroutine of a database; set while Serve runs.
	follower func(*database)
	// announceLater announces a change of the catalog in the background; set while Serve runs.
	announceLater func(*database)
}

// New checks the configuration and binds the listener, so that Addr is known. Nobody is served before Serve.
func New(config Config, deps Dependencies) (*Server, error) {
	config.setDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("configuration of the router: %w", err)
	}
	if err := deps.validate(); err != nil {
		return nil, fmt.Errorf("dependencies of the router: %w", err)
	}
	policy, err := auth.Load(config.Auth)
	if err != nil {
		return nil, fmt.Errorf("configuration of authentication: %w", err)
	}
	origin, err := newOrigin(config.Name, deps.Member)
	if err != nil {
		return nil, err
	}
	entries, err := etcd.NewEntries(deps.Maps, etcd.EntriesConfig{Writer: config.Name, CacheSize: config.EntryCache})
	if err != nil {
		return nil, err
	}
	gate, err := commit.NewGate(commit.GateConfig{Dial: deps.Pools.Service, Log: deps.Log})
	if err != nil {
		return nil, err
	}
	numbers, err := sequence.NewSource(sequence.Config{Dial: deps.Pools.Service, Block: config.SequenceBlock})
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", config.Listen, err)
	}
	s := &Server{
		config: config, loop: deps.Loop, planner: deps.Planner, pools: deps.Pools, maps: deps.Maps, member: deps.Member, origin: origin, gate: gate,
		resolver: deps.Resolver, secrets: mirror.NewSecrets(deps.Pools.Service),
		schema: deps.Schema, entries: entries, numbers: numbers, heal: deps.Heal, log: deps.Log, listener: listener, initial: deps.Initial,
		ready: make(chan struct{}), drained: make(chan struct{}), starting: make(map[*Session]struct{}), clients: make(map[*Session]struct{}), databases: make(map[string]*database),
	}
	s.started, s.settings, s.reloadConfig, s.clientCounts = time.Now(), deps.Settings, deps.Reload, make(map[backend.Identity]int)
	begin := &sample{at: s.started}
	s.samples.Store(&samples{older: begin, newer: begin})
	if err := s.SetClientLimits(config.Clients); err != nil {
		return nil, errors.Join(fmt.Errorf("configuration of the router: %w", err), listener.Close())
	}
	s.mockSecret, s.failures = auth.NewSecret(), auth.NewFailures()
	s.lookUps = make(chan struct{}, lookUps)
	s.SetPolicy(policy)
	s.keys.prefix = uint32(config.CancelPrefix&0x7ff) << 20
	return s, nil
}

// newOrigin names the transactions of this process by its registration, or by itself where it has none.
func newOrigin(name string, member *etcd.Member) (*commit.Origin, error) {
	instance := rand.Text()[:16]
	if member != nil {
		instance = member.Instance()
	}
	return commit.NewOrigin(name, instance)
}

// Addr is the address of the listener.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve serves clients until ctx ends or Drain has finished. It returns when every goroutine of the
// server has ended. The error is nil after an orderly end.
func (s *Server) Serve(ctx context.Context) error {
	outer := ctx
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // sessions outlive the order to stop, to say goodbye
	defer cancel()
	s.mu.Lock()
	s.follower = func(d *database) {
		s.following.Add(1)
		go func() { defer s.following.Done(); defer d.hub.Close(); s.follow(ctx, d) }()
	}
	s.announceLater = func(d *database) {
		if !d.announcing.Swap(true) {
			s.background(func() { s.announce(ctx, d) })
		}
	}
	s.mu.Unlock()
	if s.initial != nil {
		s.learn(s.initial)
	}
	s.background(func() {
		if err := s.maps.Watch(ctx, s.learn); err != nil && ctx.Err() == nil {
			s.log.Error("watch of the maps ended", "error", err)
		}
	})
	s.background(func() { s.watchClients(ctx) })
	s.background(func() { s.detectDeadlocks(ctx) })
	s.background(func() { s.sampleTotals(ctx) })
	s.background(func() { s.gate.Run(ctx) })
	s.background(func() { s.numbers.Run(ctx) })
	stop := context.AfterFunc(outer, func() { s.listener.Close() })
	defer stop()

	err := s.accept(outer, ctx)
	if s.draining.Load() {
		select {
		case <-s.drained:
		case <-outer.Done():
		}
	}
	s.endClients(ctx)
	cancel()
	s.following.Wait()
	return err
}

func (s *Server) background(run func()) {
	s.following.Add(1)
	go func() { defer s.following.Done(); run() }()
}

// acceptRetry is the pause after an accept that failed for want of descriptors.
const acceptRetry = 50 * time.Millisecond

func (s *Server) accept(stop, ctx context.Context) error {
	for {
		conn, err := s.listener.Accept()
		switch {
		case err == nil:
			if conn, err = s.loop.Adopt(conn); err != nil {
				s.log.Warn("accept failed", "error", err)
				continue
			}
			s.work.Add(1)
			go func() { defer s.work.Done(); s.welcome(ctx, conn) }()
		case errors.Is(err, net.ErrClosed):
			return nil
		default:
			s.log.Warn("accept failed", "error", err)
			if !sleep(stop, acceptRetry) {
				return nil
			}
		}
	}
}

// learn takes a snapshot of the directory.
func (s *Server) learn(snapshot *etcd.Snapshot) {
	if s.current.Swap(&snapshot.Cluster) == nil {
		close(s.ready)
	}
	for _, m := range snapshot.Maps {
		s.learnMap(m)
	}
	s.forgetDropped(snapshot)
	s.retainEntries(snapshot)
}

// learnMap takes a map, from the watch or from whoever has just changed it.
func (s *Server) learnMap(m *directory.Map) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.databases[m.Database]
	if !ok {
		d = newDatabase(m.Database)
		d.hub = notify.NewHub(notify.Config{Database: m.Database, Dial: s.pools.Service, Log: s.log})
		s.databases[m.Database] = d
		s.follower(d)
	}
	d.learn(m)
}

// Drain stops accepting, ends idle sessions at once and the others after their transaction, or after
// DrainTimeout, with 57P01. It returns when no client is left; Serve returns then too.
func (s *Server) Drain(ctx context.Context) error {
	if s.draining.Swap(true) {
		return errors.New("drain: it is under way already")
	}
	defer close(s.drained)
	s.listener.Close()
	for _, c := range s.snapshotClients() {
		c.wake()
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.DrainTimeout)
	defer cancel()
	for len(s.snapshotClients()) > 0 {
		if !sleep(ctx, 5*time.Millisecond) {
			s.closeClients(context.WithoutCancel(ctx)) // their statements are cancelled though the time is over
			return fmt.Errorf("drain: %w", ctx.Err())
		}
	}
	return nil
}

func (s *Server) snapshotClients() []*Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	clients := make([]*Session, 0, len(s.clients))
	for c := range s.clients {
		clients = append(clients, c)
	}
	return clients
}

func (s *Server) closeClients(ctx context.Context) {
	s.mu.Lock()
	s.closed.Store(true)
	for c := range s.starting {
		_ = c.socket.SetDeadline(time.Now().Add(goodbyeTimeout)) // fails only if the connection is closed
		_ = c.socket.SetReadDeadline(time.Unix(1, 0))
	}
	s.mu.Unlock()
	for _, c := range s.snapshotClients() {
		c.terminate(ctx)
	}
}

// A client that is told to end does so when its statement is cancelled, which is tried every endRetry; after
// endGrace its server connections are cut, for a shard that hangs answers no cancel.
const (
	endRetry = 500 * time.Millisecond
	endGrace = 5 * time.Second
)

// endClients ends all clients and waits for their goroutines.
func (s *Server) endClients(ctx context.Context) {
	ended := make(chan struct{})
	go func() { s.work.Wait(); close(ended) }()
	retry, grace := time.NewTicker(endRetry), time.NewTimer(endGrace)
	defer retry.Stop()
	defer grace.Stop()
	within, cancel := context.WithTimeout(ctx, endGrace)
	defer cancel()
	for {
		s.closeClients(within)
		select {
		case <-ended:
			return
		case <-retry.C:
		case <-grace.C:
			s.pools.TerminateAll("")
			<-ended
			return
		}
	}
}

func (s *Server) isClosed() bool { return s.closed.Load() }

// watchInterval is how often running statements are checked for clients that vanished.
const watchInterval = 200 * time.Millisecond

// watchClients cancels the statements of clients whose connection is gone. A session that runs a
// statement does not read from its client, so it would not notice by itself.
func (s *Server) watchClients(ctx context.Context) {
	for sleep(ctx, watchInterval) {
		now := time.Now().UnixNano()
		for _, c := range s.snapshotClients() {
			since := c.busySince.Load()
			if since == 0 || now-since < int64(watchInterval) || !hungUp(c.socket) {
				continue
			}
			c.cancel(ctx)
		}
	}
}

// receive adds a connection that has yet to log in, unless there are too many or the server is closing.
func (s *Server) receive(c *Session) error {
	most := s.config.MaxStarting
	if most == 0 {
		most = s.limits.Load().Total
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed.Load():
		return pgerr.New(pgerr.AdminShutdown, "the router is shutting down").Fatal()
	case len(s.starting) >= most:
		return pgerr.New(pgerr.TooManyConnections, "sorry, too many clients are logging in already").Fatal()
	}
	s.starting[c] = struct{}{}
	return nil
}

// admit makes a client of a session that has logged in, unless there are too many or the server is closing.
func (s *Server) admit(c *Session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed.Load() || s.draining.Load():
		return pgerr.New(pgerr.AdminShutdown, "the router is shutting down").Fatal()
	case len(s.clients) >= s.limits.Load().Total+reservedClients:
		return errTooManyClients()
	}
	delete(s.starting, c)
	s.clients[c] = struct{}{}
	return nil
}

func (s *Server) forget(c *Session) {
	s.mu.Lock()
	delete(s.starting, c)
	delete(s.clients, c)
	s.discount(c)
	s.mu.Unlock()
}

// guard runs a session's code and turns a panic into an error: one session's bug must not end the others.
func (s *Server) guard(c *Session, run func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			s.log.Error("panic in session", "session_id", c.id, "error", cause, "stack", string(debug.Stack()))
			err = pgerr.New(pgerr.InternalError, "internal error in the router").
				WithHint("This is a bug. The router's log has the details.").Fatal()
		}
	}()
	return run()
}
