package directory

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"
)

// Postgres keeps a date as days and a timestamp as microseconds since 2000-01-01,
// in the proleptic Gregorian calendar (src/include/datatype/timestamp.h).
const (
	microsecondsPerSecond int64 = 1_000_000
	microsecondsPerDay          = 86_400 * microsecondsPerSecond

	dateInfinity         int64 = math.MaxInt32
	dateMinusInfinity    int64 = math.MinInt32
	firstDate            int64 = -2_451_545    // 4714-11-24 BC
	endDate              int64 = 2_145_031_949 // one after 5874897-12-31
	timestampInfinity    int64 = math.MaxInt64
	timestampMinusInf    int64 = math.MinInt64
	firstTimestamp       int64 = -211_813_488_000_000_000
	endTimestamp         int64 = 9_223_371_331_200_000_000 // 294277-01-01
	daysFromEpochTo2000  int64 = 730_425                   // days from 0000-03-01 to 2000-01-01
	daysPer400Years      int64 = 146_097
	maxDateYear          int64 = 5_874_897
	maxZoneHours               = 15
	fractionDigitsStored       = 6
)

func parseDate(s string) (Value, error) {
	s = trimSpace(s)
	if infinite, ok := parseInfinity(s, dateInfinity, dateMinusInfinity); ok {
		return Value{t: Date, i: infinite}, nil
	}
	p := isoText{rest: s}
	days, err := p.date()
	if err != nil {
		return Value{}, err
	}
	// A zone after a date is read and ignored by Postgres; drivers send one.
	if _, _, err := p.zone(); err != nil {
		return Value{}, err
	}
	days, err = p.era(days)
	if err != nil {
		return Value{}, err
	}
	if days < firstDate || days >= endDate {
		return Value{}, ErrInvalid
	}
	return Value{t: Date, i: days}, nil
}

// parseTimestamp reads ISO 8601. A zone in the text of a timestamp is ignored, as
// Postgres does; a timestamptz must have one, else it depends on TimeZone.
func parseTimestamp(t KeyType, s string) (Value, error) {
	s = trimSpace(s)
	if infinite, ok := parseInfinity(s, timestampInfinity, timestampMinusInf); ok {
		return Value{t: t, i: infinite}, nil
	}
	p := isoText{rest: s}
	days, err := p.date()
	if err != nil {
		return Value{}, err
	}
	time, err := p.time()
	if err != nil {
		return Value{}, err
	}
	offset, zoned, err := p.zone()
	if err != nil {
		return Value{}, err
	}
	if days, err = p.era(days); err != nil {
		return Value{}, err
	}
	if t == Timestamptz {
		if !zoned {
			return Value{}, ErrUncertain
		}
		time -= offset * microsecondsPerSecond
	}
	// Within a day of the limits the sum below cannot leave int64.
	if days < firstTimestamp/microsecondsPerDay-1 || days > endTimestamp/microsecondsPerDay {
		return Value{}, ErrInvalid
	}
	n := days*microsecondsPerDay + time
	if !validTimestamp(n) {
		return Value{}, ErrInvalid
	}
	return Value{t: t, i: n}, nil
}

func validTimestamp(n int64) bool { return n >= firstTimestamp && n < endTimestamp }

func parseInfinity(s string, infinity, minus int64) (int64, bool) {
	switch {
	case strings.EqualFold(s, "infinity"):
		return infinity, true
	case strings.EqualFold(s, "-infinity"):
		return minus, true
	}
	return 0, false
}

// isoText reads the parts of an ISO 8601 date and time. Whatever has another form
// is ErrUncertain, for Postgres reads many forms, some of them by its settings.
type isoText struct {
	rest             string
	year, month, day int64 // as written, for era
	timed            bool  // a time of day was there
}

// number takes between least and most digits.
func (p *isoText) number(least, most int) (int64, bool) {
	var n int64
	i := 0
	for i < len(p.rest) && isDigit(p.rest[i]) {
		if i == most {
			return 0, false
		}
		n = n*10 + int64(p.rest[i]-'0')
		i++
	}
	p.rest = p.rest[i:]
	return n, i >= least
}

func (p *isoText) take(c byte) bool {
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *isoText) blanks() {
	for p.rest != "" && isSpace(p.rest[0]) {
		p.rest = p.rest[1:]
	}
}

