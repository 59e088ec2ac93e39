package merge

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Source is one sorted stream of rows. Next returns the body of a DataRow, valid until the next call; ok is false at the end.
type Source interface {
	Next() (row []byte, ok bool, err error)
}

// Key is one expression of the ORDER BY, as a column of the rows.
type Key struct {
	Column     int    // from 0
	Type       uint32 // OID
	Format     int16  // 0 text, 1 binary
	Desc       bool
	NullsFirst bool // Postgres's default is true for DESC, false for ASC; the caller has resolved it
}

// Merger merges sorted sources into one sorted stream; rows that compare equal come in the order of their sources. It
// belongs to one goroutine at a time.
//
// It is a tree of losers (Knuth, The Art of Computer Programming 3, 5.4.1): each inner node keeps the source that lost
// the match there, so the next row costs one comparison for each level.
type Merger struct {
	sources  []Source
	keys     []Key
	decoders []decoder
	heads    []head
	losers   []int // losers[0] is the winner
	columns  int   // the highest column that is a key, and one
	started  bool
	err      error
}

// head is the current row of one source.
type head struct {
	row    []byte
	values []value // of the keys
	done   bool
}

// New returns the merger of sources that are sorted by keys. It fails for keys that are not mergeable; strings are taken to
// be sorted under the C collation.
func New(sources []Source, keys []Key) (*Merger, error) {
	m := &Merger{
		sources: sources, keys: keys, decoders: make([]decoder, len(keys)),
		heads: make([]head, len(sources)), losers: make([]int, len(sources)),
	}
	for i, k := range keys {
		d, ok := decoderOf(k.Type, k.Format)
		if !ok || k.Column < 0 {
			return nil, fmt.Errorf("merge: cannot compare column %d of type %d in format %d", k.Column, k.Type, k.Format)
		}
		m.decoders[i] = d
		m.columns = max(m.columns, k.Column+1)
	}
	for i := range m.heads {
		m.heads[i].values = make([]value, len(keys))
	}
	return m, nil
}

// Next returns the next row, valid until the next call. After an error or the end every call returns the same.
func (m *Merger) Next() (row []byte, ok bool, err error) {
	if m.err != nil {
		return nil, false, m.err
	}
	if m.err = m.advance(); m.err != nil {
		return nil, false, m.err
	}
	if len(m.sources) == 0 || m.heads[m.losers[0]].done {
		return nil, false, nil
	}
	return m.heads[m.losers[0]].row, true, nil
}

// advance replaces the row that was returned last and finds the new winner.
func (m *Merger) advance() error {
	if !m.started {
		m.started = true
		for i := range m.sources {
			if err := m.pull(i); err != nil {
				return err
			}
		}
		m.build()
		return nil
	}
	if len(m.sources) == 0 {
		return nil
	}
	winner := m.losers[0]
	if m.heads[winner].done {
		return nil
	}
	if err := m.pull(winner); err != nil {
		return err
	}
	for node := (winner + len(m.sources)) / 2; node > 0; node /= 2 {
		if m.before(m.losers[node], winner) {
			m.losers[node], winner = winner, m.losers[node]
		}
	}
	m.losers[0] = winner
	return nil
}

// build plays all matches: leaf i is node n+i, inner nodes are 1 to n-1.
func (m *Merger) build() {
	n := len(m.sources)
	if n == 0 {
		return
	}
	winners := make([]int, 2*n)
	for i := range n {
		winners[n+i] = i
	}
	for node := n - 1; node > 0; node-- {
		a, b := winners[2*node], winners[2*node+1]
		if m.before(b, a) {
			a, b = b, a
		}
		winners[node], m.losers[node] = a, b
	}
	m.losers[0] = winners[1] // for a single source that is leaf 0
}

// before reports whether the head of source a comes before that of b. Sources at their end come last.
func (m *Merger) before(a, b int) bool {
	x, y := &m.heads[a], &m.heads[b]
	if x.done || y.done {
		return !x.done || y.done && a < b
	}
	for i := range m.keys {
		if c := m.compare(i, &x.values[i], &y.values[i]); c != 0 {
			return c < 0
		}
	}
	return a < b
}

func (m *Merger) compare(key int, a, b *value) int {
	k := &m.keys[key]
	switch {
	case a.null && b.null:
		return 0
	case a.null != b.null:
		if a.null == k.NullsFirst {
			return -1
		}
		return 1
	}
	c := m.decoders[key].compare(a, b)
	if k.Desc {
		return -c
	}
	return c
}

var errMalformedRow = errors.New("merge: malformed row")

// pull takes the next row of a source and decodes its keys.
func (m *Merger) pull(source int) error {
	h := &m.heads[source]
	row, ok, err := m.sources[source].Next()
	if err != nil {
		return err
	}
	if !ok {
		h.row, h.done = nil, true
		return nil
	}
	h.row = row
	if len(row) < 2 || int(binary.BigEndian.Uint16(row)) < m.columns {
		return errMalformedRow
	}
	rest := row[2:]
	for column := range m.columns {
		if len(rest) < 4 {
			return errMalformedRow
		}
		size := int(int32(binary.BigEndian.Uint32(rest)))
		rest = rest[4:]
		null := size == -1
		if null {
			size = 0
		}
		if size < 0 || size > len(rest) {
			return errMalformedRow
		}
		if err := m.setKeys(h, column, rest[:size], null); err != nil {
			return err
		}
		rest = rest[size:]
	}
	return nil
}

// setKeys decodes a column into each key that it is.
func (m *Merger) setKeys(h *head, column int, wire []byte, null bool) error {
	for i := range m.keys {
		if m.keys[i].Column != column {
			continue
		}
		v := &h.values[i]
		v.null = null
		if null {
			continue
		}
		if err := m.decoders[i].decode(v, wire); err != nil {
			return err
		}
	}
	return nil
}
