package worker

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/directory/mirror"
	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/testbed"
)

var cluster *testbed.Cluster

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(testbed.Main(m, devcluster.Config{Shards: 2, Etcd: true}, &cluster))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bench is a database with a reference table r on both shards; on the second one rows of a table refer to it.
type bench struct {
	*testbed.Database
	t          *testing.T
	m          *directory.Map
	home, copy *pgx.Conn
	dials      atomic.Int32
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, Database: cluster.Database(t)}
	for i, conn := range []**pgx.Conn{&b.home, &b.copy} {
		*conn = b.Connect(i)
		b.exec(*conn, "CREATE TABLE r (id int PRIMARY KEY, v text)")
	}
	b.exec(b.copy, "CREATE TABLE orders (r int REFERENCES r)")
	name := directory.TableName{Schema: "public", Name: "r"}
	b.m = b.Map(directory.Table{Name: name, Kind: directory.TableReference, Shard: cluster.Shards()[0].ID, Key: []string{"id"}, Mirror: "m-r"})
	of := mirror.Of(b.m)[0]
	for _, sql := range of.InstallSource() {
		b.exec(b.home, sql)
	}
	for _, sql := range of.InstallCopy() {
		b.exec(b.copy, sql)
	}
	return b
}

func (b *bench) exec(conn *pgx.Conn, sql string) {
	b.t.Helper()
	if _, err := conn.Exec(b.t.Context(), sql); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
}

func (b *bench) dial(ctx context.Context, shard directory.Shard, database string) (*pgx.Conn, error) {
	b.dials.Add(1)
	return b.Dial(ctx, shard, database)
}

func (b *bench) maps() map[string]*directory.Map {
	return map[string]*directory.Map{b.m.Database: b.m}
}

// rows are those of the copy.
func (b *bench) rows() string {
	b.t.Helper()
	rows, err := b.copy.Query(b.t.Context(), "SELECT id || v FROM r ORDER BY id")
	must(b.t, err)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(b.t, err)
	return strings.Join(all, " ")
}

// store is a directory of its own for a test; its routers' leases live for two seconds.
func store(t *testing.T, endpoints ...string) *etcd.Store {
	t.Helper()
	s, err := etcd.Open(t.Context(), etcd.Config{Endpoints: endpoints, LeaseTTL: lease, Prefix: "/" + t.Name() + "/"})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

const lease = 2 * time.Second

// run runs a worker until stop is called.
func (b *bench) run(lead func(context.Context, func(context.Context)) error, configure func(*Config)) (stop func()) {
	b.t.Helper()
	config := Config{Lead: lead, Maps: b.maps, Dial: b.dial, Interval: 20 * time.Millisecond}
	if configure != nil {
		configure(&config)
	}
	w, err := New(config)
	must(b.t, err)
	ctx, cancel := context.WithCancel(b.t.Context())
	var done sync.WaitGroup
	done.Go(func() { _ = w.Run(ctx) })
	stop = sync.OnceFunc(func() { cancel(); done.Wait() })
	b.t.Cleanup(stop)
	return stop
}

// alone leads always.
func alone(ctx context.Context, work func(context.Context)) error {
	work(ctx)
	return ctx.Err()
}
