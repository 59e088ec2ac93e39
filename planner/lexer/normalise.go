package lexer

import (
	"errors"
	"strconv"
	"strings"
)

// LiteralKind is the type class that Postgres gives a literal before it looks
// at its surroundings.
type LiteralKind uint8

// The kinds of literal that a normalised statement leaves open.
const (
	LiteralInt4    LiteralKind = iota + 1 // an integer that fits int4
	LiteralInt8                           // an integer that fits int8 but not int4
	LiteralNumeric                        // an integer beyond int8, or a number with a point or an exponent
	LiteralString                         // a plain '…', of type unknown
)

// Literal is one literal that the key leaves open. A sign in front of a number
// is not part of it: it is an operator of its own in the key.
type Literal struct {
	Kind       LiteralKind
	Start, End int // bytes of the statement's text
	// Slot numbers the distinct literals of the statement, in the order of the
	// text. Literals with one slot have one kind and one value, in every
	// statement with this key. The reverse holds for what the parser compares:
	// '5' and '05' have two slots, although they may turn out equal as integers.
	// Literals that the key keeps are numbered too, so slots may have gaps here.
	Slot int
}

// Normalised is a statement with its literals left open.
type Normalised struct {
	// Key is the cache key: two statements with the same key have the same
	// parse tree, up to the values of Literals, and the same of those are equal.
	// It is not SQL.
	Key []byte
	// Literals are the literals that the key leaves open, in the order of the
	// text. A literal that is not here is in the key with its value.
	Literals []Literal
}

// ErrNotSQL is returned for a text with a character that no statement can
// contain; the parser has the error that the client should see.
var ErrNotSQL = errors.New("normalise statement: invalid character")

// Normaliser normalises statements, reusing its buffers. The zero value is
// ready. Not safe for concurrent use; keep one for each session or a pool.
//
// What the key leaves open: numbers and plain strings in SELECT, INSERT,
// UPDATE, DELETE, MERGE, VALUES and WITH. What it keeps, because the parser
// or the analysis makes something other than a value of it:
//   - every literal of every other statement (SET, FETCH 5, COPY, EXPLAIN …);
//   - ordinals: what stands alone as an element of ORDER BY, GROUP BY (in
//     ROLLUP, CUBE, GROUPING SETS and parentheses too) and DISTINCT ON;
//   - type modifiers: literals in parentheses behind the name of a built-in type
//     that takes modifiers, behind any name that follows :: or AS, and behind any
//     name that itself follows a name (a column definition: AS t(a geometry(4))).
//     There is no other place for a type in these statements but name(…) '…', see
//     below. A function call behind a word that is no keyword, such as
//     AT TIME ZONE f(5), is mistaken for one; that costs cache entries only;
//   - array bounds and subscripts that are plain numbers: int[3], a[1];
//   - typed literals: a string directly behind a name or keyword (date '…',
//     N'…'), unless it is a keyword that a value follows (LIKE '…', THEN '…').
//     A string behind a closing parenthesis (interval(3) '…', f(5) '…') makes
//     the parentheses modifiers in hindsight, so then everything is kept;
//   - B'…' and X'…', whose length is part of their type;
//   - everything, if the statement has a string in another notation (E'…', U&'…',
//     dollar quotes, segments joined over lines), since that may equal a plain one;
//   - 2147483648 and 9223372036854775808, which change type behind a minus sign.
type Normaliser struct {
	Normalised // the result of the last Normalise; valid until the next

	sql      string
	verbatim bool // keep every literal
	frames   []frame
	slots    slotTable

	prev, prev2 previous
	beforeName  previous // what stands in front of the name (a, or a.b.c) that prev ends
	element     bool     // an element of a list of ordinals begins here
}

// previous is what the rules about literals ask of a token already passed.
type previous struct {
	token Token
	word  wordClass // for an Ident
}

// isWord reports whether the token is an identifier or a keyword.
func (p previous) isWord() bool {
	return p.token.Kind == Ident || p.token.Kind == QuotedIdent || p.token.Kind == UnicodeIdent
}

