package directory

import (
	"fmt"
	"math/bits"
	"slices"
	"sort"
)

// groupIndex is what makes Locate and Prune fast. It is built once for a group
// and immutable.
//
// A cell is a first-level partition: of a group that is not composite, one
// partition; of a composite group, one Parent with its subpartitions; of a HASH
// group there is a single cell, the whole space, whose subpartitions are the
// partitions.
type groupIndex struct {
	names  map[string]int
	shards []ShardID
	cells  []cell

	// lows are the lower bounds of RANGE cells as far as [rangeOrder] can tell, in the order of the cells; nil where it cannot.
	lows  []uint64
	order rangeOrder
	// partOf is the partition of each cell, or -1: all of them in as few lines of memory as possible. Bit at of adjoining says that
	// cell at of RANGE ends where the next one begins.
	partOf    []int32
	adjoining []uint64

	list        map[uint64]int32 // LIST: KeyHash of a tuple → its first entry
	entries     []listEntry
	defaultCell int // LIST: position in cells, -1 without DEFAULT
}

// cell is a first-level partition. The cells of RANGE are in the order of their
// bounds, the others in the order of the partitions.
type cell struct {
	from, to []Bound // RANGE
	part     int     // the partition; -1 when the cell is cut by hash

	hashFrom []uint64 // ascending, covering the hash space
	parts    []int    // the partition of each hash interval
}

type listEntry struct {
	first Value // that of the tuple, without a further visit to memory
	tuple []Value
	cell  int32
	next  int32 // next entry with the same hash, or -1
}

// newGroupIndex indexes a group that has passed Check.
func newGroupIndex(g *Group) *groupIndex {
	x := &groupIndex{names: make(map[string]int, len(g.Partitions)), defaultCell: -1}
	seen := make(map[ShardID]bool)
	for i := range g.Partitions {
		p := &g.Partitions[i]
		x.names[p.Name] = i
		if !seen[p.Shard] {
			seen[p.Shard] = true
			x.shards = append(x.shards, p.Shard)
		}
	}
	slices.Sort(x.shards)
	x.buildCells(g)
	switch g.Method {
	case MethodRange:
		x.sortRanges(g)
	case MethodList:
		x.buildList(g)
	}
	x.partOf = make([]int32, len(x.cells))
	for i := range x.cells {
		x.partOf[i] = int32(x.cells[i].part)
	}
	return x
}

func (x *groupIndex) buildCells(g *Group) {
	if !g.Composite() && g.Method != MethodHash {
		x.cells = make([]cell, len(g.Partitions))
		for i := range g.Partitions {
			p := &g.Partitions[i]
			x.cells[i] = cell{from: p.From, to: p.To, part: i}
		}
		return
	}
	byParent := make(map[string]int)
	for i := range g.Partitions {
		p := &g.Partitions[i]
		at, ok := byParent[p.Parent]
		if !ok {
			at = len(x.cells)
			byParent[p.Parent] = at
			x.cells = append(x.cells, cell{from: p.From, to: p.To, part: -1})
		}
		x.cells[at].parts = append(x.cells[at].parts, i)
	}
	for i := range x.cells {
		c := &x.cells[i]
		sort.Slice(c.parts, func(a, b int) bool {
			return g.Partitions[c.parts[a]].HashFrom < g.Partitions[c.parts[b]].HashFrom
		})
		c.hashFrom = make([]uint64, len(c.parts))
		for j, part := range c.parts {
			c.hashFrom[j] = g.Partitions[part].HashFrom
		}
	}
}

func (x *groupIndex) sortRanges(g *Group) {
	slices.SortFunc(x.cells, func(a, b cell) int { return compareBounds(a.from, b.from) })
	x.adjoining = make([]uint64, len(x.cells)/64+1)
	for i := 1; i < len(x.cells); i++ {
		if compareBounds(x.cells[i-1].to, x.cells[i].from) == 0 {
			x.adjoining[(i-1)/64] |= 1 << ((i - 1) % 64)
		}
	}
	x.order, x.lows = newRangeOrder(g.Key, x.cells)
}

func (x *groupIndex) buildList(g *Group) {
	count := 0
	for i := range x.cells {
		count += len(g.Partitions[x.cells[i].first()].Values)
	}
	x.list = make(map[uint64]int32, count)
	x.entries = make([]listEntry, 0, count)
	for i := range x.cells {
		p := &g.Partitions[x.cells[i].first()]
		if p.Default {
			x.defaultCell = i
		}
		for _, tuple := range p.Values {
			entry := listEntry{first: tuple[0], tuple: tuple, cell: int32(i), next: -1}
			hash := KeyHash(tuple)
			if next, ok := x.list[hash]; ok {
				entry.next = next
			}
			x.list[hash] = int32(len(x.entries))
			x.entries = append(x.entries, entry)
		}
	}
}

// first gives a partition of the cell: all carry its first-level bounds.
func (c *cell) first() int {
	if c.part >= 0 {
		return c.part
	}
	return c.parts[0]
}

