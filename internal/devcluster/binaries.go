package devcluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// oldestMajor is the oldest PostgreSQL that Shardyard works with.
const oldestMajor = 14

// ErrNoBinaries is returned where no PostgreSQL server binaries are found and none may be installed.
var ErrNoBinaries = errors.New("no PostgreSQL server binaries found")

// Binaries is a folder of PostgreSQL server programs.
type Binaries struct {
	// Dir holds initdb and postgres, and perhaps pg_basebackup, psql and others.
	Dir string
	// Version is what postgres calls itself, such as "15.18".
	Version string
	// Major is the major version, such as 15.
	Major int
}

// Path returns the path of a program in the folder.
func (b Binaries) Path(program string) string { return filepath.Join(b.Dir, program) }

// Has tells whether the folder holds a program.
func (b Binaries) Has(program string) bool {
	info, err := os.Stat(b.Path(program))
	return err == nil && !info.IsDir() && info.Mode()&0o111 != 0
}

// Search says where server binaries are looked for, in this order.
type Search struct {
	// Bin, if set, is the folder; nothing else is looked at and nothing is installed.
	Bin string
	// Path is a list of folders as in the environment's PATH.
	Path string
	// Folders are patterns (filepath.Glob) of folders where distributions put them; the newest version wins.
	Folders []string
	// Install allows to install PostgreSQL where none is found: Debian's package when root has apt, else the
	// download of embedded-postgres.
	Install bool
	// CacheDir keeps a download. Defaults to shardyard/postgres in the user's cache folder, for root to
	// /var/cache/shardyard/postgres, since the servers then run as somebody who cannot look into /root.
	CacheDir string
}

// SystemSearch looks at PG_BIN, PATH and the folders of Debian, Red Hat and Homebrew, and may install. It is the one
// place outside cmd that reads the environment, because tests have no command line of their own to name a folder on.
func SystemSearch() Search {
	return Search{
		Bin:  os.Getenv("PG_BIN"), //nolint:forbidigo // see above
		Path: os.Getenv("PATH"),   //nolint:forbidigo // see above
		Folders: []string{
			"/usr/lib/postgresql/*/bin",
			"/usr/pgsql-*/bin",
			"/usr/libexec/postgresql*",
			"/usr/local/pgsql/bin",
			"/opt/homebrew/opt/postgresql*/bin",
			"/usr/local/opt/postgresql*/bin",
			"/Applications/Postgres.app/Contents/Versions/*/bin",
		},
		Install: true,
	}
}

// FindBinaries finds server binaries, or installs them where there are none and search allows it, which it says
// through log. Errors: ErrNoBinaries; whatever keeps a named folder from being used.
func FindBinaries(ctx context.Context, search Search, log *slog.Logger) (Binaries, error) {
	if search.Bin != "" {
		found, err := inspect(ctx, search.Bin)
		if err != nil {
			return Binaries{}, fmt.Errorf("use PostgreSQL in %s: %w", search.Bin, err)
		}
		return found, nil
	}
	if found, ok := lookFor(ctx, search); ok && !beingInstalled(search) {
		return found, nil
	}
	if !search.Install {
		return Binaries{}, fmt.Errorf("find PostgreSQL: %w: install them or name their folder in PG_BIN", ErrNoBinaries)
	}
	found, err := installOnce(ctx, search, log)
	if err != nil {
		return Binaries{}, fmt.Errorf("install PostgreSQL: %w", err)
	}
	log.Info("postgres found after installation", "folder", found.Dir, "version", found.Version)
	return found, nil
}

// lookFor tries the folders of the path in order, then the others, newest first.
func lookFor(ctx context.Context, search Search) (Binaries, bool) {
	for _, dir := range filepath.SplitList(search.Path) {
		if dir == "" {
			continue
		}
		if found, err := inspect(ctx, dir); err == nil {
			return found, true
		}
	}
	var all []Binaries
	for _, pattern := range search.Folders {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			continue
		}
		for _, dir := range dirs {
			if found, err := inspect(ctx, dir); err == nil {
				all = append(all, found)
			}
		}
	}
	if len(all) == 0 {
		return Binaries{}, false
	}
	return slices.MaxFunc(all, func(a, b Binaries) int { return a.Major - b.Major }), true
}

var versionLine = regexp.MustCompile(`\(PostgreSQL\) ((\d+)\S*)`)

// inspect checks that a folder holds what a server needs, and that the servers' account can run it. A folder may hold
// links only (/usr/local/bin): the programs look for their libraries where they really are, so that place is returned.
func inspect(ctx context.Context, dir string) (Binaries, error) {
	real, err := filepath.EvalSymlinks(filepath.Join(dir, "initdb"))
	if err != nil {
		return Binaries{}, fmt.Errorf("find initdb: %w", err)
	}
	real, err = filepath.Abs(filepath.Dir(real))
	if err != nil {
		return Binaries{}, fmt.Errorf("find initdb: %w", err)
	}
	found := Binaries{Dir: real}
	for _, program := range []string{"initdb", "postgres"} {
		if !found.Has(program) {
			return Binaries{}, fmt.Errorf("find %s: there is no such program in %s", program, real)
		}
	}
	who, err := serverAccount()
	if err != nil {
		return Binaries{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := who.command(ctx, "/", found.Path("postgres"), "--version").Output()
	if err != nil {
		return Binaries{}, fmt.Errorf("run %s --version as the user of the servers: %w", found.Path("postgres"), err)
	}
	match := versionLine.FindStringSubmatch(string(out))
	if match == nil {
		return Binaries{}, fmt.Errorf("read the version of %s: it says %q", found.Path("postgres"), strings.TrimSpace(string(out)))
	}
	found.Version = match[1]
	if found.Major, err = strconv.Atoi(match[2]); err != nil {
		return Binaries{}, fmt.Errorf("read the version of %s: %w", found.Path("postgres"), err)
	}
	if found.Major < oldestMajor {
		return Binaries{}, fmt.Errorf("PostgreSQL %s is too old: %d is the oldest that works", found.Version, oldestMajor)
	}
	return found, nil
}
