package etcd

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/shardyard/shardyard/directory"
)

var millionFlag = flag.Bool("million", false, "measure a million entries in etcd, not 20,000")

const testSet = "abcdefgh01"

// addDirectory adds a table by DIRECTORY to the map of "app".
func addDirectory(t testing.TB, store *Store, name string, assign directory.Assign, set string) (*directory.Map, *directory.Group) {
	t.Helper()
	group := directory.Group{
		ID: directory.GroupID(name), Method: directory.MethodDirectory, Key: []directory.KeyType{directory.Int8}, Assign: assign, Entries: set,
		Partitions: []directory.Partition{{Name: "s1", Shard: "s1"}, {Name: "s2", Shard: "s2"}},
	}
	table := directory.Table{
		Name: directory.TableName{Schema: "public", Name: name}, Key: []string{"k"}, KeyTypes: []directory.KeyType{directory.Int8},
	}
	m, err := store.Apply(t.Context(), "app", directory.AddTable{Group: group, Table: table})
	must(t, err)
	g, _ := m.Group(group.ID)
	return m, g
}

func newEntries(t testing.TB, store *Store, writer string) *Entries {
	t.Helper()
	e, err := NewEntries(store, EntriesConfig{Writer: writer})
	must(t, err)
	return e
}

func intKeys(t testing.TB, from, n int) []directory.EntryKey {
	t.Helper()
	keys := make([]directory.EntryKey, n)
	for i := range keys {
		v, err := directory.IntValue(directory.Int8, int64(from+i))
		must(t, err)
		keys[i] = directory.EntryKeyOf([]directory.Value{v})
	}
	return keys
}

// countsMatch checks that the counts are what the entries say.
func countsMatch(t *testing.T, e *Entries, g *directory.Group, want int) map[directory.ShardID]int {
	t.Helper()
	counts, err := e.Counts(t.Context(), g)
	must(t, err)
	entries, err := e.List(t.Context(), g, "", 1<<30)
	must(t, err)
	if len(entries) != want {
		t.Errorf("%d entries, want %d", len(entries), want)
	}
	listed := make(map[directory.ShardID]int)
	for i, entry := range entries {
		listed[entry.Shard]++
		if i > 0 && entries[i-1].Key >= entry.Key {
			t.Errorf("entry %d is not in order", i)
		}
	}
	for _, shard := range g.Shards() {
		if counts[shard] != listed[shard] {
			t.Errorf("shard %s: counted %d, listed %d", shard, counts[shard], listed[shard])
		}
	}
	return counts
}

// TestRacingStoresAgree: two routers assign the same new keys at once; each key gets one shard, which both
// are told, the counts are exact and the shards are even.
func TestRacingStoresAgree(t *testing.T) {
	const keys, workers = 1000, 4
	for _, assign := range []directory.Assign{directory.AssignRoundRobin, directory.AssignLeastLoaded, directory.AssignHash} {
		t.Run(string(assign), func(t *testing.T) {
			first := openStore(t)
			createCluster(t, first, "app")
			m, g := addDirectory(t, first, "t", assign, testSet)
			routers := []*Entries{newEntries(t, first, "r1"), newEntries(t, openStore(t, func(c *Config) { c.Prefix = first.config.Prefix }), "r2")}
			all := intKeys(t, 0, keys)
			told := make([][]directory.ShardID, len(routers)) // by router and key
			var racing sync.WaitGroup
			for r, e := range routers {
				told[r] = make([]directory.ShardID, keys)
				for w := range workers {
					racing.Go(func() {
						// Both routers go through the keys in the same order, a few at a time.
						for at := w * 7; at < keys; at += workers * 7 {
							chunk := all[at:min(at+7, keys)]
							shards, err := e.Assign(t.Context(), m, g, chunk)
							if err != nil {
								t.Error(err)
								return
							}
							copy(told[r][at:], shards)
						}
					})
				}
			}
			racing.Wait()
			if !slices.Equal(told[0], told[1]) || slices.Contains(told[0], "") {
				t.Error("the routers were told different shards")
			}
			fresh := newEntries(t, first, "r3")
			looked, err := fresh.Lookup(t.Context(), m, g, all)
			must(t, err)
			if !slices.Equal(looked, told[0]) {
				t.Error("etcd has other shards than the routers were told")
			}
			counts := countsMatch(t, fresh, g, keys)
			t.Logf("%s: %v", assign, counts)
			if low := min(counts["s1"], counts["s2"]); low < keys*46/100 {
				t.Errorf("not even: %v", counts)
			}
		})
	}
}

