package devcluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// guardScript is the watching process. It reads from a pipe whose only writer is the owner: which server processes
// run and which have ended. When the pipe ends without "quit" the owner is gone, however it went, and the script
// stops what is left: fast shutdown, after 5 s immediate shutdown, after 15 s SIGKILL. (SIGCONT comes first because
// a server may have been paused; PostgreSQL itself kills children that do not react 5 s after SIGQUIT.)
// It needs nothing but a POSIX shell and sleep.
const guardScript = `
trap '' HUP INT TERM
pids= scratch=
without() { rest=; for p in $pids; do [ "$p" = "$1" ] || rest="$rest $p"; done; pids=$rest; }
alive() { rest=; for p in $pids; do kill -0 "$p" 2>/dev/null && rest="$rest $p"; done; pids=$rest; [ -n "$pids" ]; }
while read -r verb arg; do
	case $verb in
	add) pids="$pids $arg" ;;
	forget) without "$arg" ;;
	scratch) scratch=$arg ;;
	quit) exit 0 ;;
	esac
done
tick=0
while alive; do
	case $tick in
	0) kill -CONT $pids; kill -INT $pids ;;
	50) kill -QUIT $pids ;;
	150) kill -KILL $pids ;;
	200) break ;;
	esac
	sleep 0.1
	tick=$((tick + 1))
done 2>/dev/null
[ -z "$scratch" ] || rm -rf "$scratch"
exit 0
`

// supervisor talks to the watching process, which holds the lock on the data directory as well: whoever gets the
// lock knows that no server of a dead owner is left. Safe for concurrent use.
type supervisor struct {
	cmd *exec.Cmd

	mu   sync.Mutex
	pipe *os.File
}

// startSupervisor starts the watching process. scratch, if not empty, is a directory to remove at the owner's death.
func startSupervisor(lock *os.File, scratch string) (*supervisor, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start supervisor: %w", err)
	}
	cmd := exec.Command("/bin/sh", "-c", guardScript)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL=C"}
	cmd.Stdin = reader
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	closeErr := reader.Close()
	if err != nil {
		return nil, fmt.Errorf("start supervisor: %w", errors.Join(err, writer.Close()))
	}
	guard := &supervisor{cmd: cmd, pipe: writer}
	if err := errors.Join(closeErr, guard.tell("scratch "+scratch)); err != nil {
		return nil, fmt.Errorf("start supervisor: %w", errors.Join(err, guard.close()))
	}
	return guard, nil
}

// watch puts a process under the supervisor's care. It must be alive or not yet waited for.
func (g *supervisor) watch(pid int) error { return g.tell(fmt.Sprintf("add %d", pid)) }

// forget is called when the process has ended and its pid may be used again.
func (g *supervisor) forget(pid int) error { return g.tell(fmt.Sprintf("forget %d", pid)) }

func (g *supervisor) tell(line string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, err := g.pipe.WriteString(line + "\n"); err != nil {
		return fmt.Errorf("tell supervisor: %w", err)
	}
	return nil
}

// close ends the watching process; every server must have been stopped.
func (g *supervisor) close() error {
	err := g.tell("quit")
	g.mu.Lock()
	err = errors.Join(err, g.pipe.Close())
	g.mu.Unlock()
	kill := time.AfterFunc(30*time.Second, func() { _ = g.cmd.Process.Kill() })
	defer kill.Stop()
	if waitErr := g.cmd.Wait(); waitErr != nil {
		err = errors.Join(err, fmt.Errorf("wait for supervisor: %w", waitErr))
	}
	return err
}

// abandon lets the watching process stop what is left, as if the owner had died, without waiting for it.
func (g *supervisor) abandon() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return errors.Join(g.pipe.Close(), g.cmd.Process.Release())
}
