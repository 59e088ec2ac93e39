package chaos

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/internal/devcluster"
)

var (
	duration = flag.Duration("chaos.for", time.Minute, "how long the nemesis works")
	seed     = flag.Int64("chaos.seed", 0, "seed of the nemesis and the clients; 0 takes one from the clock")
	rest     = flag.Duration("chaos.rest", 50*time.Millisecond, "pause of a client between two transactions; others use the machine too")
	keep     = flag.String("chaos.logs", "", "folder for the logs of routers and etcd")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	shards  = 3
	routers = 2
)

// bed is a cluster whose parts are processes: three shards, etcd, two routers.
type bed struct {
	cluster   *devcluster.Cluster
	etcd      *process
	routers   []*process
	addresses []string // of the routers
}

func newBed(t *testing.T) *bed {
	t.Helper()
	dir := t.TempDir()
	logs := dir
	if *keep != "" {
		if err := os.MkdirAll(*keep, 0o755); err != nil {
			t.Fatal(err)
		}
		logs = *keep
	}
	shardyard := build(t, ".", "./cmd/shardyard", "shardyard")
	etcd := build(t, "internal/etcdbin", "go.etcd.io/etcd/server/v3", "etcd")
	b := &bed{cluster: devcluster.ForTest(t, devcluster.Config{Shards: shards, BurnOIDs: true, Settings: map[string]string{
		"max_prepared_transactions": "100", "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
	}})}
	client, peer := freePort(t), freePort(t)
	endpoint, peerURL := fmt.Sprintf("127.0.0.1:%d", client), fmt.Sprintf("http://127.0.0.1:%d", peer)
	b.etcd = &process{name: "etcd", program: etcd, log: filepath.Join(logs, "etcd.log"), args: []string{
		"--name", "e", "--data-dir", filepath.Join(dir, "etcd-data"), "--initial-cluster", "e=" + peerURL,
		"--listen-client-urls", "http://" + endpoint, "--advertise-client-urls", "http://" + endpoint,
		"--listen-peer-urls", peerURL, "--initial-advertise-peer-urls", peerURL,
	}}
	b.mustStart(t, b.etcd)
	for i, s := range b.cluster.Shards() {
		b.addShard(t, shardyard, endpoint, string(s.ID), fmt.Sprintf("%s:%d", s.Primary.Host, s.Primary.Port), i == 0)
	}
	for i := range routers {
		address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
		name := fmt.Sprintf("r%d", i+1)
		router := &process{name: name, program: shardyard, log: filepath.Join(logs, name+".log"), args: []string{
			"serve", "--name", name, "--listen", address, "--etcd-endpoints", endpoint, "--auth-trust-loopback",
			"--snapshot-file", filepath.Join(dir, name+".map"),
		}}
		b.mustStart(t, router)
		b.routers, b.addresses = append(b.routers, router), append(b.addresses, address)
	}
	for i := range routers {
		b.connect(t, i)
	}
	return b
}

func (b *bed) mustStart(t *testing.T, p *process) {
	t.Helper()
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.resume()
		if err := p.kill(); err != nil {
			t.Error(err)
		}
	})
}

// addShard tries until etcd is up.
func (b *bed) addShard(t *testing.T, shardyard, endpoint, id, address string, home bool) {
	t.Helper()
	add := &process{name: "shard add " + id, program: shardyard, log: filepath.Join(t.TempDir(), "log"),
		args: []string{"shard", "add", id, "--address", address, "--etcd-endpoints", endpoint}}
	if home {
		add.args = append(add.args, "--home")
	}
	eventually(t, 30*time.Second, func() error {
		if err := add.start(); err != nil {
			return err
		}
		<-add.ended
		state := add.cmd.ProcessState
		add.cmd = nil
		if !state.Success() {
			said, _ := os.ReadFile(add.log)
			return fmt.Errorf("%s: %s: %s", add.name, state, said)
		}
		return nil
	})
}

// connect opens a connection to a router for the test itself.
func (b *bed) connect(t *testing.T, router int) *pgx.Conn {
	t.Helper()
	var conn *pgx.Conn
	eventually(t, 30*time.Second, func() (err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		conn, err = pgx.Connect(ctx, b.url(router))
		return err
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

func (b *bed) url(router int) string {
	return fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable", b.addresses[router])
}

// heal starts and resumes everything.
func (b *bed) heal(ctx context.Context) error {
	for i := range shards {
		if err := b.cluster.ResumeShard(i); err != nil {
			return err
		}
		if err := b.cluster.StartShard(ctx, i); err != nil {
			return err
		}
	}
	for _, p := range append([]*process{b.etcd}, b.routers...) {
		if err := p.resume(); err != nil {
			return err
		}
		if err := p.start(); err != nil {
			return err
		}
	}
	return nil
}

// eventually repeats something until it works.
func eventually(t *testing.T, within time.Duration, try func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(within); ; <-tick.C {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// recoveryTime is how soon nothing may be left prepared once everything is up again.
const recoveryTime = 20 * time.Second

// calm waits until no shard has anything prepared that is older than the moment everything was healed.
func (b *bed) calm(t *testing.T) {
	healed := time.Now()
	for shard := range shards {
		eventually(t, recoveryTime, func() error {
			dial, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			conn, err := pgx.Connect(dial, b.cluster.ConnString(shard, "postgres"))
			if err != nil {
				return err
			}
			defer conn.Close(dial)
			var old int
			err = conn.QueryRow(dial, "SELECT count(*) FROM pg_prepared_xacts WHERE prepared < $1", healed).Scan(&old)
			if err == nil && old > 0 {
				err = fmt.Errorf("%d transactions are still prepared on s%d after %s", old, shard+1, time.Since(healed).Round(time.Millisecond))
			}
			return err
		})
	}
	t.Logf("nothing old is prepared %s after the last fault", time.Since(healed).Round(time.Millisecond))
}

// quiet waits until no transaction of a router is open or prepared on any shard: the last ones of clients that have
// gone may still be committed or rolled back.
func (b *bed) quiet(t *testing.T) {
	t.Helper()
	const busy = `SELECT (SELECT count(*) FROM pg_prepared_xacts) + (SELECT count(*) FROM pg_stat_activity
		WHERE starts_with(application_name, 'shardyard/') AND state <> 'idle')`
	calm := 0
	eventually(t, recoveryTime, func() error {
		for shard := range shards {
			conn, err := pgx.Connect(t.Context(), b.cluster.ConnString(shard, "postgres"))
			if err != nil {
				return err
			}
			var left int
			err = conn.QueryRow(t.Context(), busy).Scan(&left)
			if closed := conn.Close(t.Context()); err == nil {
				err = closed
			}
			if err != nil || left > 0 {
				calm = 0
				return errors.Join(err, fmt.Errorf("%d transactions are open on s%d", left, shard+1))
			}
		}
		if calm++; calm < 10 { // a commit goes from shard to shard
			return errors.New("the shards have just become quiet")
		}
		return nil
	})
}
