package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// Rows of the table of accounts: shard i has those from i*rowsPerShard on, so that the bench knows where each is.
const (
	rowsPerShard = 10_000
	// branches is such that each has about 100 accounts over all shards.
	branches = shardCount * rowsPerShard / 100
)

// The ways of committing a transaction with two UPDATEs.
const (
	commitPlain    = "Postgres, directly"
	commitOne      = "Shardyard, one shard"
	commitTwo      = "Shardyard, two shards"
	commitTextbook = "textbook, two Postgres directly"
)

var (
	commitWays  = []string{commitPlain, commitOne, commitTwo, commitTextbook}
	clientNames = []string{"1 client", "8 clients"}
	clientCount = []int{1, 8}
)

const accountsTable = `CREATE TABLE accounts (id int PRIMARY KEY, branch int NOT NULL, balance bigint NOT NULL, filler char(84) NOT NULL)`

// createAccounts makes, once, the sharded table, and one like it in the database beside it, with as many rows on each server.
func (b *shardedBed) createAccounts(ctx context.Context) error {
	if b.accounts {
		return nil
	}
	b.accounts = true
	err := execute(ctx, b.router.port, "postgres", accountsTable, fmt.Sprintf(`SHARD TABLE accounts BY RANGE (id) (
		PARTITION a VALUES LESS THAN (%d) PLACEMENT POLICY = s1,
		PARTITION b VALUES LESS THAN (%d) PLACEMENT POLICY = s2,
		PARTITION c VALUES LESS THAN (MAXVALUE) PLACEMENT POLICY = s3)`, rowsPerShard, 2*rowsPerShard))
	if err != nil {
		return err
	}
	if err := execute(ctx, b.router.port, "postgres", `CREATE INDEX ON accounts (branch)`); err != nil {
		return err
	}
	for shard := range shardCount {
		first := shard * rowsPerShard
		rows := fmt.Sprintf(`INSERT INTO accounts SELECT i, i %% %d, 0, '' FROM generate_series(%d, %d) i`,
			branches, first, first+rowsPerShard-1)
		if err := execute(ctx, b.shardPort(shard), "postgres", rows, `VACUUM ANALYZE accounts`); err != nil {
			return err
		}
		err := execute(ctx, b.shardPort(shard), plainDatabase, accountsTable, `CREATE INDEX ON accounts (branch)`, rows, `VACUUM ANALYZE accounts`,
			`CREATE TABLE decision (gid text PRIMARY KEY, decided_at timestamptz NOT NULL DEFAULT clock_timestamp())`)
		if err != nil {
			return err
		}
	}
	return nil
}

func measureCommit(ctx context.Context, b *shardedBed, o options) ([]result, error) {
	if err := b.createAccounts(ctx); err != nil {
		return nil, fmt.Errorf("create the accounts: %w", err)
	}
	if err := b.settle(ctx); err != nil {
		return nil, err
	}
	run := 0
	return interleave(o, clientNames, commitWays, func(clients, way int) (measurement, error) {
		run++
		return drive(ctx, clientCount[clients], o.length, 0, func(client int) (worker, error) {
			random := rand.New(rand.NewPCG(uint64(run), uint64(client)))
			switch commitWays[way] {
			case commitPlain:
				return b.plainWorker(ctx, b.shardPort(0), plainDatabase, func() (int, int) { return twoAccounts(random, 0, 0) })
			case commitOne:
				return b.plainWorker(ctx, b.router.port, "postgres", func() (int, int) { return twoAccounts(random, 0, 0) })
			case commitTwo:
				return b.plainWorker(ctx, b.router.port, "postgres", func() (int, int) { return twoAccounts(random, 0, 1) })
			default:
				return b.textbookWorker(ctx, random, fmt.Sprintf("bench-%d-%d", run, client))
			}
		})
	})
}

// twoAccounts picks different accounts of two shards, or of one, in ascending order, so that nobody deadlocks.
func twoAccounts(random *rand.Rand, from, to int) (int, int) {
	a, b := random.IntN(rowsPerShard/2), rowsPerShard/2+random.IntN(rowsPerShard/2)
	return from*rowsPerShard + a, to*rowsPerShard + b
}

func updateAccount(id, by int) string {
	return "UPDATE accounts SET balance = balance + " + strconv.Itoa(by) + " WHERE id = " + strconv.Itoa(id)
}

// plainWorker sends BEGIN, two UPDATEs and COMMIT over one connection; the COMMIT's latency counts.
func (b *shardedBed) plainWorker(ctx context.Context, port int, database string, accounts func() (int, int)) (worker, error) {
	conn, err := connect(ctx, port, database)
	if err != nil {
		return worker{}, err
	}
	step := func(ctx context.Context) (time.Duration, error) {
		from, to := accounts()
		if err := query(ctx, conn, "BEGIN", updateAccount(from, -1), updateAccount(to, 1)); err != nil {
			return 0, err
		}
		start := time.Now()
		err := query(ctx, conn, "COMMIT")
		return time.Since(start), err
	}
	return worker{step: step, close: func() { hangUp(ctx, conn) }}, nil
}

// textbookWorker commits in two phases as an application without a router would: both servers prepare, the decision
// is recorded in a transaction of its own on the first server, both commit what they prepared. (Gray and Reuter,
// Transaction Processing, 1993, chapter 10.)
func (b *shardedBed) textbookWorker(ctx context.Context, random *rand.Rand, name string) (worker, error) {
	var conns [2]*pgconn.PgConn
	for i := range conns {
		conn, err := connect(ctx, b.shardPort(i), plainDatabase)
		if err != nil {
			return worker{}, err
		}
		conns[i] = conn
	}
	number := 0
	step := func(ctx context.Context) (time.Duration, error) {
		from, to := twoAccounts(random, 0, 1)
		for i, sql := range []string{updateAccount(from, -1), updateAccount(to, 1)} {
			if err := query(ctx, conns[i], "BEGIN; "+sql); err != nil {
				return 0, err
			}
		}
		number++
		gid := "'" + name + "-" + strconv.Itoa(number) + "'"
		start := time.Now()
		if err := onBoth(ctx, conns, "PREPARE TRANSACTION "+gid); err != nil {
			return 0, err
		}
		if err := query(ctx, conns[0], "INSERT INTO decision (gid) VALUES ("+gid+")"); err != nil {
			return 0, err
		}
		err := onBoth(ctx, conns, "COMMIT PREPARED "+gid)
		return time.Since(start), err
	}
	return worker{step: step, close: func() { hangUp(ctx, conns[:]...) }}, nil
}

// onBoth runs a statement on both servers at the same time.
func onBoth(ctx context.Context, conns [2]*pgconn.PgConn, sql string) error {
	var group errgroup.Group
	group.Go(func() error { return query(ctx, conns[0], sql) })
	group.Go(func() error { return query(ctx, conns[1], sql) })
	return group.Wait()
}