// date takes year-month-day and gives the days since 2000-01-01. The year has at
// least four digits, so that it is the year under every DateStyle.
func (p *isoText) date() (int64, error) {
	var ok1, ok2, ok3 bool
	p.year, ok1 = p.number(4, 7)
	ok1 = ok1 && p.take('-')
	p.month, ok2 = p.number(1, 2)
	ok2 = ok2 && p.take('-')
	p.day, ok3 = p.number(1, 2)
	if !ok1 || !ok2 || !ok3 {
		return 0, ErrUncertain
	}
	if p.year == 0 || p.year > maxDateYear+1 || p.month < 1 || p.month > 12 || p.day < 1 {
		return 0, ErrInvalid
	}
	return daysSince2000(p.year, p.month, p.day), nil
}

// era takes an optional BC, checks that nothing is left and that the day exists.
func (p *isoText) era(days int64) (int64, error) {
	p.blanks()
	year := p.year
	if strings.EqualFold(p.rest, "BC") {
		year = 1 - year
		days = daysSince2000(year, p.month, p.day)
	} else if p.rest != "" {
		return 0, ErrUncertain
	}
	if p.day > daysInMonth(year, p.month) {
		return 0, ErrInvalid
	}
	return days, nil
}

// time takes an optional time of day, after blanks or T, and gives microseconds.
func (p *isoText) time() (int64, error) {
	if p.rest == "" {
		return 0, nil
	}
	saved := p.rest
	if !p.take('T') {
		p.blanks()
		if p.rest == saved || p.rest == "" || !isDigit(p.rest[0]) {
			p.rest = saved
			return 0, nil // a zone, an era or nothing that we know: others see
		}
	}
	p.timed = true
	hour, ok1 := p.number(2, 2)
	ok1 = ok1 && p.take(':')
	minute, ok2 := p.number(2, 2)
	if !ok1 || !ok2 {
		return 0, ErrUncertain
	}
	var second, fraction int64
	if p.take(':') {
		var ok bool
		if second, ok = p.number(2, 2); !ok {
			return 0, ErrUncertain
		}
		if fraction, ok = p.fraction(); !ok {
			return 0, ErrUncertain
		}
	}
	if hour > 23 || second > 59 {
		return 0, ErrUncertain // 24:00:00 and leap seconds have rules of their own
	}
	if minute > 59 {
		return 0, ErrInvalid
	}
	return ((hour*60+minute)*60+second)*microsecondsPerSecond + fraction, nil
}

// fraction takes an optional fraction of a second and gives microseconds. More
// than six digits are rounded as Postgres does, through a double.
func (p *isoText) fraction() (int64, bool) {
	if !p.take('.') {
		return 0, true
	}
	length := 0
	for length < len(p.rest) && isDigit(p.rest[length]) {
		length++
	}
	digits := p.rest[:length]
	p.rest = p.rest[length:]
	if length == 0 || length > 15 {
		return 0, false
	}
	if length <= fractionDigitsStored {
		n := int64(0)
		for i := range fractionDigitsStored {
			n *= 10
			if i < length {
				n += int64(digits[i] - '0')
			}
		}
		return n, true
	}
	f, err := strconv.ParseFloat("0."+digits, 64)
	return int64(math.RoundToEven(f * 1e6)), err == nil
}

// zone takes an optional zone that is the same under all settings, Z, UTC, GMT or
// an offset ±hh[:mm[:ss]], and gives seconds east of UTC.
func (p *isoText) zone() (offset int64, zoned bool, err error) {
	saved := p.rest
	p.blanks()
	if !p.timed && p.rest == saved {
		return 0, false, nil // directly after a date a sign may be its next field
	}
	for _, name := range []string{"UTC", "GMT", "Z"} {
		if len(p.rest) >= len(name) && strings.EqualFold(p.rest[:len(name)], name) {
			p.rest = p.rest[len(name):]
			if p.rest != "" && !isSpace(p.rest[0]) {
				return 0, false, ErrUncertain
			}
			return 0, true, nil
		}
	}
	sign := int64(1)
	switch {
	case p.take('+'):
	case p.take('-'):
		sign = -1
	default:
		p.rest = saved
		return 0, false, nil
	}
	hour, ok := p.number(2, 2)
	var minute, second int64
	if ok && p.take(':') {
		if minute, ok = p.number(2, 2); ok && p.take(':') {
			second, ok = p.number(2, 2)
		}
	}
	if !ok || (p.rest != "" && !isSpace(p.rest[0])) {
		return 0, false, ErrUncertain
	}
	if hour > maxZoneHours || minute > 59 || second > 59 {
		return 0, false, ErrInvalid
	}
	return sign * ((hour*60+minute)*60 + second), true, nil
}

