package etcd

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shardyard/shardyard/directory"
)

func register(t *testing.T, store *Store, name string) *Member {
	t.Helper()
	m, err := store.Register(t.Context(), RouterInfo{Name: name, Address: "127.0.0.1:6432", CancelPrefix: 7})
	must(t, err)
	return m
}

// stop ends the member's goroutine without a goodbye, as a crash would.
func (m *Member) stop() {
	m.cancel()
	<-m.done
}

func routersOf(t *testing.T, store *Store) (live, expired []string) {
	t.Helper()
	routers, err := store.Routers(t.Context())
	must(t, err)
	for _, r := range routers {
		if r.Live {
			live = append(live, r.Info.Name)
		} else {
			expired = append(expired, r.Info.Name)
		}
	}
	return live, expired
}

func TestRegisterAndGoodbye(t *testing.T) {
	store := openStore(t)
	for _, name := range []string{"", "a/b", "ä", strings.Repeat("x", 37)} {
		if _, err := store.Register(t.Context(), RouterInfo{Name: name}); err == nil {
			t.Errorf("name %q is accepted", name)
		}
	}
	one, two := register(t, store, "r1"), register(t, store, "r2")
	if !one.Held() || one.Instance() == two.Instance() || one.Incarnation() == two.Incarnation() {
		t.Error("two fresh members are not held, or not told apart")
	}
	if p := one.ApplicationPrefix(); p != "shardyard/r1/"+one.Instance()+"." || len(p) > 56 {
		t.Errorf("application prefix %q", p)
	}
	if live, expired := routersOf(t, store); !slices.Equal(live, []string{"r1", "r2"}) || len(expired) != 0 {
		t.Errorf("live %v, expired %v", live, expired)
	}
	must(t, one.Close(t.Context()))
	if live, expired := routersOf(t, store); !slices.Equal(live, []string{"r2"}) || len(expired) != 0 {
		t.Errorf("after a goodbye: live %v, expired %v", live, expired)
	}
	must(t, two.Close(t.Context()))
	if left := append(keysUnder(t, store, "routers/"), keysUnder(t, store, "seen/")...); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestLeaseIsKept(t *testing.T) {
	t.Parallel() // it mostly waits
	store := openStore(t)
	m := register(t, store, "r1")
	incarnation := m.Incarnation()
	m.mu.Lock()
	first := m.heldUntil
	m.mu.Unlock()
	until(t, "the lease was renewed past its first life, twice", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.heldUntil.After(first.Add(2 * store.config.LeaseTTL))
	})
	if m.Incarnation() != incarnation || !m.Held() {
		t.Error("the lease was lost although it was renewed")
	}
	must(t, m.Close(t.Context()))
	if m.Close(t.Context()) != nil {
		t.Error("closing again fails")
	}
}

// TestPausedRouter: a process that is stopped past its lease is expired, does not hold up a change, and is
// another incarnation when it goes on; only then forgetting the old one does nothing.
func TestPausedRouter(t *testing.T) {
	t.Parallel() // it mostly waits
	store := openStore(t)
	ctx := t.Context()
	createCluster(t, store, "app")
	process := startRouter(t, store, "paused")
	expired, err := store.WaitAcknowledged(ctx, "app", 1)
	must(t, err)
	if len(expired) != 0 {
		t.Fatalf("expired: %v", expired)
	}
	before, err := store.Routers(ctx)
	must(t, err)

	must(t, process.Signal(syscall.SIGSTOP))
	m, err := store.Apply(ctx, "app", addTable("a"))
	must(t, err)
	began := time.Now()
	expired, err = store.WaitAcknowledged(ctx, "app", m.Epoch)
	must(t, err)
	if !slices.Equal(expired, []string{"paused"}) {
		t.Fatalf("expired: %v", expired)
	}
	t.Logf("expired after %s", time.Since(began))
	old, err := store.Routers(ctx)
	must(t, err)
	if len(old) != 1 || old[0].Live || old[0].Incarnation != before[0].Incarnation {
		t.Fatalf("routers are %+v, were %+v", old, before)
	}

	must(t, process.Signal(syscall.SIGCONT))
	until(t, "it is live again", func() bool { live, _ := routersOf(t, store); return len(live) == 1 })
	expired, err = store.WaitAcknowledged(ctx, "app", m.Epoch)
	must(t, err)
	if len(expired) != 0 {
		t.Errorf("expired although it came back: %v", expired)
	}
	now, err := store.Routers(ctx)
	must(t, err)
	if now[0].Incarnation == old[0].Incarnation || now[0].Instance != old[0].Instance {
		t.Errorf("came back as %+v, was %+v", now[0], old[0])
	}
	must(t, store.Forget(ctx, old[0]))
	if seen := keysUnder(t, store, "seen/"); len(seen) != 1 {
		t.Errorf("forgetting the old incarnation left %v", seen)
	}
	must(t, process.Signal(syscall.SIGTERM))
	until(t, "it said goodbye", func() bool {
		live, expired := routersOf(t, store)
		return len(live)+len(expired) == 0
	})
}

