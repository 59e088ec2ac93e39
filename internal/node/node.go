package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/directory/fence"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router"
	"github.com/shardyard/shardyard/router/backend"
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
	performer *schema.Performer
	server    *router.Server

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
	n := &Node{log: cfg.Log, failed: make(chan error, 1), stop: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close(ctx))
		}
	}()
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
	if n.performer, err = NewPerformer(n.store, n.pools.Service, cfg.Router.Name, cfg.Log); err != nil {
		return n, err
	}
	for _, shard := range cfg.Bootstrap {
		if err := AddShard(ctx, n.store, n.performer, shard); err != nil {
			return n, err
		}
	}
	return n, n.serve(ctx, cfg)
}

// NewPerformer makes what changes the map. owner names the router, or the command, that
// does it.
func NewPerformer(store *etcd.Store, dial fence.Dialer, owner string, log *slog.Logger) (*schema.Performer, error) {
	barrier, err := fence.New(fence.Config{Store: store, Dial: dial, Log: log})
	if err != nil {
		return nil, err
	}
	return schema.New(schema.Config{Store: store, Fence: barrier, Dial: schema.Dialer(dial), Router: owner, Log: log})
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
	n.server, err = router.New(cfg.Router, router.Dependencies{
		Planner: planner.New(cfg.Planner), Pools: n.pools, Maps: n.store, Member: n.member, Schema: n.performer,
		Snapshot: first, Log: cfg.Log,
	})
	if err != nil {
		return err
	}
	ctx, n.stop = context.WithCancel(context.WithoutCancel(ctx))
	n.work.Go(func() {
		if err := n.server.Serve(ctx); err != nil {
			n.failed <- err
		}
	})
	if cfg.SnapshotFile != "" {
		n.work.Go(func() { n.keepSnapshot(ctx, cfg.SnapshotFile) })
	}
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

// keepSnapshot writes every newer snapshot to the file until ctx ends.
func (n *Node) keepSnapshot(ctx context.Context, file string) {
	err := n.store.Watch(ctx, func(s *etcd.Snapshot) {
		if err := s.SaveFile(file); err != nil {
			n.log.WarnContext(ctx, "snapshot file not written", "error", err)
		}
	})
	if err != nil && ctx.Err() == nil {
		n.log.WarnContext(ctx, "snapshot file is not kept any more", "error", err)
	}
}

// Addr is where clients connect.
func (n *Node) Addr() net.Addr { return n.server.Addr() }

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
	if n.member != nil {
		errs = append(errs, n.member.Close(context.WithoutCancel(ctx)))
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	return errors.Join(errs...)
}