// isName reports whether the token can name a function or a type.
func (p previous) isName() bool { return p.isWord() && p.word&wordNoName == 0 }

// frame is what is known inside one pair of parentheses or brackets.
type frame struct {
	ordinals  bool // commas separate ordinals
	nested    bool // the parentheses are part of an element themselves
	subscript bool // brackets of a subscript or an array bound
	keep      keep
}

// keep says what becomes of literals.
type keep uint8

const (
	keepNot   keep = iota // left open
	keepValue             // kept, and numbered: it may be a value
	keepBare              // kept: it cannot be a value
)

// maxBuffer is the size in bytes up to which buffers are kept for the next statement.
const maxBuffer = 1 << 20

// Normalise sets n.Normalised to the normalised form of sql, which is one
// statement; semicolons and comments at its end do not count. Comments are
// left out of the key except hints (/*+ … */). The error is the lexer's
// *Error or ErrNotSQL; the statement then has no key and must be parsed.
func (n *Normaliser) Normalise(sql string) error {
	if cap(n.Key) > maxBuffer {
		n.Key, n.Literals, n.frames, n.slots = nil, nil, nil, slotTable{}
	}
	n.sql, n.verbatim = sql, false
	again, err := n.run()
	if again {
		n.verbatim = true
		_, err = n.run()
	}
	n.sql = ""
	if err != nil {
		n.Key, n.Literals = n.Key[:0], n.Literals[:0]
	}
	return err
}

// run makes one pass over the text. again asks for another one that keeps
// every literal.
func (n *Normaliser) run() (again bool, err error) {
	n.Key, n.Literals = n.Key[:0], n.Literals[:0]
	n.frames = append(n.frames[:0], frame{})
	n.slots.clear()
	n.prev, n.prev2, n.beforeName, n.element = previous{}, previous{}, previous{}, false
	lexer := NewWithComments(n.sql)
	semicolons := 0
	for {
		tok, ok := lexer.Next()
		if !ok {
			return false, lexer.Err()
		}
		switch tok.Kind {
		case LineComment:
			continue
		case BlockComment:
			if !strings.HasPrefix(n.sql[tok.Start:tok.End], "/*+") {
				continue
			}
		case Other:
			return false, ErrNotSQL
		case Punct:
			if n.sql[tok.Start] == ';' {
				semicolons++
				continue
			}
		}
		if semicolons > 0 && len(n.Key) > 0 {
			if !n.verbatim {
				return true, nil // several statements: the rules are for one
			}
			for ; semicolons > 0; semicolons-- {
				n.Key = append(n.Key, ";\x20"...)
			}
		}
		semicolons = 0
		if len(n.Key) > 0 {
			n.Key = append(n.Key, ' ')
		}
		if tok.Kind == BlockComment {
			n.Key = append(n.Key, n.sql[tok.Start:tok.End]...)
			continue
		}
		if !n.add(tok, &lexer) {
			return true, nil
		}
	}
}

// add appends one token to the key; ok is false if the statement needs
// another pass that keeps every literal.
func (n *Normaliser) add(tok Token, lexer *Lexer) (ok bool) {
	text := n.sql[tok.Start:tok.End]
	current := previous{token: tok}
	element := false
	switch tok.Kind {
	case Ident:
		start := len(n.Key)
		for i := 0; i < len(text); i++ {
			n.Key = append(n.Key, foldByte(text[i]))
		}
		current.word = classOfFolded(n.Key[start:])
		if n.prev.token.Kind == EOF && current.word&wordStatement == 0 {
			n.verbatim = true
		}
		if current.word&wordBy != 0 && n.prev.token.Kind == Ident {
			current.word |= wordCall // ORDER BY f(5): a column named by has no word in front
		}
		element = n.passWord(current)
	case NationalPrefix:
		n.Key = append(n.Key, "\x01n"...)
	case Int, Float:
		if !n.addNumber(tok, lexer) {
			return false
		}
	case String:
		if !n.addString(tok, lexer) {
			return false
		}
	case EscapeString, UnicodeString, DollarString:
		if !n.verbatim {
			return false
		}
		n.Key = append(n.Key, text...)
	default:
		n.Key = append(n.Key, text...)
		if n.prev.token.Kind == EOF && !(tok.Kind == Punct && text[0] == '(') {
			n.verbatim = true
		}
		if tok.Kind == Punct {
			element = n.passPunct(text[0])
		}
	}
	if tok.Kind != Punct || text[0] != '.' {
		if n.prev.token.Kind != Punct || n.sql[n.prev.token.Start] != '.' {
			n.beforeName = n.prev
		}
	}
	n.prev, n.prev2, n.element = current, n.prev, element
	return true
}