// daysSince2000 counts days of the proleptic Gregorian calendar; year 0 is 1 BC.
// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
func daysSince2000(year, month, day int64) int64 {
	if month <= 2 {
		year--
	}
	century := floorDiv(year, 400)
	yearOfEra := year - century*400
	dayOfYear := (153*((month+9)%12)+2)/5 + day - 1
	dayOfEra := yearOfEra*365 + yearOfEra/4 - yearOfEra/100 + dayOfYear
	return century*daysPer400Years + dayOfEra - daysFromEpochTo2000
}

// civil is the inverse of daysSince2000.
func civil(days int64) (year, month, day int64) {
	days += daysFromEpochTo2000
	century := floorDiv(days, daysPer400Years)
	dayOfEra := days - century*daysPer400Years
	yearOfEra := (dayOfEra - dayOfEra/1460 + dayOfEra/36524 - dayOfEra/146096) / 365
	dayOfYear := dayOfEra - (365*yearOfEra + yearOfEra/4 - yearOfEra/100)
	m := (5*dayOfYear + 2) / 153
	day = dayOfYear - (153*m+2)/5 + 1
	month = (m+2)%12 + 1
	year = yearOfEra + century*400
	if month <= 2 {
		year++
	}
	return year, month, day
}

func daysInMonth(year, month int64) int64 {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func dateText(days int64) string {
	switch days {
	case dateInfinity:
		return "infinity"
	case dateMinusInfinity:
		return "-infinity"
	}
	text, before := appendDate(nil, days)
	if before {
		text = append(text, " BC"...)
	}
	return string(text)
}

// appendDate appends year-month-day; before says that the year is BC.
func appendDate(text []byte, days int64) (_ []byte, before bool) {
	year, month, day := civil(days)
	if before = year <= 0; before {
		year = 1 - year
	}
	text = appendPadded(text, year, 4)
	text = append(text, '-')
	text = appendPadded(text, month, 2)
	text = append(text, '-')
	return appendPadded(text, day, 2), before
}

// appendPadded appends a number with at least width digits.
func appendPadded(text []byte, n int64, width int) []byte {
	digits := strconv.FormatInt(n, 10)
	for range width - len(digits) {
		text = append(text, '0')
	}
	return append(text, digits...)
}

func timestampText(t KeyType, n int64) string {
	switch n {
	case timestampInfinity:
		return "infinity"
	case timestampMinusInf:
		return "-infinity"
	}
	days := floorDiv(n, microsecondsPerDay)
	micros := n - days*microsecondsPerDay
	text, before := appendDate(make([]byte, 0, 40), days)
	seconds := micros / microsecondsPerSecond
	for i, part := range []int64{seconds / 3600, seconds / 60 % 60, seconds % 60} {
		text = append(text, " ::"[i])
		text = appendPadded(text, part, 2)
	}
	if fraction := micros % microsecondsPerSecond; fraction != 0 {
		text = append(text, '.')
		text = appendPadded(text, fraction, fractionDigitsStored)
		for text[len(text)-1] == '0' {
			text = text[:len(text)-1]
		}
	}
	if t == Timestamptz {
		text = append(text, "+00"...)
	}
	if before {
		text = append(text, " BC"...)
	}
	return string(text)
}

func receiveDate(wire []byte) (Value, error) {
	if len(wire) != 4 {
		return Value{}, ErrInvalid
	}
	days := int64(int32(binary.BigEndian.Uint32(wire)))
	if days != dateInfinity && days != dateMinusInfinity && (days < firstDate || days >= endDate) {
		return Value{}, ErrInvalid
	}
	return Value{t: Date, i: days}, nil
}

func receiveTimestamp(t KeyType, wire []byte) (Value, error) {
	if len(wire) != 8 {
		return Value{}, ErrInvalid
	}
	n := int64(binary.BigEndian.Uint64(wire))
	if n != timestampInfinity && n != timestampMinusInf && !validTimestamp(n) {
		return Value{}, ErrInvalid
	}
	return Value{t: t, i: n}, nil
}
