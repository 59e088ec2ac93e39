package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/shardyard/shardyard/internal/devcluster"
)

// tools are what the suites are run with.
type tools struct {
	binaries devcluster.Binaries
	// sources is the unpacked source tree of PostgreSQL.
	sources string
	// built holds regress.so and its like, isolationtester and pg_isolation_regress.
	built string
	// regress is pg_regress.
	regress string
}

// aptSources are Debian's lists with the source packages, for this machine's release.
const aptSources = `Types: deb deb-src
URIs: http://deb.debian.org/debian
Suites: %[1]s %[1]s-updates
Components: main

Types: deb deb-src
URIs: http://deb.debian.org/debian-security
Suites: %[1]s-security
Components: main
`

// prepareTools finds the programs of PostgreSQL, and brings its sources and what is built of them into the cache.
func prepareTools(ctx context.Context, cache string) (*tools, error) {
	binaries, err := devcluster.FindBinaries(ctx, devcluster.SystemSearch(), slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, fmt.Errorf("find PostgreSQL: %w", err)
	}
	pgxs := filepath.Join(filepath.Dir(binaries.Dir), "lib/pgxs/src/test")
	t := &tools{
		binaries: binaries,
		sources:  filepath.Join(cache, "src-"+binaries.Version),
		built:    filepath.Join(cache, "built-"+binaries.Version),
		regress:  filepath.Join(pgxs, "regress/pg_regress"),
	}
	for _, dir := range []string{cache, t.built} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make the cache: %w", err)
		}
	}
	dev := filepath.Join(cache, "dev-"+binaries.Version)
	if err := fetch(ctx, cache, t, dev); err != nil {
		return nil, fmt.Errorf("fetch the sources of PostgreSQL %s: %w", binaries.Version, err)
	}
	if err := t.build(ctx, dev, filepath.Join(pgxs, "isolation/pg_isolation_regress")); err != nil {
		return nil, fmt.Errorf("build what the suites need: %w", err)
	}
	return t, nil
}

// fetch gets the source package and the headers of the server that is installed, unless the cache has them.
func fetch(ctx context.Context, cache string, t *tools, dev string) error {
	_, noSources := os.Stat(t.sources)
	_, noHeaders := os.Stat(dev)
	if noSources == nil && noHeaders == nil {
		return nil
	}
	apt, err := newApt(ctx, cache)
	if err != nil {
		return err
	}
	binary := fmt.Sprintf("postgresql-%d", t.binaries.Major)
	version, err := output(ctx, cache, "dpkg-query", "-W", "-f", "${Version}", binary)
	if err != nil {
		return err
	}
	if err := apt.run(ctx, "apt-get", "source", "--download-only", binary+"="+version); err != nil {
		return err
	}
	archives, err := filepath.Glob(filepath.Join(apt.dir, binary+"_"+upstream(version)+".orig.tar.*"))
	if err != nil || len(archives) == 0 {
		return errors.Join(errors.New("the source package holds no archive"), err)
	}
	if err := unpack(t.sources, func(dir string) error {
		_, err := output(ctx, cache, "tar", "-x", "-f", archives[0], "-C", dir, "--strip-components=1")
		return err
	}); err != nil {
		return err
	}
	headers := fmt.Sprintf("postgresql-server-dev-%d", t.binaries.Major)
	if err := apt.run(ctx, "apt-get", "download", headers+"="+version); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(apt.dir, headers+"_*.deb"))
	if err != nil || len(packages) == 0 {
		return errors.Join(errors.New("no package with the headers was downloaded"), err)
	}
	return unpack(dev, func(dir string) error {
		_, err := output(ctx, cache, "dpkg-deb", "-x", packages[0], dir)
		return err
	})
}

// upstream is the version of a Debian package without Debian's part.
func upstream(version string) string {
	version, _, _ = strings.Cut(version, "-")
	return version
}

// unpack fills a folder and gives it its name when it is complete.
func unpack(dir string, fill func(dir string) error) error {
	half := dir + ".half"
	if err := os.RemoveAll(half); err != nil {
		return err
	}
	if err := os.MkdirAll(half, 0o755); err != nil {
		return err
	}
	if err := fill(half); err != nil {
		return err
	}
	return os.Rename(half, dir)
}

// apt runs apt with lists of its own, so that the machine's stay as they are.
type apt struct {
	dir     string
	options []string
}

func newApt(ctx context.Context, cache string) (*apt, error) {
	a := &apt{dir: filepath.Join(cache, "apt")}
	lists := filepath.Join(a.dir, "lists")
	if err := os.MkdirAll(filepath.Join(lists, "partial"), 0o755); err != nil {
		return nil, err
	}
	codename, err := output(ctx, cache, "sh", "-c", `. /etc/os-release && echo "$VERSION_CODENAME"`)
	if err != nil || codename == "" {
		return nil, errors.Join(errors.New("this is no Debian: unpack the sources and headers into the cache yourself, as docs/compatibility.md says"), err)
	}
	file := filepath.Join(a.dir, "debian.sources")
	if err := os.WriteFile(file, fmt.Appendf(nil, aptSources, codename), 0o644); err != nil {
		return nil, err
	}
	a.options = []string{
		"-q", "-o", "Dir::Etc::sourcelist=" + file, "-o", "Dir::Etc::sourceparts=-", "-o", "Dir::State::lists=" + lists,
		"-o", "APT::Sandbox::User=root",
	}
	return a, a.run(ctx, "apt-get", "update")
}

func (a *apt) run(ctx context.Context, program string, args ...string) error {
	_, err := output(ctx, a.dir, program, append(a.options, args...)...)
	return err
}

// output runs a program and returns what it prints, without the line's end.
func output(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	var problems strings.Builder
	cmd.Stderr = &problems
	text, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run %s: %w\n%s", strings.Join(append([]string{program}, args...), " "), err, problems.String())
	}
	return strings.TrimSpace(string(text)), nil
}
