package fence_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/directory/fence"
	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/testbed"
)

// cluster has two shards; each test uses a database and an etcd prefix of its own.
var cluster *testbed.Cluster

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(testbed.Main(m, devcluster.Config{Shards: 2, Etcd: true}, &cluster))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is what one test works with.
type world struct {
	*testing.T
	database *testbed.Database
	store    *etcd.Store
	fence    *fence.Fence
	ids      []directory.ShardID
	// beforeDial is called before each connection that the fence opens; an error refuses it.
	beforeDial func(directory.ShardID) error
}

func (w *world) openStore() *etcd.Store {
	w.Helper()
	return w.database.Store(func(c *etcd.Config) {
		c.LeaseTTL, c.RequestTimeout, c.Log = time.Second, time.Second, slog.New(slog.NewTextHandler(w.Output(), nil))
	})
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, database: cluster.Database(t), beforeDial: func(directory.ShardID) error { return nil }}
	w.store = w.openStore()
	m := w.database.Map()
	for _, shard := range m.Shards {
		w.ids = append(w.ids, shard.ID)
	}
	must(t, w.store.CreateCluster(t.Context(), etcd.Cluster{ID: m.ClusterID, Shards: m.Shards, Home: m.Home}))
	must(t, w.store.CreateMap(t.Context(), m))
	var err error
	w.fence, err = fence.New(fence.Config{
		Store: w.store, HealDelay: 100 * time.Millisecond, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Dial: func(ctx context.Context, shard directory.Shard, database string) (*pgx.Conn, error) {
			if err := w.beforeDial(shard.ID); err != nil {
				return nil, err
			}
			return w.database.Dial(ctx, shard, database)
		},
	})
	must(t, err)
	return w
}

// connect opens a server connection as a router would, in the given database.
func (w *world) connect(shard int, application, database string) *pgx.Conn {
	w.Helper()
	return testbed.Connect(w, cluster.ConnString(shard, database), func(c *pgx.ConnConfig) { c.RuntimeParams["application_name"] = application })
}

func (w *world) floor(shard int) directory.Epoch {
	w.Helper()
	floor, err := fence.Floor(w.Context(), w.connect(shard, "test", w.database.Name))
	must(w, err)
	return floor
}

func (w *world) alive(conn *pgx.Conn) bool {
	_, err := conn.Exec(w.Context(), "SELECT 1")
	return err == nil
}

// router registers and acknowledges whatever the map is at.
func (w *world) router(name string) *etcd.Member {
	w.Helper()
	member, err := w.store.Register(w.Context(), etcd.RouterInfo{Name: name})
	must(w, err)
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.store.Watch(ctx, func(s *etcd.Snapshot) {
			for database, m := range s.Maps {
				member.Acknowledge(database, m.Epoch)
			}
		})
	}()
	w.Cleanup(func() {
		cancel()
		<-done
		must(w, member.Close(context.Background()))
	})
	return member
}

// expire registers a router that is cut off from etcd at once, and waits until its lease has expired.
func (w *world) expire(name string) *etcd.Member {
	w.Helper()
	cutOff := w.openStore()
	member, err := cutOff.Register(w.Context(), etcd.RouterInfo{Name: name})
	must(w, err)
	must(w, cutOff.Close())
	w.Cleanup(func() { _ = member.Close(context.Background()) })
	testbed.Until(w, "the lease of "+name+" expired", func() bool { return slices.Contains(w.expired(), name) })
	return member
}

func (w *world) expired() []string {
	routers, err := w.store.Routers(w.Context())
	must(w, err)
	var names []string
	for _, r := range routers {
		if !r.Live {
			names = append(names, r.Info.Name)
		}
	}
	return names
}

func (w *world) epoch() directory.Epoch {
	w.Helper()
	m, err := w.store.LoadMap(w.Context(), w.database.Name)
	must(w, err)
	return m.Epoch
}

// pin pins a table to the last shard.
type pin string

func (name pin) Apply(m *directory.Map) (*directory.Map, error) {
	next := *m
	next.Epoch++
	next.Tables = append(slices.Clone(m.Tables), directory.Table{
		Name: directory.TableName{Schema: "public", Name: string(name)}, Kind: directory.TablePinned, Shard: m.Shards[1].ID,
	})
	return directory.NewMap(next)
}

