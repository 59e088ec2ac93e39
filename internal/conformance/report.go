package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// compare fills in a result from the two runs of a suite.
func compare(ctx context.Context, o *outcome, direct string, passed map[string]bool, routed string, found map[string]bool) error {
	var all bytes.Buffer
	if o.Suite == pgxSuite && !o.Unfinished { // a test that was not run, as one before it ended the program, has not passed
		for name := range passed {
			if _, ran := found[name]; !ran {
				found[name] = false
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		f := file{Name: name, Direct: passed[name], Routed: found[name]}
		text, err := saidOf(routed, name)
		if o.Suite != pgxSuite {
			text, err = difference(ctx, filepath.Join(direct, "results", name+".out"), filepath.Join(routed, "results", name+".out"))
			f.Lines = changedLines(text)
		}
		if err != nil {
			return err
		}
		if f.differs() {
			fmt.Fprintf(&all, "### %s: direct %s, routed %s\n%s", name, mark(f.Direct), mark(f.Routed), text)
		}
		o.Files = append(o.Files, f)
	}
	return os.WriteFile(o.Differences, all.Bytes(), 0o644)
}

func changedLines(difference []byte) (n int) {
	for line := range bytes.Lines(difference) {
		if (line[0] == '-' || line[0] == '+') && !bytes.HasPrefix(line, []byte("---")) && !bytes.HasPrefix(line, []byte("+++")) {
			n++
		}
	}
	return n
}

// difference compares as pg_regress does.
func difference(ctx context.Context, direct, routed string) ([]byte, error) {
	text, err := exec.CommandContext(ctx, "diff", "-w", "-a", "-U3", direct, routed).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return text, nil
	}
	if err != nil {
		return nil, fmt.Errorf("compare %s with %s: %w", direct, routed, err)
	}
	return text, nil
}

func mark(passed bool) string {
	if passed {
		return "ok"
	}
	return "fails"
}

// printOutcomes prints a table of the files that differ.
func printOutcomes(w io.Writer, all []outcome) {
	for _, o := range all {
		var direct, routed, differing int
		for _, f := range o.Files {
			if f.Direct {
				direct++
			}
			if f.Routed {
				routed++
			}
			if f.differs() {
				differing++
			}
		}
		fmt.Fprintf(w, "\n%s: %d files; %d pass directly, %d through the router; %d differ\n", o.Suite, len(o.Files), direct, routed, differing)
		if o.Unfinished {
			fmt.Fprintln(w, "  the time was up (-timeout): not all files were run through the router")
		}
		fmt.Fprintf(w, "  plans: %d made, %d taken from the cache; rows of the sharded table on the shards: %v\n", o.Used.Planned, o.Used.Cached, o.Used.Sharded)
		for _, f := range o.Files {
			if f.differs() {
				fmt.Fprintf(w, "  %-32s direct %-6s routed %-6s %5d lines\n", f.Name, mark(f.Direct), mark(f.Routed), f.Lines)
			}
			if f.Again {
				fmt.Fprintf(w, "  %-32s differed; alike when it was run again, alone\n", f.Name)
			}
		}
		fmt.Fprintf(w, "  differences: %s\n", o.Differences)
	}
}

// reason is a row of the page: | suite | file | reason |.
var reason = regexp.MustCompile("^\\| (regress|isolation|pgx) \\| `?([A-Za-z0-9_.-]+)`? \\| (.+) \\|$")

// readReasons reads which files the page lists, as suite/file.
func readReasons(page string) (map[string]string, error) {
	text, err := os.ReadFile(page)
	if err != nil {
		return nil, fmt.Errorf("read the reasons: %w", err)
	}
	listed := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		if m := reason.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			listed[m[1]+"/"+m[2]] = m[3]
		}
	}
	return listed, nil
}

// checkListed fails if a file differs that the page does not list, or files were not run.
func checkListed(all []outcome, listed map[string]string) error {
	var missing []string
	for _, o := range all {
		if o.Unfinished {
			return fmt.Errorf("the time was up before all of suite %s was run", o.Suite)
		}
		for _, f := range o.Files {
			if name := o.Suite + "/" + f.Name; f.differs() && listed[name] == "" {
				missing = append(missing, name)
			}
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%d files differ that docs/compatibility.md does not list: %s", len(missing), strings.Join(missing, ", "))
	}
	return nil
}
