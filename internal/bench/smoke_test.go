package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Every section runs, for a moment, and the page has what it measured.
func TestSmoke(t *testing.T) {
	program, err := filepath.Abs("../../bin/shardyard")
	if err != nil {
		t.Fatal(err)
	}
	// Where make build has just built it, this does nothing.
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, "../../cmd/shardyard").CombinedOutput(); err != nil {
		t.Fatalf("build shardyard: %v\n%s", err, out)
	}
	dir := t.TempDir()
	o := options{
		program: program, report: filepath.Join(dir, "page.md"), results: filepath.Join(dir, "results.json"),
		length: 50 * time.Millisecond, rounds: 1, scale: 1, copyRows: 1000, readRows: 3000, idle: 40, smoke: true,
		only: regexp.MustCompile(""),
	}
	if err := run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile(o.results)
	if err != nil {
		t.Fatal(err)
	}
	var results []result
	if err := json.Unmarshal(document, &results); err != nil {
		t.Fatal(err)
	}
	for _, section := range sectionNames {
		if len(workloadsOf(results, section)) == 0 {
			t.Errorf("nothing was measured of %s", section)
		}
	}
	for _, r := range results {
		if r.TPS == 0 && r.RowsPerSecond == 0 {
			t.Errorf("nothing in %+v", r)
		}
	}
	page, err := os.ReadFile(o.report)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"| simple, 1 client | ", "| simple, 1 client | p99 |", "| PgBouncer | 40 |", "| 3000 rows, 4 clients |"} {
		if !strings.Contains(string(page), line) {
			t.Errorf("the page has no line %q", line)
		}
	}
	if strings.Contains(string(page), "%!") {
		t.Errorf("the page has what is not formatted:\n%s", page)
	}
}
