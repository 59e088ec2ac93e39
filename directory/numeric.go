package directory

import (
	"cmp"
	"encoding/binary"
	"math"
	"strings"
)

// A numeric is kept as Postgres keeps it (src/backend/utils/adt/numeric.c): digits
// to base 10,000, the weight of the first of them, a sign and a display scale.

// numericSign is the sign of a numeric, or which special value it is.
type numericSign uint8

const (
	numericPositive numericSign = iota
	numericNegative
	numericNaN
	numericInfinity
	numericMinusInfinity
)

func (s numericSign) finite() bool { return s <= numericNegative }

// rank orders the special values: NaN is the greatest of all, and equal to itself.
func (s numericSign) rank() int {
	switch s {
	case numericNaN:
		return 2
	case numericInfinity:
		return 1
	case numericMinusInfinity:
		return -1
	}
	return 0
}

const (
	numericBase         = 10_000
	numericDigitWidth   = 4      // decimal digits of one digit
	numericMaxScale     = 16_383 // NUMERIC_DSCALE_MAX
	numericMaxWeight    = math.MaxInt16
	numericMinWeight    = math.MinInt16
	numericScaleBits    = 16
	numericMaxDecimals  = (numericMaxWeight + 1) * numericDigitWidth // before the point
	numericMaxExponent  = math.MaxInt32 / 2
	numericWirePositive = 0x0000
	numericWireNegative = 0x4000
	numericWireNaN      = 0xC000
	numericWireInfinity = 0xD000
	numericWireMinusInf = 0xF000
)

func (v *Value) numericSign() numericSign { return numericSign(v.j >> numericScaleBits) }

func (v *Value) numericScale() int { return int(v.j & (1<<numericScaleBits - 1)) }

// digits gives how many base-10,000 digits a numeric has.
func (v *Value) digits() int { return len(v.s) / 2 }

// digit gives the base-10,000 digit at the power weight of 10,000, 0 outside.
func (v *Value) digit(weight int) int {
	at := int(v.i) - weight
	if at < 0 || at >= v.digits() {
		return 0
	}
	return int(v.s[2*at]) | int(v.s[2*at+1])<<8
}

func numericSpecial(sign numericSign) Value {
	return Value{t: Numeric, j: uint64(sign) << numericScaleBits}
}

// makeNumeric gives the numeric with these digits, the first at the power weight
// of 10,000: zeros are stripped, zero has no sign. It gives ErrInvalid for what
// Postgres's format cannot hold (make_result).
func makeNumeric(sign numericSign, digits []uint16, weight, scale int) (Value, error) {
	for len(digits) > 0 && digits[0] == 0 {
		digits = digits[1:]
		weight--
	}
	for len(digits) > 0 && digits[len(digits)-1] == 0 {
		digits = digits[:len(digits)-1]
	}
	if len(digits) == 0 {
		sign, weight = numericPositive, 0
	}
	if weight > numericMaxWeight || weight < numericMinWeight || scale > numericMaxScale {
		return Value{}, ErrInvalid
	}
	packed := make([]byte, 2*len(digits))
	for i, d := range digits {
		binary.LittleEndian.PutUint16(packed[2*i:], d)
	}
	return Value{t: Numeric, s: string(packed), i: int64(weight), j: uint64(sign)<<numericScaleBits | uint64(scale)}, nil
}

// makeDecimal gives the numeric of decimal digits (as numbers, not characters)
// with the point before the digit at index point, which may lie outside.
func makeDecimal(sign numericSign, decimals []byte, point, scale int) (Value, error) {
	weight := floorDivInt(point+numericDigitWidth-1, numericDigitWidth) - 1
	// The first base-10,000 digit begins at this index, at most three before the first decimal.
	start := point - (weight+1)*numericDigitWidth
	digits := make([]uint16, 0, len(decimals)/numericDigitWidth+2)
	for ; start < len(decimals); start += numericDigitWidth {
		var d uint16
		for i := start; i < start+numericDigitWidth; i++ {
			d *= 10
			if i >= 0 && i < len(decimals) {
				d += uint16(decimals[i])
			}
		}
		digits = append(digits, d)
	}
	return makeNumeric(sign, digits, weight, scale)
}

func floorDivInt(a, b int) int { return int(floorDiv(int64(a), int64(b))) }

// decimals gives the decimal digits of a finite numeric from the first base-10,000
// digit to scale digits after the point (at least one before it), and where the
// point is.
func (v *Value) decimals(scale int) (decimals []byte, point int) {
	first := max(int(v.i), 0)
	point = (first + 1) * numericDigitWidth
	decimals = make([]byte, 0, point+scale+numericDigitWidth)
	for weight := first; len(decimals) < point+scale; weight-- {
		d := v.digit(weight)
		decimals = append(decimals, byte(d/1000), byte(d/100%10), byte(d/10%10), byte(d%10))
	}
	return decimals[:point+scale], point
}

