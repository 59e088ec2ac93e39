package merge

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"
	"unsafe"
)

func compareIntegers(a, b *value) int { return cmp.Compare(a.integer, b.integer) }

func compareBytes(a, b *value) int { return bytes.Compare(a.bytes, b.bytes) }

// compareFloats is float8_cmp_internal: NaN equals NaN and is greater than all else, -0 equals 0.
func compareFloats(a, b *value) int {
	x, y := a.float, b.float
	switch {
	case math.IsNaN(x) && math.IsNaN(y):
		return 0
	case math.IsNaN(x):
		return 1
	case math.IsNaN(y):
		return -1
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

func boolText(v *value, wire []byte) error {
	if len(wire) != 1 || wire[0] != 't' && wire[0] != 'f' {
		return malformed("bool", wire)
	}
	v.integer = 0
	if wire[0] == 't' {
		v.integer = 1
	}
	return nil
}

func boolBinary(v *value, wire []byte) error {
	if len(wire) != 1 || wire[0] > 1 {
		return malformed("bool", wire)
	}
	v.integer = int64(wire[0])
	return nil
}

func integerText(v *value, wire []byte) error {
	n, err := strconv.ParseInt(view(wire), 10, 64)
	if err != nil {
		return malformed("integer", wire)
	}
	v.integer = n
	return nil
}

func signedBinary(v *value, wire []byte) error {
	switch len(wire) {
	case 2:
		v.integer = int64(int16(binary.BigEndian.Uint16(wire)))
	case 4:
		v.integer = int64(int32(binary.BigEndian.Uint32(wire)))
	case 8:
		v.integer = int64(binary.BigEndian.Uint64(wire))
	default:
		return malformed("integer", wire)
	}
	return nil
}

func unsignedBinary(v *value, wire []byte) error {
	if len(wire) != 4 {
		return malformed("oid", wire)
	}
	v.integer = int64(binary.BigEndian.Uint32(wire))
	return nil
}

// charText reads a "char", which compares as an unsigned byte. Servers from 16 on write bytes over 127 as \ooo; the byte 0 is
// the empty string.
func charText(v *value, wire []byte) error {
	switch {
	case len(wire) == 0:
		v.integer = 0
	case len(wire) == 1:
		v.integer = int64(wire[0])
	case len(wire) == 4 && wire[0] == '\\':
		n, err := strconv.ParseUint(view(wire[1:]), 8, 8)
		if err != nil {
			return malformed("char", wire)
		}
		v.integer = int64(n)
	default:
		return malformed("char", wire)
	}
	return nil
}

func charBinary(v *value, wire []byte) error {
	if len(wire) != 1 {
		return malformed("char", wire)
	}
	v.integer = int64(wire[0])
	return nil
}

func float4Text(v *value, wire []byte) error { return floatText(v, wire, 32) }

func float8Text(v *value, wire []byte) error { return floatText(v, wire, 64) }

func floatText(v *value, wire []byte, bits int) error {
	f, err := strconv.ParseFloat(view(wire), bits)
	if err != nil {
		return malformed("float", wire)
	}
	v.float = f
	return nil
}

func floatBinary(v *value, wire []byte) error {
	switch len(wire) {
	case 4:
		v.float = float64(math.Float32frombits(binary.BigEndian.Uint32(wire)))
	case 8:
		v.float = math.Float64frombits(binary.BigEndian.Uint64(wire))
	default:
		return malformed("float", wire)
	}
	return nil
}

// uuidText takes the canonical form, in which text order is byte order.
func uuidText(v *value, wire []byte) error {
	if len(wire) != 36 {
		return malformed("uuid", wire)
	}
	v.bytes = wire
	return nil
}

func uuidBinary(v *value, wire []byte) error {
	if len(wire) != 16 {
		return malformed("uuid", wire)
	}
	v.bytes = wire
	return nil
}

func plainBytes(v *value, wire []byte) error { v.bytes = wire; return nil }

// blankTrimmed is bpcharcmp: trailing blanks do not count.
func blankTrimmed(v *value, wire []byte) error {
	v.bytes = bytes.TrimRight(wire, " ")
	return nil
}

// byteaText decodes both forms of bytea_output: hex, which begins with \x, and escape, which never does.
func byteaText(v *value, wire []byte) error {
	out := v.scratch[:0]
	if len(wire) >= 2 && wire[0] == '\\' && wire[1] == 'x' {
		var err error
		if out, err = hex.AppendDecode(out, wire[2:]); err != nil {
			return malformed("bytea", wire)
		}
	} else {
		for i := 0; i < len(wire); i++ {
			switch {
			case wire[i] != '\\':
				out = append(out, wire[i])
			case i+1 < len(wire) && wire[i+1] == '\\':
				out = append(out, '\\')
				i++
			case i+3 < len(wire):
				n, err := strconv.ParseUint(view(wire[i+1:i+4]), 8, 8)
				if err != nil {
					return malformed("bytea", wire)
				}
				out = append(out, byte(n))
				i += 3
			default:
				return malformed("bytea", wire)
			}
		}
	}
	v.scratch, v.bytes = out, out
	return nil
}

// view is a string over b without copying; it must not outlive b.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
