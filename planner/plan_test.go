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
		text += computed(plan, &args)
		target, err := plan.Targets(args)
		if target.Ask {
			plan = plan.Asking()
			text += "\n  ask" + computed(plan, &args)
			target, err = plan.Targets(args)
		}
		switch {
		case err == nil && len(target.Missing) > 0:
			text += "\n  " + describeMissing(env.Map, target.Missing)
		case err != nil:
			text += "\n  " + describeError(err)
		case target.Combine:
			text += combination(p, st, plan, types, env)
		case target.Rows != nil:
			text += splits(plan, args, target)
		case len(target.Shards) > 0:
			text += fmt.Sprintf("\n  -> %v", target.Shards)
		}
		out = append(out, text)
	}
	return strings.Join(out, "\n")
}

// combination shows the pieces of what is combined, and the rest.
func combination(p *Planner, st *Statement, plan *Plan, types []uint32, env *Env) string {
	combined, err := p.Combine(st, plan, types, env)
	if err != nil {
		return "\n  " + describeError(err)
	}
	if plan.Combine != nil {
		return ""
	}
	text := ""
	for _, line := range combined.Combine.lines() {
		text += "\n  " + line
	}
	return text
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

// computed shows what is computed for an INSERT, and gives the values 1, 2, 3 ….
func computed(plan *Plan, args *Args) string {
	if plan.Insert == nil {
		return ""
	}
	args.Supplied = nil
	for i, v := range plan.Insert.Values {
		value := []byte(fmt.Sprint(i + 1))
		switch plan.Insert.Supplied[v.Column].Type {
		case 20:
			value = []byte{0, 0, 0, 0, 0, 0, 0, byte(i + 1)}
		case 23:
			value = []byte{0, 0, 0, byte(i + 1)}
		}
		args.Supplied = append(args.Supplied, value)
	}
	text := ""
	for _, part := range [][2]int{{0, plan.Insert.Routing}, {plan.Insert.Routing, len(plan.Insert.Values)}} {
		texts, indexes, err := plan.Computations(*args, part[0], part[1])
		if err != nil {
			return "\n  " + describeError(err)
		}
		for i := range texts {
			text += fmt.Sprintf("\n  compute %v: %s %v", indexes[i], texts[i].Text, texts[i].Params)
		}
	}
	return text
}

func splits(plan *Plan, args Args, target Target) string {
	texts, err := plan.Split(args, target)
	if err != nil {
		return "\n  " + describeError(err)
	}
	text := ""
	for _, t := range texts {
		text += fmt.Sprintf("\n  -> %s: %s", t.Shard, t.Text)
		for _, p := range t.Params {
			switch {
			case p.Type != 0:
				text += fmt.Sprintf(" computed %d", p.Supplied)
			case p.Number > 0:
				text += fmt.Sprintf(" $%d", p.Number)
			default:
				text += " none"
			}
		}
		for _, p := range t.Parts {
			own, client := []rune(t.Text)[p.Start:p.Start+p.Length], []rune(args.Statement.Text)[p.Client-args.Statement.Chars:]
			if string(own) != string(client[:p.Length]) {
				text += fmt.Sprintf("\n  WRONG PART %q %q", string(own), string(client[:p.Length]))
			}
		}
	}
	return text
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
