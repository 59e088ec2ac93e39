package lexer_test

import (
	"errors"
	"strings"
	"testing"

	pg_query "github.com/pganalyze/pg_query_go/v6"

	"github.com/shardyard/shardyard/planner/lexer"
)

// lexicalEdges are texts at the edges of the scanner's rules.
var lexicalEdges = []string{
	"", " ", "\v\f\t\r\n", ";", "--", "-- c", "--\n1", "/**/", "/*/**/*/", "/* a /* b */ c */1", "/***/", "/*/", "/*", "*/", "/* * /",
	"a/*c*/b", "a--c\nb", "a/b", "a-b", "a--b", "+-", "=-", "=-1", "@-", "<--", "<-", "-+", "+/*c*/", "+--", "*/*c*/2", "@/*c*/-", "<=-", "<=-1", "=>-", ">=+", "<>-", "!=-", "!=--x",
	"?-", "%-", "^-", "`-", "|-", "~-", "#-", "&-", "!-", "*-+-", "+*", "<>", "!=", "=>", "<=", ">=", "->", "->>", "#>>", "@>", "||", "!!=", "<=>", "=>>", "==", "!", "~", "?|", "-|-",
	strings.Repeat("@", 63), strings.Repeat("@", 64), strings.Repeat("@", 63) + "-", strings.Repeat("+", 70), "<" + strings.Repeat("-", 70),
	"::", ":=", ":", ":::", "::=", ":==", ":=>", "..", "...", "....", ".", ".5", "..5", "...5", "a.b", "a..b", "1..2", "1...2", "1.", "1.5", "1.5.5", "1.e5", "1.x", ".5x", "1x", "1e", "1e5", "1e+5", "1e-5", "1e+", "1e+x", "1e5x", "1E5", "1.5e5.5", ".5e5",
	"1_000", "1__0", "1_", "_1", "1_000.5_0", "1._5", "1.5_", "1e1_0", "1e1_", "1e_1", "1_e1", "0x1F", "0X1f_f", "0x", "0x_", "0x_1", "0xg", "0x1g", "0x1F.5", "0x1F.e", "0o17", "0o18", "0o8", "0O_7", "0b101", "0b102", "0b2", "0b", "0B1_0", "0b1_", "00", "007", "0e0", "0x1e5", "0x1e+5", "0b1e5", "0b1.5", "0o1..5",
	"1$", "1$1", "1_0$", "1e5$", "1.5e5$", "1e+5$", "1e+5_0$", "1.5$", "1.5_0$", "0x1$", "1.$1", "0b1$a", "1$a", "1$$a$$",
	"2147483647", "2147483648", "9223372036854775807", "9223372036854775808", "99999999999999999999999",
	"$1", "$12", "$1$", "$1$2", "$1.5", "$01", "$1a", "$1_", "$1é", "$", "$a", "$$", "$$$$", "$$a$$", "$$a$b$$", "$a$x$a$", "$a$ $b$ $a$", "$a$$a$", "$a$b$a", "$a$ $a $a$", "$é$x$é$", "$a1$x$a1$", "$1a$x$1a$", "$a$x$A$", "$_$ ' \" -- $_$", "$ $", "a$b", "a$b$c$d$b$", "a$$b", "$a$$b$$a$", "$$$a$$$",
	"'a'", "''", "''''", "'", "'a", "'a''b'", "'a'\n'b'", "'a' 'b'", "'a'\r'b'", "'a' -- c\n 'b'", "'a' -- c", "'a' --c\n--d\n 'b'", "'a'\n/*c*/'b'", "'a'\n\n  'b''c'\n'd'", "'a'\n-", "'a'\n--", "'a'-", "'a\\'", "'a\\'b'", "'\n'", "'a'\v'b'", "'a'\v\n'b'", "'a'\nE'b'",
	"E'a'", "e'\\''", "E'\\'", "E'\\\\'", "E'a''b'", "E'\\101\\x41\\u0041\\U00000041'", "E'\\u004'", "E'\\uD83D\\uDE00'", "E'\\uD83D'", "E'\\uD83Dx'", "E'\\uDE00'", "E'\\U0010FFFF'", "E'\\U00110000'", "E'\\u0000'", "E'\\xg'", "E'\\x'", "E'\\9'", "E'\\\n'", "E'a'\n'\\'b'", "E'\\", "E'a\\", "E'\\xff'", "E'\\0'", "E'\\uD83D\\u0041'", "E'\\uD83D'\n'\\uDE00'", "E'\\U0000D83D\\uDE00'",
	"B'101'", "b'1'\n'0'", "B'1''0'", "B'", "b'2x'", "X'1F'", "x'1'\n'2'", "X'", "x''", "N'a'", "n'a'", "N 'a'", "n", "nn'a'", "N'", "nchar 'a'",
	"U&'a'", "u&'\\0041'", "U&'a''b'", "U&'d!0061' UESCAPE '!'", "U&'", "U&\"a\"", "u&\"a\"\"b\"", "U&\"\"", "U&\"", "U&", "u&a", "U &'a'", "u&-", "u& 'a'", "U&'a'\n'b'", "U&\"a\"\n\"b\"", "ub&'a'",
	`"a"`, `"a""b"`, `""`, `"`, `"a`, `"A b"`, `"é"`, `"a"b`, `"a""`, "\"a\n\"", `"a"'b'`,
	"a", "A", "é", "aé", "É", "a1", "_", "_a", "a_1$", "1a", "日本", "a\u00a0b", "\u00a0", "{", "}", "\\", "\\d", "\x01", "\x7f", "{1}", "[1]", "(1)", "a[1:2]", ";;", "?", "a?b", "a ? b", "??", "a=$1", "a=-1", "a-$1", "a>-1", "a@>'{}'", "é'a'", "e 'a'", "xe'a'", "b1'a'",
}

