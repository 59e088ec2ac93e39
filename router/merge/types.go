package merge

import (
	"fmt"
)

// OIDs of the built-in types that can be merged; they are the same on every server.
const (
	oidBool        = 16
	oidBytea       = 17
	oidChar        = 18 // "char"
	oidName        = 19
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidText        = 25
	oidOID         = 26
	oidFloat4      = 700
	oidFloat8      = 701
	oidBPChar      = 1042
	oidVarchar     = 1043
	oidDate        = 1082
	oidTime        = 1083
	oidTimestamp   = 1114
	oidTimestamptz = 1184
	oidNumeric     = 1700
	oidUUID        = 2950
)

// Mergeable reports whether rows ordered by a column of this type can be merged exactly. collationIsC says that the
// column is sorted under the C (or POSIX) collation; it matters for strings only.
//
// What the caller must see to besides: text values of dates and timestamps come in DateStyle ISO, text values of
// floats with extra_float_digits of at least 1, and strings in the encoding of the server.
func Mergeable(typeOID uint32, collationIsC bool) bool {
	switch typeOID {
	case oidText, oidVarchar, oidBPChar, oidName:
		return collationIsC
	}
	_, ok := decoderOf(typeOID, 0)
	return ok
}

// value is a column decoded for comparison. Which field counts depends on the type; bytes view the row.
type value struct {
	null    bool
	integer int64
	float   float64
	bytes   []byte
	number  number
	scratch []byte // kept for the next row
}

// decoder decodes the wire form of a value that is not NULL into v and says how two of them compare.
type decoder struct {
	decode  func(v *value, wire []byte) error
	compare func(a, b *value) int
}

// decoderOf returns the decoder of a type in a format (0 text, 1 binary).
func decoderOf(typeOID uint32, format int16) (decoder, bool) {
	if format != 0 && format != 1 {
		return decoder{}, false
	}
	binary := format == 1
	choose := func(text, bin func(*value, []byte) error, compare func(a, b *value) int) (decoder, bool) {
		if binary {
			return decoder{bin, compare}, true
		}
		return decoder{text, compare}, true
	}
	switch typeOID {
	case oidBool:
		return choose(boolText, boolBinary, compareIntegers)
	case oidInt2, oidInt4, oidInt8:
		return choose(integerText, signedBinary, compareIntegers)
	case oidOID:
		return choose(integerText, unsignedBinary, compareIntegers)
	case oidChar:
		return choose(charText, charBinary, compareIntegers)
	case oidFloat4:
		return choose(float4Text, floatBinary, compareFloats)
	case oidFloat8:
		return choose(float8Text, floatBinary, compareFloats)
	case oidNumeric:
		return choose(numericText, numericBinary, compareNumbers)
	case oidDate:
		return choose(dateText, dateBinary, compareIntegers)
	case oidTime:
		return choose(timeText, signedBinary, compareIntegers)
	case oidTimestamp:
		return choose(timestampText, signedBinary, compareIntegers)
	case oidTimestamptz:
		return choose(timestamptzText, signedBinary, compareIntegers)
	case oidUUID:
		return choose(uuidText, uuidBinary, compareBytes)
	case oidBytea:
		return choose(byteaText, plainBytes, compareBytes)
	case oidText, oidVarchar, oidName:
		return choose(plainBytes, plainBytes, compareBytes)
	case oidBPChar:
		return choose(blankTrimmed, blankTrimmed, compareBytes)
	}
	return decoder{}, false
}

func malformed(kind string, wire []byte) error {
	return fmt.Errorf("compare rows: malformed %s of %d bytes", kind, len(wire))
}
