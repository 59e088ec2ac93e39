package crash

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// failpointDirs hold the failpoints.
var failpointDirs = []string{"router/exec", "router/commit"}

// buildRouter builds the router with its failpoints and gives the binary. The copy of the tree stays where it is, so
// that the next build is a short one.
func buildRouter(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	must(t, err)
	work := filepath.Join(root, "bin", "crash")
	source, gofail, binary := filepath.Join(work, "src"), filepath.Join(work, "gofail"), filepath.Join(work, "shardyard")
	must(t, os.RemoveAll(source))
	must(t, copyTree(root, source))
	must(t, requireRuntime(filepath.Join(root, "internal", "gofailbin"), source))
	run(t, filepath.Join(root, "internal", "gofailbin"), "go", "build", "-buildvcs=false", "-o", gofail, "go.etcd.io/gofail")
	run(t, source, gofail, append([]string{"enable"}, failpointDirs...)...)
	run(t, source, "go", "build", "-buildvcs=false", "-o", binary, "./cmd/shardyard")
	return binary
}

func run(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// copyTree copies what a build needs: everything but tests, what was built, and modules inside the module.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name == "bin" || name != "." && strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || isModule(path, name) {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, name), 0o755)
		}
		if !entry.Type().IsRegular() || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), data, 0o644)
	})
}

func isModule(path, name string) bool {
	_, err := os.Stat(filepath.Join(path, "go.mod"))
	return name != "." && err == nil
}

// requireRuntime lets the copy import gofail's runtime, in the version of the tool module.
func requireRuntime(tool, source string) error {
	mod, err := os.ReadFile(filepath.Join(tool, "go.mod"))
	if err != nil {
		return err
	}
	_, rest, ok := strings.Cut(string(mod), "require go.etcd.io/gofail v")
	if !ok {
		return errors.New("the tool module names no version of gofail")
	}
	sum, err := os.ReadFile(filepath.Join(tool, "go.sum"))
	if err != nil {
		return err
	}
	version := strings.Fields(rest)[0]
	return errors.Join(
		appendTo(filepath.Join(source, "go.mod"), "\nrequire go.etcd.io/gofail v"+version+"\n"),
		appendTo(filepath.Join(source, "go.sum"), string(sum)),
	)
}

func appendTo(path, text string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, text...), 0o644)
}