// TestLexicalEdges compares with pg_query's scanner, where that scans the text;
// FuzzLexer does the same for texts that nobody thought of.
func TestLexicalEdges(t *testing.T) {
	for _, sql := range lexicalEdges {
		checkAgainstPostgres(t, sql)
		checkAgainstPostgres(t, "select "+sql+" from t")
	}
	for _, sql := range corpus(t) {
		checkAgainstPostgres(t, sql)
	}
}

// TestErrors: where Postgres refuses a text, so does the lexer.
func TestErrors(t *testing.T) {
	refused := 0
	for _, sql := range lexicalEdges {
		_, err := pg_query.Scan(sql)
		if err == nil {
			continue
		}
		refused++
		l := lexer.New(sql)
		for {
			if _, ok := l.Next(); !ok {
				break
			}
		}
		var lexical *lexer.Error
		if !errors.As(l.Err(), &lexical) {
			// Whether escapes make valid text is found out by whoever decodes them.
			if sql == `E'\xff'` || sql == `E'\0'` {
				continue
			}
			t.Errorf("%q: no error, Postgres says %v", sql, err)
			continue
		}
		message, _, _ := strings.Cut(err.Error(), " at ")
		if own, _, _ := strings.Cut(lexical.Message, " at "); own != message {
			t.Errorf("%q: %q, Postgres says %q", sql, own, message)
		}
		if lexical.Position < 0 || lexical.Position > len(sql) || len(lexical.SQLState()) != 5 {
			t.Errorf("%q: %+v", sql, lexical)
		}
		if _, ok := l.Next(); ok {
			t.Errorf("%q: a token after the error", sql)
		}
	}
	if refused < 50 {
		t.Errorf("only %d texts are refused by Postgres", refused)
	}
}

// TestParamJunk: Postgres refuses what pg_query's patched scanner lets through.
func TestParamJunk(t *testing.T) {
	for _, sql := range []string{"$1a", "select $1from t", "$1_", "$1é"} {
		l := lexer.New(sql)
		for {
			if _, ok := l.Next(); !ok {
				break
			}
		}
		if l.Err() == nil || !strings.HasPrefix(l.Err().Error(), "trailing junk after parameter at or near") {
			t.Errorf("%q: %v", sql, l.Err())
		}
	}
}

func TestIdentValue(t *testing.T) {
	long := strings.Repeat("a", 62)
	for text, want := range map[string]string{
		"abc": "abc", "ABC": "abc", "aÉ": "aÉ", `"ABC"`: "ABC", `"a""b"`: `a"b`, `"a b"`: "a b",
		long + "bc": long + "b", long + "é": long, `"` + long + `""c"`: long + `"`,
	} {
		l := lexer.New(text)
		tok, _ := l.Next()
		if got, ok := lexer.IdentValue(text, tok); !ok || got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	for _, text := range []string{"1", "'a'", `U&"a"`, "$1", "+"} {
		l := lexer.New(text)
		tok, _ := l.Next()
		if got, ok := lexer.IdentValue(text, tok); ok {
			t.Errorf("%s: %q", text, got)
		}
	}
}

func TestStringText(t *testing.T) {
	for text, want := range map[string]string{
		"''": "", "'a'": "a", "'a''b'": "a'b", "''''": "'", "'a'\n'b'": "ab", "'a' -- c'\n '''b'": "a'b", `'a\'`: `a\`, `'\n'`: `\n`, "'é'": "é",
	} {
		if got := lexer.StringText(text); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestTokenHelpers(t *testing.T) {
	sql := "SELECT ("
	l := lexer.New(sql)
	word, _ := l.Next()
	paren, _ := l.Next()
	if !word.IsWord(sql, "select") || word.IsWord(sql, "selects") || word.IsPunct(sql, 'S') {
		t.Errorf("IsWord of %v", word)
	}
	if !paren.IsPunct(sql, '(') || paren.IsPunct(sql, ')') || paren.IsWord(sql, "(") || paren.Text(sql) != "(" {
		t.Errorf("IsPunct of %v", paren)
	}
	if word.Kind.String() != "Ident" || lexer.BlockComment.String() != "BlockComment" || lexer.Kind(200).String() != "Kind?" {
		t.Error("names of kinds")
	}
	if end, ok := l.Next(); ok || end.Kind != lexer.EOF || l.Err() != nil {
		t.Errorf("end: %v %v", end, l.Err())
	}
}
