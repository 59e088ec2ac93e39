package testbed

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/migrations"
)

// Cluster is what the tests of a package share. It is safe for concurrent use.
type Cluster struct {
	*devcluster.Cluster

	databases atomic.Int64 // made so far

	mu       sync.Mutex
	prepared bool // the template is there, on every shard
}

// template is the database that others are copied from: the bookkeeping schema stands in it. Copying takes a tenth of
// the time that the migrations take.
const template = "bookkeeping"

// Settings are those of servers for tests: they do not call fsync. What they have written outlives their being killed
// nevertheless, which is all that a test can do to them.
func Settings() map[string]string {
	return map[string]string{"fsync": "off", "full_page_writes": "off"}
}

// Main makes one cluster serve all tests of a package; see devcluster.Main. *cluster can be used from the first test on.
// What cfg.Settings does not say is as in Settings.
func Main(tests interface{ Run() int }, cfg devcluster.Config, cluster **Cluster) *devcluster.TestRun {
	settings := Settings()
	maps.Copy(settings, cfg.Settings)
	cfg.Settings = settings
	made := &Cluster{}
	*cluster = made
	return devcluster.Main(tests, cfg, &made.Cluster)
}

// Database makes a database on every shard, with the bookkeeping schema.
func (c *Cluster) Database(t testing.TB) *Database {
	t.Helper()
	Must(t, c.prepare(t.Context()))
	d := c.named(t)
	Must(t, c.onEachShard(t.Context(), func(ctx context.Context, shard int) error {
		return c.create(ctx, shard, d.Name, " TEMPLATE "+template)
	}))
	return d
}

// NewDatabase makes an empty database on the home shard only, as applications have one before there is a router.
func (c *Cluster) NewDatabase(t testing.TB) *Database {
	t.Helper()
	d := c.named(t)
	Must(t, c.create(t.Context(), 0, d.Name, ""))
	return d
}

func (c *Cluster) named(t testing.TB) *Database {
	return &Database{Name: fmt.Sprintf("bed%d", c.databases.Add(1)), Cluster: c, t: t}
}

// prepare makes the template, once.
func (c *Cluster) prepare(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.prepared {
		return nil
	}
	err := c.onEachShard(ctx, func(ctx context.Context, shard int) error {
		if err := c.create(ctx, shard, template, ""); err != nil {
			return err
		}
		config, err := pgx.ParseConfig(c.ConnString(shard, template))
		if err != nil {
			return err
		}
		return migrations.Apply(ctx, config)
	})
	c.prepared = err == nil
	return err
}

func (c *Cluster) create(ctx context.Context, shard int, name, from string) error {
	conn, err := pgx.Connect(ctx, c.ConnString(shard, "postgres"))
	if err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name+from); err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}

// onEachShard calls work for all shards at once.
func (c *Cluster) onEachShard(ctx context.Context, work func(ctx context.Context, shard int) error) error {
	problems := make([]error, len(c.Shards()))
	var group sync.WaitGroup
	for i := range problems {
		group.Go(func() { problems[i] = work(ctx, i) })
	}
	group.Wait()
	for i, err := range problems {
		if err != nil {
			return fmt.Errorf("prepare shard %d: %w", i, err)
		}
	}
	return nil
}
