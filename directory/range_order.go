package directory

import (
	"encoding/binary"
	"sort"
	"strings"
)

// rangeOrder makes numbers of the first column's values, so that the lower bounds of a RANGE group are a list of numbers, in
// which one is found with fewer visits to memory than in the bounds themselves.
//
// Invariant: of two values the lower one never has the greater number. Equal numbers say nothing, unless tells says so.
type rangeOrder struct {
	columns  int
	integral bool
	common   string // what all texts among the bounds begin with
}

// maxShort is the greatest length that a text may have behind what is common, so that its number says all of it.
const maxShort = 7

// tells reports whether all keys with this number are equal.
func (o *rangeOrder) tells(number uint64, v *Value) bool {
	length := number & 0xff
	return o.columns == 1 && (o.integral || v.t != UUID && 0 < length && length <= maxShort+1)
}

// newRangeOrder gives an order and the numbers of the cells' lower bounds; nil for types that have none.
func newRangeOrder(key []KeyType, cells []cell) (rangeOrder, []uint64) {
	o := rangeOrder{columns: len(key), integral: key[0].integral()}
	switch {
	case key[0] == Numeric:
		return o, nil
	case !o.integral && key[0] != UUID:
		o.common = commonPrefix(cells)
	}
	lows := make([]uint64, len(cells))
	for i := range cells {
		switch from := &cells[i].from[0]; from.Kind {
		case Finite:
			lows[i] = o.number(&from.Value)
		case MaxValue:
			lows[i] = 1<<64 - 1
		case MinValue: // 0: no value has a lower number
		}
	}
	return o, lows
}

// commonPrefix is what the texts of all lower bounds begin with.
func commonPrefix(cells []cell) string {
	common, found := "", false
	for i := range cells {
		from := &cells[i].from[0]
		if from.Kind != Finite {
			continue
		}
		if text := from.Value.s; !found {
			common, found = text, true
		} else {
			n := 0
			for n < len(common) && n < len(text) && common[n] == text[n] {
				n++
			}
			common = common[:n]
		}
	}
	return common
}

// number is that of a value that is not NULL. That of a text has, behind its first bytes, their number: of texts that differ in nothing
// but zero bytes at their end the longer one is greater. 0 and the greatest number are of texts without what is common.
func (o *rangeOrder) number(v *Value) uint64 {
	switch {
	case v.t == UUID:
		return uint64(v.i)
	case v.t.integral():
		return uint64(v.i) ^ 1<<63
	}
	text, ok := strings.CutPrefix(v.s, o.common)
	if !ok {
		if v.s < o.common {
			return 0
		}
		return 1<<64 - 1
	}
	var first [8]byte
	copy(first[:maxShort], text)
	first[maxShort] = byte(min(len(text), maxShort+1) + 1)
	return binary.BigEndian.Uint64(first[:])
}

// search gives the positions, ascending, between which the numbers are that of the value: those below low are lower, those from high on greater.
func (o *rangeOrder) search(lows []uint64, v *Value) (low, high int) {
	number := o.number(v)
	low, high = 0, len(lows)
	for low < high {
		middle := int(uint(low+high) >> 1)
		if lows[middle] <= number {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if high == 0 || lows[high-1] != number || o.tells(number, v) {
		return high, high
	}
	return sort.Search(high, func(i int) bool { return lows[i] >= number }), high
}
