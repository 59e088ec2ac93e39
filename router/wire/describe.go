package wire

import "encoding/binary"

// Column describes one column of a result. Name views the frame when it was decoded.
type Column struct {
	Name     []byte
	Table    uint32 // OID of the table, 0: not a table's column
	Attr     int16  // attribute number in the table
	Type     uint32
	TypeSize int16
	Typmod   int32
	Format   int16 // 0 text, 1 binary; 0 when a statement (not a portal) was described
	at       int   // offset of the fixed part in the body
}

// fixedColumnSize is the size of a column's description behind its name.
const fixedColumnSize = 18

// DecodeRowDescription appends the columns of a RowDescription to dst.
func DecodeRowDescription(dst []Column, body []byte) ([]Column, error) {
	c := cursor{rest: body}
	for range c.count(1 + fixedColumnSize) {
		name := c.string()
		at := len(body) - len(c.rest)
		dst = append(dst, Column{
			Name: name, Table: c.uint32(), Attr: c.int16(), Type: c.uint32(), TypeSize: c.int16(),
			Typmod: c.int32(), Format: c.int16(), at: at,
		})
	}
	return dst, c.end()
}

// SetType writes another type OID into the body that col was decoded from.
func (col *Column) SetType(body []byte, oid uint32) {
	col.Type = oid
	binary.BigEndian.PutUint32(body[col.at+6:], oid)
}

// SetTable writes another table OID into the body that col was decoded from.
func (col *Column) SetTable(body []byte, oid uint32) {
	col.Table = oid
	binary.BigEndian.PutUint32(body[col.at:], oid)
}

// SetFormat writes another format into the body that col was decoded from.
func (col *Column) SetFormat(body []byte, format int16) {
	col.Format = format
	binary.BigEndian.PutUint16(body[col.at+16:], uint16(format))
}

// AppendRowDescription appends a RowDescription.
func AppendRowDescription(dst []byte, columns []Column) []byte {
	dst, at := begin(dst, TypeRowDescription)
	dst = appendInt16(dst, len(columns))
	for i := range columns {
		col := &columns[i]
		dst = append(dst, col.Name...)
		dst = append(dst, 0)
		dst = appendUint32(dst, col.Table)
		dst = appendInt16(dst, int(col.Attr))
		dst = appendUint32(dst, col.Type)
		dst = appendInt16(dst, int(col.TypeSize))
		dst = appendUint32(dst, uint32(col.Typmod))
		dst = appendInt16(dst, int(col.Format))
	}
	return finish(dst, at)
}

// DecodeParameterDescription appends the type OIDs of a ParameterDescription to dst. Of the number of a statement's parameters that
// can be prepared, though not executed, the message holds the lower 16 bits only.
func DecodeParameterDescription(dst []uint32, body []byte) ([]uint32, error) {
	c := cursor{rest: body}
	count, n := uint16(c.int16()), len(c.rest)/4
	c.bad = c.bad || uint16(n) != count
	for i := 0; i < n && !c.bad; i++ {
		dst = append(dst, c.uint32())
	}
	return dst, c.end()
}

// SetParameterType writes another type OID for parameter i into the body of a valid ParameterDescription.
func SetParameterType(body []byte, i int, oid uint32) {
	binary.BigEndian.PutUint32(body[2+4*i:], oid)
}

// AppendParameterDescription appends a ParameterDescription.
func AppendParameterDescription(dst []byte, types []uint32) []byte {
	dst, at := begin(dst, TypeParameterDescription)
	dst = appendInt16(dst, len(types))
	for _, t := range types {
		dst = appendUint32(dst, t)
	}
	return finish(dst, at)
}
