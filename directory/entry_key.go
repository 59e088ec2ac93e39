package directory

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// EntryKey is the canonical encoding of a key of a DIRECTORY group: keys that are equal, in the sense of
// [Compare], have the same bytes, whatever the types of their family and the scale of their numerics, and the
// bytes of keys are in the order of the keys, column by column, NULL behind every value.
type EntryKey string

// MaxEntryKey is the greatest length of an [EntryKey] that can have an entry, in bytes. Postgres indexes no
// longer keys than 2,704 bytes.
const MaxEntryKey = 4096

// The first byte of a column's encoding. Integers have their own: the length of the number is in it.
const (
	entryValue byte = 0x01 // the value follows
	entryZero  byte = 0x80 // of integers: 0x80 plus the number of bytes that follow, less it for negative ones
	entryNull  byte = 0xf0
)

// The first byte of a numeric's value: its place in the order of the classes.
const (
	entryMinusInfinity byte = iota + 1
	entryNegative
	entryZeroNumeric
	entryPositive
	entryInfinity
	entryNaN
)

// errEntryKey: the bytes are no encoding of a key of these types.
var errEntryKey = errors.New("not the encoding of a key")

// AppendEntryKey appends the canonical encoding of a key. It allocates nothing beyond dst.
func AppendEntryKey(dst []byte, key []Value) []byte {
	for i := range key {
		dst = appendEntryColumn(dst, &key[i])
	}
	return dst
}

// EntryKeyOf gives the canonical encoding of a key.
func EntryKeyOf(key []Value) EntryKey { return EntryKey(AppendEntryKey(nil, key)) }

func appendEntryColumn(dst []byte, v *Value) []byte {
	if v.null {
		return append(dst, entryNull)
	}
	switch v.t {
	case Text, Varchar, Bytea:
		return appendEntryText(append(dst, entryValue), v.s)
	case UUID:
		dst = binary.BigEndian.AppendUint64(append(dst, entryValue), uint64(v.i))
		return binary.BigEndian.AppendUint64(dst, v.j)
	case Numeric:
		return appendEntryNumeric(append(dst, entryValue), v)
	}
	return appendEntryInt(dst, v.i)
}

// appendEntryInt writes as few bytes as the number needs, behind their number.
func appendEntryInt(dst []byte, n int64) []byte {
	magnitude := uint64(n)
	if n < 0 {
		magnitude = ^uint64(n)
	}
	length := 0
	for rest := magnitude; rest > 0; rest >>= 8 {
		length++
	}
	if n < 0 {
		// -1 has no bytes, but is below 0: hence one less than the length says.
		dst = append(dst, entryZero-1-byte(length))
	} else {
		dst = append(dst, entryZero+byte(length))
	}
	for at := length - 1; at >= 0; at-- {
		dst = append(dst, byte(uint64(n)>>(8*at)))
	}
	return dst
}

// appendEntryText ends with 0x00 0x01; a 0x00 in the text becomes 0x00 0xff.
func appendEntryText(dst []byte, s string) []byte {
	for i := range len(s) {
		if dst = append(dst, s[i]); s[i] == 0 {
			dst = append(dst, 0xff)
		}
	}
	return append(dst, 0, 1)
}

// appendEntryNumeric writes the class, then weight and digits, each digit one higher so that zero can end
// them; of negative numbers all bytes are inverted. The display scale is no part of it.
func appendEntryNumeric(dst []byte, v *Value) []byte {
	switch sign := v.numericSign(); {
	case sign == numericNaN:
		return append(dst, entryNaN)
	case sign == numericInfinity:
		return append(dst, entryInfinity)
	case sign == numericMinusInfinity:
		return append(dst, entryMinusInfinity)
	case v.s == "":
		return append(dst, entryZeroNumeric)
	case sign == numericNegative:
		start := len(dst) + 1
		dst = appendEntryDigits(append(dst, entryNegative), v)
		for i := start; i < len(dst); i++ {
			dst[i] = ^dst[i]
		}
		return dst
	}
	return appendEntryDigits(append(dst, entryPositive), v)
}

func appendEntryDigits(dst []byte, v *Value) []byte {
	dst = appendEntryInt(dst, v.i)
	for i := range v.digits() {
		digit := uint16(v.s[2*i]) | uint16(v.s[2*i+1])<<8
		dst = binary.BigEndian.AppendUint16(dst, digit+1)
	}
	return append(dst, 0, 0)
}

