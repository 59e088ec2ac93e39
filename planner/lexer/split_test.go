package lexer_test

import (
	"reflect"
	"strings"
	"testing"

	pg_query "github.com/pganalyze/pg_query_go/v6"

	"github.com/shardyard/shardyard/planner/lexer"
)

func split(sql string) []string {
	var statements []string
	for _, span := range lexer.Split(sql) {
		statements = append(statements, sql[span.Start:span.End])
	}
	return statements
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		sql  string
		want []string
	}{
		{"", nil},
		{" ; ;; -- c", nil},
		{"select 1", []string{"select 1"}},
		{" select 1 ; ", []string{"select 1"}},
		{"select 1;select 2;", []string{"select 1", "select 2"}},
		{"/* a;b */ select ';' -- ;\n, $$;$$, E'\\';', \";\"; select 2 /* c */ -- d", []string{"select ';' -- ;\n, $$;$$, E'\\';', \";\"", "select 2"}},
		{"create rule r as on insert to t do (insert into u values (1); delete from v); select 1", []string{"create rule r as on insert to t do (insert into u values (1); delete from v)", "select 1"}},
		{"create function f() returns int begin atomic select 1; select case when true then 2 end; end; select 3", []string{"create function f() returns int begin atomic select 1; select case when true then 2 end; end", "select 3"}},
		{"CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC SELECT 1; END; select 3", []string{"CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC SELECT 1; END", "select 3"}},
		{"begin; select atomic; end; select 1", []string{"begin", "select atomic", "end", "select 1"}},
		{"create table begin (atomic int); select 1", []string{"create table begin (atomic int)", "select 1"}},
		{"create function atomic() returns int as 'select 1; select 2' language sql; select 1", []string{"create function atomic() returns int as 'select 1; select 2' language sql", "select 1"}},
		{"select (1; select 2", []string{"select (1; select 2"}},
		{"select 1); select 2", []string{"select 1)", "select 2"}},
		{"select 1; select 'a; select 2", []string{"select 1", "select 'a; select 2"}},
		{"select 1; 'a; select 2", []string{"select 1", "'a; select 2"}},
		{"'a", []string{"'a"}},
	} {
		if got := split(c.sql); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %q, want %q", c.sql, got, c.want)
		}
	}
}

// TestSplitAgrees: texts made of several statements fall apart as they do in Postgres's parser.
func TestSplitAgrees(t *testing.T) {
	statements := corpus(t)
	for i := 0; i+2 < len(statements); i++ {
		text := strings.Join(statements[i:i+3], ";\n-- c\n; ") + " ;"
		want, err := pg_query.SplitWithParser(text, true)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		got := split(text)
		if len(got) != len(want) || len(got) != 3 {
			t.Fatalf("%q: %q, the parser has %q", text, got, want)
		}
		for j := range got {
			if got[j] != strings.TrimSpace(statements[i+j]) && !strings.Contains(want[j], got[j]) {
				t.Errorf("%q, the parser has %q", got[j], want[j])
			}
		}
	}
}

func TestFirstKeyword(t *testing.T) {
	for sql, want := range map[string]string{
		"": "", "select 1": "select", " -- c\n/* d */ SeLeCt": "select", "(select 1)": "(", "'a'": "", "1": "", ";": "", "$1": "",
		"Unlisten x": "unlisten", "xyz": "xyz", "XYZ": "xyz", "AVERYVERYLONGWORDINDEED": "averyverylongwordindeed", "/* a": "", `"select"`: "",
	} {
		if got := lexer.FirstKeyword(sql); got != want {
			t.Errorf("%q: %q, want %q", sql, got, want)
		}
	}
}
