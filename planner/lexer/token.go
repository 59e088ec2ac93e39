package lexer

import "unicode/utf8"

// Kind is the class of a token. The kinds follow the token classes of
// Postgres's scanner, except where two spellings of one class mean different
// things to us (a dollar-quoted string is a string constant to Postgres).
type Kind uint8

// The kinds of token.
const (
	EOF            Kind = iota
	Ident               // unquoted identifier or keyword, as written (not yet folded)
	QuotedIdent         // "…"
	UnicodeIdent        // U&"…"; its escapes depend on a UESCAPE that may follow
	String              // '…', including continuation segments on later lines
	EscapeString        // E'…'
	UnicodeString       // U&'…'
	BitString           // B'…'
	HexString           // X'…'
	NationalPrefix      // the single letter n in front of N'…'; the String follows as its own token
	DollarString        // $$…$$, $tag$…$tag$
	Int                 // any integer form, whatever its size: 1, 0x1F, 0o17, 0b1, 1_000
	Float               // 1.5, .5, 1., 1e5
	Param               // $1
	Op                  // an operator that is not one of the single characters of Punct
	Punct               // one of , ( ) [ ] . ; : + - * / % ^ < > =
	Typecast            // ::
	DotDot              // ..
	ColonEquals         // :=
	EqualsGreater       // =>
	LessEquals          // <=
	GreaterEquals       // >=
	NotEquals           // <> or !=
	Other               // a character that no statement can hold outside of quotes, such as { or \
	LineComment         // -- to the end of the line; only from NewWithComments
	BlockComment        // /* … */, nested; only from NewWithComments
)

var kindNames = [...]string{
	"EOF", "Ident", "QuotedIdent", "UnicodeIdent", "String", "EscapeString", "UnicodeString",
	"BitString", "HexString", "NationalPrefix", "DollarString", "Int", "Float", "Param", "Op", "Punct",
	"Typecast", "DotDot", "ColonEquals", "EqualsGreater", "LessEquals", "GreaterEquals", "NotEquals",
	"Other", "LineComment", "BlockComment",
}

// String names the kind, for messages and tests.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "Kind?"
}

// Token is one token of a text: text[Start:End], byte offsets.
type Token struct {
	Kind       Kind
	Start, End int
}

// Text returns the token as it stands in sql, the text it was read from.
func (t Token) Text(sql string) string { return sql[t.Start:t.End] }

// IsPunct reports whether the token is the single character c.
func (t Token) IsPunct(sql string, c byte) bool {
	return t.Kind == Punct && sql[t.Start] == c
}

// IsWord reports whether the token is the unquoted word given in lower case.
func (t Token) IsWord(sql, lower string) bool {
	return t.Kind == Ident && EqualFold(sql[t.Start:t.End], lower)
}

// EqualFold reports whether word, folded as Postgres folds an unquoted
// identifier (ASCII letters only), equals lower.
func EqualFold(word, lower string) bool {
	if len(word) != len(lower) {
		return false
	}
	for i := 0; i < len(word); i++ {
		if foldByte(word[i]) != lower[i] {
			return false
		}
	}
	return true
}

func foldByte(c byte) byte {
	if c-'A' < 26 {
		return c + ('a' - 'A')
	}
	return c
}

// maxIdentifier is NAMEDATALEN - 1: Postgres cuts longer identifiers.
const maxIdentifier = 63

// IdentValue returns the name that an Ident or QuotedIdent token of sql stands
// for: folded or unquoted, and cut to 63 bytes at a character boundary as
// Postgres does. ok is false for every other kind.
func IdentValue(sql string, t Token) (name string, ok bool) {
	switch t.Kind {
	case Ident:
		name = foldWord(sql[t.Start:t.End])
	case QuotedIdent:
		name = undouble(sql[t.Start+1:t.End-1], '"')
	default:
		return "", false
	}
	if len(name) > maxIdentifier {
		cut := maxIdentifier
		for cut > 0 && !utf8.RuneStart(name[cut]) {
			cut--
		}
		name = name[:cut]
	}
	return name, true
}

// foldWord lower-cases ASCII letters; it allocates only if there is one.
func foldWord(word string) string {
	for i := 0; i < len(word); i++ {
		if word[i]-'A' < 26 {
			folded := []byte(word)
			for j := i; j < len(folded); j++ {
				folded[j] = foldByte(folded[j])
			}
			return string(folded)
		}
	}
	return word
}

// undouble replaces each doubled quote by one.
func undouble(body string, quote byte) string {
	for i := 0; i < len(body); i++ {
		if body[i] != quote {
			continue
		}
		out := make([]byte, 0, len(body))
		for j := 0; j < len(body); j++ {
			out = append(out, body[j])
			if body[j] == quote {
				j++
			}
		}
		return string(out)
	}
	return body
}
