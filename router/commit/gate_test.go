package commit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/internal/testbed"
	"github.com/shardyard/shardyard/router/pgerr"
)

// newGate is a gate whose connections are closed at the end of the test.
func newGate(t *testing.T, b *bed, cfg GateConfig) *Gate {
	t.Helper()
	cfg.Dial = b.Dial
	g, err := NewGate(cfg)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); g.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return g
}

// decideNow is how a decision on a shard ends now, "" if it is made.
func (b *bed) decideNow(shard int) string {
	b.t.Helper()
	_, err := b.Connect(shard).Exec(b.t.Context(), "SET lock_timeout = 100; BEGIN; LOCK TABLE shardyard.decision IN ROW EXCLUSIVE MODE; COMMIT")
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	must(b.t, err)
	return ""
}

// backends is the number of the database's connections that a condition holds for, on all shards.
func (b *bed) backends(where string) (n int) {
	b.t.Helper()
	for i := range cluster.Shards() {
		var on int
		conn := b.Connect(i)
		must(b.t, conn.QueryRow(b.t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND "+where).Scan(&on))
		must(b.t, conn.Close(b.t.Context()))
		n += on
	}
	return n
}

func TestGateStopsDecisions(t *testing.T) {
	b := newBed(t)
	g := newGate(t, b, GateConfig{})
	m := b.maps()[b.Name]
	for range 3 { // the second round uses the connections of the first
		hold, err := g.Hold(t.Context(), m)
		must(t, err)
		for i := range cluster.Shards() {
			if code := b.decideNow(i); code != lockNotAvailable {
				t.Errorf("shard %d decides: %q", i, code)
			}
		}
		hold.Release(t.Context())
		hold.Release(t.Context()) // does nothing
		for i := range cluster.Shards() {
			if code := b.decideNow(i); code != "" {
				t.Errorf("shard %d does not decide: %s", i, code)
			}
		}
	}
}

// However many readers there are, the gate has few connections, and all get their turn.
func TestGateIsShared(t *testing.T) {
	b := newBed(t)
	g := newGate(t, b, GateConfig{Rounds: 1})
	m := b.maps()[b.Name]
	var work sync.WaitGroup
	for range 50 {
		work.Go(func() {
			for range 5 {
				hold, err := g.Hold(t.Context(), m)
				if err != nil {
					t.Error(err)
					return
				}
				hold.Release(t.Context())
			}
		})
	}
	work.Wait()
	if n := b.backends("query LIKE 'COMMIT%'"); n != len(cluster.Shards()) {
		t.Errorf("%d connections are open", n)
	}
}

// A decision that takes long makes readers wait, and fail with its process in the end; neither is for ever.
func TestGateBehindDecision(t *testing.T) {
	b := newBed(t)
	m := b.maps()[b.Name]
	decider := b.Connect(1)
	var pid int
	must(t, decider.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&pid))
	b.exec(decider, "BEGIN; LOCK TABLE shardyard.decision IN ROW EXCLUSIVE MODE")
	_, err := newGate(t, b, GateConfig{Patience: 300 * time.Millisecond}).Hold(t.Context(), m)
	e := pgerr.Of(err)
	if e == nil || e.Code != lockNotAvailable || !strings.Contains(e.Detail, fmt.Sprintf("process %d", pid)) ||
		!strings.Contains(e.Detail, "Shard s2") || e.Hint == "" {
		t.Fatalf("%v: %q", err, e.Detail)
	}
	if code := b.decideNow(0); code != "" {
		t.Errorf("the gate still stands: %s", code)
	}

	g := newGate(t, b, GateConfig{})
	cancelled, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	take := func(ctx context.Context) {
		hold, err := g.Hold(ctx, m)
		if err == nil {
			hold.Release(ctx)
		}
		ended <- err
	}
	go take(cancelled)
	testbed.Until(t, "a round waits", func() bool { return b.backends("wait_event_type = 'Lock'") > 0 })
	go take(t.Context())
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("the reader that was cancelled: %v", err)
	}
	b.exec(decider, "COMMIT")
	must(t, <-ended)
}

// Connections that were lost while nobody used them are replaced, and idle ones closed.
func TestGateConnections(t *testing.T) {
	b := newBed(t)
	g := newGate(t, b, GateConfig{IdleTimeout: 500 * time.Millisecond})
	m := b.maps()[b.Name]
	hold, err := g.Hold(t.Context(), m)
	must(t, err)
	hold.Release(t.Context())
	for i := range cluster.Shards() {
		b.exec(b.Connect(i), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COMMIT%' AND pid <> pg_backend_pid()")
	}
	hold, err = g.Hold(t.Context(), m)
	must(t, err)
	hold.Release(t.Context())
	testbed.Until(t, "idle connections are closed", func() bool { return b.backends("query LIKE 'COMMIT%'") == 0 })
	g.mu.Lock()
	kept := len(g.databases)
	g.mu.Unlock()
	if kept != 0 {
		t.Errorf("%d databases are kept", kept)
	}
}
