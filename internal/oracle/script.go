package oracle

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/shardyard/shardyard/planner/lexer"
)

// Script runs a file of cases (cockroachdb/datadriven) on a bed, in a schema of its own. The
// expected output of a case is its verdict. The directives:
//
//	setup     statements that both sides must take
//	shard     statements that the cluster must take (the sharding statements)
//	plain     statements that the plain server must take
//	cluster   statements of the cluster alone; answers with its rows, tags and errors
//	set       statements that the plain server and every router take, equally
//	fill      table=t [from=1 to=9]: rows, one INSERT each; {i} is the number
//	ask       cases, each in every mode; [ordered] their order is fixed, [anymessage] of errors only the SQLSTATE
//	limit     cases whose LIMIT is not fixed by their order; a line "of SELECT …" has them without it
//	write     cases that change rows: in two modes they are rolled back, in one they stay
//	script    statements of one session on one router, all of them in each mode
//	copyout   COPY … TO STDOUT
//	copyin    COPY … FROM STDIN, the data in the lines below. [quoted] they are Go strings, without newlines of their own;
//	          [source] they are a query, whose COPY in the binary format is the data; [block] in a
//	          transaction, behind a savepoint; [extended] in the extended protocol; [chunk=n] in messages of n bytes;
//	          [restart=s] after ALTER SEQUENCE s RESTART on the same router
//	contents  compares all tables; so does the end of the file
//
// A case begins at the start of a line and goes on in indented lines. Lines like "$1 int8 = 5" behind
// it are arguments, with the type that the client declares or without; each "$1" begins a further set.
type Script struct {
	Bed      *Bed
	Database string
	Schema   string

	session *Session
	turn    int // rotates which mode of a write is the one that stays
	// differences are kept, so that one run tells all of them.
	differences []string
}

// Run fails the test at every difference, whatever the file expects, and compares the contents
// of all tables at the end.
func (s *Script) Run(t *testing.T, path string) { s.runWith(t, path, s.run) }

// runWith is Run with another way to run a directive.
func (s *Script) runWith(t *testing.T, path string, run func(context.Context, *datadriven.TestData) (string, error)) {
	session, err := s.Bed.NewSession(t.Context(), s.Database)
	if err != nil {
		t.Fatal(err)
	}
	s.session = session
	defer session.Close(t.Context())
	if err := session.EnterSchema(t.Context(), s.Schema); err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, difference := range s.differences {
			t.Error(difference)
		}
	}()
	datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
		answer, err := run(t.Context(), d)
		if err != nil {
			t.Fatalf("%s: %v", d.Pos, err)
		}
		if err := session.Quiet(t.Context()); err != nil {
			t.Fatalf("%s: %v", d.Pos, err)
		}
		for line := range strings.SplitSeq(answer, "\n") {
			if strings.Contains(line, "DIFFER") {
				s.differences = append(s.differences, fmt.Sprintf("%s: %s", d.Pos, line))
			}
		}
		return answer
	})
	if err := s.Bed.CompareContents(t.Context(), s.Database, s.Schema); err != nil {
		t.Error(err)
	}
}

func (s *Script) run(ctx context.Context, d *datadriven.TestData) (string, error) {
	switch d.Cmd {
	case "setup":
		return s.each(d.Input, func(sql string) error { return s.session.Both(ctx, sql) })
	case "shard":
		return s.each(d.Input, func(sql string) error { return s.session.Cluster(ctx, sql) })
	case "plain":
		return s.each(d.Input, func(sql string) error {
			_, err := s.session.plain.conn.Exec(ctx, sql)
			return err
		})
	case "set":
		return s.each(d.Input, func(sql string) error { return s.session.Everywhere(ctx, sql) })
	case "cluster":
		return s.cluster(ctx, d.Input)
	case "fill":
		return s.fill(ctx, d)
	case "ask":
		return s.ask(ctx, d, s.askOne)
	case "limit":
		return s.ask(ctx, d, s.askCut)
	case "write":
		return s.ask(ctx, d, s.write)
	case "script":
		return s.script(ctx, d)
	case "copyout":
		return s.copyOut(ctx, d)
	case "copyin":
		return s.copyIn(ctx, d)
	case "contents":
		return "agree", s.Bed.CompareContents(ctx, s.Database, s.Schema)
	}
	return "", fmt.Errorf("unknown directive %q", d.Cmd)
}

// each runs every statement of the input.
func (s *Script) each(input string, run func(string) error) (string, error) {
	for _, span := range lexer.Split(input) {
		if sql := strings.TrimSpace(input[span.Start:span.End]); sql != "" {
			if err := run(sql); err != nil {
				return "", err
			}
		}
	}
	return "", nil
}

// cluster answers with the cluster's tag or error for each statement.
func (s *Script) cluster(ctx context.Context, input string) (string, error) {
	var answer strings.Builder
	_, err := s.each(input, func(sql string) error {
		outcome, err := ask(ctx, s.session.turn(), Statement{SQL: sql}, Simple)
		for deadline := time.Now().Add(changeTimeout); codeOf(outcome) == objectInUse && time.Now().Before(deadline); {
			outcome, err = ask(ctx, s.session.turn(), Statement{SQL: sql}, Simple)
		}
		if err != nil {
			return err
		}
		if outcome.Err != nil {
			fmt.Fprintf(&answer, "error %s: %s\n", outcome.Err.Code, stable(outcome.Err.Message))
			return nil
		}
		for _, row := range outcome.Rows {
			fmt.Fprintln(&answer, strings.Join(row, " | "))
		}
		fmt.Fprintln(&answer, strings.Join(outcome.Tags, "; "))
		return nil
	})
	return answer.String(), err
}

