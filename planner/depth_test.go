package planner

import (
	"strings"
	"testing"
)

// Text that is nested deeply is left to Postgres: the parser would end the process.
func TestDeepTexts(t *testing.T) {
	for name, part := range map[string][4]string{
		"parentheses":     {"SELECT ", "(1+", "1", ")"},
		"operators":       {"SELECT 1", "+1", "", ""},
		"other operators": {"SELECT 1", "<->1", "", ""},
		"casts":           {"SELECT 1", "::int", "", ""},
		"collate":         {"SELECT 'a'", ` COLLATE "C"`, "", ""},
		"time zones":      {"SELECT now()", " AT TIME ZONE 'UTC'", "", ""},
		"named":           {"SELECT 1", " OPERATOR(pg_catalog.+) 1", "", ""},
		"set":             {"SELECT 1, 2", " UNION SELECT 1, 2", "", ""},
		"except":          {"VALUES (1)", " EXCEPT VALUES (1)", "", ""},
		"joins":           {"SELECT 1 FROM a", " CROSS JOIN a", "", ""},
		"join on":         {"SELECT 1 FROM a", " JOIN a ON true AND x", "", ""},
		"not":             {"SELECT ", "NOT ", "true", ""},
		"minus":           {"SELECT ", "- ", "1", ""},
		"arrays":          {"SELECT ", "ARRAY[1,", "1", "]"},
		"subqueries":      {"SELECT ", "(SELECT 1+", "1", ")"},
		"case":            {"SELECT ", "CASE WHEN true THEN ", "1", " END"},
		"subscripts":      {"SELECT a", "[1]", "", ""},
		"disjunctions":    {"SELECT 1 WHERE 1=1", " OR 1=1", "", ""},
		"mixed":           {"SELECT 1 WHERE 1=1", " OR 1=1 AND 1=1", "", ""},
		"list":            {"SELECT 1", ", 1+1", "", ""},
		"fields":          {"SELECT a", ".a", "", ""},
		"rows":            {"VALUES (1)", ", (1+1)", "", ""},
		"functions":       {"SELECT ", "f(1, ", "1", ")"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{100, 3000, 40_000} {
				sql := part[0] + strings.Repeat(part[1], n) + part[2] + strings.Repeat(part[3], n)
				_, err := parse(sql) // the test fails by a crash
				switch {
				case n == 100 && err != nil:
					t.Errorf("%d times: %v", n, err)
				case name == "disjunctions" || name == "mixed" || name == "list" || name == "rows":
					if err != nil {
						t.Errorf("%d times: %v", n, err)
					}
				}
			}
		})
	}
}
