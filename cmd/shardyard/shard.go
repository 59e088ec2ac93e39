package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/planner/shardsql"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/schema"
)

func newShardCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "shard",
		Short:   "Add and list shards",
		Example: "  shardyard shard add s1 --address db1:5432 --home\n  shardyard shard list",
	}
	cmd.AddCommand(newShardAddCommand(), newShardListCommand())
	return cmd
}

// shardOptions are the flags of `shardyard shard add`.
type shardOptions struct {
	where       directoryFlags
	address     string
	replicas    []string
	home        bool
	serviceUser string
	password    string
}

func newShardAddCommand() *cobra.Command {
	var options shardOptions
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Register a Postgres server as a shard, or change its address",
		Long: `Register a Postgres server as a shard and prepare it: the bookkeeping schema, the roles and
databases of the cluster. The first shard is the home shard, where everything lives that nobody sharded;
--home makes sure of that. Running it again for a shard that exists changes its address.`,
		Example: `  shardyard shard add s1 --address db1:5432 --home
  shardyard shard add s2 --address db2:5432 --replica db2b:5432
  SHARDYARD_SERVICE_PASSWORD=secret shardyard shard add s3 --address db3:5432 --service-user shardyard`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return addShard(cmd, options, args[0]) },
	}
	addDirectoryFlags(cmd.Flags(), &options.where)
	serviceUser := defaultConfig().Service.User
	if fromEnv, ok := lookupEnviron(os.Environ(), "SHARDYARD_SERVICE_USER"); ok {
		serviceUser = fromEnv
	}
	cmd.Flags().StringVar(&options.address, "address", "", "the primary, as host:port (required)")
	cmd.Flags().StringSliceVar(&options.replicas, "replica", nil, "a replica, as host:port; may be repeated")
	cmd.Flags().BoolVar(&options.home, "home", false, "insist that this is the home shard")
	cmd.Flags().StringVar(&options.serviceUser, "service-user", serviceUser, "role for bookkeeping on the shards")
	options.password, _ = lookupEnviron(os.Environ(), "SHARDYARD_SERVICE_PASSWORD")
	if err := cmd.MarkFlagRequired("address"); err != nil {
		panic(err) // the flag is declared above
	}
	return cmd
}

func addShard(cmd *cobra.Command, options shardOptions, name string) error {
	shard := directory.Shard{ID: directory.ShardID(name), State: directory.ShardActive}
	var err error
	if shard.Primary, err = endpointFrom(options.address); err != nil {
		return fmt.Errorf("--address: %w", err)
	}
	for _, text := range options.replicas {
		replica, err := endpointFrom(text)
		if err != nil {
			return fmt.Errorf("--replica: %w", err)
		}
		shard.Replicas = append(shard.Replicas, replica)
	}
	return options.where.withStore(cmd, func(ctx context.Context, store *etcd.Store) error {
		if options.home {
			if err := insistOnHome(ctx, store, shard.ID); err != nil {
				return err
			}
		}
		passwords := map[string]string{}
		if options.password != "" {
			passwords[options.serviceUser] = options.password
		}
		log := slog.New(slog.DiscardHandler)
		pools, err := backend.New(ctx, backend.Config{RouterName: "cli", ServiceUser: options.serviceUser, Passwords: passwords, Log: log})
		if err != nil {
			return err
		}
		defer pools.Close()
		performer, leave, err := node.NewPerformer(ctx, store, pools, "cli", log)
		if err != nil {
			return err
		}
		defer leave()
		if err := node.AddShard(ctx, store, pools, performer, shard); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "shard %s stands at %s:%d\n", shard.ID, shard.Primary.Host, shard.Primary.Port)
		return nil
	})
}

// insistOnHome refuses to add a home shard where another one is.
func insistOnHome(ctx context.Context, store *etcd.Store, id directory.ShardID) error {
	snapshot, err := store.Load(ctx)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load the directory: %w", err)
	}
	if home := snapshot.Cluster.Home; home != id {
		return fmt.Errorf("the home shard is %s already; leave out --home to add %s as a further shard", home, id)
	}
	return nil
}

func endpointFrom(text string) (directory.Endpoint, error) {
	host, portText, err := net.SplitHostPort(text)
	if err != nil || host == "" {
		return directory.Endpoint{}, fmt.Errorf("%q is not host:port", text)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return directory.Endpoint{}, fmt.Errorf("%q is not a port", portText)
	}
	return directory.Endpoint{Host: host, Port: uint16(port)}, nil
}

func newShardListCommand() *cobra.Command {
	var where directoryFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the shards",
		Example: "  shardyard shard list --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return where.withStore(cmd, func(ctx context.Context, store *etcd.Store) error {
				snapshot, err := store.Load(ctx)
				if err != nil {
					return fmt.Errorf("load the directory: %w", err)
				}
				m, err := directory.NewMap(directory.Map{
					ClusterID: snapshot.Cluster.ID, Database: "postgres", Epoch: 1,
					Shards: snapshot.Cluster.Shards, Home: snapshot.Cluster.Home,
				})
				if err != nil {
					return fmt.Errorf("read the list of shards: %w", err)
				}
				result, err := schema.Show(ctx, m, &shardsql.ShowShards{}, nil, store)
				if err != nil {
					return err
				}
				return printResult(cmd, result, asJSON)
			})
		},
	}
	addDirectoryFlags(cmd.Flags(), &where)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
