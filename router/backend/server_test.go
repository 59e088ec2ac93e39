package backend

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shardyard/shardyard/router/wire"
)

func TestCancel(t *testing.T) {
	p := newPools(t, nil)
	c := acquire(t, p, superuser)
	watch := acquire(t, p, superuser)
	canceller := c.Canceller()
	var group sync.WaitGroup
	group.Go(func() {
		eventually(t, "the statement runs", func() bool {
			return one(t, watch, fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE pid = %d AND wait_event = 'PgSleep'", c.PID())) == "1"
		})
		if err := canceller.Cancel(testContext(t)); err != nil {
			t.Error(err)
		}
	})
	_, err := query(c, "SELECT pg_sleep(1000)")
	wantState(t, err, "57014")
	group.Wait()
	one(t, c, "SELECT 1")
	p.Release(watch)
	p.Release(c)
}

// A cancel request of a former holder never hits the next one.
func TestLateCancelHitsNobody(t *testing.T) {
	p := newPools(t, func(c *Config) { c.PoolSize = 1 })
	for i := range 100 {
		c := acquire(t, p, superuser)
		canceller := c.Canceller()
		var group sync.WaitGroup
		group.Go(func() {
			if err := canceller.Cancel(testContext(t)); err != nil {
				t.Error(err)
			}
		})
		if i%2 == 0 {
			_, _ = query(c, "SELECT 1")
		}
		p.Release(c)
		next := acquire(t, p, superuser)
		if _, err := query(next, "SELECT pg_sleep(0.001)"); err != nil {
			t.Fatalf("round %d: another session's cancel came through: %v", i, err)
		}
		group.Wait()
		if err := canceller.Cancel(testContext(t)); err != nil {
			t.Fatal(err)
		}
		one(t, next, "SELECT 1")
		p.Release(next)
	}
}

// After a restart of the shard the pool's idle connections are all stale; no caller notices.
func TestRestartOfTheShard(t *testing.T) {
	const size = 8
	p := newPools(t, func(c *Config) { c.PoolSize = size })
	conns := make([]*Conn, size)
	for i := range conns {
		conns[i] = acquire(t, p, superuser)
	}
	held := conns[0]
	for _, c := range conns[1:] {
		p.Release(c)
	}
	if err := cluster.StopShard(0); err != nil {
		t.Fatal(err)
	}
	_, err := query(held, "SELECT 1")
	if err == nil || !held.Broken() {
		t.Fatalf("got %v", err)
	}
	p.Release(held)
	_, err = p.Acquire(testContext(t), shard(), superuser, 1)
	wantState(t, err, "08006")
	if err := cluster.RestartShard(testContext(t), 0); err != nil {
		t.Fatal(err)
	}
	for i := range conns {
		conns[i] = acquire(t, p, superuser)
		one(t, conns[i], "SELECT 1")
	}
	for _, c := range conns {
		p.Release(c)
	}
	if s := stats(t, p, superuser); s.Stale == 0 || s.Open != size || s.Idle != size {
		t.Fatalf("got %+v", s)
	}
}

// A terminated idle connection is found at acquire, not by its user.
func TestTerminatedIdleConnection(t *testing.T) {
	p := newPools(t, nil)
	for range 20 {
		c := acquire(t, p, superuser)
		pid := c.PID()
		p.Release(c)
		admin(t, "postgres", fmt.Sprintf("SELECT pg_terminate_backend(%d, 5000)", pid))
		c = acquire(t, p, superuser)
		if c.PID() == pid {
			t.Fatal("got the dead connection")
		}
		one(t, c, "SELECT 1")
		p.Release(c)
	}
}

// What a server may say at any time to an idle connection is no reason to drop it, and does not get in the way.
func TestIdleConnectionIsSpokenTo(t *testing.T) {
	p := newPools(t, nil)
	c := acquire(t, p, superuser)
	pid := c.PID()
	mustQuery(t, c, "LISTEN news")
	p.Release(c)
	for range 3 {
		admin(t, "postgres", "NOTIFY news, 'x'")
		eventually(t, "the notification arrives", func() bool {
			return c.raw.Read(c.peek.look) == nil && c.peek.result == peekData
		})
		if again := acquire(t, p, superuser); again != c {
			t.Fatal("the connection was dropped")
		}
		if got := one(t, c, "SELECT pg_backend_pid()"); got != fmt.Sprint(pid) {
			t.Fatalf("got %s", got)
		}
		p.Release(c)
	}
}

// A first write that reaches nobody is told apart: it may be retried.
func TestStaleWrite(t *testing.T) {
	p := newPools(t, nil)
	c := acquire(t, p, superuser)
	if err := c.net.(*net.TCPConn).CloseWrite(); err != nil { // the kernel takes no byte any more
		t.Fatal(err)
	}
	err := c.Write(wire.AppendQuery(nil, "SELECT 1"))
	if !errors.Is(err, ErrStale) || !c.Broken() {
		t.Fatalf("got %v", err)
	}
	p.Release(c)
	c = acquire(t, p, superuser)
	one(t, c, "SELECT 1")
	if err := c.net.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	err = c.Write(wire.AppendQuery(nil, "SELECT 1"))
	if errors.Is(err, ErrStale) {
		t.Fatal("not the first write")
	}
	wantState(t, err, "08006")
	p.Release(c)
}

func TestTerminateAllAndReconnect(t *testing.T) {
	p := newPools(t, nil)
	held, idle := acquire(t, p, superuser), acquire(t, p, superuser)
	p.Release(idle)
	p.Reconnect(shard().ID)
	one(t, held, "SELECT 1")
	p.Release(held)
	if s := stats(t, p, superuser); s.Open != 0 || s.Closed != 2 {
		t.Fatalf("got %+v", s)
	}
	held = acquire(t, p, superuser)
	p.TerminateAll(shard().ID)
	_, err := query(held, "SELECT 1")
	wantState(t, err, "08006")
	p.Release(held)
}

func TestShardMoves(t *testing.T) {
	p := newPools(t, nil)
	ctx := testContext(t)
	c := acquire(t, p, superuser) // epoch 100
	p.Release(c)
	moved := shard()
	moved.Primary.Host = "localhost"
	again, err := p.Acquire(ctx, moved, superuser, 101)
	if err != nil || again == c {
		t.Fatalf("the old address is still used (%v)", err)
	}
	p.Release(again)
	old, err := p.Acquire(ctx, shard(), superuser, 100) // an older map does not bring it back
	if err != nil || old != again {
		t.Fatalf("got another connection (%v)", err)
	}
	p.Release(old)
}

func TestFloor(t *testing.T) {
	ctx := testContext(t)
	if err := cluster.CreateDatabase(ctx, "fenced"); err != nil {
		t.Fatal(err)
	}
	admin(t, "fenced", `CREATE SCHEMA IF NOT EXISTS shardyard; GRANT USAGE ON SCHEMA shardyard TO PUBLIC;
		DROP TABLE IF EXISTS shardyard.epoch; CREATE TABLE shardyard.epoch (floor bigint); GRANT SELECT ON shardyard.epoch TO PUBLIC`)
	admin(t, "postgres", "DROP ROLE IF EXISTS app; CREATE ROLE app LOGIN")
	p := newPools(t, nil)
	id := Identity{Database: "fenced", User: "app"}
	c, err := p.Acquire(ctx, shard(), id, 1) // no row yet
	if err != nil {
		t.Fatal(err)
	}
	p.Release(c)
	admin(t, "fenced", "INSERT INTO shardyard.epoch VALUES (7)")
	p.Reconnect(shard().ID)
	for range 2 { // the second time nothing is asked
		_, err = p.Acquire(ctx, shard(), id, 6)
		var floor *FloorError
		if !errors.As(err, &floor) || floor.Floor != 7 || floor.Epoch != 6 || floor.Shard != shard().ID {
			t.Fatalf("got %v", err)
		}
		wantState(t, err, "57P03")
	}
	if s := stats(t, p, id); s.Open != 0 {
		t.Fatalf("a refused connection keeps its place: %+v", s)
	}
	c, err = p.Acquire(ctx, shard(), id, 7)
	if err != nil {
		t.Fatal(err)
	}
	p.Release(c)
	if _, err = p.Acquire(ctx, shard(), id, 6); err == nil {
		t.Fatal("an old map was let in on a newer connection")
	}
}

// A pipeline whose requests and answers are both larger than the sockets' buffers does not block.
func TestLargePipeline(t *testing.T) {
	p := newPools(t, nil)
	c := acquire(t, p, superuser)
	defer p.Release(c)
	const requests = 200
	var request []byte
	payload := []byte(strings.Repeat("x", 100_000))
	for range requests {
		request = wire.AppendParse(request, "", "SELECT $1::text", nil)
		request = wire.AppendBind(request, "", "", nil, [][]byte{payload}, nil)
		request = wire.AppendExecute(request, "", 0)
	}
	if err := c.Write(wire.AppendSync(request)); err != nil {
		t.Fatal(err)
	}
	clear(request) // it belongs to the caller again
	values, err := answer(c)
	if err != nil || len(values) != requests || values[requests-1] != string(payload) {
		t.Fatalf("%d rows, %v", len(values), err)
	}
}

func TestCopyBothWays(t *testing.T) {
	p := newPools(t, nil)
	c := acquire(t, p, superuser)
	defer p.Release(c)
	mustQuery(t, c, "CREATE TEMP TABLE copied (x text)")
	c.MarkDirty()
	if err := c.Write(wire.AppendQuery(nil, "COPY copied FROM STDIN")); err != nil {
		t.Fatal(err)
	}
	if frame, err := c.Next(); err != nil || frame.Type != wire.TypeCopyInResponse {
		t.Fatalf("got %c %v", frame.Type, err)
	}
	line := bytes.Repeat([]byte("abcdefgh\n"), 10_000)
	for range 20 {
		if err := c.Write(wire.AppendCopyData(nil, line)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Write(wire.AppendCopyDone(nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := answer(c); err != nil {
		t.Fatal(err)
	}
	if n := one(t, c, "SELECT count(*) FROM copied"); n != "200000" {
		t.Fatalf("%s rows", n)
	}
}

// COPY FROM STDIN by the extended protocol: the server ignores the Sync behind Execute, and so does the count of what it owes.
func TestCopyInExtendedProtocol(t *testing.T) {
	p := newPools(t, func(c *Config) { c.PoolSize = 1 })
	c := acquire(t, p, superuser)
	pid := c.PID()
	mustQuery(t, c, "CREATE TEMP TABLE copied (x text)")
	c.MarkDirty()
	for range 2 {
		request := wire.AppendParse(nil, "", "COPY copied FROM STDIN", nil)
		request = wire.AppendSync(wire.AppendExecute(wire.AppendBind(request, "", "", nil, nil, nil), "", 0))
		for i := range request { // in the smallest pieces
			if err := c.Write(request[i : i+1]); err != nil {
				t.Fatal(err)
			}
		}
		for {
			frame, err := c.Next()
			if err != nil {
				t.Fatal(err)
			}
			if frame.Type == wire.TypeCopyInResponse {
				break
			}
		}
		data := wire.AppendSync(wire.AppendCopyDone(wire.AppendCopyData(nil, []byte("a\n"))))
		if err := c.Write(data); err != nil {
			t.Fatal(err)
		}
		if c.Idle() {
			t.Fatal("idle before the answer")
		}
		if _, err := answer(c); err != nil || !c.Idle() {
			t.Fatalf("not idle behind the answer: %v", err)
		}
	}
	p.Release(c)
	c = acquire(t, p, superuser)
	if c.PID() != pid {
		t.Fatal("the connection was closed without need")
	}
	p.Release(c)
}

func TestReadDeadlineLosesNothing(t *testing.T) {
	p := newPools(t, nil)
	c := acquire(t, p, superuser)
	defer p.Release(c)
	if err := c.Write(wire.AppendQuery(nil, "SELECT pg_sleep(0.2)::text || 'done'")); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Next(); !errors.Is(err, os.ErrDeadlineExceeded) || c.Broken() {
		t.Fatalf("got %v", err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if values, err := answer(c); err != nil || values[0] != "done" {
		t.Fatalf("got %v %v", values, err)
	}
}

func TestConfigRefused(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no name":        {},
		"slash":          {RouterName: "a/b"},
		"application":    {ApplicationName: strings.Repeat("x", 64)},
		"newline":        {ApplicationName: "a\nb"},
		"long":           {RouterName: strings.Repeat("x", 41)},
		"pool size":      {RouterName: "r", PoolSize: -1},
		"timeout":        {RouterName: "r", AcquireTimeout: -1},
		"tls mode":       {RouterName: "r", TLS: TLS{Mode: "maybe"}},
		"tls key":        {RouterName: "r", TLS: TLS{Cert: "c"}},
		"idle timeout":   {RouterName: "r", IdleTimeout: -1},
		"prepared bound": {RouterName: "r", PreparedStatements: -5},
	} {
		if p, err := New(t.Context(), cfg); err == nil {
			p.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}
