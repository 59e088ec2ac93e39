package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/directory/fence"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/rebalance/worker"
	"github.com/shardyard/shardyard/router"
	"github.com/shardyard/shardyard/router/admin"
	"github.com/shardyard/shardyard/router/auth"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/commit"
	"github.com/shardyard/shardyard/router/console"
	"github.com/shardyard/shardyard/router/loop"
	"github.com/shardyard/shardyard/router/schema"
)

// Config is what the parts are told.
type Config struct {
	Router    router.Config
	Pools     backend.Config
	Directory etcd.Config
	Planner   planner.Config
	// SnapshotFile keeps a copy of the directory, from which Start begins while etcd is
	// away. Defaults to none.
	SnapshotFile string
	// Metrics is the address of /metrics, host:port. Defaults to none.
	Metrics string
	// Settings lists the configuration, for SHOW CONFIG. Defaults to none.
	Settings func() []console.Setting
	// Reload reads the configuration again, for RELOAD, and calls Node.Reload. Defaults to none: RELOAD is refused.
	Reload func(ctx context.Context) error
	// Bootstrap are shards that Start registers first. Defaults to none.
	Bootstrap []directory.Shard
	// Log goes to every part. Defaults to a logger that discards.
	Log *slog.Logger
}

// Node is a running router. Its methods are safe for concurrent use.
type Node struct {
	log       *slog.Logger
	store     *etcd.Store
	member    *etcd.Member
	pools     *backend.Pools
	fence     *fence.Fence
	performer *schema.Performer
	planner   *planner.Planner
	server    *router.Server
	metrics   *admin.Server // nil: they are not served
	latest    atomic.Pointer[etcd.Snapshot]

	loop     *loop.Loop // nil: there is none
	stopLoop context.CancelFunc
	looping  sync.WaitGroup

	stop   context.CancelFunc
	work   sync.WaitGroup
	failed chan error // gets Serve's error, if it ends by itself
}

// Start brings a router up. It returns when clients can connect.
func Start(ctx context.Context, cfg Config) (_ *Node, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Directory.Log, cfg.Pools.Log = cfg.Log, cfg.Log
	n := &Node{log: cfg.Log, failed: make(chan error, 1), stop: func() {}, stopLoop: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close(ctx))
		}
	}()
	if cfg.Router.EventLoop {
		if n.loop, err = loop.New(cfg.Log); err != nil {
			return n, fmt.Errorf("start the event loop: %w", err)
		}
		loopCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
		n.stopLoop = stop
		n.looping.Go(func() { n.loop.Run(loopCtx) })
		cfg.Pools.Loop = n.loop
	}
	if n.store, err = etcd.Open(ctx, cfg.Directory); err != nil {
		return n, fmt.Errorf("open the directory: %w", err)
	}
	if n.member, err = n.store.Register(ctx, etcd.RouterInfo{
		Name: cfg.Router.Name, Address: cfg.Router.Listen, CancelPrefix: cfg.Router.CancelPrefix,
	}); err != nil {
		return n, fmt.Errorf("register the router: %w", err)
	}
	cfg.Pools.ApplicationName = n.member.ApplicationPrefix()
	if n.pools, err = backend.New(ctx, cfg.Pools); err != nil {
		return n, err
	}
	if n.fence, err = fence.New(fence.Config{Store: n.store, Dial: n.pools.Service, GiveBack: n.pools.KeepService, Log: cfg.Log}); err != nil {
		return n, err
	}
	if n.performer, err = newPerformer(n.store, n.fence, n.pools, cfg.Router.Name, cfg.Log); err != nil {
		return n, err
	}
	for _, shard := range cfg.Bootstrap {
		if err := AddShard(ctx, n.store, n.pools, n.performer, shard); err != nil {
			return n, err
		}
	}
	return n, n.serve(ctx, cfg)
}

// NewPerformer makes what changes the map, for a command. command names it. Until leave is called the routers know that
// it is at work; else they would undo what it has not finished.
func NewPerformer(ctx context.Context, store *etcd.Store, pools *backend.Pools, command string, log *slog.Logger) (_ *schema.Performer, leave func(), err error) {
	barrier, err := fence.New(fence.Config{Store: store, Dial: pools.Service, GiveBack: pools.KeepService, Log: log})
	if err != nil {
		return nil, nil, err
	}
	owner := command + "-" + rand.Text()[:12]
	performer, err := newPerformer(store, barrier, pools, owner, log)
	if err != nil {
		return nil, nil, err
	}
	leave, err = store.Attend(ctx, owner)
	if err != nil {
		return nil, nil, err
	}
	return performer, leave, nil
}

