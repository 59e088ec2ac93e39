// Command bench measures what the router costs: pgbench directly, through PgBouncer and through Shardyard, in all its
// modes; new connections, idle clients; reads, commits and COPY over three shards. What is compared
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
	"syscall"
	"time"
)

// options of one run.
type options struct {
	program string // the shardyard binary
	report  string // docs/performance.md
	results string // JSON
	micro   string // what make bench-micro has written
	// length is that of each run, but of COPY; pgbench rounds it up to seconds.
	length time.Duration
	rounds int
	scale  int
	// copyRows is how many rows each COPY has.
	copyRows int
	// readRows is how many rows the large read over three shards gives.
	readRows int
	// idle is how many idle clients are beside the busy ones.
	idle int
	// long measures every combination, and the goroutine path beside the event loop.
	long bool
	// smoke runs a few statements of everything: it shows that the bench works, not how fast anything is.
	smoke bool
	// page: nothing is measured, and the page is written again.
	page bool
	// only are the sections to run.
	only *regexp.Regexp
}

func (o options) validate() error {
	if o.length <= 0 || o.rounds < 1 || o.scale < 1 || o.copyRows < 1 || o.readRows < shardCount || o.idle < 1 {
		return errors.New("-seconds, -rounds, -scale, -copy-rows, -read-rows and -idle must be positive")
	}
	return nil
}

// The sections of the report.
const (
	sectionSelect    = "select"
	sectionTPCB      = "tpcb"
	sectionReconnect = "reconnect"
	sectionIdle      = "idle"
	sectionScatter   = "scatter"
	sectionSnapshot  = "snapshot"
	sectionCommit    = "commit"
	sectionCopy      = "copy"
)

// sectionNames are in the order of the report.
var sectionNames = []string{
	sectionSelect, sectionTPCB, sectionReconnect, sectionIdle, sectionScatter, sectionSnapshot, sectionCommit, sectionCopy,
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == connectCommand {
		if err := runConnector(os.Args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s\n", err)
			os.Exit(1)
		}
		return
	}
	o, err := readFlags()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: read the flags: %s\n", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	started := time.Now()
	err = run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %s\n", err)
		os.Exit(1)
	}
	fmt.Printf("took %s\n", time.Since(started).Round(time.Second))
}

func readFlags() (options, error) {
	var o options
	flag.StringVar(&o.program, "shardyard", "bin/shardyard", "the binary to measure")
	flag.StringVar(&o.report, "report", "docs/performance.md", "page to write")
	flag.StringVar(&o.results, "json", "docs/performance.json", "results for comparison")
	flag.StringVar(&o.micro, "micro", "docs/performance-micro.txt", "results of the micro-benchmarks")
	seconds := flag.Int("seconds", 3, "length of each run, but of COPY")
	flag.IntVar(&o.rounds, "rounds", 3, "interleaved rounds; ratios are medians over them")
	flag.IntVar(&o.scale, "scale", 20, "pgbench scale: 100,000 rows each")
	flag.IntVar(&o.copyRows, "copy-rows", 500_000, "rows of each COPY")
	flag.IntVar(&o.readRows, "read-rows", 100_000, "rows of the large read over three shards")
	flag.IntVar(&o.idle, "idle", 10_000, "idle clients beside the busy ones; no more than ulimit -n leaves")
	flag.BoolVar(&o.long, "long", false, "every combination, with TLS and without, and the goroutine path beside the event loop: about 35 minutes with 3 rounds")
	flag.BoolVar(&o.page, "page", false, "measure nothing, write the page again from the results that there are")
	pattern := flag.String("run", "", "run only the sections that match: select, tpcb, reconnect, idle, scatter, snapshot, commit, copy")
	flag.Parse()
	o.length = time.Duration(*seconds) * time.Second
	var err error
	if o.only, err = regexp.Compile(*pattern); err == nil {
		err = o.validate()
	}
	return o, err
}

func run(ctx context.Context, o options) error {
	if o.page {
		return writeReport(ctx, o, nil)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	load := loadAverage()
	var results []result
	for _, bed := range []func(context.Context, options, *slog.Logger) ([]result, error){runSingle, runSharded} {
		found, err := bed(ctx, o, log)
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

// section is a part of the report that is measured on a bed of servers.
type section[B any] struct {
	name    string
	measure func(context.Context, B, options) ([]result, error)
}

// chosen are the sections to run.
func chosen[B any](o options, sections []section[B]) []section[B] {
	return slices.DeleteFunc(slices.Clone(sections), func(s section[B]) bool { return !o.only.MatchString(s.name) })
}

// measureAll runs sections one after the other.
func measureAll[B any](ctx context.Context, bed B, o options, sections []section[B]) (results []result, err error) {
	for _, s := range sections {
		found, err := s.measure(ctx, bed, o)
		if err != nil {
			return nil, fmt.Errorf("measure %s: %w", s.name, err)
		}
		for i := range found {
			found[i].Section = s.name
		}
		results = append(results, found...)
	}
	return results, nil
}

// interleave runs every way of every workload once a round; nobody always goes first.
func interleave(o options, workloads, ways []string, measure func(workload, way int) (measurement, error)) ([]result, error) {
	var results []result
	for w, workload := range workloads {
		for round := range o.rounds {
			for i := range ways {
				way := (i + round) % len(ways)
				m, err := measure(w, way)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", workload, ways[way], err)
				}
				results = append(results, result{Workload: workload, Target: ways[way], Round: round + 1, measurement: m})
				fmt.Printf("%-28s round %d %-34s %s\n", workload, round+1, ways[way], m)
			}
		}
	}
	return results, nil
}
