package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is who the servers run as. PostgreSQL refuses to run as root, so root's servers run as postgres or, where
// there is no such user, as nobody; everybody else's run as themselves.
type account struct {
	name     string
	uid, gid int
	switched bool // the servers run as somebody else than we do
}

func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		entry, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.Atoi(entry.Uid)
		gid, gidErr := strconv.Atoi(entry.Gid)
		if err := errors.Join(uidErr, gidErr); err != nil {
			return account{}, fmt.Errorf("look up user %s: %w", name, err)
		}
		return account{name: name, uid: uid, gid: gid, switched: true}, nil
	}
	return account{}, errors.New("find a user to run PostgreSQL as: it refuses to run as root, and there is neither postgres nor nobody")
}

// command prepares a program that runs as the account, in a session of its own (so that Ctrl-C on the terminal
// reaches only us) and with an environment that no PG* variable of the caller disturbs.
func (a account) command(ctx context.Context, dir, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL=C", "TZ=UTC", "HOME=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if a.switched {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return cmd
}

// own makes path and all below it the account's.
func (a account) own(path string) error {
	if !a.switched {
		return nil
	}
	err := filepath.WalkDir(path, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(name, a.uid, a.gid)
	})
	if err != nil {
		return fmt.Errorf("give %s to user %s: %w", path, a.name, err)
	}
	return nil
}

// makeDir makes a directory that belongs to the account and is closed to others, as PostgreSQL wants it.
func (a account) makeDir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	return a.own(path)
}

// canEnter tells whether the account can reach path through all the directories above it.
func (a account) canEnter(ctx context.Context, path string) error {
	if err := a.command(ctx, "/", "/bin/sh", "-c", `cd "$1"`, "sh", path).Run(); err != nil {
		who := "this user"
		if a.switched {
			who = "user " + a.name
		}
		return fmt.Errorf("enter %s as %s, who runs the servers (a directory above it is closed to others; choose another one, such as /tmp/…): %w", path, who, err)
	}
	return nil
}
