package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"github.com/shardyard/shardyard/internal/devcluster"
)

const reportHead = `# Performance

What the router costs: pgbench's select by key (%s -S) on a sharded table of one shard, directly,
through PgBouncer and through Shardyard, on one machine. The runs are interleaved (%d rounds of %d s each); the
ratios are medians over the rounds. Absolute figures of such a machine mean little; the ratios are what to compare.
Written by ` + "`make bench`" + `.

- %s, %d processors, %s
- PostgreSQL %s; %s; Shardyard built with %s
- PgBouncer pools by transaction, but by session for prepared statements, which this version cannot carry over transactions.
  CPU is that of the process between client and server, for each statement.

| workload | direct, tps | PgBouncer, tps | Shardyard, tps | PgBouncer / direct | Shardyard / direct | Shardyard / PgBouncer | CPU PgBouncer, µs | CPU Shardyard, µs | CPU ratio |
|---|---|---|---|---|---|---|---|---|---|
`

func writeReport(ctx context.Context, o options, binaries devcluster.Binaries, results []result) error {
	var page strings.Builder
	fmt.Fprintf(&page, reportHead, "`pgbench`", o.rounds, o.seconds, runtime.GOOS+"/"+runtime.GOARCH, runtime.NumCPU(), processorName(),
		binaries.Version, firstLine(ctx, "pgbouncer", "--version"), runtime.Version())
	for _, w := range workloads {
		of := func(target string, value func(measurement) float64) []float64 {
			return series(results, w, target, value)
		}
		tps := func(m measurement) float64 { return m.TPS }
		cpu := func(m measurement) float64 { return m.CPUMicros }
		direct, pooler, router := of("direct", tps), of("pgbouncer", tps), of("shardyard", tps)
		poolerCPU, routerCPU := of("pgbouncer", cpu), of("shardyard", cpu)
		fmt.Fprintf(&page, "| %s | %.0f | %.0f | %.0f | %.2f | %.2f | %.2f | %.1f | %.1f | %.2f |\n", w,
			median(direct), median(pooler), median(router),
			median(ratios(pooler, direct)), median(ratios(router, direct)), median(ratios(router, pooler)),
			median(poolerCPU), median(routerCPU), median(ratios(routerCPU, poolerCPU)))
	}
	if err := os.WriteFile(o.report, []byte(page.String()), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	document, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	if err := os.WriteFile(o.results, append(document, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	fmt.Printf("\n%s\nwritten to %s and %s\n", page.String(), o.report, o.results)
	return nil
}

// series are the values of one workload and target, by round.
func series(results []result, w workload, target string, value func(measurement) float64) []float64 {
	var values []float64
	for _, r := range results {
		if r.Workload == w.String() && r.Target == target {
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
