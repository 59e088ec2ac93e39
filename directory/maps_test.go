package directory_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/shardyard/shardyard/directory"
)

var testShards = []directory.Shard{
	{ID: "s1", Primary: directory.Endpoint{Host: "127.0.0.1", Port: 5431}, State: directory.ShardActive},
	{ID: "s2", Primary: directory.Endpoint{Host: "::1", Port: 5432}, State: directory.ShardActive,
		Replicas: []directory.Endpoint{{Host: "replica.example", Port: 5433}}},
	{ID: "s3", Primary: directory.Endpoint{Host: "db3", Port: 5432}, State: directory.ShardDraining},
}

// smallTexts are few values of each type, so that keys often meet bounds.
var smallTexts = map[directory.KeyType][]string{
	directory.Int2: numbers(-7, 17), directory.Int4: numbers(-7, 17), directory.Int8: numbers(-7, 17),
	directory.Text: {"", "a", "aa", "ab", "b", "ä", "z"}, directory.Varchar: {"", "a", "b ", "c"},
	directory.UUID: {"00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000001", "80000000-0000-0000-0000-000000000000",
		"ffffffff-ffff-ffff-ffff-ffffffffffff"},
	directory.Date:        {"-infinity", "2024-01-01", "2024-01-02", "2024-01-03", "infinity"},
	directory.Timestamp:   {"-infinity", "2024-01-01 00:00:00", "2024-01-01 00:00:00.000001", "2025-01-01", "infinity"},
	directory.Timestamptz: {"-infinity", "2024-01-01 00:00:00+00", "2024-01-01 01:00:00+01", "2025-01-01 00:00:00Z", "infinity"},
	directory.Numeric:     {"-Infinity", "-1", "0", "0.5", "0.50", "1", "1e3", "Infinity", "NaN"},
	directory.Bytea:       {`\x`, `\x00`, `\xff`, `\x0001`},
	directory.Bool:        {"f", "t"},
}

func numbers(from, to int) []string {
	var texts []string
	for n := from; n <= to; n++ {
		texts = append(texts, fmt.Sprint(n))
	}
	return texts
}

func drawValue(t *rapid.T, typ directory.KeyType) directory.Value {
	text := rapid.SampledFrom(smallTexts[typ]).Draw(t, "value")
	v, err := directory.ParseText(typ, text)
	if err != nil {
		t.Fatalf("%s %q: %v", typ, text, err)
	}
	return v
}

func drawTuple(t *rapid.T, types []directory.KeyType, null bool) []directory.Value {
	tuple := make([]directory.Value, len(types))
	for i, typ := range types {
		if tuple[i] = drawValue(t, typ); null && rapid.IntRange(0, 9).Draw(t, "null") == 0 {
			tuple[i] = directory.Null(typ)
		}
	}
	return tuple
}

// sibling draws a type of the same family.
func sibling(t *rapid.T, typ directory.KeyType) directory.KeyType {
	var family []directory.KeyType
	for _, other := range directory.KeyTypes() {
		if other.Family() == typ.Family() {
			family = append(family, other)
		}
	}
	return rapid.SampledFrom(family).Draw(t, "sibling")
}

func drawTypes(t *rapid.T, method directory.Method, most int) []directory.KeyType {
	var allowed []directory.KeyType
	for _, typ := range directory.KeyTypes() {
		if typ.Allows(method) {
			allowed = append(allowed, typ)
		}
	}
	return rapid.SliceOfN(rapid.SampledFrom(allowed), 1, most).Draw(t, "types")
}

func compareTuple(a, b []directory.Value) int {
	return slices.CompareFunc(a, b, directory.Compare)
}

func drawGroup(t *rapid.T, id directory.GroupID) directory.Group {
	g := directory.Group{ID: id}
	g.Method = rapid.SampledFrom([]directory.Method{directory.MethodRange, directory.MethodList, directory.MethodHash}).Draw(t, "method")
	g.Key = drawTypes(t, g.Method, 3)
	return fillGroup(t, g)
}