func TestWaitAcknowledged(t *testing.T) {
	store := openStore(t)
	one, two := register(t, store, "r1"), register(t, store, "r2")
	one.Acknowledge("app", 5)
	two.Acknowledge("app", 4)
	two.Acknowledge("other", 9)
	_, err := store.WaitAcknowledged(t.Context(), "app", 4)
	must(t, err)

	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = store.WaitAcknowledged(short, "app", 5)
	var missing *NotAcknowledgedError
	if !errors.As(err, &missing) || !slices.Equal(missing.Routers, []string{"r2"}) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the error is %v", err)
	}
	if !strings.Contains(err.Error(), "r2") || strings.Contains(err.Error(), "r1") {
		t.Errorf("the error says %q", err)
	}

	var group sync.WaitGroup
	waited := make(chan error, 1)
	group.Go(func() {
		_, err := store.WaitAcknowledged(t.Context(), "app", 5)
		waited <- err
	})
	two.Acknowledge("app", 3) // older: ignored
	two.Acknowledge("app", 6)
	must(t, <-waited)
	group.Wait()

	// A registration that was never acknowledged for this database is waited for.
	three := register(t, store, "r3")
	short, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err = store.WaitAcknowledged(short, "app", 1); !errors.As(err, &missing) || !slices.Equal(missing.Routers, []string{"r3"}) {
		t.Errorf("the error is %v", err)
	}
	for _, m := range []*Member{one, two, three} {
		must(t, m.Close(t.Context()))
	}
}

// TestWaitPlanning: what still runs is not waited for, routers that have not even learnt of the epoch are.
func TestWaitPlanning(t *testing.T) {
	store := openStore(t)
	one, two := register(t, store, "r1"), register(t, store, "r2")
	one.Acknowledge("app", 5)
	two.Acknowledge("app", 4)
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var missing *NotAcknowledgedError
	if err := store.WaitPlanning(short, "app", 5); !errors.As(err, &missing) || !slices.Equal(missing.Routers, []string{"r2"}) {
		t.Fatalf("the error is %v", err)
	}
	two.Planning("app", 5)
	must(t, store.WaitPlanning(t.Context(), "app", 5))
	short, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := store.WaitAcknowledged(short, "app", 5); !errors.As(err, &missing) || !slices.Equal(missing.Routers, []string{"r2"}) {
		t.Errorf("the error is %v", err)
	}
	for _, m := range []*Member{one, two} {
		must(t, m.Close(t.Context()))
	}
}

// TestAcknowledgeIsCoalesced: however many there are, the last one counts and few are written.
func TestAcknowledgeIsCoalesced(t *testing.T) {
	store := openStore(t)
	m := register(t, store, "r1")
	const last = 20_000
	for epoch := directory.Epoch(1); epoch <= last; epoch++ {
		m.Acknowledge("app", epoch)
	}
	_, err := store.WaitAcknowledged(t.Context(), "app", last)
	must(t, err)
	kv, err := store.getOne(t.Context(), "look", store.routerKey("r1"))
	must(t, err)
	if kv.Version > last/20 {
		t.Errorf("%d acknowledgements were written %d times", last, kv.Version)
	}
	must(t, m.Close(t.Context()))
}

