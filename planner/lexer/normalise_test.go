package lexer_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	pg_query "github.com/pganalyze/pg_query_go/v6"

	"github.com/shardyard/shardyard/planner/lexer"
)

var seed = flag.Uint64("seed", 0, "seed of the generated statements; 0 takes one from the clock")

func newRand(t *testing.T) *rand.Rand {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", s)
	return rand.New(rand.NewPCG(s, s))
}

// key returns the key of sql with the marks spelt readably, and its literals.
func key(t testing.TB, sql string) (string, []lexer.Literal) {
	t.Helper()
	var n lexer.Normaliser
	if err := n.Normalise(sql); err != nil {
		t.Fatalf("normalise %q: %v", sql, err)
	}
	return strings.ReplaceAll(string(n.Key), "\x01", "?"), append([]lexer.Literal(nil), n.Literals...)
}

func TestNormalise(t *testing.T) {
	for _, c := range []struct{ sql, want string }{
		{"", ""},
		{" ; ", ""},
		{"SELECT  *\n\tFROM T -- c\n WHERE k=5 ;;", "select * from t where k = ?i0"},
		{"select 5, 6, 5, 05, 0x5", "select ?i0 , ?i1 , ?i0 , ?i0 , ?i0"},
		{"select 'a', 'b', 'a', ''", "select ?s0 , ?s1 , ?s0 , ?s2"},
		{"select 5, '5', 5.0, 2147483649, 9223372036854775809", "select ?i0 , ?s1 , ?n2 , ?l3 , ?n4"},
		{"select -5, - 5.5", "select - ?i0 , - ?n1"},
		{"select -2147483648, 9223372036854775808", "select - 2147483648?l0 , 9223372036854775808?n1"},
		{"select 0x7fffffff, 0x80000000, 0xFFFFFFFF", "select ?i0 , 0x80000000?l1 , ?l2"},
		{"select a from t where k=$1 order by 1, 2 desc limit 5", "select a from t where k = $1 order by 1 , 2 desc limit ?i0"},
		{"select a from t order by 1+a, f(2), (3), -4", "select a from t order by ?i0 + a , f ( ?i1 ) , ( 3?i2 ) , - 4"},
		{"select a from t group by rollup(1,(2,3)), a, 4", "select a from t group by rollup ( 1 , ( 2?i0 , 3?i1 ) ) , a , 4"},
		{"select distinct on (1) a from t", "select distinct on ( 1 ) a from t"},
		{"select a::varchar(10), a::foo(3), f(3), cast(a as foo(4))", "select a :: varchar ( 10 ) , a :: foo ( 3 ) , f ( ?i0 ) , cast ( a as foo ( 4 ) )"},
		{"select date '2026-01-01', '2026-01-01', interval '1' day", "select date '2026-01-01'?s0 , ?s0 , interval '1'?s1 day"},
		{"select numeric(5,2) '1.5', 7", "select numeric ( 5 , 2 ) '1.5' , 7"},
		{"select E'a', 'b', 5", "select E'a' , 'b' , 5"},
		{"select B'1', X'F', N'a', n 'a'", "select B'1' , X'F' , ?n 'a'?s0 , n 'a'?s0"},
		{"select a[1], a[b+1], array[1,2], a::int[3]", "select a [ 1?i0 ] , a [ b + ?i0 ] , array [ ?i0 , ?i1 ] , a :: int [ 3?i2 ]"},
		{"select * from t where v like 'a' and v in ('a','b') and w = any(array['a'])", "select * from t where v like ?s0 and v in ( ?s0 , ?s1 ) and w = any ( array [ ?s0 ] )"},
		{"insert into t values (1,'a')", "insert into t values ( ?i0 , ?s1 )"},
		{"set work_mem=5", "set work_mem = 5"},
		{"fetch 5 from c", "fetch 5 from c"},
		{"explain select 5", "explain select 5"},
		{"select 1; select 2", "select 1;  select 2"},
		{"/*+ a */ select /* b */ /*+ c */ 1", "/*+ a */ select /*+ c */ ?i0"},
		{`select "A", a, Ä, ä`, `select "A" , a , Ä , ä`},
	} {
		if got, _ := key(t, c.sql); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.sql, got, c.want)
		}
	}
}

