// Command conformance runs PostgreSQL's own regression and isolation suites, and the tests of pgx, through the router, in transaction
// pooling, on a database that also holds a sharded table, and the same directly on a plain PostgreSQL of the same version. It tells
// which files and tests come out differently.
//
// It is run by `make conformance`, keeps sources and what is built of them in a cache, and may import internal/devcluster,
// internal/node and what these do.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options of one run.
type options struct {
	cache   string // folder of sources, programs and direct results
	out     string // folder of the results
	page    string // docs/compatibility.md
	json    bool
	fresh   bool // run directly again
	suites  []string
	only    *regexp.Regexp
	shards  int
	timeout time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.cache, "cache", defaultCache(), "folder that keeps sources, what is built of them, and direct results")
	flag.StringVar(&o.out, "out", "", "folder for results and differences (default: a folder in the cache)")
	flag.StringVar(&o.page, "page", "docs/compatibility.md", "page that lists the files that differ, and why")
	flag.BoolVar(&o.json, "json", false, "print the results as JSON")
	flag.BoolVar(&o.fresh, "fresh", false, "run the direct side anew instead of taking its results from the cache")
	flag.IntVar(&o.shards, "shards", 2, "shards behind the router")
	flag.DurationVar(&o.timeout, "timeout", 20*time.Minute, "how long one run of one suite may take")
	suites := flag.String("suites", "regress,isolation,pgx", "suites to run")
	pattern := flag.String("run", "", "run only the files that match, and what they need")
	flag.Parse()
	o.suites = strings.Split(*suites, ",")
	var err error
	if *pattern != "" {
		o.only, err = regexp.Compile("^(?:" + *pattern + ")$")
	}
	if err == nil {
		err = o.validate()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "conformance: read the flags: %s\n", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "conformance: %s\n", err)
		os.Exit(1)
	}
}

func (o *options) validate() error {
	for _, name := range o.suites {
		if !slices.ContainsFunc(suites, func(s suite) bool { return s.name == name }) {
			return fmt.Errorf("there is no suite %q: regress, isolation, pgx", name)
		}
	}
	if o.shards < 1 || o.timeout <= 0 {
		return errors.New("-shards and -timeout must be positive")
	}
	if o.out == "" {
		o.out = filepath.Join(o.cache, "results")
	}
	var err error
	if o.cache, err = filepath.Abs(o.cache); err == nil {
		o.out, err = filepath.Abs(o.out)
	}
	return err
}

// defaultCache is in the user's cache folder; root's is one that the servers, which run as somebody else, can enter.
func defaultCache() string {
	const name = "shardyard/conformance"
	folder, err := os.UserCacheDir()
	if os.Geteuid() == 0 || err != nil {
		return filepath.Join("/var/cache", name)
	}
	return filepath.Join(folder, name)
}

func run(ctx context.Context, o options) error {
	listed, err := readReasons(o.page)
	if err != nil {
		return err
	}
	t, err := prepareTools(ctx, o.cache)
	if err != nil {
		return err
	}
	var all []outcome
	for _, s := range suites {
		if !slices.Contains(o.suites, s.name) {
			continue
		}
		found, err := runSuite(ctx, o, t, s, listed)
		if err != nil {
			return fmt.Errorf("run suite %s: %w", s.name, err)
		}
		all = append(all, found)
	}
	if o.json {
		document, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			return fmt.Errorf("write the results: %w", err)
		}
		fmt.Fprintln(os.Stdout, string(document))
	} else {
		printOutcomes(os.Stdout, all)
	}
	return checkListed(all, listed)
}
