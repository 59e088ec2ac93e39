package planner

import "fmt"

// SQLSTATEs that the planner itself gives.
const (
	codeUnsupported  = "0A000"
	codeNoPartition  = "23514"
	codeStaleMap     = "40001"
	codeSyntax       = "42601"
	codeInternal     = "XX000"
	codeBadParameter = "08P01"
	codeGenerated    = "428C9"
)

// Error is a refusal as the client sees it.
type Error struct {
	Code    string // SQLSTATE
	Message string
	Detail  string
	Hint    string
	// Position is the 1-based character of the offending part in the statement's text; 0: none.
	Position int
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// SQLState returns the SQLSTATE.
func (e *Error) SQLState() string { return e.Code }

// ClientFields returns what a client sees besides the message and the SQLSTATE.
func (e *Error) ClientFields() (detail, hint string, position int) {
	return e.Detail, e.Hint, e.Position
}

// refuse is a 0A000 with a reason and a hint.
func refuse(hint, format string, args ...any) *Error {
	return &Error{Code: codeUnsupported, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// at returns a copy of e that points to a character; an error that already has a position keeps it.
func (e *Error) at(position int) *Error {
	if e.Position != 0 || position <= 0 {
		return e
	}
	moved := *e
	moved.Position = position
	return &moved
}

// withoutPosition is the error of a text that is not the client's.
func (e *Error) withoutPosition() *Error {
	copied := *e
	copied.Position = 0
	return &copied
}
