package devcluster

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// TestServersEndWithTheirOwner starts clusters in child processes that end without calling Close.
func TestServersEndWithTheirOwner(t *testing.T) {
	for mode, signal := range map[string]syscall.Signal{
		"killed": syscall.SIGKILL, "terminated": syscall.SIGTERM, "interrupted": syscall.SIGINT,
		"exit": 0, "panic": 0, "pause": 0,
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			child := exec.Command(os.Args[0], "-test.run=^$")
			child.Env = append(os.Environ(), ownerMode+"="+mode)
			out, err := child.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = child.Process.Kill(); _ = child.Wait() }()

			lines := bufio.NewScanner(out)
			var said []string
			for lines.Scan() && lines.Text() != "started" {
				said = append(said, lines.Text())
			}
			if len(said) != 5 {
				t.Fatalf("the child said %q, not a directory and four pids", said)
			}
			if signal != 0 {
				if err := child.Process.Signal(signal); err != nil {
					t.Fatal(err)
				}
			}
			if err := child.Wait(); err == nil {
				t.Fatal("the child ended well")
			}
			eventually(t, 30*time.Second, "the servers have ended", func() bool {
				for _, text := range said[1:] {
					pid, err := strconv.Atoi(text)
					if err != nil {
						t.Fatal(err)
					}
					if syscall.Kill(pid, 0) == nil && !isZombie(pid) {
						return false
					}
				}
				return true
			})
			eventually(t, 10*time.Second, "the directory is removed", func() bool {
				_, err := os.Stat(said[0])
				return errors.Is(err, fs.ErrNotExist)
			})
		})
	}
}

func eventually(t *testing.T, wait time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(wait)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("after %s it is not so that %s", wait, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
