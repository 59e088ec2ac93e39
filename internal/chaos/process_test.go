package chaos

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// process is a program that can be killed, started again and stopped for a while.
type process struct {
	name    string
	program string
	args    []string
	log     string

	mu    sync.Mutex
	cmd   *exec.Cmd
	ended chan struct{}
}

// start starts the program, unless it runs.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return nil
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	cmd := exec.Command(p.program, p.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	err = errors.Join(err, log.Close())
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.cmd, p.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) {
		_ = cmd.Wait() // it is killed: how it ended says nothing
		close(ended)
	}(p.ended)
	return nil
}

// kill is kill -9; it returns when the process is gone.
func (p *process) kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil
	}
	err := p.cmd.Process.Kill()
	<-p.ended
	p.cmd = nil
	if errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s had ended by itself, see %s", p.name, p.log)
	}
	return err
}

func (p *process) pause() error  { return p.signal(syscall.SIGSTOP) }
func (p *process) resume() error { return p.signal(syscall.SIGCONT) }

func (p *process) signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil
	}
	return p.cmd.Process.Signal(s)
}

// programs are the paths of those that were built.
var programs = map[string]string{}

// build builds a program of this repository, or of the module in a folder of it, once for all tests.
func build(t *testing.T, module, pkg, name string) string {
	t.Helper()
	if program, ok := programs[name]; ok {
		return program
	}
	program, err := filepath.Abs(filepath.Join("../../bin/chaos", name))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "-C", filepath.Join("../..", module), "build", "-buildvcs=false", "-o", program, pkg).CombinedOutput()
	if err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	programs[name] = program
	return program
}

// freePort is a port of loopback that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}
