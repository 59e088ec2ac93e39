package router_test

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/internal/testbed"
)

// A write on several shards reads with one snapshot, too: what an UPDATE copies from rows that others move amounts between
// adds up. The rows that it changes are nobody else's, so that it looks at none again. Without the gate it is torn.
func TestUpdateSeesOneSnapshot(t *testing.T) {
	b := newBed(t, 2)
	conn := bank(t, b)
	mustSimple(t, conn, "CREATE TABLE copies (id int PRIMARY KEY, balance int)")
	mustSimple(t, conn, "SHARD TABLE copies BY HASH (id) COLOCATE WITH accounts")
	for id := range accounts {
		mustSimple(t, conn, fmt.Sprintf("INSERT INTO copies VALUES (%d, 0)", id))
	}
	seed := rand.Uint64()
	stop := transfers(t, b, 4, seed)
	const taken = "UPDATE copies c SET balance = a.balance FROM accounts a WHERE a.id = c.id RETURNING c.balance"
	ways := map[string]func() int{
		"simple":   func() int { return sum(t, conn, pgx.QueryExecModeSimpleProtocol, taken) },
		"extended": func() int { return sum(t, conn, pgx.QueryExecModeExec, taken) },
		"prepared": func() int { return sum(t, conn, pgx.QueryExecModeCacheStatement, taken) },
		"in a block": func() int {
			mustSimple(t, conn, "BEGIN")
			defer mustSimple(t, conn, "COMMIT")
			mustSimple(t, conn, "SELECT 1 FROM accounts WHERE id = 1")
			return sum(t, conn, pgx.QueryExecModeSimpleProtocol, taken)
		},
		"repeatable read": func() int {
			mustSimple(t, conn, "BEGIN ISOLATION LEVEL REPEATABLE READ")
			defer mustSimple(t, conn, "COMMIT")
			return sum(t, conn, pgx.QueryExecModeSimpleProtocol, taken)
		},
	}
	for name, take := range ways {
		t.Run(name, func(t *testing.T) {
			for i := range 40 {
				if got := take(); got != accounts*opening {
					t.Errorf("seed %d: sum %d is %d, not %d", seed, i, got, accounts*opening)
				}
			}
		})
	}
	t.Run("off", func(t *testing.T) {
		mustSimple(t, conn, "SET shardyard.snapshot = 'off'")
		for name, take := range ways {
			torn, sums := 0, 0
			for deadline := time.Now().Add(20 * time.Second); torn == 0 && time.Now().Before(deadline); sums++ {
				if take() != accounts*opening {
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

// A shard that is slow to begin keeps the others' transactions from being decided, however slow it is: with its server process stopped
// before it takes its snapshot, a transfer waits.
func TestSlowShardKeepsTheGate(t *testing.T) {
	b := newBed(t, 2)
	conn := bank(t, b)
	mustSimple(t, conn, "CREATE TABLE copies (id int PRIMARY KEY, balance int)")
	mustSimple(t, conn, "SHARD TABLE copies BY HASH (id) COLOCATE WITH accounts")
	for id := range accounts {
		mustSimple(t, conn, fmt.Sprintf("INSERT INTO copies VALUES (%d, 0)", id))
	}
	var ids [2]int // an account on each of two shards
	var pid int
	for shard := range ids {
		testbed.Must(t, b.Connect(shard).QueryRow(t.Context(), "SELECT min(id) FROM accounts").Scan(&ids[shard]))
	}
	mustSimple(t, conn, "BEGIN")
	mustSimple(t, conn, "UPDATE copies SET balance = 1") // the connections of the transaction
	decider, watcher := b.Connect(2), b.Connect(1)
	ask := func(sql string) (yes bool) {
		testbed.Must(t, watcher.QueryRow(t.Context(), sql).Scan(&yes))
		return yes
	}
	testbed.Must(t, watcher.QueryRow(t.Context(), "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'").Scan(&pid))
	mustExec(t, decider, "BEGIN")
	mustExec(t, decider, "LOCK TABLE shardyard.decision IN ROW EXCLUSIVE MODE") // until it ends, the gate cannot be closed

	taken := make(chan int, 1)
	go func() {
		defer close(taken)
		taken <- sum(t, conn, pgx.QueryExecModeSimpleProtocol, "UPDATE copies c SET balance = a.balance FROM accounts a WHERE a.id = c.id RETURNING c.balance")
	}()
	b.await("the statement to be bound", func() bool {
		return ask(fmt.Sprintf("SELECT coalesce(query LIKE 'UPDATE copies c%%' AND wait_event = 'ClientRead', false) FROM pg_stat_activity WHERE pid = %d", pid))
	})
	testbed.Must(t, syscall.Kill(pid, syscall.SIGSTOP))
	resume := func() { testbed.Must(t, syscall.Kill(pid, syscall.SIGCONT)) }
	defer resume()
	mustExec(t, decider, "COMMIT")
	b.await("the gate to be closed", func() bool {
		return ask("SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'shardyard.decision'::regclass AND mode = 'ShareLock' AND granted)")
	})
	moved := make(chan error, 1)
	other := b.connect(1)
	go func() {
		sql := fmt.Sprintf("BEGIN; UPDATE accounts SET balance = balance - 7 WHERE id = %d; UPDATE accounts SET balance = balance + 7 WHERE id = %d; COMMIT", ids[0], ids[1])
		_, err := other.PgConn().Exec(t.Context(), sql).ReadAll()
		moved <- err
	}()
	select {
	case err := <-moved:
		t.Errorf("a transfer was committed (%v) while a shard had no snapshot", err)
		moved <- err
	case <-time.After(500 * time.Millisecond):
	}
	resume()
	if got := <-taken; got != accounts*opening {
		t.Errorf("the sum is %d, not %d", got, accounts*opening)
	}
	mustSimple(t, conn, "COMMIT")
	testbed.Must(t, <-moved)
}
