package planner

import (
	"encoding/binary"
	"errors"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/lexer"
)

// The ways in which a value can fail to be known, besides those of package directory.
var (
	// errNever: no value of the column equals it.
	errNever = errors.New("value equals no value of the column")
	// errMissing: the statement names a parameter that was not bound.
	errMissing = errors.New("parameter is not bound")
)

// readText reads a text as a type. All integers are read as int8: which of the widths it is does not
// matter for comparison, and storing checks the range.
func readText(t directory.KeyType, text string) (directory.Value, error) {
	if t.Family() == directory.FamilyInteger {
		t = directory.Int8
	}
	return directory.ParseText(t, text)
}

// readBinary reads a binary value as a type; the width of an integer is that of the bytes.
func readBinary(t directory.KeyType, wire []byte) (directory.Value, error) {
	if t.Family() == directory.FamilyInteger {
		switch len(wire) {
		case 2:
			t = directory.Int2
		case 4:
			t = directory.Int4
		case 8:
			t = directory.Int8
		}
	}
	return directory.ParseBinary(t, wire)
}

// scalar reads the value that a reference (not one to an array) names.
func (r *ValueRef) scalar(a *Args) (directory.Value, error) {
	switch {
	case r.Null:
		return directory.Null(r.Type), nil
	case r.Kind == RefConst && r.Invalid:
		return directory.Value{}, directory.ErrInvalid
	case r.Kind == RefConst && r.Unsure:
		return directory.Value{}, directory.ErrUncertain
	case r.Kind == RefConst:
		return r.Const, nil
	case r.Kind == RefLiteral:
		return r.literal(a)
	case r.Kind == RefSupplied:
		return r.supplied(a)
	}
	return r.param(a)
}

func (r *ValueRef) literal(a *Args) (directory.Value, error) {
	sql, lit, err := a.literal(r.Literal)
	if err != nil {
		return directory.Value{}, err
	}
	if lit.Kind != lexer.LiteralString {
		text := sql[lit.Start:lit.End]
		if r.Negative {
			text = "-" + text
		}
		return readText(r.Type, text)
	}
	text, ok := lexer.StringValue(sql, lit)
	if !ok || r.Negative {
		return directory.Value{}, directory.ErrUncertain
	}
	return a.known(readText(r.Type, text))
}

