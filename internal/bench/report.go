package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/shardyard/shardyard/internal/devcluster"
)

const reportHead = `# Performance

What the router costs, on one machine, where clients, router and all servers share the processors. What is compared runs
interleaved, a few seconds at a time, in rounds; figures are medians over the rounds, ratios are computed in each round and given
as their median, with the least and the greatest behind it. **Absolute figures are noisy and mean
little, on this machine and on others; the ratios are what to compare.** Where others are at work on the machine the ratios are biased too: what
uses more processes (three shards, for example) then gets more of the processors, and every round trip waits for its turn. Each section
says how busy the machine was (its load average) before the bench began; figures from a machine with a load of more
than about 0.5 are an indication and no more.

- %s, %d processors, %s, Linux %s
- PostgreSQL %s with fsync and synchronous_commit on; %s; Shardyard built with %s

Written by ` + "`make bench`" + `, which takes less than 20 minutes and writes docs/performance.json beside it, to compare with: one object for each run.
` + "`make bench RUN=commit`" + ` repeats one section (select, tpcb, reconnect, idle, scatter, snapshot, commit or copy) and keeps the others;
` + "`BENCH_FLAGS='-seconds 1 -rounds 1 -copy-rows 100000'`" + ` is shorter, and ` + "`BENCH_FLAGS=-long`" + ` measures every combination, with the
goroutine path beside the event loop (about 35 minutes; ` + "`-seconds`" + ` and ` + "`-rounds`" + ` make it longer). ` + "`make bench-micro`" + ` runs the micro-benchmarks, see the end;
` + "`make bench BENCH_FLAGS=-page`" + ` measures nothing and writes the page again.

*direct* is the client on the server itself; *PgBouncer* and *Shardyard* (` + "`shardyard serve`" + ` with its event loop) are processes of their own, with etcd and the
servers outside of them, 20 server connections each, and no TLS to the server. CPU is that of the process between client and server (user and system time of
/proc/<pid>/stat), divided by the statements that clients ran: it says more than throughput where the processors are shared.

`

// writeReport writes the results with those of the sections that were not run, and the page.
func writeReport(ctx context.Context, o options, results []result) error {
	all, err := keepOthers(o.results, results)
	if err != nil {
		return err
	}
	binaries, err := devcluster.FindBinaries(ctx, devcluster.SystemSearch(), slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("find Postgres: %w", err)
	}
	var page strings.Builder
	fmt.Fprintf(&page, reportHead, runtime.GOOS+"/"+runtime.GOARCH, runtime.NumCPU(), processorName(), kernel(),
		binaries.Version, firstLine(ctx, "pgbouncer", "--version"), runtime.Version())
	reportAims(&page, all)
	reportPgbench(&page, all)
	reportIdle(&page, all)
	reportScatter(&page, all)
	reportSnapshot(&page, all)
	reportCommit(&page, all)
	reportCopy(&page, all)
	if err := reportMicro(&page, o.micro); err != nil {
		return err
	}
	if err := os.WriteFile(o.report, []byte(page.String()), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	document, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	if err := os.WriteFile(o.results, append(document, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	fmt.Printf("\n%s\nwritten to %s and %s\n", page.String(), o.report, o.results)
	return nil
}

// keepOthers adds to the results those of earlier runs, of other sections.
func keepOthers(file string, results []result) ([]result, error) {
	document, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return results, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read earlier results: %w", err)
	}
	var earlier []result
	if err := json.Unmarshal(document, &earlier); err != nil {
		return nil, fmt.Errorf("read earlier results: %w", err)
	}
	earlier = slices.DeleteFunc(earlier, func(old result) bool {
		return slices.ContainsFunc(results, func(r result) bool { return r.Section == old.Section })
	})
	all := append(earlier, results...)
	slices.SortStableFunc(all, func(a, b result) int {
		return slices.Index(sectionNames, a.Section) - slices.Index(sectionNames, b.Section)
	})
	return all, nil
}

// conditions are under what a section was measured.
func conditions(results []result, section string) string {
	text := strconv.Itoa(rounds(results, section)) + " rounds"
	for _, r := range results {
		if r.Section == section && r.Load > 0 {
			return fmt.Sprintf("%s; load before: %.1f", text, r.Load)
		}
	}
	return text
}

// loadAverage is the machine's over the last minute, 0 where the system does not tell.
func loadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return load
}

func processorName() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	for line := range strings.Lines(string(info)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return "unknown processor"
}

// kernel is the version of the running kernel.
func kernel() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "of unknown version"
	}
	return strings.TrimSpace(string(release))
}

func firstLine(ctx context.Context, program string, args ...string) string {
	path, err := exec.LookPath(program)
	if err != nil {
		path = "/usr/sbin/" + program
	}
	out, err := exec.CommandContext(ctx, path, args...).Output()
	if err != nil {
		return program + " of unknown version"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}
