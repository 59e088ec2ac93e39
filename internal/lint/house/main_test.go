package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"planner/doc.go":             "// Package planner plans.\npackage planner\n",
		"planner/plan.go":            strings.Repeat("\n", longest),
		"planner/long.go":            strings.Repeat("\n", longest+1),
		"planner/testdata/x/x.go":    "package x\n",
		"router/router.go":           "package router\n",
		"router/util/doc.go":         "// Package util owns anything.\npackage util\n",
		"router/merge/doc.go":        "package merge\n",
		"cmd/shardyard/main.go":      "package main\n",
		"notes.txt":                  "",
		".github/workflows/test.yml": "",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	problems, err := check(root)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"notes.txt: does not belong", "planner/long.go: has 701 lines", "router: has no doc.go",
		"router/merge/doc.go: does not say", "router/util: a package's name",
	}
	if len(problems) != len(want) {
		t.Fatalf("problems are\n%s", strings.Join(problems, "\n"))
	}
	for i := range want {
		if !strings.HasPrefix(problems[i], want[i]) {
			t.Errorf("problem %d is %q, want %q", i, problems[i], want[i])
		}
	}
}
