package directory_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/shardyard/shardyard/directory"
)

// goodMap is a valid map with a table of each method, for tests to break.
func goodMap(t testing.TB) directory.Map {
	t.Helper()
	text := func(s string) directory.Value { return mustParse(t, directory.Text, s) }
	day := func(s string) directory.Bound {
		return directory.Bound{Kind: directory.Finite, Value: mustParse(t, directory.Date, s)}
	}
	halves := directory.HashIntervals(2)
	groups := []directory.Group{
		{ID: "customers", Method: directory.MethodHash, Key: []directory.KeyType{directory.Int8}, Partitions: []directory.Partition{
			{Name: "p0", Shard: "s1", HashFrom: halves[0].From, HashTo: halves[0].To},
			{Name: "p1", Shard: "s2", HashFrom: halves[1].From, HashTo: halves[1].To}}},
		{ID: "events", Method: directory.MethodRange, Key: []directory.KeyType{directory.Date}, Partitions: []directory.Partition{
			{Name: "y25", Shard: "s1", From: []directory.Bound{{Kind: directory.MinValue}}, To: []directory.Bound{day("2026-01-01")}},
			{Name: "rest", Shard: "s2", From: []directory.Bound{day("2026-01-01")}, To: []directory.Bound{{Kind: directory.MaxValue}}}}},
		{ID: "users", Method: directory.MethodList, Key: []directory.KeyType{directory.Text}, Partitions: []directory.Partition{
			{Name: "eu", Shard: "s1", Values: [][]directory.Value{{text("de")}, {text("fr")}}},
			{Name: "other", Shard: "s2", Default: true}}},
		{ID: "sessions", Method: directory.MethodList, Key: []directory.KeyType{directory.Text}, SubMethod: directory.MethodHash,
			SubKey: []directory.KeyType{directory.UUID}, Partitions: []directory.Partition{
				{Name: "eu_0", Parent: "eu", Shard: "s1", Values: [][]directory.Value{{text("eu")}}, HashFrom: halves[0].From, HashTo: halves[0].To},
				{Name: "eu_1", Parent: "eu", Shard: "s2", Values: [][]directory.Value{{text("eu")}}, HashFrom: halves[1].From, HashTo: halves[1].To}}},
	}
	m := directory.Map{ClusterID: "c", Database: "shop", Epoch: 5, Shards: testShards, Home: "s1", Groups: groups}
	for i := range groups {
		g := &groups[i]
		table := directory.Table{Name: directory.TableName{Schema: "public", Name: string(g.ID)}, Kind: directory.TableSharded, Group: g.ID,
			Key: []string{"k"}, KeyTypes: g.Key}
		if g.Composite() {
			table.SubKey, table.SubKeyTypes = []string{"s"}, g.SubKey
		}
		m.Tables = append(m.Tables, table)
	}
	m.Tables = append(m.Tables, directory.Table{Name: directory.TableName{Schema: "public", Name: "audit"}, Kind: directory.TablePinned, Shard: "s2"})
	return m
}

// TestReferenceDecodeOfEncode: what a reference table is survives the directory.
func TestReferenceDecodeOfEncode(t *testing.T) {
	draft := goodMap(t)
	name := directory.TableName{Schema: "public", Name: "countries"}
	draft.Tables = append(draft.Tables, directory.Table{Name: name, Kind: directory.TableReference, Shard: draft.Home, Key: []string{"code", "of"}, Mirror: "0f3a"})
	m, err := directory.NewMap(draft)
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := directory.Decode(encode(t, m))
	if err != nil {
		t.Fatal(err)
	}
	table, ok := decoded.Table(name)
	if !ok || table.Kind != directory.TableReference || table.Mirror != "0f3a" || !slices.Equal(table.Key, []string{"code", "of"}) || table.Shard != m.Home {
		t.Errorf("it is decoded as %+v", table)
	}
	if got := decoded.ShardsOf(table); len(got) != len(m.Shards) {
		t.Errorf("it is on %v", got)
	}
	added := directory.Shard{ID: "s9", Primary: directory.Endpoint{Host: "h", Port: 1}}
	if _, err := (directory.AddShard{Shard: added}).Apply(m); !errors.Is(err, directory.ErrNoCopy) {
		t.Errorf("a shard without a copy is added: %v", err)
	}
	if _, err := (directory.AddShard{Shard: added, Copies: []directory.TableName{name}}).Apply(m); err != nil {
		t.Error(err)
	}
	one := directory.Table{Name: directory.TableName{Schema: "public", Name: "one"}, Key: []string{"k"}, Mirror: "1"}
	if _, err := (directory.AddReference{Table: one, Copies: []directory.ShardID{m.Home}}).Apply(m); !errors.Is(err, directory.ErrNoCopy) {
		t.Errorf("a table that is not on all shards becomes a reference table: %v", err)
	}
}