// parseNumeric is numeric_in.
func parseNumeric(s string) (Value, error) {
	s = trimSpace(s)
	if special, ok := parseNumericSpecial(s); ok {
		return special, nil
	}
	sign := numericPositive
	if s != "" && (s[0] == '-' || s[0] == '+') {
		if s[0] == '-' {
			sign = numericNegative
		}
		s = s[1:]
	}
	mantissa := s
	if at := strings.IndexAny(s, "eE"); at >= 0 && !strings.HasPrefix(s, "0x") && !strings.HasPrefix(s, "0X") {
		mantissa = s[:at]
	}
	whole, fraction, err := splitDecimal(mantissa)
	if err != nil {
		return Value{}, err
	}
	exponent := 0
	if len(mantissa) < len(s) {
		if exponent, err = parseExponent(s[len(mantissa)+1:]); err != nil {
			return Value{}, err
		}
	}
	decimals := make([]byte, 0, len(whole)+len(fraction))
	for _, part := range []string{whole, fraction} {
		for i := 0; i < len(part); i++ {
			decimals = append(decimals, part[i]-'0')
		}
	}
	return decimalWithExponent(sign, decimals, len(whole), max(len(fraction)-exponent, 0), exponent)
}

// decimalWithExponent refuses what is too big before it is made.
func decimalWithExponent(sign numericSign, decimals []byte, whole, scale, exponent int) (Value, error) {
	point := whole + exponent
	leading := 0
	for leading < len(decimals) && decimals[leading] == 0 {
		leading++
	}
	if scale > numericMaxScale {
		return Value{}, ErrInvalid
	}
	if leading == len(decimals) {
		return makeNumeric(numericPositive, nil, 0, scale)
	}
	if point-leading > numericMaxDecimals {
		return Value{}, ErrInvalid
	}
	return makeDecimal(sign, decimals[leading:], point-leading, scale)
}

func parseNumericSpecial(s string) (Value, bool) {
	unsigned, sign := s, numericInfinity
	if s != "" && (s[0] == '-' || s[0] == '+') {
		unsigned = s[1:]
		if s[0] == '-' {
			sign = numericMinusInfinity
		}
	}
	switch {
	case strings.EqualFold(s, "nan"):
		return numericSpecial(numericNaN), true
	case strings.EqualFold(unsigned, "infinity"), strings.EqualFold(unsigned, "inf"):
		return numericSpecial(sign), true
	}
	return Value{}, false
}

// splitDecimal splits digits with at most one point, with a digit first or right
// after the point.
func splitDecimal(s string) (whole, fraction string, err error) {
	whole = s
	if at := strings.IndexByte(s, '.'); at >= 0 {
		whole, fraction = s[:at], s[at+1:]
	}
	for _, part := range []string{whole, fraction} {
		for i := 0; i < len(part); i++ {
			if !isDigit(part[i]) {
				return "", "", malformedNumber(s)
			}
		}
	}
	if whole == "" && fraction == "" {
		return "", "", ErrInvalid
	}
	return whole, fraction, nil
}

// parseExponent reads what stands behind e. PostgreSQL 15 reads it with strtol,
// which allows blanks in front; later versions do not.
func parseExponent(s string) (int, error) {
	if s != "" && isSpace(s[0]) {
		return 0, ErrUncertain
	}
	sign := 1
	if s != "" && (s[0] == '-' || s[0] == '+') {
		if s[0] == '-' {
			sign = -1
		}
		s = s[1:]
	}
	if s == "" || !isDigit(s[0]) {
		return 0, ErrInvalid
	}
	n := 0
	for i := 0; i < len(s); i++ {
		if !isDigit(s[i]) {
			return 0, malformedNumber(s)
		}
		if n = n*10 + int(s[i]-'0'); n >= numericMaxExponent {
			return 0, ErrInvalid
		}
	}
	return sign * n, nil
}

// numericText is numeric_out.
func numericText(v Value) string {
	switch v.numericSign() {
	case numericNaN:
		return "NaN"
	case numericInfinity:
		return "Infinity"
	case numericMinusInfinity:
		return "-Infinity"
	}
	scale := v.numericScale()
	decimals, point := v.decimals(scale)
	leading := 0
	for leading < point-1 && decimals[leading] == 0 {
		leading++
	}
	text := make([]byte, 0, len(decimals)+2)
	if v.numericSign() == numericNegative {
		text = append(text, '-')
	}
	for _, d := range decimals[leading:point] {
		text = append(text, '0'+d)
	}
	if scale > 0 {
		text = append(text, '.')
		for _, d := range decimals[point:] {
			text = append(text, '0'+d)
		}
	}
	return string(text)
}

