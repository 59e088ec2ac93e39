package backend

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

func TestReusesAConnection(t *testing.T) {
	p := newPools(t, nil)
	c := acquire(t, p, superuser)
	pid := one(t, c, "SELECT pg_backend_pid()")
	if pid != strconv.Itoa(int(c.PID())) {
		t.Fatalf("pid %s, the connection says %d", pid, c.PID())
	}
	if name := one(t, c, "SHOW application_name"); name != "shardyard/r1/" {
		t.Fatalf("application_name is %q", name)
	}
	if c.ParameterStatus("server_encoding") != "UTF8" || c.Shard() != shard().ID || c.Identity() != superuser {
		t.Fatal("the connection does not know where it is")
	}
	p.Release(c)
	again := acquire(t, p, superuser)
	if again != c {
		t.Fatal("an idle connection was not used again")
	}
	p.Release(again)
	if s := stats(t, p, superuser); s.Opened != 1 || s.Acquired != 2 || s.Idle != 1 || s.InUse() != 0 {
		t.Fatalf("got %+v", s)
	}
}

// The bound holds at every moment, and everybody gets a turn.
func TestPoolIsBounded(t *testing.T) {
	const size, workers, rounds = 4, 32, 20
	p := newPools(t, func(c *Config) { c.PoolSize = size })
	var inUse, most atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for range rounds {
				c, err := p.Acquire(testContext(t), shard(), superuser, 1)
				if err != nil {
					t.Error(err)
					return
				}
				now := inUse.Add(1)
				for {
					old := most.Load()
					if now <= old || most.CompareAndSwap(old, now) {
						break
					}
				}
				if _, err := query(c, "SELECT 1"); err != nil {
					t.Error(err)
				}
				inUse.Add(-1)
				p.Release(c)
			}
		})
	}
	group.Wait()
	s := stats(t, p, superuser)
	if most.Load() > size || s.Open > size || s.Acquired != workers*rounds || s.Waiting != 0 || s.InUse() != 0 {
		t.Fatalf("most %d, %+v", most.Load(), s)
	}
}

// A thousand waiters are served in the order in which they came.
func TestQueueIsFair(t *testing.T) {
	const waiting = 1000
	p := newPools(t, func(c *Config) { c.PoolSize = 1 })
	held := acquire(t, p, superuser)
	var mu sync.Mutex
	var order []int
	var group sync.WaitGroup
	for i := range waiting {
		group.Go(func() {
			c, err := p.Acquire(testContext(t), shard(), superuser, 1)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
			p.Release(c)
		})
		eventually(t, "the waiter is queued", func() bool { return stats(t, p, superuser).Waiting == i+1 })
	}
	p.Release(held)
	group.Wait()
	if !slices.IsSorted(order) || len(order) != waiting {
		t.Fatalf("%d were served, in the order %v", len(order), order)
	}
	if s := stats(t, p, superuser); s.Opened != 1 || s.Waited != waiting || s.WaitTime <= 0 {
		t.Fatalf("got %+v", s)
	}
}

// A connection that is closed hands its place, not itself, to the next.
func TestBrokenConnectionsPlaceGoesOn(t *testing.T) {
	p := newPools(t, func(c *Config) { c.PoolSize = 1 })
	held := acquire(t, p, superuser)
	next := make(chan *Conn)
	go func() {
		c, err := p.Acquire(testContext(t), shard(), superuser, 1)
		if err != nil {
			t.Error(err)
		}
		next <- c
	}()
	eventually(t, "the waiter is queued", func() bool { return stats(t, p, superuser).Waiting == 1 })
	held.MarkBroken()
	p.Release(held)
	c := <-next
	if c == nil || c == held {
		t.Fatal("the broken connection was handed on")
	}
	one(t, c, "SELECT 1")
	p.Release(c)
}

