package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/router/schema"
)

// maintenance is the database that every shard has; bookkeeping stands there from the
// moment the shard joins, so that a new connection always finds a floor.
const maintenance = "postgres"

// AddShard registers a shard, or its new address, and prepares it for every database of
// the cluster. The first shard becomes the home shard. It may be repeated after a failure.
func AddShard(ctx context.Context, store *etcd.Store, performer *schema.Performer, shard directory.Shard) error {
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
	var change directory.Change = directory.AddShard{Shard: shard}
	if known, ok := m.Shard(shard.ID); ok {
		if sameAddress(*known, shard) {
			return nil
		}
		change = directory.UpdateShard{Shard: shard}
	} else if err := performer.Join(ctx, database, shard.ID); err != nil {
		return err
	}
	_, err := store.Apply(ctx, database, change)
	return err
}

func sameAddress(a, b directory.Shard) bool {
	return a.Primary == b.Primary && slices.Equal(a.Replicas, b.Replicas)
}
