package backend

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

var cluster *devcluster.Cluster

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(devcluster.Main(m, devcluster.Config{Shards: 1}, &cluster))
}

var superuser = Identity{Database: "postgres", User: "postgres"}

// testContext bounds each test.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func newPools(t *testing.T, change func(*Config)) *Pools {
	t.Helper()
	cfg := Config{RouterName: "r1"}
	if change != nil {
		change(&cfg)
	}
	p, err := New(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func shard() directory.Shard { return cluster.Shards()[0] }

func acquire(t *testing.T, p *Pools, id Identity) *Conn {
	t.Helper()
	c, err := p.Acquire(testContext(t), shard(), id, 100)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// query runs a simple query and returns the text of the first columns.
func query(c *Conn, sql string) ([]string, error) {
	if err := c.Write(wire.AppendQuery(nil, sql)); err != nil {
		return nil, err
	}
	return answer(c)
}

func answer(c *Conn) (values []string, failed error) {
	for {
		frame, err := c.Next()
		if err != nil {
			return values, errors.Join(failed, err)
		}
		switch frame.Type {
		case wire.TypeDataRow:
			row := wire.NewRow(frame.Body)
			v, _ := row.Next()
			values = append(values, string(v))
		case wire.TypeErrorResponse:
			failed = pgerr.FromShard(frame.Body)
		case wire.TypeReady:
			return values, failed
		}
	}
}

func mustQuery(t *testing.T, c *Conn, sql string) []string {
	t.Helper()
	values, err := query(c, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return values
}

func one(t *testing.T, c *Conn, sql string) string {
	t.Helper()
	values := mustQuery(t, c, sql)
	if len(values) != 1 {
		t.Fatalf("%s: got %q, want one row", sql, values)
	}
	return values[0]
}

func wantState(t *testing.T, err error, code string) {
	t.Helper()
	if got := pgerr.Of(err); got == nil || got.Code != code {
		t.Fatalf("got %v, want SQLSTATE %s", err, code)
	}
}

// eventually polls a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func stats(t *testing.T, p *Pools, id Identity) PoolStats {
	t.Helper()
	for _, s := range p.Stats() {
		if s.Identity == id && s.Shard == shard().ID {
			return s
		}
	}
	t.Fatalf("no pool for %+v", id)
	return PoolStats{}
}

// admin runs a statement as the service role outside of the pools.
func admin(t *testing.T, database, sql string) {
	t.Helper()
	ctx := testContext(t)
	p, err := New(ctx, Config{RouterName: "admin"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	conn, err := p.Service(ctx, shard(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}
