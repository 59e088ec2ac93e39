package router_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	accounts = 30
	opening  = 100
)

// bank is a sharded table of accounts; transfers leave the sum of the balances as it is.
func bank(t *testing.T, b *bed) *pgx.Conn {
	t.Helper()
	conn := b.connect(0)
	mustSimple(t, conn, "CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL)")
	mustSimple(t, conn, "SHARD TABLE accounts BY HASH (id) PARTITIONS 6")
	for id := range accounts {
		mustSimple(t, conn, fmt.Sprintf("INSERT INTO accounts VALUES (%d, %d)", id, opening))
	}
	return conn
}

// transfers moves money between random accounts, through all routers, until stop is called. Each transfer locks its
// accounts in the order of ids.
func transfers(t *testing.T, b *bed, clients int, seed uint64) (stop func() (made int64)) {
	t.Helper()
	var made atomic.Int64
	var stopped atomic.Bool
	ended := make(chan error, clients)
	for client := range clients {
		conn := b.connect(client % len(b.Routers))
		random := rand.New(rand.NewPCG(seed, uint64(client)))
		go func() {
			for !stopped.Load() {
				from, to := random.IntN(accounts), random.IntN(accounts)
				if from == to {
					continue
				}
				amount := 1 + random.IntN(10)
				if from > to {
					from, to, amount = to, from, -amount
				}
				sql := fmt.Sprintf("BEGIN; UPDATE accounts SET balance = balance - %d WHERE id = %d; UPDATE accounts SET balance = balance + %d WHERE id = %d; COMMIT",
					amount, from, amount, to)
				if _, err := conn.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
					ended <- fmt.Errorf("seed %d: %w", seed, err)
					return
				}
				made.Add(1)
			}
			ended <- nil
		}()
	}
	return func() int64 {
		stopped.Store(true)
		for range clients {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		return made.Load()
	}
}

// sum adds up what a statement returns.
func sum(t *testing.T, conn *pgx.Conn, mode pgx.QueryExecMode, sql string) int {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, mode)
	if err != nil {
		t.Fatal(err)
	}
	balances, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	total := 0
	for _, balance := range balances {
		total += balance
	}
	return total
}

