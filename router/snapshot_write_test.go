package router_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
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
