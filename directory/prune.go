package directory

import "slices"

// Constraint is what a statement says about one key column; all that is set
// holds at once. The zero Constraint says nothing, and then NULL matches too;
// otherwise it does not, as in SQL.
type Constraint struct {
	Values         []Value // = or IN: the column equals one of these; nil: no constraint; empty: no row
	Lo, Hi         *Value  // lower and upper bound, or nil
	LoOpen, HiOpen bool    // the bound itself is excluded
}

// maxCombinations bounds how many keys Prune makes of lists of values; beyond it
// gives more partitions than needed.
const maxCombinations = 10_000

// maxEnumerated is the longest range of whole numbers that Prune takes as a list
// of values, so that hashes can be made of them.
const maxEnumerated = 64

// Prune gives the positions of the partitions that may hold rows matching the
// constraints of the key's and the subpartition key's columns, ascending. A
// missing constraint (the slices may be shorter than the key, or nil) and one whose
// values are not of the column's family says nothing.
//
// It never leaves out a partition that holds a matching row. It is exact for
// lists; for ranges up to gaps between neighbouring values of types that are not
// whole numbers; by hash when each column of the key has values, at most 10,000
// combinations of them, else it gives all. Of a DIRECTORY group it gives all; see [Entries.Prune].
func (g *Group) Prune(key, sub []Constraint) []int {
	keySet := newKeySet(g.Key, key)
	subSet := newKeySet(g.SubKey, sub)
	if keySet.empty() || subSet.empty() {
		return nil
	}
	x := g.index
	var cells []int
	switch g.Method {
	case MethodHash:
		return x.cells[0].pruneHash(keySet)
	case MethodRange:
		cells = x.pruneRange(keySet)
	case MethodList:
		cells = x.pruneList(keySet)
	case MethodDirectory:
		for i := range g.Partitions {
			cells = append(cells, i)
		}
	default:
		// Invariant: Check lets no other method pass.
		panic("directory: prune of a group by " + string(g.Method))
	}
	var parts []int
	hashes, few := []uint64(nil), false
	if g.Composite() {
		hashes, few = subSet.hashes()
	}
	for _, at := range cells {
		switch c := &x.cells[at]; {
		case c.part >= 0:
			parts = append(parts, c.part)
		case few:
			parts = append(parts, c.locateHashes(hashes)...)
		default:
			parts = append(parts, c.parts...)
		}
	}
	slices.Sort(parts)
	return parts
}

// pruneHash gives the partitions of the cell that the keys of a set hash to, ascending.
func (c *cell) pruneHash(keys keySet) []int {
	var parts []int
	if hashes, few := keys.hashes(); few {
		parts = c.locateHashes(hashes)
	} else {
		parts = slices.Clone(c.parts)
	}
	slices.Sort(parts)
	return parts
}

// locateHashes gives the partitions of hashes, without duplicates.
func (c *cell) locateHashes(hashes []uint64) []int {
	parts := make([]int, len(hashes))
	for i, h := range hashes {
		parts[i] = c.locateHash(h)
	}
	slices.Sort(parts)
	return slices.Compact(parts)
}

func (x *groupIndex) pruneRange(keys keySet) []int {
	var cells []int
	if len(keys) == 1 && keys[0].values != nil {
		for i := range keys[0].values {
			// No NULL is among the values.
			if at := x.lastRangeFrom(keys[0].values[i : i+1]); at >= 0 &&
				compareToBounds(keys[0].values[i:i+1], x.cells[at].to) < 0 {
				cells = append(cells, at)
			}
		}
		return slices.Compact(cells) // the values are sorted
	}
	first, last := x.rangeWindow(&keys[0])
	for at := first; at < last; at++ {
		if keys.meets(x.cells[at].from, x.cells[at].to) {
			cells = append(cells, at)
		}
	}
	return cells
}

// rangeWindow gives the cells first..last-1 that the least and the greatest value
// of the first column leave.
func (x *groupIndex) rangeWindow(column *columnSet) (first, last int) {
	first, last = 0, len(x.cells)
	if least, ok := column.least(); ok {
		// Ranges that end below the value, also with MAXVALUE behind it.
		first = searchCells(len(x.cells), func(at int) bool {
			to := x.cells[at].to[0]
			return to.Kind == MaxValue || to.Kind == Finite && Compare(to.Value, least) >= 0
		})
	}
	if greatest, ok := column.greatest(); ok {
		last = searchCells(len(x.cells), func(at int) bool {
			from := x.cells[at].from[0]
			return from.Kind == MaxValue || from.Kind == Finite && Compare(from.Value, greatest) > 0
		})
	}
	return first, last
}

// searchCells gives the first of n positions at which found is true; it is false
// before and true behind.
func searchCells(n int, found func(int) bool) int {
	low, high := 0, n
	for low < high {
		middle := int(uint(low+high) >> 1)
		if found(middle) {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low
}

// pruneList gives the cells that list a key of the set, and the DEFAULT when a key
// of the set is not listed.
func (x *groupIndex) pruneList(keys keySet) []int {
	var cells []int
	unlisted := true
	if combinations := keys.combinations(); combinations != nil {
		unlisted = false
		for _, key := range combinations {
			if at, ok := x.listed(key); ok {
				cells = append(cells, at)
			} else {
				unlisted = true
			}
		}
	} else {
		for i := range x.entries {
			if entry := &x.entries[i]; keys.contains(entry.tuple) {
				cells = append(cells, int(entry.cell))
			}
		}
	}
	if unlisted && x.defaultCell >= 0 {
		cells = append(cells, x.defaultCell)
	}
	slices.Sort(cells)
	return slices.Compact(cells)
}