// TestNameTakenOver: a process that starts under a live one's name gets it; the other is expired, does not
// take it back, and returns when the name is free.
func TestNameTakenOver(t *testing.T) {
	store, other := openStore(t), openStore(t)
	one := register(t, store, "r1")
	one.Acknowledge("app", 1)
	_, err := store.WaitAcknowledged(t.Context(), "app", 1)
	must(t, err)
	two := register(t, other, "r1")
	two.Acknowledge("app", 3)
	one.Acknowledge("app", 2)
	until(t, "the first notices", func() bool { return !one.Held() })
	expired, err := store.WaitAcknowledged(t.Context(), "app", 3)
	must(t, err)
	if !slices.Equal(expired, []string{"r1"}) {
		t.Errorf("expired: %v", expired)
	}
	routers, err := store.Routers(t.Context())
	must(t, err)
	if len(routers) != 2 || !two.Held() {
		t.Errorf("routers are %+v", routers)
	}
	must(t, two.Close(t.Context()))
	until(t, "the first has the name again", one.Held)
	_, err = store.WaitAcknowledged(t.Context(), "app", 2) // its epochs came with it
	must(t, err)
	must(t, one.Close(t.Context()))
}

// TestMemberOutlivesOutage: a router registers in vain while etcd is out, serves on, and is there afterwards.
func TestMemberOutlivesOutage(t *testing.T) {
	t.Parallel() // it mostly waits
	config := EmbeddedConfig{NoSync: true, Dir: t.TempDir()}
	own, err := StartEmbedded(t.Context(), config)
	must(t, err)
	t.Cleanup(func() { own.Close() })
	config.Port = own.Port()
	store := openStore(t, func(c *Config) {
		c.Endpoints = own.Endpoints()
		c.RequestTimeout = 500 * time.Millisecond
	})
	early := register(t, store, "early")
	early.Acknowledge("app", 2)
	_, err = store.WaitAcknowledged(t.Context(), "app", 2)
	must(t, err)
	own.Close()
	late := register(t, store, "late")
	late.Acknowledge("app", 3)
	early.Acknowledge("app", 3)
	until(t, "nobody holds a lease", func() bool { return !early.Held() && !late.Held() })
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var missing *NotAcknowledgedError
	if _, err = store.WaitAcknowledged(short, "app", 3); !errors.As(err, &missing) {
		t.Errorf("the wait during the outage ends with %v", err)
	}
	if err := func() error { ghost := register(t, store, "ghost"); return ghost.Close(t.Context()) }(); err == nil {
		t.Error("a goodbye that etcd did not hear is no error")
	}

	own, err = StartEmbedded(t.Context(), config)
	must(t, err)
	until(t, "both hold their leases", func() bool { return early.Held() && late.Held() })
	_, err = store.WaitAcknowledged(t.Context(), "app", 3)
	must(t, err)
	must(t, early.Close(t.Context()))
	must(t, late.Close(t.Context()))
}

// TestCrashedRouterIsForgotten: its trace stays until it is forgotten.
func TestCrashedRouterIsForgotten(t *testing.T) {
	t.Parallel() // it mostly waits
	store := openStore(t)
	m := register(t, store, "r1")
	m.stop()
	until(t, "the lease expired", func() bool { _, expired := routersOf(t, store); return len(expired) == 1 })
	if m.Held() {
		t.Error("held after the lease expired")
	}
	routers, err := store.Routers(t.Context())
	must(t, err)
	must(t, store.Forget(t.Context(), routers[0]))
	expired, err := store.WaitAcknowledged(t.Context(), "app", 1)
	must(t, err)
	if len(expired) != 0 {
		t.Errorf("expired: %v", expired)
	}
	must(t, m.Close(t.Context()))
}
