package planner

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/shardyard/shardyard/directory"
)

// TestPlans runs testdata: each line of an input is a statement, and behind " @ " its parameters as
// [type:]text, separated by commas; a type that is not given is not declared. The output is the plan and
// the shards, or the refusal. The argument "unsharded" uses a database in which nothing is sharded,
// "path" sets the search path, "temp" names temporary tables, "datestyle" sets DateStyle.
func TestPlans(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		p := New(Config{})
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			env := fixtureEnv()
			for _, arg := range d.CmdArgs {
				switch arg.Key {
				case "unsharded":
					env = unshardedEnv()
				case "path":
					env.SearchPath = arg.Vals
				case "temp":
					env.TempNames = arg.Vals
				case "datestyle":
					env.DateStyle = arg.Vals[0]
				default:
					t.Fatalf("%s: unknown argument %s", d.Pos, arg.Key)
				}
			}
			var out strings.Builder
			for _, line := range strings.Split(d.Input, "\n") {
				fmt.Fprintf(&out, "> %s\n%s\n", line, describe(p, line, env))
			}
			return out.String()
		})
	})
}

func describe(p *Planner, line string, env *Env) string {
	sql, given, _ := strings.Cut(line, " @ ")
	var types []uint32
	args := Args{Map: env.Map}
	if given != "" {
		for _, param := range strings.Split(given, ", ") {
			typeName, text, typed := strings.Cut(param, ":")
			if _, known := fixtureTypes[typeName]; !typed || !known {
				typeName, text = "", param
			}
			types = append(types, fixtureTypes[typeName].oid)
			if text == "null" {
				args.Params = append(args.Params, nil)
			} else {
				args.Params = append(args.Params, []byte(text))
			}
		}
	}
	statements, _ := p.Statements(sql)
	var out []string
	for i := range statements {
		st := &statements[i]
		plan, err := p.Plan(st, types, env)
		if err != nil {
			out = append(out, describeError(err))
			continue
		}
		text := plan.String()
		args.Statement = st
		args.Entries = fixtureEntries(env.Map)
		target, err := plan.Targets(args)
		switch {
		case err == nil && len(target.Missing) > 0:
			text += "\n  " + describeMissing(env.Map, target.Missing)
		case err != nil:
			text += "\n  " + describeError(err)
		case len(target.Shards) > 0:
			text += fmt.Sprintf("\n  -> %v", target.Shards)
		}
		out = append(out, text)
	}
	return strings.Join(out, "\n")
}

func describeMissing(m *directory.Map, missing []directory.MissingEntry) string {
	var keys []string
	for _, entry := range missing {
		g, _ := m.Group(entry.Group)
		values, err := entry.Key.Values(g.Key)
		if err != nil {
			return err.Error()
		}
		texts := make([]string, len(values))
		for i, v := range values {
			texts[i] = v.Literal()
		}
		key := "(" + strings.Join(texts, ", ") + ")"
		if entry.Store {
			key += " to be stored"
		}
		keys = append(keys, key)
	}
	return "missing entries: " + strings.Join(keys, ", ")
}

func describeError(err error) string {
	var e *Error
	if !errors.As(err, &e) {
		return "NOT A PLANNER ERROR: " + err.Error()
	}
	text := "ERROR " + e.Code + ": " + e.Message
	if e.Position > 0 {
		text += fmt.Sprintf(" (at %d)", e.Position)
	}
	if e.Hint == "" && e.Code == codeUnsupported {
		text += " WITHOUT A HINT"
	}
	return text
}

// corpus are the statements of testdata.
func corpus(t testing.TB) []string {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	var statements []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(text), "\n") {
			if sql, ok := strings.CutPrefix(line, "> "); ok {
				sql, _, _ = strings.Cut(sql, " @ ")
				statements = append(statements, sql)
			}
		}
	}
	return statements
}
