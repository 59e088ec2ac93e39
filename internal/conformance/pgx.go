package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The suite of pgx is its own tests, of the version in go.mod; a file of it is a test, named by its package: pgconn.TestConnect.
const (
	pgxSuite  = "pgx"
	pgxModule = "github.com/jackc/pgx/v5"
)

// pgxPackages are those whose tests connect to a server.
var pgxPackages = []string{".", "./multitracer", "./pgconn", "./pgtype", "./pgtype/zeronull", "./pgxpool", "./stdlib", "./tracelog"}

// runPgx runs pgx's tests at an address. The output of each that fails is kept in dir.
func (s suite) runPgx(ctx context.Context, o options, t *tools, dir string, at net.Addr) (map[string]bool, error) {
	sources, err := pgxSources(ctx, o.cache)
	if err != nil {
		return nil, fmt.Errorf("find the tests of pgx: %w", err)
	}
	host, port, err := net.SplitHostPort(at.String())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	setup := exec.CommandContext(ctx, filepath.Join(t.binaries.Dir, "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", host, "-p", port, "-U", "postgres", "-d", s.database,
		"-f", filepath.Join(sources, "testsetup/postgresql_setup.sql"))
	if said, err := setup.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("set up the database of pgx: %w\n%s", err, said)
	}
	args := []string{"test", "-json", "-count=1", "-p=1", "-timeout=" + o.timeout.String()}
	if o.only != nil {
		args = append(args, "-run="+o.only.String())
	}
	cmd := exec.CommandContext(ctx, "go", append(args, pgxPackages...)...)
	cmd.Dir = sources
	cmd.Env = append(cmd.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod",
		fmt.Sprintf("PGX_TEST_DATABASE=host=%s port=%s user=postgres dbname=%s sslmode=disable", host, port, s.database))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return readEvents(ctx, cmd, dir)
}

// pgxSources copies the module to where its tests can be run, as the module cache is read-only.
func pgxSources(ctx context.Context, cache string) (string, error) {
	text, err := output(ctx, ".", "go", "mod", "download", "-json", pgxModule)
	if err != nil {
		return "", err
	}
	var module struct{ Version, Dir string }
	if err := json.Unmarshal([]byte(text), &module); err != nil {
		return "", fmt.Errorf("read what go mod download says: %w", err)
	}
	dir := filepath.Join(cache, "pgx-"+module.Version)
	if exists(dir) {
		return dir, nil
	}
	return dir, unpack(dir, func(half string) error {
		if _, err := output(ctx, cache, "cp", "-R", module.Dir+"/.", half); err != nil {
			return err
		}
		_, err := output(ctx, cache, "chmod", "-R", "u+w", half)
		return err
	})
}

// event is a line of go test -json.
type event struct{ Action, Package, Test, Output string }

// readEvents runs go test and collects which tests passed; skipped ones count as passed. That tests failed is no error.
func readEvents(ctx context.Context, cmd *exec.Cmd, dir string) (map[string]bool, error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var problems bytes.Buffer
	cmd.Stderr = &problems
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start go test: %w", err)
	}
	tests := pgxTests{dir: dir, passed: make(map[string]bool), said: make(map[string]*strings.Builder)}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if found := tests.note(lines.Bytes()); found != nil {
			err = errors.Join(err, found)
		}
	}
	ended := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return tests.passed, fmt.Errorf("run go test: %w", context.Cause(ctx))
	case ended != nil && !errors.As(ended, &exit):
		return nil, fmt.Errorf("run go test: %w", ended)
	case len(tests.passed) == 0:
		return nil, fmt.Errorf("go test ran no test: %w\n%s", errors.Join(ended, lines.Err()), problems.String())
	}
	return tests.passed, errors.Join(err, lines.Err())
}

// pgxTests collects what is said of tests.
type pgxTests struct {
	dir    string
	passed map[string]bool
	said   map[string]*strings.Builder
}

func (p *pgxTests) note(line []byte) error {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		return fmt.Errorf("read a line of go test: %w", err)
	}
	test, _, part := strings.Cut(e.Test, "/")
	if test == "" {
		return nil
	}
	folder := path.Base(strings.TrimPrefix(e.Package, pgxModule))
	if folder == "." || folder == "/" {
		folder = "pgx"
	}
	name := folder + "." + test
	if p.said[name] == nil {
		p.said[name] = new(strings.Builder)
	}
	switch {
	case e.Action == "output":
		p.said[name].WriteString(e.Output)
	case part:
	case e.Action == "pass" || e.Action == "skip":
		p.passed[name] = true
		delete(p.said, name)
	case e.Action == "fail":
		p.passed[name] = false
		fmt.Fprintf(os.Stderr, "%s failed\n", name)
		return os.WriteFile(filepath.Join(p.dir, "results", name+".out"), []byte(p.said[name].String()), 0o644)
	}
	return nil
}

// saidOf is what a test said when it failed through the router.
func saidOf(routed, name string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(routed, "results", name+".out"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return text, err
}
