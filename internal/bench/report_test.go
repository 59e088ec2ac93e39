package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A run of one section replaces its earlier results and keeps those of the others.
func TestResultsOfOtherSectionsAreKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.json")
	commitOf := func(way string, tps float64) result {
		return result{Section: sectionCommit, Workload: clientNames[0], Target: way, Round: 1, measurement: measurement{TPS: tps, LatencyMicros: tps}}
	}
	copyOf := func(way string, speed float64) result {
		return result{Section: sectionCopy, Workload: "rows", Target: way, Round: 1, measurement: measurement{RowsPerSecond: speed}}
	}
	earlier := []result{commitOf(commitOne, 1), copyOf(copyDirect, 1000), copyOf(copyUnsharded, 900), copyOf(copySharded, 800)}
	document, err := json.Marshal(earlier)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, document, 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := keepOthers(file, []result{commitOf(commitOne, 2), commitOf(commitTwo, 3)})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 5 || all[0].TPS != 2 || all[1].TPS != 3 || all[4].RowsPerSecond != 800 {
		t.Errorf("got %+v", all)
	}
	all[2].Load = 1.25
	var page strings.Builder
	reportCopy(&page, all)
	if want := "(1 rounds; load before: 1.2)"; !strings.Contains(page.String(), want) {
		t.Errorf("the page does not say %s:\n%s", want, page.String())
	}
	if want := "| rows | 1000 | 900 | 800 | 0.90 | 0.80 |"; !strings.Contains(page.String(), want) {
		t.Errorf("the page has no line %s:\n%s", want, page.String())
	}
}

// The first run has no earlier results.
func TestResultsWithoutAFile(t *testing.T) {
	all, err := keepOthers(filepath.Join(t.TempDir(), "none.json"), []result{{Section: sectionSelect}})
	if err != nil || len(all) != 1 {
		t.Errorf("got %v, %v", all, err)
	}
}

// Ratios are computed in each round; what was not measured has none.
func TestRatiosOfRounds(t *testing.T) {
	var results []result
	add := func(target string, values ...float64) {
		for i, value := range values {
			results = append(results, result{Section: sectionSelect, Workload: "w", Target: target, Round: i + 1, measurement: measurement{TPS: value, CPUMicros: value}})
		}
	}
	add(targetDirect, 100, 200, 400)
	add(targetPooler, 50, 100, 100)
	add(targetRouter, 60, 90, 100)
	var page strings.Builder
	reportPgbench(&page, results)
	if want := "| w | 200 | 100 | 90 | 0.50 | 0.45 | 1.00 (0.90–1.20) | 100.0 | 90.0 | 1.00 (0.90–1.20) |"; !strings.Contains(page.String(), want) {
		t.Errorf("the page has no line %s:\n%s", want, page.String())
	}
	if got := spread(ratios(nil, []float64{1}), "%.2f"); got != "–" {
		t.Errorf("a ratio of nothing is %s", got)
	}
}

// What go test -bench prints is summed up over its repetitions.
func TestMicroBenchmarks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "micro.txt")
	text := `goos: linux
BenchmarkLocate/hash/int8-2   	 1000	       90.1 ns/op	       0 B/op	       0 allocs/op
BenchmarkLocate/hash/int8-2   	 1000	       110.1 ns/op	       0 B/op	       0 allocs/op
BenchmarkLocate/hash/int8-2   	 1000	       300.4 ns/op	       0 B/op	       0 allocs/op
BenchmarkEpochChange-2   	 1000	       700 ns/op	  4000 p99.99-ns	 90000 worst-ns
BenchmarkOther-2   	 1000	       700 ns/op
ok  	github.com/shardyard/shardyard/directory	1s
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var page strings.Builder
	if err := reportMicro(&page, file); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| Locate/hash/int8 | 110 | 0 | |", "| EpochChange | 700 | 0 | p99.99-ns 4000 worst-ns 90000 |"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page has no line %s:\n%s", want, page.String())
		}
	}
	if strings.Contains(page.String(), "Other") {
		t.Errorf("the page has what it should not show:\n%s", page.String())
	}
}

func TestLatenciesOfPgbench(t *testing.T) {
	got, err := readLatencies(strings.NewReader("0 1 300 0 1700000000 1\n0 2 100 0 1700000000 2\n0 3 200 0 1700000000 3\n"))
	if err != nil || len(got) != 3 || percentile(got, 50) != 200*time.Microsecond || percentile(got, 99) != 300*time.Microsecond {
		t.Errorf("%v, %v", got, err)
	}
	for _, broken := range []string{"", "0 1\n", "0 1 x 0\n"} {
		if _, err := readLatencies(strings.NewReader(broken)); err == nil {
			t.Errorf("%q is read", broken)
		}
	}
}

func TestAnswerOfPgbench(t *testing.T) {
	var r pgbenchRun
	if err := r.read([]byte("number of transactions actually processed: 1200\ntps = 400.5 (without initial connection time)\n")); err != nil || r.tps != 400.5 || r.transactions != 1200 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := r.read([]byte("number of transactions actually processed: 10/10\ntps = 99.9 (including reconnection times)\n")); err != nil || r.tps != 99.9 || r.transactions != 10 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := r.read([]byte("number of transactions actually processed: 0\n")); !errors.Is(err, errNothingDone) {
		t.Errorf("nothing done: %v", err)
	}
	if err := r.read([]byte("pgbench: error\n")); err == nil {
		t.Error("an error is read as an answer")
	}
}

// An aim is met or missed by the median; what was not measured is not spoken of.
func TestAims(t *testing.T) {
	var results []result
	add := func(section, workload, target string, m measurement) {
		results = append(results, result{Section: section, Workload: workload, Target: target, Round: 1, measurement: m})
	}
	add(sectionSelect, "simple, 16 clients", targetPooler, measurement{TPS: 100, CPUMicros: 10})
	add(sectionSelect, "simple, 16 clients", targetRouter, measurement{TPS: 110, CPUMicros: 13})
	add(sectionSelect, "simple, 1 client", targetDirect, measurement{LatencyMicros: 50, P99Micros: 100})
	add(sectionSelect, "simple, 1 client", targetPooler, measurement{LatencyMicros: 60, P99Micros: 120})
	add(sectionSelect, "simple, 1 client", targetRouter, measurement{LatencyMicros: 62, P99Micros: 130})
	add(sectionIdle, idleAlone, targetRouter, measurement{TPS: 100})
	add(sectionIdle, idleBeside(10), targetRouter, measurement{TPS: 96, IdleBytes: 7168})
	var page strings.Builder
	reportAims(&page, results)
	for _, want := range []string{
		"| select: throughput / PgBouncer's | simple, 16 clients | at least 1 | 1.10 | met |",
		"| select: CPU of a statement / PgBouncer's | simple, 16 clients | at most 1.25 | 1.30 | **missed** |",
		"| added latency of a single client, p50 / PgBouncer's | simple, 1 client | at most 1.3 | 1.20 | met |",
		"| added latency of a single client, p99 / PgBouncer's | simple, 1 client | at most 1.3 | 1.50 | **missed** |",
		"| memory of an idle client, KB | beside 10 idle clients | at most 8 | 7.00 | met |",
		"| throughput beside idle clients / alone | beside 10 idle clients | at least 0.95 | 0.96 | met |",
	} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page has no line %s:\n%s", want, page.String())
		}
	}
	if strings.Contains(page.String(), "TPC-B") || strings.Contains(page.String(), "200 clients") {
		t.Errorf("the page speaks of what was not measured:\n%s", page.String())
	}
}
