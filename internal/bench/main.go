// Command bench measures what the router costs: pgbench's select by key, directly, through
// PgBouncer and through Shardyard; commits, reads and COPY over three shards. What is compared
// is interleaved in one run, so that a machine whose speed drifts does not matter.
// It writes docs/performance.md and a JSON file beside it, which keeps the results
// of sections that are not run.
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
	"regexp"
	"slices"
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
	// copyRows is how many rows each COPY has.
	copyRows int
	// only are the sections to run.
	only *regexp.Regexp
}

func (o options) validate() error {
	if o.seconds < 1 || o.rounds < 1 || o.scale < 1 || o.copyRows < 1 {
		return errors.New("-seconds, -rounds, -scale and -copy-rows must be positive")
	}
	return nil
}

// The sections of the report.
const (
	sectionSelect  = "select"
	sectionCommit  = "commit"
	sectionScatter = "scatter"
	sectionCopy    = "copy"
)

func main() {
	var o options
	flag.StringVar(&o.program, "shardyard", "bin/shardyard", "the binary to measure")
	flag.StringVar(&o.report, "report", "docs/performance.md", "page to write")
	flag.StringVar(&o.results, "json", "docs/performance.json", "results for comparison")
	flag.IntVar(&o.seconds, "seconds", 4, "length of each run, but of COPY")
	flag.IntVar(&o.rounds, "rounds", 3, "interleaved rounds; ratios are medians over them")
	flag.IntVar(&o.scale, "scale", 5, "pgbench scale: 100,000 rows each")
	flag.IntVar(&o.copyRows, "copy-rows", 500_000, "rows of each COPY")
	pattern := flag.String("run", "", "run only the sections that match: select, commit, scatter, copy")
	flag.Parse()
	var err error
	if o.only, err = regexp.Compile(*pattern); err == nil {
		err = o.validate()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: read the flags: %s\n", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %s\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	load := loadAverage()
	var results []result
	if o.only.MatchString(sectionSelect) {
		found, err := runSelect(ctx, o, log)
		if err != nil {
			return err
		}
		results = append(results, found...)
	}
	sections := slices.DeleteFunc(slices.Clone(shardedSections), func(s section) bool { return !o.only.MatchString(s.name) })
	if len(sections) > 0 {
		found, err := runSharded(ctx, o, log, sections)
		if err != nil {
			return err
		}
		results = append(results, found...)
	}
	if len(results) == 0 {
		return fmt.Errorf("no section matches %q", o.only)
	}
	for i := range results {
		results[i].Load = load
	}
	return writeReport(ctx, o, results)
}

// runSelect measures pgbench's select by key on one shard.
func runSelect(ctx context.Context, o options, log *slog.Logger) (results []result, err error) {
	cluster, err := devcluster.Start(ctx, devcluster.Config{Shards: 1, Etcd: true, Log: log})
	if err != nil {
		return nil, fmt.Errorf("start the shard: %w", err)
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	bed, err := newTestbed(ctx, cluster, o)
	if err != nil {
		return nil, err
	}
	defer bed.stop()
	if err := bed.load(ctx, o.scale); err != nil {
		return nil, err
	}
	for _, w := range workloads {
		for round := range o.rounds {
			for i := range bed.targets {
				t := bed.targets[(i+round)%len(bed.targets)] // nobody always goes first
				m, err := bed.measure(ctx, t, w, o.seconds)
				if err != nil {
					return nil, fmt.Errorf("measure %s through %s: %w", w, t.name, err)
				}
				results = append(results, result{Section: sectionSelect, Workload: w.String(), Target: t.name, Round: round + 1, measurement: m})
				fmt.Printf("%-24s round %d %-10s %s\n", w, round+1, t.name, m)
			}
		}
	}
	return results, nil
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

// measurement is what one run gave. What a section does not measure is 0.
type measurement struct {
	// TPS is transactions, or statements, each second.
	TPS float64 `json:"tps,omitempty"`
	// CPUMicros is the CPU time of the process between client and server for each
	// statement, in microseconds; 0 for the direct connection.
	CPUMicros float64 `json:"cpu_us,omitempty"`
	// LatencyMicros is the median, in microseconds: of the COMMIT, or of the statement.
	LatencyMicros float64 `json:"latency_us,omitempty"`
	// RowsPerSecond is the speed of a COPY.
	RowsPerSecond float64 `json:"rows_s,omitempty"`
}

func (m measurement) String() string {
	switch {
	case m.RowsPerSecond > 0:
		return fmt.Sprintf("%9.0f rows/s", m.RowsPerSecond)
	case m.LatencyMicros > 0:
		return fmt.Sprintf("%9.0f tps %7.0f µs", m.TPS, m.LatencyMicros)
	}
	return fmt.Sprintf("%9.0f tps %7.1f µs CPU", m.TPS, m.CPUMicros)
}

type result struct {
	Section  string `json:"section"`
	Workload string `json:"workload"`
	Target   string `json:"target"`
	Round    int    `json:"round"`
	// Load is how many processes of others wanted a processor before the bench began: the machine's load average
	// over a minute. 0 where it is not known.
	Load float64 `json:"load,omitempty"`
	measurement
}

// runTimeout is how much longer than asked a pgbench run may take.
const runTimeout = 30 * time.Second