func TestCheckNamesWhatIsWrong(t *testing.T) {
	if good := goodMap(t); directory.Check(&good) != nil {
		t.Fatal(directory.Check(&good))
	}
	hold := func(h directory.Hold) func(*directory.Map) { return func(m *directory.Map) { m.Tables[0].Hold = &h } }
	cases := map[string]struct {
		spoil func(*directory.Map)
		names []string // all of them stand in the error
	}{
		"no cluster":                {func(m *directory.Map) { m.ClusterID = "" }, []string{"cluster"}},
		"no database":               {func(m *directory.Map) { m.Database = "" }, []string{"database"}},
		"not UTF-8":                 {func(m *directory.Map) { m.Database = "\xff" }, []string{"UTF-8"}},
		"no epoch":                  {func(m *directory.Map) { m.Epoch = 0 }, []string{"epoch 0"}},
		"home unknown":              {func(m *directory.Map) { m.Home = "s9" }, []string{"home", "s9"}},
		"shard twice":               {func(m *directory.Map) { m.Shards = append(m.Shards, m.Shards[0]) }, []string{"s1", "twice"}},
		"shard's name":              {func(m *directory.Map) { m.Shards = append(m.Shards, directory.Shard{ID: "S-4"}) }, []string{`"S-4"`}},
		"shard's state":             {func(m *directory.Map) { m.Shards[0].State = "gone" }, []string{"s1", "gone"}},
		"shard's port":              {func(m *directory.Map) { m.Shards[0].Primary.Port = 0 }, []string{"s1", "127.0.0.1:0"}},
		"group twice":               {func(m *directory.Map) { m.Groups = append(m.Groups, m.Groups[0]) }, []string{"customers", "twice"}},
		"group of nothing":          {func(m *directory.Map) { m.Tables = m.Tables[1:] }, []string{"customers", "no table"}},
		"unknown method":            {func(m *directory.Map) { m.Groups[0].Method = "magic" }, []string{"customers", "magic"}},
		"directory without entries": {func(m *directory.Map) { m.Groups[0].Method = directory.MethodDirectory }, []string{"entries \"\""}},
		"entries without directory": {func(m *directory.Map) { m.Groups[0].Entries = "abcdefghij" }, []string{"entries in a group by"}},
		"range by bool":             {func(m *directory.Map) { m.Groups[1].Key[0] = directory.Bool }, []string{"events", "range", "bool"}},
		"subpartitions":             {func(m *directory.Map) { m.Groups[3].SubMethod = directory.MethodList }, []string{"sessions", "only by hash"}},
		"hash with sub":             {func(m *directory.Map) { m.Groups[0].SubMethod = directory.MethodHash }, []string{"customers"}},
		"no partition":              {func(m *directory.Map) { m.Groups[0].Partitions = nil }, []string{"customers", "no partition"}},
		"partition twice":           {func(m *directory.Map) { m.Groups[0].Partitions[1].Name = "p0" }, []string{"customers", `"p0"`, "twice"}},
		"partition's shard":         {func(m *directory.Map) { m.Groups[0].Partitions[1].Shard = "s9" }, []string{"customers", `"p1"`, `"s9"`}},
		"hash overlap": {func(m *directory.Map) { m.Groups[0].Partitions[1].HashFrom-- },
			[]string{"customers", `"p0" HASH 0000000000000000-7fffffffffffffff`, `"p1" HASH 7fffffffffffffff-ffffffffffffffff`, "overlap"}},
		"hash gap": {func(m *directory.Map) { m.Groups[0].Partitions[1].HashFrom++ },
			[]string{"customers", `"p0"`, `"p1" HASH 8000000000000001-ffffffffffffffff`, "8000000000000000-8000000000000000"}},
		"hash begins late": {func(m *directory.Map) { m.Groups[0].Partitions[0].HashFrom = 1 }, []string{"customers", `"p0"`, "before"}},
		"hash ends early":  {func(m *directory.Map) { m.Groups[0].Partitions[1].HashTo-- }, []string{"customers", `"p1"`, "after"}},
		"hash empty":       {func(m *directory.Map) { m.Groups[0].Partitions[1].HashTo = 3 }, []string{"customers", `"p1"`, "empty"}},
		"composite gap":    {func(m *directory.Map) { m.Groups[3].Partitions = m.Groups[3].Partitions[:1] }, []string{"sessions", `"eu_0" IN ('eu') HASH`, "after"}},
		"composite bounds": {func(m *directory.Map) { m.Groups[3].Partitions[1].Values = m.Groups[2].Partitions[0].Values },
			[]string{"sessions", `"eu_0" IN ('eu')`, `"eu_1" IN ('de', 'fr')`}},
		"composite parent": {func(m *directory.Map) { m.Groups[3].Partitions[1].Parent = "" }, []string{"sessions", `"eu_1"`, "parent"}},
		"range overlap": {func(m *directory.Map) {
			m.Groups[1].Partitions[1].From = []directory.Bound{{Kind: directory.Finite, Value: mustParse(t, directory.Date, "2025-12-31")}}
		}, []string{"events", `"y25" FROM (MINVALUE) TO ('2026-01-01')`, `"rest" FROM ('2025-12-31') TO (MAXVALUE)`, "overlap"}},
		"range empty":   {func(m *directory.Map) { m.Groups[1].Partitions[0].From = m.Groups[1].Partitions[0].To }, []string{"events", `"y25"`, "FROM ('2026-01-01') TO ('2026-01-01')"}},
		"range null":    {func(m *directory.Map) { m.Groups[1].Partitions[0].To[0].Value = directory.Null(directory.Date) }, []string{"events", `"y25"`, "NULL"}},
		"range columns": {func(m *directory.Map) { m.Groups[1].Partitions[0].To = nil }, []string{"events", `"y25"`, "0 columns"}},
		"range type":    {func(m *directory.Map) { m.Groups[1].Partitions[0].To[0].Value = mustParse(t, directory.Int4, "5") }, []string{"events", "not of date"}},
		"list twice":    {func(m *directory.Map) { m.Groups[2].Partitions[1].Values = m.Groups[2].Partitions[0].Values[:1] }, []string{"users", "'de'", `"eu"`, `"other"`}},
		"list default":  {func(m *directory.Map) { m.Groups[2].Partitions[0].Default = true }, []string{"users", `"eu"`, `"other" DEFAULT`}},
		"list nothing":  {func(m *directory.Map) { m.Groups[2].Partitions[1].Default = false }, []string{"users", `"other"`, "lists no value"}},
		"list type":     {func(m *directory.Map) { m.Groups[2].Partitions[0].Values[0][0] = directory.Null(directory.Int4) }, []string{"users", "not of text"}},
		"table twice":   {func(m *directory.Map) { m.Tables = append(m.Tables, m.Tables[0]) }, []string{"public.customers", "twice"}},
		"table's group": {func(m *directory.Map) { m.Tables[0].Group = "none" }, []string{"public.customers", "none"}},
		"table's key":   {func(m *directory.Map) { m.Tables[0].KeyTypes = []directory.KeyType{directory.Text} }, []string{"public.customers", `"k"`, "text", "int8"}},
		"key column":    {func(m *directory.Map) { m.Tables[0].Key = nil }, []string{"public.customers", "0 columns"}},
		"typmods":       {func(m *directory.Map) { m.Tables[0].KeyTypmods = []int32{1, 2} }, []string{"public.customers", "2 type modifiers"}},
		"reference":     {func(m *directory.Map) { m.Tables[4].Kind = directory.TableReference }, []string{"public.audit", "authority"}},
		"reference, no key": {func(m *directory.Map) {
			m.Tables[4].Kind, m.Tables[4].Shard, m.Tables[4].Mirror = directory.TableReference, m.Home, "x"
		}, []string{"public.audit", "key"}},
		"reference, no mirror": {func(m *directory.Map) {
			m.Tables[4].Kind, m.Tables[4].Shard, m.Tables[4].Key = directory.TableReference, m.Home, []string{"id"}
		}, []string{"public.audit", "mirror"}},
		"mirror of no reference table": {func(m *directory.Map) { m.Tables[4].Mirror = "x" }, []string{"public.audit", "mirror"}},
		"pinned nowhere":               {func(m *directory.Map) { m.Tables[4].Shard = "s9" }, []string{"public.audit", `"s9"`}},
		"pinned at home":               {func(m *directory.Map) { m.Tables[4].Shard = "s1" }, []string{"public.audit", "home"}},
		"pinned with key":              {func(m *directory.Map) { m.Tables[4].Key = []string{"k"} }, []string{"public.audit", "no key"}},
		"hold's owner":                 {hold(directory.Hold{ID: "h"}), []string{"public.customers", "owner"}},
		"hold's shard":                 {hold(directory.Hold{ID: "h", Owner: "r", Shards: []directory.ShardID{"s9"}}), []string{"public.customers", `"h"`, `"s9"`}},
		"hold's gids":                  {hold(directory.Hold{ID: "h", Owner: "r", GIDs: []string{"g"}}), []string{"1 transactions on 0 shards"}},
		"move": {func(m *directory.Map) {
			m.Moves = []directory.Move{{ID: "m", Group: "users", Partition: "none", From: "s1", To: "s2", Phase: directory.MoveCopy}}
		}, []string{`"m"`, `"none"`}},
		"move's phase": {func(m *directory.Map) {
			m.Moves = []directory.Move{{ID: "m", Group: "users", Partition: "eu", From: "s1", To: "s2", Phase: "flying"}}
		}, []string{`"m"`, "flying"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			m := goodMap(t)
			m.Shards = append([]directory.Shard(nil), m.Shards...)
			c.spoil(&m)
			err := directory.Check(&m)
			if err == nil {
				t.Fatal("it passes")
			}
			for _, part := range c.names {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not name %q", err, part)
				}
			}
			if made, err := directory.NewMap(m); err == nil || made != nil {
				t.Error("NewMap takes it")
			}
		})
	}
}

