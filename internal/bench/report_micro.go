package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const microHead = `## Micro-benchmarks

What the router itself does for a statement, without any connection, in nanoseconds: medians of what ` + "`make bench-micro`" + ` has printed into
[performance-micro.txt](performance-micro.txt). A plan is to be found in less than 1,000 ns and a partition in less than 200, both without allocations (which the
tests of these packages hold). To compare a change with it:

` + "```" + `
make bench-micro > after.txt
go run golang.org/x/perf/cmd/benchstat@latest docs/performance-micro.txt after.txt
` + "```" + `

- *CacheHit*: a statement becomes a plan and a shard: its text is normalised, its plan found in the cache, its literals are read, and the map says where the key is.
  *distinct* does so with 10,000 different statements in random order, each with other literals every time (no memory cache holds all that);
- *Locate* finds the partition of a random key among 100,000, *EntriesLocate* that of a random key of a DIRECTORY table with a million entries. *RandomKey* is what making
  the key takes, and is part of both;
- *EpochChange*: a client does what *CacheHit* does, without a pause, while the map of 100,000 partitions is replaced up to 20 times each second by one with another epoch. *worst-ns* is the
  longest that one of their statements took (it has the new plan to be made in it, the garbage collector's work, and the processors that all of this shares), *p99.99-ns* is what it says.

| benchmark | ns | allocations | |
|---|---|---|---|
`

// microLine is a line of go test -bench: name, iterations, then values and their units.
var microLine = regexp.MustCompile(`^Benchmark([^\s]+?)(?:-\d+)?\s+\d+\s+(.+)$`)

// microShown are the benchmarks that the page shows.
var microShown = regexp.MustCompile(`^(CacheHit|PlanUncached|Locate|EntriesLocate|RandomKey|EpochChange|Normalise|Observe)`)

// reportMicro shows the results of the micro-benchmarks, if there are any.
func reportMicro(page *strings.Builder, file string) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the micro-benchmarks: %w", err)
	}
	var names []string
	values := make(map[string]map[string][]float64)
	for line := range strings.Lines(string(text)) {
		found := microLine.FindStringSubmatch(strings.TrimSpace(line))
		if found == nil || !microShown.MatchString(found[1]) {
			continue
		}
		name, fields := found[1], strings.Fields(found[2])
		if values[name] == nil {
			names = append(names, name)
			values[name] = make(map[string][]float64)
		}
		for pair := range slices.Chunk(fields, 2) {
			if len(pair) < 2 {
				continue
			}
			value, err := strconv.ParseFloat(pair[0], 64)
			if err != nil {
				return fmt.Errorf("read the micro-benchmarks: %w", err)
			}
			values[name][pair[1]] = append(values[name][pair[1]], value)
		}
	}
	page.WriteString(microHead)
	for _, name := range names {
		of := values[name]
		fmt.Fprintf(page, "| %s | %.0f | %.0f |", name, median(of["ns/op"]), median(of["allocs/op"]))
		for _, unit := range []string{"p99.99-ns", "worst-ns"} {
			if len(of[unit]) > 0 {
				fmt.Fprintf(page, " %s %.0f", unit, median(of[unit]))
			}
		}
		page.WriteString(" |\n")
	}
	return nil
}
