package merge

import (
	"bytes"
	"cmp"
	"encoding/binary"
)

// number is a numeric of any precision: 0.d1d2d3… × 10^exponent for text (digits are ASCII), or × 10000^exponent for binary
// (digits are big-endian 16-bit words). Both are normalised: no leading and no trailing zero digits, so that digits compare
// as bytes. All numbers of one column come in the same format.
type number struct {
	class    numberClass
	exponent int
	digits   []byte
}

// numberClass orders what is ordered without looking at digits.
type numberClass int8

const (
	minusInfinity numberClass = iota
	negative
	zero
	positive
	plusInfinity
	notANumber // greater than all, as in Postgres
)

// Signs in the binary form of numeric.
const (
	numericPositive = 0x0000
	numericNegative = 0x4000
	numericNaN      = 0xC000
	numericPlusInf  = 0xD000
	numericMinusInf = 0xF000
)

func compareNumbers(a, b *value) int {
	x, y := &a.number, &b.number
	if x.class != y.class {
		return cmp.Compare(x.class, y.class)
	}
	switch x.class {
	case positive:
		return compareMagnitudes(x, y)
	case negative:
		return compareMagnitudes(y, x)
	}
	return 0
}

func compareMagnitudes(x, y *number) int {
	if x.exponent != y.exponent {
		return cmp.Compare(x.exponent, y.exponent)
	}
	return bytes.Compare(x.digits, y.digits)
}

func numericText(v *value, wire []byte) error {
	n := &v.number
	switch string(wire) {
	case "NaN":
		*n = number{class: notANumber}
		return nil
	case "Infinity":
		*n = number{class: plusInfinity}
		return nil
	case "-Infinity":
		*n = number{class: minusInfinity}
		return nil
	}
	class, text := positive, wire
	if len(text) > 0 && text[0] == '-' {
		class, text = negative, text[1:]
	}
	whole, fraction, _ := bytes.Cut(text, []byte{'.'})
	if len(whole)+len(fraction) == 0 || !allDigits(whole) || !allDigits(fraction) {
		return malformed("numeric", wire)
	}
	whole = bytes.TrimLeft(whole, "0")
	fraction = bytes.TrimRight(fraction, "0")
	switch {
	case len(whole) == 0: // 0.00123 is 0.123 × 10^-2
		digits := bytes.TrimLeft(fraction, "0")
		*n = number{class: class, exponent: len(digits) - len(fraction), digits: digits}
	case len(fraction) == 0: // 12300 is 0.123 × 10^5
		*n = number{class: class, exponent: len(whole), digits: bytes.TrimRight(whole, "0")}
	default:
		v.scratch = append(append(v.scratch[:0], whole...), fraction...)
		*n = number{class: class, exponent: len(whole), digits: v.scratch}
	}
	if len(n.digits) == 0 {
		*n = number{class: zero}
	}
	return nil
}

func allDigits(text []byte) bool {
	for _, c := range text {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func numericBinary(v *value, wire []byte) error {
	if len(wire) < 8 {
		return malformed("numeric", wire)
	}
	count := int(binary.BigEndian.Uint16(wire))
	weight := int(int16(binary.BigEndian.Uint16(wire[2:])))
	sign := binary.BigEndian.Uint16(wire[4:])
	digits := wire[8:]
	if len(digits) != 2*count {
		return malformed("numeric", wire)
	}
	n := number{exponent: weight}
	switch sign {
	case numericPositive:
		n.class = positive
	case numericNegative:
		n.class = negative
	case numericNaN:
		n.class = notANumber
	case numericPlusInf:
		n.class = plusInfinity
	case numericMinusInf:
		n.class = minusInfinity
	default:
		return malformed("numeric", wire)
	}
	if n.class == positive || n.class == negative {
		for len(digits) > 0 && digits[0] == 0 && digits[1] == 0 {
			digits = digits[2:]
			n.exponent--
		}
		for len(digits) > 0 && digits[len(digits)-1] == 0 && digits[len(digits)-2] == 0 {
			digits = digits[:len(digits)-2]
		}
		n.digits = digits
		if len(digits) == 0 {
			n = number{class: zero}
		}
	}
	v.number = n
	return nil
}
