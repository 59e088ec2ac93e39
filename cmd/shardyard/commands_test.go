package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/shardyard/shardyard/internal/devcluster"
)

// execute runs one command line in this process.
func execute(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func mustExecute(t *testing.T, args ...string) string {
	t.Helper()
	out, err := execute(t, args...)
	if err != nil {
		t.Fatalf("shardyard %s: %s\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func TestEveryCommandHasAnExample(t *testing.T) {
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Name() == "help" || c.Name() == "completion" {
			return
		}
		if c.Example == "" || c.Short == "" {
			t.Errorf("%s has no example or no description", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRootCommand())
}

func TestCommandsOnACluster(t *testing.T) {
	cluster := devcluster.ForTest(t, devcluster.Config{Shards: 2, Etcd: true})
	where := "--etcd-endpoints=" + strings.Join(cluster.Etcd().Endpoints(), ",")
	address := func(i int) string {
		p := cluster.Shards()[i].Primary
		return fmt.Sprintf("--address=%s:%d", p.Host, p.Port)
	}
	mustExecute(t, "shard", "add", "s1", address(0), "--home", where)
	mustExecute(t, "shard", "add", "s2", address(1), where)
	mustExecute(t, "shard", "add", "s2", address(1), where) // again is fine
	if out, err := execute(t, "shard", "add", "s2", address(1), "--home", where); err == nil {
		t.Errorf("a second home shard was added: %s", out)
	}
	if out, err := execute(t, "shard", "add", "s3", "--address=127.0.0.1:1", where); err == nil {
		t.Errorf("a shard that is not there was added: %s", out)
	}

	var shards []map[string]string
	if err := json.Unmarshal([]byte(mustExecute(t, "shard", "list", "--json", where)), &shards); err != nil {
		t.Fatal(err)
	}
	if len(shards) < 2 || shards[0]["name"] != "s1" || shards[0]["role"] != "home" || shards[1]["name"] != "s2" {
		t.Errorf("shard list: got %v", shards)
	}

	shardATable(t, cluster)
	if out := mustExecute(t, "table", "list", where); !strings.Contains(out, "orders") {
		t.Errorf("table list: got\n%s", out)
	}
	if out := mustExecute(t, "table", "show", "orders", where); strings.Count(out, "\n") != 2+4 {
		t.Errorf("table show: want 4 partitions, got\n%s", out)
	}

	file := filepath.Join(t.TempDir(), "map.json")
	mustExecute(t, "map", "export", "--output", file, where)
	if out, err := execute(t, "map", "import", file, where); err == nil {
		t.Errorf("an existing map was replaced without --force: %s", out)
	}
	mustExecute(t, "map", "import", "--force", file, where)
	if out := mustExecute(t, "table", "show", "orders", where); strings.Count(out, "\n") != 2+4 {
		t.Errorf("table show after import: got\n%s", out)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := execute(t, "map", "import", "--force", file, where); err == nil {
		t.Errorf("a damaged export was imported: %s", out)
	}
	reloadBySignal(t, cluster)
}

// shardATable does so through a router.
func shardATable(t *testing.T, cluster *devcluster.Cluster) {
	t.Helper()
	running, err := startDevRouter(t.Context(), cluster, "127.0.0.1:0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), stopTimeout)
		defer cancel()
		if err := running.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	if err := ping(running.Addr().String(), time.Second); err != nil {
		t.Errorf("ping: %s", err)
	}
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://postgres@%s/postgres", running.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(t.Context(), conn)
	for _, sql := range []string{`CREATE TABLE orders (id int PRIMARY KEY)`, `SHARD TABLE orders BY HASH (id) PARTITIONS 4`} {
		if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %s", sql, err)
		}
	}
}

func TestPingTellsWhenNobodyListens(t *testing.T) {
	if err := ping("127.0.0.1:1", time.Second); err == nil {
		t.Error("ping of a closed port succeeded")
	}
}

// The cluster of dev is there again at the next start, with everything in it: the tour shows the same.
func TestDevStartsAgainOnItsData(t *testing.T) {
	dir := devcluster.TempDir(t)
	run := func() string {
		var out bytes.Buffer
		err := runDev(t.Context(), devOptions{
			shards: 3, listen: "127.0.0.1:0", data: dir, sample: true, once: true, logLevel: "error",
		}, &out)
		if err != nil {
			t.Fatalf("dev: %s\n%s", err, out.String())
		}
		_, tour, _ := strings.Cut(out.String(), "SHOW TABLES")
		tour, _, _ = strings.Cut(tour, "Shardyard is up")
		return tour
	}
	first := run()
	if !strings.Contains(first, "customers") || !strings.Contains(first, "refused (0A000)") {
		t.Errorf("the tour shows too little:\n%s", first)
	}
	for _, want := range []string{"decided_by | prepared | outcome", "s1         | {s2}     | commit", "sum of balance: 1000",
		"Ada   | 380", "Cleo  | 620", "(3) | s"} {
		if !strings.Contains(first, want) {
			t.Errorf("the tour does not show %q:\n%s", want, first)
		}
	}
	if got := strings.Count(first, "sum of balance: 1000"); got != 2 {
		t.Errorf("the sum is the same %d times, before and after the transfer it should be:\n%s", got, first)
	}
	if second := run(); second != first {
		t.Errorf("after a restart the tour shows\n%s\nnot\n%s", second, first)
	}
}

func TestDevRefusesAnAddressThatOthersReach(t *testing.T) {
	err := runDev(t.Context(), devOptions{listen: "0.0.0.0:6432", logLevel: "warn"}, &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("got error %v", err)
	}
}