func TestMapAnswers(t *testing.T) {
	m, err := directory.NewMap(goodMap(t))
	if err != nil {
		t.Fatal(err)
	}
	table, ok := m.Table(directory.TableName{Schema: "public", Name: "users"})
	if !ok || table.KeyTypmod(0) != -1 {
		t.Fatal("no table users")
	}
	if shards := m.ShardsOf(table); len(shards) != 2 || shards[0] != "s1" || shards[1] != "s2" {
		t.Errorf("users is on %v", shards)
	}
	pinned, _ := m.Table(directory.TableName{Schema: "public", Name: "audit"})
	if shards := m.ShardsOf(pinned); len(shards) != 1 || shards[0] != "s2" {
		t.Errorf("audit is on %v", shards)
	}
	if _, ok := m.Table(directory.TableName{Schema: "public", Name: "unknown"}); ok {
		t.Error("an unknown table is found")
	}
	if tables := m.TablesOf("users"); len(tables) != 1 || tables[0] != table {
		t.Errorf("group users has %v", tables)
	}
	g, _ := m.Group("users")
	if at, ok := g.PartitionNamed("other"); !ok || at != 1 || g.Describe(at) != "DEFAULT" {
		t.Errorf("partition other is %d %v", at, ok)
	}
	if s, ok := m.Shard("s2"); !ok || s.Primary.String() != "[::1]:5432" {
		t.Errorf("shard s2 is %v", s)
	}
	if !m.AnythingSharded() {
		t.Error("nothing is sharded")
	}
	if name := (directory.TableName{Schema: "public", Name: "Order"}); name.String() != `public."Order"` {
		t.Errorf("quoted as %s", name)
	}
}