func newPerformer(store *etcd.Store, barrier *fence.Fence, pools *backend.Pools, owner string, log *slog.Logger) (*schema.Performer, error) {
	return schema.New(schema.Config{
		Store: store, Fence: barrier, Dial: pools.Service, GiveBack: pools.KeepService, Router: owner, Log: log,
	})
}

// snapshotTimeout bounds the first load of the directory, after which the snapshot file
// has to do.
const snapshotTimeout = 5 * time.Second

// serve loads the first snapshot and starts the server and what belongs to it.
func (n *Node) serve(ctx context.Context, cfg Config) error {
	first, err := n.firstSnapshot(ctx, cfg.SnapshotFile)
	if err != nil {
		return err
	}
	n.latest.Store(first)
	resolver, err := commit.NewResolver(commit.Config{
		Maps: func() map[string]*directory.Map { return n.latest.Load().Maps }, Dial: n.pools.Service, GiveBack: n.pools.KeepService,
		Database: maintenance, Log: cfg.Log,
	})
	if err != nil {
		return err
	}
	single, err := worker.New(worker.Config{
		Lead: func(ctx context.Context, work func(context.Context)) error {
			return n.store.Lead(ctx, "worker", cfg.Router.Name, work)
		},
		Maps: func() map[string]*directory.Map { return n.latest.Load().Maps }, Dial: n.pools.Service, Log: cfg.Log,
	})
	if err != nil {
		return err
	}
	n.planner = planner.New(cfg.Planner)
	if cfg.Metrics != "" {
		if n.metrics, err = admin.New(admin.Config{Listen: cfg.Metrics, State: n.State, Log: cfg.Log}); err != nil {
			return err
		}
	}
	n.server, err = router.New(cfg.Router, router.Dependencies{
		Planner: n.planner, Pools: n.pools, Loop: n.loop, Maps: n.store, Member: n.member, Schema: n.performer,
		Heal: n.fence.Heal, Initial: first, Resolver: resolver, Settings: cfg.Settings, Reload: cfg.Reload, Log: cfg.Log,
	})
	if err != nil {
		if n.metrics != nil {
			err = errors.Join(err, n.metrics.Close())
		}
		return err
	}
	ctx, n.stop = context.WithCancel(context.WithoutCancel(ctx))
	n.work.Go(func() {
		if err := n.server.Serve(ctx); err != nil {
			n.failed <- err
		}
	})
	if n.metrics != nil {
		n.work.Go(func() { n.metrics.Serve(ctx) })
	}
	n.work.Go(func() { n.follow(ctx, cfg.SnapshotFile) })
	n.work.Go(func() { n.recover(ctx) })
	n.work.Go(func() { resolver.Run(ctx) })
	n.work.Go(func() { _ = single.Run(ctx) }) // it ends with ctx only
	return nil
}

func (n *Node) firstSnapshot(ctx context.Context, file string) (*etcd.Snapshot, error) {
	loadCtx, cancel := context.WithTimeout(ctx, snapshotTimeout)
	defer cancel()
	snapshot, err := n.store.Load(loadCtx)
	if err == nil {
		return snapshot, nil
	}
	if errors.Is(err, etcd.ErrNotFound) {
		return nil, fmt.Errorf("load the directory: %w (register the shards with `shardyard shard add`)", err)
	}
	if file == "" {
		return nil, fmt.Errorf("load the directory: %w", err)
	}
	saved, fileErr := etcd.LoadFile(file)
	if fileErr != nil {
		return nil, fmt.Errorf("load the directory: %w", errors.Join(err, fileErr))
	}
	n.log.WarnContext(ctx, "etcd is away, starting from the snapshot file", "error", err)
	return saved, nil
}