// known turns a text that may be in another encoding into an uncertain one.
func (a *Args) known(v directory.Value, err error) (directory.Value, error) {
	if err == nil && a.Transcoded && v.Type().Family() == directory.FamilyText && !isASCII(v.Text()) {
		return directory.Value{}, directory.ErrUncertain
	}
	return v, err
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func (a *Args) literal(ordinal int) (string, lexer.Literal, error) {
	st := a.Statement
	if st == nil {
		return "", lexer.Literal{}, directory.ErrUncertain
	}
	if !st.normalised {
		var n lexer.Normaliser
		if err := n.Normalise(st.Text); err != nil {
			return "", lexer.Literal{}, directory.ErrUncertain
		}
		st.literals, st.normalised = n.Literals, true
	}
	if ordinal >= len(st.literals) {
		return "", lexer.Literal{}, directory.ErrUncertain
	}
	return st.Text, st.literals[ordinal], nil
}

// bytes returns a bound parameter; null is true for NULL.
func (a *Args) bytes(number int) (wire []byte, isBinary, null bool, err error) {
	if number < 1 || number > len(a.Params) {
		return nil, false, false, errMissing
	}
	switch len(a.Formats) {
	case 0:
	case 1:
		isBinary = a.Formats[0] == 1
	default:
		if number > len(a.Formats) {
			return nil, false, false, errMissing
		}
		isBinary = a.Formats[number-1] == 1
	}
	wire = a.Params[number-1]
	return wire, isBinary, wire == nil, nil
}

// paramType is the type that a parameter is read as; ErrUncertain if it is not certain.
func (r *ValueRef) paramType(a *Args, oid uint32) (directory.KeyType, error) {
	if !r.Inferred {
		return r.Type, nil
	}
	if oid == 0 {
		if r.Unsure {
			return 0, directory.ErrUncertain
		}
		return r.Type, nil
	}
	t, ok := directory.KeyTypeOf(oid)
	if !ok || t.Family() != r.Type.Family() {
		return 0, directory.ErrUncertain
	}
	return t, nil
}

func (a *Args) typeOf(number int) uint32 {
	if number < 1 || number > len(a.Types) {
		return 0
	}
	return a.Types[number-1]
}

func (r *ValueRef) param(a *Args) (directory.Value, error) {
	wire, isBinary, null, err := a.bytes(r.Param)
	if err != nil {
		return directory.Value{}, err
	}
	if null {
		return directory.Null(r.Type), nil
	}
	t, err := r.paramType(a, a.typeOf(r.Param))
	if err != nil {
		return directory.Value{}, err
	}
	if isBinary {
		return a.known(readBinary(t, wire))
	}
	return a.known(readText(t, string(wire)))
}

// elements appends the values that a reference names: one, or those of an array.
func (r *ValueRef) elements(a *Args, into []directory.Value) ([]directory.Value, error) {
	if !r.Array {
		v, err := r.scalar(a)
		if err != nil {
			return nil, err
		}
		return append(into, v), nil
	}
	if r.Kind == RefLiteral {
		sql, lit, err := a.literal(r.Literal)
		if err != nil {
			return nil, err
		}
		text, ok := lexer.StringValue(sql, lit)
		if !ok {
			return nil, directory.ErrUncertain
		}
		return a.arrayText(r.Type, text, into)
	}
	wire, isBinary, null, err := a.bytes(r.Param)
	switch {
	case err != nil:
		return nil, err
	case null:
		return into, nil
	case r.Unsure:
		return nil, directory.ErrUncertain
	case isBinary:
		return a.arrayBinary(r.Type, wire, into)
	}
	return a.arrayText(r.Type, string(wire), into)
}

func (a *Args) arrayText(t directory.KeyType, text string, into []directory.Value) ([]directory.Value, error) {
	elements, ok := splitArray(text)
	if !ok {
		return nil, directory.ErrUncertain
	}
	for _, e := range elements {
		if e.null {
			into = append(into, directory.Null(t))
			continue
		}
		v, err := a.known(readText(t, e.text))
		if err != nil {
			return nil, err
		}
		into = append(into, v)
	}
	return into, nil
}

// arrayBinary reads the binary form of an array (array_recv).
func (a *Args) arrayBinary(t directory.KeyType, wire []byte, into []directory.Value) ([]directory.Value, error) {
	if len(wire) < 12 {
		return nil, directory.ErrInvalid
	}
	dimensions := binary.BigEndian.Uint32(wire)
	element, ok := directory.KeyTypeOf(binary.BigEndian.Uint32(wire[8:]))
	if !ok || element.Family() != t.Family() {
		return nil, directory.ErrUncertain
	}
	if dimensions > 6 || len(wire) < 12+8*int(dimensions) {
		return nil, directory.ErrInvalid
	}
	rest := wire[12+8*dimensions:]
	for len(rest) >= 4 {
		n := int32(binary.BigEndian.Uint32(rest))
		rest = rest[4:]
		if n == -1 {
			into = append(into, directory.Null(t))
			continue
		}
		if n < 0 || int(n) > len(rest) {
			return nil, directory.ErrInvalid
		}
		v, err := a.known(readBinary(element, rest[:n]))
		if err != nil {
			return nil, err
		}
		into, rest = append(into, v), rest[n:]
	}
	if len(rest) > 0 {
		return nil, directory.ErrInvalid
	}
	return into, nil
}

type arrayElement struct {
	text string
	null bool
}

// splitArray reads the text form of a one-dimensional array; ok is false for any other.
func splitArray(text string) (elements []arrayElement, ok bool) {
	text = strings.Trim(text, " \t\n\r\v\f")
	if len(text) < 2 || text[0] != '{' || text[len(text)-1] != '}' {
		return nil, false
	}
	body := text[1 : len(text)-1]
	if strings.Trim(body, " \t\n\r\v\f") == "" {
		return nil, true
	}
	for {
		element, rest, ok := nextElement(body)
		if !ok {
			return nil, false
		}
		elements = append(elements, element)
		if rest == "" {
			return elements, true
		}
		if rest[0] != ',' {
			return nil, false
		}
		body = rest[1:]
	}
}

func nextElement(body string) (element arrayElement, rest string, ok bool) {
	body = strings.TrimLeft(body, " \t\n\r\v\f")
	if body == "" {
		return arrayElement{}, "", false
	}
	if body[0] != '"' {
		end := strings.IndexByte(body, ',')
		if end < 0 {
			end = len(body)
		}
		word := strings.TrimRight(body[:end], " \t\n\r\v\f")
		if word == "" || strings.ContainsAny(word, `{}"\`) {
			return arrayElement{}, "", false
		}
		return arrayElement{text: word, null: strings.EqualFold(word, "null")}, body[end:], true
	}
	var b strings.Builder
	for i := 1; i < len(body); i++ {
		switch body[i] {
		case '\\':
			i++
			if i == len(body) {
				return arrayElement{}, "", false
			}
			b.WriteByte(body[i])
		case '"':
			return arrayElement{text: b.String()}, strings.TrimLeft(body[i+1:], " \t\n\r\v\f"), true
		default:
			b.WriteByte(body[i])
		}
	}
	return arrayElement{}, "", false
}

// compared converts a value to be compared with a key column. errNever: nothing in the column equals
// it (as a bound it says nothing).
func (c *KeyColumn) compared(v directory.Value) (directory.Value, error) {
	mine, theirs := c.Type.Family(), v.Type().Family()
	switch {
	case v.IsNull(), mine == theirs:
		return v, nil
	case mine == directory.FamilyInteger && theirs == directory.FamilyNumeric:
		whole, err := directory.Coerce(v, directory.Int8, -1)
		if errors.Is(err, directory.ErrOutOfRange) {
			return directory.Value{}, errNever
		}
		if err != nil {
			return directory.Value{}, directory.ErrUncertain
		}
		back, err := directory.Coerce(whole, directory.Numeric, -1)
		if err != nil {
			return directory.Value{}, directory.ErrUncertain
		}
		if directory.Compare(back, v) != 0 {
			return directory.Value{}, errNever
		}
		return whole, nil
	case mine == directory.FamilyNumeric && theirs == directory.FamilyInteger:
		return directory.Coerce(v, directory.Numeric, -1)
	}
	return directory.Value{}, directory.ErrUncertain
}

// stored converts a value to be stored in a key column.
func (c *KeyColumn) stored(v directory.Value) (directory.Value, error) {
	if v.IsNull() {
		return directory.Null(c.Type), nil
	}
	return directory.Coerce(v, c.Type, c.Typmod)
}

func (r *ValueRef) supplied(a *Args) (directory.Value, error) {
	if r.Param >= len(a.Supplied) {
		return directory.Value{}, errMissing
	}
	if a.Supplied[r.Param] == nil {
		return directory.Null(r.Type), nil
	}
	return readBinary(r.Type, a.Supplied[r.Param])
}

// text is the text of a string literal or of a parameter in text format; ok is false for anything else.
func (r *ValueRef) text(a *Args) (text string, ok bool) {
	if r.Kind == RefLiteral {
		sql, lit, err := a.literal(r.Literal)
		if err != nil || lit.Kind != lexer.LiteralString {
			return "", false
		}
		return lexer.StringValue(sql, lit)
	}
	wire, isBinary, null, err := a.bytes(r.Param)
	return string(wire), err == nil && !isBinary && !null
}
