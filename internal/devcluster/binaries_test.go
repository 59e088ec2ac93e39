package devcluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func systemBinaries(t *testing.T) Binaries {
	t.Helper()
	found, err := FindBinaries(t.Context(), SystemSearch(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestFindBinaries(t *testing.T) {
	real := systemBinaries(t)
	quiet := slog.New(slog.DiscardHandler)
	links := TempDir(t)
	if err := errors.Join(
		os.Symlink(real.Path("initdb"), filepath.Join(links, "initdb")),
		os.Symlink(real.Dir, filepath.Join(links, "version")),
	); err != nil {
		t.Fatal(err)
	}
	for name, search := range map[string]Search{
		"named":           {Bin: real.Dir},
		"in the path":     {Path: "/nowhere:" + real.Dir},
		"links in a path": {Path: links},
		"in a folder":     {Folders: []string{"[", links + "/v*n"}},
	} {
		found, err := FindBinaries(t.Context(), search, quiet)
		if err != nil || found != real {
			t.Errorf("%s: found %v, %v; want %v", name, found, err, real)
		}
	}
	if _, err := FindBinaries(t.Context(), Search{Path: TempDir(t)}, quiet); !errors.Is(err, ErrNoBinaries) {
		t.Errorf("where all is hidden the error is %v", err)
	}
	// A named folder is used or refused, never silently replaced.
	if _, err := FindBinaries(t.Context(), Search{Bin: TempDir(t), Path: real.Dir, Install: true}, quiet); err == nil || errors.Is(err, ErrNoBinaries) {
		t.Errorf("of an empty named folder the error is %v", err)
	}
}

func TestNewestFolderWins(t *testing.T) {
	root := TempDir(t)
	for _, version := range []string{"9.6.1", "14.2", "16.3", "15.9"} {
		writeProgram(t, filepath.Join(root, version), "initdb", "exit 0")
		writeProgram(t, filepath.Join(root, version), "postgres", fmt.Sprintf("echo 'postgres (PostgreSQL) %s (Debian %s-1)'", version, version))
	}
	found, err := FindBinaries(t.Context(), Search{Folders: []string{root + "/*"}}, slog.New(slog.DiscardHandler))
	if err != nil || found.Version != "16.3" || found.Major != 16 {
		t.Errorf("found %+v, %v", found, err)
	}
	if _, err := FindBinaries(t.Context(), Search{Bin: filepath.Join(root, "9.6.1")}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("version 9.6 was taken")
	}
}

// TestReplicaWithoutPgBasebackup uses a folder that, like the one embedded-postgres downloads, has no pg_basebackup.
func TestReplicaWithoutPgBasebackup(t *testing.T) {
	t.Parallel()
	real := systemBinaries(t)
	bare := TempDir(t)
	for _, program := range []string{"initdb", "postgres"} {
		writeProgram(t, bare, program, fmt.Sprintf(`exec %q "$@"`, real.Path(program)))
	}
	c := ForTest(t, Config{Shards: 1, Replicas: 2, Bin: bare})
	if c.Binaries().Has("pg_basebackup") {
		t.Fatal("the folder has pg_basebackup")
	}
	execute(t, connect(t, c.ConnString(0, "postgres")), "create table streamed as select 1 as n")
	for i := range 2 {
		replica := connect(t, c.ReplicaConnString(0, i, "postgres"))
		eventually(t, 20*time.Second, "the replica has the primary's table", func() bool {
			return query[bool](t, replica, "select to_regclass('streamed') is not null")
		})
	}
}

func writeProgram(t *testing.T, dir, name, script string) {
	t.Helper()
	err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	if err != nil {
		t.Fatal(err)
	}
}

// TestFindWhileInstalling: what another process is installing is used when it has done, not before.
func TestFindWhileInstalling(t *testing.T) {
	real := systemBinaries(t)
	quiet := slog.New(slog.DiscardHandler)
	search := Search{Path: real.Dir, Install: true, CacheDir: TempDir(t)}
	lock, err := lockPath(t.Context(), filepath.Join(search.CacheDir, lockFile))
	if err != nil {
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if found, err := FindBinaries(soon, search, quiet); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while somebody installs: %v, %v", found, err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if found, err := FindBinaries(t.Context(), search, quiet); err != nil || found != real {
		t.Errorf("afterwards: %v, %v; want %v", found, err, real)
	}
}
