package main

import (
	"fmt"
	"strings"
)

func reportCommit(page *strings.Builder, results []result) {
	const head = `## Commit over several shards

Transactions of two UPDATEs by primary key (%s), all with the same client, on three shards of one disk:

- *%s*: BEGIN, two UPDATEs, COMMIT on one server, without the router;
- *%s* and *%s*: the same through the router, which commits in one phase and in two (last-agent two-phase commit);
- *%s*: no router, the client itself updates one row on each of two servers, then runs PREPARE TRANSACTION on both at once, commits a decision
  record on the first, and runs COMMIT PREPARED on both at once.

Latency is the median of the commit alone, throughput that of whole transactions.

| clients | way | commit, µs | / one shard | / textbook | transactions/s | / one shard | / textbook |
|---|---|---|---|---|---|---|---|
`
	if !has(results, sectionCommit) {
		return
	}
	fmt.Fprintf(page, head, conditions(results, sectionCommit), commitPlain, commitOne, commitTwo, commitTextbook)
	for _, clients := range clientNames {
		of := func(way string, value func(measurement) float64) []float64 {
			return series(results, sectionCommit, clients, way, value)
		}
		for _, way := range commitWays {
			fmt.Fprintf(page, "| %s | %s", clients, way)
			for _, value := range []func(measurement) float64{latency, tps} {
				own := of(way, value)
				fmt.Fprintf(page, " | %.0f | %s | %s", median(own), spread(ratios(own, of(commitOne, value)), "%.2f"),
					spread(ratios(own, of(commitTextbook, value)), "%.2f"))
			}
			page.WriteString(" |\n")
		}
	}
	page.WriteString("\n")
}

func reportScatter(page *strings.Builder, results []result) {
	const head = `## Reading over several shards

A read that says nothing of the shard key (%s): one row by another indexed column, which each of three shards is asked for, and a whole table. *direct* and *PgBouncer* are
one server with all the rows; Shardyard's are spread evenly over three servers, which here share the processors, and are read in one snapshot of the cluster.

| read | direct, µs | PgBouncer, µs | Shardyard, µs | Shardyard / direct | Shardyard / PgBouncer | direct, reads/s | PgBouncer, reads/s | Shardyard, reads/s | Shardyard / PgBouncer | CPU PgBouncer, µs | CPU Shardyard, µs |
|---|---|---|---|---|---|---|---|---|---|---|---|
`
	if !has(results, sectionScatter) {
		return
	}
	fmt.Fprintf(page, head, conditions(results, sectionScatter))
	for _, w := range workloadsOf(results, sectionScatter) {
		of := func(target string, value func(measurement) float64) []float64 {
			return series(results, sectionScatter, w, target, value)
		}
		for _, r := range routersOf(results, sectionScatter, w) {
			fmt.Fprintf(page, "| %s | %.0f | %.0f | %.0f | %s | %s | %.0f | %.0f | %.0f | %s | %.0f | %.0f |\n", r.line,
				median(of(targetDirect, latency)), median(of(targetPooler, latency)), median(of(r.target, latency)),
				spread(ratios(of(r.target, latency), of(targetDirect, latency)), "%.2f"),
				spread(ratios(of(r.target, latency), of(targetPooler, latency)), "%.2f"),
				median(of(targetDirect, tps)), median(of(targetPooler, tps)), median(of(r.target, tps)),
				spread(ratios(of(r.target, tps), of(targetPooler, tps)), "%.2f"),
				median(of(targetPooler, cpu)), median(of(r.target, cpu)))
		}
	}
	page.WriteString("\n")
}

func reportSnapshot(page *strings.Builder, results []result) {
	const head = `## Reading over several shards in one snapshot

A SELECT of 100 rows, found by an index, spread evenly over three shards, in autocommit (%s): with ` + "`shardyard.snapshot = cluster`" + `, the
default, and with ` + "`off`" + `, where each shard shows a moment of its own.

| clients | cluster, µs | off, µs | cluster / off | cluster, statements/s | off, statements/s | cluster / off |
|---|---|---|---|---|---|---|
`
	if !has(results, sectionSnapshot) {
		return
	}
	fmt.Fprintf(page, head, conditions(results, sectionSnapshot))
	for _, clients := range clientNames {
		fmt.Fprintf(page, "| %s", clients)
		for _, value := range []func(measurement) float64{latency, tps} {
			gated := series(results, sectionSnapshot, clients, snapshotCluster, value)
			free := series(results, sectionSnapshot, clients, snapshotOff, value)
			fmt.Fprintf(page, " | %.0f | %.0f | %s", median(gated), median(free), spread(ratios(gated, free), "%.2f"))
		}
		page.WriteString(" |\n")
	}
	page.WriteString("\n")
}

func reportCopy(page *strings.Builder, results []result) {
	const head = `## COPY FROM

The same rows in one COPY … FROM STDIN in text format, into an empty table with a primary key (%s): into one Postgres without the router, through the
router into a table that is not sharded, and through the router into a table sharded by hash over three shards, committed in two
phases. Three shards on machines of their own would share the work; here router and shards take turns on the same processors.

| rows | directly, rows/s | one shard, rows/s | three shards, rows/s | one shard / directly | three shards / directly |
|---|---|---|---|---|---|
`
	if !has(results, sectionCopy) {
		return
	}
	fmt.Fprintf(page, head, conditions(results, sectionCopy))
	for _, name := range workloadsOf(results, sectionCopy) {
		of := func(way string) []float64 { return series(results, sectionCopy, name, way, speed) }
		direct, whole, sharded := of(copyDirect), of(copyUnsharded), of(copySharded)
		fmt.Fprintf(page, "| %s | %.0f | %.0f | %.0f | %s | %s |\n", name, median(direct), median(whole), median(sharded),
			spread(ratios(whole, direct), "%.2f"), spread(ratios(sharded, direct), "%.2f"))
	}
	page.WriteString("\n")
}
