package lexer

// Span is one statement of a text: text[Start:End], without its semicolon.
type Span struct{ Start, End int }

// Split returns the statements of a multi-statement text.
func Split(sql string) []Span { return nil }

// FirstKeyword returns the first word of sql in lower case, "(" if it starts
// with a parenthesis, or "" if it starts with anything else or is empty.
func FirstKeyword(sql string) string { return "" }
