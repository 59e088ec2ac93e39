package lexer

import "strings"

// Span is one statement of a text: text[Start:End], from its first token to its
// last, without its semicolon.
type Span struct{ Start, End int }

// Split returns the statements of a multi-statement text, divided where
// Postgres divides them: at semicolons outside of parentheses (CREATE RULE …
// DO (a; b)) and of the body of a function written as BEGIN ATOMIC … END.
// Empty statements are left out. Behind a lexical error nothing is divided: the
// rest of the text belongs to the statement it begins in.
func Split(sql string) []Span {
	var (
		spans   []Span
		current = Span{Start: -1}
		words   int // words since the statement's begin, up to four
		routine routineWords
		parens  int
		blocks  int // open BEGIN and CASE of an atomic body
		prev    Token
	)
	lexer := New(sql)
	for {
		tok, ok := lexer.Next()
		if !ok {
			break
		}
		if current.Start < 0 {
			current.Start, words, routine, parens, blocks = tok.Start, 0, 0, 0, 0
		}
		switch tok.Kind {
		case Ident:
			text := sql[tok.Start:tok.End]
			if words < 4 {
				routine.add(words, text)
				words++
			}
			switch {
			case EqualFold(text, "atomic") && prev.IsWord(sql, "begin") && routine.complete() && parens == 0 && blocks == 0:
				blocks = 1
			case blocks > 0 && EqualFold(text, "case"):
				blocks++
			case blocks > 0 && EqualFold(text, "end"):
				blocks--
			}
		case Punct:
			switch sql[tok.Start] {
			case '(':
				parens++
			case ')':
				parens = max(0, parens-1)
			case ';':
				if parens > 0 || blocks > 0 {
					break
				}
				if current.End > current.Start {
					spans = append(spans, current)
				}
				current = Span{Start: -1}
				prev = tok
				continue
			}
		}
		current.End, prev = tok.End, tok
	}
	if lexer.Err() != nil {
		if current.Start < 0 {
			current.Start = skipSpace(sql, prev.End)
		}
		current.End = len(sql)
	}
	if current.Start >= 0 && current.End > current.Start {
		spans = append(spans, current)
	}
	return spans
}

// skipSpace returns the offset of the first byte at or after i that is no white space.
func skipSpace(sql string, i int) int {
	for i < len(sql) && class[sql[i]] == classSpace {
		i++
	}
	return i
}

// routineWords recognises CREATE [OR REPLACE] {FUNCTION | PROCEDURE}: one bit
// for each word that stood where it must.
type routineWords uint8

func (r *routineWords) add(position int, word string) {
	switch position {
	case 0:
		if EqualFold(word, "create") {
			*r |= 1
		}
	case 1:
		if EqualFold(word, "or") {
			*r |= 2
		}
	case 2:
		if EqualFold(word, "replace") {
			*r |= 4
		}
	}
	if position == 1 || position == 3 && *r == 7 {
		if EqualFold(word, "function") || EqualFold(word, "procedure") {
			*r |= 8
		}
	}
}

func (r routineWords) complete() bool { return r == 1|8 || r == 1|2|4|8 }

// firstKeywords are the words that begin statements, so that FirstKeyword
// need not allocate for one in capitals.
var firstKeywords = makeFirstKeywords()

func makeFirstKeywords() map[string]string {
	keywords := make(map[string]string)
	for _, word := range strings.Fields(`abort alter analyze begin call checkpoint close cluster comment commit copy create
		deallocate declare delete discard do drop end execute explain fetch grant import insert listen load lock merge move
		notify prepare reassign refresh reindex release reset revoke rollback savepoint security select set shard show
		start table truncate unlisten unshard update vacuum values with`) {
		keywords[word] = word
	}
	return keywords
}

// FirstKeyword returns the first word of sql in lower case. Comments in front are skipped,
// opening parentheses are not skipped: it is "(" for a text that begins with one,
// and "" for one that begins with anything else, is empty or not lexically sound.
func FirstKeyword(sql string) string {
	lexer := New(sql)
	tok, _ := lexer.Next()
	text := sql[tok.Start:tok.End]
	switch {
	case tok.IsPunct(sql, '('):
		return "("
	case tok.Kind != Ident:
		return ""
	}
	var folded [16]byte
	if len(text) <= len(folded) {
		for i := 0; i < len(text); i++ {
			folded[i] = foldByte(text[i])
		}
		if word, known := firstKeywords[string(folded[:len(text)])]; known {
			return word
		}
	}
	return foldWord(text)
}
