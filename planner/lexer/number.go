package lexer

import "math"

const trailingJunk = "trailing junk after numeric literal"

// number reads a number that starts with a digit, or with a dot and a digit.
func (l *Lexer) number(start int) (Token, bool) {
	sql := l.sql
	kind, end := Int, start
	if sql[start] == '0' && start+1 < len(sql) {
		if digits, name := radix(sql[start+1]); digits != nil {
			return l.radixNumber(start, digits, name)
		}
	}
	if sql[start] != '.' {
		end = decimalEnd(sql, start)
	}
	if end < len(sql) && sql[end] == '.' && !(end+1 < len(sql) && sql[end+1] == '.') {
		kind = Float
		end++
		if end < len(sql) && class[sql[end]] == classDigit {
			end = decimalEnd(sql, end)
		}
	}
	if end < len(sql) && sql[end]|0x20 == 'e' {
		digits := end + 1
		if digits < len(sql) && (sql[digits] == '+' || sql[digits] == '-') {
			digits++
		}
		if digits == len(sql) || class[sql[digits]] != classDigit {
			return l.fail(trailingJunk, start, digits)
		}
		kind = Float
		end = decimalEnd(sql, digits)
	}
	return l.endNumber(kind, start, end)
}

// decimalEnd returns the end of decimal digits that may be grouped by single underscores.
func decimalEnd(sql string, i int) int {
	for i < len(sql) {
		switch {
		case class[sql[i]] == classDigit:
			i++
		case sql[i] == '_' && i+1 < len(sql) && class[sql[i+1]] == classDigit:
			i += 2
		default:
			return i
		}
	}
	return i
}

// endNumber ends a number, unless an identifier follows it directly. A number
// whose tail could itself be an identifier (the e5 of 1e5) is one when a dollar
// sign follows, since identifiers may contain that and the longest match wins.
func (l *Lexer) endNumber(kind Kind, start, end int) (Token, bool) {
	sql := l.sql
	if end == len(sql) {
		return l.token(kind, start, end)
	}
	if class[sql[end]] == classIdent {
		return l.fail(trailingJunk, start, end+1)
	}
	if sql[end] == '$' {
		for i := end - 1; i > start && isIdent[sql[i]]; i-- {
			if class[sql[i]] == classIdent {
				return l.fail(trailingJunk, start, end+1)
			}
		}
	}
	return l.token(kind, start, end)
}

// radix returns the digits of the radix that the letter after a zero names.
func radix(letter byte) (isDigit func(byte) bool, name string) {
	switch letter | 0x20 {
	case 'x':
		return isHexDigit, "hexadecimal"
	case 'o':
		return isOctalDigit, "octal"
	case 'b':
		return isBinaryDigit, "binary"
	}
	return nil, ""
}

func isHexDigit(c byte) bool {
	return c-'0' < 10 || c|0x20-'a' < 6
}

func isOctalDigit(c byte) bool { return c-'0' < 8 }

func isBinaryDigit(c byte) bool { return c-'0' < 2 }

func (l *Lexer) radixNumber(start int, isDigit func(byte) bool, name string) (Token, bool) {
	sql := l.sql
	end := start + 2
	for end < len(sql) {
		if isDigit(sql[end]) {
			end++
		} else if sql[end] == '_' && end+1 < len(sql) && isDigit(sql[end+1]) {
			end += 2
		} else {
			break
		}
	}
	if end == start+2 {
		if end < len(sql) && sql[end] == '_' {
			end++
		}
		if end < len(sql) && isIdent[sql[end]] {
			return l.fail(trailingJunk, start, end+1)
		}
		return l.fail("invalid "+name+" integer", start, end)
	}
	if end < len(sql) && class[sql[end]] == classDigit {
		// 0b12 and 0o18: the rest of the digits continues the identifier of the junk rule.
		return l.fail(trailingJunk, start, end+1)
	}
	return l.endNumber(Int, start, end)
}

// integerValue returns the value of an Int token's text, in any radix and with
// underscores; ok is false beyond the range of uint64.
func integerValue(text string) (value uint64, ok bool) {
	base := uint64(10)
	if len(text) > 2 && text[0] == '0' {
		switch text[1] | 0x20 {
		case 'x':
			base, text = 16, text[2:]
		case 'o':
			base, text = 8, text[2:]
		case 'b':
			base, text = 2, text[2:]
		}
	}
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '_' {
			continue
		}
		digit := uint64(c - '0')
		if digit > 9 {
			digit = uint64(c|0x20-'a') + 10
		}
		if value > (math.MaxUint64-digit)/base {
			return 0, false
		}
		value = value*base + digit
	}
	return value, true
}
