package console

import (
	"encoding/binary"
	"strconv"
	"time"

	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// The types of columns, by their OIDs in Postgres.
const (
	oidInt8 = 20
	oidInt4 = 23
	oidText = 25
)

// column is one column of a table.
type column struct {
	name string
	oid  uint32
}

// text, number and wide make columns of a type.
func text(names ...string) []column   { return columnsOf(oidText, names) }
func number(names ...string) []column { return columnsOf(oidInt4, names) }
func wide(names ...string) []column   { return columnsOf(oidInt8, names) }

func columnsOf(oid uint32, names []string) []column {
	list := make([]column, len(names))
	for i, name := range names {
		list[i] = column{name, oid}
	}
	return list
}

func join(lists ...[]column) []column {
	var all []column
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

// row has a value for each column: a string, an int64, or nil for NULL.
type row []any

func describe(columns []column, formats []int16) []wire.Column {
	list := make([]wire.Column, len(columns))
	for i, c := range columns {
		size := int16(-1)
		switch c.oid {
		case oidInt8:
			size = 8
		case oidInt4:
			size = 4
		}
		list[i] = wire.Column{Name: []byte(c.name), Type: c.oid, TypeSize: size, Typmod: -1, Format: wire.FormatAt(formats, i)}
	}
	return list
}

// appendRow appends a DataRow in the formats that the client asked for.
func appendRow(dst []byte, columns []column, formats []int16, r row) []byte {
	dst, at := wire.AppendDataRowStart(dst, len(columns))
	for i, c := range columns {
		dst = wire.AppendColumn(dst, encode(c, wire.FormatAt(formats, i), r[i]))
	}
	return wire.FinishRow(dst, at)
}

func encode(c column, format int16, value any) []byte {
	switch v := value.(type) {
	case string:
		return append([]byte{}, v...) // not nil, which would be NULL
	case int64:
		switch {
		case format == 0:
			return strconv.AppendInt(nil, v, 10)
		case c.oid == oidInt4:
			return binary.BigEndian.AppendUint32(nil, uint32(v))
		}
		return binary.BigEndian.AppendUint64(nil, uint64(v))
	}
	return nil
}

func checkFormats(formats []int16, columns int) error {
	if len(formats) > 1 && len(formats) != columns {
		return pgerr.Newf(pgerr.ProtocolViolation, "bind message has %d result formats but query has %d columns", len(formats), columns)
	}
	for _, f := range formats {
		if f != 0 && f != 1 {
			return pgerr.Newf("22023", "unsupported format code: %d", f)
		}
	}
	return nil
}

// moment is a time as PgBouncer writes it.
func moment(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

func micros(d time.Duration) int64 { return d.Microseconds() }

// seconds and rest split a wait as PgBouncer does: whole seconds, and the microseconds beyond them.
func seconds(d time.Duration) int64 { return int64(d / time.Second) }
func rest(d time.Duration) int64    { return (d % time.Second).Microseconds() }

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