// passWord follows a word; element reports whether an ordinal may follow it.
func (n *Normaliser) passWord(current previous) (element bool) {
	top := &n.frames[len(n.frames)-1]
	switch {
	case current.word&wordBy != 0 && n.prev.word&wordOrderGroup != 0:
		top.ordinals = true
		return true
	case current.word&wordQuantifier != 0: // GROUP BY DISTINCT 1
		return n.element
	case current.word&wordStatement != 0: // a subquery, so no modifiers
		top.keep = keepNot
	}
	return false
}

// passPunct follows a punctuation character; element reports whether an
// ordinal may follow it.
func (n *Normaliser) passPunct(c byte) (element bool) {
	top := n.frames[len(n.frames)-1]
	switch c {
	case '(':
		inner := frame{keep: top.keep}
		switch {
		case n.prev.word&wordOn != 0 && n.prev2.word&wordDistinct != 0,
			top.ordinals && n.prev.word&wordGrouping != 0:
			inner.ordinals = true
		case n.element:
			inner.ordinals, inner.nested = true, true
		default:
			if kept := n.modifiers(); kept > inner.keep {
				inner.keep = kept
			}
		}
		n.frames = append(n.frames, inner)
		return inner.ordinals
	case '[':
		n.frames = append(n.frames, frame{keep: top.keep, subscript: n.isSubscript()})
	case ')', ']':
		if len(n.frames) > 1 {
			n.frames = n.frames[:len(n.frames)-1]
		}
	case ',':
		return top.ordinals
	case '+', '-':
		return n.element
	}
	return false
}

// modifiers says what becomes of literals inside an opening parenthesis: they
// may be modifiers of the type that is named in front of it.
func (n *Normaliser) modifiers() keep {
	if !n.prev.isName() {
		return keepNot
	}
	before := n.beforeName
	switch {
	case before.token.Kind == Typecast, before.word&wordAs != 0:
		return keepBare
	case n.prev.word&wordModified != 0, before.isWord() && before.word&wordCall == 0:
		return keepValue
	}
	return keepNot
}

// isSubscript reports whether an opening bracket here begins a subscript or an
// array bound, and not the elements of ARRAY[…] or ARRAY[[…], […]].
func (n *Normaliser) isSubscript() bool {
	switch {
	case n.prev.word&wordArray != 0: // int ARRAY[3], or a value
		before := n.beforeName
		return before.isWord() && before.word&wordValue == 0 || before.token.Kind == Punct && n.sql[before.token.Start] == ')'
	case n.prev.token.Kind == Punct:
		c := n.sql[n.prev.token.Start]
		return c == ')' || c == ']'
	}
	return true
}

// addNumber appends a number.
func (n *Normaliser) addNumber(tok Token, lexer *Lexer) (ok bool) {
	text := n.sql[tok.Start:tok.End]
	if n.verbatim || n.prev.token.Kind == EOF {
		n.verbatim = true
		n.Key = append(n.Key, text...)
		return true
	}
	kept := n.frames[len(n.frames)-1].keep
	kind, value := LiteralNumeric, uint64(0)
	if tok.Kind == Int {
		if v, fits := integerValue(text); fits {
			switch {
			case v < 1<<31:
				kind, value = LiteralInt4, v
			case v < 1<<63:
				kind, value = LiteralInt8, v
			}
			if v == 1<<31 || v == 1<<63 {
				kept = max(kept, keepValue)
			}
		}
		if n.frames[len(n.frames)-1].subscript && n.prev.token.Kind == Punct && n.sql[n.prev.token.Start] == '[' {
			kept = max(kept, keepValue)
		}
	}
	if n.element {
		kept = max(kept, n.ordinal(*lexer))
	}
	n.addLiteral(Literal{Kind: kind, Start: tok.Start, End: tok.End}, value, kept)
	return true
}