// fillGroup draws the partitions of a group with a method and a key.
func fillGroup(t *rapid.T, g directory.Group) directory.Group {
	var firsts []directory.Partition
	switch g.Method {
	case directory.MethodRange:
		firsts = drawRanges(t, g.Key)
	case directory.MethodList:
		firsts = drawLists(t, g.Key)
	case directory.MethodHash:
		g.Partitions = drawHash(t, directory.Partition{Name: "h"})
		return g
	}
	if rapid.Bool().Draw(t, "composite") {
		g.SubMethod, g.SubKey = directory.MethodHash, drawTypes(t, directory.MethodHash, 2)
		for _, p := range firsts {
			p.Parent = p.Name
			g.Partitions = append(g.Partitions, drawHash(t, p)...)
		}
	} else {
		g.Partitions = firsts
	}
	g.Partitions = rapid.Permutation(g.Partitions).Draw(t, "order")
	return g
}

func drawShard(t *rapid.T) directory.ShardID {
	return rapid.SampledFrom([]directory.ShardID{"s1", "s2"}).Draw(t, "shard")
}

// drawRanges draws ranges with gaps, possibly from MINVALUE or to MAXVALUE.
func drawRanges(t *rapid.T, types []directory.KeyType) []directory.Partition {
	var cuts [][]directory.Bound
	tuples := rapid.IntRange(2, 8).Draw(t, "cuts")
	for range tuples {
		cut := make([]directory.Bound, len(types))
		kind := directory.Finite
		for i, typ := range types {
			if kind == directory.Finite && rapid.IntRange(0, 7).Draw(t, "end") == 0 {
				kind = rapid.SampledFrom([]directory.BoundKind{directory.MinValue, directory.MaxValue}).Draw(t, "kind")
			}
			if cut[i].Kind = kind; kind == directory.Finite {
				cut[i].Value = drawValue(t, typ)
			}
		}
		cuts = append(cuts, cut)
	}
	slices.SortFunc(cuts, compareCut)
	cuts = slices.CompactFunc(cuts, func(a, b []directory.Bound) bool { return compareCut(a, b) == 0 })
	var parts []directory.Partition
	for i := 1; i < len(cuts); i++ {
		if i > 1 && rapid.IntRange(0, 3).Draw(t, "gap") == 0 {
			continue
		}
		parts = append(parts, directory.Partition{Name: fmt.Sprintf("r%d", i), Shard: drawShard(t), From: cuts[i-1], To: cuts[i]})
	}
	if len(parts) == 0 {
		ends := func(kind directory.BoundKind) []directory.Bound {
			bounds := make([]directory.Bound, len(types))
			for i := range bounds {
				bounds[i].Kind = kind
			}
			return bounds
		}
		parts = append(parts, directory.Partition{Name: "all", Shard: drawShard(t), From: ends(directory.MinValue), To: ends(directory.MaxValue)})
	}
	return parts
}

// compareCut is the model of the order of bounds.
func compareCut(a, b []directory.Bound) int {
	for i := range a {
		if a[i].Kind != b[i].Kind {
			return int(a[i].Kind) - int(b[i].Kind)
		}
		if a[i].Kind == directory.Finite {
			if c := directory.Compare(a[i].Value, b[i].Value); c != 0 {
				return c
			}
		}
	}
	return 0
}

func drawLists(t *rapid.T, types []directory.KeyType) []directory.Partition {
	count := rapid.IntRange(1, 5).Draw(t, "lists")
	parts := make([]directory.Partition, count)
	var seen [][]directory.Value
	for i := range parts {
		parts[i] = directory.Partition{Name: fmt.Sprintf("l%d", i), Shard: drawShard(t)}
		for range rapid.IntRange(1, 5).Draw(t, "values") {
			tuple := drawTuple(t, types, true)
			if !slices.ContainsFunc(seen, func(other []directory.Value) bool { return compareTuple(tuple, other) == 0 }) {
				seen = append(seen, tuple)
				parts[i].Values = append(parts[i].Values, tuple)
			}
		}
	}
	parts[0].Default = len(parts[0].Values) == 0 || rapid.Bool().Draw(t, "default")
	return slices.DeleteFunc(parts, func(p directory.Partition) bool { return len(p.Values) == 0 && !p.Default })
}

// drawHash cuts the hash space into subpartitions of p.
func drawHash(t *rapid.T, p directory.Partition) []directory.Partition {
	cuts := rapid.SliceOfNDistinct(rapid.Uint64Range(1, 1<<64-1), 0, 5, rapid.ID).Draw(t, "hash cuts")
	slices.Sort(cuts)
	cuts = append([]uint64{0}, cuts...)
	parts := make([]directory.Partition, len(cuts))
	for i, from := range cuts {
		parts[i] = p
		parts[i].Name = fmt.Sprintf("%s_%d", p.Name, i)
		parts[i].Shard = drawShard(t)
		parts[i].HashFrom, parts[i].HashTo = from, 1<<64-1
		if i+1 < len(cuts) {
			parts[i].HashTo = cuts[i+1] - 1
		}
	}
	return parts
}