func TestNormaliseErrors(t *testing.T) {
	var n lexer.Normaliser
	for sql, want := range map[string]string{
		"select 'a": "unterminated quoted string", "select 1a": "trailing junk", "select {": "invalid character", `select \d`: "invalid character", "select $1a": "trailing junk", "select \x01": "invalid character",
	} {
		err := n.Normalise(sql)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", sql, err)
		}
		if len(n.Key) != 0 || len(n.Literals) != 0 {
			t.Errorf("%q: a key despite the error", sql)
		}
	}
	if err := n.Normalise("select {"); !errors.Is(err, lexer.ErrNotSQL) {
		t.Error(err)
	}
}

func TestLiteralValues(t *testing.T) {
	sql := "select 0x1F, 1_000, 'a''b', 1.5, 9223372036854775807"
	_, literals := key(t, sql)
	var got []string
	for _, literal := range literals {
		text, isString := lexer.StringValue(sql, literal)
		value, isInteger := lexer.IntegerValue(sql, literal)
		got = append(got, strings.TrimSpace(fmt.Sprintln(literal.Kind, text, isString, value, isInteger)))
	}
	want := []string{"1 false 31 true", "1 false 1000 true", "4 a'b true 0 false", "3 false 0 false", "2 false 9223372036854775807 true"}
	for i := range want {
		if strings.Join(strings.Fields(got[i]), " ") != want[i] {
			t.Errorf("%d: %s, want %s", i, got[i], want[i])
		}
	}
}

func TestWordClassesAreFound(t *testing.T) {
	if word := lexer.WordClassesDiffer("a", "x", "orders", "selec", "selects", "sEt", "nulle", "customer_id", "this_is_not_a_word_with_a_class", "ä"); word != "" {
		t.Errorf("%q has another class", word)
	}
}

// TestKeywordClasses holds the normaliser's word lists against Postgres's keywords.
func TestKeywordClasses(t *testing.T) {
	check := func(words []string, allowed ...pg_query.KeywordKind) {
		for _, word := range words {
			result, err := pg_query.Scan(word)
			if err != nil {
				t.Fatal(err)
			}
			kind, ok := result.Tokens[0].KeywordKind, false
			for _, a := range allowed {
				ok = ok || a == kind
			}
			if !ok {
				t.Errorf("%s is of %v", word, kind)
			}
		}
	}
	check(lexer.CallWords(), pg_query.KeywordKind_RESERVED_KEYWORD, pg_query.KeywordKind_TYPE_FUNC_NAME_KEYWORD)
	check(lexer.NoNameWords(), pg_query.KeywordKind_RESERVED_KEYWORD, pg_query.KeywordKind_COL_NAME_KEYWORD)
	if lexer.MaxFoldedWord() > 20 {
		t.Error("classOf cuts words")
	}
}

// tree returns the parse tree of sql without locations and with the values of
// the constants at literals replaced by their slots; ok is false if it does not parse.
func tree(t testing.TB, sql string, literals []lexer.Literal) (result any, ok bool) {
	t.Helper()
	text, err := pg_query.ParseToJSON(sql)
	if err != nil {
		return nil, false
	}
	var parsed any
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&parsed); err != nil {
		t.Fatal(err)
	}
	replaced := make(map[int]bool)
	parsed = replaceConstants(sql, parsed, literals, replaced)
	return parsed, true
}

func replaceConstants(sql string, node any, literals []lexer.Literal, replaced map[int]bool) any {
	switch node := node.(type) {
	case []any:
		for i := range node {
			node[i] = replaceConstants(sql, node[i], literals, replaced)
		}
	case map[string]any:
		if constant, ok := node["A_Const"].(map[string]any); ok {
			if slot, found := slotAt(sql, constant, literals); found {
				return slot
			}
		}
		for name, child := range node {
			if strings.HasSuffix(name, "location") || name == "stmt_len" {
				delete(node, name)
				continue
			}
			node[name] = replaceConstants(sql, child, literals, replaced)
		}
	}
	return node
}

