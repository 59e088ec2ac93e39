package lexer

// quoted reads a string in which only a doubled quote is special, whose text
// begins at body. (A doubled quote in a B” or X” string ends a segment and
// starts no other, so there it is the end of the string.)
func (l *Lexer) quoted(kind Kind, start, body int) (Token, bool) {
	sql := l.sql
	for i := body; i < len(sql); i++ {
		if sql[i] != '\'' {
			continue
		}
		if i+1 < len(sql) && sql[i+1] == '\'' && kind != BitString && kind != HexString {
			i++
			continue
		}
		next, continued := continuation(sql, i+1)
		if !continued {
			return l.token(kind, start, i+1)
		}
		i = next - 1
	}
	switch kind {
	case BitString:
		return l.fail("unterminated bit string literal", start, len(sql))
	case HexString:
		return l.fail("unterminated hexadecimal string literal", start, len(sql))
	}
	return l.fail("unterminated quoted string", start, len(sql))
}

// continuation looks behind a closing quote for white space with a newline and
// another quote, by which the string goes on: next is the first byte after it.
func continuation(sql string, i int) (next int, continued bool) {
	newline := false
	for i < len(sql) {
		switch c := sql[i]; {
		case c == '\n' || c == '\r':
			newline = true
			i++
		case class[c] == classSpace:
			i++
		case c == '-' && i+1 < len(sql) && sql[i+1] == '-':
			i = lineEnd(sql, i+2)
		default:
			return i + 1, newline && c == '\''
		}
	}
	return i, false
}

// escapeString reads E'…'.
func (l *Lexer) escapeString(start int) (Token, bool) {
	sql := l.sql
	for i := start + 2; i < len(sql); i++ {
		switch sql[i] {
		case '\'':
			if i+1 < len(sql) && sql[i+1] == '\'' {
				i++
				continue
			}
			next, continued := continuation(sql, i+1)
			if !continued {
				return l.token(EscapeString, start, i+1)
			}
			i = next - 1
		case '\\':
			next, ok := l.escape(i)
			if !ok {
				return Token{Start: len(sql), End: len(sql)}, false
			}
			i = next - 1
		}
	}
	return l.fail("unterminated quoted string", start, len(sql))
}

// escape checks the escape sequence at i and returns its end.
func (l *Lexer) escape(i int) (next int, ok bool) {
	sql := l.sql
	if i+1 == len(sql) {
		return i + 1, true
	}
	if letter := sql[i+1]; letter != 'u' && letter != 'U' {
		// \x4f and \101 need no care: their further characters are plain ones.
		return i + 2, true
	}
	first, end, ok := l.unicodeEscape(i)
	if !ok {
		return 0, false
	}
	switch {
	case first >= 0xD800 && first <= 0xDBFF:
		if end+1 >= len(sql) || sql[end] != '\\' || sql[end+1] != 'u' && sql[end+1] != 'U' {
			l.fail("invalid Unicode surrogate pair", end, end+1)
			return 0, false
		}
		second, pairEnd, ok := l.unicodeEscape(end)
		if !ok {
			return 0, false
		}
		if second < 0xDC00 || second > 0xDFFF {
			l.fail("invalid Unicode surrogate pair", end, pairEnd)
			return 0, false
		}
		return pairEnd, true
	case first >= 0xDC00 && first <= 0xDFFF:
		l.fail("invalid Unicode surrogate pair", i, end)
		return 0, false
	case first == 0 || first > 0x10FFFF:
		l.fail("invalid Unicode escape value", i, end)
		return 0, false
	}
	return end, true
}

// unicodeEscape reads \uXXXX or \UXXXXXXXX at i.
func (l *Lexer) unicodeEscape(i int) (value uint32, end int, ok bool) {
	digits := 4
	if l.sql[i+1] == 'U' {
		digits = 8
	}
	end = i + 2 + digits
	for j := i + 2; j < end; j++ {
		if j >= len(l.sql) || !isHexDigit(l.sql[j]) {
			l.fail("invalid Unicode escape", i, j)
			l.err.Code = "22025"
			l.err.Message = "invalid Unicode escape"
			l.err.Hint = `Unicode escapes must be \uXXXX or \UXXXXXXXX.`
			return 0, 0, false
		}
		value = value<<4 | hexValue(l.sql[j])
	}
	return value, end, true
}

// hexValue returns the value of a hexadecimal digit.
func hexValue(c byte) uint32 {
	if c-'0' < 10 {
		return uint32(c - '0')
	}
	return uint32(c|0x20-'a') + 10
}

// StringText returns the value of a plain String token's text (with its
// quotes), joining continued segments. It allocates only if the value is not a
// part of the text.
func StringText(text string) string {
	body := text[1 : len(text)-1]
	for i := 0; i < len(body); i++ {
		if body[i] == '\'' {
			return decodeString(text)
		}
	}
	return body
}

func decodeString(text string) string {
	out := make([]byte, 0, len(text))
	for i := 1; i < len(text); i++ {
		if text[i] != '\'' {
			out = append(out, text[i])
			continue
		}
		if i+1 < len(text) && text[i+1] == '\'' {
			out = append(out, '\'')
			i++
			continue
		}
		next, continued := continuation(text, i+1)
		if !continued {
			break
		}
		i = next - 1
	}
	return string(out)
}
