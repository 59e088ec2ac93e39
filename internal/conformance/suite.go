package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// suite is one of PostgreSQL's, or pgx's tests.
type suite struct {
	name     string
	dir      string // in the sources
	schedule string
	database string
	// needed are files on which the others build.
	needed []string
}

var suites = []suite{
	{
		name: "regress", dir: "src/test/regress", schedule: "parallel_schedule", database: "regression",
		needed: []string{
			"test_setup", "create_misc", "create_operator", "create_procedure", "create_table", "create_type", "create_index", "create_view",
			"create_function_c", "create_aggregate",
		},
	},
	{name: "isolation", dir: "src/test/isolation", schedule: "isolation_schedule", database: "isolation_regression"},
	{name: pgxSuite, database: "pgx_test"},
}

// outcome is what became of a suite.
type outcome struct {
	Suite string `json:"suite"`
	Files []file `json:"files"`
	// Used is what the router did meanwhile.
	Used usage `json:"used"`
	// Unfinished: the time was up before all files were run.
	Unfinished bool `json:"unfinished,omitempty"`
	// Differences is the file with all differences between the two runs.
	Differences string `json:"differences"`
}

// file is one of a suite's.
type file struct {
	Name string `json:"name"`
	// Direct and Routed tell whether it gave what PostgreSQL's authors expect.
	Direct bool `json:"direct"`
	Routed bool `json:"routed"`
	// Lines is the number of lines in which the two runs differ.
	Lines int `json:"lines"`
	// Again: it differed, and came out alike when it was run again with what it needs alone.
	Again bool `json:"again,omitempty"`
}

// differs reports whether the file comes out differently through the router. A file that passes both ways does not, though its output
// may differ in what the authors allow.
func (f file) differs() bool { return !f.Again && (f.Direct != f.Routed || !f.Routed && f.Lines > 0) }

// runSuite runs a suite directly, unless the cache has the results, and through the router. What differs and is not listed is run
// once more with what it needs alone: on a busy machine timeouts and schedules of the suite itself fail.
func runSuite(ctx context.Context, o options, t *tools, s suite, listed map[string]string) (outcome, error) {
	result, err := runOnce(ctx, o, t, s)
	if err != nil {
		return result, err
	}
	var again []string
	for _, f := range result.Files {
		if f.differs() && listed[s.name+"/"+f.Name] == "" {
			_, name, inPackage := strings.Cut(f.Name, ".")
			if !inPackage {
				name = f.Name
			}
			again = append(again, regexp.QuoteMeta(name))
		}
	}
	if len(again) == 0 {
		return result, nil
	}
	fmt.Fprintf(os.Stderr, "%s: once more, alone: %s\n", s.name, strings.Join(again, " "))
	o.only = regexp.MustCompile("^(?:" + strings.Join(again, "|") + ")$")
	o.out = filepath.Join(o.out, "again")
	second, err := runOnce(ctx, o, t, s)
	if err != nil {
		return result, fmt.Errorf("run again what differed: %w", err)
	}
	for i, f := range result.Files {
		same := func(other file) bool { return other.Name == f.Name && !other.differs() }
		result.Files[i].Again = f.differs() && slices.ContainsFunc(second.Files, same)
	}
	return result, nil
}

func runOnce(ctx context.Context, o options, t *tools, s suite) (outcome, error) {
	schedule, err := s.selected(t, o)
	if err != nil {
		return outcome{}, err
	}
	direct := filepath.Join(o.cache, "direct-"+t.binaries.Version, s.name)
	if o.only != nil {
		direct = filepath.Join(o.out, "direct", s.name)
	}
	passed, err := readPassed(direct)
	if err != nil || o.fresh || o.only != nil || t.builtSince(filepath.Join(direct, passedFile)) {
		if passed, err = s.runDirect(ctx, o, t, schedule, direct); err != nil {
			return outcome{}, err
		}
	}
	routed := filepath.Join(o.out, "routed", s.name)
	found, used, err := s.runRouted(ctx, o, t, schedule, routed)
	unfinished := errors.Is(err, context.DeadlineExceeded) && len(found) > 0
	if err != nil && !unfinished {
		return outcome{}, err
	}
	result := outcome{Suite: s.name, Used: used, Unfinished: unfinished, Differences: filepath.Join(o.out, s.name+".diffs")}
	return result, compare(ctx, &result, direct, passed, routed, found)
}