// Locate gives the partition that takes a row with this key (and, in a composite
// group, this subpartition key); ok is false when none does, where Postgres says
// 23514. It allocates nothing. Of a DIRECTORY group the map does not tell, and ok is always false: whoever may
// meet one uses [Entries.Locate].
//
// Invariant: key and sub have the lengths and families of the group's Key and
// SubKey, and were coerced to the columns' types. Other lengths or families are a
// bug of the caller, which would misplace rows: Locate panics.
func (g *Group) Locate(key, sub []Value) (part int, ok bool) {
	mustMatch(key, g.Key)
	mustMatch(sub, g.SubKey)
	x := g.index
	at := -1
	switch g.Method {
	case MethodHash:
		return x.cells[0].locateHash(KeyHash(key)), true
	case MethodRange:
		at = x.locateRange(key)
	case MethodList:
		at = x.locateList(key)
	case MethodDirectory: // its entries say
	}
	if at < 0 {
		return 0, false
	}
	if part := x.partOf[at]; part >= 0 {
		return int(part), true
	}
	return x.cells[at].locateHash(KeyHash(sub)), true
}

func mustMatch(vals []Value, types []KeyType) {
	if len(vals) != len(types) {
		panic(fmt.Sprintf("directory: locate with %d key columns of %d", len(vals), len(types)))
	}
	for i, t := range types {
		if vals[i].t != t && vals[i].t.Family() != t.Family() {
			panic(fmt.Sprintf("directory: locate with a value of %s for a key of %s", vals[i].t, t))
		}
	}
}

func (c *cell) locateHash(h uint64) int {
	// The last interval that starts at or below h. Invariant: the first starts at 0
	// and there is no gap, so that interval holds h.
	low, high := 0, len(c.hashFrom)
	// Intervals of one length, as they are made, need no search: h is where it is in proportion, or next to it.
	guess, _ := bits.Mul64(h, uint64(high))
	if at := int(guess); c.hashFrom[at] <= h {
		if low = at; at+2 < high && c.hashFrom[at+2] > h {
			high = at + 2
		}
	} else {
		if high = at; c.hashFrom[at-1] <= h {
			low = at - 1
		}
	}
	for high-low > 1 {
		middle := int(uint(low+high) >> 1)
		if c.hashFrom[middle] <= h {
			low = middle
		} else {
			high = middle
		}
	}
	return c.parts[low]
}

// locateRange gives the cell that holds the key, or -1: in a gap, or with a
// NULL, which no RANGE partition takes.
func (x *groupIndex) locateRange(key []Value) int {
	for i := range key {
		if key[i].null {
			return -1
		}
	}
	// The last cell that starts at or below the key.
	at := x.lastRangeFrom(key)
	if at < 0 || x.adjoining[at/64]>>(at%64)&1 == 0 && compareToBounds(key, x.cells[at].to) >= 0 {
		return -1
	}
	return at
}

// lastRangeFrom gives the last cell whose lower bound is at or below the key, or -1.
func (x *groupIndex) lastRangeFrom(key []Value) int {
	low, high := 0, len(x.cells)
	if x.lows != nil {
		// Between low and high are those of which the order cannot tell.
		low, high = x.order.search(x.lows, &key[0])
	}
	for low < high {
		middle := int(uint(low+high) >> 1)
		if compareToBounds(key, x.cells[middle].from) >= 0 {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low - 1
}

func (x *groupIndex) locateList(key []Value) int {
	if at, ok := x.listed(key); ok {
		return at
	}
	return x.defaultCell
}

// listed gives the cell that lists the key.
func (x *groupIndex) listed(key []Value) (int, bool) {
	at, ok := x.list[KeyHash(key)]
	for ok && at >= 0 {
		entry := &x.entries[at]
		if Compare(entry.first, key[0]) == 0 && compareTuples(entry.tuple[1:], key[1:]) == 0 {
			return int(entry.cell), true
		}
		at = entry.next
	}
	return 0, false
}

// compareBounds orders the bounds of RANGE partitions, lexicographically: the
// first column that is MINVALUE or MAXVALUE in both decides that they are equal.
func compareBounds(a, b []Bound) int {
	for i := range a {
		if a[i].Kind != b[i].Kind {
			return int(a[i].Kind) - int(b[i].Kind)
		}
		if a[i].Kind != Finite {
			return 0
		}
		if c := Compare(a[i].Value, b[i].Value); c != 0 {
			return c
		}
	}
	return 0
}

// compareToBounds compares a key without NULLs with a bound. A key is never equal
// to a bound with MINVALUE or MAXVALUE.
func compareToBounds(key []Value, bounds []Bound) int {
	for i := range key {
		switch bounds[i].Kind {
		case MinValue:
			return 1
		case MaxValue:
			return -1
		}
		if c := Compare(key[i], bounds[i].Value); c != 0 {
			return c
		}
	}
	return 0
}
