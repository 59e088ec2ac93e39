package etcd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/directory"
)

// server is the etcd of all tests that do not restart theirs; each test has a prefix of its own.
var server *Embedded

// routerMode makes a child of this test binary act as a router; its value is the endpoint, prefix and name.
const routerMode = "SHARDYARD_TEST_ROUTER"

func TestMain(m *testing.M) {
	if mode := os.Getenv(routerMode); mode != "" {
		if err := beRouter(strings.Fields(mode)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(run{m})
}

type run struct{ tests *testing.M }

func (r run) Run() int {
	dir, err := os.MkdirTemp("", "shardyard-etcd-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if server, err = StartEmbedded(context.Background(), EmbeddedConfig{Dir: dir, NoSync: true}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer server.Close()
	return r.tests.Run()
}

// beRouter registers, acknowledges every epoch it sees, and says goodbye on SIGTERM.
func beRouter(mode []string) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	store, err := Open(ctx, Config{Endpoints: mode[:1], Prefix: mode[1], LeaseTTL: time.Second})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	member, err := store.Register(ctx, RouterInfo{Name: mode[2]})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, member.Close(ctx)) }()
	fmt.Println("registered")
	err = store.Watch(ctx, func(s *Snapshot) {
		for database, m := range s.Maps {
			member.Acknowledge(database, m.Epoch)
		}
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// startRouter starts a child process that registers in store's directory.
func startRouter(t *testing.T, store *Store, name string) *os.Process {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), routerMode+"="+strings.Join([]string{store.config.Endpoints[0], store.config.Prefix, name}, " "))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	t.Cleanup(func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	if line != "registered\n" {
		t.Fatalf("the router says %q", line)
	}
	return child.Process
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}

// until polls condition for at most 20 s.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !condition() {
		if Pause(ctx, 5*time.Millisecond) != nil {
			t.Fatalf("gave up waiting until %s", what)
		}
	}
}

var (
	prefixes     sync.Map // by test
	prefixesMade atomic.Int64
)

// prefixOf gives each run of a test a part of etcd of its own.
func prefixOf(t testing.TB) string {
	prefix, _ := prefixes.LoadOrStore(t, fmt.Sprintf("/test-%d/", prefixesMade.Add(1)))
	return prefix.(string)
}

// openStore opens a Store on a prefix of the test's own; configure may change the settings.
func openStore(t testing.TB, configure ...func(*Config)) *Store {
	t.Helper()
	config := Config{
		Endpoints: server.Endpoints(), Prefix: prefixOf(t), LeaseTTL: time.Second,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, f := range configure {
		f(&config)
	}
	store, err := Open(t.Context(), config)
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	return store
}

var testShards = []directory.Shard{
	{ID: "s1", Primary: directory.Endpoint{Host: "127.0.0.1", Port: 5001}, State: directory.ShardActive},
	{ID: "s2", Primary: directory.Endpoint{Host: "127.0.0.1", Port: 5002}, State: directory.ShardActive},
}

func testCluster() Cluster { return Cluster{ID: "c1", Shards: testShards, Home: "s1"} }

func emptyMap(t testing.TB, database string) *directory.Map {
	t.Helper()
	m, err := directory.NewMap(directory.Map{ClusterID: "c1", Database: database, Epoch: 1, Shards: testShards, Home: "s1"})
	must(t, err)
	return m
}

// createCluster stores the test cluster with the given databases.
func createCluster(t testing.TB, store *Store, databases ...string) {
	t.Helper()
	must(t, store.CreateCluster(t.Context(), testCluster()))
	for _, database := range databases {
		must(t, store.CreateMap(t.Context(), emptyMap(t, database)))
	}
}

// addTable is a change that pins one more table. What it is called is its trace in the map.
type addTable string

func (name addTable) Apply(m *directory.Map) (*directory.Map, error) {
	next := *m
	next.Epoch++
	next.Tables = append(append([]directory.Table(nil), m.Tables...), directory.Table{
		Name: directory.TableName{Schema: "public", Name: string(name)}, Kind: directory.TablePinned, Shard: "s2",
	})
	return directory.NewMap(next)
}

func tableNames(m *directory.Map) []string {
	var names []string
	for _, t := range m.Tables {
		names = append(names, t.Name.Name)
	}
	return names
}