// selected is the schedule of a run: the suite's own, or the part of it that was asked for.
func (s suite) selected(t *tools, o options) (string, error) {
	if s.name == pgxSuite {
		return "", os.MkdirAll(o.out, 0o755)
	}
	own := filepath.Join(t.sources, s.dir, s.schedule)
	if o.only == nil {
		return own, nil
	}
	text, err := os.ReadFile(own)
	if err != nil {
		return "", err
	}
	var kept strings.Builder
	for line := range strings.Lines(string(text)) {
		names, ok := strings.CutPrefix(strings.TrimSpace(line), "test:")
		if !ok {
			continue
		}
		list := slices.DeleteFunc(strings.Fields(names), func(name string) bool {
			return !o.only.MatchString(name) && !slices.Contains(s.needed, name)
		})
		if len(list) > 0 {
			fmt.Fprintf(&kept, "test: %s\n", strings.Join(list, " "))
		}
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return "", err
	}
	file := filepath.Join(o.out, s.name+".schedule")
	return file, os.WriteFile(file, []byte(kept.String()), 0o644)
}

const passedFile = "passed.json"

func readPassed(dir string) (passed map[string]bool, err error) {
	text, err := os.ReadFile(filepath.Join(dir, passedFile))
	if err != nil {
		return nil, err
	}
	return passed, json.Unmarshal(text, &passed)
}

func (s suite) runDirect(ctx context.Context, o options, t *tools, schedule, dir string) (map[string]bool, error) {
	plain, err := startPlain(ctx, s)
	if err != nil {
		return nil, err
	}
	passed, err := s.run(ctx, o, t, schedule, dir, plain.address, nil)
	if err := errors.Join(err, plain.close()); err != nil {
		return nil, err
	}
	text, err := json.Marshal(passed)
	if err != nil {
		return nil, err
	}
	return passed, os.WriteFile(filepath.Join(dir, passedFile), text, 0o644)
}

func (s suite) runRouted(ctx context.Context, o options, t *tools, schedule, dir string) (map[string]bool, usage, error) {
	b, err := startBed(ctx, o, s)
	if err != nil {
		return nil, usage{}, err
	}
	passed, err := s.run(ctx, o, t, schedule, dir, b.address, b.environment())
	var used usage
	if err == nil {
		used, err = b.usage(ctx, o.only == nil)
	}
	return passed, used, errors.Join(err, b.close(ctx))
}

// verdict is a line of pg_regress about one file.
var verdict = regexp.MustCompile(`^(?:test)?\s+(\S+)\s+\.\.\. (ok|FAILED|failed)`)

// run runs the suite at an address and tells which files passed.
func (s suite) run(ctx context.Context, o options, t *tools, schedule, dir string, at net.Addr, environment []string) (map[string]bool, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	results := filepath.Join(dir, "results")
	if err := os.MkdirAll(results, 0o755); err != nil {
		return nil, err
	}
	if err := os.Chmod(results, 0o777); err != nil { // the servers write files there
		return nil, err
	}
	if s.name == pgxSuite {
		return s.runPgx(ctx, o, t, dir, at)
	}
	host, port, err := net.SplitHostPort(at.String())
	if err != nil {
		return nil, err
	}
	program := t.regress
	if s.name == "isolation" {
		program = t.isolationRegress()
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--use-existing", "--no-locale", "--dbname="+s.database, "--user=postgres", "--host="+host, "--port="+port,
		"--inputdir="+filepath.Join(t.sources, s.dir), "--outputdir="+dir, "--bindir="+t.binaries.Dir, "--dlpath="+t.built,
		"--schedule="+schedule, "--max-concurrent-tests=20")
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + t.binaries.Dir + ":/usr/bin:/bin", "HOME=" + dir, "PGCONNECT_TIMEOUT=30"}, environment...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) } // the programs that it runs, too
	cmd.WaitDelay = 10 * time.Second
	return readVerdicts(ctx, cmd)
}

// readVerdicts runs pg_regress, showing what it says, and collects its verdicts. That files failed is no error.
func readVerdicts(ctx context.Context, cmd *exec.Cmd) (map[string]bool, error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	passed := make(map[string]bool)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fmt.Fprintln(os.Stderr, lines.Text())
		if m := verdict.FindStringSubmatch(lines.Text()); m != nil {
			passed[m[1]] = m[2] == "ok"
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return passed, fmt.Errorf("run %s: %w", cmd.Path, context.Cause(ctx))
	case err != nil && !errors.As(err, &exit):
		return nil, fmt.Errorf("run %s: %w", cmd.Path, err)
	case len(passed) == 0:
		return nil, fmt.Errorf("%s ran no file: %w", cmd.Path, errors.Join(err, lines.Err()))
	}
	return passed, lines.Err()
}
