package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shardyard/shardyard/directory/etcd"
)

// cliTimeout bounds a command that only asks or changes the directory.
const cliTimeout = 30 * time.Second

// directoryFlags tells a command where the directory is. The environment variables
// of `serve` count here too.
type directoryFlags struct {
	endpoints []string
	prefix    string
}

func addDirectoryFlags(flags *pflag.FlagSet, d *directoryFlags) {
	defaults := defaultConfig().Etcd
	if fromEnv, ok := lookupEnviron(os.Environ(), "SHARDYARD_ETCD_ENDPOINTS"); ok {
		defaults.Endpoints = splitList(fromEnv)
	}
	if fromEnv, ok := lookupEnviron(os.Environ(), "SHARDYARD_ETCD_PREFIX"); ok {
		defaults.Prefix = fromEnv
	}
	flags.StringSliceVar(&d.endpoints, "etcd-endpoints", defaults.Endpoints, "etcd members, as host:port")
	flags.StringVar(&d.prefix, "etcd-prefix", defaults.Prefix, "folder of the cluster in etcd")
}

// withStore opens the directory for one command, within cliTimeout.
func (d directoryFlags) withStore(cmd *cobra.Command, run func(ctx context.Context, store *etcd.Store) error) error {
	return d.withStoreFor(cmd, cliTimeout, run)
}

// withStoreFor opens the directory for one command, within the timeout.
func (d directoryFlags) withStoreFor(
	cmd *cobra.Command, timeout time.Duration, run func(ctx context.Context, store *etcd.Store) error,
) (err error) {
	ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
	defer cancel()
	store, err := etcd.Open(ctx, etcd.Config{Endpoints: d.endpoints, Prefix: d.prefix, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fmt.Errorf("open the directory: %w", err)
	}
	defer func() {
		if closeErr := store.Close(); err == nil && closeErr != nil {
			err = fmt.Errorf("close the directory: %w", closeErr)
		}
	}()
	return run(ctx, store)
}

// isNotFound tells that there is no cluster in the directory yet.
func isNotFound(err error) bool { return errors.Is(err, etcd.ErrNotFound) }
