package directory

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// HashSeed is the seed of Postgres's hash partitioning (HASH_PARTITION_SEED in
// src/include/catalog/partition.h), 8816678312871386365 in SQL.
const HashSeed uint64 = 0x7A5B22367996DCFD

// KeyHash gives the hash of a key, exactly what
//
//	hash_record_extended(ROW(v1, v2, …), 8816678312871386365)
//
// gives on a server (PostgreSQL 14 or later, little-endian), as an unsigned
// number: h = h*31 + hash_extended(vi), a NULL contributing 0. It allocates
// nothing. See docs/decisions/hash.md.
func KeyHash(vals []Value) uint64 {
	var h uint64
	for i := range vals {
		h = h*31 + hashValue(&vals[i])
	}
	return h
}

// hashValue gives the extended hash of one value under HashSeed; 0 for NULL.
// Sources: hashfunc.c, timestamp.c, date.c, uuid.c, numeric.c, varlena.c of Postgres.
func hashValue(v *Value) uint64 {
	if v.null {
		return 0
	}
	switch v.t {
	case Int2, Int4, Date, Bool:
		return hashUint32(uint32(v.i), HashSeed)
	case Int8, Timestamp, Timestamptz:
		return hashInt64(v.i, HashSeed)
	case Text, Varchar, Bytea:
		return hashString(v.s, HashSeed)
	case UUID:
		return hashUUID(uint64(v.i), v.j, HashSeed)
	case Numeric:
		return hashNumeric(v, HashSeed)
	}
	// Invariant: every Value comes from this package and has a type.
	panic(fmt.Sprintf("directory: hash of a value of %s", v.t))
}

// hashInt64 is hashint8extended: values that fit an int4 hash as the int4 does.
func hashInt64(n int64, seed uint64) uint64 {
	low, high := uint32(n), uint32(uint64(n)>>32)
	if n < 0 {
		high = ^high
	}
	return hashUint32(low^high, seed)
}

// hashNumeric is hash_numeric_extended. The sign is no part of it, nor is the
// display scale; the digits carry no leading or trailing zeros already.
func hashNumeric(v *Value, seed uint64) uint64 {
	if !v.numericSign().finite() {
		return seed
	}
	if v.s == "" {
		return seed - 1
	}
	return hashString(v.s, seed) ^ uint64(v.i)
}

// lookup3 is the state of Bob Jenkins's lookup3 as Postgres uses it
// (src/common/hashfn.c).
type lookup3 struct{ a, b, c uint32 }

func newLookup3(length uint32, seed uint64) lookup3 {
	start := 0x9e3779b9 + length + 3923095
	s := lookup3{start, start, start}
	if seed != 0 {
		s.a += uint32(seed >> 32)
		s.b += uint32(seed)
		s.mix()
	}
	return s
}

func (s *lookup3) mix() {
	a, b, c := s.a, s.b, s.c
	a -= c
	a ^= bits.RotateLeft32(c, 4)
	c += b
	b -= a
	b ^= bits.RotateLeft32(a, 6)
	a += c
	c -= b
	c ^= bits.RotateLeft32(b, 8)
	b += a
	a -= c
	a ^= bits.RotateLeft32(c, 16)
	c += b
	b -= a
	b ^= bits.RotateLeft32(a, 19)
	a += c
	c -= b
	c ^= bits.RotateLeft32(b, 4)
	b += a
	s.a, s.b, s.c = a, b, c
}

// final mixes the last words and gives the result.
func (s *lookup3) final() uint64 {
	a, b, c := s.a, s.b, s.c
	c ^= b
	c -= bits.RotateLeft32(b, 14)
	a ^= c
	a -= bits.RotateLeft32(c, 11)
	b ^= a
	b -= bits.RotateLeft32(a, 25)
	c ^= b
	c -= bits.RotateLeft32(b, 16)
	a ^= c
	a -= bits.RotateLeft32(c, 4)
	b ^= a
	b -= bits.RotateLeft32(a, 14)
	c ^= b
	c -= bits.RotateLeft32(b, 24)
	return uint64(b)<<32 | uint64(c)
}

