package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/shardyard/shardyard/directory"
)

// follower collects what a Watch delivers.
type follower struct {
	mu        sync.Mutex
	snapshots []*Snapshot
}

func (f *follower) deliver(s *Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.snapshots = append(f.snapshots, s)
}

func (f *follower) epoch(database string) directory.Epoch {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.snapshots) == 0 || f.snapshots[len(f.snapshots)-1].Maps[database] == nil {
		return 0
	}
	return f.snapshots[len(f.snapshots)-1].Maps[database].Epoch
}

func (f *follower) seen() []*Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.snapshots)
}

// follow watches until the test ends.
func follow(t *testing.T, store *Store) *follower {
	t.Helper()
	f := &follower{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- store.Watch(ctx, f.deliver) }()
	t.Cleanup(func() {
		cancel()
		wantError(t, <-done, context.Canceled)
		for i, s := range f.seen() {
			if i > 0 && s.Revision <= f.snapshots[i-1].Revision {
				t.Errorf("revision %d delivered after %d", s.Revision, f.snapshots[i-1].Revision)
			}
		}
	})
	return f
}

func TestWatch(t *testing.T) {
	store := openStore(t)
	ctx := t.Context()
	f := follow(t, store) // before there is anything
	createCluster(t, store, "app")
	until(t, "the first map is delivered", func() bool { return f.epoch("app") == 1 })
	must(t, store.CreateMap(ctx, emptyMap(t, "other")))
	until(t, "the second database is delivered", func() bool { return f.epoch("other") == 1 })
	writer := openStore(t)
	for i := range 10 {
		_, err := writer.Apply(ctx, "app", addTable(fmt.Sprint("t", i)))
		must(t, err)
	}
	until(t, "the last epoch is delivered", func() bool { return f.epoch("app") == 11 })
	seen := f.seen()
	first, last := seen[len(seen)-2], seen[len(seen)-1]
	if first.Maps["other"] != last.Maps["other"] {
		t.Error("an unchanged map was decoded anew")
	}
	before := len(seen)
	member, err := writer.Register(ctx, RouterInfo{Name: "r1"})
	must(t, err)
	must(t, member.Close(ctx))
	must(t, writer.DeleteMap(ctx, "other"))
	until(t, "the drop is delivered", func() bool { return f.epoch("other") == 0 })
	if n := len(f.seen()); n != before+1 {
		t.Errorf("%d snapshots for one change of the directory", n-before)
	}
}

// TestWatchOutlivesOutageAndCompaction: etcd is stopped and started on the same data; what was changed
// and compacted while the watcher was cut off is delivered as the final state.
func TestWatchOutlivesOutageAndCompaction(t *testing.T) {
	t.Parallel() // it mostly waits
	config := EmbeddedConfig{NoSync: true, Dir: t.TempDir()}
	own, err := StartEmbedded(t.Context(), config)
	must(t, err)
	t.Cleanup(func() { own.Close() })
	config.Port = own.Port()
	here := func(c *Config) {
		c.Endpoints = own.Endpoints()
		c.RequestTimeout = 500 * time.Millisecond
	}
	store := openStore(t, here)
	createCluster(t, store, "app")
	f := follow(t, store)
	until(t, "the first map is delivered", func() bool { return f.epoch("app") == 1 })

	own.Close()
	began := time.Now()
	_, err = store.Apply(t.Context(), "app", addTable("refused"))
	wantError(t, err, ErrUnavailable)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a change during the outage was refused only after %s", took)
	}

	// The watcher's server comes back on another port first, which only the writer knows.
	elsewhere, err := StartEmbedded(t.Context(), EmbeddedConfig{Dir: config.Dir})
	must(t, err)
	writer, err := Open(t.Context(), Config{Endpoints: elsewhere.Endpoints(), Prefix: store.config.Prefix})
	must(t, err)
	for i := range 5 {
		_, err := writer.Apply(t.Context(), "app", addTable(fmt.Sprint("t", i)))
		must(t, err)
	}
	now, err := writer.Load(t.Context())
	must(t, err)
	_, err = writer.client.Compact(t.Context(), now.Revision, clientv3.WithCompactPhysical())
	must(t, err)
	must(t, writer.Close())
	elsewhere.Close()
	if f.epoch("app") != 1 {
		t.Fatal("the watcher was not cut off")
	}
	own, err = StartEmbedded(t.Context(), config)
	must(t, err)
	until(t, "the final state is delivered", func() bool { return f.epoch("app") == 6 })
	_, err = store.Apply(t.Context(), "app", addTable("after"))
	must(t, err)
	until(t, "changes are delivered again", func() bool { return f.epoch("app") == 7 })
}

// TestWatchNeverGoesBackwards: an etcd restored from a backup is not believed until it is newer again.
func TestWatchNeverGoesBackwards(t *testing.T) {
	old, err := directory.NewMap(*emptyMap(t, "app"))
	must(t, err)
	newer := withEpoch(old, 5)
	at := func(revision int64, m *directory.Map) *Snapshot {
		return &Snapshot{Revision: revision, Maps: map[string]*directory.Map{"app": m}}
	}
	wantError(t, follows(at(10, newer), at(9, newer)), errBackwards)
	wantError(t, follows(at(10, newer), at(11, old)), errBackwards)
	must(t, follows(at(10, old), at(11, newer)))
	must(t, follows(at(10, old), at(11, old)))

	store := openStore(t)
	createCluster(t, store, "app")
	_, err = store.Apply(t.Context(), "app", addTable("a"))
	must(t, err)
	f := follow(t, store)
	until(t, "the map is delivered", func() bool { return f.epoch("app") == 2 })
	ctx := t.Context()
	manifest := keysUnder(t, store, "state/maps/")[0]
	stored, err := store.loadStored(ctx, "app")
	must(t, err)
	response, err := store.client.Get(ctx, store.root+manifest, clientv3.WithRev(stored.revision-1))
	must(t, err)
	if len(response.Kvs) != 1 {
		t.Fatal("no earlier manifest")
	}
	_, err = store.client.Put(ctx, store.root+manifest, string(response.Kvs[0].Value))
	must(t, err)
	_, err = openStore(t).AdvanceEpoch(ctx, "app", 9)
	must(t, err)
	until(t, "the newer map is delivered", func() bool { return f.epoch("app") == 9 })
	for _, s := range f.seen() {
		if s.Maps["app"].Epoch == 1 {
			t.Error("an older epoch was delivered")
		}
	}
}

func TestWatchReturnsTheCause(t *testing.T) {
	reason := errors.New("draining")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	wantError(t, openStore(t).Watch(ctx, func(*Snapshot) {}), reason)
}
