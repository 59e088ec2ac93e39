package devcluster

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func query[T any](t *testing.T, conn *pgx.Conn, sql string) T {
	t.Helper()
	var value T
	if err := conn.QueryRow(t.Context(), sql).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func execute(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestClusterServesWithItsSettings(t *testing.T) {
	t.Parallel()
	c, err := Start(t.Context(), Config{
		Shards: 2, Replicas: 1, Databases: []string{"shop"}, BurnOIDs: true,
		Settings: map[string]string{"deadlock_timeout": "200ms", "Max_Connections": "150", "shardyard.odd": `it's a \ test`},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	pids := c.postmasters()
	if len(pids) != 4 {
		t.Fatalf("%d servers run, want 4", len(pids))
	}
	t.Run("settings", func(t *testing.T) {
		conn := connect(t, c.ConnString(1, "shop"))
		for name, want := range map[string]string{
			"fsync": "on", "synchronous_commit": "on", "max_prepared_transactions": "100", "wal_level": "logical",
			"server_encoding": "UTF8", "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "TimeZone": "UTC",
			"deadlock_timeout": "200ms", "max_connections": "150", "shardyard.odd": `it's a \ test`, "cluster_name": "s2",
		} {
			if got := query[string](t, conn, "show "+name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if got := query[string](t, conn, "select datcollate::text from pg_database where datname = 'shop'"); got != c.cfg.Locale {
			t.Errorf("the locale is %s, want %s", got, c.cfg.Locale)
		}
	})
	t.Run("replicas stream", func(t *testing.T) {
		for shard := range 2 {
			primary := connect(t, c.ConnString(shard, "shop"))
			execute(t, primary, "create table streamed as select 1 as n")
			replica := connect(t, c.ReplicaConnString(shard, 0, "shop"))
			eventually(t, 20*time.Second, "the replica has the primary's table", func() bool {
				return query[bool](t, replica, "select to_regclass('streamed') is not null")
			})
			if !query[bool](t, replica, "select pg_is_in_recovery()") {
				t.Error("the replica is not in recovery")
			}
			if n := query[int](t, primary, "select count(*) from pg_replication_slots where active"); n != 1 {
				t.Errorf("%d slots are active, want 1", n)
			}
		}
	})
	t.Run("shards are distinct", func(t *testing.T) {
		identifiers, oids := map[int64]bool{}, map[uint32]bool{}
		for shard := range 2 {
			conn := connect(t, c.ConnString(shard, "shop"))
			identifiers[query[int64](t, conn, "select system_identifier from pg_control_system()")] = true
			execute(t, conn, "create type mood as enum ('ok')")
			oids[query[uint32](t, conn, "select 'mood'::regtype::oid")] = true
		}
		if len(identifiers) != 2 || len(oids) != 2 {
			t.Errorf("system identifiers %v and OIDs %v, want two of each", identifiers, oids)
		}
	})
	t.Run("create database", func(t *testing.T) {
		for range 2 { // the second time it exists already
			if err := c.CreateDatabase(t.Context(), "later"); err != nil {
				t.Fatal(err)
			}
		}
		connect(t, c.ConnString(1, "later"))
		if err := c.CreateDatabase(t.Context(), "Needs Quoting"); err == nil {
			t.Error("a name that needs quoting was taken")
		}
	})
	t.Run("described for the map", func(t *testing.T) {
		shards := c.Shards()
		if len(shards) != 2 || shards[0].ID != "s1" || shards[1].ID != "s2" || len(shards[1].Replicas) != 1 {
			t.Fatalf("shards are %+v", shards)
		}
		address := net.JoinHostPort(shards[1].Primary.Host, strconv.Itoa(int(shards[1].Primary.Port)))
		if !strings.Contains(c.ConnString(1, "x"), address) {
			t.Errorf("%s is not in %s", address, c.ConnString(1, "x"))
		}
	})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if left := c.postmasters(); len(left) != 0 {
		t.Errorf("servers %v run after Close", left)
	}
	if _, err := os.Stat(c.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the temporary directory is still there: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("the second Close says %v", err)
	}
}

func TestRestartOnExistingDirectory(t *testing.T) {
	dir := filepath.Join(TempDir(t), "made", "by", "start")
	cfg := Config{Shards: 2, Replicas: 1, Dir: dir}
	first := ForTest(t, cfg)
	before := first.Shards()
	execute(t, connect(t, first.ConnString(1, "postgres")), "create table kept as select 42 as n")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	// Ports are kept where they are free, and left to whoever has taken them.
	taken, err := net.Listen("tcp", before[0].Primary.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	second := ForTest(t, Config{Dir: dir})
	after := second.Shards()
	if after[0].Primary == before[0].Primary {
		t.Error("the taken port is still the primary's")
	}
	if !reflect.DeepEqual(after[1], before[1]) {
		t.Errorf("shard %+v has become %+v", before[1], after[1])
	}
	if n := query[int](t, connect(t, second.ConnString(1, "postgres")), "select n from kept"); n != 42 {
		t.Errorf("the table has %d", n)
	}
	// A replica finds a primary that has moved.
	execute(t, connect(t, second.ConnString(0, "postgres")), "create table moved as select 1 as n")
	replica := connect(t, second.ReplicaConnString(0, 0, "postgres"))
	eventually(t, 20*time.Second, "the replica follows the moved primary", func() bool {
		return query[bool](t, replica, "select to_regclass('moved') is not null")
	})

	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if other, err := Start(ctx, Config{Dir: dir}); err == nil {
		t.Error("two owners share a directory", other.Close())
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if other, err := Start(t.Context(), Config{Dir: dir, Shards: 3}); err == nil {
		t.Error("a directory of two shards was started with three", other.Close())
	}
}

func TestEtcdKeepsItsDataAndPort(t *testing.T) {
	dir := TempDir(t)
	first := ForTest(t, Config{Dir: dir, Shards: 1, Etcd: true})
	endpoints := first.Etcd().Endpoints()
	put(t, endpoints, "kept", "yes")
	first.StopEtcd()
	if first.Etcd() != nil {
		t.Error("a stopped etcd is still shown")
	}
	if err := first.StartEtcd(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := get(t, endpoints, "kept"); got != "yes" {
		t.Errorf("after an outage the value is %q", got)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := ForTest(t, Config{Dir: dir, Etcd: true})
	if now := second.Etcd().Endpoints(); !reflect.DeepEqual(now, endpoints) {
		t.Fatalf("etcd moved from %v to %v", endpoints, now)
	}
	if got := get(t, endpoints, "kept"); got != "yes" {
		t.Errorf("after a restart the value is %q", got)
	}
	without := ForTest(t, Config{Shards: 1})
	if without.Etcd() != nil || without.StartEtcd(t.Context()) == nil {
		t.Error("an etcd that nobody asked for")
	}
}

func etcdClient(t *testing.T, endpoints []string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func put(t *testing.T, endpoints []string, key, value string) {
	t.Helper()
	client := etcdClient(t, endpoints)
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := client.Put(ctx, key, value); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, endpoints []string, key string) string {
	t.Helper()
	client := etcdClient(t, endpoints)
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	answer, err := client.Get(ctx, key)
	if err != nil || len(answer.Kvs) != 1 {
		t.Fatalf("get %s: %v, %v", key, answer, err)
	}
	return string(answer.Kvs[0].Value)
}

func TestInterruptedStartIsMadeAgain(t *testing.T) {
	t.Parallel()
	dir := TempDir(t)
	plan, err := newLayout(1, 0, 15)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(plan.write(dir), os.MkdirAll(filepath.Join(dir, "s1", "primary", "half"), 0o700)); err != nil {
		t.Fatal(err)
	}
	c := ForTest(t, Config{Dir: dir, Shards: 1})
	if n := query[int](t, connect(t, c.ConnString(0, "postgres")), "select 1"); n != 1 {
		t.Error(n)
	}
}

func TestForeignDirectoryIsRefused(t *testing.T) {
	dir := TempDir(t)
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Start(t.Context(), Config{Dir: dir, Shards: 1}); err == nil {
		t.Error("a directory with somebody's files was taken", c.Close())
	}
	if _, err := os.Stat(filepath.Join(dir, "thesis.tex")); err != nil {
		t.Error(err)
	}
}

func TestKilledShardRecovers(t *testing.T) {
	c := ForTest(t, Config{Shards: 1})
	conn := connect(t, c.ConnString(0, "postgres"))
	execute(t, conn, "create table kept as select 7 as n")
	execute(t, conn, "begin; insert into kept values (8); prepare transaction 'pending'")
	if err := c.KillShard(0); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "select 1"); err == nil {
		t.Error("the killed server answers")
	}
	if err := c.RestartShard(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	again := connect(t, c.ConnString(0, "postgres"))
	execute(t, again, "commit prepared 'pending'")
	if n := query[int](t, again, "select sum(n)::int from kept"); n != 15 {
		t.Errorf("the sum is %d, want 15", n)
	}
	// A running server restarts gently, on its port.
	port := c.Shards()[0].Primary.Port
	if err := c.RestartShard(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if now := c.Shards()[0].Primary.Port; now != port {
		t.Errorf("port %d has become %d", port, now)
	}
	if err := c.StopShard(0); err != nil {
		t.Fatal(err)
	}
	if _, err := pgx.Connect(t.Context(), c.ConnString(0, "postgres")); err == nil {
		t.Error("the stopped server takes connections")
	}
}

func TestPausedShardHangs(t *testing.T) {
	t.Parallel()
	c := ForTest(t, Config{Shards: 1})
	conn := connect(t, c.ConnString(0, "postgres"))
	if err := c.PauseShard(0); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "select 1")
		answer <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if fresh, err := pgx.Connect(ctx, c.ConnString(0, "postgres")); err == nil {
		t.Error("the paused server takes a connection", fresh.Close(t.Context()))
	}
	select {
	case err := <-answer:
		t.Errorf("the paused server answered %v", err)
	default:
	}
	if err := c.ResumeShard(0); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err != nil {
		t.Errorf("the resumed server answered %v", err)
	}
	if err := c.PauseShard(0); err != nil { // Close must cope with a paused server
		t.Fatal(err)
	}
}

// failed is a test that has failed.
type failed struct {
	testing.TB
	cleanups []func()
	logged   []any
}

func (f *failed) Failed() bool           { return true }
func (f *failed) Cleanup(cleanup func()) { f.cleanups = append(f.cleanups, cleanup) }
func (f *failed) Log(args ...any)        { f.logged = append(f.logged, args...) }

func TestFailingTestStopsItsServers(t *testing.T) {
	t.Parallel()
	f := &failed{TB: t}
	c := ForTest(f, Config{Shards: 1})
	for _, cleanup := range f.cleanups {
		cleanup()
	}
	if left := c.postmasters(); len(left) != 0 {
		t.Errorf("servers %v still run", left)
	}
	if len(f.logged) != 1 || !strings.Contains(f.logged[0].(string), "database system is ready") {
		t.Errorf("the servers' logs are not shown: %v", f.logged)
	}
}

func TestMainSharesOneCluster(t *testing.T) {
	t.Parallel()
	var shared *Cluster
	run := Main(tests(func() int {
		return query[int](t, connect(t, shared.ConnString(0, "postgres")), "select 0")
	}), Config{Shards: 1}, &shared)
	if code := run.Run(); code != 0 {
		t.Errorf("the exit code is %d", code)
	}
	if left := shared.postmasters(); len(left) != 0 {
		t.Errorf("servers %v still run", left)
	}
}

type tests func() int

func (t tests) Run() int { return t() }

func TestConfigurationIsValidated(t *testing.T) {
	for name, cfg := range map[string]Config{
		"shards": {Shards: -1}, "too many": {Shards: 65}, "replicas": {Replicas: 9}, "database": {Databases: []string{`a"b`}},
		"setting": {Settings: map[string]string{"a\nb": "c"}}, "timeout": {StartTimeout: -1}, "bin": {Shards: 1, Bin: "/nowhere"},
	} {
		if c, err := Start(t.Context(), cfg); err == nil {
			t.Errorf("%s: it started", name)
			_ = c.Close()
		}
	}
}

func TestBrokenServerSaysWhy(t *testing.T) {
	t.Parallel()
	_, err := Start(t.Context(), Config{Shards: 2, Settings: map[string]string{"no_such_setting": "1"}})
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("the error is %v", err)
	}
}