// hashUint32 is hash_bytes_uint32_extended.
func hashUint32(k uint32, seed uint64) uint64 {
	s := newLookup3(4, seed)
	s.a += k
	return s.final()
}

// hashString is hash_bytes_extended over the bytes of s.
func hashString(s string, seed uint64) uint64 {
	state := newLookup3(uint32(len(s)), seed)
	for len(s) >= 12 {
		state.a += word(s)
		state.b += word(s[4:])
		state.c += word(s[8:])
		state.mix()
		s = s[12:]
	}
	// The lowest byte of c is reserved for the length.
	for i := len(s) - 1; i >= 0; i-- {
		switch {
		case i >= 8:
			state.c += uint32(s[i]) << (8 * (i - 7))
		case i >= 4:
			state.b += uint32(s[i]) << (8 * (i - 4))
		default:
			state.a += uint32(s[i]) << (8 * i)
		}
	}
	return state.final()
}

func word(s string) uint32 {
	_ = s[3]
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

// hashUUID is hash_bytes_extended over the sixteen bytes of a uuid.
func hashUUID(high, low uint64, seed uint64) uint64 {
	state := newLookup3(16, seed)
	state.a += bits.ReverseBytes32(uint32(high >> 32))
	state.b += bits.ReverseBytes32(uint32(high))
	state.c += bits.ReverseBytes32(uint32(low >> 32))
	state.mix()
	state.a += bits.ReverseBytes32(uint32(low))
	return state.final()
}

// HashExpression gives the SQL text of [KeyHash] over columns, a bigint whose
// bits are those of the unsigned hash.
func HashExpression(columns []string) string {
	quoted := make([]string, len(columns))
	for i, c := range columns {
		quoted[i] = QuoteIdentifier(c)
	}
	return "pg_catalog.hash_record_extended(ROW(" + strings.Join(quoted, ", ") + "), " +
		strconv.FormatUint(HashSeed, 10) + ")"
}

// HashCondition gives an SQL condition that is true for exactly the rows whose
// [KeyHash] over columns lies in the inclusive interval from..to (from ≤ to).
//
// SQL's bigint is signed, so the upper half of the space, from 2^63 on, is below
// zero there: an interval within one half stays an interval, one that crosses the
// middle becomes the two ends of bigint.
func HashCondition(columns []string, from, to uint64) string {
	if from == 0 && to == math.MaxUint64 {
		return "true"
	}
	hash := HashExpression(columns)
	low, high := signedLiteral(from), signedLiteral(to)
	if from>>63 == to>>63 {
		return "(" + hash + " BETWEEN " + low + " AND " + high + ")"
	}
	return "(" + hash + " >= " + low + " OR " + hash + " <= " + high + ")"
}

// signedLiteral quotes, since -9223372036854775808 unquoted is not a bigint.
func signedLiteral(h uint64) string {
	return "'" + strconv.FormatInt(int64(h), 10) + "'::pg_catalog.int8"
}

// HashInterval is an inclusive interval of the hash space.
type HashInterval struct{ From, To uint64 }

// HashIntervals cuts the hash space into n intervals, in order, that cover it
// and whose sizes differ by at most one. It gives nil for n < 1.
func HashIntervals(n int) []HashInterval {
	if n < 1 {
		return nil
	}
	intervals := make([]HashInterval, n)
	for i := 1; i < n; i++ {
		start, _ := bits.Div64(uint64(i), 0, uint64(n)) // i*2^64/n
		intervals[i-1].To = start - 1
		intervals[i].From = start
	}
	intervals[n-1].To = math.MaxUint64
	return intervals
}

// Spread assigns n partitions to shards as evenly as possible: in turn, so that
// the counts differ by at most one. It gives nil when there is no shard.
func Spread(n int, shards []ShardID) []ShardID {
	if len(shards) == 0 || n < 1 {
		return nil
	}
	placed := make([]ShardID, n)
	for i := range placed {
		placed[i] = shards[i%len(shards)]
	}
	return placed
}

// hex64 writes a number as sixteen hexadecimal digits.
func hex64(h uint64) string {
	const digits = "0123456789abcdef"
	var text [16]byte
	for i := len(text) - 1; i >= 0; i-- {
		text[i] = digits[h&15]
		h >>= 4
	}
	return string(text[:])
}
