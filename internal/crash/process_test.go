package crash

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Terms of failpoints.
const (
	asleep = "sleep(600000)"
	// alone keeps a router from recovering, and from the worker's office: what is left is for others.
	alone = "recoveryBeforeRound=" + asleep + ";workerBeforeRound=" + asleep
)

// at makes a failpoint act at its nth use, counted from 0, and only then.
func at(failpoint string, nth int) string {
	if nth == 0 {
		return failpoint + "=1*" + asleep
	}
	return fmt.Sprintf("%s=%d*off->1*%s", failpoint, nth, asleep)
}

// process is a router process with failpoints.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	listen string
	http   string
	ended  chan struct{}
}

// start starts a router of the tests' cluster with these terms of failpoints.
func start(t *testing.T, binary, name string, terms ...string) *process {
	t.Helper()
	return startAt(t, cluster.Etcd().Endpoints(), binary, name, "GOFAIL_FAILPOINTS="+strings.Join(terms, ";"))
}

func startAt(t *testing.T, etcd []string, binary, name, environment string) *process {
	t.Helper()
	p := &process{t: t, listen: freeAddress(t), http: freeAddress(t)}
	p.cmd = exec.Command(binary, "serve", "--name", name, "--listen", p.listen, "--etcd-endpoints", strings.Join(etcd, ","),
		"--service-user", "postgres", "--auth-method", "trust", "--log-level", "error")
	p.cmd.Env = append(os.Environ(), "GOFAIL_HTTP="+p.http, environment)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, p.cmd.Start())
	p.ended = make(chan struct{})
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // it is killed
	}()
	t.Cleanup(p.kill)
	return p
}

// kill kills the router (-9) and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may be gone
	<-p.ended
}

// reached waits until the failpoint has acted, at its nth use.
func (p *process) reached(failpoint string, nth int) {
	p.t.Helper()
	wait(p.t, "failpoint "+failpoint, func() bool {
		p.mustRun()
		return p.uses(failpoint) > nth
	})
}

// uses is how often the failpoint was come to.
func (p *process) uses(failpoint string) (n int) {
	response, err := http.Get("http://" + p.http + "/" + failpoint + "/count")
	if err != nil {
		return 0 // it does not listen yet
	}
	defer response.Body.Close()
	if _, err := fmt.Fscan(response.Body, &n); err != nil {
		return 0
	}
	return n
}

// killedAt kills the router as soon as it has come to a failpoint; the channel is closed then.
func (p *process) killedAt(failpoint string) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for p.running() {
			if p.uses(failpoint) > 0 {
				p.kill()
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	return done
}

// stop ends the router as an operator would (SIGTERM), so that nobody waits for its lease.
func (p *process) stop() {
	p.t.Helper()
	must(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		p.t.Error("a router did not end when it was told to")
	}
}

func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func (p *process) mustRun() {
	p.t.Helper()
	if !p.running() {
		p.t.Fatal("the router has ended by itself")
	}
}

func (p *process) connect() *pgx.Conn {
	p.t.Helper()
	var conn *pgx.Conn
	wait(p.t, "the router serves", func() (ok bool) {
		p.mustRun()
		var err error
		conn, err = pgx.Connect(p.t.Context(), url(p.listen))
		return err == nil
	})
	p.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	return listener.Addr().String()
}
