package copyrow

import (
	"bytes"
	"encoding/binary"
)

// FieldKind says what stands in a field.
type FieldKind uint8

// The kinds of fields.
const (
	Value      FieldKind = iota
	Null                 // NULL
	UseDefault           // the marker of the option DEFAULT
	Missing              // the row has no such field, or ends within it
)

// Field is one field of a row.
type Field struct {
	Kind FieldKind
	// Value is what the type's input function gets, or in the binary format its receive function.
	Value []byte
	// Offset is where Value stands in the row's Raw, in the binary format; in the others it is -1.
	Offset int
}

// Fields are the fields that a Reader looks for.
type Fields struct {
	o      Options
	wanted []int // ascending
	found  []Field
	text   []byte // of values that are not written as they are
}

// NewFields returns a reader of the fields with these numbers, from 0, ascending and each once.
func NewFields(o Options, wanted []int) *Fields {
	o.setDefaults()
	return &Fields{o: o, wanted: wanted, found: make([]Field, len(wanted))}
}

// Of finds the fields of a row, in the order of their numbers. They are valid until the next call, and as long as the row is.
func (f *Fields) Of(row *Row) []Field {
	for i := range f.found {
		f.found[i] = Field{Kind: Missing, Offset: -1}
	}
	f.text = f.text[:0]
	if len(f.wanted) == 0 {
		return f.found
	}
	switch f.o.Format {
	case Binary:
		f.binaryFields(row.Raw)
	case CSV:
		f.lineFields(row.Raw[:row.body], f.skipCSV, f.readCSV)
	default:
		f.lineFields(row.Raw[:row.body], f.skipText, f.readText)
	}
	return f.found
}

// lineFields walks over the fields of a line.
func (f *Fields) lineFields(line []byte, skip func([]byte, int) int, read func([]byte, int) (Field, int)) {
	at, next := 0, 0
	for number := 0; next < len(f.wanted); number++ {
		if number != f.wanted[next] {
			at = skip(line, at)
		} else {
			var field Field
			field, at = read(line, at)
			f.found[next] = f.forced(field, number)
			next++
		}
		if at > len(line) || at < 0 { // that was the last one
			return
		}
	}
}

// forced applies FORCE_NOT_NULL and FORCE_NULL.
func (f *Fields) forced(field Field, number int) Field {
	switch {
	case f.o.Format != CSV:
	case field.Kind == Null && number < len(f.o.ForceNotNull) && f.o.ForceNotNull[number]:
		return Field{Value: []byte(f.o.Null), Offset: -1}
	case field.Kind == Value && number < len(f.o.ForceNull) && f.o.ForceNull[number] && string(field.Value) == f.o.Null:
		return Field{Kind: Null, Offset: -1}
	}
	return field
}

// raw is the field written as the bytes given, not quoted.
func (f *Fields) raw(written []byte) (Field, bool) {
	switch {
	case string(written) == f.o.Null:
		return Field{Kind: Null, Offset: -1}, true
	case f.o.HasDefault && string(written) == f.o.Default:
		return Field{Kind: UseDefault, Offset: -1}, true
	}
	return Field{}, false
}

// skipText returns where the next field of text begins, more than the length of the line behind the last one.
func (f *Fields) skipText(line []byte, at int) int {
	d := bytes.IndexByte(line[at:], f.o.Delimiter)
	if d < 0 {
		return len(line) + 1
	}
	if bytes.IndexByte(line[at:at+d], '\\') < 0 {
		return at + d + 1
	}
	for at < len(line) {
		switch line[at] {
		case f.o.Delimiter:
			return at + 1
		case '\\':
			at++
		}
		at++
	}
	return len(line) + 1
}

// readText reads a field of text, as CopyReadAttributesText does.
func (f *Fields) readText(line []byte, start int) (Field, int) {
	end, next := len(line), len(line)+1
	if d := bytes.IndexByte(line[start:], f.o.Delimiter); d >= 0 {
		end, next = start+d, start+d+1
	}
	if bytes.IndexByte(line[start:end], '\\') < 0 {
		if field, ok := f.raw(line[start:end]); ok {
			return field, next
		}
		return Field{Value: line[start:end], Offset: -1}, next
	}
	from := len(f.text)
	at := start
	for end, next = len(line), len(line)+1; at < len(line); {
		c := line[at]
		if c == f.o.Delimiter {
			end, next = at, at+1
			break
		}
		at++
		if c == '\\' {
			if at == len(line) {
				end = at - 1
				break
			}
			c, at = unescape(line, at)
		}
		f.text = append(f.text, c)
	}
	if field, ok := f.raw(line[start:end]); ok {
		return field, next
	}
	return Field{Value: f.text[from:], Offset: -1}, next
}