func TestRoundRobinOfSeveralRoutersIsEven(t *testing.T) {
	store := openStore(t)
	createCluster(t, store, "app")
	m, g := addDirectory(t, store, "t", directory.AssignRoundRobin, testSet)
	for r := range 3 {
		e := newEntries(t, store, "r"+strconv.Itoa(r))
		for i := range 20 {
			_, err := e.Assign(t.Context(), m, g, intKeys(t, r*100+i, 1))
			must(t, err)
		}
	}
	counts := countsMatch(t, newEntries(t, store, "x"), g, 60)
	if counts["s1"] != 30 || counts["s2"] != 30 {
		t.Errorf("not even: %v", counts)
	}
}

// TestResolveSeesWhatOthersMade: that a key has no entry is never remembered.
func TestResolveSeesWhatOthersMade(t *testing.T) {
	store := openStore(t)
	createCluster(t, store, "app")
	m, g := addDirectory(t, store, "t", directory.AssignRoundRobin, testSet)
	one, other := newEntries(t, store, "r1"), newEntries(t, openStore(t), "r2")
	value, err := directory.IntValue(directory.Int4, 42)
	must(t, err)
	key := []directory.Value{value}
	read := func() directory.Placement {
		known := directory.NewEntries(one.Cache())
		_, p := known.Locate(g, key, nil, false)
		if p != directory.Unknown {
			return p
		}
		must(t, one.Resolve(t.Context(), m, []directory.MissingEntry{g.Missing(key, false)}, known))
		_, p = known.Locate(g, key, nil, false)
		return p
	}
	for range 3 {
		if p := read(); p != directory.Nowhere {
			t.Fatalf("placement %d of a key without entry", p)
		}
	}
	into := directory.NewEntries(other.Cache())
	// Read and stored by one statement: what is stored counts.
	must(t, other.Resolve(t.Context(), m, []directory.MissingEntry{g.Missing(key, true), g.Missing(key, false)}, into))
	if _, p := into.Locate(g, key, nil, true); p != directory.Placed {
		t.Fatalf("placement %d of a key that was assigned", p)
	}
	if p := read(); p != directory.Placed {
		t.Fatalf("placement %d right after another router assigned the key", p)
	}
	if one.Cache().Len() != 1 {
		t.Errorf("%d entries are remembered", one.Cache().Len())
	}
}

func TestAssignTo(t *testing.T) {
	store := openStore(t)
	createCluster(t, store, "app")
	m, g := addDirectory(t, store, "t", directory.AssignNone, testSet)
	e := newEntries(t, store, "r1")
	must(t, e.AssignTo(t.Context(), m, g, intKeys(t, 1, 2), "s2"))
	must(t, e.AssignTo(t.Context(), m, g, intKeys(t, 2, 2), "s2")) // one is there already
	var there *NotThereError
	if err := e.AssignTo(t.Context(), m, g, intKeys(t, 3, 2), "s1"); !errors.As(err, &there) || there.Shard != "s2" || there.Key != intKeys(t, 3, 1)[0] {
		t.Errorf("assigned elsewhere: %v", err)
	}
	shards, err := e.Assign(t.Context(), m, g, intKeys(t, 1, 5)) // the policy is to make none
	must(t, err)
	if !slices.Equal(shards, []directory.ShardID{"s2", "s2", "s2", "", ""}) {
		t.Errorf("entries are on %q", shards)
	}
	countsMatch(t, e, g, 3)
	if err := e.AssignTo(t.Context(), m, g, intKeys(t, 0, 101), "s1"); err == nil {
		t.Error("101 keys at once")
	}
}

func TestDrainingShardsGetNoNewKeys(t *testing.T) {
	store := openStore(t)
	createCluster(t, store, "app")
	_, _ = addDirectory(t, store, "t", directory.AssignRoundRobin, testSet)
	m, err := store.Apply(t.Context(), "app", directory.UpdateShard{Shard: directory.Shard{
		ID: "s2", Primary: testShards[1].Primary, State: directory.ShardDraining,
	}})
	must(t, err)
	g, _ := m.Group("t")
	shards, err := newEntries(t, store, "r1").Assign(t.Context(), m, g, intKeys(t, 0, 10))
	must(t, err)
	if slices.Contains(shards, "s2") {
		t.Errorf("assigned to %q", shards)
	}
}

