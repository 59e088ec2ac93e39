package compose

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/internal/devcluster"
)

const root = "../.."

func readProject(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker-compose.yml")}, cli.WithOsEnv, cli.WithDotEnv)
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// kind tells the services apart by what they run.
func kind(service types.ServiceConfig) string {
	switch {
	case strings.Contains(service.Image, "/etcd:"):
		return "etcd"
	case strings.HasPrefix(service.Image, "postgres:"):
		return "shard"
	case len(service.Entrypoint) == 0:
		return "router"
	}
	return "setup"
}

func TestWhatTheFileHas(t *testing.T) {
	project := readProject(t)
	count := map[string]int{}
	for name, service := range project.Services {
		count[kind(service)]++
		if networks := service.NetworksByPriority(); len(networks) != 1 || networks[0] != "shardyard" {
			t.Errorf("%s is in networks %v, want shardyard alone", name, networks)
		}
		if kind(service) != "setup" && service.HealthCheck == nil {
			t.Errorf("%s has no health check", name)
		}
	}
	if count["etcd"] != 3 || count["shard"] != 3 || count["router"] != 2 || count["setup"] != 1 {
		t.Errorf("services: got %v, want 3 etcd, 3 shard, 2 router, 1 setup", count)
	}
	if len(project.Networks) != 1 {
		t.Errorf("%d networks, want 1", len(project.Networks))
	}
}

func TestEveryServiceRuns(t *testing.T) {
	project := readProject(t)
	hosts := startAll(t, project)
	query := func(router, sql string, args ...any) []int {
		config, err := pgx.ParseConfig(fmt.Sprintf("postgres://postgres:shardyard@%s:6432/postgres?sslmode=disable", hosts[router].ip))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatalf("connect to %s: %s", router, err)
		}
		defer conn.Close(context.WithoutCancel(t.Context()))
		rows, err := conn.Query(t.Context(), sql, args...)
		if err != nil {
			t.Fatalf("%s on %s: %s", sql, router, err)
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			t.Fatalf("%s on %s: %s", sql, router, err)
		}
		return found
	}
	query("router1", `CREATE TABLE t (k int PRIMARY KEY)`)
	query("router1", `SHARD TABLE t BY HASH (k) PARTITIONS 6`)
	for k := range 12 {
		query([]string{"router1", "router2"}[k%2], `INSERT INTO t VALUES ($1)`, k)
	}
	got := query("router2", `SELECT k FROM t ORDER BY k`)
	if want := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// startAll starts the services as their depends_on say, the health checks deciding.
func startAll(t *testing.T, project *types.Project) map[string]*host {
	t.Helper()
	path := programs(t)
	names := map[string]string{}
	for i, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range project.Services {
			if !yield(name) {
				return
			}
		}
	}) {
		names[name] = fmt.Sprintf("127.77.0.%d", i+1)
	}
	hosts := map[string]*host{}
	var start func(name string)
	start = func(name string) {
		if hosts[name] != nil {
			return
		}
		service := project.Services[name]
		hosts[name] = newHost(t, service, names, path)
		for _, dependency := range slices.Sorted(slices.Values(service.GetDependencies())) {
			start(dependency)
		}
		for dependency, condition := range service.DependsOn {
			if condition.Condition == types.ServiceConditionHealthy {
				hosts[dependency].healthy(t)
			}
		}
		if kind(service) == "setup" {
			hosts[name].runToEnd(t)
			return
		}
		hosts[name].start(t)
	}
	for name := range project.Services {
		start(name)
	}
	for _, h := range hosts {
		if kind(h.service) != "setup" {
			h.healthy(t)
		}
	}
	return hosts
}

// programs returns the PATH of the services: our binaries and the server's.
func programs(t *testing.T) string {
	t.Helper()
	bin, err := filepath.Abs(filepath.Join(root, "bin"))
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"shardyard", "etcd", "etcdctl"} {
		if _, err := os.Stat(filepath.Join(bin, program)); err != nil {
			t.Fatalf("%s is missing: run `make build bin/etcd bin/etcdctl`", filepath.Join(bin, program))
		}
	}
	binaries, err := devcluster.FindBinaries(t.Context(), devcluster.SystemSearch(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	dirs := []string{bin, binaries.Dir}
	if isReady, err := exec.LookPath("pg_isready"); err == nil {
		dirs = append(dirs, filepath.Dir(isReady))
	}
	return strings.Join(append(dirs, "/usr/bin", "/bin"), string(filepath.ListSeparator))
}
