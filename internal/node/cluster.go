package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/schema"
)

// maintenance is the database that every shard has; bookkeeping stands there from the
// moment the shard joins, so that a new connection always finds a floor.
const maintenance = "postgres"

// AddShard registers a shard, or its new address, and prepares it for every database of
// the cluster. The first shard becomes the home shard. A server that cannot be a shard is
// refused before anything is changed. It may be repeated after a failure.
func AddShard(ctx context.Context, store *etcd.Store, pools *backend.Pools, performer *schema.Performer, shard directory.Shard) error {
	if err := checkServer(ctx, pools, shard); err != nil {
		return fmt.Errorf("check shard %s: %w", shard.ID, err)
	}
	err := store.CreateCluster(ctx, etcd.Cluster{ID: rand.Text()[:12], Shards: []directory.Shard{shard}, Home: shard.ID})
	if errors.Is(err, etcd.ErrExists) {
		err = store.UpdateCluster(ctx, func(c etcd.Cluster) (etcd.Cluster, error) { return withShard(c, shard), nil })
	}
	if err != nil {
		return fmt.Errorf("register shard %s: %w", shard.ID, err)
	}
	if err := performer.Join(ctx, maintenance, shard.ID); err != nil {
		return fmt.Errorf("prepare shard %s: %w", shard.ID, err)
	}
	snapshot, err := store.Load(ctx)
	if err != nil {
		return fmt.Errorf("load the directory: %w", err)
	}
	for database, m := range snapshot.Maps {
		if err := addToMap(ctx, store, performer, database, m, shard); err != nil {
			return fmt.Errorf("add shard %s to database %s: %w", shard.ID, database, err)
		}
	}
	return nil
}

// oldestVersion is the oldest Postgres that may be a shard, as server_version_num.
const oldestVersion = 150000

// checkServer insists on a server that is a primary, new enough and able to prepare transactions.
func checkServer(ctx context.Context, pools *backend.Pools, shard directory.Shard) error {
	conn, err := pools.Service(ctx, shard, maintenance)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx) // the answer is here already
	}()
	var version, prepared int
	var replica bool
	err = conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('max_prepared_transactions')::int,
		pg_is_in_recovery()`).Scan(&version, &prepared, &replica)
	switch {
	case err != nil:
		return fmt.Errorf("ask for its settings: %w", err)
	case version < oldestVersion:
		return fmt.Errorf("its version is %d.%d, and %d is the oldest that can be a shard", version/10000, version%10000, oldestVersion/10000)
	case replica:
		return errors.New("it is a replica; give the address of the primary")
	case prepared == 0:
		return errors.New("max_prepared_transactions is 0; set it to at least max_connections and restart the server")
	}
	return nil
}

func withShard(c etcd.Cluster, shard directory.Shard) etcd.Cluster {
	c.Shards = slices.Clone(c.Shards)
	at := slices.IndexFunc(c.Shards, func(s directory.Shard) bool { return s.ID == shard.ID })
	if at < 0 {
		c.Shards = append(c.Shards, shard)
	} else {
		c.Shards[at] = shard
	}
	slices.SortFunc(c.Shards, func(a, b directory.Shard) int { return compareID(a.ID, b.ID) })
	return c
}

func compareID(a, b directory.ShardID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func addToMap(ctx context.Context, store *etcd.Store, performer *schema.Performer, database string, m *directory.Map, shard directory.Shard) error {
	known, ok := m.Shard(shard.ID)
	if !ok {
		if err := performer.Join(ctx, database, shard.ID); err != nil {
			return err
		}
		return performer.AddShard(ctx, database, shard)
	}
	if sameAddress(*known, shard) {
		return nil
	}
	_, err := store.Apply(ctx, database, directory.UpdateShard{Shard: shard})
	return err
}

func sameAddress(a, b directory.Shard) bool {
	return a.Primary == b.Primary && slices.Equal(a.Replicas, b.Replicas)
}