func TestLocatePanicsOnAKeyOfAnotherFamily(t *testing.T) {
	good := goodMap(t)
	m, err := directory.NewMap(good)
	if err != nil {
		t.Fatal(err)
	}
	g, _ := m.Group("customers")
	for name, key := range map[string][]directory.Value{
		"family": {mustParse(t, directory.Numeric, "5")}, "length": nil, "no type": {{}},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("it gives a partition")
				}
			}()
			g.Locate(key, nil)
		})
	}
	// Prune stays sound: such a constraint says nothing.
	if parts := g.Prune([]directory.Constraint{{Values: []directory.Value{mustParse(t, directory.Numeric, "5")}}}, nil); len(parts) != 2 {
		t.Errorf("prune gives %v", parts)
	}
}

// TestPruneBeyondInt4: k > 2147483647 as an int4 on an int8 key counts up to values
// that are no int4.
func TestPruneBeyondInt4(t *testing.T) {
	g := directory.Group{ID: "g", Method: directory.MethodHash, Key: []directory.KeyType{directory.Int8}}
	for i, interval := range directory.HashIntervals(1000) {
		g.Partitions = append(g.Partitions, directory.Partition{Name: string(rune('a'+i%26)) + strings.Repeat("x", i/26), Shard: "s1",
			HashFrom: interval.From, HashTo: interval.To})
	}
	located := oneGroup(t, g)
	lo, hi := mustParse(t, directory.Int4, "2147483647"), mustParse(t, directory.Int8, "2147483650")
	parts := located.Prune([]directory.Constraint{{Lo: &lo, LoOpen: true, Hi: &hi}}, nil)
	if len(parts) > 3 {
		t.Errorf("%d partitions for three values", len(parts))
	}
	for _, text := range []string{"2147483648", "2147483649", "2147483650"} {
		want, _ := located.Locate([]directory.Value{mustParse(t, directory.Int8, text)}, nil)
		found := false
		for _, part := range parts {
			found = found || part == want
		}
		if !found {
			t.Errorf("prune gives %v without %d of %s", parts, want, text)
		}
	}
}

