package etcd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// fileMagic begins a snapshot file; the SHA-256 of the rest and a line feed follow.
const fileMagic = "shardyard snapshot 1 sha256 "

// SaveFile writes the snapshot to a file that a router can start from while etcd is out. The file is
// replaced as a whole and is on disk when SaveFile returns: whoever reads path, after a crash too, finds the
// old or the new snapshot. Only the owner may read it. Concurrent calls for one path are safe, one wins.
func SaveFile(path string, snapshot *Snapshot) (err error) {
	encoded, err := encodeSnapshot(snapshot)
	if err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new") // mode 0600
	if err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			_ = temporary.Close()
			_ = os.Remove(temporary.Name())
		}
	}()
	for _, part := range [][]byte{[]byte(fileMagic + sumOf(encoded) + "\n"), encoded} {
		if _, err := temporary.Write(part); err != nil {
			return fmt.Errorf("save snapshot: %w", err)
		}
	}
	if err := temporary.Sync(); err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	if err := temporary.Close(); err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	if err := os.Rename(temporary.Name(), path); err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	return syncDirectory(filepath.Dir(path))
}

// syncDirectory makes a rename durable.
func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	return nil
}

// LoadFile reads what SaveFile wrote. ErrNotFound: there is no file. ErrCorrupt: it is not whole.
func LoadFile(path string) (*Snapshot, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("load snapshot %s: %w", path, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("load snapshot: %w", err)
	}
	header, encoded, ok := bytes.Cut(content, []byte("\n"))
	if !ok || string(header) != fileMagic+sumOf(encoded) {
		return nil, fmt.Errorf("load snapshot %s: %w", path, ErrCorrupt)
	}
	snapshot, err := decodeSnapshot(encoded)
	if err != nil {
		return nil, fmt.Errorf("load snapshot %s: %w", path, err)
	}
	return snapshot, nil
}
