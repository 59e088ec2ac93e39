package lexer

// slotTable numbers the distinct literals of one statement. It is a hash table
// with open addressing whose entries carry the statement's stamp, so that
// clearing it costs nothing.
type slotTable struct {
	entries []slotEntry // length a power of two, at most half full
	stamp   uint32
	count   int
}

type slotEntry struct {
	stamp      uint32
	kind       LiteralKind
	value      uint64 // integers
	start, end int    // numbers and strings
	slot       int
	hash       uint64
}

func (t *slotTable) clear() {
	t.count = 0
	t.stamp++
	if t.stamp == 0 { // wrapped: entries of old statements would look new
		clear(t.entries)
		t.stamp = 1
	}
}

// slot returns the number of the literal of sql: that of an equal one, or the next.
func (t *slotTable) slot(sql string, literal Literal, value uint64) int {
	if 2*t.count >= len(t.entries) {
		t.grow()
	}
	text := sql[literal.Start:literal.End]
	isInteger := literal.Kind == LiteralInt4 || literal.Kind == LiteralInt8
	hash := value
	if !isInteger {
		hash = 14695981039346656037 // FNV-1a
		for i := 0; i < len(text); i++ {
			hash = (hash ^ uint64(text[i])) * 1099511628211
		}
	}
	hash = (hash ^ uint64(literal.Kind)) * 0x9E3779B97F4A7C15
	mask := uint64(len(t.entries) - 1)
	for i := hash >> 32 & mask; ; i = (i + 1) & mask {
		entry := &t.entries[i]
		if entry.stamp != t.stamp {
			*entry = slotEntry{stamp: t.stamp, kind: literal.Kind, value: value, start: literal.Start, end: literal.End, slot: t.count, hash: hash}
			t.count++
			return entry.slot
		}
		if entry.hash == hash && entry.kind == literal.Kind &&
			(isInteger && entry.value == value || !isInteger && sql[entry.start:entry.end] == text) {
			return entry.slot
		}
	}
}

func (t *slotTable) grow() {
	old := t.entries
	t.entries = make([]slotEntry, max(32, 2*len(old)))
	mask := uint64(len(t.entries) - 1)
	for _, entry := range old {
		if entry.stamp != t.stamp {
			continue
		}
		i := entry.hash >> 32 & mask
		for t.entries[i].stamp == t.stamp {
			i = (i + 1) & mask
		}
		t.entries[i] = entry
	}
}
