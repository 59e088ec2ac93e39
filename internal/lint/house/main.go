// Command house checks rules of the source tree that golangci-lint has no linter for: the length of files, the names
// of packages, a doc.go in each package, and what lies at the top level.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// longest is the number of lines that no file exceeds.
const longest = 700

// vague are names that say nothing about what a package owns.
var vague = []string{"util", "utils", "common", "types", "helper", "helpers", "misc", "base", "shared"}

// topLevel is all that may lie at the top, besides hidden files.
var topLevel = []string{
	"Dockerfile", "LICENSE", "Makefile", "README.md", "bin", "cmd", "directory", "docker-compose.yml", "docs", "go.mod",
	"go.sum", "internal", "migrations", "planner", "rebalance", "router",
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: house DIR")
		os.Exit(2)
	}
	problems, err := check(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "house:", err)
		os.Exit(2)
	}
	for _, problem := range problems {
		fmt.Println(problem)
	}
	if len(problems) > 0 {
		os.Exit(1)
	}
}

// check returns what is wrong below root, in the order of the files.
func check(root string) (problems []string, err error) {
	report := func(name, format string, args ...any) {
		problems = append(problems, name+": "+fmt.Sprintf(format, args...))
	}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil || name == "." {
			return err
		}
		hidden := strings.HasPrefix(entry.Name(), ".")
		if !strings.Contains(name, string(filepath.Separator)) && !hidden && !slices.Contains(topLevel, name) {
			report(name, "does not belong at the top level (internal/lint/house lists what does)")
		}
		if entry.IsDir() {
			if hidden || name == "bin" || entry.Name() == "testdata" {
				return filepath.SkipDir
			}
			return checkPackage(path, name, report)
		}
		if strings.HasSuffix(name, ".go") {
			return checkFile(path, name, report)
		}
		return nil
	})
	return problems, err
}

func checkPackage(path, name string, report func(name, format string, args ...any)) error {
	files, err := filepath.Glob(filepath.Join(path, "*.go"))
	if err != nil || len(files) == 0 {
		return err
	}
	if slices.Contains(vague, filepath.Base(name)) {
		report(name, "a package's name says what it owns; this one could own anything")
	}
	text, err := os.ReadFile(filepath.Join(path, "doc.go"))
	if err == nil && !bytes.Contains(text, []byte("// Package ")) && !bytes.Contains(text, []byte("// Command ")) {
		report(filepath.Join(name, "doc.go"), "does not say what the package owns and what it may import")
	}
	isCommand := slices.ContainsFunc(files, func(file string) bool { return filepath.Base(file) == "main.go" })
	if errors.Is(err, fs.ErrNotExist) && !isCommand {
		report(name, "has no doc.go (what it owns, what it may import)")
		return nil
	}
	if err != nil && !isCommand {
		return err
	}
	return nil
}

func checkFile(path, name string, report func(name, format string, args ...any)) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if lines := bytes.Count(text, []byte("\n")); lines > longest {
		report(name, "has %d lines, more than %d: it holds more than one subject", lines, longest)
	}
	return nil
}
