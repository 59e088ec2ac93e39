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
	Code     string // SQLSTATE: 42601, or 22025 for a malformed escape
	Message  string
	Hint     string
	Position int // byte offset of the offending token, from 0
}

func (e *Error) Error() string { return e.Message }

// SQLState returns the SQLSTATE that Postgres reports.
func (e *Error) SQLState() string { return e.Code }

// Err returns the error that ended the tokens, or nil if the text ended.
func (l *Lexer) Err() error {
	if l.err == nil {
		return nil
	}
	return l.err
}

// Next returns the next token; ok is false at the end of the text and at an
// error, which Err tells apart.
func (l *Lexer) Next() (tok Token, ok bool) {
	return Token{Start: len(l.sql), End: len(l.sql)}, false
}
