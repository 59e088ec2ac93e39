package planner

import (
	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/lexer"
)

// insertLayout says where the parts of an INSERT … VALUES stand in one text of it; all in bytes. A plan serves
// texts of different lengths, so it is found by counting tokens.
type insertLayout struct {
	sql string
	// name is the end of the table's name and alias.
	name int
	// listOpen and listClose are the parentheses of the column list; listClose is 0 if there is none.
	listOpen, listClose int
	// values is the end of the word VALUES; with DEFAULT VALUES the beginning of these two words.
	values int
	// word is the beginning of VALUES or DEFAULT VALUES; overriding is the clause OVERRIDING … VALUE, empty if there is none.
	word       int
	overriding span
	rows       []span
	// tail is where what follows the rows begins: ON CONFLICT, RETURNING, or nothing.
	tail   int
	params []paramToken // those of the whole text
}

// span is a stretch of a text.
type span struct{ start, end int }

// paramToken is one mention of a parameter.
type paramToken struct {
	span
	number int
}

// layoutReader reads the tokens of an INSERT.
type layoutReader struct {
	lex    lexer.Lexer
	sql    string
	params []paramToken
	token  lexer.Token
	ok     bool
}

func (r *layoutReader) next() {
	r.token, r.ok = r.lex.Next()
	if r.ok && r.token.Kind == lexer.Param {
		r.params = append(r.params, paramToken{span{r.token.Start, r.token.End}, paramNumber(r.token.Text(r.sql))})
	}
}

func (r *layoutReader) punct(c byte) bool { return r.ok && r.token.IsPunct(r.sql, c) }

// paramNumber is the number of a token such as $12; 0 if it is beyond any parameter.
func paramNumber(text string) int {
	n := 0
	for _, c := range []byte(text[1:]) {
		if c < '0' || c > '9' || n > 1<<20 {
			return 0
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// group passes a pair of parentheses and what is in them; the token is that behind them.
func (r *layoutReader) group() (s span, ok bool) {
	s.start = r.token.Start
	for depth := 0; r.ok; r.next() {
		switch {
		case r.punct('('), r.punct('['):
			depth++
		case r.punct(')'), r.punct(']'):
			depth--
		}
		if depth == 0 {
			s.end = r.token.End
			r.next()
			return s, true
		}
	}
	return s, false
}

// layout reads an INSERT whose table name and alias end with the token of the ordinal start-1. ok is false for one that is
// not an INSERT … VALUES (…) or DEFAULT VALUES.
func layout(sql string, start int) (l insertLayout, ok bool) {
	r := &layoutReader{lex: lexer.New(sql), sql: sql}
	for range start {
		if r.next(); !r.ok {
			return l, false
		}
	}
	l.sql, l.name = sql, r.token.End
	r.next()
	if r.punct('(') {
		list, closed := r.group()
		if !closed {
			return l, false
		}
		l.listOpen, l.listClose = list.start, list.end-1
	}
	if r.ok && r.token.IsWord(sql, "overriding") {
		l.overriding.start = r.token.Start
		for range 3 { // OVERRIDING USER VALUE
			l.overriding.end = r.token.End
			r.next()
		}
	}
	l.word = r.token.Start
	if r.ok && r.token.IsWord(sql, "default") {
		l.values = r.token.Start
		r.next()
		l.rows = []span{{r.token.End, r.token.End}}
		ok = r.ok && r.token.IsWord(sql, "values")
		l.tail = r.token.End
		r.next()
	} else {
		ok = l.readRows(r)
	}
	for r.ok {
		r.next()
	}
	l.params = r.params
	return l, ok && r.lex.Err() == nil
}

func (l *insertLayout) readRows(r *layoutReader) bool {
	if !r.ok || !r.token.IsWord(r.sql, "values") {
		return false
	}
	l.values = r.token.End
	for {
		r.next()
		if !r.punct('(') {
			return false
		}
		row, closed := r.group()
		if !closed {
			return false
		}
		l.rows = append(l.rows, row)
		l.tail = row.end
		if !r.punct(',') {
			return true
		}
	}
}

// cut finds the values of one row.
func (l *insertLayout) cut(row int, into []span) []span {
	into = into[:0]
	s := l.rows[row]
	if s.start == s.end {
		return into // DEFAULT VALUES
	}
	lex := lexer.New(l.sql[s.start+1 : s.end-1])
	depth, value := 0, span{-1, -1}
	for {
		token, ok := lex.Next()
		text := l.sql[s.start+1:]
		if !ok || depth == 0 && token.IsPunct(text, ',') {
			into = append(into, value)
			value = span{-1, -1}
			if !ok {
				return into
			}
			continue
		}
		switch {
		case token.IsPunct(text, '('), token.IsPunct(text, '['):
			depth++
		case token.IsPunct(text, ')'), token.IsPunct(text, ']'):
			depth--
		}
		if value.start < 0 {
			value.start = s.start + 1 + token.Start
		}
		value.end = s.start + 1 + token.End
	}
}

// behindTarget is the number of tokens up to the end of an INSERT's table name and alias; ok is false where they cannot be counted.
func behindTarget(sql string, rv *rangeVar) (n int, ok bool) {
	names := 1
	if rv.Schemaname != "" {
		names += 2
	}
	if rv.Catalogname != "" {
		names += 2
	}
	if rv.Alias != nil {
		names += 2
	}
	lex := lexer.New(sql)
	for {
		token, more := lex.Next()
		if !more || token.Start > int(rv.Location) {
			return 0, false
		}
		n++
		if token.Start < int(rv.Location) {
			continue
		}
		for token.Kind != lexer.UnicodeIdent && more && names > 1 {
			names--
			n++
			token, more = lex.Next()
		}
		return n, more && token.Kind != lexer.UnicodeIdent // its UESCAPE clause is not counted
	}
}

// quotedNames is a list of column names.
func quotedNames(columns []string) string {
	text := ""
	for i, name := range columns {
		if i > 0 {
			text += ", "
		}
		text += directory.QuoteIdentifier(name)
	}
	return text
}