func TestAcquireTimesOut(t *testing.T) {
	p := newPools(t, func(c *Config) { c.PoolSize, c.AcquireTimeout = 1, 30*time.Millisecond })
	held := acquire(t, p, superuser)
	_, err := p.Acquire(testContext(t), shard(), superuser, 1)
	wantState(t, err, "53300")
	if pgerr.Of(err).Hint == "" {
		t.Fatal("no hint")
	}
	p.Release(held)
	if s := stats(t, p, superuser); s.Timeouts != 1 || s.Waiting != 0 || s.Open != 1 {
		t.Fatalf("got %+v", s)
	}
	p.Release(acquire(t, p, superuser))
}

func TestQueueIsBounded(t *testing.T) {
	p := newPools(t, func(c *Config) { c.PoolSize, c.MaxWaiting = 1, 1 })
	held := acquire(t, p, superuser)
	var group sync.WaitGroup
	group.Go(func() {
		c, err := p.Acquire(testContext(t), shard(), superuser, 1)
		if err != nil {
			t.Error(err)
			return
		}
		p.Release(c)
	})
	eventually(t, "the waiter is queued", func() bool { return stats(t, p, superuser).Waiting == 1 })
	_, err := p.Acquire(testContext(t), shard(), superuser, 1)
	wantState(t, err, "53300")
	p.Release(held)
	group.Wait()
	if s := stats(t, p, superuser); s.Refused != 1 {
		t.Fatalf("got %+v", s)
	}
}

func TestAcquireIsCancelled(t *testing.T) {
	p := newPools(t, func(c *Config) { c.PoolSize = 1 })
	held := acquire(t, p, superuser)
	ctx, cancel := context.WithCancel(testContext(t))
	done := make(chan error)
	go func() {
		_, err := p.Acquire(ctx, shard(), superuser, 1)
		done <- err
	}()
	eventually(t, "the waiter is queued", func() bool { return stats(t, p, superuser).Waiting == 1 })
	cancel()
	wantState(t, <-done, "57014")
	p.Release(held)
	p.Release(acquire(t, p, superuser))
}

// Waiters that give up while connections are handed to them lose none.
func TestCancelledWaitersLoseNothing(t *testing.T) {
	const size = 3
	p := newPools(t, func(c *Config) { c.PoolSize = size })
	var group sync.WaitGroup
	for i := range 200 {
		group.Go(func() {
			ctx, cancel := context.WithTimeout(testContext(t), time.Duration(i%20)*time.Millisecond)
			defer cancel()
			c, err := p.Acquire(ctx, shard(), superuser, 1)
			if err != nil {
				return
			}
			p.Release(c)
		})
	}
	group.Wait()
	conns := make([]*Conn, size)
	for i := range conns {
		conns[i] = acquire(t, p, superuser)
		one(t, conns[i], "SELECT 1")
	}
	for _, c := range conns {
		p.Release(c)
	}
	if s := stats(t, p, superuser); s.Open != size || s.Idle != size {
		t.Fatalf("got %+v", s)
	}
}

func TestConnectErrors(t *testing.T) {
	p := newPools(t, func(c *Config) { c.ConnectTimeout = 2 * time.Second })
	ctx := testContext(t)
	_, err := p.Acquire(ctx, shard(), Identity{Database: "absent", User: "postgres"}, 1)
	wantState(t, err, "3D000")
	_, err = p.Acquire(ctx, shard(), Identity{Database: "postgres", User: "no'bo\\dy"}, 1)
	wantState(t, err, "28000")
	nowhere := directory.Shard{ID: "nowhere", Primary: directory.Endpoint{Host: "127.0.0.1", Port: 1}}
	_, err = p.Acquire(ctx, nowhere, superuser, 1)
	wantState(t, err, "08006")
	for _, s := range p.Stats() {
		if s.Open != 0 || s.OpenFailed != 1 {
			t.Fatalf("a failed attempt keeps its place: %+v", s)
		}
	}
	if _, err := p.Service(ctx, nowhere, "postgres"); pgerr.Of(err).Code != "08006" {
		t.Fatalf("got %v", err)
	}
}