// TestGroupThatIsGone: with the group goes the right to look up and make entries, at once; the entries are
// swept, those of others stay, and what routers remember of them is forgotten with the map.
func TestGroupThatIsGone(t *testing.T) {
	store := openStore(t)
	createCluster(t, store, "app")
	addDirectory(t, store, "stays", directory.AssignHash, "staystay01")
	m, g := addDirectory(t, store, "goes", directory.AssignRoundRobin, testSet)
	stays, _ := m.Group("stays")
	e := newEntries(t, store, "r1")
	for _, group := range []*directory.Group{stays, g} {
		_, err := e.Assign(t.Context(), m, group, intKeys(t, 0, 250))
		must(t, err)
	}
	must(t, store.SweepEntries(t.Context()))
	countsMatch(t, e, g, 250)

	f := follow(t, store)
	next, err := store.Apply(t.Context(), "app", directory.DropTable{Table: directory.TableName{Schema: "public", Name: "goes"}})
	must(t, err)
	_, err = e.Lookup(t.Context(), m, g, intKeys(t, 0, 1))
	wantError(t, err, ErrConflict)
	_, err = e.Assign(t.Context(), m, g, intKeys(t, 1000, 1))
	wantError(t, err, ErrConflict)
	_, err = newEntries(t, store, "r2").Assign(t.Context(), m, g, intKeys(t, 1000, 1))
	wantError(t, err, ErrConflict)
	wantError(t, e.Resolve(t.Context(), next, []directory.MissingEntry{{Group: "goes"}}, directory.NewEntries(nil)), ErrConflict)
	must(t, store.SweepEntries(t.Context()))
	if left := keysUnder(t, store, "entries/"+testSet); len(left) > 0 {
		t.Errorf("%d entries left", len(left))
	}
	if left := keysUnder(t, store, "counts/"+testSet); len(left) > 0 {
		t.Errorf("counts left: %v", left)
	}
	countsMatch(t, e, stays, 250)
	until(t, "the watch delivers the map without the group", func() bool { return f.epoch("app") == next.Epoch })
	seen := f.seen()
	e.Retain(seen[len(seen)-1].Maps["app"])
	if n := e.Cache().Len(); n != 250 {
		t.Errorf("%d entries are remembered", n)
	}
	must(t, store.DeleteMap(t.Context(), "app"))
	must(t, store.SweepEntries(t.Context()))
	for _, prefix := range []string{"entries/", "counts/", "directories/"} {
		if left := keysUnder(t, store, prefix); len(left) > 0 {
			t.Errorf("left of a dropped database: %v", left)
		}
	}
}

// TestEntriesInAnOutage: what is known stays known, what is not is 57P03 and never "no entry".
func TestEntriesInAnOutage(t *testing.T) {
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
	createCluster(t, store, "app")
	m, g := addDirectory(t, store, "t", directory.AssignRoundRobin, testSet)
	e := newEntries(t, store, "r1")
	_, err = e.Assign(t.Context(), m, g, intKeys(t, 1, 1))
	must(t, err)
	own.Close()

	value, err := directory.IntValue(directory.Int8, 1)
	must(t, err)
	if _, p := e.Known().Locate(g, []directory.Value{value}, nil, true); p != directory.Placed {
		t.Errorf("placement %d of a known key", p)
	}
	for _, store := range []bool{false, true} {
		known := directory.NewEntries(e.Cache())
		err := e.Resolve(t.Context(), m, []directory.MissingEntry{{Group: g.ID, Key: intKeys(t, 2, 1)[0], Store: store}}, known)
		wantError(t, err, ErrUnavailable)
		var state interface{ SQLState() string }
		if !errors.As(err, &state) || state.SQLState() != "57P03" {
			t.Errorf("SQLSTATE of %v", err)
		}
	}
	own, err = StartEmbedded(t.Context(), config)
	must(t, err)
	until(t, "keys are assigned again", func() bool {
		_, err := e.Assign(t.Context(), m, g, intKeys(t, 2, 1))
		return err == nil
	})
	countsMatch(t, e, g, 2)
}

