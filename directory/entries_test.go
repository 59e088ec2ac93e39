package directory_test

import (
	"bytes"
	"cmp"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/shardyard/shardyard/directory"
)

// directoryMap has one group by DIRECTORY over three shards.
func directoryMap(t testing.TB, assign directory.Assign, key ...directory.KeyType) *directory.Map {
	t.Helper()
	contents := directory.Map{ClusterID: "c", Database: "d", Epoch: 1, Home: "s1"}
	group := directory.Group{ID: "g", Method: directory.MethodDirectory, Key: key, Assign: assign, Entries: "abcdefgh01"}
	table := directory.Table{Name: directory.TableName{Schema: "public", Name: "t"}, Kind: directory.TableSharded, Group: "g", KeyTypes: key}
	for i := range key {
		table.Key = append(table.Key, "k"+strconv.Itoa(i))
	}
	for _, id := range []directory.ShardID{"s1", "s2", "s3"} {
		contents.Shards = append(contents.Shards, directory.Shard{
			ID: id, Primary: directory.Endpoint{Host: "h", Port: 1}, State: directory.ShardActive,
		})
		group.Partitions = append(group.Partitions, directory.Partition{Name: string(id), Shard: id})
	}
	contents.Groups, contents.Tables = []directory.Group{group}, []directory.Table{table}
	m, err := directory.NewMap(contents)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestEntryKeysAgreeWithCompare(t *testing.T) {
	r := newRandom(t)
	for _, typ := range directory.KeyTypes() {
		var values []directory.Value
		for _, text := range edges[typ] {
			values = append(values, mustParse(t, typ, text))
		}
		for range 300 {
			values = append(values, mustParse(t, typ, randomText(r, typ)))
		}
		values = append(values, directory.Null(typ))
		for _, v := range values {
			key := directory.EntryKeyOf([]directory.Value{v})
			back, err := key.Values([]directory.KeyType{typ})
			if err != nil || directory.Compare(back[0], v) != 0 || back[0].IsNull() != v.IsNull() {
				t.Fatalf("%s %s: read back %v, %v", typ, v.Literal(), back, err)
			}
			other := values[r.IntN(len(values))]
			want := directory.Compare(v, other)
			if got := cmp.Compare(key, directory.EntryKeyOf([]directory.Value{other})); sign(got) != sign(want) {
				t.Fatalf("%s: %s against %s: keys %d, values %d", typ, v.Literal(), other.Literal(), got, want)
			}
		}
	}
}

func sign(n int) int { return cmp.Compare(n, 0) }

func TestEqualValuesHaveEqualEntryKeys(t *testing.T) {
	pairs := [][2]directory.Value{
		{mustParse(t, directory.Int2, "-7"), mustParse(t, directory.Int8, "-7")},
		{mustParse(t, directory.Int4, "2147483647"), mustParse(t, directory.Int8, "2147483647")},
		{mustParse(t, directory.Numeric, "1.5"), mustParse(t, directory.Numeric, "1.5000")},
		{mustParse(t, directory.Numeric, "-0.00"), mustParse(t, directory.Numeric, "0")},
		{mustParse(t, directory.Text, "a"), mustParse(t, directory.Varchar, "a")},
		{mustParse(t, directory.Timestamptz, "2024-01-02 10:00:00+02"), mustParse(t, directory.Timestamptz, "2024-01-02 08:00:00+00")},
	}
	for _, pair := range pairs {
		a, b := directory.EntryKeyOf(pair[:1]), directory.EntryKeyOf(pair[1:])
		if a != b {
			t.Errorf("%s and %s: %x and %x", pair[0].Literal(), pair[1].Literal(), string(a), string(b))
		}
	}
	// Columns do not run into each other.
	text := func(s string) directory.Value { return mustParse(t, directory.Text, s) }
	if directory.EntryKeyOf([]directory.Value{text("ab"), text("c")}) == directory.EntryKeyOf([]directory.Value{text("a"), text("bc")}) {
		t.Error("('ab', 'c') and ('a', 'bc') have one key")
	}
}

func FuzzEntryKey(f *testing.F) {
	f.Add([]byte{0x81, 7}, uint8(directory.Int4))
	f.Add([]byte{1, 3, 0x80, 0, 1, 0, 0}, uint8(directory.Numeric))
	f.Add([]byte{1, 'a', 0, 0xff, 0, 1}, uint8(directory.Bytea))
	f.Fuzz(func(t *testing.T, raw []byte, typ uint8) {
		types := directory.KeyTypes()
		kind := types[int(typ)%len(types)]
		values, err := directory.EntryKey(raw).Values([]directory.KeyType{kind})
		if err != nil {
			return
		}
		if again := directory.AppendEntryKey(nil, values); !bytes.Equal(again, raw) {
			t.Fatalf("%s: %x was read as %s, which is %x", kind, raw, values[0].Literal(), again)
		}
	})
}

func TestEntriesLocate(t *testing.T) {
	m := directoryMap(t, directory.AssignRoundRobin, directory.Int8)
	g, _ := m.Group("g")
	key := func(n string) []directory.Value { return []directory.Value{mustParse(t, directory.Int4, n)} }
	expect := func(e *directory.Entries, n string, stored bool, want directory.Placement, shard directory.ShardID) {
		t.Helper()
		part, p := e.Locate(g, key(n), nil, stored)
		if p != want || p == directory.Placed && g.Partitions[part].Shard != shard {
			t.Errorf("key %s stored %v: placement %d in %d, want %d on %s", n, stored, p, part, want, shard)
		}
	}
	cache := directory.NewEntryCache(10)
	cache.Put(g, directory.EntryKeyOf(key("1")), "s2")
	shared := directory.NewEntries(cache)
	expect(shared, "1", false, directory.Placed, "s2")
	expect(shared, "2", false, directory.Unknown, "")
	expect(nil, "1", false, directory.Unknown, "")

	own := directory.NewEntries(cache)
	own.Learn(g, directory.EntryKeyOf(key("2")), "")
	own.Learn(g, directory.EntryKeyOf(key("3")), "s3")
	expect(own, "2", false, directory.Nowhere, "")
	expect(own, "2", true, directory.Unknown, "") // to be assigned
	expect(own, "3", true, directory.Placed, "s3")
	expect(shared, "3", false, directory.Unknown, "") // what one execution learned is its own

	// Another set of entries under the same name of group: nothing of the old one counts.
	renamed, err := directory.RenameEntries{Names: map[string]string{"abcdefgh01": "abcdefgh02"}}.Apply(m)
	if err != nil {
		t.Fatal(err)
	}
	g, _ = renamed.Group("g")
	expect(own, "1", false, directory.Unknown, "")
	cache.Retain(renamed)
	if cache.Len() != 0 {
		t.Errorf("%d entries of a group that is gone are kept", cache.Len())
	}

	refusing := directoryMap(t, directory.AssignNone, directory.Int8)
	g, _ = refusing.Group("g")
	expect(own, "2", true, directory.Nowhere, "")
	if missing := g.Missing(key("9"), true); missing.Store {
		t.Error("an entry would be made where the policy is to refuse")
	}
}

func TestEntriesPrune(t *testing.T) {
	m := directoryMap(t, directory.AssignHash, directory.Int8, directory.Text)
	g, _ := m.Group("g")
	number := func(texts ...string) directory.Constraint {
		c := directory.Constraint{Values: []directory.Value{}}
		for _, text := range texts {
			c.Values = append(c.Values, mustParse(t, directory.Int8, text))
		}
		return c
	}
	word := func(texts ...string) directory.Constraint {
		c := directory.Constraint{Values: []directory.Value{}}
		for _, text := range texts {
			c.Values = append(c.Values, mustParse(t, directory.Text, text))
		}
		return c
	}
	e := directory.NewEntries(nil)
	learn := func(n, w string, shard directory.ShardID) {
		e.Learn(g, directory.EntryKeyOf([]directory.Value{mustParse(t, directory.Int8, n), mustParse(t, directory.Text, w)}), shard)
	}
	learn("1", "a", "s1")
	learn("1", "b", "s3")
	learn("2", "a", "")
	learn("2", "b", "s3")
	for name, c := range map[string]struct {
		key     []directory.Constraint
		parts   []int
		missing int
	}{
		"one":          {[]directory.Constraint{number("1"), word("b")}, []int{2}, 0},
		"lists":        {[]directory.Constraint{number("1", "2"), word("a", "b")}, []int{0, 2}, 0},
		"absent":       {[]directory.Constraint{number("2"), word("a")}, nil, 0},
		"unknown":      {[]directory.Constraint{number("2", "3"), word("b")}, []int{2}, 1},
		"half":         {[]directory.Constraint{number("1")}, []int{0, 1, 2}, 0},
		"nothing left": {[]directory.Constraint{number(), word("a")}, nil, 0},
		"no condition": {nil, []int{0, 1, 2}, 0},
	} {
		parts, missing := e.Prune(g, c.key, nil)
		if !slices.Equal(parts, c.parts) || len(missing) != c.missing {
			t.Errorf("%s: partitions %v, missing %v; want %v, %d", name, parts, missing, c.parts, c.missing)
		}
	}
}

func TestLocatingByEntryAllocatesNothing(t *testing.T) {
	m := directoryMap(t, directory.AssignHash, directory.Int8, directory.Text)
	g, _ := m.Group("g")
	key := []directory.Value{mustParse(t, directory.Int8, "123456789"), mustParse(t, directory.Text, "eu-central")}
	cache := directory.NewEntryCache(100)
	cache.Put(g, directory.EntryKeyOf(key), "s2")
	e := directory.NewEntries(cache)
	if n := testing.AllocsPerRun(1000, func() {
		if _, p := e.Locate(g, key, nil, false); p != directory.Placed {
			t.Error("the key is not known")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestDirectoryMapsKeepTheirForm(t *testing.T) {
	m := directoryMap(t, directory.AssignLeastLoaded, directory.UUID)
	encoded, err := directory.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	back, err := directory.Decode(encoded)
	if err != nil {
		t.Fatal(err)
	}
	if g := back.Groups[0]; g.Assign != directory.AssignLeastLoaded || g.Entries != "abcdefgh01" || g.Describe(1) != "DIRECTORY" {
		t.Errorf("came back as %+v", g)
	}
	for name, c := range map[string]struct {
		change directory.Change
		reason string
	}{
		"place":  {directory.SetPlacement{Group: "g", Partition: "s1", Shard: "s2"}, "entries of a directory say"},
		"split":  {directory.SplitPartition{Group: "g", Partition: "s1", Into: []directory.Partition{{Name: "x", Shard: "s1"}}}, "are its shards"},
		"merge":  {directory.MergePartitions{Group: "g", Partitions: []string{"s1"}, Into: directory.Partition{Name: "s1", Shard: "s1"}}, "are its shards"},
		"rename": {directory.RenameEntries{Names: map[string]string{"nosuchname": "abcdefgh02"}}, "0 of 1"},
		"badly":  {directory.RenameEntries{Names: map[string]string{"abcdefgh01": "x"}}, "lower-case letters"},
	} {
		if _, err := c.change.Apply(m); err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAssignedByHashIsEven(t *testing.T) {
	counts := make([]int, 3)
	const keys = 30_000
	for i := range keys {
		counts[directory.AssignedByHash([]directory.Value{mustParse(t, directory.Int4, strconv.Itoa(i))}, 3)]++
	}
	for shard, count := range counts {
		if count < keys/3*97/100 || count > keys/3*103/100 {
			t.Errorf("shard %d has %d of %d keys", shard, count, keys)
		}
	}
}

// TestEntryCacheMemory measures what an entry costs in memory, for a million of them.
func TestEntryCacheMemory(t *testing.T) {
	const entries = 1_000_000
	m := directoryMap(t, directory.AssignHash, directory.Int8)
	g, _ := m.Group("g")
	cache := directory.NewEntryCache(entries)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	shards := g.Shards()
	for i := range entries {
		v, err := directory.IntValue(directory.Int8, int64(i))
		if err != nil {
			t.Fatal(err)
		}
		cache.Put(g, directory.EntryKeyOf([]directory.Value{v}), shards[rand.IntN(len(shards))])
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := float64(after.HeapAlloc-before.HeapAlloc) / entries
	t.Logf("%d entries in the cache, %.0f bytes each", cache.Len(), each)
	if cache.Len() != entries || each > 120 {
		t.Errorf("%d entries of %.0f bytes: more than thought", cache.Len(), each)
	}
	runtime.KeepAlive(cache)
}
