package oracle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/internal/node/nodetest"
	"github.com/shardyard/shardyard/internal/testbed"
	"github.com/shardyard/shardyard/planner"
)

// Config says what stands on the two sides.
type Config struct {
	// Shards of the cluster. Defaults to 3.
	Shards int
	// Routers in front of it, used alternately. Defaults to 2.
	Routers int
	// EventLoop makes every second router run its sessions in the event loop.
	EventLoop bool
	// LeaseTTL of the routers. Defaults to 5 s.
	LeaseTTL time.Duration
	// Locale of all servers. Defaults to C.UTF-8.
	Locale string
	// ICULocale of all servers. Defaults to none.
	ICULocale string
	// Fault, if set, is applied by the routers to a copy of each plan: a planted fault,
	// to show that the oracle bites.
	Fault func(planner.Plan) planner.Plan
	// Log defaults to a logger that discards.
	Log *slog.Logger
}

// Bed is the plain Postgres and the cluster. Close must be called.
type Bed struct {
	Plain   *devcluster.Cluster
	Shards  *devcluster.Cluster
	Routers []*node.Node
	// Store is the cluster's directory.
	Store *etcd.Store

	leaseTTL time.Duration // of the routers
}

// Start brings both sides up. The shards have different OIDs for the same user types.
func Start(ctx context.Context, cfg Config) (_ *Bed, err error) {
	if cfg.Shards == 0 {
		cfg.Shards = 3
	}
	if cfg.Routers == 0 {
		cfg.Routers = 2
	}
	if cfg.LeaseTTL == 0 {
		cfg.LeaseTTL = 5 * time.Second
	}
	bed := &Bed{leaseTTL: cfg.LeaseTTL}
	defer func() {
		if err != nil {
			err = errors.Join(err, bed.Close(ctx))
		}
	}()
	if bed.Plain, err = devcluster.Start(ctx, devcluster.Config{
		Shards: 1, Locale: cfg.Locale, ICULocale: cfg.ICULocale, Settings: testbed.Settings(), Log: cfg.Log,
	}); err != nil {
		return bed, fmt.Errorf("start the plain postgres: %w", err)
	}
	if bed.Shards, err = devcluster.Start(ctx, devcluster.Config{
		Shards: cfg.Shards, Locale: cfg.Locale, ICULocale: cfg.ICULocale, Settings: testbed.Settings(), BurnOIDs: true, Etcd: true, Log: cfg.Log,
	}); err != nil {
		return bed, fmt.Errorf("start the shards: %w", err)
	}
	if bed.Store, err = etcd.Open(ctx, bed.directory(cfg)); err != nil {
		return bed, fmt.Errorf("open the directory: %w", err)
	}
	for i := range cfg.Routers {
		if err := bed.AddRouter(ctx, fmt.Sprintf("r%d", i+1), uint16(i+1), cfg); err != nil {
			return bed, err
		}
	}
	return bed, nil
}

func (b *Bed) directory(cfg Config) etcd.Config {
	return etcd.Config{Endpoints: b.Shards.Etcd().Endpoints(), LeaseTTL: cfg.LeaseTTL}
}

// idleTimeout closes the connections to the databases of the scripts that have ended.
const idleTimeout = 5 * time.Second

// AddRouter starts one more router.
func (b *Bed) AddRouter(ctx context.Context, name string, cancelPrefix uint16, cfg Config) error {
	config := nodetest.Config(b.Shards, name, cancelPrefix)
	config.Router.Fault, config.Router.EventLoop = cfg.Fault, cfg.EventLoop && cancelPrefix%2 == 0
	config.Directory, config.Log = b.directory(cfg), cfg.Log
	config.Pools.IdleTimeout = idleTimeout
	running, err := node.Start(ctx, config)
	if err != nil {
		return fmt.Errorf("start router %s: %w", name, err)
	}
	b.Routers = append(b.Routers, running)
	return nil
}

// closeTimeout bounds the end of one router.
const closeTimeout = 10 * time.Second

// Close ends everything that Start started.
func (b *Bed) Close(ctx context.Context) error {
	var errs []error
	for _, running := range b.Routers {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		errs = append(errs, running.Close(stopCtx))
		cancel()
	}
	if b.Store != nil {
		errs = append(errs, b.Store.Close())
	}
	for _, servers := range []*devcluster.Cluster{b.Shards, b.Plain} {
		if servers != nil {
			errs = append(errs, servers.Close())
		}
	}
	return errors.Join(errs...)
}

// RouterConnString is where clients of a router connect.
func (b *Bed) RouterConnString(i int, database string) string {
	return fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable", b.Routers[i].Addr(), database)
}