// ordinal says what becomes of a literal at the begin of an element of a list
// of ordinals; rest is what follows it.
func (n *Normaliser) ordinal(rest Lexer) keep {
	next, ok := rest.Next()
	for ok && (next.Kind == LineComment || next.Kind == BlockComment) {
		next, ok = rest.Next()
	}
	alone := !ok
	switch {
	case next.Kind == Ident:
		alone = true
		// LIMIT, DESC … end the element; other words, as in 1 IS NULL, may not.
		if classOf(n.sql[next.Start:next.End])&wordEndsElement == 0 {
			return keepValue
		}
	case next.Kind == Punct:
		c := n.sql[next.Start]
		alone = c == ',' || c == ')' || c == ';'
	}
	if !alone {
		return keepNot
	}
	if n.frames[len(n.frames)-1].nested {
		return keepValue // as (1) in (1) + a
	}
	return keepBare
}

// addString appends a plain string.
func (n *Normaliser) addString(tok Token, lexer *Lexer) (ok bool) {
	text := n.sql[tok.Start:tok.End]
	if n.verbatim {
		n.Key = append(n.Key, text...)
		return true
	}
	if n.prev.token.Kind == EOF || isContinued(text) {
		return false
	}
	kept := n.frames[len(n.frames)-1].keep
	switch n.prev.token.Kind {
	case Ident:
		if n.prev.word&wordValue == 0 {
			kept = max(kept, keepValue)
		}
	case QuotedIdent, UnicodeIdent, NationalPrefix:
		kept = max(kept, keepValue)
	case Punct:
		if n.sql[n.prev.token.Start] == ')' {
			return false
		}
	}
	if n.element {
		kept = max(kept, n.ordinal(*lexer))
	}
	n.addLiteral(Literal{Kind: LiteralString, Start: tok.Start, End: tok.End}, 0, kept)
	return true
}

// isContinued reports whether a plain string has several segments.
func isContinued(text string) bool {
	body := text[1 : len(text)-1]
	for {
		i := strings.IndexByte(body, '\'')
		if i < 0 {
			return false
		}
		if i+1 == len(body) || body[i+1] != '\'' {
			return true
		}
		body = body[i+2:]
	}
}

// The letters of the kinds in the key.
var literalLetters = [...]byte{LiteralInt4: 'i', LiteralInt8: 'l', LiteralNumeric: 'n', LiteralString: 's'}

// addLiteral appends a literal as kept says. The key marks what it adds to the
// text by the byte 1, which is no part of any token outside of quotes.
func (n *Normaliser) addLiteral(literal Literal, value uint64, kept keep) {
	if kept != keepNot {
		n.Key = append(n.Key, n.sql[literal.Start:literal.End]...)
		if kept == keepBare {
			return
		}
	}
	literal.Slot = n.slots.slot(n.sql, literal, value)
	n.Key = append(n.Key, 1, literalLetters[literal.Kind])
	n.Key = strconv.AppendInt(n.Key, int64(literal.Slot), 10)
	if kept == keepNot {
		n.Literals = append(n.Literals, literal)
	}
}

// StringValue returns the value of a LiteralString of sql: its text without
// quotes. ok is false for the other kinds.
func StringValue(sql string, lit Literal) (value string, ok bool) {
	if lit.Kind != LiteralString {
		return "", false
	}
	return StringText(sql[lit.Start:lit.End]), true
}

// IntegerValue returns the value of a LiteralInt4 or LiteralInt8 of sql, in
// whatever notation it is written. ok is false for the other kinds.
func IntegerValue(sql string, lit Literal) (value int64, ok bool) {
	if lit.Kind != LiteralInt4 && lit.Kind != LiteralInt8 {
		return 0, false
	}
	v, ok := integerValue(sql[lit.Start:lit.End])
	return int64(v), ok
}
