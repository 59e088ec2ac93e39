package devcluster

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
)

// ForTest starts a cluster for one test and closes it when the test ends, passed or failed; the servers' last log
// lines then go to the log of a failed test. A test that cannot get its cluster fails.
func ForTest(t testing.TB, cfg Config) *Cluster {
	t.Helper()
	c, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatalf("start the test's cluster: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.LogTails(15))
		}
		if err := c.Close(); err != nil {
			t.Errorf("close the test's cluster: %v", err)
		}
	})
	return c
}

// TempDir returns a directory for Config.Dir, removed when the test ends. Unlike t.TempDir's it can be entered by
// the user that root's servers run as.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "shardyard-test-")
	if err != nil {
		t.Fatalf("make a directory for the servers: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the servers' directory: %v", err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatalf("open the servers' directory: %v", err)
	}
	return dir
}

// TestRun is a testing.M with a cluster around it; see Main.
type TestRun struct {
	tests   interface{ Run() int }
	cfg     Config
	cluster **Cluster
}

// Main makes one cluster serve all tests of a package. *cluster is set before the first test runs:
//
//	var cluster *devcluster.Cluster
//
//	func TestMain(m *testing.M) {
//		goleak.VerifyTestMain(devcluster.Main(m, devcluster.Config{Shards: 3, BurnOIDs: true}, &cluster))
//	}
func Main(tests interface{ Run() int }, cfg Config, cluster **Cluster) *TestRun {
	return &TestRun{tests: tests, cfg: cfg, cluster: cluster}
}

// Run starts the cluster, runs the tests, closes the cluster and returns the exit code.
func (r *TestRun) Run() int {
	started, err := Start(context.Background(), r.cfg) //nolint:forbidigo // the main function of a test binary
	if err != nil {
		fmt.Fprintf(os.Stderr, "start the tests' cluster: %v\n", err)
		return 1
	}
	*r.cluster = started
	code := r.tests.Run()
	if code != 0 {
		fmt.Fprintln(os.Stderr, started.LogTails(15))
	}
	if err := started.Close(); err != nil {
		fmt.Fprintf(os.Stderr, "close the tests' cluster: %v\n", err)
		return max(code, 1)
	}
	return code
}

// LogTails returns the last n lines of each server's log.
func (c *Cluster) LogTails(n int) string {
	var text strings.Builder
	for _, shard := range c.shards {
		for _, s := range shard.all() {
			fmt.Fprintf(&text, "== log of %s\n%s\n", s.name, s.logTail(n))
		}
	}
	return text.String()
}
