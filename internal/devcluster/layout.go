package devcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// layoutFile describes a data directory, lockFile is locked while servers run in it.
const (
	layoutFile = "cluster.json"
	lockFile   = "lock"
)

// layoutFormat is the version of layoutFile.
const layoutFormat = 1

// layout is what a data directory remembers.
type layout struct {
	Format int `json:"format"`
	// Ready is set once every server was made; what an interrupted start left is made again.
	Ready bool `json:"ready"`
	// Major is the version of PostgreSQL that made the servers.
	Major  int           `json:"postgres_major"`
	Shards []shardLayout `json:"shards"`
	// Etcd is the port of the embedded etcd; 0 if there was none so far.
	Etcd uint16 `json:"etcd_port,omitempty"`
}

// shardLayout holds the ports of a shard's servers, to be used again if they are still free.
type shardLayout struct {
	Primary  uint16   `json:"primary_port"`
	Replicas []uint16 `json:"replica_ports"`
}

// newLayout gives every server a free port.
func newLayout(shards, replicas, major int) (*layout, error) {
	ports, err := freePorts(shards * (1 + replicas))
	if err != nil {
		return nil, err
	}
	made := &layout{Format: layoutFormat, Major: major}
	for range shards {
		made.Shards = append(made.Shards, shardLayout{Primary: ports[0], Replicas: ports[1 : 1+replicas : 1+replicas]})
		ports = ports[1+replicas:]
	}
	return made, nil
}

// readLayout returns nil where dir holds no cluster yet.
func readLayout(dir string) (*layout, error) {
	text, err := os.ReadFile(filepath.Join(dir, layoutFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read cluster layout: %w", err)
	}
	var found layout
	if err := json.Unmarshal(text, &found); err != nil {
		return nil, fmt.Errorf("read cluster layout %s: %w", filepath.Join(dir, layoutFile), err)
	}
	if found.Format != layoutFormat {
		return nil, fmt.Errorf("read cluster layout %s: format %d is not %d", filepath.Join(dir, layoutFile), found.Format, layoutFormat)
	}
	return &found, nil
}

// write replaces the layout file as a whole.
func (l *layout) write(dir string) error {
	text, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fmt.Errorf("write cluster layout: %w", err)
	}
	name := filepath.Join(dir, layoutFile)
	if err := os.WriteFile(name+".new", append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write cluster layout: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("write cluster layout: %w", err)
	}
	return nil
}

// fits tells whether an existing cluster is the one that the configuration asks for.
func (l *layout) fits(cfg Config, binaries Binaries) error {
	if l.Major != binaries.Major {
		return fmt.Errorf("its servers were made by PostgreSQL %d, but the binaries in %s are %s: name a folder of version %d in PG_BIN",
			l.Major, binaries.Dir, binaries.Version, l.Major)
	}
	if cfg.Shards == 0 {
		return nil
	}
	if replicas := len(l.Shards[0].Replicas); len(l.Shards) != cfg.Shards || replicas != cfg.Replicas {
		return fmt.Errorf("it holds %d shards with %d replicas each, not %d with %d", len(l.Shards), replicas, cfg.Shards, cfg.Replicas)
	}
	return nil
}

// lockDir locks a data directory, waiting for the supervisor of an owner that died to stop its servers.
func lockDir(ctx context.Context, dir string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	lock, err := lockPath(ctx, filepath.Join(dir, lockFile))
	if err != nil {
		return nil, fmt.Errorf("lock data directory %s, in which another process may run servers: %w", dir, err)
	}
	return lock, nil
}

// lockPath makes a file and locks it, waiting for it as long as ctx lasts. The lock is held until the file, and every
// copy of its descriptor in another process, is closed.
func lockPath(ctx context.Context, name string) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", name, errors.Join(err, file.Close()))
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: somebody holds it: %w", name, errors.Join(ctx.Err(), file.Close()))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
