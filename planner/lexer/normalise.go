package lexer

// LiteralKind is the type class that Postgres gives a literal before it looks
// at its surroundings.
type LiteralKind uint8

// The kinds of literal that a normalised statement replaces.
const (
	LiteralInt4    LiteralKind = iota + 1 // an integer that fits int4
	LiteralInt8                           // an integer that fits int8 but not int4
	LiteralNumeric                        // an integer beyond int8, or a number with a decimal point
	LiteralString                         // a plain '…' of type unknown
)

// Literal is one literal that the key leaves open. A sign in front of a number
// is not part of it (it is an operator of its own in the key).
type Literal struct {
	Kind       LiteralKind
	Start, End int // bytes of the statement's text
	Slot       int // literals of one kind and one value share a slot
}

// Normalised is a statement with its literals left open.
type Normalised struct {
	// Key is the cache key: two statements with the same key have the same
	// parse tree up to the values of the literals.
	Key []byte
	// Literals are the literals that the key leaves open, in the order of the text.
	Literals []Literal
}

// Normaliser normalises statements, reusing its buffers. The zero value is
// ready. Not safe for concurrent use; keep one a session or a pool of them.
type Normaliser struct {
	Normalised // the result of the last Normalise; valid until the next
}

// Normalise sets n.Normalised to the normalised form of sql, which is one
// statement (a trailing semicolon is fine).
func (n *Normaliser) Normalise(sql string) error { return nil }

// StringValue returns the value of a LiteralString of sql.
func StringValue(sql string, lit Literal) (string, bool) { return "", false }
