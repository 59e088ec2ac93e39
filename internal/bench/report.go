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
interleaved, a few seconds at a time, in rounds; figures and ratios are medians over the rounds. **Absolute figures are noisy and mean
little, on this machine and on others; the ratios are what to compare.** Where others are at work on the machine the ratios are biased too: what
uses more processes (three shards, for example) then gets more of the processors, and every round trip waits for its turn. Each section
says how busy the machine was (its load average) before the bench began; figures from a machine with a load of more
than about 0.5 are an indication and no more. Written by ` + "`make bench`" + `
(` + "`make bench RUN=commit`" + ` repeats one section: select, commit, scatter or copy; ` + "`BENCH_FLAGS='-seconds 2 -rounds 1 -copy-rows 100000'`" + ` is shorter).

- %s, %d processors, %s
- PostgreSQL %s with fsync and synchronous_commit on; %s; Shardyard built with %s

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
	fmt.Fprintf(&page, reportHead, runtime.GOOS+"/"+runtime.GOARCH, runtime.NumCPU(), processorName(),
		binaries.Version, firstLine(ctx, "pgbouncer", "--version"), runtime.Version())
	reportSelect(&page, all)
	reportCommit(&page, all)
	reportScatter(&page, all)
	reportCopy(&page, all)
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
	order := []string{sectionSelect, sectionCommit, sectionScatter, sectionCopy}
	slices.SortStableFunc(all, func(a, b result) int {
		return slices.Index(order, a.Section) - slices.Index(order, b.Section)
	})
	return all, nil
}

func reportSelect(page *strings.Builder, results []result) {
	const head = `## Select by key

` + "`pgbench -S`" + ` on a sharded table of one shard, directly, through PgBouncer and through Shardyard (%s).
PgBouncer pools by transaction, but by session for prepared statements, which this version cannot carry over transactions.
CPU is that of the process between client and server, for each statement.

| workload | direct, tps | PgBouncer, tps | Shardyard, tps | PgBouncer / direct | Shardyard / direct | Shardyard / PgBouncer | CPU PgBouncer, µs | CPU Shardyard, µs | CPU ratio |
|---|---|---|---|---|---|---|---|---|---|
`
	if !has(results, sectionSelect) {
		return
	}
	fmt.Fprintf(page, head, conditions(results, sectionSelect))
	for _, w := range workloads {
		of := func(target string, value func(measurement) float64) []float64 {
			return series(results, sectionSelect, w.String(), target, value)
		}
		direct, pooler, router := of("direct", tps), of("pgbouncer", tps), of("shardyard", tps)
		poolerCPU, routerCPU := of("pgbouncer", cpu), of("shardyard", cpu)
		fmt.Fprintf(page, "| %s | %.0f | %.0f | %.0f | %.2f | %.2f | %.2f | %.1f | %.1f | %.2f |\n", w,
			median(direct), median(pooler), median(router),
			median(ratios(pooler, direct)), median(ratios(router, direct)), median(ratios(router, pooler)),
			median(poolerCPU), median(routerCPU), median(ratios(routerCPU, poolerCPU)))
	}
}

func tps(m measurement) float64     { return m.TPS }
func cpu(m measurement) float64     { return m.CPUMicros }
func latency(m measurement) float64 { return m.LatencyMicros }
func speed(m measurement) float64   { return m.RowsPerSecond }

func has(results []result, section string) bool { return rounds(results, section) > 0 }

// rounds is how often everything of a section was measured, 0 if it was not.
func rounds(results []result, section string) int {
	most := 0
	for _, r := range results {
		if r.Section == section {
			most = max(most, r.Round)
		}
	}
	return most
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

// series are the values of one workload and target of a section, by round.
func series(results []result, section, workload, target string, value func(measurement) float64) []float64 {
	var values []float64
	for _, r := range results {
		if r.Section == section && r.Workload == workload && r.Target == target {
			values = append(values, value(r.measurement))
		}
	}
	return values
}

func ratios(a, b []float64) []float64 {
	result := make([]float64, len(a))
	for i := range a {
		result[i] = a[i] / b[i]
	}
	return result
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted)%2 == 1 {
		return sorted[len(sorted)/2]
	}
	return (sorted[len(sorted)/2-1] + sorted[len(sorted)/2]) / 2
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

func firstLine(ctx context.Context, program string, args ...string) string {
	out, err := exec.CommandContext(ctx, program, args...).Output()
	if err != nil {
		return program + " of unknown version"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}
