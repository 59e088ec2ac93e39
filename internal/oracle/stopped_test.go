package oracle

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/router"
	"github.com/shardyard/shardyard/router/backend"
)

// routerMode holds, in the environment, the etcd endpoints of a child of this test binary that is
// to be a router; see TestStoppedRouter.
const routerMode = "SHARDYARD_TEST_ROUTER"

// runRouter is the child: it says its address on standard output and ends with standard input.
func runRouter() int {
	ctx := context.Background()
	running, err := node.Start(ctx, node.Config{
		Router:    router.Config{Name: "stopped", Listen: "127.0.0.1:0", CancelPrefix: 9},
		Pools:     backend.Config{ServiceUser: "postgres"},
		Directory: etcd.Config{Endpoints: strings.Split(os.Getenv(routerMode), ","), LeaseTTL: stoppedLease},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(running.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent closes it or dies
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	if err := running.Close(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

const stoppedLease = 2 * time.Second

// startRouterProcess gives its address and a function that sends it a signal.
func startRouterProcess(t *testing.T) (address string, signal func(syscall.Signal)) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), routerMode+"="+strings.Join(bed.Shards.Etcd().Endpoints(), ","))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	signal = func(s syscall.Signal) {
		if err := cmd.Process.Signal(s); err != nil {
			t.Error(err)
		}
		for s == syscall.SIGSTOP && !isStopped(t, cmd.Process.Pid) { // the kernel stops one thread after the other
			runtime.Gosched()
		}
	}
	t.Cleanup(func() {
		signal(syscall.SIGCONT)
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("router process: %v", err)
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("router process said no address: %v", err)
	}
	return strings.TrimSpace(line), signal
}

// isStopped reports whether all threads of a process are.
func isStopped(t *testing.T, pid int) bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("find threads of process %d: %v", pid, err)
	}
	for _, path := range threads {
		stat, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// The state follows the name, which may hold anything: proc(5).
		if state := stat[bytes.LastIndexByte(stat, ')')+2]; state != 'T' {
			return false
		}
	}
	return true
}

func connectTo(t *testing.T, address string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable", address, database))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeConn(t.Context(), conn) })
	return conn
}

func mustExec(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// TestStoppedRouter: a router that was stopped past its lease, and knows nothing of the sharding
// of a table meanwhile, neither reads nor writes it where it was.
func TestStoppedRouter(t *testing.T) {
	address, signal := startRouterProcess(t)
	current := connectTo(t, bed.Routers[0].Addr().String())
	mustExec(t, current, "CREATE TABLE moved (k int PRIMARY KEY, v int)")

	idle, open, blind := connectTo(t, address), connectTo(t, address), connectTo(t, address)
	for _, conn := range []*pgx.Conn{idle, blind} {
		mustExec(t, conn, "SELECT v FROM moved WHERE k = $1", 1)
	}
	mustExec(t, open, "BEGIN ISOLATION LEVEL REPEATABLE READ")
	mustExec(t, open, "SELECT v FROM moved WHERE k = $1", 1)

	signal(syscall.SIGSTOP)
	written := make(chan error, 1)
	go func() { // waits in the stopped router's socket
		_, err := blind.Exec(t.Context(), "INSERT INTO moved VALUES (1000, 1)")
		written <- err
	}()
	began := time.Now()
	mustExec(t, current, "SHARD TABLE moved BY HASH (k) PARTITIONS 8")
	t.Logf("sharded in %s without the stopped router", time.Since(began).Round(time.Millisecond))
	want := map[int]bool{}
	for k := range 20 {
		mustExec(t, current, "INSERT INTO moved VALUES ($1, $1)", k)
		want[k] = true
	}
	signal(syscall.SIGCONT)

	if err := <-written; err == nil {
		want[1000] = true
	} else {
		t.Logf("the write that waited: %v", err)
	}
	_, err := open.Exec(t.Context(), "INSERT INTO moved VALUES (2000, 1)")
	if err == nil {
		_, err = open.Exec(t.Context(), "COMMIT")
	}
	if err == nil {
		t.Error("a transaction with a snapshot of before has written")
		want[2000] = true
	} else {
		t.Logf("the transaction of before: %v", err)
	}
	for k := range 20 {
		readOnceRight(t, idle, k)
	}
	mustExec(t, idle, "INSERT INTO moved VALUES (3000, 1)")
	want[3000] = true
	mustHold(t, bed, "public", "moved", want)
	mustExec(t, current, "DROP TABLE moved")
}

// readOnceRight reads a row until there is no error: errors may be, a wrong answer never.
func readOnceRight(t *testing.T, conn *pgx.Conn, k int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		var v int
		err := conn.QueryRow(t.Context(), "SELECT v FROM moved WHERE k = $1", k).Scan(&v)
		var reported *pgconn.PgError
		switch {
		case err == nil && v == k:
			return
		case err == nil || errors.Is(err, pgx.ErrNoRows):
			t.Fatalf("stale answer for %d: %d, %v", k, v, err)
		case !errors.As(err, &reported) || time.Now().After(deadline):
			t.Fatalf("read %d: %v", k, err)
		}
		t.Logf("read %d: %v", k, err)
	}
}
