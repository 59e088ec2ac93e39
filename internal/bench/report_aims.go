package main

import (
	"fmt"
	"slices"
	"strings"
)

// aim is a bound that the router is to keep to.
type aim struct {
	what    string
	section string
	// workloads that it is about; those that were not measured are left out.
	workloads []string
	value     func(of func(target string, value func(measurement) float64) []float64) []float64
	// least is whether the bound is the least value that is good, else it is the greatest.
	least bool
	bound float64
}

func againstPooler(value func(measurement) float64) func(func(string, func(measurement) float64) []float64) []float64 {
	return func(of func(string, func(measurement) float64) []float64) []float64 {
		return ratios(of(targetRouter, value), of(targetPooler, value))
	}
}

func addedAgainstPooler(value func(measurement) float64) func(func(string, func(measurement) float64) []float64) []float64 {
	return func(of func(string, func(measurement) float64) []float64) []float64 {
		direct := of(targetDirect, value)
		if median(direct) == 0 {
			return nil // only a single client's latencies are measured
		}
		return ratios(differences(of(targetRouter, value), direct), differences(of(targetPooler, value), direct))
	}
}

func aims(results []result) []aim {
	many := []string{"simple, 16 clients", "simple, 200 clients", "prepared, 16 clients", "prepared, 200 clients"}
	one := []string{"simple, 1 client", "extended, 1 client", "prepared, 1 client"}
	beside := slices.DeleteFunc(workloadsOf(results, sectionIdle), func(w string) bool { return w == idleAlone })
	return []aim{
		{"select: throughput / PgBouncer's", sectionSelect, many, againstPooler(tps), true, 1},
		{"select: CPU of a statement / PgBouncer's", sectionSelect, many, againstPooler(cpu), false, 1.25},
		{"TPC-B-like: throughput / PgBouncer's", sectionTPCB, many, againstPooler(tps), true, 0.95},
		{"added latency of a single client, p50 / PgBouncer's", sectionSelect, one, addedAgainstPooler(latency), false, 1.3},
		{"added latency of a single client, p99 / PgBouncer's", sectionSelect, one, addedAgainstPooler(p99), false, 1.3},
		{"memory of an idle client, KB", sectionIdle, beside, func(of func(string, func(measurement) float64) []float64) []float64 {
			kilobytes := of(targetRouter, memory)
			for i := range kilobytes {
				kilobytes[i] /= 1024
			}
			return kilobytes
		}, false, 8},
		{"throughput beside idle clients / alone", sectionIdle, beside, func(of func(string, func(measurement) float64) []float64) []float64 {
			return ratios(of(targetRouter, tps), series(results, sectionIdle, idleAlone, targetRouter, tps))
		}, true, 0.95},
	}
}

// reportAims says of each bound how the router keeps to it: by the medians over the rounds.
func reportAims(page *strings.Builder, results []result) {
	var lines strings.Builder
	for _, a := range aims(results) {
		for _, w := range a.workloads {
			values := a.value(func(target string, value func(measurement) float64) []float64 {
				return series(results, a.section, w, target, value)
			})
			if len(values) == 0 {
				continue
			}
			relation, met := "at most", median(values) <= a.bound
			if a.least {
				relation, met = "at least", median(values) >= a.bound
			}
			verdict := "**missed**"
			if met {
				verdict = "met"
			}
			fmt.Fprintf(&lines, "| %s | %s | %s %g | %s | %s |\n", a.what, w, relation, a.bound, spread(values, "%.2f"), verdict)
		}
	}
	if lines.Len() == 0 {
		return
	}
	page.WriteString("## Aims\n\nWhat the short path is to cost, next to PgBouncer, where router, clients and shards share two processors; the sections below have the figures.\n\n" +
		"| aim | workload | bound | measured | |\n|---|---|---|---|---|\n" + lines.String() + "\n")
}