// receiveNumeric is numeric_recv.
func receiveNumeric(wire []byte) (Value, error) {
	if len(wire) < 8 {
		return Value{}, ErrInvalid
	}
	count := int(binary.BigEndian.Uint16(wire))
	weight := int(int16(binary.BigEndian.Uint16(wire[2:])))
	signWord := binary.BigEndian.Uint16(wire[4:])
	scale := int(binary.BigEndian.Uint16(wire[6:]))
	if len(wire) != 8+2*count || scale > numericMaxScale {
		return Value{}, ErrInvalid
	}
	digits := make([]uint16, count)
	for i := range digits {
		digits[i] = binary.BigEndian.Uint16(wire[8+2*i:])
		if digits[i] >= numericBase {
			return Value{}, ErrInvalid
		}
	}
	switch signWord {
	case numericWireNaN:
		return numericSpecial(numericNaN), nil
	case numericWireInfinity:
		return numericSpecial(numericInfinity), nil
	case numericWireMinusInf:
		return numericSpecial(numericMinusInfinity), nil
	case numericWirePositive:
		return makeNumeric(numericPositive, truncateDigits(digits, weight, scale), weight, scale)
	case numericWireNegative:
		return makeNumeric(numericNegative, truncateDigits(digits, weight, scale), weight, scale)
	}
	return Value{}, ErrInvalid
}

// truncateDigits cuts decimals that the scale would hide (trunc_var).
func truncateDigits(digits []uint16, weight, scale int) []uint16 {
	kept := (weight+1)*numericDigitWidth + scale // decimals to keep
	if kept <= 0 {
		return nil
	}
	whole, rest := kept/numericDigitWidth, kept%numericDigitWidth
	if whole >= len(digits) {
		return digits
	}
	if rest == 0 {
		return digits[:whole]
	}
	unit := []uint16{1, 1000, 100, 10}[rest]
	digits[whole] -= digits[whole] % unit
	return digits[:whole+1]
}

// compareNumeric is cmp_numerics.
func compareNumeric(a, b Value) int {
	signA, signB := a.numericSign(), b.numericSign()
	if !signA.finite() || !signB.finite() {
		return cmp.Compare(signA.rank(), signB.rank())
	}
	if signA != signB {
		if signA == numericNegative {
			return -1
		}
		return 1
	}
	c := compareMagnitude(&a, &b)
	if signA == numericNegative {
		return -c
	}
	return c
}

func compareMagnitude(a, b *Value) int {
	if a.s == "" || b.s == "" {
		return cmp.Compare(len(a.s), len(b.s))
	}
	if a.i != b.i {
		return cmp.Compare(a.i, b.i)
	}
	for weight, end := int(a.i), int(a.i)-max(a.digits(), b.digits()); weight > end; weight-- {
		if c := cmp.Compare(a.digit(weight), b.digit(weight)); c != 0 {
			return c
		}
	}
	return 0
}

// roundNumeric rounds half away from zero to scale decimals (round_var); a
// negative scale rounds before the point. The display scale becomes max(scale, 0).
func roundNumeric(v Value, scale int) (Value, error) {
	if !v.numericSign().finite() {
		return v, nil
	}
	full := max(0, (v.digits()-int(v.i)-1)*numericDigitWidth) // decimals after the point
	decimals, point := v.decimals(full)
	// A digit in front takes the carry.
	decimals = append([]byte{0}, decimals...)
	point++
	keep := point + scale
	if keep < 1 {
		return makeNumeric(numericPositive, nil, 0, max(scale, 0))
	}
	if keep < len(decimals) {
		up := decimals[keep] >= 5
		decimals = decimals[:keep]
		for i := keep - 1; up && i >= 0; i-- {
			decimals[i]++
			if up = decimals[i] == 10; up {
				decimals[i] = 0
			}
		}
	}
	return makeDecimal(v.numericSign(), decimals, point, max(scale, 0))
}

// wholeDecimals gives how many decimals stand before the point, without leading
// zeros; zero or less when the first lies behind it. The number is not zero.
func (v *Value) wholeDecimals() int {
	n := (int(v.i) + 1) * numericDigitWidth
	first := v.digit(int(v.i))
	for limit := numericBase / 10; limit > first; limit /= 10 {
		n--
	}
	return n
}

// numericFromInt gives the numeric of an integer, scale 0.
func numericFromInt(n int64) Value {
	sign, magnitude := numericPositive, uint64(n)
	if n < 0 {
		sign, magnitude = numericNegative, -magnitude
	}
	var digits [5]uint16
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = uint16(magnitude % numericBase)
		magnitude /= numericBase
	}
	// Five digits hold every int64 and fit the format.
	v, _ := makeNumeric(sign, digits[:], len(digits)-1, 0)
	return v
}

// numericToInt rounds to the nearest integer; false when it leaves int64.
func numericToInt(v Value) (int64, bool) {
	if !v.numericSign().finite() {
		return 0, false
	}
	rounded, err := roundNumeric(v, 0)
	if err != nil || rounded.i > 4 {
		return 0, false
	}
	negative := rounded.numericSign() == numericNegative
	var n uint64
	for weight := int(rounded.i); weight >= 0; weight-- {
		d := uint64(rounded.digit(weight))
		if n > (1<<63-d)/numericBase {
			return 0, false
		}
		n = n*numericBase + d
	}
	if negative {
		return -int64(n), true // -(-2^63) is -2^63
	}
	return int64(n), n <= math.MaxInt64
}
