package merge

import (
	"bytes"
	"encoding/binary"
	"math"
)

const (
	microsecond = 1
	second      = 1_000_000 * microsecond
	minute      = 60 * second
	hour        = 60 * minute
	day         = 24 * hour
)

// The texts are those of DateStyle ISO: "2024-02-29", "0044-03-15 BC", "infinity", "2024-02-29 12:34:56.789+05:30".

func dateText(v *value, wire []byte) error {
	if infinite(v, wire) {
		return nil
	}
	text, before := bytes.CutSuffix(wire, []byte(" BC"))
	p := parser{rest: text}
	days := p.date(before)
	if p.bad || len(p.rest) != 0 {
		return malformed("date (DateStyle must be ISO)", wire)
	}
	v.integer = days
	return nil
}

func dateBinary(v *value, wire []byte) error {
	if len(wire) != 4 {
		return malformed("date", wire)
	}
	v.integer = int64(int32(binary.BigEndian.Uint32(wire)))
	return nil
}

func timeText(v *value, wire []byte) error {
	p := parser{rest: wire}
	v.integer = p.clock()
	if p.bad || len(p.rest) != 0 {
		return malformed("time", wire)
	}
	return nil
}

func timestampText(v *value, wire []byte) error { return momentText(v, wire, false) }

func timestamptzText(v *value, wire []byte) error { return momentText(v, wire, true) }

func momentText(v *value, wire []byte, zoned bool) error {
	if infinite(v, wire) {
		return nil
	}
	text, before := bytes.CutSuffix(wire, []byte(" BC"))
	p := parser{rest: text}
	days := p.date(before)
	p.expect(' ')
	moment := days*day + p.clock()
	if zoned {
		moment -= p.offset()
	}
	if p.bad || len(p.rest) != 0 {
		return malformed("timestamp (DateStyle must be ISO)", wire)
	}
	v.integer = moment
	return nil
}

// infinite takes infinity and -infinity, which are outside of all dates and timestamps.
func infinite(v *value, wire []byte) bool {
	switch string(wire) {
	case "infinity":
		v.integer = math.MaxInt64
	case "-infinity":
		v.integer = math.MinInt64
	default:
		return false
	}
	return true
}

// parser reads fixed forms; after the first failure bad stays set.
type parser struct {
	rest []byte
	bad  bool
}

// number reads at least least and at most nine digits.
func (p *parser) number(least int) int64 {
	n, i := int64(0), 0
	for i < len(p.rest) && i < 9 && p.rest[i] >= '0' && p.rest[i] <= '9' {
		n = n*10 + int64(p.rest[i]-'0')
		i++
	}
	p.bad = p.bad || i < least
	p.rest = p.rest[i:]
	return n
}

func (p *parser) accept(c byte) bool {
	if p.bad || len(p.rest) == 0 || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *parser) expect(c byte) { p.bad = !p.accept(c) || p.bad }

// date returns days since 2000-01-01 in the proleptic Gregorian calendar; 1 BC is the year 0.
func (p *parser) date(before bool) int64 {
	year := p.number(4)
	p.expect('-')
	month := p.number(2)
	p.expect('-')
	dayOfMonth := p.number(2)
	if month < 1 || month > 12 || dayOfMonth < 1 || dayOfMonth > 31 || year == 0 {
		p.bad = true
		return 0
	}
	if before {
		year = 1 - year
	}
	return civilDays(year, month, dayOfMonth)
}

// civilDays is Howard Hinnant's days_from_civil, shifted to 2000-01-01.
func civilDays(year, month, dayOfMonth int64) int64 {
	if month <= 2 {
		year--
	}
	era := year / 400
	if year < 0 {
		era = (year - 399) / 400
	}
	yearOfEra := year - era*400
	dayOfYear := (153*((month+9)%12)+2)/5 + dayOfMonth - 1
	dayOfEra := yearOfEra*365 + yearOfEra/4 - yearOfEra/100 + dayOfYear
	return era*146_097 + dayOfEra - 719_468 - 10_957
}

// clock reads hh:mm:ss with up to six digits of fraction, as microseconds.
func (p *parser) clock() int64 {
	t := p.number(2) * hour
	p.expect(':')
	t += p.number(2) * minute
	p.expect(':')
	t += p.number(2) * second
	if p.accept('.') {
		before := len(p.rest)
		fraction := p.number(1)
		digits := before - len(p.rest)
		if digits > 6 {
			p.bad = true
		}
		for ; digits < 6; digits++ {
			fraction *= 10
		}
		t += fraction
	}
	return t
}

// offset reads +hh, +hh:mm or +hh:mm:ss, east of Greenwich positive.
func (p *parser) offset() int64 {
	sign := int64(1)
	if p.accept('-') {
		sign = -1
	} else {
		p.expect('+')
	}
	t := p.number(2) * hour
	if p.accept(':') {
		t += p.number(2) * minute
		if p.accept(':') {
			t += p.number(2) * second
		}
	}
	return sign * t
}
