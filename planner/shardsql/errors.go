package shardsql

import (
	"errors"
	"unicode/utf8"

	"github.com/shardyard/shardyard/planner/lexer"
)

// Error is a refusal as a client sees it.
type Error struct {
	Code     string // SQLSTATE: 42601 syntax, 0A000 refused feature, 42710 and 42701 duplicates, 22023 number out of range
	Message  string
	Hint     string
	Position int // 1-based character in the text given to Parse; 0 when there is none
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// SQLState returns the SQLSTATE.
func (e *Error) SQLState() string { return e.Code }

// ClientFields returns what a client sees besides the message and the SQLSTATE.
func (e *Error) ClientFields() (detail, hint string, position int) { return "", e.Hint, e.Position }

// The SQLSTATEs of refusals.
const (
	codeSyntax          = "42601"
	codeUnsupported     = "0A000"
	codeDuplicateColumn = "42701"
	codeDuplicateObject = "42710"
	codeInvalidValue    = "22023"
)

// position returns the 1-based character at a byte offset of the text.
func position(sql string, offset int) int {
	return utf8.RuneCountInString(sql[:min(offset, len(sql))]) + 1
}

// failAt returns an error at token i; i may be behind the last token.
func (p *parser) failAt(i int, code, message, hint string) *Error {
	return &Error{Code: code, Message: message, Hint: hint, Position: p.positionOf(i)}
}

// syntaxError returns Postgres's syntax error at token i.
func (p *parser) syntaxError(i int, hint string) *Error {
	message := "syntax error at end of input"
	if i < len(p.tokens) {
		message = `syntax error at or near "` + p.text(i) + `"`
	}
	return p.failAt(i, codeSyntax, message, hint)
}

// lexicalError passes on what the lexer found.
func lexicalError(sql string, err error) *Error {
	var lexical *lexer.Error
	if !errors.As(err, &lexical) {
		return &Error{Code: codeSyntax, Message: err.Error()}
	}
	return &Error{Code: lexical.Code, Message: lexical.Message, Hint: lexical.Hint, Position: position(sql, lexical.Position)}
}
