package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// The values of shardyard.snapshot under which a read over three shards is measured.
const (
	snapshotCluster = "cluster"
	snapshotOff     = "off"
)

var snapshotWays = []string{snapshotCluster, snapshotOff}

// measureSnapshot reads the accounts of a branch, about 100 rows over three shards.
func measureSnapshot(ctx context.Context, b *shardedBed, o options) ([]result, error) {
	if err := b.createAccounts(ctx); err != nil {
		return nil, fmt.Errorf("create the accounts: %w", err)
	}
	return interleave(o, clientNames, snapshotWays, func(clients, way int) (measurement, error) {
		return drive(ctx, clientCount[clients], o.length, 0, func(client int) (worker, error) {
			return b.readingWorker(ctx, snapshotWays[way], client)
		})
	})
}

func (b *shardedBed) readingWorker(ctx context.Context, snapshot string, client int) (worker, error) {
	conn, err := connect(ctx, b.router.port, "postgres")
	if err != nil {
		return worker{}, err
	}
	if err := query(ctx, conn, "SET shardyard.snapshot = "+snapshot); err != nil {
		return worker{}, err
	}
	random := rand.New(rand.NewPCG(1, uint64(client)))
	step := func(ctx context.Context) (time.Duration, error) {
		sql := "SELECT id, balance FROM accounts WHERE branch = " + strconv.Itoa(random.IntN(branches))
		start := time.Now()
		results, err := conn.Exec(ctx, sql).ReadAll()
		if err != nil {
			return 0, fmt.Errorf("run %q: %w", sql, err)
		}
		latency := time.Since(start)
		if want := shardCount * rowsPerShard / branches; len(results) != 1 || len(results[0].Rows) != want {
			return 0, fmt.Errorf("run %q: not %d rows", sql, want)
		}
		return latency, nil
	}
	return worker{step: step, close: func() { hangUp(ctx, conn) }}, nil
}
