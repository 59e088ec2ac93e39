package planner

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shardyard/shardyard/directory"
)

// distinctStatements are n statements that differ in more than their literals, each in several texts with other literals, in random order.
func distinctStatements(n, texts int) []Statement {
	random := rand.New(rand.NewPCG(1, 2))
	list := make([]Statement, 0, n*texts)
	for i := range n {
		for range texts {
			// Literals that are equal make another statement: these never are.
			key, limit := 10_000+random.IntN(1_000_000), 1+random.IntN(1000)
			var sql string
			switch i % 4 {
			case 0:
				sql = fmt.Sprintf("SELECT id, customer_id, total AS total%d FROM orders WHERE customer_id = %d AND total > %d LIMIT %d", i, key, 2000+random.IntN(1000), limit)
			case 1:
				sql = fmt.Sprintf("UPDATE customers c%d SET name = 'name %d', score = %d WHERE c%d.id = %d AND email <> 'x%d'", i, key, limit, i, key, key)
			case 2:
				sql = fmt.Sprintf("INSERT INTO orders AS o%d (id, customer_id, total, note) VALUES (%d, %d, %d.50, 'a note on %d')", i, limit, key, limit, key)
			case 3:
				sql = fmt.Sprintf("SELECT name, k AS k%d FROM settings WHERE id = %d", i, key)
			}
			list = append(list, Statement{Text: sql})
		}
	}
	random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// planAndTarget does what a session does for a statement without parameters.
func planAndTarget(tb testing.TB, p *Planner, st *Statement, env *Env) {
	plan, err := p.Plan(st, nil, env)
	if err != nil {
		tb.Fatal(st.Text, err)
	}
	if target, err := plan.Targets(Args{Map: env.Map, Statement: st}); err != nil || len(target.Shards) != 1 {
		tb.Fatal(st.Text, target, err)
	}
}

// The cache gives the plans of as many distinct statements as it has room for, whatever their literals, and allocates nothing.
func TestCacheHitAllocatesNothing(t *testing.T) {
	const distinct = 10_000
	p, env := New(Config{}), fixtureEnv()
	list := distinctStatements(distinct, 2)
	for i := range list {
		planAndTarget(t, p, &list[i], env)
	}
	made, _ := p.Plans()
	if made != distinct {
		t.Errorf("%d plans were made for %d statements", made, distinct)
	}
	at := 0
	if n := testing.AllocsPerRun(len(list)-1, func() {
		planAndTarget(t, p, &list[at%len(list)], env)
		at++
	}); n != 0 {
		t.Errorf("%v allocations for each statement", n)
	}
	if again, _ := p.Plans(); again != made {
		t.Errorf("%d plans were made again", again-made)
	}
}

func BenchmarkCacheHit(b *testing.B) {
	p, env := New(Config{}), fixtureEnv()
	for _, c := range []struct {
		name   string
		sql    string
		types  []uint32
		params [][]byte
	}{
		{"literal", "SELECT id, customer_id, total FROM orders WHERE customer_id = 12345", nil, nil},
		{"param", "SELECT id, customer_id, total FROM orders WHERE customer_id = $1", []uint32{20}, [][]byte{binary.BigEndian.AppendUint64(nil, 12345)}},
		{"unsharded", "SELECT name FROM settings WHERE id = 5", nil, nil},
	} {
		b.Run(c.name, func(b *testing.B) {
			st := &Statement{Text: c.sql}
			args := Args{Map: env.Map, Statement: st, Params: c.params, Formats: []int16{1}}
			b.ReportAllocs()
			for b.Loop() {
				plan, err := p.Plan(st, c.types, env)
				if err != nil {
					b.Fatal(err)
				}
				if target, err := plan.Targets(args); err != nil || len(target.Shards) != 1 {
					b.Fatal(target, err)
				}
			}
		})
	}
}

// BenchmarkCacheHitDistinct is BenchmarkCacheHit with many statements in random order, with literals that differ each time: with the plan alone,
// and with its shard.
func BenchmarkCacheHitDistinct(b *testing.B) {
	for _, distinct := range []int{100, 10_000} {
		p, env := New(Config{}), fixtureEnv()
		list := distinctStatements(distinct, 8)
		for i := range list {
			planAndTarget(b, p, &list[i], env)
		}
		run := func(name string, step func(*Statement)) {
			b.Run(fmt.Sprintf("%s/%d", name, distinct), func(b *testing.B) {
				b.ReportAllocs()
				at := 0
				for b.Loop() {
					step(&list[at])
					if at++; at == len(list) {
						at = 0
					}
				}
			})
		}
		run("plan", func(st *Statement) {
			if _, err := p.Plan(st, nil, env); err != nil {
				b.Fatal(err)
			}
		})
		run("shard", func(st *Statement) { planAndTarget(b, p, st, env) })
	}
}

func BenchmarkPlanUncached(b *testing.B) {
	env := fixtureEnv()
	st := &Statement{Text: "SELECT id, customer_id, total FROM orders WHERE customer_id = 12345"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := newPlan(st, nil, env, false); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEpochChange is what a client sees of changes of the map: it runs cached statements while another goroutine does what the router does with newer maps of 100,000
// partitions: it reads them and makes them current. Each makes all plans stale. Besides the mean it tells the longest that one
// statement took, and what one in ten thousand exceeds.
func BenchmarkEpochChange(b *testing.B) {
	const partitions, statements = 100_000, 100
	env := fixtureEnv()
	contents := *env.Map
	contents.Groups = slices.Clone(contents.Groups)
	for i, g := range contents.Groups {
		if g.ID == "tickets" {
			contents.Groups[i] = hashGroup("tickets", partitions, g.Key...)
		}
	}
	first, err := directory.NewMap(contents)
	if err != nil {
		b.Fatal(err)
	}
	var current atomic.Pointer[directory.Map]
	current.Store(first)
	p := New(Config{})
	list := distinctStatements(statements, 8)
	stop, done := make(chan struct{}), make(chan error)
	changes := 0
	go func() { done <- changeEpochs(&current, &changes, stop) }()
	var took []time.Duration
	for b.Loop() {
		st := &list[len(took)%len(list)]
		start := time.Now()
		session := *env
		session.Map = current.Load()
		planAndTarget(b, p, st, &session)
		took = append(took, time.Since(start))
	}
	close(stop)
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*9999/10000].Nanoseconds()), "p99.99-ns")
	b.ReportMetric(float64(took[len(took)-1].Nanoseconds()), "worst-ns")
	b.ReportMetric(float64(changes)/b.Elapsed().Seconds(), "changes/s")
}

// changeEpochs makes newer maps current until stop is closed, at most 20 each second.
func changeEpochs(current *atomic.Pointer[directory.Map], changes *int, stop chan struct{}) error {
	pause := time.NewTicker(50 * time.Millisecond)
	defer pause.Stop()
	for {
		select {
		case <-stop:
			return nil
		case <-pause.C:
		}
		now := current.Load()
		shard := now.Shards[*changes%len(now.Shards)].ID
		changed, err := directory.SetPlacement{Group: "prices", Partition: "p0", Shard: shard}.Apply(now)
		if err != nil {
			return err
		}
		encoded, err := directory.Encode(changed)
		if err != nil {
			return err
		}
		next, err := directory.Decode(encoded)
		if err != nil {
			return err
		}
		current.Store(next)
		*changes++
	}
}
