package router_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
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
		conn := b.connect(client % len(b.routers))
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
		"one by one": func() int {
			mustSimple(t, conn, "BEGIN ISOLATION LEVEL REPEATABLE READ")
			defer mustSimple(t, conn, "COMMIT")
			total := 0
			for id := range accounts {
				total += sum(t, conn, pgx.QueryExecModeSimpleProtocol, fmt.Sprintf("%s WHERE id = %d", balances, id))
			}
			return total
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
