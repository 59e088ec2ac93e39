package planner

import (
	"errors"

	"github.com/shardyard/shardyard/planner/lexer"
)

// maxDepth bounds how deep the parse tree of a text may get. Postgres's parser works in C: it recurses over
// the tree on the C stack, and a tree too deep for that (some ten thousand levels) would not fail but end the
// process. Postgres itself gives up at about the same depth (54001), so nothing that it runs is lost.
const maxDepth = 5000

var errTooDeep = errors.New("the statement is nested too deeply for the parser")

// level is one pair of parentheses or brackets that is open.
type level struct {
	operators int // that lean to the left, since the last that separates expressions
	joins     int // joins and set operations
}

// tooDeep reports whether the parse tree of the text may be deeper than maxDepth.
//
// Invariant: an over-approximation. Depth comes from parentheses, from what the grammar reads to the left
// (operators, casts, COLLATE, AT TIME ZONE, joins, set operations) and from prefixes, whose number the
// parser's own stack bounds. AND and OR make flat lists.
func tooDeep(sql string) bool {
	if len(sql) <= maxDepth { // each level takes a character at least
		return false
	}
	depth := 0
	open := []level{{}}
	for lex := lexer.New(sql); ; {
		token, ok := lex.Next()
		if !ok {
			return false
		}
		top := &open[len(open)-1]
		switch token.Kind {
		case lexer.Punct:
			switch sql[token.Start] {
			case '(', '[':
				open = append(open, level{})
				depth++
			case ')', ']':
				if len(open) > 1 {
					depth -= top.operators + top.joins + 1
					open = open[:len(open)-1]
				}
			case ',':
				depth -= top.operators
				top.operators = 0
			case ';':
				depth -= top.operators + top.joins
				*top = level{}
			case '+', '-', '*', '/', '%', '^', '<', '>', '=':
				top.operators++
				depth++
			}
		case lexer.Op, lexer.Typecast, lexer.LessEquals, lexer.GreaterEquals, lexer.NotEquals:
			top.operators++
			depth++
		case lexer.Ident:
			depth += top.word(sql, token)
		}
		if depth > maxDepth {
			return true
		}
	}
}

// word counts a word in and returns by how much the tree may get deeper.
func (l *level) word(sql string, token lexer.Token) int {
	switch length := token.End - token.Start; {
	case length < 2 || length > 9:
	case token.IsWord(sql, "and"), token.IsWord(sql, "or"), token.IsWord(sql, "select"), token.IsWord(sql, "where"):
		before := l.operators
		l.operators = 0
		return -before
	case token.IsWord(sql, "collate"), token.IsWord(sql, "at"), token.IsWord(sql, "operator"):
		l.operators++
		return 1
	case token.IsWord(sql, "join"), token.IsWord(sql, "union"), token.IsWord(sql, "intersect"), token.IsWord(sql, "except"):
		l.joins++
		return 1
	}
	return 0
}
