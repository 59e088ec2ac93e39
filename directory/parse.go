package directory

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// ParseText reads the text form of a value as Postgres's input function does,
// provided that the value is the same whatever the settings and the version of
// the server are. It gives ErrUncertain for text that may mean something but not
// always the same (dates that are not ISO, 'today', a timestamptz without an
// offset, '0x10', '1_000'), and ErrInvalid for what every server refuses. Text is
// expected in UTF-8.
func ParseText(t KeyType, s string) (Value, error) {
	var v Value
	var err error
	switch t {
	case Int2, Int4, Int8:
		v, err = parseInt(t, s)
	case Text, Varchar:
		v, err = parseString(t, s)
	case UUID:
		v, err = parseUUID(s)
	case Date:
		v, err = parseDate(s)
	case Timestamp, Timestamptz:
		v, err = parseTimestamp(t, s)
	case Numeric:
		v, err = parseNumeric(s)
	case Bytea:
		v, err = parseBytea(s)
	case Bool:
		v, err = parseBool(s)
	default:
		err = ErrInvalid
	}
	if err != nil {
		return Value{}, fmt.Errorf("read %s: %w", t, err)
	}
	return v, nil
}

// ParseBinary reads the binary form of a value as Postgres's receive function
// does. It gives ErrInvalid for bytes that a server refuses. The value keeps
// nothing of wire.
func ParseBinary(t KeyType, wire []byte) (Value, error) {
	var v Value
	var err error
	switch t {
	case Int2, Int4, Int8:
		v, err = receiveInt(t, wire)
	case Text, Varchar:
		v, err = parseString(t, string(wire))
	case UUID:
		v, err = receiveUUID(wire)
	case Date:
		v, err = receiveDate(wire)
	case Timestamp, Timestamptz:
		v, err = receiveTimestamp(t, wire)
	case Numeric:
		v, err = receiveNumeric(wire)
	case Bytea:
		v = Value{t: t, s: string(wire)}
	case Bool:
		if len(wire) != 1 {
			err = ErrInvalid
			break
		}
		v = boolValue(wire[0] != 0)
	default:
		err = ErrInvalid
	}
	if err != nil {
		return Value{}, fmt.Errorf("read binary %s: %w", t, err)
	}
	return v, nil
}

