package directory_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/shardyard/shardyard/directory"
)

// speedCases are groups of 100,000 partitions and a key of each.
func speedCases(t testing.TB) map[string]func() (*directory.Group, []directory.Value) {
	const count = 100_000
	key := func(typ directory.KeyType, text string) []directory.Value {
		return []directory.Value{mustParse(t, typ, text)}
	}
	byHash := func(typ directory.KeyType, text string) func() (*directory.Group, []directory.Value) {
		return func() (*directory.Group, []directory.Value) {
			g := directory.Group{ID: "g", Method: directory.MethodHash, Key: []directory.KeyType{typ}}
			for i, interval := range directory.HashIntervals(count) {
				g.Partitions = append(g.Partitions, directory.Partition{Name: fmt.Sprint(i), Shard: "s1", HashFrom: interval.From, HashTo: interval.To})
			}
			return oneGroup(t, g), key(typ, text)
		}
	}
	byRange := func(typ directory.KeyType, text string, bound func(i int) string) func() (*directory.Group, []directory.Value) {
		return func() (*directory.Group, []directory.Value) {
			g := directory.Group{ID: "g", Method: directory.MethodRange, Key: []directory.KeyType{typ}}
			from := directory.Bound{Kind: directory.MinValue}
			for i := range count {
				to := directory.Bound{Kind: directory.Finite, Value: mustParse(t, typ, bound(i))}
				g.Partitions = append(g.Partitions, directory.Partition{Name: fmt.Sprint(i), Shard: "s1",
					From: []directory.Bound{from}, To: []directory.Bound{to}})
				from = to
			}
			return oneGroup(t, g), key(typ, text)
		}
	}
	byList := func(typ directory.KeyType, text string, value func(i int) string) func() (*directory.Group, []directory.Value) {
		return func() (*directory.Group, []directory.Value) {
			g := directory.Group{ID: "g", Method: directory.MethodList, Key: []directory.KeyType{typ}}
			for i := range count {
				g.Partitions = append(g.Partitions, directory.Partition{Name: fmt.Sprint(i), Shard: "s1",
					Values: [][]directory.Value{{mustParse(t, typ, value(i))}}})
			}
			return oneGroup(t, g), key(typ, text)
		}
	}
	word := func(i int) string { return fmt.Sprintf("customer-%08d", i) }
	uuid := func(i int) string { return fmt.Sprintf("%08x-0000-4000-8000-000000000000", i) }
	return map[string]func() (*directory.Group, []directory.Value){
		"hash/int8":    byHash(directory.Int8, "123456789012"),
		"hash/text":    byHash(directory.Text, "customer-00012345"),
		"hash/uuid":    byHash(directory.UUID, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
		"range/int8":   byRange(directory.Int8, "73455", func(i int) string { return fmt.Sprint(i) }),
		"range/text":   byRange(directory.Text, word(73455), word),
		"range/uuid":   byRange(directory.UUID, uuid(73455), uuid),
		"list/int8":    byList(directory.Int8, "73455", func(i int) string { return fmt.Sprint(i) }),
		"list/text":    byList(directory.Text, word(73455), word),
		"list/uuid":    byList(directory.UUID, uuid(73455), uuid),
		"list/numeric": byList(directory.Numeric, "73455.00", func(i int) string { return fmt.Sprint(i) }),
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	for name, prepare := range speedCases(t) {
		t.Run(name, func(t *testing.T) {
			g, key := prepare()
			want, ok := locateByModel(g, key, nil)
			if got, found := g.Locate(key, nil); !ok || !found || got != want {
				t.Fatalf("locate: %d %v, want %d %v", got, found, want, ok)
			}
			if allocated := testing.AllocsPerRun(100, func() { g.Locate(key, nil) }); allocated != 0 {
				t.Errorf("Locate allocates %v times", allocated)
			}
			if allocated := testing.AllocsPerRun(100, func() { directory.KeyHash(key) }); allocated != 0 {
				t.Errorf("KeyHash allocates %v times", allocated)
			}
		})
	}
}

// TestReadingAllocatesNothing: an integer, a text or a uuid from a statement's text
// and a fixed-length binary parameter become values without garbage.
func TestReadingAllocatesNothing(t *testing.T) {
	for typ, text := range map[directory.KeyType]string{
		directory.Int8: "123456789012", directory.Text: "customer-00012345", directory.UUID: "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
		directory.Timestamptz: "2024-02-29 12:34:56.789+01", directory.Date: "2024-02-29",
	} {
		if allocated := testing.AllocsPerRun(100, func() {
			if _, err := directory.ParseText(typ, text); err != nil {
				t.Fatal(err)
			}
		}); allocated != 0 {
			t.Errorf("ParseText of %s allocates %v times", typ, allocated)
		}
	}
	wire := binary.BigEndian.AppendUint64(make([]byte, 0, 16), 42)
	if allocated := testing.AllocsPerRun(100, func() {
		if _, err := directory.ParseBinary(directory.Int8, wire); err != nil {
			t.Fatal(err)
		}
	}); allocated != 0 {
		t.Errorf("ParseBinary of int8 allocates %v times", allocated)
	}
}

// randomKeys are keys of a group of speedCases, so many that no memory cache holds what they lead to.
func randomKeys(b *testing.B, name string) [][]directory.Value {
	const count = 1 << 16
	random := rand.New(rand.NewPCG(1, 2))
	keys := make([][]directory.Value, count)
	for i := range keys {
		n := random.IntN(100_000)
		switch method, typ, _ := strings.Cut(name, "/"); {
		case typ == "text":
			keys[i] = []directory.Value{mustParse(b, directory.Text, fmt.Sprintf("customer-%08d", n))}
		case typ == "uuid" && method == "hash":
			keys[i] = []directory.Value{mustParse(b, directory.UUID, fmt.Sprintf("%08x-9c0b-4ef8-bb6d-6bb9bd380a11", random.Uint32()))}
		case typ == "uuid":
			keys[i] = []directory.Value{mustParse(b, directory.UUID, fmt.Sprintf("%08x-0000-4000-8000-000000000000", n))}
		case typ == "numeric":
			keys[i] = []directory.Value{mustParse(b, directory.Numeric, fmt.Sprintf("%d.0", n))}
		default:
			keys[i] = []directory.Value{mustParse(b, directory.Int8, fmt.Sprint(n))}
		}
	}
	return keys
}

// BenchmarkLocate finds the partitions of random keys among 100,000.
func BenchmarkLocate(b *testing.B) {
	cases := speedCases(b)
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		b.Run(name, func(b *testing.B) {
			g, _ := cases[name]()
			keys := randomKeys(b, name)
			if _, ok := g.Locate(keys[0], nil); !ok && !strings.HasPrefix(name, "range") {
				b.Fatal("no partition takes a key")
			}
			b.ReportAllocs()
			at := 0
			for b.Loop() {
				g.Locate(keys[at%len(keys)], nil)
				at++
			}
		})
	}
}

// BenchmarkEntriesLocate finds the partitions of random keys of a group by DIRECTORY with a million entries, all of them known.
func BenchmarkEntriesLocate(b *testing.B) {
	const count = 1_000_000
	for name, key := range map[string]func(n int) directory.Value{
		"int8": func(n int) directory.Value { return mustParse(b, directory.Int8, strconv.Itoa(n)) },
		"text": func(n int) directory.Value { return mustParse(b, directory.Text, fmt.Sprintf("customer-%08d", n)) },
	} {
		b.Run(name, func(b *testing.B) {
			m := directoryMap(b, directory.AssignHash, key(0).Type())
			g, _ := m.Group("g")
			cache := directory.NewEntryCache(count)
			shards := g.Shards()
			for n := range count {
				cache.Put(g, directory.EntryKeyOf([]directory.Value{key(n)}), shards[n%len(shards)])
			}
			random := rand.New(rand.NewPCG(1, 2))
			keys := make([][]directory.Value, 1<<16)
			for i := range keys {
				keys[i] = []directory.Value{key(random.IntN(count))}
			}
			entries := directory.NewEntries(cache)
			b.ReportAllocs()
			at := 0
			for b.Loop() {
				if _, p := entries.Locate(g, keys[at%len(keys)], nil, false); p != directory.Placed {
					b.Fatal("an entry is not known")
				}
				at++
			}
		})
	}
}

func BenchmarkKeyHash(b *testing.B) {
	for typ, text := range map[directory.KeyType]string{
		directory.Int8: "123456789012", directory.Text: "customer-00012345", directory.UUID: "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
		directory.Numeric: "12345.6789",
	} {
		b.Run(typ.String(), func(b *testing.B) {
			key := []directory.Value{mustParse(b, typ, text)}
			b.ReportAllocs()
			for b.Loop() {
				directory.KeyHash(key)
			}
		})
	}
}

func BenchmarkPrune(b *testing.B) {
	cases := speedCases(b)
	for _, name := range []string{"hash/int8", "range/int8", "list/int8"} {
		b.Run(name, func(b *testing.B) {
			g, key := cases[name]()
			constraints := []directory.Constraint{{Values: key}}
			b.ReportAllocs()
			for b.Loop() {
				g.Prune(constraints, nil)
			}
		})
	}
}
