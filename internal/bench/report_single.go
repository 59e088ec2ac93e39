package main

import (
	"fmt"
	"slices"
	"strings"
)

// reportPgbench reports the sections that pgbench measures.
func reportPgbench(page *strings.Builder, results []result) {
	for _, s := range []struct{ section, title, text string }{
		{sectionSelect, "Select by key", "`pgbench -S`, a SELECT by primary key, on a sharded table of one shard"},
		{sectionTPCB, "Transactions like TPC-B's", "`pgbench`'s default transaction of seven statements, three of them UPDATEs and one an INSERT, on one shard: throughput and CPU are of whole transactions"},
		{sectionReconnect, "A connection for each transaction", "`pgbench -S -C`: each SELECT logs in (without a password) first and disconnects afterwards. With TLS each begins with a handshake, too"},
	} {
		if !has(results, s.section) {
			continue
		}
		fmt.Fprintf(page, "## %s\n\n%s (%s).\n", s.title, s.text, conditions(results, s.section))
		if s.section != sectionReconnect {
			page.WriteString("PgBouncer pools by transaction, but by session, with a server connection for each client, for prepared statements, which this version cannot carry over transactions.\n")
		}
		if s.section == sectionTPCB {
			page.WriteString("*prepared, 200 clients* has a server connection for each client through Shardyard, too: pgbench waits for one client's PREPAREs while its other clients hold transactions open, so that it would stand still with fewer.\n")
		}
		page.WriteString("\n| workload | direct, tps | PgBouncer, tps | Shardyard, tps | PgBouncer / direct | Shardyard / direct | Shardyard / PgBouncer | CPU PgBouncer, µs | CPU Shardyard, µs | CPU ratio |\n" +
			"|---|---|---|---|---|---|---|---|---|---|\n")
		for _, w := range workloadsOf(results, s.section) {
			reportWays(page, results, s.section, w)
		}
		page.WriteString("\n")
		reportLatency(page, results, s.section)
	}
}

// routersOf are the targets of a workload that are this router, and how their lines are named.
func routersOf(results []result, section, workload string) []struct{ target, line string } {
	lines := []struct{ target, line string }{{targetRouter, workload}}
	if len(series(results, section, workload, targetGoroutines, tps)) > 0 {
		lines = append(lines, struct{ target, line string }{targetGoroutines, workload + ", *goroutines*"})
	}
	return lines
}

// reportWays writes the lines of one workload.
func reportWays(page *strings.Builder, results []result, section, workload string) {
	of := func(target string, value func(measurement) float64) []float64 {
		return series(results, section, workload, target, value)
	}
	direct, pooler, poolerCPU := of(targetDirect, tps), of(targetPooler, tps), of(targetPooler, cpu)
	for _, r := range routersOf(results, section, workload) {
		router, routerCPU := of(r.target, tps), of(r.target, cpu)
		fmt.Fprintf(page, "| %s | %.0f | %.0f | %.0f | %.2f | %.2f | %s | %.1f | %.1f | %s |\n", r.line,
			median(direct), median(pooler), median(router),
			median(ratios(pooler, direct)), median(ratios(router, direct)), spread(ratios(router, pooler), "%.2f"),
			median(poolerCPU), median(routerCPU), spread(ratios(routerCPU, poolerCPU), "%.2f"))
	}
}

// reportLatency writes what a single client's transactions take longer than directly.
func reportLatency(page *strings.Builder, results []result, section string) {
	workloads := slices.DeleteFunc(workloadsOf(results, section), func(w string) bool {
		return median(series(results, section, w, targetDirect, p99)) == 0
	})
	if len(workloads) == 0 {
		return
	}
	page.WriteString(`Latency of a single client, in µs: the median and the 99th percentile over all its transactions, and what is added to direct's by what is in between.

| workload | | direct | PgBouncer | Shardyard | PgBouncer adds | Shardyard adds | Shardyard's / PgBouncer's |
|---|---|---|---|---|---|---|---|
`)
	for _, w := range workloads {
		for _, r := range routersOf(results, section, w) {
			for _, p := range []struct {
				name  string
				value func(measurement) float64
			}{{"p50", latency}, {"p99", p99}} {
				direct := series(results, section, w, targetDirect, p.value)
				pooler := series(results, section, w, targetPooler, p.value)
				router := series(results, section, w, r.target, p.value)
				byPooler, byRouter := differences(pooler, direct), differences(router, direct)
				fmt.Fprintf(page, "| %s | %s | %.0f | %.0f | %.0f | %.0f | %.0f | %s |\n", r.line, p.name, median(direct), median(pooler),
					median(router), median(byPooler), median(byRouter), spread(ratios(byRouter, byPooler), "%.2f"))
			}
		}
	}
	page.WriteString("\n")
}

func reportIdle(page *strings.Builder, results []result) {
	if !has(results, sectionIdle) {
		return
	}
	fmt.Fprintf(page, `## Idle clients

`+"`pgbench -S`"+` with %d clients, alone and beside many idle ones (%s), which are in a process of their own, without TLS, and have run one statement each.
The processes in between are new in each round. They are measured alone, beside the idle clients, and alone again: the loss is against the mean of the two.
The memory of an idle client is the growth of the process's resident memory from the end of the first run to that of the second, divided by their number.

| | idle clients | memory of each, KB | alone, tps | beside idle ones, tps | beside / alone | CPU alone, µs | CPU beside, µs |
|---|---|---|---|---|---|---|---|
`, busy.clients, conditions(results, sectionIdle))
	for _, w := range workloadsOf(results, sectionIdle) {
		if w == idleAlone {
			continue
		}
		for _, t := range []struct{ target, line string }{
			{targetPooler, "PgBouncer"}, {targetRouter, "Shardyard"}, {targetGoroutines, "Shardyard, *goroutines*"},
		} {
			of := func(workload string, value func(measurement) float64) []float64 {
				return series(results, sectionIdle, workload, t.target, value)
			}
			alone, beside := of(idleAlone, tps), of(w, tps)
			if len(beside) == 0 {
				continue
			}
			kilobytes := of(w, memory)
			for i := range kilobytes {
				kilobytes[i] /= 1024
			}
			fmt.Fprintf(page, "| %s | %s | %s | %.0f | %.0f | %s | %.1f | %.1f |\n", t.line, strings.Trim(w, "abcdefghijklmnopqrstuvwxyz "),
				spread(kilobytes, "%.1f"), median(alone), median(beside), spread(ratios(beside, alone), "%.2f"),
				median(of(idleAlone, cpu)), median(of(w, cpu)))
		}
	}
	page.WriteString("\n")
}
