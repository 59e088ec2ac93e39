package directory_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

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

// randomKey gives a function that puts another random key below n into the same value each time, as if it had just been
// read from a statement, without an allocation.
func randomKey(b *testing.B, typ directory.KeyType, n int) (key []directory.Value, next func()) {
	random := rand.New(rand.NewPCG(1, 2))
	key = make([]directory.Value, 1)
	parse := func(text []byte) {
		var err error
		if key[0], err = directory.ParseText(typ, unsafe.String(unsafe.SliceData(text), len(text))); err != nil {
			b.Fatal(err)
		}
	}
	digits := func(to []byte, base int) { // overwrites zeros
		for at, rest := len(to)-1, random.IntN(n); at >= 0; at, rest = at-1, rest/base {
			to[at] = "0123456789abcdef"[rest%base]
		}
	}
	switch typ {
	case directory.Text:
		text := []byte("customer-00000000")
		return key, func() { digits(text[9:], 10); parse(text) }
	case directory.UUID:
		text := []byte("00000000-0000-4000-8000-000000000000")
		return key, func() { digits(text[:8], 16); parse(text) }
	case directory.Numeric:
		list := make([]directory.Value, 1<<12)
		for i := range list {
			list[i] = mustParse(b, typ, fmt.Sprintf("%d.0", random.IntN(n)))
		}
		return key, func() { key[0] = list[random.IntN(len(list))] }
	}
	return key, func() {
		var err error
		if key[0], err = directory.IntValue(typ, random.Int64N(int64(n))); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRandomKey is what the other benchmarks pay for their keys.
func BenchmarkRandomKey(b *testing.B) {
	for _, typ := range []directory.KeyType{directory.Int8, directory.Numeric, directory.Text, directory.UUID} {
		b.Run(typ.String(), func(b *testing.B) {
			_, next := randomKey(b, typ, 100_000)
			b.ReportAllocs()
			for b.Loop() {
				next()
			}
		})
	}
}

// BenchmarkLocate finds the partitions of random keys among 100,000.
func BenchmarkLocate(b *testing.B) {
	cases := speedCases(b)
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		b.Run(name, func(b *testing.B) {
			g, _ := cases[name]()
			key, next := randomKey(b, g.Key[0], len(g.Partitions)-1)
			b.ReportAllocs()
			for b.Loop() {
				next()
				if _, ok := g.Locate(key, nil); !ok {
					b.Fatalf("no partition takes %s", key[0].Literal())
				}
			}
		})
	}
}

// BenchmarkEntriesLocate finds the partitions of random keys of a group by DIRECTORY with a million entries, all of them known.
func BenchmarkEntriesLocate(b *testing.B) {
	const count = 1_000_000
	for _, typ := range []directory.KeyType{directory.Int8, directory.Text, directory.UUID} {
		b.Run(typ.String(), func(b *testing.B) {
			m := directoryMap(b, directory.AssignHash, typ)
			g, _ := m.Group("g")
			cache := directory.NewEntryCache(count)
			shards := g.Shards()
			for n := range count {
				text := fmt.Sprint(n)
				switch typ {
				case directory.Text:
					text = fmt.Sprintf("customer-%08d", n)
				case directory.UUID:
					text = fmt.Sprintf("%08x-0000-4000-8000-000000000000", n)
				}
				cache.Put(g, directory.EntryKeyOf([]directory.Value{mustParse(b, typ, text)}), shards[n%len(shards)])
			}
			key, next := randomKey(b, typ, count)
			entries := directory.NewEntries(cache)
			b.ReportAllocs()
			for b.Loop() {
				next()
				if _, p := entries.Locate(g, key, nil, false); p != directory.Placed {
					b.Fatalf("the entry of %s is not known", key[0].Literal())
				}
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