// slotAt describes the constant by the slot of its literal, if that is left open.
func slotAt(sql string, constant map[string]any, literals []lexer.Literal) (string, bool) {
	location := 0
	if number, ok := constant["location"].(json.Number); ok {
		location, _ = strconv.Atoi(number.String())
	}
	if location < 0 { // a constant that the grammar made up
		return "", false
	}
	sign := ""
	l := lexer.New(sql[location:])
	for {
		tok, ok := l.Next()
		if !ok {
			return "", false
		}
		text := tok.Text(sql[location:])
		if text == "-" || text == "(" || text == "+" { // doNegate folds signs into constants
			sign += text
			continue
		}
		for _, literal := range literals {
			if literal.Start == location+tok.Start {
				kind := ""
				for _, name := range []string{"ival", "fval", "sval", "boolval", "bsval", "isnull"} {
					if _, ok := constant[name]; ok {
						kind = name
					}
				}
				return fmt.Sprintf("%s %s slot %d", sign, kind, literal.Slot), true
			}
		}
		return "", false
	}
}

// randomLiteral returns the text of a literal of a kind. Few values make
// accidental equality likely.
func randomLiteral(r *rand.Rand, kind lexer.LiteralKind) string {
	switch kind {
	case lexer.LiteralInt4:
		return []string{"0", "1", "2", "3", "7", "007", "2147483647", "0x10", "16", "1_0"}[r.IntN(10)]
	case lexer.LiteralInt8:
		return []string{"2147483649", "4294967296", "0x100000000", "9223372036854775807"}[r.IntN(4)]
	case lexer.LiteralNumeric:
		return []string{"1.5", "0.5", ".5", "1.", "1e5", "2.50", "18446744073709551616", "1_0.5"}[r.IntN(8)]
	}
	return []string{"'a'", "'b'", "''", "'it''s'", "'today'", "'5'", "'x -- y'", `'\'`, "'/*+ h */'", "'?s0'"}[r.IntN(10)]
}

// mutate replaces literals of sql. Every literal token may change if any is
// true, only those that the key leaves open otherwise.
func mutate(r *rand.Rand, sql string, literals []lexer.Literal, any bool) string {
	values := make(map[int]string)
	replacement := make(map[int]string)
	for _, literal := range literals {
		if _, ok := values[literal.Slot]; !ok {
			values[literal.Slot] = randomLiteral(r, literal.Kind)
		}
		replacement[literal.Start] = values[literal.Slot]
	}
	var out strings.Builder
	last := 0
	l := lexer.New(sql)
	for {
		tok, ok := l.Next()
		if !ok {
			break
		}
		text, found := replacement[tok.Start]
		if any && r.IntN(2) == 0 {
			switch tok.Kind {
			case lexer.Int:
				text, found = randomLiteral(r, lexer.LiteralKind(1+r.IntN(2))), true
			case lexer.Float:
				text, found = randomLiteral(r, lexer.LiteralNumeric), true
			case lexer.String:
				text, found = randomLiteral(r, lexer.LiteralString), true
			}
		}
		if found {
			out.WriteString(sql[last:tok.Start] + text)
			last = tok.End
		}
	}
	return out.String() + sql[last:]
}

// disguise changes what the key must not depend on: white space, comments, and
// the case of words.
func disguise(r *rand.Rand, sql string) string {
	var out strings.Builder
	l := lexer.NewWithComments(sql)
	last, word := 0, ""
	for {
		tok, ok := l.Next()
		if !ok {
			break
		}
		gap := sql[last:tok.Start]
		if gap != "" && r.IntN(2) == 0 {
			gap = []string{" ", "\t ", "\f", " /* x */ ", "/*x*/", " -- x\n"}[r.IntN(6)]
			// pg_query stumbles over comments behind the words that Postgres's parser looks beyond.
			if strings.Contains(" not nulls with without format uescape ", " "+word+" ") || strings.HasPrefix(word, "u&") {
				gap = "\t"
			}
		}
		text := tok.Text(sql)
		word = strings.ToLower(text)
		if tok.Kind == lexer.Ident && r.IntN(2) == 0 {
			text = strings.Map(func(c rune) rune {
				if c >= 'a' && c <= 'z' {
					return c - 'a' + 'A'
				}
				return c
			}, text)
		}
		if tok.Kind == lexer.LineComment {
			text += "\n"
		}
		out.WriteString(gap + text)
		last = tok.End
	}
	return out.String()
}

