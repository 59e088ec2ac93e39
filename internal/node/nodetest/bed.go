package nodetest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/internal/testbed"
	"github.com/shardyard/shardyard/router"
	"github.com/shardyard/shardyard/router/backend"
)

// Config is that of a router of a cluster: it trusts everybody, and registers the shards itself. No other router has its
// name or prefix.
func Config(cluster *devcluster.Cluster, name string, cancelPrefix uint16) node.Config {
	return node.Config{
		Router:    router.Config{Name: name, Listen: "127.0.0.1:0", CancelPrefix: cancelPrefix},
		Pools:     backend.Config{ServiceUser: "postgres"},
		Directory: etcd.Config{Endpoints: cluster.Etcd().Endpoints()},
		Bootstrap: cluster.Shards(),
	}
}

// Option changes the configuration of a bed's routers.
type Option func(*node.Config)

// Bed is a database of one test with routers in front. Its methods fail the test where something goes wrong.
type Bed struct {
	*testbed.Database
	// Routers are closed when the test ends, except those that it has taken out to close them itself.
	Routers []*node.Node

	t testing.TB
}

// New makes an empty database on the cluster and starts routers, whose directory is the test's own too.
func New(t testing.TB, cluster *testbed.Cluster, routers int, options ...Option) *Bed {
	t.Helper()
	b := &Bed{Database: cluster.NewDatabase(t), t: t}
	for i := range routers {
		cfg := Config(cluster.Cluster, fmt.Sprintf("r%d", i+1), uint16(i+1))
		cfg.Directory.Cluster = b.Name
		for _, option := range options {
			option(&cfg)
		}
		running := Start(t, cfg)
		b.Routers = append(b.Routers, running)
		t.Cleanup(func() {
			if slices.Contains(b.Routers, running) {
				Close(t, running)
			}
		})
	}
	return b
}

// Start starts a router. The caller, or the end of the test, closes it with Close.
func Start(t testing.TB, cfg node.Config) *node.Node {
	t.Helper()
	running, err := node.Start(t.Context(), cfg)
	testbed.Must(t, err)
	return running
}

// closeTimeout bounds the end of a router.
const closeTimeout = 20 * time.Second

// Close ends a router; the test fails if it does not end well.
func Close(t testing.TB, running *node.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), closeTimeout)
	defer cancel()
	if err := running.Close(ctx); err != nil {
		t.Errorf("close router: %v", err)
	}
}

// URL is where clients of router i (from 0) connect.
func (b *Bed) URL(i int) string { return URL(b.Routers[i], b.Name) }

// URL is where clients of a router connect.
func URL(running *node.Node, database string) string {
	return fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable", running.Addr(), database)
}

// Session opens a session on router i. It is closed when the test ends.
func (b *Bed) Session(i int, change ...func(*pgx.ConnConfig)) *pgx.Conn {
	b.t.Helper()
	return testbed.Connect(b.t, b.URL(i), change...)
}
