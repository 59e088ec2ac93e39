package directory

import (
	"cmp"
	"errors"
	"strings"
)

// The ways in which a value can fail to be read or stored.
var (
	// ErrUncertain: what the text means depends on settings, on the server's
	// version or on the time ('today', '01/02/2024', '0x10'), or this package
	// cannot tell exactly. Ask a shard.
	ErrUncertain = errors.New("value is not certain")
	// ErrInvalid: no Postgres accepts the text or bytes as a value of the type. A
	// shard says the real error.
	ErrInvalid = errors.New("invalid value")
	// ErrOutOfRange: the value cannot be stored in a column of the type.
	ErrOutOfRange = errors.New("value out of range")
)

// Value is one key value, or NULL, of a type. Values are small and are passed by
// value; compare them with [Compare], not with == (two equal numerics may differ
// in scale). The zero Value has no type and is only good for being overwritten.
type Value struct {
	// s holds text and varchar (UTF-8), bytea (raw), and of numeric the digits:
	// base 10,000, two bytes each, little-endian (as in the memory of the servers,
	// for the hash), without leading or trailing zero digits.
	s string
	// i holds integers, bool (0, 1), date (days since 2000-01-01), timestamp and
	// timestamptz (microseconds since 2000-01-01), the first half of a uuid, and
	// of numeric the weight: the power of 10,000 of the first digit.
	i int64
	// j holds the second half of a uuid, and of numeric the sign (numericSign)
	// above 16 bits of display scale.
	j    uint64
	t    KeyType
	null bool
}

// Null gives the NULL of a type.
func Null(t KeyType) Value { return Value{t: t, null: true} }

// IntValue gives an integer of type Int2, Int4 or Int8; the number must fit.
func IntValue(t KeyType, n int64) (Value, error) {
	return checkedInt(t, n, ErrOutOfRange)
}

// IsNull reports whether the value is NULL.
func (v Value) IsNull() bool { return v.null }

// Type gives the value's type.
func (v Value) Type() KeyType { return v.t }

// Compare gives the order of a and b as Postgres's btree operator class of their
// family does: negative, zero or positive. Text compares by bytes (collation C).
// NULL equals NULL and comes after every value. Int2, Int4 and Int8 compare with
// each other.
//
// Invariant: a and b are of one family. Values of different families have no
// order; they are given the order of their families so that the result is total.
func Compare(a, b Value) int {
	if a.null || b.null {
		return compareNull(a.null, b.null)
	}
	if a.t != b.t && a.t.Family() != b.t.Family() {
		return cmp.Compare(a.t.Family(), b.t.Family())
	}
	switch a.t {
	case Text, Varchar, Bytea:
		return strings.Compare(a.s, b.s)
	case UUID:
		if c := cmp.Compare(uint64(a.i), uint64(b.i)); c != 0 {
			return c
		}
		return cmp.Compare(a.j, b.j)
	case Numeric:
		return compareNumeric(a, b)
	}
	return cmp.Compare(a.i, b.i)
}

func compareNull(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// compareTuples compares lexicographically; the tuples are equally long.
func compareTuples(a, b []Value) int {
	for i := range a {
		if c := Compare(a[i], b[i]); c != 0 {
			return c
		}
	}
	return 0
}

// Literal gives the value as an SQL literal: NULL, a bare number or a quoted string.
func (v Value) Literal() string {
	if v.null {
		return "NULL"
	}
	text := v.Text()
	switch v.t {
	case Int2, Int4, Int8:
		return text
	case Numeric:
		if v.numericSign().finite() {
			return text
		}
	case Bool:
		if v.i != 0 {
			return "true"
		}
		return "false"
	}
	return quoteLiteral(text)
}

// quoteLiteral quotes as Postgres's quote_literal does.
func quoteLiteral(s string) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return "E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}
