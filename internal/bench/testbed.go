package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/internal/devcluster"
)

// target is one way to the shard.
type target struct {
	name string
	port int
	pid  int // of the process whose CPU time counts; 0 for none
	// sessionPort is used for prepared statements where the pooler cannot carry them
	// over transactions; 0 means port.
	sessionPort, sessionPid int
}

// testbed is the shard, a pooler and a router in processes of their own.
type testbed struct {
	cluster   *devcluster.Cluster
	pgbench   string
	dir       string
	processes []*exec.Cmd
	targets   []target
}

func newTestbed(ctx context.Context, cluster *devcluster.Cluster, o options) (*testbed, error) {
	dir, err := os.MkdirTemp("", "shardyard-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open the folder to the pooler's user: %w", err)
	}
	bed := &testbed{cluster: cluster, pgbench: cluster.Binaries().Path("pgbench"), dir: dir}
	if !cluster.Binaries().Has("pgbench") {
		if bed.pgbench, err = exec.LookPath("pgbench"); err != nil {
			return nil, fmt.Errorf("find pgbench: %w", err)
		}
	}
	if err := bed.start(ctx, o.program); err != nil {
		bed.stop()
		return nil, err
	}
	return bed, nil
}

func (b *testbed) start(ctx context.Context, program string) error {
	shard := b.cluster.Shards()[0]
	b.targets = append(b.targets, target{name: "direct", port: int(shard.Primary.Port)})
	transaction, err := b.startPooler(ctx, "transaction", int(shard.Primary.Port))
	if err != nil {
		return err
	}
	session, err := b.startPooler(ctx, "session", int(shard.Primary.Port))
	if err != nil {
		return err
	}
	transaction.sessionPort, transaction.sessionPid = session.port, session.pid
	b.targets = append(b.targets, transaction)
	router, err := b.startRouter(ctx, program)
	if err != nil {
		return err
	}
	b.targets = append(b.targets, router)
	return nil
}

// startPooler runs PgBouncer, which refuses to be root.
func (b *testbed) startPooler(ctx context.Context, mode string, shardPort int) (target, error) {
	path, err := exec.LookPath("pgbouncer")
	if err != nil {
		path = "/usr/sbin/pgbouncer" // Debian's place, not on every PATH
	}
	port, err := freePort()
	if err != nil {
		return target{}, err
	}
	config := fmt.Sprintf(`[databases]
postgres = host=127.0.0.1 port=%d dbname=postgres user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = %s
default_pool_size = 20
max_client_conn = 500
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
`, shardPort, port, mode)
	file := filepath.Join(b.dir, "pgbouncer-"+mode+".ini")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return target{}, fmt.Errorf("write the pooler's configuration: %w", err)
	}
	cmd := exec.Command(path, file)
	if err := dropRoot(cmd); err != nil {
		return target{}, err
	}
	if err := b.launch(ctx, cmd, port); err != nil {
		return target{}, fmt.Errorf("start pgbouncer: %w", err)
	}
	return target{name: "pgbouncer", port: port, pid: cmd.Process.Pid}, nil
}

// startRouter registers the shards and runs `shardyard serve`.
func (b *testbed) startRouter(ctx context.Context, program string) (target, error) {
	port, err := freePort()
	if err != nil {
		return target{}, err
	}
	endpoints := strings.Join(b.cluster.Etcd().Endpoints(), ",")
	for i, shard := range b.cluster.Shards() {
		args := []string{"shard", "add", string(shard.ID), "--address", fmt.Sprintf("%s:%d", shard.Primary.Host, shard.Primary.Port),
			"--etcd-endpoints", endpoints}
		if i == 0 {
			args = append(args, "--home")
		}
		if out, err := exec.CommandContext(ctx, program, args...).CombinedOutput(); err != nil {
			return target{}, fmt.Errorf("register shard %s: %w\n%s", shard.ID, err, out)
		}
	}
	cmd := exec.Command(program, "serve", "--name", "bench", "--listen", fmt.Sprintf("127.0.0.1:%d", port),
		"--etcd-endpoints", endpoints, "--auth-method", "trust", "--log-level", "warn")
	if err := b.launch(ctx, cmd, port); err != nil {
		return target{}, fmt.Errorf("start shardyard: %w", err)
	}
	return target{name: "shardyard", port: port, pid: cmd.Process.Pid}, nil
}