// TestDeadRouter: the connections of a router whose lease expired, and of one that never registered, are
// terminated on the shards concerned; those of live routers and of others stay; the floor turns the dead away.
func TestDeadRouter(t *testing.T) {
	w := newWorld(t)
	live := w.router("live")
	dead := w.expire("dead")
	doomed := []*pgx.Conn{
		w.connect(0, dead.ApplicationPrefix()+"1", w.database.Name), w.connect(1, "shardyard/dead/2", w.database.Name),
		w.connect(1, "shardyard/never-registered/1", w.database.Name), w.connect(0, dead.ApplicationPrefix()+"3", "postgres"),
	}
	spared := []*pgx.Conn{
		w.connect(0, live.ApplicationPrefix()+"1", w.database.Name), w.connect(1, "shardyard/live/1", w.database.Name),
		w.connect(1, "psql", w.database.Name), w.connect(0, "shardyard/never-registered/1", "postgres"),
	}
	tx, err := doomed[0].Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), "CREATE TABLE written_by_the_dead ()")
	must(t, err)

	m, err := w.fence.Publish(t.Context(), w.database.Name, w.ids, pin("a"))
	must(t, err)
	if m.Epoch != 2 || w.epoch() != 2 || w.floor(0) != 2 || w.floor(1) != 2 {
		t.Errorf("epoch %d, stored %d, floors %d and %d, all should be 2", m.Epoch, w.epoch(), w.floor(0), w.floor(1))
	}
	for i, conn := range doomed {
		if w.alive(conn) {
			t.Errorf("connection %d of the dead still works", i)
		}
	}
	for i, conn := range spared {
		if !w.alive(conn) {
			t.Errorf("connection %d of the living was terminated", i)
		}
	}
	var written bool
	must(t, spared[0].QueryRow(t.Context(), "SELECT to_regclass('written_by_the_dead') IS NOT NULL").Scan(&written))
	if written {
		t.Error("what the dead router had not committed is there")
	}
	if floor, err := fence.Floor(t.Context(), w.connect(1, dead.ApplicationPrefix()+"4", w.database.Name)); err != nil || floor <= 1 {
		t.Errorf("a new connection of the dead router at epoch 1 sees floor %d, %v: it is not refused", floor, err)
	}
	if names := w.expired(); len(names) != 0 {
		t.Errorf("still remembered as expired: %v", names)
	}
}

// TestOnlyTheShardsConcerned: others keep their floor, and a router's connections there.
func TestOnlyTheShardsConcerned(t *testing.T) {
	w := newWorld(t)
	elsewhere := w.connect(0, "shardyard/unknown/1", w.database.Name)
	_, err := w.fence.Publish(t.Context(), w.database.Name, w.ids[1:], pin("a"))
	must(t, err)
	if w.floor(0) != 0 || w.floor(1) != 2 || !w.alive(elsewhere) {
		t.Errorf("floors %d and %d, connection elsewhere alive: %v", w.floor(0), w.floor(1), w.alive(elsewhere))
	}
	_, err = w.fence.Publish(t.Context(), w.database.Name, []directory.ShardID{"s99"}, pin("b"))
	if !errors.Is(err, etcd.ErrNotFound) || w.epoch() != 2 {
		t.Errorf("a shard that is not there gives %v, epoch %d", err, w.epoch())
	}
}

// TestNameWithTwoProcesses: a new process under a dead one's name keeps its own connections.
func TestNameWithTwoProcesses(t *testing.T) {
	w := newWorld(t)
	dead := w.expire("twice")
	live := w.router("twice")
	doomed := []*pgx.Conn{w.connect(0, dead.ApplicationPrefix()+"1", w.database.Name), w.connect(0, "shardyard/twice/1", w.database.Name)}
	spared := w.connect(0, live.ApplicationPrefix()+"1", w.database.Name)
	_, err := w.fence.Publish(t.Context(), w.database.Name, w.ids, pin("a"))
	must(t, err)
	if w.alive(doomed[0]) || w.alive(doomed[1]) || !w.alive(spared) {
		t.Errorf("of the dead: %v, %v; of the live: %v", w.alive(doomed[0]), w.alive(doomed[1]), w.alive(spared))
	}
}