// isSpace is C's isspace in the C locale, which Postgres's input functions use.
func isSpace(c byte) bool { return c == ' ' || (c >= '\t' && c <= '\r') }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func trimSpace(s string) string {
	for s != "" && isSpace(s[0]) {
		s = s[1:]
	}
	for s != "" && isSpace(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

func parseInt(t KeyType, s string) (Value, error) {
	s = trimSpace(s)
	negative := false
	if s != "" && (s[0] == '-' || s[0] == '+') {
		negative = s[0] == '-'
		s = s[1:]
	}
	if s == "" || !isDigit(s[0]) {
		return Value{}, ErrInvalid
	}
	var n uint64
	overflow := false
	for i := 0; i < len(s); i++ {
		if !isDigit(s[i]) {
			return Value{}, malformedNumber(s)
		}
		digit := uint64(s[i] - '0')
		if n > (1<<63-digit)/10 {
			overflow = true
			continue
		}
		n = n*10 + digit
	}
	if overflow || (!negative && n > math.MaxInt64) {
		return Value{}, ErrInvalid
	}
	if negative {
		n = -n
	}
	return checkedInt(t, int64(n), ErrInvalid)
}

// malformedNumber says of an unsigned number with other characters than digits
// whether PostgreSQL 16 or later may read it: 0x1f, 0o17, 0b1, 1_000.
func malformedNumber(s string) error {
	if len(s) > 1 && s[0] == '0' && strings.IndexByte("xXoObB", s[1]) >= 0 {
		return ErrUncertain
	}
	if strings.IndexByte(s, '_') >= 0 {
		return ErrUncertain
	}
	return ErrInvalid
}

// checkedInt gives n as a value of an integer type, or err when it does not fit.
func checkedInt(t KeyType, n int64, err error) (Value, error) {
	switch {
	case t == Int8,
		t == Int4 && n == int64(int32(n)),
		t == Int2 && n == int64(int16(n)):
		return Value{t: t, i: n}, nil
	}
	return Value{}, err
}

func receiveInt(t KeyType, wire []byte) (Value, error) {
	switch {
	case t == Int2 && len(wire) == 2:
		return Value{t: t, i: int64(int16(binary.BigEndian.Uint16(wire)))}, nil
	case t == Int4 && len(wire) == 4:
		return Value{t: t, i: int64(int32(binary.BigEndian.Uint32(wire)))}, nil
	case t == Int8 && len(wire) == 8:
		return Value{t: t, i: int64(binary.BigEndian.Uint64(wire))}, nil
	}
	return Value{}, ErrInvalid
}

// parseString takes text as it is; Postgres refuses a NUL byte and, in a database
// in UTF-8, what is not UTF-8.
func parseString(t KeyType, s string) (Value, error) {
	if strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s) {
		return Value{}, ErrInvalid
	}
	return Value{t: t, s: s}, nil
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// parseUUID is string_to_uuid: braces around it and a hyphen after every other
// byte are optional.
func parseUUID(s string) (Value, error) {
	if s != "" && s[0] == '{' {
		if s[len(s)-1] != '}' {
			return Value{}, ErrInvalid
		}
		s = s[1 : len(s)-1]
	}
	var halves [2]uint64
	for i := range 16 {
		if len(s) < 2 {
			return Value{}, ErrInvalid
		}
		high, ok1 := hexDigit(s[0])
		low, ok2 := hexDigit(s[1])
		if !ok1 || !ok2 {
			return Value{}, ErrInvalid
		}
		halves[i/8] = halves[i/8]<<8 | uint64(high<<4|low)
		s = s[2:]
		if s != "" && s[0] == '-' && i%2 == 1 && i < 15 {
			s = s[1:]
		}
	}
	if s != "" {
		return Value{}, ErrInvalid
	}
	return Value{t: UUID, i: int64(halves[0]), j: halves[1]}, nil
}

func receiveUUID(wire []byte) (Value, error) {
	if len(wire) != 16 {
		return Value{}, ErrInvalid
	}
	return Value{t: UUID, i: int64(binary.BigEndian.Uint64(wire)), j: binary.BigEndian.Uint64(wire[8:])}, nil
}

// parseBytea is byteain: the hex form or the escape form, whatever bytea_output says.
func parseBytea(s string) (Value, error) {
	if strings.HasPrefix(s, `\x`) {
		return parseByteaHex(s[2:])
	}
	decoded := make([]byte, 0, len(s))
	for s != "" {
		switch {
		case s[0] == 0:
			return Value{}, ErrInvalid
		case s[0] != '\\':
			decoded = append(decoded, s[0])
			s = s[1:]
		case len(s) >= 4 && s[1] >= '0' && s[1] <= '3' && isOctal(s[2]) && isOctal(s[3]):
			decoded = append(decoded, (s[1]-'0')<<6|(s[2]-'0')<<3|(s[3]-'0'))
			s = s[4:]
		case len(s) >= 2 && s[1] == '\\':
			decoded = append(decoded, '\\')
			s = s[2:]
		default:
			return Value{}, ErrInvalid
		}
	}
	return Value{t: Bytea, s: string(decoded)}, nil
}

func isOctal(c byte) bool { return c >= '0' && c <= '7' }

// parseByteaHex allows blanks between the bytes, as hex_decode does.
func parseByteaHex(s string) (Value, error) {
	decoded := make([]byte, 0, len(s)/2)
	for s != "" {
		if c := s[0]; c == ' ' || c == '\n' || c == '\t' || c == '\r' {
			s = s[1:]
			continue
		}
		if len(s) < 2 {
			return Value{}, ErrInvalid
		}
		high, ok1 := hexDigit(s[0])
		low, ok2 := hexDigit(s[1])
		if !ok1 || !ok2 {
			return Value{}, ErrInvalid
		}
		decoded = append(decoded, high<<4|low)
		s = s[2:]
	}
	return Value{t: Bytea, s: string(decoded)}, nil
}

// parseBool is boolin: any unambiguous prefix of true, false, yes, no, on, off in
// any case, 1 and 0, with blanks around.
func parseBool(s string) (Value, error) {
	s = trimSpace(s)
	if s == "" || len(s) > len("false") {
		return Value{}, ErrInvalid
	}
	lower := strings.ToLower(s)
	for _, word := range []struct {
		text  string
		least int // bytes needed to be unambiguous
		value bool
	}{{"true", 1, true}, {"false", 1, false}, {"yes", 1, true}, {"no", 1, false}, {"on", 2, true}, {"off", 2, false}, {"1", 1, true}, {"0", 1, false}} {
		if len(s) >= word.least && strings.HasPrefix(word.text, lower) {
			return boolValue(word.value), nil
		}
	}
	return Value{}, ErrInvalid
}

func boolValue(b bool) Value {
	if b {
		return Value{t: Bool, i: 1}
	}
	return Value{t: Bool}
}
