package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
