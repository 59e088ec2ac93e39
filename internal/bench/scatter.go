package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// scatterWorkload is a read that has to ask all shards.
type scatterWorkload struct {
	rows, clients int
}

func (w scatterWorkload) String() string {
	rows, clients := "1 row", "1 client"
	if w.rows > 1 {
		rows = fmt.Sprintf("%d rows", w.rows)
	}
	if w.clients > 1 {
		clients = fmt.Sprintf("%d clients", w.clients)
	}
	return rows + ", " + clients
}

// readings is read by code, which is not its shard key, or as a whole.
const readingsTable = `CREATE TABLE readings (id int PRIMARY KEY, code int NOT NULL, note text NOT NULL)`

// measureScatter reads one row, and many, from three shards, and from one server that has all rows.
func measureScatter(ctx context.Context, b *shardedBed, o options) ([]result, error) {
	if err := b.createReadings(ctx, o.readRows); err != nil {
		return nil, fmt.Errorf("create the readings: %w", err)
	}
	pooler, err := b.startPooler(ctx, "transaction", b.shardPort(0), plainDatabase)
	if err != nil {
		return nil, err
	}
	defer b.stop(pooler)
	ways := []struct {
		target
		database string
	}{
		{target{name: targetDirect, port: b.shardPort(0)}, plainDatabase}, {pooler, plainDatabase}, {b.router, "postgres"},
	}
	if o.long {
		router, err := b.startRouter(ctx, targetGoroutines, poolSize)
		if err != nil {
			return nil, err
		}
		defer b.stop(router)
		ways = append(ways, struct {
			target
			database string
		}{router, "postgres"})
	}
	workloads := []scatterWorkload{{1, 1}, {1, 16}, {o.readRows, 1}, {o.readRows, 4}}
	names, wayNames := make([]string, len(workloads)), make([]string, len(ways))
	for i, w := range workloads {
		names[i] = w.String()
	}
	for i, way := range ways {
		wayNames[i] = way.name
	}
	return interleave(o, names, wayNames, func(i, way int) (measurement, error) {
		w, t := workloads[i], ways[way]
		return drive(ctx, w.clients, o.length, t.pid, func(client int) (worker, error) {
			return scatterWorker(ctx, t.port, t.database, client, w.rows, o.readRows)
		})
	})
}

// createReadings makes the sharded table, and one like it with all rows on the first server.
func (b *shardedBed) createReadings(ctx context.Context, rows int) error {
	third := rows / shardCount
	err := execute(ctx, b.router.port, "postgres", readingsTable, fmt.Sprintf(`SHARD TABLE readings BY RANGE (id) (
		PARTITION a VALUES LESS THAN (%d) PLACEMENT POLICY = s1,
		PARTITION b VALUES LESS THAN (%d) PLACEMENT POLICY = s2,
		PARTITION c VALUES LESS THAN (MAXVALUE) PLACEMENT POLICY = s3)`, third, 2*third), `CREATE INDEX ON readings (code)`)
	if err != nil {
		return err
	}
	fill := func(port int, database string, first, last int) error {
		return execute(ctx, port, database, fmt.Sprintf(
			`INSERT INTO readings SELECT i, i, rpad(i::text, 60, 'x') FROM generate_series(%d, %d) i`, first, last), `VACUUM ANALYZE readings`)
	}
	for shard := range shardCount {
		last := (shard+1)*third - 1
		if shard == shardCount-1 {
			last = rows - 1
		}
		if err := fill(b.shardPort(shard), "postgres", shard*third, last); err != nil {
			return err
		}
	}
	if err := execute(ctx, b.shardPort(0), plainDatabase, readingsTable, `CREATE INDEX ON readings (code)`); err != nil {
		return err
	}
	return fill(b.shardPort(0), plainDatabase, 0, rows-1)
}

// scatterWorker reads one row by its code, or all of them.
func scatterWorker(ctx context.Context, port int, database string, client, want, rows int) (worker, error) {
	conn, err := connect(ctx, port, database)
	if err != nil {
		return worker{}, err
	}
	random := rand.New(rand.NewPCG(1, uint64(client)))
	step := func(ctx context.Context) (time.Duration, error) {
		sql := "SELECT id, code, note FROM readings"
		if want == 1 {
			sql = fmt.Sprintf("%s WHERE code = %d", sql, random.IntN(rows))
		}
		start := time.Now()
		results, got := conn.Exec(ctx, sql), 0
		for results.NextResult() {
			for reader := results.ResultReader(); reader.NextRow(); {
				got++
			}
		}
		if err := results.Close(); err != nil {
			return 0, fmt.Errorf("run %q: %w", sql, err)
		}
		if got != want {
			return 0, fmt.Errorf("run %q: %d rows instead of %d", sql, got, want)
		}
		return time.Since(start), nil
	}
	return worker{step: step, close: func() { hangUp(ctx, conn) }}, nil
}