// unescape reads what stands behind a backslash, at at; it returns the byte meant and where to go on.
func unescape(line []byte, at int) (c byte, next int) {
	c = line[at]
	at++
	switch c {
	case '0', '1', '2', '3', '4', '5', '6', '7':
		value := int(c - '0')
		for n := 0; n < 2 && at < len(line) && line[at] >= '0' && line[at] <= '7'; n++ {
			value = value<<3 + int(line[at]-'0')
			at++
		}
		return byte(value), at
	case 'x':
		value := 0
		n := 0
		for ; n < 2 && at < len(line); n++ {
			digit, ok := hexDigit(line[at])
			if !ok {
				break
			}
			value = value<<4 + digit
			at++
		}
		if n > 0 {
			return byte(value), at
		}
	case 'b':
		return '\b', at
	case 'f':
		return '\f', at
	case 'n':
		return '\n', at
	case 'r':
		return '\r', at
	case 't':
		return '\t', at
	case 'v':
		return '\v', at
	}
	return c, at
}

func hexDigit(c byte) (int, bool) {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0'), true
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10, true
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10, true
	}
	return 0, false
}

// skipCSV is skipText for CSV.
func (f *Fields) skipCSV(line []byte, at int) int {
	d := bytes.IndexByte(line[at:], f.o.Delimiter)
	if d < 0 {
		return len(line) + 1
	}
	if bytes.IndexByte(line[at:at+d], f.o.Quote) < 0 {
		return at + d + 1
	}
	kept := len(f.text)
	_, next := f.readCSV(line, at)
	f.text = f.text[:kept]
	return next
}

// readCSV reads a field of CSV, as CopyReadAttributesCSV does. The place to go on is negative within quotes that do not end.
func (f *Fields) readCSV(line []byte, start int) (Field, int) {
	end, next := len(line), len(line)+1
	if d := bytes.IndexByte(line[start:], f.o.Delimiter); d >= 0 {
		end, next = start+d, start+d+1
	}
	if bytes.IndexByte(line[start:end], f.o.Quote) < 0 {
		if field, ok := f.raw(line[start:end]); ok {
			return field, next
		}
		return Field{Value: line[start:end], Offset: -1}, next
	}
	from := len(f.text)
	quoted := false
	for at := start; ; {
		if !quoted {
			if at == len(line) {
				return Field{Value: f.text[from:], Offset: -1}, len(line) + 1
			}
			c := line[at]
			at++
			switch c {
			case f.o.Delimiter:
				return Field{Value: f.text[from:], Offset: -1}, at
			case f.o.Quote:
				quoted = true
			default:
				f.text = append(f.text, c)
			}
			continue
		}
		if at == len(line) {
			return Field{Kind: Missing, Offset: -1}, -1
		}
		c := line[at]
		at++
		if c == f.o.Escape && at < len(line) && (line[at] == f.o.Escape || line[at] == f.o.Quote) {
			f.text = append(f.text, line[at])
			at++
			continue
		}
		if c == f.o.Quote {
			quoted = false
			continue
		}
		f.text = append(f.text, c)
	}
}

// binaryFields finds the fields of a row that has been measured.
func (f *Fields) binaryFields(raw []byte) {
	at, next := 2, 0
	for number := 0; next < len(f.wanted) && at+4 <= len(raw); number++ {
		n := int32(binary.BigEndian.Uint32(raw[at:]))
		at += 4
		field := Field{Kind: Null, Offset: -1}
		if n >= 0 {
			field = Field{Value: raw[at : at+int(n) : at+int(n)], Offset: at}
			at += int(n)
		}
		if number == f.wanted[next] {
			f.found[next] = field
			next++
		}
	}
}