// TestStaleRouterThatKeepsTrying: one that opens connections again and again does not hold a change up.
func TestStaleRouterThatKeepsTrying(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	for i := range 4 {
		group.Go(func() {
			config, err := pgx.ParseConfig(cluster.ConnString(i%2, w.database.Name))
			if err != nil {
				t.Error(err)
				return
			}
			config.RuntimeParams["application_name"] = "shardyard/stale/1"
			for ctx.Err() == nil {
				conn, err := pgx.ConnectConfig(ctx, config)
				if err != nil {
					continue // terminated while it started, or the test is over
				}
				_, _ = fence.Floor(ctx, conn)
				_ = conn.Close(context.Background())
			}
		})
	}
	for i := range 3 {
		short, done := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := w.fence.Publish(short, w.database.Name, w.ids, pin(fmt.Sprint("t", i)))
		done()
		must(t, err)
	}
}

// TestRoleWithOtherDefaults: floors are raised whatever the database's settings are.
func TestRoleWithOtherDefaults(t *testing.T) {
	w := newWorld(t)
	for i := range w.ids {
		_, err := w.connect(i, "test", "postgres").Exec(t.Context(), "ALTER DATABASE "+w.database.Name+" SET default_transaction_read_only = on")
		must(t, err)
		_, err = w.connect(i, "test", "postgres").Exec(t.Context(), "ALTER DATABASE "+w.database.Name+" SET default_transaction_isolation = 'repeatable read'")
		must(t, err)
	}
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			if _, err := w.fence.Publish(t.Context(), w.database.Name, w.ids, pin(fmt.Sprint("t", i))); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if w.epoch() < 5 { // more, where one met a floor that another had raised
		t.Errorf("the map is at %d", w.epoch())
	}
}

// TestWaitsForLiveRouters: a live router that does not acknowledge holds the change up, and is named; the
// change is published all the same and settled later.
func TestWaitsForLiveRouters(t *testing.T) {
	w := newWorld(t)
	slow, err := w.store.Register(t.Context(), etcd.RouterInfo{Name: "slow"})
	must(t, err)
	slow.Acknowledge(w.database.Name, 1)
	conn := w.connect(0, slow.ApplicationPrefix()+"1", w.database.Name)
	short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	m, err := w.fence.Publish(short, w.database.Name, w.ids, pin("a"))
	var missing *etcd.NotAcknowledgedError
	if !errors.As(err, &missing) || !slices.Equal(missing.Routers, []string{"slow"}) || m == nil || m.Epoch != 2 {
		t.Fatalf("publish gives %v, %v", m, err)
	}
	settled := make(chan error, 1)
	go func() { settled <- w.fence.Settle(t.Context(), m, w.ids) }()
	slow.Acknowledge(w.database.Name, 2)
	must(t, <-settled)
	if !w.alive(conn) {
		t.Error("the connection of a live router was terminated")
	}
	must(t, w.fence.Settle(t.Context(), m, w.ids)) // again: nothing to do
	must(t, slow.Close(t.Context()))
}

// TestConcurrentPublish: every change takes an epoch of its own, and no floor ends above the map.
func TestConcurrentPublish(t *testing.T) {
	w := newWorld(t)
	w.router("live")
	const publishers = 6
	var mu sync.Mutex
	var epochs []directory.Epoch
	var newest *directory.Map
	var group sync.WaitGroup
	for i := range publishers {
		group.Go(func() {
			m, err := w.fence.Publish(t.Context(), w.database.Name, w.ids[i%2:][:1], pin(fmt.Sprint("t", i)))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			epochs = append(epochs, m.Epoch)
			if newest == nil || m.Epoch > newest.Epoch {
				newest = m
			}
		})
	}
	group.Wait()
	if t.Failed() {
		return
	}
	// On a busy machine one may take another's floor for an abandoned one and heal it: that epoch is nobody's.
	slices.Sort(epochs)
	if len(slices.Compact(slices.Clone(epochs))) != publishers || w.epoch() < newest.Epoch {
		t.Errorf("epochs %v, the map is at %d", epochs, w.epoch())
	}
	if len(newest.Tables) != publishers {
		t.Errorf("%d of %d changes are in the newest map", len(newest.Tables), publishers)
	}
	if w.floor(0) > w.epoch() || w.floor(1) > w.epoch() || max(w.floor(0), w.floor(1)) != w.epoch() {
		t.Errorf("floors %d and %d, the map is at %d", w.floor(0), w.floor(1), w.epoch())
	}
}