// Values reads the key back, as values of these types.
func (k EntryKey) Values(types []KeyType) ([]Value, error) {
	rest := string(k)
	values := make([]Value, len(types))
	for i, t := range types {
		var err error
		if values[i], rest, err = readEntryColumn(t, rest); err != nil {
			return nil, fmt.Errorf("read column %d of entry key %x: %w", i+1, string(k), err)
		}
	}
	// The same key has the same bytes: others that read alike are no encoding.
	if rest != "" || EntryKeyOf(values) != k {
		return nil, fmt.Errorf("read entry key %x: %w", string(k), errEntryKey)
	}
	return values, nil
}

func readEntryColumn(t KeyType, in string) (v Value, rest string, err error) {
	if in == "" {
		return v, "", errEntryKey
	}
	if in[0] == entryNull {
		return Null(t), in[1:], nil
	}
	if t.integral() {
		n, rest, err := readEntryInt(in)
		if err != nil {
			return v, "", err
		}
		if t.Family() == FamilyInteger {
			v, err = checkedInt(t, n, errEntryKey)
			return v, rest, err
		}
		return Value{t: t, i: n}, rest, nil
	}
	if in[0] != entryValue {
		return v, "", errEntryKey
	}
	in = in[1:]
	switch t {
	case Text, Varchar, Bytea:
		s, rest, err := readEntryText(in)
		return Value{t: t, s: s}, rest, err
	case UUID:
		if len(in) < 16 {
			return v, "", errEntryKey
		}
		high, low := binary.BigEndian.Uint64([]byte(in[:8])), binary.BigEndian.Uint64([]byte(in[8:16]))
		return Value{t: t, i: int64(high), j: low}, in[16:], nil
	case Numeric:
		return readEntryNumeric(in)
	}
	return v, "", errEntryKey
}

func readEntryInt(in string) (int64, string, error) {
	if in == "" {
		return 0, "", errEntryKey
	}
	negative := in[0] < entryZero
	length := int(in[0]) - int(entryZero)
	if negative {
		length = int(entryZero) - 1 - int(in[0])
	}
	if length > 8 || len(in) < 1+length {
		return 0, "", errEntryKey
	}
	n := uint64(0)
	if negative {
		n = ^n
	}
	for i := range length {
		n = n<<8 | uint64(in[1+i])
	}
	if negative != (int64(n) < 0) {
		return 0, "", errEntryKey
	}
	return int64(n), in[1+length:], nil
}

func readEntryText(in string) (s, rest string, err error) {
	var b strings.Builder
	for i := 0; i+1 < len(in); i++ {
		if in[i] != 0 {
			b.WriteByte(in[i])
			continue
		}
		switch in[i+1] {
		case 1:
			return b.String(), in[i+2:], nil
		case 0xff:
			b.WriteByte(0)
			i++
		default:
			return "", "", errEntryKey
		}
	}
	return "", "", errEntryKey
}

func readEntryNumeric(in string) (v Value, rest string, err error) {
	if in == "" {
		return v, "", errEntryKey
	}
	class, in := in[0], in[1:]
	switch class {
	case entryMinusInfinity:
		return numericSpecial(numericMinusInfinity), in, nil
	case entryInfinity:
		return numericSpecial(numericInfinity), in, nil
	case entryNaN:
		return numericSpecial(numericNaN), in, nil
	case entryZeroNumeric:
		return numericFromInt(0), in, nil
	case entryPositive:
		return readEntryDigits(numericPositive, in, in)
	case entryNegative:
		inverted := make([]byte, len(in))
		for i := range inverted {
			inverted[i] = ^in[i]
		}
		return readEntryDigits(numericNegative, string(inverted), in)
	}
	return v, "", errEntryKey
}

// readEntryDigits reads weight and digits; source is what in was made of, and as long.
func readEntryDigits(sign numericSign, in, source string) (v Value, rest string, err error) {
	weight, in, err := readEntryInt(in)
	if err != nil || weight < numericMinWeight || weight > numericMaxWeight {
		return v, "", errEntryKey
	}
	var digits []uint16
	for {
		if len(in) < 2 {
			return v, "", errEntryKey
		}
		digit := uint16(in[0])<<8 | uint16(in[1])
		in = in[2:]
		if digit == 0 {
			break
		}
		if digit > numericBase {
			return v, "", errEntryKey
		}
		digits = append(digits, digit-1)
	}
	// As many decimals as the digits need.
	scale := min(max(0, (len(digits)-1-int(weight))*numericDigitWidth), numericMaxScale)
	if v, err = makeNumeric(sign, digits, int(weight), scale); err != nil {
		return v, "", errEntryKey
	}
	return v, source[len(source)-len(in):], nil
}