func TestExportImportOfEntries(t *testing.T) {
	store := openStore(t)
	createCluster(t, store, "app")
	m, g := addDirectory(t, store, "t", directory.AssignRoundRobin, testSet)
	e := newEntries(t, store, "r1")
	all := intKeys(t, -100, 5300) // more than one page
	before, err := e.Assign(t.Context(), m, g, all)
	must(t, err)
	exported := export(t, store)

	target := openStore(t, func(c *Config) { c.Cluster = "target" })
	must(t, target.Import(t.Context(), bytes.NewReader(exported), false))
	imported, err := target.LoadMap(t.Context(), "app")
	must(t, err)
	g2, _ := imported.Group("t")
	if g2.Entries == g.Entries {
		t.Error("the imported entries have the name of the old ones")
	}
	e2 := newEntries(t, target, "r1")
	after, err := e2.Lookup(t.Context(), imported, g2, all)
	must(t, err)
	if !slices.Equal(before, after) {
		t.Error("entries came back elsewhere")
	}
	countsMatch(t, e2, g2, len(all))
	if leased, err := target.client.Get(t.Context(), target.directoryKey("app", g2.Entries)); err != nil || leased.Kvs[0].Lease != 0 {
		t.Errorf("the imported set may vanish: %v, %v", leased, err)
	}

	// By force: what was there counts no more, not even where it is remembered.
	must(t, target.Import(t.Context(), bytes.NewReader(exported), true))
	_, err = e2.Assign(t.Context(), imported, g2, intKeys(t, 100_000, 1))
	wantError(t, err, ErrConflict)
	must(t, target.SweepEntries(t.Context()))
	if left := keysUnder(t, target, "entries/"+g2.Entries); len(left) > 0 {
		t.Errorf("%d replaced entries left", len(left))
	}

	for name, damaged := range map[string][]byte{
		"cut":       exported[:bytes.LastIndexByte(exported[:len(exported)-1], '\n')+1],
		"half":      exported[:len(exported)*2/3],
		"miscount":  bytes.Replace(exported, []byte(`"count":5300`), []byte(`"count":5299`), 1),
		"other set": bytes.Replace(exported, []byte(`{"entries":"`+testSet), []byte(`{"entries":"zzzzzzzzzz`), 1),
		"shard":     bytes.Replace(exported, []byte(`"shards":["s1",`), []byte(`"shards":["s7",`), 1),
	} {
		if name == "shard" && bytes.Equal(damaged, exported) {
			damaged = bytes.Replace(exported, []byte(`"shards":["s2",`), []byte(`"shards":["s7",`), 1)
		}
		if bytes.Equal(damaged, exported) {
			t.Fatalf("%s: the damage is none", name)
		}
		other := openStore(t, func(c *Config) { c.Cluster = "refusing" })
		if err := other.Import(t.Context(), bytes.NewReader(damaged), false); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if left := keysUnder(t, other, "state"); len(left) > 0 {
			t.Errorf("%s: left behind: %v", name, left)
		}
	}
}

// TestEntryMemory measures what an entry costs etcd: memory and disk.
func TestEntryMemory(t *testing.T) {
	entries := 20_000
	if *millionFlag {
		entries = 1_000_000
	}
	dir := t.TempDir()
	var before, after runtime.MemStats
	own, err := StartEmbedded(t.Context(), EmbeddedConfig{Dir: dir})
	must(t, err)
	t.Cleanup(own.Close)
	store := openStore(t, func(c *Config) { c.Endpoints = own.Endpoints() })
	createCluster(t, store, "app")
	m, g := addDirectory(t, store, "t", directory.AssignRoundRobin, testSet)
	e, err := NewEntries(store, EntriesConfig{Writer: "r1", CacheSize: 1})
	must(t, err)
	size := func() int64 {
		status, err := store.client.Status(t.Context(), own.Endpoints()[0])
		must(t, err)
		return status.DbSizeInUse
	}
	runtime.GC()
	runtime.ReadMemStats(&before)
	disk := size()
	began := time.Now()
	var work sync.WaitGroup
	for w := range entrySlots {
		work.Go(func() {
			for at := w * 1000; at < entries; at += entrySlots * 1000 {
				if _, err := e.Assign(t.Context(), m, g, intKeys(t, at, min(1000, entries-at))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	work.Wait()
	took := time.Since(began)
	compacting, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	now, err := store.client.Get(compacting, store.directoryKey("app", testSet))
	must(t, err)
	_, err = store.client.Compact(compacting, now.Header.Revision, clientv3.WithCompactPhysical())
	must(t, err)
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("%d entries assigned in %s: %d bytes of etcd's memory each, %d bytes of its data file each",
		entries, took.Round(time.Millisecond), (int64(after.HeapAlloc)-int64(before.HeapAlloc))/int64(entries), (size()-disk)/int64(entries))
	counts, err := e.Counts(t.Context(), g)
	must(t, err)
	if counts["s1"]+counts["s2"] != entries {
		t.Errorf("%v of %d entries", counts, entries)
	}
}
