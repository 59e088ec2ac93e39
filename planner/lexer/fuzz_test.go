package lexer_test

import (
	"bufio"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	pg_query "github.com/pganalyze/pg_query_go/v6"

	"github.com/shardyard/shardyard/planner/lexer"
)

// corpus returns the statements of testdata/corpus.sql, one a line; \n in a
// line stands for a newline.
func corpus(t testing.TB) []string {
	t.Helper()
	file, err := os.Open("testdata/corpus.sql")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var statements []string
	scanner := bufio.NewScanner(file)
	for scanner.Scan() {
		if line := scanner.Text(); line != "" && !strings.HasPrefix(line, "##") {
			statements = append(statements, strings.ReplaceAll(line, `\n`, "\n"))
		}
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
	return statements
}

// kindsOf returns the kinds that a token of pg_query's may have here.
func kindsOf(token pg_query.Token) []lexer.Kind {
	switch token {
	case pg_query.Token_IDENT:
		return []lexer.Kind{lexer.Ident, lexer.QuotedIdent}
	case pg_query.Token_UIDENT:
		return []lexer.Kind{lexer.UnicodeIdent}
	case pg_query.Token_SCONST:
		return []lexer.Kind{lexer.String, lexer.EscapeString, lexer.DollarString}
	case pg_query.Token_USCONST:
		return []lexer.Kind{lexer.UnicodeString}
	case pg_query.Token_BCONST:
		return []lexer.Kind{lexer.BitString}
	case pg_query.Token_XCONST:
		return []lexer.Kind{lexer.HexString}
	case pg_query.Token_ICONST:
		return []lexer.Kind{lexer.Int}
	case pg_query.Token_FCONST:
		return []lexer.Kind{lexer.Float, lexer.Int}
	case pg_query.Token_PARAM:
		return []lexer.Kind{lexer.Param}
	case pg_query.Token_Op:
		return []lexer.Kind{lexer.Op}
	case pg_query.Token_TYPECAST:
		return []lexer.Kind{lexer.Typecast}
	case pg_query.Token_DOT_DOT:
		return []lexer.Kind{lexer.DotDot}
	case pg_query.Token_COLON_EQUALS:
		return []lexer.Kind{lexer.ColonEquals}
	case pg_query.Token_EQUALS_GREATER:
		return []lexer.Kind{lexer.EqualsGreater}
	case pg_query.Token_LESS_EQUALS:
		return []lexer.Kind{lexer.LessEquals}
	case pg_query.Token_GREATER_EQUALS:
		return []lexer.Kind{lexer.GreaterEquals}
	case pg_query.Token_NOT_EQUALS:
		return []lexer.Kind{lexer.NotEquals}
	case pg_query.Token_SQL_COMMENT:
		return []lexer.Kind{lexer.LineComment}
	case pg_query.Token_C_COMMENT:
		return []lexer.Kind{lexer.BlockComment}
	case pg_query.Token_NCHAR:
		return []lexer.Kind{lexer.Ident, lexer.NationalPrefix}
	}
	if token < 256 {
		if strings.IndexByte(",()[].;:+-*/%^<>=", byte(token)) >= 0 {
			return []lexer.Kind{lexer.Punct}
		}
		return []lexer.Kind{lexer.Other}
	}
	return []lexer.Kind{lexer.Ident} // a keyword
}

func kindIn(kind lexer.Kind, kinds []lexer.Kind) bool {
	for _, k := range kinds {
		if k == kind {
			return true
		}
	}
	return false
}

// checkAgainstPostgres compares the lexer's tokens with those of pg_query's scanner.
func checkAgainstPostgres(t *testing.T, sql string) {
	t.Helper()
	var own []lexer.Token
	l := lexer.NewWithComments(sql)
	last := 0
	for {
		tok, ok := l.Next()
		if !ok {
			break
		}
		if tok.Start < last || tok.End <= tok.Start || tok.End > len(sql) {
			t.Fatalf("token %v out of order in %q", tok, sql)
		}
		last = tok.End
		own = append(own, tok)
	}
	theirs, err := pg_query.Scan(sql)
	if err != nil {
		return // that the lexer did not panic is all there is to check
	}
	if err := l.Err(); err != nil && !strings.HasPrefix(err.Error(), "trailing junk after parameter") {
		t.Fatalf("%q: %v, but Postgres scans it", sql, err)
	}
	for i, want := range theirs.Tokens {
		if i >= len(own) {
			if l.Err() != nil {
				return // pg_query leaves out Postgres's rule about junk after a parameter
			}
			t.Fatalf("%q: %d tokens, Postgres has %d", sql, len(own), len(theirs.Tokens))
		}
		got := own[i]
		if got.Start == int(want.Start) && got.End > int(want.End) && kindIn(got.Kind, kindsOf(want.Token)) && strings.Contains(sql[want.End:got.End], "--") {
			return // pg_query leaves out Postgres's rule that -- comments may stand between the segments of a string
		}
		if got.Start != int(want.Start) || got.End != int(want.End) {
			t.Fatalf("%q: token %d is %v %d-%d, Postgres has %v %d-%d", sql, i, got.Kind, got.Start, got.End, want.Token, want.Start, want.End)
		}
		if !kindIn(got.Kind, kindsOf(want.Token)) {
			t.Fatalf("%q: token %d %q is %v, Postgres has %v", sql, i, got.Text(sql), got.Kind, want.Token)
		}
	}
	if len(own) != len(theirs.Tokens) {
		t.Fatalf("%q: %d tokens, Postgres has %d", sql, len(own), len(theirs.Tokens))
	}
}

// scannable reports whether pg_query's scanner takes the text as it is: a C
// string in valid UTF-8.
func scannable(sql string) bool {
	return utf8.ValidString(sql) && strings.IndexByte(sql, 0) < 0
}

// FuzzLexer: the same tokens as Postgres's scanner, whenever that scans the
// text; never a panic; and the functions that rest on the lexer hold their own
// promises.
func FuzzLexer(f *testing.F) {
	for _, sql := range corpus(f) {
		f.Add(sql)
	}
	for _, sql := range lexicalEdges {
		f.Add(sql)
	}
	var normaliser lexer.Normaliser
	f.Fuzz(func(t *testing.T, sql string) {
		last := 0
		for _, span := range lexer.Split(sql) {
			if span.Start < last || span.End <= span.Start || span.End > len(sql) {
				t.Fatalf("span %v out of order in %q", span, sql)
			}
			last = span.End
		}
		lexer.FirstKeyword(sql)
		if err := normaliser.Normalise(sql); err == nil {
			for _, literal := range normaliser.Literals {
				if literal.Kind == lexer.LiteralString {
					if _, ok := lexer.StringValue(sql, literal); !ok {
						t.Fatalf("no value of %v in %q", literal, sql)
					}
				}
			}
		}
		if scannable(sql) {
			checkAgainstPostgres(t, sql)
		}
	})
}
