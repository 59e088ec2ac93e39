package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/shardyard/shardyard/internal/devcluster"
)

// The ways to the shard.
const (
	targetDirect = "direct"
	targetPooler = "pgbouncer"
	targetRouter = "shardyard"
	// targetGoroutines is the router without its event loop.
	targetGoroutines = "shardyard, goroutines"
)

// target is one way to the shard.
type target struct {
	name string
	port int
	pid  int // of the process whose CPU time counts; 0 for none
	// widePort and widePid are those of a process like it that has a server connection for each client. Those of 0 are not there.
	widePort, widePid int
}

// testbed is shards, and poolers and routers in processes of their own.
type testbed struct {
	cluster   *devcluster.Cluster
	program   string // the shardyard binary
	dir       string
	cert      certificate
	processes []*exec.Cmd
}

// newTestbed starts the servers, and nothing else yet. They have TLS.
func newTestbed(ctx context.Context, config devcluster.Config, program string) (*testbed, error) {
	dir, err := os.MkdirTemp("", "shardyard-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	bed := &testbed{program: program, dir: dir}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, bed.failed(fmt.Errorf("open the folder to the servers' user: %w", err))
	}
	if bed.cert, err = makeCertificate(dir); err != nil {
		return nil, bed.failed(err)
	}
	config.Settings = map[string]string{
		"ssl": "on", "ssl_cert_file": bed.cert.file, "ssl_key_file": bed.cert.key,
		"max_connections": "900", // 200 clients directly, and the pools
		"shared_buffers":  "128MB",
	}
	if bed.cluster, err = devcluster.Start(ctx, config); err != nil {
		return nil, bed.failed(fmt.Errorf("start the servers: %w", err))
	}
	return bed, nil
}

// failed ends what was begun.
func (b *testbed) failed(err error) error {
	b.close()
	return err
}

// startPooler runs PgBouncer in front of a database of a server. It pools in mode transaction or session; in that each client
// has a server connection to itself.
func (b *testbed) startPooler(ctx context.Context, mode string, serverPort int, database string) (target, error) {
	path, err := exec.LookPath("pgbouncer")
	if err != nil {
		path = "/usr/sbin/pgbouncer" // Debian's place, not on every PATH
	}
	port, err := freePort()
	if err != nil {
		return target{}, err
	}
	size := poolSize
	if mode == "session" {
		size = widePool
	}
	config := fmt.Sprintf(`[databases]
%[1]s = host=127.0.0.1 port=%[2]d dbname=%[1]s user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %[3]d
unix_socket_dir =
auth_type = any
pool_mode = %[4]s
default_pool_size = %[5]d
server_idle_timeout = %[9]d
max_client_conn = %[6]d
client_tls_sslmode = allow
client_tls_cert_file = %[7]s
client_tls_key_file = %[8]s
server_tls_sslmode = disable
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
`, database, serverPort, port, mode, size, maxClients, b.cert.file, b.cert.key, int(poolIdle.Seconds()))
	file := filepath.Join(b.dir, fmt.Sprintf("pgbouncer-%d.ini", port))
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return target{}, fmt.Errorf("write the pooler's configuration: %w", err)
	}
	cmd := exec.Command(path, "-q", file)
	if err := dropRoot(cmd); err != nil {
		return target{}, err
	}
	if err := b.launch(ctx, cmd, port); err != nil {
		return target{}, fmt.Errorf("start pgbouncer: %w", err)
	}
	return target{name: targetPooler, port: port, pid: cmd.Process.Pid}, nil
}

const (
	// poolSize is Shardyard's default, and the pooler's here.
	poolSize   = 20
	maxClients = 50_000
	// widePool is more than there are busy clients.
	widePool = 250
	// poolIdle is after what time server connections that are not used any more do not trouble the others' runs.
	poolIdle = 20 * time.Second
)

// startRouter runs `shardyard serve` in front of the registered shards.
func (b *testbed) startRouter(ctx context.Context, name string, pool int) (target, error) {
	port, err := freePort()
	if err != nil {
		return target{}, err
	}
	loop := name != targetGoroutines && runtime.GOOS == "linux"
	cmd := exec.Command(b.program, "serve", "--name", fmt.Sprintf("bench-%d", port), "--listen", fmt.Sprintf("127.0.0.1:%d", port),
		"--etcd-endpoints", b.endpoints(), "--auth-method", "trust", "--log-level", "warn",
		"--max-clients", fmt.Sprint(maxClients), "--pool-size", fmt.Sprint(pool), fmt.Sprintf("--event-loop=%v", loop),
		"--tls-cert", b.cert.file, "--tls-key", b.cert.key, "--tls-mode", "allow")
	cmd.Env = append(os.Environ(), "SHARDYARD_SERVER_TLS_MODE=disable", "SHARDYARD_POOL_IDLE_TIMEOUT="+poolIdle.String())
	if err := b.launch(ctx, cmd, port); err != nil {
		return target{}, fmt.Errorf("start shardyard: %w", err)
	}
	return target{name: name, port: port, pid: cmd.Process.Pid}, nil
}

func (b *testbed) endpoints() string { return strings.Join(b.cluster.Etcd().Endpoints(), ",") }

// register makes the servers shards of the cluster.
func (b *testbed) register(ctx context.Context) error {
	for i, shard := range b.cluster.Shards() {
		args := []string{"shard", "add", string(shard.ID), "--address", fmt.Sprintf("%s:%d", shard.Primary.Host, shard.Primary.Port),
			"--etcd-endpoints", b.endpoints()}
		if i == 0 {
			args = append(args, "--home")
		}
		if out, err := exec.CommandContext(ctx, b.program, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("register shard %s: %w\n%s", shard.ID, err, out)
		}
	}
	return nil
}

func (b *testbed) shardPort(i int) int { return int(b.cluster.Shards()[i].Primary.Port) }

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

// stop ends the processes of these targets.
func (b *testbed) stop(targets ...target) {
	for _, t := range targets {
		i := slices.IndexFunc(b.processes, func(cmd *exec.Cmd) bool { return cmd.Process.Pid == t.pid })
		if i < 0 {
			continue
		}
		end(b.processes[i])
		b.processes = slices.Delete(b.processes, i, i+1)
	}
}

// end stops a process, in the end by force.
func end(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	kill := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	_ = cmd.Wait() // ended by our signal
}

// close ends everything. What cannot be ended or removed does not matter to who has measured.
func (b *testbed) close() {
	for _, cmd := range b.processes {
		end(cmd)
	}
	if b.cluster != nil {
		_ = b.cluster.Close()
	}
	_ = os.RemoveAll(b.dir) // a temporary folder
}