// TestSameKeySameTree is the promise of the key: whatever the literals of a
// statement become, if the key stays the parse tree does, up to the values of
// the literals left open and with the same of them equal.
func TestSameKeySameTree(t *testing.T) {
	r := newRand(t)
	same, changed, kept := 0, 0, 0
	for _, sql := range corpus(t) {
		original, literals := key(t, sql)
		want, ok := tree(t, sql, literals)
		if !ok {
			t.Fatalf("%q does not parse", sql)
		}
		fingerprint, err := pg_query.Fingerprint(sql)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < 60; i++ {
			other := disguise(r, mutate(r, sql, literals, i%2 == 1))
			otherKey, otherLiterals := key(t, other)
			if otherKey != original {
				changed++
				continue
			}
			same++
			kept += len(literals)
			if len(literals) != len(otherLiterals) {
				t.Fatalf("%q and %q have key %q but %d and %d literals", sql, other, original, len(literals), len(otherLiterals))
			}
			for j := range literals {
				if literals[j].Slot != otherLiterals[j].Slot || literals[j].Kind != otherLiterals[j].Kind {
					t.Fatalf("%q and %q have key %q but literals %v and %v", sql, other, original, literals, otherLiterals)
				}
			}
			got, ok := tree(t, other, otherLiterals)
			if !ok {
				t.Fatalf("%q has the key of %q but does not parse", other, sql)
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%q and %q have key %q but different trees:\n%v\n%v", sql, other, original, want, got)
			}
			if f, err := pg_query.Fingerprint(other); err != nil || f != fingerprint {
				t.Fatalf("%q and %q have key %q but fingerprints %s and %s (%v)", sql, other, original, fingerprint, f, err)
			}
		}
	}
	t.Logf("%d texts with the key, %d with another", same, changed)
	if same < 2000 || changed < 500 || kept < 4000 {
		t.Errorf("the generated texts say little: %d with the key, %d with another, %d literals", same, changed, kept)
	}
}

// TestKeysTellApart: tokens changed, left out or doubled give another key or the same tree.
func TestKeysTellApart(t *testing.T) {
	r := newRand(t)
	keys := make(map[string]string)
	compared := 0
	see := func(sql string) {
		var n lexer.Normaliser
		if n.Normalise(sql) != nil {
			return
		}
		k := string(n.Key)
		if first, ok := keys[k]; ok && first != sql {
			var m lexer.Normaliser
			if err := m.Normalise(first); err != nil {
				t.Fatal(err)
			}
			a, aOK := tree(t, first, m.Literals)
			b, bOK := tree(t, sql, n.Literals)
			if aOK != bOK || !reflect.DeepEqual(a, b) {
				t.Fatalf("%q and %q have key %q but different trees:\n%v\n%v", first, sql, k, a, b)
			}
			compared++
			return
		}
		keys[k] = sql
	}
	statements := corpus(t)
	for _, sql := range statements {
		see(sql)
		var tokens []string
		l := lexer.New(sql)
		for tok, ok := l.Next(); ok; tok, ok = l.Next() {
			tokens = append(tokens, tok.Text(sql))
		}
		for i := 0; i < 30; i++ {
			edited := append([]string(nil), tokens...)
			at, from := r.IntN(len(tokens)), r.IntN(len(tokens))
			switch r.IntN(4) {
			case 0:
				edited[at] = tokens[from]
			case 1:
				edited = append(edited[:at], edited[at+1:]...)
			case 2:
				edited[at], edited[from] = edited[from], edited[at]
			case 3:
				edited[at] = []string{"n", "N'a'", "'a'", "5", "6", "(", ")", ",", "f(5)", "::foo(5)", "[5]", "-", "by", "order by", "as foo(6)", "values", ".", "numeric", "(5) 'x'", "array[5]"}[r.IntN(20)]
			}
			see(strings.Join(edited, " "))
			see(mutateAny(r, strings.Join(edited, " ")))
		}
	}
	t.Logf("%d keys, %d comparisons", len(keys), compared)
	if compared < 1000 {
		t.Errorf("only %d comparisons", compared)
	}
}