// copied adds up what COPY TO sends.
func copied(t *testing.T, conn *pgx.Conn, sql string) int {
	t.Helper()
	var text strings.Builder
	if _, err := conn.PgConn().CopyTo(t.Context(), &text, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	total := 0
	for _, line := range strings.Fields(text.String()) {
		n, err := strconv.Atoi(line)
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	return total
}

// readings are the ways to read all balances with one snapshot.
func readings(t *testing.T, conn *pgx.Conn) map[string]func() int {
	const balances = "SELECT balance FROM accounts"
	return map[string]func() int{
		"simple":   func() int { return sum(t, conn, pgx.QueryExecModeSimpleProtocol, balances) },
		"extended": func() int { return sum(t, conn, pgx.QueryExecModeExec, balances) },
		"prepared": func() int { return sum(t, conn, pgx.QueryExecModeCacheStatement, balances) },
		"ordered":  func() int { return sum(t, conn, pgx.QueryExecModeExec, balances+" ORDER BY id") },
		"read committed": func() int {
			mustSimple(t, conn, "BEGIN")
			defer mustSimple(t, conn, "COMMIT")
			mustSimple(t, conn, "SELECT 1 FROM accounts WHERE id = 1")
			return sum(t, conn, pgx.QueryExecModeSimpleProtocol, balances)
		},
		"repeatable read": func() int {
			mustSimple(t, conn, "BEGIN ISOLATION LEVEL REPEATABLE READ")
			defer mustSimple(t, conn, "COMMIT")
			first := sum(t, conn, pgx.QueryExecModeSimpleProtocol, balances)
			if again := sum(t, conn, pgx.QueryExecModeExec, balances); again != first {
				t.Errorf("read %d and then %d", first, again)
			}
			return first
		},
		// What is asked of a shard before the first statement must not fix its snapshot.
		"repeatable read, described first": func() int {
			mustSimple(t, conn, "BEGIN ISOLATION LEVEL REPEATABLE READ")
			defer mustSimple(t, conn, "COMMIT")
			return sum(t, conn, pgx.QueryExecModeDescribeExec, balances)
		},
		"repeatable read, set first": func() int {
			mustSimple(t, conn, "BEGIN ISOLATION LEVEL REPEATABLE READ; SAVEPOINT a; SET LOCAL work_mem = '5MB'")
			defer mustSimple(t, conn, "COMMIT")
			return sum(t, conn, pgx.QueryExecModeSimpleProtocol, balances)
		},
		"one by one": func() int {
			mustSimple(t, conn, "BEGIN ISOLATION LEVEL REPEATABLE READ")
			defer mustSimple(t, conn, "COMMIT")
			total := 0
			for id := range accounts {
				total += sum(t, conn, pgx.QueryExecModeSimpleProtocol, fmt.Sprintf("%s WHERE id = %d", balances, id))
			}
			return total
		},
		"copy": func() int { return copied(t, conn, "COPY accounts (balance) TO STDOUT") },
		"copy in a block": func() int {
			mustSimple(t, conn, "BEGIN")
			defer mustSimple(t, conn, "COMMIT")
			return copied(t, conn, "COPY accounts (balance) TO STDOUT")
		},
	}
}

// No statement and no REPEATABLE READ transaction sees a half of a transfer, whichever router it comes through. Without
// the gate some do.
func TestSnapshots(t *testing.T) {
	b := newBed(t, 2)
	bank(t, b)
	seed := rand.Uint64()
	stop := transfers(t, b, 4, seed)
	for name := range readings(t, nil) {
		t.Run(name, func(t *testing.T) {
			const readers, each = 2, 40
			ended := make(chan int, readers)
			for i := range readers {
				read := readings(t, b.connect(i))[name]
				go func() {
					torn := 0
					defer func() { ended <- torn }()
					for range each {
						if read() != accounts*opening {
							torn++
						}
					}
				}()
			}
			for range readers {
				if torn := <-ended; torn > 0 {
					t.Errorf("seed %d: %d sums of %d are torn", seed, torn, each)
				}
			}
		})
	}
	t.Run("off", func(t *testing.T) {
		conn := b.connect(0)
		mustSimple(t, conn, "SET shardyard.snapshot = 'off'")
		for name, read := range readings(t, conn) {
			if name == "one by one" {
				continue // the same as repeatable read
			}
			torn, sums := 0, 0
			for deadline := time.Now().Add(20 * time.Second); torn == 0 && time.Now().Before(deadline); sums++ {
				if read() != accounts*opening {
					torn++
				}
			}
			if torn == 0 {
				t.Errorf("%s: none of %d sums is torn, so the test shows nothing", name, sums)
			}
		}
	})
	if made := stop(); made < 100 {
		t.Errorf("only %d transfers were made", made)
	}
}

// A transaction that is decided is seen wholly, though the router that decided it died before it told the other shards;
// one that is not decided is not seen and does not stand in the way.
func TestSnapshotOfDeadRouter(t *testing.T) {
	b := newBed(t, 2)
	conn := bank(t, b)
	shards := make(map[int]int) // shard to one of its accounts
	for id := range accounts {
		var port int
		if err := conn.QueryRow(t.Context(), fmt.Sprintf("SELECT inet_server_port() FROM accounts WHERE id = %d", id)).Scan(&port); err != nil {
			t.Fatal(err)
		}
		for i, shard := range cluster.Shards() {
			if int(shard.Primary.Port) == port {
				shards[i] = id
			}
		}
	}
	for number := range 10 {
		gid := func(xid string) string { return fmt.Sprintf("shardyard/c/dead/1/%d/s2/%s", number, xid) }
		prepare := func(gid string) {
			direct(t, 0, b.database, fmt.Sprintf("BEGIN; UPDATE accounts SET balance = balance - 5 WHERE id = %d; PREPARE TRANSACTION '%s'", shards[0], gid))
		}
		reader := b.connect(number % 2)
		// Decided: the last agent has committed.
		prepare(gid("77"))
		direct(t, 1, b.database, fmt.Sprintf("BEGIN; UPDATE accounts SET balance = balance + 5 WHERE id = %d; "+
			"INSERT INTO shardyard.decision (gid, participants, outcome) VALUES ('%s', '{s1}', 'commit'); COMMIT", shards[1], gid("77")))
		if got := sum(t, reader, pgx.QueryExecModeExec, "SELECT balance FROM accounts"); got != accounts*opening {
			t.Fatalf("transaction %d: the sum is %d", number, got)
		}
		// Not decided.
		prepare(gid("78"))
		began := time.Now()
		got := sum(t, reader, pgx.QueryExecModeExec, "SELECT balance FROM accounts")
		if took := time.Since(began); got != accounts*opening || took > 2*time.Second {
			t.Fatalf("transaction %d: the sum is %d, after %s", number, got, took)
		}
		direct(t, 0, b.database, "ROLLBACK PREPARED '"+gid("78")+"'")
	}
}

// A reader that waits for a lock on a table does not hold up commits; when it gets the lock it sees one moment.
func TestSnapshotBehindLock(t *testing.T) {
	b := newBed(t, 2)
	conn := bank(t, b)
	mustSimple(t, conn, "CREATE TABLE others (id int PRIMARY KEY, n int)")
	mustSimple(t, conn, "SHARD TABLE others BY HASH (id) PARTITIONS 6")
	mustSimple(t, conn, "INSERT INTO others VALUES (1, 0); INSERT INTO others VALUES (2, 0); INSERT INTO others VALUES (3, 0); INSERT INTO others VALUES (4, 0)")
	for name, read := range map[string]func(t *testing.T, conn *pgx.Conn) int{
		"scatter": func(t *testing.T, conn *pgx.Conn) int {
			return sum(t, conn, pgx.QueryExecModeExec, "SELECT balance FROM accounts")
		},
		"block": func(t *testing.T, conn *pgx.Conn) int {
			mustSimple(t, conn, "BEGIN")
			defer mustSimple(t, conn, "COMMIT")
			return sum(t, conn, pgx.QueryExecModeSimpleProtocol, "SELECT balance FROM accounts")
		},
		"copy": func(t *testing.T, conn *pgx.Conn) int { return copied(t, conn, "COPY accounts (balance) TO STDOUT") },
		"copy in a block": func(t *testing.T, conn *pgx.Conn) int {
			mustSimple(t, conn, "BEGIN")
			defer mustSimple(t, conn, "COMMIT")
			return copied(t, conn, "COPY accounts (balance) TO STDOUT")
		},
		"repeatable read": func(t *testing.T, conn *pgx.Conn) int {
			mustSimple(t, conn, "BEGIN ISOLATION LEVEL REPEATABLE READ")
			defer mustSimple(t, conn, "COMMIT")
			return sum(t, conn, pgx.QueryExecModeSimpleProtocol, "SELECT balance FROM accounts")
		},
	} {
		t.Run(name, func(t *testing.T) {
			blocker, err := pgx.Connect(t.Context(), cluster.ConnString(1, b.database))
			if err != nil {
				t.Fatal(err)
			}
			defer blocker.Close(context.Background())
			mustSimple(t, blocker, "BEGIN; LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE")
			reader, writer := b.connect(0), b.connect(1)
			ended := make(chan int, 1)
			go func() { ended <- read(t, reader) }()
			within(t, "reader that waits", func() bool { return waiting(t, b) > 0 })
			for range 5 {
				began := time.Now()
				mustSimple(t, writer, "UPDATE others SET n = n + 1")
				if took := time.Since(began); took > time.Second {
					t.Errorf("a commit took %s", took)
				}
			}
			select {
			case <-ended:
				t.Fatal("the reader did not wait")
			default:
			}
			mustSimple(t, blocker, "COMMIT")
			if got := <-ended; got != accounts*opening {
				t.Errorf("the sum is %d", got)
			}
		})
	}
}

func TestSnapshotSetting(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	conn := shop(t, b)
	expect(t, conn, "SHOW shardyard.snapshot", "cluster\nSHOW")
	_, err := simple(t, conn, "SET shardyard.snapshot = 'none'")
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != "22023" || e.Message != `invalid value for parameter "shardyard.snapshot": "none"` ||
		e.Hint != "Available values: cluster, shard, off." {
		t.Fatalf("%v", err)
	}
	mustSimple(t, conn, "SET shardyard.snapshot = OFF")
	expect(t, conn, "SHOW shardyard.snapshot", "off\nSHOW")
	mustSimple(t, conn, "RESET shardyard.snapshot")
	expect(t, conn, "SHOW shardyard.snapshot", "cluster\nSHOW")
	// No server hears of it.
	mustSimple(t, conn, "SET shardyard.snapshot = 'shard'")
	expect(t, conn, "SELECT coalesce(current_setting('shardyard.snapshot', true), 'unknown') FROM items WHERE id = 1", "unknown\nSELECT 1")
	mustSimple(t, conn, "RESET ALL")
	expect(t, conn, "SHOW shardyard.snapshot", "cluster\nSHOW")

	started := b.connect(0, func(c *pgx.ConnConfig) { c.RuntimeParams["options"] = "-c shardyard.snapshot=shard" })
	expect(t, started, "SHOW shardyard.snapshot", "shard\nSHOW")
	mustSimple(t, started, "SET shardyard.snapshot = 'off'; RESET shardyard.snapshot")
	expect(t, started, "SHOW shardyard.snapshot", "shard\nSHOW")
	cfg, err := pgx.ParseConfig(b.url(0))
	if err != nil {
		t.Fatal(err)
	}
	cfg.RuntimeParams["shardyard.snapshot"] = "no"
	if _, err := pgx.ConnectConfig(t.Context(), cfg); !errors.As(err, &e) || e.Code != "22023" {
		t.Fatalf("a wrong value at the start: %v", err)
	}
}