// follow keeps the latest snapshot, and a copy in the file if there is to be one, until ctx ends.
func (n *Node) follow(ctx context.Context, file string) {
	err := n.store.Watch(ctx, func(s *etcd.Snapshot) {
		n.latest.Store(s)
		if file == "" {
			return
		}
		if err := etcd.SaveFile(file, s); err != nil {
			n.log.WarnContext(ctx, "snapshot file not written", "error", err)
		}
	})
	if err != nil && ctx.Err() == nil {
		n.log.WarnContext(ctx, "the directory is not followed any more", "error", err)
	}
}

// recoverInterval is how often changes are looked for that a router left half-done.
const recoverInterval = 2 * time.Second

// recover finishes or undoes the changes of routers that are gone, until ctx ends.
func (n *Node) recover(ctx context.Context) {
	ticker := time.NewTicker(recoverInterval)
	defer ticker.Stop()
	var sets []string
	swept := false
	for start := true; ; start = false {
		sets, swept = n.sweep(ctx, sets, swept)
		for database, m := range n.latest.Load().Maps {
			if !start && !held(m) {
				continue
			}
			if err := n.performer.Recover(ctx, database); err != nil && ctx.Err() == nil {
				n.log.WarnContext(ctx, "changes left half-done could not be recovered yet", "database", database, "error", err)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// sweep removes the entries of tables by DIRECTORY that are gone. It gives the sets of entries that there are,
// and whether none is left to be swept of those that were there before.
func (n *Node) sweep(ctx context.Context, before []string, swept bool) (sets []string, done bool) {
	for _, m := range n.latest.Load().Maps {
		sets = append(sets, m.EntrySets()...)
	}
	gone := slices.ContainsFunc(before, func(set string) bool { return !slices.Contains(sets, set) })
	if swept && !gone {
		return sets, true
	}
	if err := n.store.SweepEntries(ctx); err != nil {
		if ctx.Err() == nil {
			n.log.WarnContext(ctx, "entries of tables that are gone are not removed yet", "error", err)
		}
		return sets, false
	}
	return sets, true
}

// held tells that some table is being changed, or that the database is being dropped.
func held(m *directory.Map) bool {
	return m.Drop != nil || slices.ContainsFunc(m.Tables, func(t directory.Table) bool { return t.Hold != nil })
}

// Addr is where clients connect.
func (n *Node) Addr() net.Addr { return n.server.Addr() }

// Plans tells how many statements were planned, and for how many a plan was in the cache.
func (n *Node) Plans() (made, found uint64) { return n.planner.Plans() }

// Backends are the process ids of the servers' backends that work for a session's running request; pid is the session's own.
func (n *Node) Backends(pid uint32) []uint32 { return n.server.Backends(pid) }

// MetricsAddr is where /metrics is, nil if it is nowhere.
func (n *Node) MetricsAddr() net.Addr {
	if n.metrics == nil {
		return nil
	}
	return n.metrics.Addr()
}

// State is what there is to see of the router now.
func (n *Node) State() *console.State { return n.server.State() }

// Reconnect lets no server connection to a database be used by another session, to any database if it is "".
func (n *Node) Reconnect(database string) { n.pools.ReconnectDatabase(database) }

// Reload applies what of a configuration can be changed while clients are served: the sizes, modes and bounds of pools and
// clients, and who may come in, the files of that included. With an error everything stays as it was.
func (n *Node) Reload(cfg Config) error {
	policy, err := auth.Load(cfg.Router.Auth)
	if err != nil {
		return fmt.Errorf("configuration of authentication: %w", err)
	}
	if err := router.CheckClientLimits(cfg.Router.Clients); err != nil {
		return err
	}
	if err := n.pools.SetLimits(cfg.Pools); err != nil {
		return err
	}
	if err := n.server.SetClientLimits(cfg.Router.Clients); err != nil {
		return err
	}
	n.server.SetPolicy(policy)
	return nil
}

// Failed gets the error with which the server ended by itself.
func (n *Node) Failed() <-chan error { return n.failed }

// Close drains the clients within ctx, ends everything and says goodbye in the directory.
func (n *Node) Close(ctx context.Context) error {
	var errs []error
	if n.server != nil {
		errs = append(errs, n.server.Drain(ctx))
	}
	n.stop()
	n.work.Wait()
	if n.pools != nil {
		n.pools.Close()
	}
	n.stopLoop()
	n.looping.Wait()
	if n.member != nil {
		errs = append(errs, n.member.Close(context.WithoutCancel(ctx)))
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	return errors.Join(errs...)
}
