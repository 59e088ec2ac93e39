package router_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/router"
	"github.com/shardyard/shardyard/router/backend"
)

var cluster *devcluster.Cluster

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(devcluster.Main(m, devcluster.Config{
		Shards: 3, BurnOIDs: true, Etcd: true, Settings: map[string]string{"max_prepared_transactions": "50", "fsync": "off"},
	}, &cluster))
}

var beds atomic.Int32

// bed is a database of its own on the shards, with routers in front.
type bed struct {
	t        *testing.T
	database string
	routers  []*node.Node
}

type bedOption func(*node.Config)

// eachMode runs a test with a goroutine for each client, and with a fresh one for each request.
func eachMode(t *testing.T, test func(t *testing.T, b *bed), options ...bedOption) {
	for name, fresh := range map[string]bool{"goroutine": false, "fresh": true} {
		t.Run(name, func(t *testing.T) {
			test(t, newBed(t, 1, append(options, func(c *node.Config) { c.Router.FreshGoroutine = fresh })...))
		})
	}
}

func newBed(t *testing.T, routers int, options ...bedOption) *bed {
	t.Helper()
	n := beds.Add(1)
	b := &bed{t: t, database: fmt.Sprintf("bed%d", n)}
	direct(t, 0, "postgres", "CREATE DATABASE "+b.database)
	for i := range routers {
		cfg := node.Config{
			Router:    router.Config{Name: fmt.Sprintf("r%d", i+1), Listen: "127.0.0.1:0", CancelPrefix: uint16(i + 1)},
			Pools:     backend.Config{ServiceUser: "postgres"},
			Directory: etcd.Config{Endpoints: cluster.Etcd().Endpoints(), Cluster: b.database},
			Bootstrap: cluster.Shards(),
			Log:       slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
		}
		for _, option := range options {
			option(&cfg)
		}
		running, err := node.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		b.routers = append(b.routers, running)
		t.Cleanup(func() {
			if !slices.Contains(b.routers, running) {
				return // the test closed it
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if err := running.Close(ctx); err != nil {
				t.Errorf("close router: %v", err)
			}
		})
	}
	return b
}

type testLog struct{ t *testing.T }

func (l testLog) Write(line []byte) (int, error) {
	if os.Getenv("ROUTER_TEST_LOG") != "" {
		l.t.Log(strings.TrimSpace(string(line)))
	}
	return len(line), nil
}

// direct runs a statement on a shard, around the routers.
func direct(t *testing.T, shard int, database, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, cluster.ConnString(shard, database))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func (b *bed) url(i int) string {
	return fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable", b.routers[i].Addr(), b.database)
}

// connect opens a session on router i.
func (b *bed) connect(i int, change ...func(*pgx.ConnConfig)) *pgx.Conn {
	b.t.Helper()
	cfg, err := pgx.ParseConfig(b.url(i))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range change {
		c(cfg)
	}
	conn, err := pgx.ConnectConfig(b.t.Context(), cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func mustExec(t *testing.T, conn *pgx.Conn, sql string, args ...any) pgconn.CommandTag {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tag, err := conn.Exec(ctx, sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return tag
}

// simple runs a text in the simple protocol and returns its results, rows as "a|b".
func simple(t *testing.T, conn *pgx.Conn, sql string) ([]string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	var lines []string
	for _, r := range results {
		for _, row := range r.Rows {
			values := make([]string, len(row))
			for i, v := range row {
				values[i] = string(v)
				if v == nil {
					values[i] = "NULL"
				}
			}
			lines = append(lines, strings.Join(values, "|"))
		}
		lines = append(lines, r.CommandTag.String())
	}
	return lines, err
}

func mustSimple(t *testing.T, conn *pgx.Conn, sql string) string {
	t.Helper()
	lines, err := simple(t, conn, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return strings.Join(lines, "\n")
}

func expect(t *testing.T, conn *pgx.Conn, sql, want string) {
	t.Helper()
	if got := mustSimple(t, conn, sql); got != want {
		t.Fatalf("%s:\n got %q\nwant %q", sql, got, want)
	}
}

func code(err error) string {
	if e, ok := err.(interface{ SQLState() string }); ok {
		return e.SQLState()
	}
	return fmt.Sprint(err)
}

func expectError(t *testing.T, conn *pgx.Conn, sql, want string) {
	t.Helper()
	_, err := simple(t, conn, sql)
	if got := code(err); got != want {
		t.Fatalf("%s: got %v (%s), want %s", sql, err, got, want)
	}
}

func pgPosition(err error) int32 {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Position
	}
	return -1
}
