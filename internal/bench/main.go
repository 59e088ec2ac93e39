// Command bench measures what the router costs: pgbench's select by key, directly, through
// PgBouncer and through Shardyard, interleaved in one run so that a machine whose speed
// drifts does not matter. It writes docs/performance.md and a JSON file beside it.
//
// It is run by `make bench` and may import internal/devcluster.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/shardyard/shardyard/internal/devcluster"
)

// options of one run.
type options struct {
	program string // the shardyard binary
	report  string // docs/performance.md
	results string // JSON
	seconds int    // of each pgbench run
	rounds  int
	scale   int
}

func main() {
	var o options
	flag.StringVar(&o.program, "shardyard", "bin/shardyard", "the binary to measure")
	flag.StringVar(&o.report, "report", "docs/performance.md", "page to write")
	flag.StringVar(&o.results, "json", "docs/performance.json", "results for comparison")
	flag.IntVar(&o.seconds, "seconds", 4, "length of each pgbench run")
	flag.IntVar(&o.rounds, "rounds", 3, "interleaved rounds; ratios are medians over them")
	flag.IntVar(&o.scale, "scale", 5, "pgbench scale: 100,000 rows each")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %s\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cluster, err := devcluster.Start(ctx, devcluster.Config{Shards: 1, Etcd: true, Log: log})
	if err != nil {
		return fmt.Errorf("start the shard: %w", err)
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	bed, err := newTestbed(ctx, cluster, o)
	if err != nil {
		return err
	}
	defer bed.stop()
	if err := bed.load(ctx, o.scale); err != nil {
		return err
	}
	var results []result
	for _, w := range workloads {
		for round := range o.rounds {
			for i := range bed.targets {
				t := bed.targets[(i+round)%len(bed.targets)] // nobody always goes first
				m, err := bed.measure(ctx, t, w, o.seconds)
				if err != nil {
					return fmt.Errorf("measure %s through %s: %w", w, t.name, err)
				}
				results = append(results, result{Workload: w.String(), Target: t.name, Round: round + 1, measurement: m})
				fmt.Printf("%-24s round %d %-10s %9.0f tps %7.1f µs CPU\n", w, round+1, t.name, m.TPS, m.CPUMicros)
			}
		}
	}
	return writeReport(ctx, o, cluster.Binaries(), results)
}

// workload is one way of running pgbench.
type workload struct {
	mode    string // pgbench's -M
	clients int
}

func (w workload) String() string {
	return fmt.Sprintf("%s, %d client%s", w.mode, w.clients, strings.Repeat("s", min(w.clients-1, 1)))
}

var workloads = []workload{
	{"simple", 1}, {"simple", 16},
	{"extended", 1}, {"extended", 16},
	{"prepared", 1}, {"prepared", 16},
}

// measurement is what one pgbench run gave.
type measurement struct {
	// TPS is transactions, here statements, each second.
	TPS float64 `json:"tps"`
	// CPUMicros is the CPU time of the process between client and server for each
	// statement, in microseconds; 0 for the direct connection.
	CPUMicros float64 `json:"cpu_us"`
}

type result struct {
	Workload string `json:"workload"`
	Target   string `json:"target"`
	Round    int    `json:"round"`
	measurement
}

// runTimeout is how much longer than asked a pgbench run may take.
const runTimeout = 30 * time.Second
