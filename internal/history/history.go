package history

import (
	"fmt"
	"slices"
)

// Outcome is how a transaction ended, as far as its client knows.
type Outcome uint8

// The outcomes. An unknown transaction counts as committed as soon as somebody has read a value of it.
const (
	Committed Outcome = iota
	Aborted
	Unknown
)

// Op is one append or read.
type Op struct {
	Key int
	// Append is the value that was appended; 0 for a read.
	Append int
	// List is what a read returned.
	List []int
}

// Transaction is what one transaction did, in order.
type Transaction struct {
	Ops     []Op
	Outcome Outcome
	// Snapshot: it was promised one snapshot for all its reads.
	Snapshot bool
	// Alone: it wrote on one shard only, so that two such commits may be seen in either order and a cycle
	// with one rw edge through it is no anomaly (docs/snapshots.md).
	Alone bool
}

// Anomaly is something that must not be.
type Anomaly struct {
	Kind   string
	Detail string
}

func (a Anomaly) String() string { return a.Kind + ": " + a.Detail }

// Check returns the anomalies of a history. final is what each list holds at the end.
func Check(transactions []Transaction, final map[int][]int) []Anomaly {
	c := &checker{transactions: transactions, final: final, writer: map[element]int{}, place: map[element]int{}}
	c.writers()
	c.orders()
	for i := range transactions {
		if transactions[i].Outcome == Committed {
			c.reads(i)
		}
	}
	if len(c.found) == 0 { // the edges mean nothing otherwise
		c.dependencies()
		c.cycles()
	}
	return c.found
}

// element is one value of one list.
type element struct{ key, value int }

type edgeKind uint8

const (
	writeWrite edgeKind = iota
	writeRead
	readWrite
)

func (k edgeKind) String() string { return [...]string{"ww", "wr", "rw"}[k] }

type edge struct {
	to   int
	kind edgeKind
	key  int
}

type checker struct {
	transactions []Transaction
	final        map[int][]int
	writer       map[element]int // who appended it
	place        map[element]int // where it stands in the final list
	edges        [][]edge
	found        []Anomaly
}

func (c *checker) report(kind, format string, args ...any) {
	c.found = append(c.found, Anomaly{kind, fmt.Sprintf(format, args...)})
}

func (c *checker) writers() {
	for i := range c.transactions {
		for _, op := range c.transactions[i].Ops {
			if op.Append == 0 {
				continue
			}
			e := element{op.Key, op.Append}
			if other, ok := c.writer[e]; ok {
				c.report("bad test", "value %d of list %d is appended by T%d and T%d", op.Append, op.Key, other, i)
			}
			c.writer[e] = i
		}
	}
}

// orders checks the final lists, which give the order of the writes.
func (c *checker) orders() {
	for key, list := range c.final {
		for at, value := range list {
			e := element{key, value}
			if before, ok := c.place[e]; ok {
				c.report("duplicate", "value %d stands in list %d at %d and %d", value, key, before, at)
			}
			c.place[e] = at
			who, ok := c.writer[e]
			switch {
			case !ok:
				c.report("phantom", "value %d of list %d was appended by nobody", value, key)
			case c.transactions[who].Outcome == Aborted:
				c.report("dirty write", "value %d of list %d is T%d's, which was rolled back", value, key, who)
			}
		}
	}
	for e, who := range c.writer {
		if _, ok := c.place[e]; ok {
			continue
		}
		t := &c.transactions[who]
		if t.Outcome == Committed {
			c.report("lost", "value %d of list %d, appended by T%d, is gone", e.value, e.key, who)
		} else if t.Outcome == Unknown && c.anyStands(t) {
			c.report("torn", "T%d is in some lists, but its value %d is not in list %d", who, e.value, e.key)
		}
	}
}

// anyStands reports whether some append of a transaction is in a final list.
func (c *checker) anyStands(t *Transaction) bool {
	return slices.ContainsFunc(t.Ops, func(op Op) bool {
		_, ok := c.place[element{op.Key, op.Append}]
		return op.Append != 0 && ok
	})
}

