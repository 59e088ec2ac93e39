package testbed

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
)

// Database is a database of one test. Its methods fail the test where something goes wrong.
type Database struct {
	// Name needs no quoting.
	Name    string
	Cluster *Cluster

	t testing.TB
}

// statementTimeout bounds what Exec does.
const statementTimeout = time.Minute

// Connect opens a connection to the database on a shard, as the superuser. It is closed when the test ends.
func (d *Database) Connect(shard int, change ...func(*pgx.ConnConfig)) *pgx.Conn {
	d.t.Helper()
	return Connect(d.t, d.Cluster.ConnString(shard, d.Name), change...)
}

// Exec runs statements on a shard, on a connection of their own.
func (d *Database) Exec(shard int, statements ...string) {
	d.t.Helper()
	Exec(d.t, d.Cluster.ConnString(shard, d.Name), statements...)
}

// Dial opens a connection as the router's service role does. The caller closes it.
func (d *Database) Dial(ctx context.Context, shard directory.Shard, database string) (*pgx.Conn, error) {
	at := slices.IndexFunc(d.Cluster.Shards(), func(s directory.Shard) bool { return s.ID == shard.ID })
	if at < 0 {
		return nil, fmt.Errorf("connect to shard %s: there is none", shard.ID)
	}
	return pgx.Connect(ctx, d.Cluster.ConnString(at, database))
}

// Map is the first map of the database: the cluster's shards, the first of which is home, and the given tables.
func (d *Database) Map(tables ...directory.Table) *directory.Map {
	d.t.Helper()
	shards := d.Cluster.Shards()
	m, err := directory.NewMap(directory.Map{ClusterID: "c", Database: d.Name, Epoch: 1, Shards: shards, Home: shards[0].ID, Tables: tables})
	Must(d.t, err)
	return m
}

// Store opens a directory in the cluster's etcd; the directories of a database's stores are one. It is closed when the
// test ends.
func (d *Database) Store(configure ...func(*etcd.Config)) *etcd.Store {
	d.t.Helper()
	config := etcd.Config{Endpoints: d.Cluster.Etcd().Endpoints(), Cluster: d.Name}
	for _, c := range configure {
		c(&config)
	}
	store, err := etcd.Open(d.t.Context(), config)
	Must(d.t, err)
	d.t.Cleanup(func() { Must(d.t, store.Close()) })
	return store
}
