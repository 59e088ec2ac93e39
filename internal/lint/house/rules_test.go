package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/shardyard/shardyard/"

// planted is one file that breaks a rule, and the linter that must say so.
type planted struct {
	folder  string
	test    bool   // a test file
	imports string // a package imported blank
	body    string
	linter  string // empty: allowed
}

// TestRulesBite lints a small tree in which each file either breaks one rule or shows what is allowed.
func TestRulesBite(t *testing.T) {
	here, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	linter := filepath.Join(here, "bin", "golangci-lint")
	if _, err := os.Stat(linter); err != nil {
		t.Fatalf("build it first with make bin/golangci-lint: %v", err)
	}
	cases := []planted{
		{folder: "directory", imports: "os", linter: "depguard"},
		{folder: "directory", imports: "net/http", linter: "depguard"},
		{folder: "directory", imports: "net/netip"},
		{folder: "directory", imports: module + "router/wire", linter: "depguard"},
		{folder: "directory", body: "import \"time\"\n\n// NAME is the clock.\nvar NAME = time.Now()\n", linter: "forbidigo"},
		{folder: "directory/etcd", imports: module + "directory"},
		{folder: "directory/etcd", imports: module + "migrations", linter: "depguard"},
		{folder: "directory/fence", imports: module + "directory/etcd"},
		{folder: "directory/fence", imports: module + "planner", linter: "depguard"},
		{folder: "planner", imports: module + "planner/lexer"},
		{folder: "planner", imports: "log/slog", linter: "depguard"},
		{folder: "planner", imports: module + "directory/etcd", linter: "depguard"},
		{folder: "planner/lexer", imports: module + "directory", linter: "depguard"},
		{folder: "planner/lexer", imports: "math/rand/v2", linter: "depguard"},
		{folder: "planner/shardsql", imports: module + "planner/lexer"},
		{folder: "planner/shardsql", imports: module + "directory", linter: "depguard"},
		{folder: "planner/catalog", imports: module + "planner/lexer", linter: "depguard"},
		{folder: "router/wire", imports: module + "router/pgerr", linter: "depguard"},
		{folder: "router/pgerr", imports: module + "directory", linter: "depguard"},
		{folder: "router/merge", imports: module + "directory"},
		{folder: "router/merge", imports: "net", linter: "depguard"},
		{folder: "router/merge", imports: module + "router/wire", linter: "depguard"},
		{folder: "router/backend", imports: module + "planner", linter: "depguard"},
		{folder: "router/catalogs", imports: module + "router/backend", linter: "depguard"},
		{folder: "router/exec", imports: module + "router/merge"},
		{folder: "router/exec", imports: module + "directory/etcd", linter: "depguard"},
		{folder: "router/exec", test: true, imports: module + "rebalance", linter: "depguard"},
		{folder: "router/schema", imports: module + "directory/fence"},
		{folder: "router/schema", imports: module + "router/exec", linter: "depguard"},
		{folder: "router", imports: module + "router/exec"},
		{folder: "router", imports: module + "router/merge", linter: "depguard"},
		{folder: "router", imports: module + "internal/devcluster", linter: "depguard"},
		{folder: "router", imports: module + "rebalance/worker", linter: "depguard"},
		{folder: "router/admin", imports: module + "planner", linter: "depguard"},
		{folder: "rebalance", imports: "os", linter: "depguard"},
		{folder: "rebalance/worker", imports: module + "directory/etcd"},
		{folder: "rebalance/worker", imports: module + "router/wire", linter: "depguard"},
		{folder: "migrations", imports: module + "directory", linter: "depguard"},
		{folder: "internal/devcluster", imports: module + "planner", linter: "depguard"},
		{folder: "router", body: "import \"context\"\n\n// NAME is one.\nvar NAME = context.Background()\n", linter: "forbidigo"},
		{folder: "cmd/shardyard", body: "import \"context\"\n\n// NAME is one.\nvar NAME = context.Background()\n"},
		{folder: "router", test: true, body: "import \"context\"\n\n// NAME is one.\nvar NAME = context.Background()\n"},
		{folder: "router", body: "import \"os\"\n\n// NAME is one.\nvar NAME = os.Getenv(\"HOME\")\n", linter: "forbidigo"},
		{folder: "router", body: "// NAME is.\nfunc NAME(n int) int {\n" + strings.Repeat("\tn++\n", 81) + "\treturn n\n}\n", linter: "funlen"},
		{folder: "router", body: "// NAME is.\nvar  NAME = 1\n", linter: "gofmt"},
	}
	root := t.TempDir()
	names := plant(t, root, cases)
	config, err := os.ReadFile(filepath.Join(here, ".golangci.yml"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, ".golangci.yml"), string(config))
	write(t, filepath.Join(root, "go.mod"), "module "+strings.TrimSuffix(module, "/")+"\n\ngo 1.26.0\n")

	found := lint(t, linter, root)
	for i, c := range cases {
		got := found[names[i]]
		if c.linter == "" && len(got) > 0 {
			t.Errorf("%s (%s): %v found what is allowed", names[i], c.imports, got)
		}
		if c.linter != "" && !slices.Contains(got, c.linter) {
			t.Errorf("%s (%s): %s did not bite, only %v", names[i], c.imports, c.linter, got)
		}
	}
}

// plant writes the files. One that imports lies in a tree of its own below root, where the patterns of depguard match
// too, so that planted imports make no cycle; what it imports lies at the root. The others lie at the root, since the
// exclusions of other linters are anchored there.
func plant(t *testing.T, root string, cases []planted) []string {
	t.Helper()
	names := make([]string, len(cases))
	for i, c := range cases {
		file := fmt.Sprintf("planted%d.go", i)
		if c.test {
			file = fmt.Sprintf("planted%d_test.go", i)
		}
		folder := c.folder
		if c.imports != "" {
			folder = filepath.Join(fmt.Sprintf("tree%d", i), c.folder)
		}
		names[i] = filepath.Join(folder, file)
		pkg := filepath.Base(c.folder)
		text := "package " + pkg + "\n\n"
		if c.imports != "" {
			text += fmt.Sprintf("import _ %q\n", c.imports)
		}
		write(t, filepath.Join(root, names[i]), text+strings.ReplaceAll(c.body, "NAME", fmt.Sprintf("Name%d", i)))
		writePackage(t, filepath.Join(root, folder))
		if target, ours := strings.CutPrefix(c.imports, module); ours {
			writePackage(t, filepath.Join(root, target))
		}
	}
	return names
}

func writePackage(t *testing.T, folder string) {
	t.Helper()
	name := filepath.Base(folder)
	write(t, filepath.Join(folder, "doc.go"), "// Package "+name+" is planted.\npackage "+name+"\n")
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// lint returns the linters that found something, by file.
func lint(t *testing.T, linter, root string) map[string][]string {
	t.Helper()
	cmd := exec.Command(linter, "run", "--output.json.path=stdout", "--output.text.path=/dev/null", "--show-stats=false", "--issues-exit-code=0", "./...")
	cmd.Dir = root
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("run golangci-lint: %v: %s", err, stderr.String())
	}
	var report struct {
		Issues []struct {
			FromLinter string
			Text       string
			Pos        struct{ Filename string }
		}
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("read golangci-lint's report: %v: %s", err, out)
	}
	found := map[string][]string{}
	for _, issue := range report.Issues {
		if issue.FromLinter == "typecheck" {
			t.Fatalf("the planted tree does not compile: %s: %s", issue.Pos.Filename, issue.Text)
		}
		found[issue.Pos.Filename] = append(found[issue.Pos.Filename], issue.FromLinter)
	}
	return found
}
