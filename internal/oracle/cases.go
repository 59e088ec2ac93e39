package oracle

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/datadriven"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/planner/lexer"
)

// testCase is one statement of a file with the sets of arguments that it is asked with.
type testCase struct {
	statements []Statement
	whole      string // directive limit: the statement without its LIMIT
	several    bool   // several statements in one text: simple protocol only
}

// parseCases reads the body of a directive: a statement starts at the beginning of a line and
// goes on in indented lines; lines like "$1 int8 = 5" behind it give arguments, "$1" again a
// further set; "of SELECT …" the statement without its LIMIT.
func parseCases(d *datadriven.TestData) ([]testCase, error) {
	var cases []testCase
	var set []Arg
	ordered, anyMessage := d.HasArg("ordered"), d.HasArg("anymessage")
	flush := func() {
		if len(cases) > 0 && set != nil {
			last := &cases[len(cases)-1]
			if last.statements[0].Args == nil {
				last.statements[0].Args = set
			} else {
				next := last.statements[0]
				next.Args = set
				last.statements = append(last.statements, next)
			}
		}
		set = nil
	}
	for line := range strings.Lines(d.Input) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.TrimSpace(line) == "":
		case strings.HasPrefix(line, "$") && len(cases) > 0:
			number, arg, err := parseArg(line)
			if err != nil {
				return nil, err
			}
			if number == 1 {
				flush()
			}
			if number != len(set)+1 {
				return nil, fmt.Errorf("argument out of order: %s", line)
			}
			set = append(set, arg)
		case strings.HasPrefix(line, "of ") && len(cases) > 0:
			cases[len(cases)-1].whole = strings.TrimPrefix(line, "of ")
		case strings.HasPrefix(line, " ") && len(cases) > 0:
			cases[len(cases)-1].statements[0].SQL += "\n" + line
		default:
			flush()
			cases = append(cases, testCase{statements: []Statement{{SQL: line, Ordered: ordered, AnyMessage: anyMessage}}})
		}
	}
	flush()
	for i := range cases {
		if d.Cmd == "ask" || d.Cmd == "write" {
			cases[i].several = len(lexer.Split(cases[i].statements[0].SQL)) > 1
		}
	}
	return cases, nil
}

// parseArg reads "$1 = text", "$1 int8 = text" or "$1 = NULL".
func parseArg(line string) (number int, arg Arg, err error) {
	head, text, found := strings.Cut(line[1:], "=")
	words := strings.Fields(head)
	if !found || len(words) == 0 || len(words) > 2 {
		return 0, arg, fmt.Errorf("argument %q is not like $1 int8 = 5", line)
	}
	if _, err := fmt.Sscan(words[0], &number); err != nil {
		return 0, arg, fmt.Errorf("argument %q: %w", line, err)
	}
	arg.Text = strings.TrimSpace(text)
	arg.Null = arg.Text == "NULL"
	if len(words) == 2 {
		arg.Type = words[1]
	}
	return number, arg, nil
}

// typings gives the statement with its declared types and, prepared, also with none declared.
func typings(st Statement, mode Mode) []Statement {
	if mode == Simple || !slices.ContainsFunc(st.Args, func(a Arg) bool { return a.Type != "" }) {
		return []Statement{st}
	}
	open := st
	open.Args = slices.Clone(st.Args)
	for i := range open.Args {
		open.Args[i].Type = ""
	}
	return []Statement{st, open}
}

func typing(st Statement) string {
	for _, arg := range st.Args {
		if arg.Type != "" {
			return " typed"
		}
	}
	return ""
}

// variants collects the verdicts of one statement in its modes.
type variants struct {
	names    []string
	verdicts []string
}

func (v *variants) add(name string, verdict Verdict) {
	v.names = append(v.names, name)
	v.verdicts = append(v.verdicts, verdict.String())
}

// String is one line if all are the same, else one for each verdict, headed by its modes.
func (v *variants) String() string {
	var text strings.Builder
	var seen []string
	for i, verdict := range v.verdicts {
		if slices.Contains(seen, verdict) {
			continue
		}
		seen = append(seen, verdict)
		var same []string
		for j := i; j < len(v.verdicts); j++ {
			if v.verdicts[j] == verdict {
				same = append(same, v.names[j])
			}
		}
		if len(same) < len(v.names) {
			fmt.Fprintf(&text, "%s: ", strings.Join(same, ", "))
		}
		text.WriteString(strings.ReplaceAll(verdict, "\n", `\n`) + "\n")
	}
	return text.String()
}

func copyOutcome(s *side, data, tag string, err error) (Outcome, error) {
	outcome := Outcome{Status: s.conn.PgConn().TxStatus()}
	var reported *pgconn.PgError
	switch {
	case errors.As(err, &reported):
		outcome.Err = reported
		return outcome, nil
	case err != nil:
		return outcome, fmt.Errorf("copy on %s: %w", s.name, err)
	}
	outcome.Tags = []string{tag}
	for line := range strings.Lines(data) {
		outcome.Rows = append(outcome.Rows, []string{line})
	}
	return outcome, nil
}
