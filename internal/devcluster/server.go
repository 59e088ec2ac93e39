package devcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// How long each step of stopping a server may take before the next, harsher one.
const (
	fastShutdown      = 20 * time.Second
	immediateShutdown = 10 * time.Second
	killedShutdown    = 10 * time.Second
)

// largestLog is the size at which a server's log is set aside when the server starts.
const largestLog = 16 << 20

// server is one PostgreSQL server and its data directory. Its methods are safe for concurrent use.
type server struct {
	name     string // "s1", "s1_replica1"
	dir      string // data directory
	logFile  string
	who      account
	binaries Binaries
	guard    *supervisor
	log      *slog.Logger
	timeout  time.Duration
	settings func(s *server) []setting // evaluated at each start

	mu   sync.Mutex
	port uint16
	run  *process // nil before the first start
}

// process is a running (or ended) postmaster.
type process struct {
	cmd    *exec.Cmd
	ended  chan struct{} // closed after the process was waited for
	err    error         // how it ended; read after ended is closed
	paused []int         // children that pause stopped
}

func (p *process) isAlive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// initdb makes the data directory.
func (s *server) initdb(ctx context.Context, cfg Config, durable bool) error {
	if err := s.who.makeDir(filepath.Dir(s.dir)); err != nil {
		return err
	}
	args := []string{"-D", s.dir, "-U", superuser, "-A", "trust", "-E", "UTF8", "--locale=" + cfg.Locale}
	if cfg.ICULocale != "" {
		args = append(args, "--locale-provider=icu", "--icu-locale="+cfg.ICULocale)
	}
	if !durable {
		args = append(args, "--no-sync")
	}
	out, err := s.who.command(ctx, filepath.Dir(s.dir), s.binaries.Path("initdb"), args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("run initdb for %s: %w: %s", s.name, err, lastLines(out, 10))
	}
	return nil
}

// start starts the server and waits until it accepts connections. If somebody has taken its port and mayMove is set,
// it moves to another port. It does nothing if the server runs already.
func (s *server) start(ctx context.Context, mayMove bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run != nil && s.run.isAlive() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	_, err := onPort(ctx, s.port, mayMove, func(port uint16) error {
		s.port = port
		return s.startOnce(ctx)
	})
	if err != nil {
		return err
	}
	s.log.Info("server started", "server", s.name, "port", s.port)
	return nil
}

func (s *server) startOnce(ctx context.Context) error {
	if err := s.writeSettings(); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	run, err := s.launch()
	if err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	s.run = run
	if err := s.awaitReady(ctx, run); err != nil {
		return fmt.Errorf("start %s: %w", s.name, errors.Join(err, s.stopLocked(false)))
	}
	return nil
}

// launch starts the postmaster. It runs behind a shell that waits for a word from us, said after the supervisor knows
// the pid: so at no moment does a server run that nobody would stop if we died.
func (s *server) launch() (run *process, err error) {
	if info, err := os.Stat(s.logFile); err == nil && info.Size() > largestLog {
		if err := os.Rename(s.logFile, s.logFile+".old"); err != nil {
			return nil, fmt.Errorf("set the log aside: %w", err)
		}
	}
	logFile, err := os.OpenFile(s.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	defer func() { err = errors.Join(err, logFile.Close()) }()
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make the starting pipe: %w", err)
	}
	defer func() { err = errors.Join(err, writer.Close()) }()

	cmd := s.who.command(context.Background(), s.dir, "/bin/sh", //nolint:forbidigo // a server lives until it is stopped, not until a caller's context ends
		"-c", `read -r _ && exec "$0" "$@" </dev/null`, s.binaries.Path("postgres"), "-D", s.dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = reader, logFile, logFile
	err = cmd.Start()
	closeErr := reader.Close()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", s.binaries.Path("postgres"), err)
	}
	run = &process{cmd: cmd, ended: make(chan struct{})}
	watchErr := errors.Join(closeErr, s.guard.watch(cmd.Process.Pid))
	go func() {
		run.err = cmd.Wait()
		if err := s.guard.forget(cmd.Process.Pid); err != nil {
			s.log.Warn("supervisor not told of a server's end", "server", s.name, "error", err)
		}
		close(run.ended)
	}()
	if watchErr == nil {
		_, watchErr = writer.WriteString("go\n")
	}
	if watchErr != nil {
		killErr := cmd.Process.Kill()
		<-run.ended
		return nil, fmt.Errorf("run %s: %w", s.binaries.Path("postgres"), errors.Join(watchErr, killErr))
	}
	return run, nil
}