func drawTable(t *rapid.T, g *directory.Group, name string) directory.Table {
	table := directory.Table{
		Name: directory.TableName{Schema: rapid.SampledFrom([]string{"public", "Übung"}).Draw(t, "schema"), Name: name},
		Kind: directory.TableSharded, Group: g.ID,
	}
	for i, typ := range g.Key {
		table.Key = append(table.Key, fmt.Sprintf("k%d", i))
		table.KeyTypes = append(table.KeyTypes, sibling(t, typ))
	}
	for i, typ := range g.SubKey {
		table.SubKey = append(table.SubKey, fmt.Sprintf("k%d", i))
		table.SubKeyTypes = append(table.SubKeyTypes, sibling(t, typ))
		table.SubKeyTypmods = append(table.SubKeyTypmods, int32(i-1))
	}
	if rapid.Bool().Draw(t, "hold") {
		table.Hold = drawHold(t)
	}
	return table
}

func drawHold(t *rapid.T) *directory.Hold {
	hold := directory.Hold{ID: rapid.SampledFrom([]string{"h1", "h2"}).Draw(t, "hold"), Owner: "r1", Reason: "a \"reason\"\n", Decided: rapid.Bool().Draw(t, "decided")}
	switch rapid.IntRange(0, 3).Draw(t, "after") {
	case 1:
		hold.Drop = true
	case 2:
		hold.Rename = &directory.TableName{Schema: "public", Name: "renamed"}
	case 3:
		hold.Shards, hold.GIDs = []directory.ShardID{"s1", "s2"}, []string{"g1", "g'2"}
	}
	return &hold
}

func drawMap(t *rapid.T) *directory.Map {
	contents := directory.Map{ClusterID: "c", Database: "shop \u00e4", Epoch: directory.Epoch(rapid.Uint64Range(1, 1<<60).Draw(t, "epoch")),
		CatalogVersion: 3, Shards: testShards, Home: "s1"}
	for i := range rapid.IntRange(0, 3).Draw(t, "groups") {
		g := drawGroup(t, directory.GroupID(fmt.Sprintf("g%d", i)))
		contents.Groups = append(contents.Groups, g)
		for j := range rapid.IntRange(1, 2).Draw(t, "tables") {
			contents.Tables = append(contents.Tables, drawTable(t, &g, fmt.Sprintf("t%d_%d", i, j)))
		}
		if rapid.IntRange(0, 4).Draw(t, "move") == 0 {
			contents.Moves = append(contents.Moves, directory.Move{ID: fmt.Sprint(i), Group: g.ID, Partition: g.Partitions[0].Name,
				From: "s1", To: "s2", Phase: directory.MoveCopy})
		}
	}
	if rapid.Bool().Draw(t, "pinned") {
		contents.Tables = append(contents.Tables, directory.Table{Name: directory.TableName{Schema: "public", Name: "pinned"},
			Kind: directory.TablePinned, Shard: "s2", Hold: drawHold(t)})
	}
	m, err := directory.NewMap(contents)
	if err != nil {
		t.Fatalf("random map: %v", err)
	}
	return m
}

// oneGroup gives the group of a map that has only this one.
func oneGroup(t testing.TB, g directory.Group) *directory.Group {
	t.Helper()
	table := directory.Table{Name: directory.TableName{Schema: "public", Name: "t"}, Kind: directory.TableSharded, Group: g.ID,
		KeyTypes: g.Key, SubKeyTypes: g.SubKey}
	for i := range g.Key {
		table.Key = append(table.Key, fmt.Sprintf("k%d", i))
	}
	for i := range g.SubKey {
		table.SubKey = append(table.SubKey, fmt.Sprintf("s%d", i))
	}
	m, err := directory.NewMap(directory.Map{ClusterID: "c", Database: "d", Epoch: 1, Shards: testShards, Home: "s1",
		Groups: []directory.Group{g}, Tables: []directory.Table{table}})
	if err != nil {
		t.Fatal(err)
	}
	found, _ := m.Group(g.ID)
	return found
}
