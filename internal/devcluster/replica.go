package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// makeReplica copies a running primary into the replica's data directory and makes it a standby. slot is created on
// the primary and keeps its WAL (at most max_slot_wal_keep_size of it) while the replica is away.
func (s *server) makeReplica(ctx context.Context, primary *server, slot string, durable bool) error {
	take := s.baseBackup
	if !s.binaries.Has("pg_basebackup") {
		take = s.copyPrimary
	}
	if err := take(ctx, primary, slot, durable); err != nil {
		return fmt.Errorf("make %s: %w", s.name, err)
	}
	signal := filepath.Join(s.dir, "standby.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		return fmt.Errorf("make %s: %w", s.name, err)
	}
	return s.who.own(signal)
}

func (s *server) baseBackup(ctx context.Context, primary *server, slot string, durable bool) error {
	args := []string{"-w", "-D", s.dir, "-c", "fast", "-X", "stream", "-C", "-S", slot, "-d", primary.connString("")}
	if !durable {
		args = append(args, "--no-sync")
	}
	out, err := s.who.command(ctx, filepath.Dir(s.dir), s.binaries.Path("pg_basebackup"), args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("run pg_basebackup: %w: %s", err, lastLines(out, 10))
	}
	return nil
}

// copyPrimary does what pg_basebackup does, for distributions of PostgreSQL that have none (those that
// embedded-postgres downloads): the low-level backup of the manual's chapter "Continuous Archiving", section
// "Making a Base Backup Using the Low Level API". The WAL since the start of the backup is streamed from the slot.
func (s *server) copyPrimary(ctx context.Context, primary *server, slot string, _ bool) (err error) {
	conn, err := pgx.Connect(ctx, primary.connString("postgres"))
	if err != nil {
		return fmt.Errorf("connect to %s: %w", primary.name, err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(err, conn.Close(closing))
	}()
	if _, err := conn.Exec(ctx, "select pg_create_physical_replication_slot($1, true)", slot); err != nil {
		return fmt.Errorf("create slot: %w", err)
	}
	begin, end := "select pg_backup_start($1, true)", "select labelfile from pg_backup_stop(false)"
	if s.binaries.Major < 15 {
		begin, end = "select pg_start_backup($1, true, false)", "select labelfile from pg_stop_backup(false, false)"
	}
	if _, err := conn.Exec(ctx, begin, s.name); err != nil {
		return fmt.Errorf("start backup: %w", err)
	}
	if err := copyDataDir(primary.dir, s.dir); err != nil {
		return fmt.Errorf("copy %s: %w", primary.dir, err)
	}
	var label string
	if err := conn.QueryRow(ctx, end).Scan(&label); err != nil {
		return fmt.Errorf("stop backup: %w", err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "backup_label"), []byte(label), 0o600); err != nil {
		return fmt.Errorf("write backup label: %w", err)
	}
	return s.who.own(s.dir)
}

// emptyInBackup are the folders of a data directory that a backup makes but does not fill; the manual lists them.
var emptyInBackup = []string{"pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"}

func copyDataDir(from, to string) error {
	err := filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a running server removes files; recovery copes with that
		}
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if err := os.MkdirAll(filepath.Join(to, relative), 0o700); err != nil {
				return err
			}
			for _, empty := range emptyInBackup {
				if relative == empty {
					return filepath.SkipDir
				}
			}
			return nil
		}
		if base := entry.Name(); strings.HasPrefix(base, "postmaster.") || strings.HasPrefix(base, "pgsql_tmp") || !entry.Type().IsRegular() {
			return nil
		}
		return copyFile(name, filepath.Join(to, relative))
	})
	if err != nil {
		return err
	}
	return os.MkdirAll(filepath.Join(to, "pg_wal", "archive_status"), 0o700)
}

func copyFile(from, to string) (err error) {
	source, err := os.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	_, err = io.Copy(target, source)
	return err
}