func TestHashIntervalsAndSpread(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 16, 1000} {
		intervals := directory.HashIntervals(n)
		if len(intervals) != n || intervals[0].From != 0 || intervals[n-1].To != 1<<64-1 {
			t.Fatalf("%d intervals: %v", n, intervals)
		}
		least, most := ^uint64(0), uint64(0)
		for i, interval := range intervals {
			if i > 0 && interval.From != intervals[i-1].To+1 {
				t.Fatalf("%d intervals: gap before %d", n, i)
			}
			least, most = min(least, interval.To-interval.From), max(most, interval.To-interval.From)
		}
		if most-least > 1 {
			t.Errorf("%d intervals: sizes %d to %d", n, least, most)
		}
	}
	counts := map[directory.ShardID]int{}
	for _, shard := range directory.Spread(17, []directory.ShardID{"a", "b", "c"}) {
		counts[shard]++
	}
	if counts["a"] != 6 || counts["b"] != 6 || counts["c"] != 5 {
		t.Errorf("spread as %v", counts)
	}
	if directory.Spread(3, nil) != nil || directory.HashIntervals(0) != nil {
		t.Error("something of nothing")
	}
}

// TestLocateAtHashBounds: both ends of an interval belong to it.
func TestLocateAtHashBounds(t *testing.T) {
	for _, text := range []string{"1", "2", "-7", "123456789012"} {
		key := []directory.Value{mustParse(t, directory.Int8, text)}
		h := directory.KeyHash(key)
		for want, cuts := range map[int][2]uint64{0: {h + 1, h + 2}, 1: {h, h + 1}, 2: {h - 1, h}} {
			g := oneGroup(t, directory.Group{ID: "g", Method: directory.MethodHash, Key: []directory.KeyType{directory.Int8}, Partitions: []directory.Partition{
				{Name: "a", Shard: "s1", HashFrom: 0, HashTo: cuts[0] - 1},
				{Name: "b", Shard: "s1", HashFrom: cuts[0], HashTo: cuts[1] - 1},
				{Name: "c", Shard: "s1", HashFrom: cuts[1], HashTo: 1<<64 - 1}}})
			if got, ok := g.Locate(key, nil); !ok || got != want {
				t.Errorf("%s with hash %x, cut at %x: partition %d, want %d", text, h, cuts, got, want)
			}
		}
	}
}
