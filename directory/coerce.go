package directory

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// typmodHeader is Postgres's VARHDRSZ, which type modifiers of varchar and
// numeric carry on top.
const typmodHeader = 4

// Coerce converts a value as Postgres does when it is assigned to a column of type
// to with the type modifier typmod (pg_attribute.atttypmod, -1 for none): integers
// and numerics convert and round, varchar(n) loses spaces beyond n characters,
// numeric(p,s) and timestamp(n) round half away from zero. NULL stays NULL. It
// gives ErrOutOfRange where Postgres refuses the value, and ErrUncertain where it
// cannot convert exactly or the result depends on settings.
func Coerce(v Value, to KeyType, typmod int32) (Value, error) {
	if !to.valid() {
		return Value{}, fmt.Errorf("store %s as %s: %w", v.t, to, ErrUncertain)
	}
	if v.null {
		return Null(to), nil
	}
	converted, err := convert(v, to)
	if err == nil && typmod >= 0 {
		converted, err = applyTypmod(converted, typmod)
	}
	if err != nil {
		return Value{}, fmt.Errorf("store %s as %s: %w", v.t, to, err)
	}
	return converted, nil
}

// convert performs the assignment cast between two types, without modifiers.
func convert(v Value, to KeyType) (Value, error) {
	from := v.t
	switch {
	case from == to:
		return v, nil
	case to.Family() == FamilyInteger:
		return toInteger(v, to)
	case to == Numeric && from.Family() == FamilyInteger:
		return numericFromInt(v.i), nil
	case to.Family() == FamilyText:
		return toText(v, to)
	case to == Timestamp && from == Date:
		return dateToTimestamp(v)
	case to == Date && from == Timestamp:
		return timestampToDate(v), nil
	}
	return Value{}, ErrUncertain
}

func toInteger(v Value, to KeyType) (Value, error) {
	switch v.t.Family() {
	case FamilyInteger:
		return checkedInt(to, v.i, ErrOutOfRange)
	case FamilyNumeric:
		n, ok := numericToInt(v)
		if !ok {
			return Value{}, ErrOutOfRange
		}
		return checkedInt(to, n, ErrOutOfRange)
	}
	return Value{}, ErrUncertain
}

// toText gives the text of those types whose output depends on no setting.
func toText(v Value, to KeyType) (Value, error) {
	switch v.t {
	case Text, Varchar:
		v.t = to
		return v, nil
	case Bool:
		if v.i != 0 {
			return Value{t: to, s: "true"}, nil
		}
		return Value{t: to, s: "false"}, nil
	case Int2, Int4, Int8, Numeric, UUID:
		return Value{t: to, s: v.Text()}, nil
	}
	return Value{}, ErrUncertain
}

func dateToTimestamp(v Value) (Value, error) {
	switch v.i {
	case dateInfinity:
		return Value{t: Timestamp, i: timestampInfinity}, nil
	case dateMinusInfinity:
		return Value{t: Timestamp, i: timestampMinusInf}, nil
	}
	if v.i >= endTimestamp/microsecondsPerDay {
		return Value{}, ErrOutOfRange
	}
	return Value{t: Timestamp, i: v.i * microsecondsPerDay}, nil
}

func timestampToDate(v Value) Value {
	switch v.i {
	case timestampInfinity:
		return Value{t: Date, i: dateInfinity}
	case timestampMinusInf:
		return Value{t: Date, i: dateMinusInfinity}
	}
	return Value{t: Date, i: floorDiv(v.i, microsecondsPerDay)}
}

// applyTypmod stores the value in a column of its own type with a modifier.
func applyTypmod(v Value, typmod int32) (Value, error) {
	switch v.t {
	case Varchar:
		return limitVarchar(v, int(typmod)-typmodHeader)
	case Numeric:
		return limitNumeric(v, typmod)
	case Timestamp, Timestamptz:
		return roundTimestamp(v, int(typmod))
	case Int2, Int4, Int8, Text, UUID, Date, Bytea, Bool:
		// These types have no modifiers.
		return Value{}, ErrUncertain
	}
	return Value{}, ErrUncertain
}

// limitVarchar is varchar() with an implicit cast: beyond the limit only spaces
// may stand, and they are cut. The limit counts characters.
func limitVarchar(v Value, limit int) (Value, error) {
	if limit < 0 || len(v.s) <= limit {
		return v, nil
	}
	at := 0
	for range limit {
		if at >= len(v.s) {
			return v, nil
		}
		_, size := utf8.DecodeRuneInString(v.s[at:])
		at += size
	}
	if strings.Trim(v.s[at:], " ") != "" {
		return Value{}, ErrOutOfRange
	}
	v.s = v.s[:at]
	return v, nil
}

// limitNumeric is apply_typmod: the precision stands above eleven signed bits of scale.
func limitNumeric(v Value, typmod int32) (Value, error) {
	if typmod < typmodHeader {
		return v, nil
	}
	modifier := typmod - typmodHeader
	precision := int(modifier>>16) & 0xffff
	scale := int((modifier&0x7ff)^1024) - 1024
	if !v.numericSign().finite() {
		if v.numericSign() == numericNaN {
			return v, nil
		}
		return Value{}, ErrOutOfRange
	}
	rounded, err := roundNumeric(v, scale)
	if err != nil {
		return Value{}, ErrOutOfRange
	}
	if rounded.s != "" && rounded.wholeDecimals() > precision-scale {
		return Value{}, ErrOutOfRange
	}
	return rounded, nil
}

// roundTimestamp is AdjustTimestampForTypmod.
func roundTimestamp(v Value, digits int) (Value, error) {
	if v.i == timestampInfinity || v.i == timestampMinusInf || digits == fractionDigitsStored {
		return v, nil
	}
	if digits < 0 || digits > fractionDigitsStored {
		return Value{}, ErrUncertain
	}
	unit := int64(1)
	for range fractionDigitsStored - digits {
		unit *= 10
	}
	if v.i >= 0 {
		v.i = (v.i + unit/2) / unit * unit
	} else {
		v.i = -((-v.i + unit/2) / unit * unit)
	}
	if !validTimestamp(v.i) {
		return Value{}, ErrUncertain
	}
	return v, nil
}