// awaitReady waits until the server accepts connections. It reads postmaster.pid as pg_ctl does, rather than
// connecting, because whoever answers on the port might be somebody else's server.
func (s *server) awaitReady(ctx context.Context, run *process) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !s.isReady(run.cmd.Process.Pid) {
		select {
		case <-run.ended:
			return fmt.Errorf("it ended at once: %w: %s", run.err, s.logTail(10))
		case <-ctx.Done():
			return fmt.Errorf("it does not get ready: %w: %s", ctx.Err(), s.logTail(10))
		case <-tick.C:
		}
	}
	return nil
}

func (s *server) isReady(pid int) bool {
	text, err := os.ReadFile(filepath.Join(s.dir, "postmaster.pid"))
	if err != nil {
		return false
	}
	const pidLine, statusLine = 0, 7
	lines := strings.Split(string(text), "\n")
	return len(lines) > statusLine && lines[pidLine] == strconv.Itoa(pid) && strings.TrimSpace(lines[statusLine]) == "ready"
}

func (s *server) logTail(n int) string {
	text, err := os.ReadFile(s.logFile)
	if err != nil {
		return err.Error()
	}
	return lastLines(bytes.ToValidUTF8(text, nil), n)
}

// stop stops the server: gently, with a shutdown checkpoint, or as if it had crashed.
func (s *server) stop(gently bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopLocked(gently)
}

func (s *server) stopLocked(gently bool) error {
	run := s.run
	if run == nil || !run.isAlive() {
		return nil
	}
	if err := run.resume(); err != nil {
		s.log.Warn("server not resumed", "server", s.name, "error", err)
	}
	if gently && run.endsAfter(syscall.SIGINT, fastShutdown) {
		return nil
	}
	if run.endsAfter(syscall.SIGQUIT, immediateShutdown) {
		return nil
	}
	return s.killLocked()
}

// kill ends the server and all its backends at once, as a power failure would.
func (s *server) kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.killLocked()
}

func (s *server) killLocked() error {
	run := s.run
	if run == nil || !run.isAlive() {
		return nil
	}
	// Stopped first, the postmaster starts no more children while they are counted.
	pid := run.cmd.Process.Pid
	_ = run.cmd.Process.Signal(syscall.SIGSTOP)
	children, err := childrenOf(pid)
	if err != nil {
		return fmt.Errorf("kill %s: %w", s.name, err)
	}
	_ = run.cmd.Process.Kill()
	for _, child := range children {
		_ = syscall.Kill(child, syscall.SIGKILL) // gone already: fine
	}
	deadline := time.Now().Add(killedShutdown)
	for _, child := range children {
		for syscall.Kill(child, 0) == nil && !isZombie(child) {
			if time.Now().After(deadline) {
				return fmt.Errorf("kill %s: process %d does not end", s.name, child)
			}
			time.Sleep(time.Millisecond)
		}
	}
	if !run.endsAfter(syscall.SIGKILL, killedShutdown) {
		return fmt.Errorf("kill %s: process %d does not end", s.name, pid)
	}
	return nil
}

// endsAfter sends a signal and tells whether the process ended within a time.
func (p *process) endsAfter(signal syscall.Signal, wait time.Duration) bool {
	_ = p.cmd.Process.Signal(signal) // ended already: the wait shows it
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-p.ended:
		return true
	case <-timer.C:
		return false
	}
}

// pause stops every process of the server where it stands: connections stay open and nobody answers.
func (s *server) pause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	run := s.run
	if run == nil || !run.isAlive() {
		return fmt.Errorf("pause %s: it does not run", s.name)
	}
	if err := run.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("pause %s: %w", s.name, err)
	}
	children, err := childrenOf(run.cmd.Process.Pid)
	if err != nil {
		return fmt.Errorf("pause %s: %w", s.name, errors.Join(err, run.resume()))
	}
	run.paused = children
	for _, child := range children {
		if err := syscall.Kill(child, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("pause %s: process %d: %w", s.name, child, errors.Join(err, run.resume()))
		}
	}
	return nil
}

func (s *server) resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == nil || !s.run.isAlive() {
		return fmt.Errorf("resume %s: it does not run", s.name)
	}
	if err := s.run.resume(); err != nil {
		return fmt.Errorf("resume %s: %w", s.name, err)
	}
	return nil
}

// resume continues what pause stopped, the children first: they cannot have been reaped while their parent stood, so
// their pids are still theirs.
func (p *process) resume() error {
	var problems []error
	for _, child := range p.paused {
		if err := syscall.Kill(child, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			problems = append(problems, err)
		}
	}
	p.paused = nil
	return errors.Join(append(problems, p.cmd.Process.Signal(syscall.SIGCONT))...)
}
