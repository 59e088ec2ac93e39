package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// The ways of a COPY … FROM STDIN.
const (
	copyDirect    = "Postgres, directly"
	copyUnsharded = "Shardyard, table of one shard"
	copySharded   = "Shardyard, table over three shards"
)

var copyWays = []string{copyDirect, copyUnsharded, copySharded}

// copyKind is a table that is copied into.
type copyKind struct {
	name    string
	columns string
	row     func(to *bytes.Buffer, id int, random *rand.Rand)
}

var copyKinds = []copyKind{
	{"4 columns", `id int PRIMARY KEY, bid int, abalance int, filler char(84)`,
		func(to *bytes.Buffer, id int, random *rand.Rand) {
			fmt.Fprintf(to, "%d\t%d\t%d\t%-84s\n", id, 1+id/100_000, random.IntN(10_000)-5_000, "")
		}},
	{"12 columns", `id bigint PRIMARY KEY, tenant int, token uuid, email text, name text, street text, city text, country text,
		amount numeric(12,2), created timestamptz, active boolean, attributes jsonb`,
		func(to *bytes.Buffer, id int, random *rand.Rand) {
			fmt.Fprintf(to, "%d\t%d\t%016x%016x\tuser%d@example.com\t%s\t%s\tcity of %d\t%c%c\t%d.%02d\t2025-%02d-%02d %02d:00:00+00\t%c\t"+
				`{"plan": "team", "seats": %d, "tags": ["a", "b", "c"], "note": "%s"}`+"\n",
				id, random.IntN(500), random.Uint64(), random.Uint64(), id, words(random, 3), words(random, 5), random.IntN(1000),
				'a'+random.IntN(26), 'a'+random.IntN(26), random.IntN(100_000), random.IntN(100), 1+random.IntN(12), 1+random.IntN(28),
				random.IntN(24), "ft"[random.IntN(2)], random.IntN(200), words(random, 12))
		}},
}

func words(random *rand.Rand, n int) []byte {
	list := []string{"amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath"}
	var text []byte
	for i := range n {
		if i > 0 {
			text = append(text, ' ')
		}
		text = append(text, list[random.IntN(len(list))]...)
	}
	return text
}

// measureCopy sends the same rows, made beforehand, each way into an empty table with a primary key.
func measureCopy(ctx context.Context, b *shardedBed, o options) ([]result, error) {
	var results []result
	for i, kind := range copyKinds {
		if err := b.createCopyTables(ctx, i, kind); err != nil {
			return nil, err
		}
		random := rand.New(rand.NewPCG(1, uint64(i)))
		var data bytes.Buffer
		for id := range o.copyRows {
			kind.row(&data, id+1, random)
		}
		name := fmt.Sprintf("%d of %s, %d bytes each", o.copyRows, kind.name, data.Len()/o.copyRows)
		found, err := interleave(o, []string{name}, copyWays, func(_, way int) (measurement, error) {
			return b.copyOnce(ctx, i, copyWays[way], data.Bytes(), o.copyRows)
		})
		if err != nil {
			return nil, err
		}
		results = append(results, found...)
	}
	return results, nil
}

func copyTable(kind int, way string) string {
	if way == copySharded {
		return fmt.Sprintf("copied_%d", kind)
	}
	return fmt.Sprintf("copied_%d_whole", kind)
}

func (b *shardedBed) createCopyTables(ctx context.Context, i int, kind copyKind) error {
	sharded, whole := copyTable(i, copySharded), copyTable(i, copyDirect)
	err := execute(ctx, b.router.port, "postgres",
		"CREATE TABLE "+sharded+" ("+kind.columns+")", "SHARD TABLE "+sharded+" BY HASH (id) PARTITIONS 12",
		"CREATE TABLE "+whole+" ("+kind.columns+")")
	if err != nil {
		return err
	}
	return execute(ctx, b.shardPort(0), plainDatabase, "CREATE TABLE "+whole+" ("+kind.columns+")")
}

// copyOnce empties the table and fills it in one COPY.
func (b *shardedBed) copyOnce(ctx context.Context, kind int, way string, data []byte, rows int) (measurement, error) {
	table, port, database := copyTable(kind, way), b.router.port, "postgres"
	if way == copyDirect {
		port, database = b.shardPort(0), plainDatabase
	}
	conn, err := connect(ctx, port, database)
	if err != nil {
		return measurement{}, err
	}
	defer hangUp(ctx, conn)
	if err := query(ctx, conn, "TRUNCATE "+table); err != nil {
		return measurement{}, err
	}
	if err := b.settle(ctx); err != nil {
		return measurement{}, err
	}
	start := time.Now()
	tag, err := conn.CopyFrom(ctx, bytes.NewReader(data), "COPY "+table+" FROM STDIN")
	if err != nil {
		return measurement{}, fmt.Errorf("copy into %s: %w", table, err)
	}
	elapsed := time.Since(start)
	if tag.RowsAffected() != int64(rows) {
		return measurement{}, fmt.Errorf("copy into %s: %d rows instead of %d", table, tag.RowsAffected(), rows)
	}
	if err := query(ctx, conn, "TRUNCATE "+table); err != nil {
		return measurement{}, err
	}
	return measurement{RowsPerSecond: float64(rows) / elapsed.Seconds()}, nil
}
