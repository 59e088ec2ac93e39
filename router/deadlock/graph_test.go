package deadlock

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shardyard/shardyard/directory"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// process is one of a session on a shard; sessions are letters, and the later in the alphabet the younger.
func process(name, shard string) Process {
	letter := uint32(name[0] - 'a')
	return Process{
		Backend: Backend{Shard: directory.ShardID(shard), PID: 100*uint32(shard[1]-'0') + letter},
		Session: name, Began: epoch.Add(time.Duration(letter) * time.Second),
	}
}

// parse reads "a>b@s1 b>a@s2".
func parse(text string) []Wait {
	var waits []Wait
	for _, part := range strings.Fields(text) {
		names, shard, _ := strings.Cut(part, "@")
		waiter, holder, _ := strings.Cut(names, ">")
		waits = append(waits, Wait{
			Waiter: process(waiter, shard), Holder: process(holder, shard), Since: epoch, Lock: "transaction 1", Mode: "ShareLock",
		})
	}
	return waits
}

func names(c Circle) string {
	var text []string
	for _, w := range c {
		text = append(text, w.Waiter.Session)
	}
	return strings.Join(text, "")
}

func TestCircles(t *testing.T) {
	for _, test := range []struct{ waits, circles, youngest string }{
		{"", "", ""},
		{"a>b@s1", "", ""},
		{"a>b@s1 b>a@s2", "ab", "b"},
		{"b>a@s1 a>b@s2", "ab", "b"},
		{"a>b@s1 b>a@s1", "", ""}, // Postgres's own
		{"a>b@s1 b>c@s2 c>a@s3", "abc", "c"},
		{"c>b@s1 b>a@s2 a>c@s1", "acb", "c"},
		{"a>b@s1 b>c@s1 c>a@s2", "abc", "c"},
		{"a>b@s1 b>c@s2 c>d@s3", "", ""},
		{"a>b@s1 b>a@s2 d>a@s1 e>d@s1 e>a@s1", "ab", "b"},         // others queue up behind
		{"a>b@s1 b>a@s2 c>d@s2 d>c@s3", "ab cd", "b d"},           // two at once
		{"a>b@s1 b>a@s2 b>c@s2 c>a@s3", "ab", "b"},                // b is in both: one victim is enough for now
		{"a>b@s1 b>a@s1 b>c@s2 c>b@s2", "", ""},                   // two of Postgres's own
		{"a>b@s1 a>c@s1 b>d@s2 c>d@s2 d>a@s3", "abd", "d"},        // the shorter of two ways, the first of equals
		{"a>b@s1 b>c@s2 a>c@s1 c>e@s1 e>a@s2 b>e@s2", "abe", "e"}, // chords
	} {
		circles := Circles(parse(test.waits), nil)
		var got, youngest []string
		for _, c := range circles {
			got = append(got, names(c))
			youngest = append(youngest, c[c.ByAge()[0]].Waiter.Session)
		}
		if strings.Join(got, " ") != test.circles || strings.Join(youngest, " ") != test.youngest {
			t.Errorf("%s: circles %q, youngest %q; want %q, %q", test.waits, got, youngest, test.circles, test.youngest)
		}
	}
}

// The processes of a session of this router belong together whatever their names say.
func TestJoined(t *testing.T) {
	waits := parse("a>b@s1 c>d@s2")
	if found := Circles(waits, nil); len(found) != 0 {
		t.Fatalf("found %v", found)
	}
	own := [][]Backend{
		{process("a", "s1").Backend, process("d", "s2").Backend},
		{process("b", "s1").Backend, process("c", "s2").Backend, {Shard: "s3", PID: 1}},
	}
	found := Circles(waits, own)
	if len(found) != 1 || len(found[0]) != 2 {
		t.Fatalf("found %v", found)
	}
	// A session is as old as its oldest process: {a, d} and {b, c}, of which a began first.
	if w := found[0][found[0].ByAge()[0]].Waiter; w.Session != "c" {
		t.Errorf("the youngest is %s", w.Session)
	}
}

// Whatever the order of the waits, the same circles are found; and each is one.
func TestCirclesRandom(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	for round := range 2000 {
		var waits []Wait
		for range 1 + random.IntN(12) {
			a, b := string(rune('a'+random.IntN(6))), string(rune('a'+random.IntN(6)))
			if a != b {
				waits = append(waits, parse(a+">"+b+"@s"+string(rune('1'+random.IntN(3))))...)
			}
		}
		first := Circles(waits, nil)
		random.Shuffle(len(waits), func(i, j int) { waits[i], waits[j] = waits[j], waits[i] })
		second := Circles(waits, nil)
		if !slices.EqualFunc(first, second, func(a, b Circle) bool { return a.Signature() == b.Signature() }) {
			t.Fatalf("seed %d round %d: %v and %v", seed, round, first, second)
		}
		for _, c := range first {
			shards := make(map[directory.ShardID]bool)
			for i, w := range c {
				shards[w.Waiter.Shard] = true
				if w.Holder.Session != c[(i+1)%len(c)].Waiter.Session {
					t.Fatalf("seed %d round %d: not a circle: %v", seed, round, c)
				}
			}
			if len(shards) < 2 {
				t.Fatalf("seed %d round %d: on one shard: %v", seed, round, c)
			}
		}
		// The two sessions of a circle of two over two shards are never both left alone.
		for _, w := range waits {
			for _, v := range waits {
				if w.Waiter.Session == v.Holder.Session && w.Holder.Session == v.Waiter.Session && w.Waiter.Shard != v.Waiter.Shard &&
					!slices.ContainsFunc(first, func(c Circle) bool {
						return strings.ContainsAny(names(c), w.Waiter.Session+v.Waiter.Session)
					}) && !onOneShard(waits, w, v) {
					t.Fatalf("seed %d round %d: %s and %s were not seen", seed, round, w.Waiter.Session, w.Holder.Session)
				}
			}
		}
	}
}

// onOneShard reports whether one of two waits is also part of a circle of one shard, which is told first.
func onOneShard(waits []Wait, a, b Wait) bool {
	return slices.ContainsFunc(waits, func(w Wait) bool {
		return w.Waiter.Session == a.Holder.Session && w.Holder.Session == a.Waiter.Session && w.Waiter.Shard == a.Waiter.Shard ||
			w.Waiter.Session == b.Holder.Session && w.Holder.Session == b.Waiter.Session && w.Waiter.Shard == b.Waiter.Shard
	})
}

func TestSignature(t *testing.T) {
	sign := func(change func([]Wait)) string {
		waits := parse("a>b@s1 b>a@s2")
		change(waits)
		return Circles(waits, nil)[0].Signature()
	}
	same := sign(func([]Wait) {})
	for name, change := range map[string]func([]Wait){
		"another wait":        func(w []Wait) { w[0].Since = epoch.Add(time.Second) },
		"another lock":        func(w []Wait) { w[1].Lock = "transaction 2" },
		"another transaction": func(w []Wait) { w[0].Holder.Began = epoch.Add(time.Hour) },
	} {
		if sign(change) == same {
			t.Errorf("%s has the same signature", name)
		}
	}
}

func TestDetail(t *testing.T) {
	c := Circles(parse("a>b@s1 b>a@s2"), nil)[0]
	const want = "Process 201 of shard s2 waits for ShareLock on transaction 1; blocked by process 200. Its transaction has process 100 of shard s1.\n" +
		"Process 100 of shard s1 waits for ShareLock on transaction 1; blocked by process 101. Its transaction has process 201 of shard s2."
	if got := c.Detail(1); got != want {
		t.Errorf("got\n%s", got)
	}
}
