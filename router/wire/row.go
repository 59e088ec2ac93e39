package wire

import "encoding/binary"

// Row iterates over the columns of a DataRow without copying.
type Row struct {
	c    cursor
	left int
}

// NewRow starts at the first column of a DataRow's body.
func NewRow(body []byte) Row {
	r := Row{c: cursor{rest: body}}
	r.left = r.c.count(4)
	return r
}

// Len returns the number of columns not yet returned.
func (r *Row) Len() int { return r.left }

// Next returns the next column; nil is NULL. ok is false behind the last column and where the row is malformed.
func (r *Row) Next() (value []byte, ok bool) {
	if r.left == 0 || r.c.bad {
		return nil, false
	}
	r.left--
	value = r.c.value()
	return value, !r.c.bad
}

// Err reports, behind the last column, a row that was malformed.
func (r *Row) Err() error { return r.c.end() }

// AppendDataRow appends a DataRow; a nil value is NULL.
func AppendDataRow(dst []byte, values [][]byte) []byte {
	dst, at := begin(dst, TypeDataRow)
	dst = appendInt16(dst, len(values))
	for _, v := range values {
		dst = appendValue(dst, v)
	}
	return finish(dst, at)
}

// AppendDataRowStart begins a DataRow of the number of columns given; AppendColumn follows for each of them, then
// FinishRow with the offset returned.
func AppendDataRowStart(dst []byte, columns int) (_ []byte, at int) {
	dst, at = begin(dst, TypeDataRow)
	return appendInt16(dst, columns), at
}

// AppendColumn appends one column's value; nil is NULL.
func AppendColumn(dst, value []byte) []byte { return appendValue(dst, value) }

// FinishRow sets the length of the row that begins at offset at.
func FinishRow(dst []byte, at int) []byte { return finish(dst, at) }

// AppendDataRowTrimmed appends the row without its last hidden columns.
func AppendDataRowTrimmed(dst, body []byte, hidden int) ([]byte, error) {
	if len(body) < 2 {
		return dst, malformed("insufficient data left in data row message")
	}
	columns := int(binary.BigEndian.Uint16(body)) - hidden
	if columns < 0 || hidden < 0 {
		return dst, malformed("cannot hide %d columns of a row that has %d", hidden, columns+hidden)
	}
	c := cursor{rest: body[2:]}
	for range columns {
		c.value()
	}
	if c.bad {
		return dst, malformed("insufficient data left in data row message")
	}
	kept := body[2 : len(body)-len(c.rest)]
	dst, at := begin(dst, TypeDataRow)
	dst = appendInt16(dst, columns)
	dst = append(dst, kept...)
	return finish(dst, at), nil
}
