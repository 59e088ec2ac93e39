package history

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func app(key, value int) Op         { return Op{Key: key, Append: value} }
func read(key int, list ...int) Op  { return Op{Key: key, List: list} }
func tx(ops ...Op) Transaction      { return Transaction{Ops: ops, Snapshot: true} }
func aborted(ops ...Op) Transaction { return Transaction{Ops: ops, Outcome: Aborted} }
func unknown(ops ...Op) Transaction { return Transaction{Ops: ops, Outcome: Unknown} }
func alone(t Transaction) Transaction {
	t.Alone = true
	return t
}

func loose(t Transaction) Transaction {
	t.Snapshot = false
	return t
}

func TestCheck(t *testing.T) {
	final := func(lists ...[]int) map[int][]int {
		m := map[int][]int{}
		for key, list := range lists {
			m[key] = list
		}
		return m
	}
	for _, test := range []struct {
		name string
		want string // kind of the first anomaly, "" for none
		txs  []Transaction
		end  map[int][]int
	}{
		{"empty", "", nil, nil},
		{"one after the other", "", []Transaction{tx(app(0, 1)), tx(read(0, 1), app(0, 2)), tx(read(0, 1, 2))}, final([]int{1, 2})},
		{"own appends", "", []Transaction{tx(app(0, 1), read(0, 1), app(0, 2), read(0, 1, 2))}, final([]int{1, 2})},
		{"write skew is allowed", "", []Transaction{tx(read(0), app(1, 1)), tx(read(1), app(0, 1))}, final([]int{1}, []int{1})},
		{"unknown, whole", "", []Transaction{unknown(app(0, 1), app(1, 1)), tx(read(0, 1), read(1, 1))}, final([]int{1}, []int{1})},
		{"unknown, nothing", "", []Transaction{unknown(app(0, 1), app(1, 1)), tx(read(0))}, final(nil, nil)},
		{"unknown, half", "torn", []Transaction{unknown(app(0, 1), app(1, 1))}, final([]int{1}, nil)},
		{"lost", "lost", []Transaction{tx(app(0, 1)), tx(app(0, 2))}, final([]int{2})},
		{"twice", "duplicate", []Transaction{tx(app(0, 1))}, final([]int{1, 1})},
		{"from nowhere", "phantom", nil, final([]int{1})},
		{"rolled back and there", "dirty write", []Transaction{aborted(app(0, 1))}, final([]int{1})},
		{"rolled back and read", "G1a", []Transaction{aborted(app(0, 1)), tx(read(0, 1))}, final([]int{})},
		{"in the middle", "G1b", []Transaction{tx(app(0, 1), app(0, 2)), tx(read(0, 1))}, final([]int{1, 2})},
		{"own append unseen", "internal", []Transaction{tx(app(0, 1), read(0))}, final([]int{1})},
		{"another order", "order", []Transaction{tx(app(0, 1)), tx(app(0, 2)), tx(read(0, 2))}, final([]int{1, 2})},
		{"changing its mind", "unrepeatable", []Transaction{tx(app(0, 1)), tx(read(0), read(0, 1))}, final([]int{1})},
		{"changing its mind, allowed", "", []Transaction{tx(app(0, 1)), loose(tx(read(0), read(0, 1)))}, final([]int{1})},
		{"writes around each other", "G0", []Transaction{tx(app(0, 1), app(1, 1)), tx(app(0, 2), app(1, 2))}, final([]int{1, 2}, []int{2, 1})},
		{"each reads the other", "G1c", []Transaction{tx(app(0, 1), read(1, 1)), tx(app(1, 1), read(0, 1))}, final([]int{1}, []int{1})},
		{"half of a transaction", "G-single", []Transaction{tx(app(0, 1), app(1, 1)), tx(read(0, 1), read(1))}, final([]int{1}, []int{1})},
		{"half of a transaction, allowed", "", []Transaction{tx(app(0, 1), app(1, 1)), loose(tx(read(0, 1), read(1)))}, final([]int{1}, []int{1})},
		{"effect before its cause", "G-single",
			[]Transaction{tx(app(0, 1), app(2, 1)), tx(read(0, 1), app(1, 1), app(3, 1)), tx(read(1, 1), read(0))},
			final([]int{1}, []int{1}, []int{1}, []int{1})},
		{"effect before its cause, each on one shard", "",
			[]Transaction{alone(tx(app(0, 1))), alone(tx(read(0, 1), app(1, 1))), tx(read(1, 1), read(0))}, final([]int{1}, []int{1})},
		{"write skew and a reader", "", []Transaction{tx(app(0, 1)), tx(app(1, 1)), tx(read(0, 1), read(1)), tx(read(0), read(1, 1))}, final([]int{1}, []int{1})},
	} {
		t.Run(test.name, func(t *testing.T) {
			found := Check(test.txs, test.end)
			got := ""
			if len(found) > 0 {
				got = found[0].Kind
			}
			if got != test.want {
				t.Errorf("got %v, want %q", found, test.want)
			}
		})
	}
}

// TestSerialIsRight: what transactions see that run one after the other is no anomaly, and becomes one if any
// read of a list that has values is made to miss the last.
func TestSerialIsRight(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		lists := map[int][]int{}
		var txs []Transaction
		next := 1
		for range 30 {
			var one Transaction
			one.Snapshot = true
			for range 1 + random.IntN(5) {
				key := random.IntN(4)
				if random.IntN(2) == 0 {
					lists[key] = append(lists[key], next)
					one.Ops = append(one.Ops, app(key, next))
					next++
				} else {
					one.Ops = append(one.Ops, read(key, slices.Clone(lists[key])...))
				}
			}
			txs = append(txs, one)
		}
		if found := Check(txs, lists); len(found) > 0 {
			t.Fatalf("seed %d: %v", seed, found)
		}
		for key, list := range lists {
			if len(list) > 0 {
				broken := map[int][]int{}
				for k, l := range lists {
					broken[k] = l
				}
				broken[key] = list[:len(list)-1]
				if len(Check(txs, broken)) == 0 {
					t.Fatalf("seed %d: list %d lost its last value, and nothing was found", seed, key)
				}
			}
		}
	}
}

func ExampleCheck() {
	fmt.Println(Check([]Transaction{
		{Ops: []Op{{Key: 1, Append: 10}, {Key: 2, Append: 10}}},
		{Ops: []Op{{Key: 1, List: []int{10}}, {Key: 2}}, Snapshot: true},
	}, map[int][]int{1: {10}, 2: {10}}))
	// Output: [G-single: T1 -rw(2)-> T0 -wr(1)-> T1]
}