// launch starts cmd and waits until it listens.
func (b *testbed) launch(ctx context.Context, cmd *exec.Cmd, port int) error {
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true // Ctrl-C reaches us alone; stop ends the others
	if err := cmd.Start(); err != nil {
		return err
	}
	b.processes = append(b.processes, cmd)
	deadline := time.Now().Add(20 * time.Second)
	for {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("wait for port %d: %w", port, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (b *testbed) stop() {
	for _, cmd := range b.processes {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	}
	for _, cmd := range b.processes {
		kill := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // ended by our signal
		kill.Stop()
	}
	if b.dir != "" {
		_ = os.RemoveAll(b.dir) // a temporary folder
	}
}

// load makes pgbench's tables, shards the largest while it is empty, and fills it at the shard.
func (b *testbed) load(ctx context.Context, scale int) error {
	direct, router := b.targets[0], b.targets[len(b.targets)-1]
	if err := b.initialize(ctx, direct, scale, "dtp"); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres", router.port))
	if err != nil {
		return fmt.Errorf("connect to the router: %w", err)
	}
	_, err = conn.Exec(ctx, `SHARD TABLE pgbench_accounts BY HASH (aid) PARTITIONS 16`, pgx.QueryExecModeSimpleProtocol)
	if closeErr := conn.Close(ctx); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("shard pgbench_accounts: %w", err)
	}
	return b.initialize(ctx, direct, scale, "gv")
}

func (b *testbed) initialize(ctx context.Context, t target, scale int, steps string) error {
	out, err := b.command(ctx, t.port, "-q", "-i", "-s", strconv.Itoa(scale), "-I", steps).CombinedOutput()
	if err != nil {
		return fmt.Errorf("pgbench -I %s: %w\n%s", steps, err, out)
	}
	return nil
}

func (b *testbed) command(ctx context.Context, port int, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, b.pgbench, append([]string{"-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", "postgres"},
		append(args, "postgres")...)...)
}

var tpsLine = regexp.MustCompile(`(?m)^tps = ([0-9.]+) \(without`)
var countLine = regexp.MustCompile(`number of transactions actually processed: ([0-9]+)`)

func (b *testbed) measure(ctx context.Context, t target, w workload, seconds int) (measurement, error) {
	if w.mode == "prepared" && t.sessionPort != 0 {
		t.port, t.pid = t.sessionPort, t.sessionPid
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+runTimeout)
	defer cancel()
	before, err := cpuTime(t.pid)
	if err != nil {
		return measurement{}, err
	}
	out, err := b.command(ctx, t.port, "-n", "-S", "-M", w.mode, "-c", strconv.Itoa(w.clients),
		"-j", strconv.Itoa(min(w.clients, 2)), "-T", strconv.Itoa(seconds)).CombinedOutput()
	if err != nil {
		return measurement{}, fmt.Errorf("pgbench: %w\n%s", err, out)
	}
	after, err := cpuTime(t.pid)
	if err != nil {
		return measurement{}, err
	}
	tps, count := tpsLine.FindSubmatch(out), countLine.FindSubmatch(out)
	if tps == nil || count == nil {
		return measurement{}, fmt.Errorf("read pgbench's answer:\n%s", out)
	}
	var m measurement
	if m.TPS, err = strconv.ParseFloat(string(tps[1]), 64); err != nil {
		return measurement{}, fmt.Errorf("read tps: %w", err)
	}
	statements, err := strconv.ParseFloat(string(count[1]), 64)
	if err != nil {
		return measurement{}, fmt.Errorf("read the number of transactions: %w", err)
	}
	m.CPUMicros = float64((after - before).Microseconds()) / statements
	return m, nil
}

// clockTick is the unit of /proc/<pid>/stat, USER_HZ, 100 on every Linux.
const clockTick = 10 * time.Millisecond

// cpuTime is the user and system time of a process so far.
func cpuTime(pid int) (time.Duration, error) {
	if pid == 0 {
		return 0, nil
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int
	for _, field := range fields[11:13] { // utime, stime: fields 14 and 15 of proc(5)
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, fmt.Errorf("read CPU time: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// dropRoot makes cmd run as the postgres user where we are root.
func dropRoot(cmd *exec.Cmd) error {
	if os.Geteuid() != 0 {
		return nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		return fmt.Errorf("find a user for the pooler: %w", err)
	}
	uid, uidErr := strconv.ParseUint(account.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(account.Gid, 10, 32)
	if uidErr != nil || gidErr != nil {
		return fmt.Errorf("read the ids of user postgres: %s, %s", account.Uid, account.Gid)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return nil
}