// reads checks each read of a transaction for itself.
func (c *checker) reads(i int) {
	own := map[int][]int{} // its appends so far
	seen := map[int]int{}  // by list, how many values of others it has seen
	for _, op := range c.transactions[i].Ops {
		if op.Append != 0 {
			own[op.Key] = append(own[op.Key], op.Append)
			continue
		}
		others := len(op.List) - len(own[op.Key])
		if others < 0 || !slices.Equal(op.List[max(others, 0):], own[op.Key]) {
			c.report("internal", "T%d does not see its own appends %v in list %d: %v", i, own[op.Key], op.Key, op.List)
			continue
		}
		c.prefix(i, op, others)
		before, again := seen[op.Key]
		if again && c.transactions[i].Snapshot && before != others {
			c.report("unrepeatable", "T%d read %d values of others in list %d, then %d", i, before, op.Key, others)
		}
		seen[op.Key] = others
	}
}

// prefix checks that the part of a read that others wrote is the beginning of the final list, and whole transactions.
func (c *checker) prefix(i int, op Op, others int) {
	final := c.final[op.Key]
	if others > len(final) || !slices.Equal(op.List[:others], final[:others]) {
		kind := "order"
		for _, value := range op.List[:others] {
			if who, ok := c.writer[element{op.Key, value}]; ok && c.transactions[who].Outcome == Aborted {
				kind = "G1a"
			}
		}
		c.report(kind, "T%d read %v in list %d, which is no beginning of %v", i, op.List, op.Key, final)
		return
	}
	if others == 0 {
		return
	}
	last := c.writer[element{op.Key, op.List[others-1]}]
	if others < len(final) && last != i && c.writer[element{op.Key, final[others]}] == last {
		c.report("G1b", "T%d read list %d in the middle of T%d: %v", i, op.Key, last, op.List)
	}
}

// dependencies builds the edges between transactions.
func (c *checker) dependencies() {
	c.edges = make([][]edge, len(c.transactions))
	for key, list := range c.final {
		for at := 1; at < len(list); at++ {
			c.edge(c.writer[element{key, list[at-1]}], c.writer[element{key, list[at]}], writeWrite, key)
		}
	}
	for i := range c.transactions {
		if c.transactions[i].Outcome != Committed {
			continue
		}
		own := map[int]int{}
		for _, op := range c.transactions[i].Ops {
			if op.Append != 0 {
				own[op.Key]++
				continue
			}
			others, final := len(op.List)-own[op.Key], c.final[op.Key]
			if others > 0 {
				c.edge(c.writer[element{op.Key, final[others-1]}], i, writeRead, op.Key)
			}
			if next := others + own[op.Key]; next < len(final) {
				c.edge(i, c.writer[element{op.Key, final[next]}], readWrite, op.Key)
			}
		}
	}
}

func (c *checker) edge(from, to int, kind edgeKind, key int) {
	if from != to {
		c.edges[from] = append(c.edges[from], edge{to, kind, key})
	}
}

// cycles looks for each kind of cycle, the worst first; one of a kind for each edge that begins it.
func (c *checker) cycles() {
	for from := range c.edges {
		for _, e := range c.edges[from] {
			switch e.kind {
			case writeWrite:
				c.cycle("G0", from, e, func(k edgeKind) bool { return k == writeWrite })
			case writeRead:
				c.cycle("G1c", from, e, func(k edgeKind) bool { return k != readWrite })
			case readWrite:
				if c.transactions[from].Snapshot {
					c.cycle("G-single", from, e, func(k edgeKind) bool { return k != readWrite })
				}
			}
		}
	}
}

// cycle reports the shortest way back from an edge's end to its beginning over edges of the kinds allowed.
func (c *checker) cycle(kind string, from int, first edge, allowed func(edgeKind) bool) {
	type step struct {
		before int
		edge   edge
	}
	came := map[int]step{first.to: {from, first}}
	for queue := []int{first.to}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at == from {
			break
		}
		if kind == "G-single" && c.transactions[at].Alone {
			continue
		}
		for _, e := range c.edges[at] {
			if _, known := came[e.to]; !known && allowed(e.kind) {
				came[e.to] = step{at, e}
				queue = append(queue, e.to)
			}
		}
	}
	if _, closed := came[from]; !closed {
		return
	}
	detail := fmt.Sprintf("T%d", from)
	for at := from; ; {
		s := came[at]
		detail = fmt.Sprintf("T%d -%s(%d)-> %s", s.before, s.edge.kind, s.edge.key, detail)
		if at = s.before; at == from {
			break
		}
	}
	c.report(kind, "%s", detail)
}
