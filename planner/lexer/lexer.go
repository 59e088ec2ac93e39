package lexer

// Lexer reads the tokens of one text. It is a value with no references but the
// text; the zero Lexer reads the empty text. Not safe for concurrent use.
type Lexer struct {
	sql      string
	pos      int
	comments bool
	err      *Error
}

// New returns a lexer of sql that skips comments, as Postgres's parser does.
func New(sql string) Lexer { return Lexer{sql: sql} }

// NewWithComments returns a lexer of sql that yields comments as tokens too.
func NewWithComments(sql string) Lexer { return Lexer{sql: sql, comments: true} }

// Error is a text that Postgres's scanner refuses.
type Error struct {
	Code     string // SQLSTATE: 42601, or 22025 for a malformed Unicode escape
	Message  string // as Postgres words it, with the text the scanner stood at
	Hint     string
	Position int // byte offset of the offending text, from 0
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// SQLState returns the SQLSTATE that Postgres reports.
func (e *Error) SQLState() string { return e.Code }

// Err returns the *Error that ended the tokens, or nil if the text ended.
func (l *Lexer) Err() error {
	if l.err == nil {
		return nil
	}
	return l.err
}

// fail ends the tokens with a syntax error at the text between start and end.
func (l *Lexer) fail(message string, start, end int) (Token, bool) {
	if end > len(l.sql) {
		end = len(l.sql)
	}
	if start < end {
		message += ` at or near "` + l.sql[start:end] + `"`
	} else {
		message += " at end of input"
	}
	l.err = &Error{Code: "42601", Message: message, Position: start}
	l.pos = len(l.sql)
	return Token{Start: len(l.sql), End: len(l.sql)}, false
}

// token ends the current token at end.
func (l *Lexer) token(kind Kind, start, end int) (Token, bool) {
	l.pos = end
	return Token{Kind: kind, Start: start, End: end}, true
}

// Next returns the next token; ok is false at the end of the text and at an
// error, which Err tells apart.
func (l *Lexer) Next() (tok Token, ok bool) {
	if l.err != nil {
		return Token{Start: len(l.sql), End: len(l.sql)}, false
	}
	sql := l.sql
	for l.pos < len(sql) {
		start := l.pos
		c := sql[start]
		switch class[c] {
		case classSpace:
			l.pos++
			continue
		case classIdent:
			return l.word(start)
		case classDigit:
			return l.number(start)
		case classQuote:
			return l.quoted(String, start, start+1)
		case classDoubleQuote:
			return l.quotedIdent(QuotedIdent, start, start+1)
		case classDollar:
			return l.dollar(start)
		case classOp:
			if comment, found := l.comment(start); found {
				if l.err != nil {
					return Token{Start: len(sql), End: len(sql)}, false
				}
				if l.comments {
					return l.token(comment.Kind, comment.Start, comment.End)
				}
				l.pos = comment.End
				continue
			}
			return l.operator(start)
		case classSelf:
			return l.punctuation(start)
		default:
			return l.token(Other, start, start+1)
		}
	}
	return Token{Start: len(sql), End: len(sql)}, false
}

// The classes of the first byte of a token.
const (
	classOther = iota
	classSpace
	classIdent
	classDigit
	classQuote
	classDoubleQuote
	classDollar
	classOp   // can be part of an operator
	classSelf // a single-character token that no operator contains
)

// class is the class of each byte, isIdent whether it may continue an identifier.
var class, isIdent = byteTables()

func byteTables() (classes [256]uint8, ident [256]bool) {
	set := func(chars string, c uint8) {
		for i := 0; i < len(chars); i++ {
			classes[chars[i]] = c
		}
	}
	set(" \t\n\r\f\v", classSpace)
	set("0123456789", classDigit)
	set("'", classQuote)
	set(`"`, classDoubleQuote)
	set("$", classDollar)
	set("~!@#^&|`?+-*/%<>=", classOp)
	set(",()[].;:", classSelf)
	for c := 0; c < 256; c++ {
		if c|0x20 >= 'a' && c|0x20 <= 'z' && c < 0x80 || c == '_' || c >= 0x80 {
			classes[c] = classIdent
		}
		ident[c] = classes[c] == classIdent || classes[c] == classDigit || c == '$'
	}
	return classes, ident
}

// word reads an identifier, or the string that a one-letter prefix starts.
func (l *Lexer) word(start int) (Token, bool) {
	sql := l.sql
	if next := start + 1; next < len(sql) {
		switch second := sql[next]; {
		case second == '\'':
			switch sql[start] | 0x20 {
			case 'e':
				return l.escapeString(start)
			case 'b':
				return l.quoted(BitString, start, start+2)
			case 'x':
				return l.quoted(HexString, start, start+2)
			case 'n':
				return l.token(NationalPrefix, start, start+1)
			}
		case second == '&' && sql[start]|0x20 == 'u' && start+2 < len(sql):
			switch sql[start+2] {
			case '\'':
				return l.quoted(UnicodeString, start, start+3)
			case '"':
				return l.quotedIdent(UnicodeIdent, start, start+3)
			}
		}
	}
	end := start + 1
	for end < len(sql) && isIdent[sql[end]] {
		end++
	}
	return l.token(Ident, start, end)
}

// quotedIdent reads a delimited identifier whose text begins at body.
func (l *Lexer) quotedIdent(kind Kind, start, body int) (Token, bool) {
	sql := l.sql
	for i := body; i < len(sql); i++ {
		if sql[i] != '"' {
			continue
		}
		if i+1 < len(sql) && sql[i+1] == '"' {
			i++
			continue
		}
		if i == body {
			return l.fail("zero-length delimited identifier", start, i+1)
		}
		return l.token(kind, start, i+1)
	}
	return l.fail("unterminated quoted identifier", start, len(sql))
}

// dollar reads a parameter, a dollar-quoted string or a lone dollar sign.
func (l *Lexer) dollar(start int) (Token, bool) {
	sql := l.sql
	i := start + 1
	if i < len(sql) && class[sql[i]] == classDigit {
		for i < len(sql) && class[sql[i]] == classDigit {
			i++
		}
		if i < len(sql) && class[sql[i]] == classIdent {
			return l.fail("trailing junk after parameter", start, i+1)
		}
		return l.token(Param, start, i)
	}
	for i < len(sql) && isIdent[sql[i]] && sql[i] != '$' {
		i++
	}
	if i == len(sql) || sql[i] != '$' {
		return l.token(Other, start, start+1)
	}
	delimiter := sql[start : i+1]
	for j := i + 1; j+len(delimiter) <= len(sql); j++ {
		if sql[j] == '$' && sql[j:j+len(delimiter)] == delimiter {
			return l.token(DollarString, start, j+len(delimiter))
		}
	}
	return l.fail("unterminated dollar-quoted string", start, len(sql))
}

// comment recognises a comment at start. It sets l.err if one does not end.
func (l *Lexer) comment(start int) (tok Token, found bool) {
	sql := l.sql
	if start+1 >= len(sql) {
		return Token{}, false
	}
	switch {
	case sql[start] == '-' && sql[start+1] == '-':
		return Token{Kind: LineComment, Start: start, End: lineEnd(sql, start+2)}, true
	case sql[start] == '/' && sql[start+1] == '*':
		depth := 1
		for i := start + 2; i+1 < len(sql); i++ {
			switch {
			case sql[i] == '/' && sql[i+1] == '*':
				depth++
				i++
			case sql[i] == '*' && sql[i+1] == '/':
				depth--
				i++
				if depth == 0 {
					return Token{Kind: BlockComment, Start: start, End: i + 1}, true
				}
			}
		}
		l.fail("unterminated /* comment", start, len(sql))
		return Token{}, true
	}
	return Token{}, false
}

// lineEnd returns the offset of the newline at or after i, or the end of sql.
func lineEnd(sql string, i int) int {
	for i < len(sql) && sql[i] != '\n' && sql[i] != '\r' {
		i++
	}
	return i
}

// maxOperator is NAMEDATALEN - 1: Postgres refuses longer operators.
const maxOperator = 63

// operator reads a run of operator characters: it stops at an embedded
// comment, and gives back a trailing + or - unless the operator contains a
// character that no operator of the SQL standard does, so that =- is two tokens.
func (l *Lexer) operator(start int) (Token, bool) {
	sql := l.sql
	end := start + 1
	qualified := isQualifying(sql[start])
	for end < len(sql) && class[sql[end]] == classOp {
		if next := end + 1; next < len(sql) &&
			(sql[end] == '/' && sql[next] == '*' || sql[end] == '-' && sql[next] == '-') {
			break
		}
		end++
	}
	if end-start > 1 && (sql[end-1] == '+' || sql[end-1] == '-') {
		// The last character itself is + or -, so it never qualifies.
		for i := start + 1; i < end && !qualified; i++ {
			qualified = isQualifying(sql[i])
		}
		for !qualified && end-start > 1 && (sql[end-1] == '+' || sql[end-1] == '-') {
			end--
		}
	}
	if end-start > maxOperator {
		return l.fail("operator too long", start, end)
	}
	return l.token(operatorKind(sql[start:end]), start, end)
}

// isQualifying reports whether c lets an operator end in + or -.
func isQualifying(c byte) bool {
	switch c {
	case '~', '!', '@', '#', '^', '&', '|', '`', '?', '%':
		return true
	}
	return false
}

func operatorKind(op string) Kind {
	switch len(op) {
	case 1:
		switch op[0] {
		case '+', '-', '*', '/', '%', '^', '<', '>', '=':
			return Punct
		}
	case 2:
		switch op {
		case "=>":
			return EqualsGreater
		case "<=":
			return LessEquals
		case ">=":
			return GreaterEquals
		case "<>", "!=":
			return NotEquals
		}
	}
	return Op
}

// punctuation reads what starts with one of , ( ) [ ] . ; :
func (l *Lexer) punctuation(start int) (Token, bool) {
	sql := l.sql
	if start+1 < len(sql) {
		next := sql[start+1]
		switch sql[start] {
		case '.':
			if next == '.' {
				return l.token(DotDot, start, start+2)
			}
			if class[next] == classDigit {
				return l.number(start)
			}
		case ':':
			if next == ':' {
				return l.token(Typecast, start, start+2)
			}
			if next == '=' {
				return l.token(ColonEquals, start, start+2)
			}
		}
	}
	return l.token(Punct, start, start+1)
}
