package crash

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// failpointDirs hold the failpoints.
var failpointDirs = []string{"directory/mirror", "router/commit", "router/deadlock", "router/exec", "router/schema", "rebalance/worker"}

// built is the router's binary, of which buildRouter makes one for all tests.
var built struct {
	once   sync.Once
	binary string
	err    error
}

// buildRouter builds the router with its failpoints and the planted mistakes, and gives the binary. Only files that
// hold some are taken from a copy, so everything else comes from the cache of the builds.
func buildRouter(t *testing.T) string {
	t.Helper()
	built.once.Do(func() { built.binary, built.err = build() })
	must(t, built.err)
	return built.binary
}

func build() (string, error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return "", err
	}
	work := filepath.Join(root, "bin", "crash")
	tool, gofail, binary := filepath.Join(root, "internal", "gofailbin"), filepath.Join(work, "gofail"), filepath.Join(work, "shardyard")
	source, overlay := filepath.Join(work, "src"), filepath.Join(work, "overlay.json")
	if err := errors.Join(os.RemoveAll(source), run(tool, "go", "build", "-buildvcs=false", "-o", gofail, "go.etcd.io/gofail")); err != nil {
		return "", err
	}
	for _, dir := range failpointDirs {
		if err := copyPackage(filepath.Join(root, dir), filepath.Join(source, dir)); err != nil {
			return "", err
		}
	}
	if err := plantAll(source); err != nil {
		return "", err
	}
	if err := errors.Join(run(source, gofail, append([]string{"enable"}, failpointDirs...)...), requireRuntime(tool, root, work)); err != nil {
		return "", err
	}
	if err := writeOverlay(root, source, overlay); err != nil {
		return "", err
	}
	return binary, run(root, "go", "build", "-buildvcs=false", "-modfile", filepath.Join(work, "go.mod"), "-overlay", overlay, "-o", binary, "./cmd/shardyard")
}

func run(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(err, errors.New(name+" "+strings.Join(args, " ")+": "+string(out)))
	}
	return nil
}

// copyPackage copies the files of a package, but its tests.
func copyPackage(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(from, "*.go"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(file)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeOverlay lets go build take the files of the copy in place of those of the tree.
func writeOverlay(root, source, overlay string) error {
	replaced := map[string]string{}
	for _, dir := range failpointDirs {
		files, err := filepath.Glob(filepath.Join(source, dir, "*.go"))
		if err != nil {
			return err
		}
		for _, file := range files {
			replaced[filepath.Join(root, dir, filepath.Base(file))] = file
		}
	}
	data, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return err
	}
	return os.WriteFile(overlay, data, 0o644)
}

// requireRuntime writes a go.mod that has gofail's runtime too, in the version of the tool module.
func requireRuntime(tool, root, work string) error {
	mod, err := os.ReadFile(filepath.Join(tool, "go.mod"))
	if err != nil {
		return err
	}
	_, rest, ok := strings.Cut(string(mod), "require go.etcd.io/gofail v")
	if !ok {
		return errors.New("the tool module names no version of gofail")
	}
	return errors.Join(
		concatenate(filepath.Join(work, "go.mod"), "\nrequire go.etcd.io/gofail v"+strings.Fields(rest)[0]+"\n", filepath.Join(root, "go.mod")),
		concatenate(filepath.Join(work, "go.sum"), "", filepath.Join(root, "go.sum"), filepath.Join(tool, "go.sum")),
	)
}

// concatenate writes files one after the other, and text behind them.
func concatenate(to, text string, files ...string) error {
	var all []byte
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		all = append(all, data...)
	}
	return os.WriteFile(to, append(all, text...), 0o644)
}
