package devcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// beingInstalled reports whether another process is installing PostgreSQL: what is found then may lack files.
func beingInstalled(search Search) bool {
	if err := search.setCacheDir(); !search.Install || err != nil {
		return false
	}
	file, err := os.OpenFile(filepath.Join(search.CacheDir, lockFile), os.O_RDWR, 0)
	if err != nil {
		return false // nobody has begun, or nobody that is our business
	}
	defer file.Close()
	return errors.Is(syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}

// installOnce installs PostgreSQL, one process of this machine at a time: tests of several packages may all find that
// there is none.
func installOnce(ctx context.Context, search Search, log *slog.Logger) (found Binaries, err error) {
	if err := search.setCacheDir(); err != nil {
		return Binaries{}, err
	}
	if err := os.MkdirAll(search.CacheDir, 0o755); err != nil {
		return Binaries{}, fmt.Errorf("make download folder: %w", err)
	}
	lock, err := lockPath(ctx, filepath.Join(search.CacheDir, lockFile))
	if err != nil {
		return Binaries{}, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if found, ok := lookFor(ctx, search); ok {
		return found, nil // somebody else has installed it meanwhile
	}
	dir, err := install(ctx, search, log)
	if err != nil {
		return Binaries{}, err
	}
	if found, err = inspect(ctx, dir); err != nil {
		return Binaries{}, fmt.Errorf("use what was installed in %s: %w", dir, err)
	}
	return found, nil
}

// install installs PostgreSQL and returns the folder of its binaries.
func install(ctx context.Context, search Search, log *slog.Logger) (string, error) {
	if os.Geteuid() == 0 && runtime.GOOS == "linux" {
		if _, err := exec.LookPath("apt-get"); err == nil {
			return installByApt(ctx, log)
		}
	}
	return installByDownload(search.CacheDir, log)
}

// noMainCluster keeps Debian's package from creating and starting a cluster of its own.
const noMainCluster = "/etc/postgresql-common/createcluster.d/shardyard.conf"

func installByApt(ctx context.Context, log *slog.Logger) (string, error) {
	log.Info("no postgres server found, installing debian's package postgresql with apt-get")
	if err := os.MkdirAll(filepath.Dir(noMainCluster), 0o755); err != nil {
		return "", fmt.Errorf("configure postgresql-common: %w", err)
	}
	text := "# Written by shardyard's development cluster, which starts servers of its own.\ncreate_main_cluster = false\n"
	if err := os.WriteFile(noMainCluster, []byte(text), 0o644); err != nil {
		return "", fmt.Errorf("configure postgresql-common: %w", err)
	}
	for _, args := range [][]string{
		{"update", "-q"},
		{"install", "-q", "-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold", "postgresql"},
	} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(cmd.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("run apt-get %s: %w: %s", strings.Join(args, " "), err, lastLines(out, 10))
		}
	}
	found, ok := lookFor(ctx, Search{Folders: []string{"/usr/lib/postgresql/*/bin"}})
	if !ok {
		return "", errors.New("find the server of debian's package postgresql after its installation")
	}
	return found.Dir, nil
}

// installByDownload lets embedded-postgres fetch its binaries. The library has no call for that alone, so it is asked
// to start a server on a scratch directory. As root, or where a library is missing, that start fails after the
// download; what counts is whether the binaries have arrived.
func installByDownload(cache string, log *slog.Logger) (dir string, err error) {
	installed := filepath.Join(cache, "installed")
	bin := filepath.Join(installed, "bin")
	if _, err := os.Stat(filepath.Join(bin, "postgres")); err == nil {
		return bin, nil
	}
	log.Info("no postgres server found, downloading one", "folder", cache)
	scratch, err := os.MkdirTemp("", "shardyard-download-")
	if err != nil {
		return "", fmt.Errorf("make scratch folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	ports, err := freePorts(1)
	if err != nil {
		return "", err
	}
	server := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		CachePath(cache).BinariesPath(installed).RuntimePath(filepath.Join(scratch, "runtime")).
		DataPath(filepath.Join(scratch, "data")).Port(uint32(ports[0])).Logger(io.Discard))
	startErr := server.Start()
	if startErr == nil {
		if err := server.Stop(); err != nil {
			return "", fmt.Errorf("stop the downloaded server: %w", err)
		}
	}
	if _, err := os.Stat(filepath.Join(bin, "postgres")); err != nil {
		return "", fmt.Errorf("download PostgreSQL: %w", errors.Join(startErr, err))
	}
	return bin, nil
}

func (s *Search) setCacheDir() (err error) {
	if s.CacheDir == "" {
		s.CacheDir, err = defaultCacheDir()
	}
	return err
}

func defaultCacheDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/cache/shardyard/postgres", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache folder: %w", err)
	}
	return filepath.Join(dir, "shardyard", "postgres"), nil
}

// lastLines returns the last n lines of a program's output, for an error message.
func lastLines(text []byte, n int) string {
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n):], []byte("\n")))
}