// fill inserts rows one by one on both sides: `fill table=t from=1 to=100` and a list of
// expressions with {i} for the number.
func (s *Script) fill(ctx context.Context, d *datadriven.TestData) (string, error) {
	arg := func(key string) string {
		if a, ok := d.Arg(key); ok && len(a.Vals) == 1 {
			return a.Vals[0]
		}
		return ""
	}
	from, to := 1, 0
	if n, err := strconv.Atoi(arg("to")); err == nil {
		to = n
	}
	if n, err := strconv.Atoi(arg("from")); err == nil {
		from = n
	}
	var rows []string
	for line := range strings.Lines(d.Input) {
		line = strings.TrimSpace(line)
		for i := from; i <= to; i++ {
			rows = append(rows, strings.ReplaceAll(line, "{i}", strconv.Itoa(i)))
		}
		if to == 0 {
			rows = append(rows, line)
		}
	}
	for _, row := range rows {
		if err := s.session.Both(ctx, fmt.Sprintf("INSERT INTO %s VALUES (%s)", arg("table"), row)); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d rows", len(rows)), nil
}

// script runs the statements of the input in order, in one session on one router, once in each mode.
func (s *Script) script(ctx context.Context, d *datadriven.TestData) (string, error) {
	cases, err := parseCases(d)
	if err != nil {
		return "", err
	}
	answers := make([]variants, len(cases))
	defer s.session.Stay(false)
	for _, mode := range Modes {
		s.session.Stay(false)
		s.session.Stay(true)
		for i, c := range cases {
			verdict, err := s.session.Ask(ctx, c.statements[0], mode)
			if err != nil {
				return "", fmt.Errorf("%s: %w", c.statements[0].SQL, err)
			}
			answers[i].add(mode.String(), verdict)
		}
		if err := s.session.Quiet(ctx); err != nil {
			return "", err
		}
	}
	var answer strings.Builder
	for _, a := range answers {
		answer.WriteString(a.String())
	}
	return answer.String(), nil
}

// ask runs every case of the input with every set of arguments in every mode.
func (s *Script) ask(ctx context.Context, d *datadriven.TestData, one func(context.Context, Statement, testCase, Mode) (Verdict, error)) (string, error) {
	cases, err := parseCases(d)
	if err != nil {
		return "", err
	}
	var answer strings.Builder
	for _, c := range cases {
		for _, st := range c.statements {
			var v variants
			for _, mode := range Modes {
				if mode != Simple && c.several {
					continue
				}
				for _, typed := range typings(st, mode) {
					verdict, err := one(ctx, typed, c, mode)
					if err != nil {
						return "", fmt.Errorf("%s: %w", st.SQL, err)
					}
					v.add(mode.String()+typing(typed), verdict)
				}
			}
			answer.WriteString(v.String())
		}
	}
	return answer.String(), nil
}

func (s *Script) askOne(ctx context.Context, st Statement, _ testCase, mode Mode) (Verdict, error) {
	return s.session.Ask(ctx, st, mode)
}

func (s *Script) askCut(ctx context.Context, st Statement, c testCase, mode Mode) (Verdict, error) {
	return s.session.AskCut(ctx, st, Statement{SQL: c.whole}, mode)
}

// write runs the statement in a transaction that is rolled back, and once, in a mode that
// changes from statement to statement, for good.
func (s *Script) write(ctx context.Context, st Statement, c testCase, mode Mode) (Verdict, error) {
	if c.several || int(mode) == s.turn%len(Modes) && typing(st) == typing(c.statements[0]) {
		if mode == Modes[len(Modes)-1] || c.several {
			defer func() { s.turn++ }()
		}
		return s.session.Ask(ctx, st, mode)
	}
	if mode == Modes[len(Modes)-1] {
		defer func() { s.turn++ }()
	}
	if _, err := s.session.Ask(ctx, Statement{SQL: "BEGIN"}, Simple); err != nil {
		return Verdict{}, err
	}
	verdict, err := s.session.Ask(ctx, st, mode)
	if err != nil {
		return verdict, err
	}
	return verdict, s.session.Quiet(ctx)
}

// copyOut compares COPY … TO STDOUT of both sides line by line.
func (s *Script) copyOut(ctx context.Context, d *datadriven.TestData) (string, error) {
	var answer strings.Builder
	_, err := s.each(d.Input, func(sql string) error {
		cluster, err := copyFrom(ctx, s.session.turn(), sql)
		if err != nil {
			return err
		}
		var v variants
		if message, refused := refusal(cluster); refused {
			v.add("copy", Verdict{Refused: stable(message)})
		} else {
			plain, err := copyFrom(ctx, s.session.plain, sql)
			if err != nil {
				return err
			}
			v.add("copy", compare(plain, cluster, Statement{Ordered: d.HasArg("ordered")}))
		}
		answer.WriteString(v.String())
		return nil
	})
	return answer.String(), err
}

func copyFrom(ctx context.Context, s *side, sql string) (Outcome, error) {
	var data bytes.Buffer
	tag, err := s.conn.PgConn().CopyTo(ctx, &data, sql)
	return copyOutcome(s, data.String(), tag.String(), err)
}
