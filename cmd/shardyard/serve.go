package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/router"
	"github.com/shardyard/shardyard/router/backend"
)

func newServeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a router against given shards and an external etcd",
		Long: `Run a router. The shards are those that "shardyard shard add" registered in etcd.
Each flag can also be given in a YAML file or as an environment variable: SHARDYARD_ and
the key in capitals, e.g. SHARDYARD_POOL_SIZE. SIGTERM drains: clients may end their transactions.
SIGHUP reads the file again; docs/configuration.md says which keys count without a restart.`,
		Example: `  shardyard serve --config shardyard.yaml
  SHARDYARD_SERVICE_PASSWORD=secret shardyard serve --listen 0.0.0.0:6432 --etcd-endpoints etcd1:2379,etcd2:2379`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(cmd.Flags(), os.Environ())
			if err != nil {
				return fmt.Errorf("configuration:\n%w", err)
			}
			return serve(cmd.Context(), c, func() (config, error) { return loadConfig(cmd.Flags(), os.Environ()) })
		},
	}
	addServeFlags(cmd.Flags())
	return cmd
}

// drainTimeout bounds how long open transactions may go on after SIGTERM.
const drainTimeout = 30 * time.Second

// serve runs a router until ctx ends. load reads the configuration again.
func serve(ctx context.Context, c config, load func() (config, error)) error {
	log := c.Log.logger()
	again := &reloader{load: load, log: log, current: c}
	parts := c.node()
	parts.Reload, parts.Settings = again.reload, again.settings
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	running, err := node.Start(ctx, parts)
	if err != nil {
		return err
	}
	again.started(running)
	log.InfoContext(ctx, "accepting connections", "address", running.Addr())
	if address := running.MetricsAddr(); address != nil {
		log.InfoContext(ctx, "serving metrics", "address", address)
	}
	var failure error
	for waiting := true; waiting; {
		select {
		case <-hangup:
			if err := again.reload(ctx); err != nil {
				log.ErrorContext(ctx, "configuration not reloaded, everything stays as it was", "error", err)
			}
			continue
		case <-ctx.Done():
			log.InfoContext(ctx, "draining")
		case failure = <-running.Failed():
		}
		waiting = false
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := running.Close(stopCtx); failure == nil && err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	return failure
}

// node translates the keys of the configuration into what the packages take.
func (c config) node() node.Config {
	return node.Config{
		Router: router.Config{
			Name: c.Name, Listen: c.Listen, Auth: c.admission(), MaxStarting: c.Auth.MaxStarting, StartupTimeout: c.Auth.Timeout,
			Clients: c.clientLimits(), AdminUsers: c.adminUsers(), StatsUsers: c.StatsUsers,
			EventLoop: c.EventLoop, EntryCache: c.EntryCache, SequenceBlock: c.SequenceBlock,
		},
		Pools: backend.Config{
			ServiceUser: c.Service.User, Passwords: c.passwords(), TLS: c.ServerTLS.forShards(), PoolSize: c.Pool.Size, PoolReserve: c.Pool.Reserve,
			ReserveTimeout: c.Pool.ReserveTimeout, PoolMin: c.Pool.Min, Mode: backend.Mode(c.Pool.Mode), Rules: c.poolRules(), MaxWaiting: c.Pool.MaxWaiting,
			AcquireTimeout: c.Pool.AcquireTimeout, ConnectTimeout: c.Pool.ConnectTimeout,
			IdleTimeout: c.Pool.IdleTimeout, MaxLifetime: c.Pool.MaxLifetime,
		},
		Directory:    etcd.Config{Endpoints: c.Etcd.Endpoints, Prefix: c.Etcd.Prefix, LeaseTTL: c.Etcd.LeaseTTL},
		SnapshotFile: c.SnapshotFile, Metrics: c.Metrics.Listen,
		Log: c.Log.logger(),
	}
}

func (c config) passwords() map[string]string {
	passwords := make(map[string]string, len(c.Users)+1)
	for role, password := range c.Users {
		passwords[role] = password
	}
	if c.Service.Password != "" {
		passwords[c.Service.User] = c.Service.Password
	}
	return passwords
}
