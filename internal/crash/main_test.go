package crash

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/router"
	"github.com/shardyard/shardyard/router/backend"
)

var full = flag.Bool("full", false, "run every case, not only some")

const (
	shards   = 4
	database = "postgres"
)

var cluster *devcluster.Cluster

// atOnce is how many cases run side by side: each mostly waits.
const atOnce = "6"

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", atOnce); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(devcluster.Main(m, devcluster.Config{
		Shards: shards, Etcd: true, Settings: map[string]string{"fsync": "off", "max_prepared_transactions": "200"},
	}, &cluster))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wait polls a condition.
func wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// survivor starts a router in this process; stop ends it.
func survivor(t *testing.T, name string) (conn *pgx.Conn, stop func()) {
	t.Helper()
	running, err := node.Start(t.Context(), node.Config{
		Router:    router.Config{Name: name, Listen: "127.0.0.1:0", CancelPrefix: 1},
		Pools:     backend.Config{ServiceUser: "postgres"},
		Directory: etcd.Config{Endpoints: cluster.Etcd().Endpoints()},
		Bootstrap: cluster.Shards(),
	})
	must(t, err)
	conn, err = pgx.Connect(t.Context(), url(running.Addr().String()))
	must(t, err)
	return conn, sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = conn.Close(ctx)
		if err := running.Close(ctx); err != nil {
			t.Errorf("close router %s: %v", name, err)
		}
	})
}

func url(address string) string {
	return fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable", address, database)
}

// onShards calls do with a connection to each shard.
func onShards(t *testing.T, do func(shard int, conn *pgx.Conn)) {
	t.Helper()
	for i := range shards {
		conn, err := pgx.Connect(t.Context(), cluster.ConnString(i, database))
		must(t, err)
		do(i, conn)
		must(t, conn.Close(context.Background()))
	}
}

func each(t *testing.T, sql string) {
	t.Helper()
	onShards(t, func(_ int, conn *pgx.Conn) { run1(t, conn, sql) })
}

// run1 runs statements of the simple protocol, which must succeed.
func run1(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// count adds up what a query counts on all shards.
func count(t *testing.T, sql string, args ...any) (n int) {
	t.Helper()
	onShards(t, func(_ int, conn *pgx.Conn) {
		var here int
		must(t, conn.QueryRow(t.Context(), sql, args...).Scan(&here))
		n += here
	})
	return n
}

// texts joins what a query gives on one connection.
func texts(t *testing.T, conn *pgx.Conn, sql string) string {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql)
	must(t, err)
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(t, err)
	return strings.Join(list, " ")
}
