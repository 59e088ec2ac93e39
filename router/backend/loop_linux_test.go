package backend

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shardyard/shardyard/router/loop"
)

func startLoop(t *testing.T) *loop.Loop {
	t.Helper()
	l, err := loop.New(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { l.Run(ctx); close(ended) }()
	t.Cleanup(func() { stop(); <-ended })
	return l
}

// onLoop runs a task on the loop and waits for it.
func onLoop(l *loop.Loop, run func(*loop.Task)) {
	ended := make(chan struct{})
	l.Go(func(task *loop.Task) { defer close(ended); run(task) })
	<-ended
}

// Tasks share a small pool without leaving the loop, but to open its connections.
func TestPoolOnLoop(t *testing.T) {
	const size, workers, rounds = 2, 16, 20
	l := startLoop(t)
	p := newPools(t, func(c *Config) { c.PoolSize, c.Loop = size, l })
	var group sync.WaitGroup
	left := 0 // of the turns in which nothing was opened; only the loop counts
	for range workers {
		group.Add(1)
		l.Go(func(task *loop.Task) {
			defer group.Done()
			for range rounds {
				c, err := p.AcquireFor(t.Context(), shard(), superuser, 1, Wish{Task: task})
				if err != nil {
					t.Error(err)
					return
				}
				if task.Enter(); c.polled == nil {
					t.Error("the loop does not wait for the connection")
				}
				if values, err := query(c, "SELECT 1"); err != nil || len(values) != 1 {
					t.Errorf("got %v: %v", values, err)
				}
				if !task.OnLoop() {
					left++
				}
				p.Release(c)
			}
		})
	}
	group.Wait()
	s := stats(t, p, superuser)
	if left > 0 || s.Open > size || s.Opened > size || s.Acquired != workers*rounds || s.Waiting != 0 || s.InUse() != 0 || s.Waited == 0 {
		t.Fatalf("left %d times, %+v", left, s)
	}
}

// A wait on the loop ends with its time, when it is stopped and with the pools.
func TestWaitOnLoopEnds(t *testing.T) {
	l := startLoop(t)
	p := newPools(t, func(c *Config) { c.PoolSize, c.AcquireTimeout, c.Loop = 1, 30*time.Millisecond, l })
	held := acquire(t, p, superuser)
	var err error
	onLoop(l, func(task *loop.Task) {
		_, err = p.AcquireFor(t.Context(), shard(), superuser, 1, Wish{Task: task})
	})
	wantState(t, err, "53300")
	var stopped atomic.Bool
	onLoop(l, func(task *loop.Task) {
		time.AfterFunc(5*time.Millisecond, func() { stopped.Store(true); task.Wake() })
		_, err = p.AcquireFor(t.Context(), shard(), superuser, 1, Wish{Task: task, Stopped: stopped.Load})
	})
	wantState(t, err, "57014")
	if s := stats(t, p, superuser); s.Waiting != 0 || s.Timeouts != 2 {
		t.Fatalf("got %+v", s)
	}
	p.Release(held)
	held = acquire(t, p, superuser)
	ended := make(chan error)
	l.Go(func(task *loop.Task) {
		_, err := p.AcquireFor(t.Context(), shard(), superuser, 1, Wish{Task: task})
		task.Leave()
		ended <- err
	})
	eventually(t, "it waits", func() bool { return stats(t, p, superuser).Waiting == 1 })
	closed := make(chan struct{})
	go func() { p.Close(); close(closed) }()
	if err := <-ended; err == nil {
		t.Fatal("got a connection of pools that are closed")
	}
	p.Release(held)
	<-closed
}

// A pool that becomes larger serves at once who waits on the loop.
func TestLargerPoolOnLoop(t *testing.T) {
	l := startLoop(t)
	var cfg Config
	p := newPools(t, func(c *Config) { c.PoolSize, c.Loop = 1, l; cfg = *c })
	held := acquire(t, p, superuser)
	ended := make(chan error)
	l.Go(func(task *loop.Task) {
		c, err := p.AcquireFor(t.Context(), shard(), superuser, 1, Wish{Task: task})
		if err == nil {
			p.Release(c)
		}
		ended <- err
	})
	eventually(t, "it waits", func() bool { return stats(t, p, superuser).Waiting == 1 })
	cfg.PoolSize = 2
	if err := p.SetLimits(cfg); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it still waits")
	}
	p.Release(held)
}
