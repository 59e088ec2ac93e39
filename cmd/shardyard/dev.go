package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/router"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/loop"
)

// devOptions are the flags of `shardyard dev`.
type devOptions struct {
	shards   int
	replicas int
	listen   string
	data     string
	sample   bool
	once     bool
	logLevel string
}

// stopTimeout bounds the end of the router; the servers have bounds of their own.
const stopTimeout = 10 * time.Second

func newDevCommand() *cobra.Command {
	var options devOptions
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole cluster on this machine, for development",
		Long: `Run a whole cluster on this machine: Postgres shards with replicas, etcd and a router.
Everything listens on loopback only, every role that exists may log in, and all of it
ends with this command. With --data everything is still there at the next start.`,
		Example: `  shardyard dev --shards 3 --replicas 1 --sample
  shardyard dev --data ./cluster --listen 127.0.0.1:7000`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDev(cmd.Context(), options, cmd.OutOrStdout()) },
	}
	flags := cmd.Flags()
	flags.IntVar(&options.shards, "shards", 0, "Postgres primaries; defaults to those of --data, else 3")
	flags.IntVar(&options.replicas, "replicas", 0, "streaming replicas of each primary; defaults to those of --data, else 0")
	flags.StringVar(&options.listen, "listen", "127.0.0.1:6432", "the router's address")
	flags.StringVar(&options.data, "data", "", "folder for the data; without it a temporary one is used and removed")
	flags.BoolVar(&options.sample, "sample", false, "fill a small shop with ten thousand rows and show what goes where")
	flags.BoolVar(&options.once, "once", false, "end after the start (and the tour of --sample)")
	flags.StringVar(&options.logLevel, "log-level", "warn", "debug, info, warn or error")
	return cmd
}

func (o devOptions) validate() error {
	host, _, err := net.SplitHostPort(o.listen)
	if err != nil {
		return fmt.Errorf("--listen: %q is not host:port", o.listen)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("--listen: %s is not a loopback address; dev lets everybody in, use `shardyard serve` for others", host)
	}
	if _, err := (logConfig{Level: o.logLevel}).level(); err != nil {
		return fmt.Errorf("--log-level: %q is none of debug, info, warn, error", o.logLevel)
	}
	return nil
}

func runDev(ctx context.Context, options devOptions, out io.Writer) (err error) {
	if err := options.validate(); err != nil {
		return err
	}
	log := logConfig{Level: options.logLevel, Format: "text"}.logger()
	fmt.Fprintln(out, "starting the shards and etcd ...")
	cluster, err := devcluster.Start(ctx, devcluster.Config{
		Shards: options.shards, Replicas: options.replicas, Dir: options.data, Etcd: true, Log: log,
	})
	if err != nil {
		return fmt.Errorf("start the cluster: %w", err)
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	running, err := startDevRouter(ctx, cluster, options.listen, log)
	if err != nil {
		return err
	}
	defer func() {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err = errors.Join(err, running.Close(stopCtx))
	}()
	connString := fmt.Sprintf("postgres://postgres@%s/postgres", running.Addr())
	if options.sample {
		if err := showSample(ctx, connString, out); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "\nShardyard is up. Connect with:\n  psql %s\n", connString)
	if options.once {
		return nil
	}
	fmt.Fprintln(out, "Ctrl-C ends it.")
	select {
	case <-ctx.Done():
		fmt.Fprintln(out, "stopping ...")
		return nil
	case err := <-running.Failed():
		return fmt.Errorf("serve: %w", err)
	}
}

// startDevRouter registers the shards where they are new, or have new ports, and
// starts the router.
func startDevRouter(ctx context.Context, cluster *devcluster.Cluster, listen string, log *slog.Logger) (*node.Node, error) {
	running, err := node.Start(ctx, node.Config{
		Router:    router.Config{Name: "dev", Listen: listen, AdminUsers: []string{"postgres"}, EventLoop: loop.Supported},
		Pools:     backend.Config{ServiceUser: "postgres"},
		Directory: etcd.Config{Endpoints: cluster.Etcd().Endpoints(), LeaseTTL: 5 * time.Second},
		Bootstrap: cluster.Shards(),
		Log:       log,
	})
	if err != nil {
		return nil, fmt.Errorf("start the router: %w", err)
	}
	return running, nil
}

// showSample fills the shop, with a progress bar where a person watches, and gives the tour.
func showSample(ctx context.Context, connString string, out io.Writer) error {
	fmt.Fprintf(out, "filling a small shop with %d rows ...\n", sampleRows)
	report, done := progressBar(out)
	err := createSample(ctx, connString, sampleSeed, report)
	done()
	if err != nil {
		return err
	}
	return runTour(ctx, connString, out)
}

// sampleSeed makes the sample the same every time.
const sampleSeed = 1

// progressBar draws on a terminal and is silent elsewhere.
func progressBar(out io.Writer) (report func(done, total int), finish func()) {
	file, ok := out.(*os.File)
	if !ok {
		return func(int, int) {}, func() {}
	}
	if info, err := file.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return func(int, int) {}, func() {}
	}
	progress := mpb.New(mpb.WithOutput(out), mpb.WithWidth(40))
	bar := progress.AddBar(sampleRows,
		mpb.PrependDecorators(decor.CountersNoUnit("%d of %d rows")), mpb.AppendDecorators(decor.Percentage()))
	return func(done, _ int) { bar.SetCurrent(int64(done)) }, func() {
		bar.Abort(false)
		progress.Wait()
	}
}