func mutateAny(r *rand.Rand, sql string) string {
	var n lexer.Normaliser
	if n.Normalise(sql) != nil {
		return sql
	}
	return mutate(r, sql, n.Literals, r.IntN(2) == 0)
}

// TestNormaliserReuse: a result does not depend on the statements before it.
func TestNormaliserReuse(t *testing.T) {
	var n lexer.Normaliser
	big := "select " + strings.Repeat("'abcdefgh', 12345, ", 100_000) + "1"
	for round := 0; round < 2; round++ {
		for _, sql := range append(corpus(t), big, "select 'x", "select 1") {
			var fresh lexer.Normaliser
			err, freshErr := n.Normalise(sql), fresh.Normalise(sql)
			if (err == nil) != (freshErr == nil) || string(n.Key) != string(fresh.Key) || !reflect.DeepEqual(append([]lexer.Literal{}, n.Literals...), append([]lexer.Literal{}, fresh.Literals...)) {
				t.Fatalf("%.100q differs on reuse", sql)
			}
		}
	}
	if cap(n.Key) > 2<<20 {
		t.Errorf("a buffer of %d bytes is kept", cap(n.Key))
	}
}

func TestManyLiterals(t *testing.T) {
	var sql strings.Builder
	sql.WriteString("select 0")
	for i := 1; i < 5000; i++ {
		fmt.Fprintf(&sql, ", %d, '%d', %d", i, i, i/2)
	}
	_, literals := key(t, sql.String())
	slots := make(map[string]int)
	for _, literal := range literals {
		text := sql.String()[literal.Start:literal.End]
		if slot, ok := slots[text]; ok && slot != literal.Slot {
			t.Fatalf("%s has slots %d and %d", text, slot, literal.Slot)
		}
		slots[text] = literal.Slot
	}
	if len(slots) != 5000+4999 || len(literals) != 1+3*4999 {
		t.Errorf("%d slots of %d literals", len(slots), len(literals))
	}
}

const benchmarkStatement = "SELECT name, total FROM orders WHERE customer_id = 4711 LIMIT 10"

func TestNormaliseAllocates(t *testing.T) {
	var n lexer.Normaliser
	cache := map[string]int{}
	if err := n.Normalise(benchmarkStatement); err != nil {
		t.Fatal(err)
	}
	cache[string(n.Key)] = 1
	for _, sql := range []string{benchmarkStatement, "select a from t where k = 'x' order by 1 DESC, 2 LIMIT 5"} {
		if allocations := testing.AllocsPerRun(100, func() {
			if n.Normalise(sql) != nil || cache[string(n.Key)] > 1 || lexer.FirstKeyword(sql) != "select" {
				t.Fail()
			}
		}); allocations != 0 {
			t.Errorf("%s: %v allocations", sql, allocations)
		}
	}
}

func BenchmarkNormalise(b *testing.B) {
	var n lexer.Normaliser
	b.SetBytes(int64(len(benchmarkStatement)))
	b.ReportAllocs()
	for b.Loop() {
		if err := n.Normalise(benchmarkStatement); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLexer(b *testing.B) {
	b.SetBytes(int64(len(benchmarkStatement)))
	b.ReportAllocs()
	for b.Loop() {
		l := lexer.New(benchmarkStatement)
		for _, ok := l.Next(); ok; _, ok = l.Next() {
		}
	}
}
