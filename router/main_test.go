package router_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/internal/node/nodetest"
	"github.com/shardyard/shardyard/internal/testbed"
)

var cluster *testbed.Cluster

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(testbed.Main(m, devcluster.Config{Shards: 3, BurnOIDs: true, Etcd: true}, &cluster))
}

// bed is a database of its own on the shards, with routers in front.
type bed struct {
	*nodetest.Bed
	t        *testing.T
	database string
}

// eachMode runs a test with a goroutine for each client, and with the event loop.
func eachMode(t *testing.T, test func(t *testing.T, b *bed), options ...nodetest.Option) {
	for name, loop := range map[string]bool{"goroutine": false, "loop": true} {
		t.Run(name, func(t *testing.T) {
			test(t, newBed(t, 1, append(options, func(c *node.Config) { c.Router.EventLoop = loop })...))
		})
	}
}

func newBed(t *testing.T, routers int, options ...nodetest.Option) *bed {
	t.Helper()
	log := slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	options = append([]nodetest.Option{func(c *node.Config) { c.Log = log }}, options...)
	b := nodetest.New(t, cluster, routers, options...)
	return &bed{Bed: b, t: t, database: b.Name}
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
	testbed.Exec(t, cluster.ConnString(shard, database), sql)
}

func (b *bed) url(i int) string { return b.URL(i) }

// connect opens a session on router i.
func (b *bed) connect(i int, change ...func(*pgx.ConnConfig)) *pgx.Conn {
	b.t.Helper()
	return b.Session(i, change...)
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