// Nothing of the process's environment gets into a connection.
func TestEnvironmentStaysOut(t *testing.T) {
	for name, value := range map[string]string{
		"PGOPTIONS": "-c work_mem=999kB", "PGTZ": "Asia/Tokyo", "PGAPPNAME": "x", "PGUSER": "nobody", "PGDATABASE": "absent",
		"PGHOST": "192.0.2.1", "PGPORT": "1", "PGSSLMODE": "verify-full", "PGTARGETSESSIONATTRS": "read-only",
	} {
		t.Setenv(name, value)
	}
	p := newPools(t, nil)
	c := acquire(t, p, superuser)
	if got := one(t, c, "SELECT current_setting('work_mem') || current_setting('TimeZone') || current_setting('application_name')"); got == "" ||
		got[:5] == "999kB" || got[len(got)-13:] != "shardyard/r1/" {
		t.Fatalf("got %q", got)
	}
	p.Release(c)
}

func TestCloseWakesWaiters(t *testing.T) {
	p := newPools(t, func(c *Config) { c.PoolSize = 1 })
	held := acquire(t, p, superuser)
	done := make(chan error)
	go func() {
		_, err := p.Acquire(testContext(t), shard(), superuser, 1)
		done <- err
	}()
	eventually(t, "the waiter is queued", func() bool { return stats(t, p, superuser).Waiting == 1 })
	p.Close()
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v", err)
	}
	one(t, held, "SELECT 1")
	p.Release(held)
	if !held.Broken() {
		t.Fatal("a connection outlives its pools")
	}
	if _, err := p.Acquire(testContext(t), shard(), superuser, 1); pgerr.Of(err).Code != "57P01" {
		t.Fatalf("got %v", err)
	}
	if _, err := p.Service(testContext(t), shard(), "postgres"); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v", err)
	}
}

func TestIdleAndOldConnectionsAreClosed(t *testing.T) {
	p := newPools(t, func(c *Config) { c.IdleTimeout = 40 * time.Millisecond })
	p.Release(acquire(t, p, superuser))
	eventually(t, "the pool is forgotten", func() bool { return len(p.Stats()) == 0 })
	c := acquire(t, p, superuser)
	one(t, c, "SELECT 1")
	p.Release(c)

	short := newPools(t, func(c *Config) { c.MaxLifetime = 40 * time.Millisecond })
	old := acquire(t, short, superuser)
	eventually(t, "the connection is old", func() bool { return time.Now().After(old.expires) })
	short.Release(old)
	if s := stats(t, short, superuser); s.Idle != 0 || s.Closed != 1 {
		t.Fatalf("got %+v", s)
	}
}

// Parallel use of everything at once, for the race detector.
func TestManyDatabasesAndUsers(t *testing.T) {
	p := newPools(t, func(c *Config) { c.PoolSize = 2 })
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			id := Identity{Database: []string{"postgres", "template1"}[i%2], User: "postgres"}
			for range 10 {
				c, err := p.Acquire(testContext(t), shard(), id, 1)
				if err != nil {
					t.Error(err)
					return
				}
				values, err := query(c, "SELECT current_database()")
				if err != nil || values[0] != id.Database {
					t.Errorf("got %v %v", values, err)
				}
				if i%5 == 0 {
					c.MarkDirty()
				}
				p.Release(c)
				_ = p.Stats()
			}
		})
	}
	group.Wait()
	eventually(t, "all are clean", func() bool {
		for _, s := range p.Stats() {
			if s.InUse() != 0 {
				return false
			}
		}
		return true
	})
}

func BenchmarkAcquireRelease(b *testing.B) {
	p, err := New(context.Background(), Config{RouterName: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		c, err := p.Acquire(ctx, shard(), superuser, 1)
		if err != nil {
			b.Fatal(err)
		}
		p.Release(c)
	}
}

func BenchmarkSelect(b *testing.B) {
	p, err := New(context.Background(), Config{RouterName: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	ctx := context.Background()
	request := wire.AppendQuery(nil, "SELECT 1")
	b.ReportAllocs()
	for b.Loop() {
		c, err := p.Acquire(ctx, shard(), superuser, 1)
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Write(request); err != nil {
			b.Fatal(err)
		}
		for {
			frame, err := c.Next()
			if err != nil {
				b.Fatal(err)
			}
			if frame.Type == wire.TypeReady {
				break
			}
		}
		p.Release(c)
	}
}