// TestPublisherDiesAfterRaising: floors left one above the map are healed by who meets them, or by the next
// change; a slow publisher that is healed away starts over.
func TestPublisherDiesAfterRaising(t *testing.T) {
	w := newWorld(t)
	raise := func(epoch directory.Epoch) {
		_, err := w.connect(0, "test", w.database.Name).Exec(t.Context(), "UPDATE shardyard.epoch SET floor = $1", int64(epoch))
		must(t, err)
	}
	raise(2)
	m, err := w.fence.Heal(t.Context(), w.database.Name, 2)
	must(t, err)
	if m.Epoch != 2 || w.epoch() != 2 {
		t.Errorf("healed to epoch %d, stored %d", m.Epoch, w.epoch())
	}
	if m, err = w.fence.Heal(t.Context(), w.database.Name, 2); err != nil || m.Epoch != 2 {
		t.Errorf("healing again gives %v, %v", m, err)
	}
	raise(3)
	if m, err = w.fence.Publish(t.Context(), w.database.Name, w.ids, pin("a")); err != nil || m.Epoch != 3 {
		t.Errorf("publishing onto an abandoned floor gives %v, %v", m, err)
	}
	raise(1000) // as after a restore of etcd
	if m, err = w.fence.Publish(t.Context(), w.database.Name, w.ids, pin("b")); err != nil || m.Epoch != 1001 {
		t.Errorf("publishing far below the floor gives %v, %v", m, err)
	}
	// A healer that comes between raise and swap.
	var once sync.Once
	w.beforeDial = func(directory.ShardID) error {
		once.Do(func() {
			if _, err := w.store.AdvanceEpoch(t.Context(), w.database.Name, 1002); err != nil {
				t.Error(err)
			}
		})
		return nil
	}
	if m, err = w.fence.Publish(t.Context(), w.database.Name, w.ids, pin("c")); err != nil || m.Epoch != 1003 {
		t.Errorf("publishing against a healer gives %v, %v", m, err)
	}
}

// TestShardOut: an unreachable shard refuses the change, and leaves no floor above the map.
func TestShardOut(t *testing.T) {
	w := newWorld(t)
	out := errors.New("connection refused")
	w.beforeDial = func(id directory.ShardID) error {
		if id == w.ids[1] {
			return out
		}
		return nil
	}
	m, err := w.fence.Publish(t.Context(), w.database.Name, w.ids, pin("a"))
	if m != nil || !errors.Is(err, out) || !strings.Contains(err.Error(), string(w.ids[1])) {
		t.Fatalf("publish gives %v, %v", m, err)
	}
	if w.floor(0) > w.epoch() || w.floor(1) > w.epoch() {
		t.Errorf("floors %d and %d, the map is at %d", w.floor(0), w.floor(1), w.epoch())
	}
	if m, err := w.store.LoadMap(t.Context(), w.database.Name); err != nil || len(m.Tables) != 0 {
		t.Errorf("the change was published: %v, %v", m, err)
	}
}

// TestEtcdOut: changes are refused soon while etcd is out, and go on afterwards.
func TestEtcdOut(t *testing.T) {
	w := newWorld(t)
	cluster.StopEtcd()
	began := time.Now()
	_, err := w.fence.Publish(t.Context(), w.database.Name, w.ids, pin("a"))
	took := time.Since(began)
	must(t, cluster.StartEtcd(context.Background()))
	if !errors.Is(err, etcd.ErrUnavailable) || took > 10*time.Second {
		t.Errorf("refused after %s with %v", took, err)
	}
	testbed.Until(t, "etcd answers", func() bool { _, err := w.store.LoadMap(t.Context(), w.database.Name); return err == nil })
	_, err = w.fence.Publish(t.Context(), w.database.Name, w.ids, pin("a"))
	must(t, err)
}

func TestFloorWithoutBookkeeping(t *testing.T) {
	must(t, cluster.CreateDatabase(t.Context(), "bare"))
	conn, err := pgx.Connect(t.Context(), cluster.ConnString(0, "bare"))
	must(t, err)
	defer func() { must(t, conn.Close(context.Background())) }()
	if floor, err := fence.Floor(t.Context(), conn); err != nil || floor != 0 {
		t.Errorf("floor %d, %v", floor, err)
	}
	if _, err := fence.New(fence.Config{}); err == nil {
		t.Error("a fence without anything is made")
	}
}
