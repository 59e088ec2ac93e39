package router_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// A transaction that has failed on one shard holds no locks on another: in one Postgres they go with the error.
func TestFailedTransactionHoldsNoLocks(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	one, two := b.connect(0), b.connect(0)
	mustSimple(t, one, "CREATE TABLE t (k int PRIMARY KEY, n int)")
	mustSimple(t, one, "SHARD TABLE t BY LIST (k) (PARTITION a VALUES IN (1) PLACEMENT POLICY = s1, PARTITION b VALUES IN (2) PLACEMENT POLICY = s2)")
	mustSimple(t, one, "INSERT INTO t VALUES (1, 0)")
	mustSimple(t, one, "INSERT INTO t VALUES (2, 0)")
	mustSimple(t, two, "SET lock_timeout = '3s'")
	fail := map[string]func(){
		"simple":  func() { expectError(t, one, "UPDATE t SET n = 1/(n-n) WHERE k = 2", "22012") },
		"refused": func() { expectError(t, one, "SELECT xmin FROM t", "0A000") },
		"extended": func() {
			if _, err := one.Exec(t.Context(), "UPDATE t SET n = 1/(n-n) WHERE k = $1", pgx.QueryExecModeDescribeExec, 2); code(err) != "22012" {
				t.Fatal(err)
			}
		},
	}
	for name, failing := range fail {
		t.Run(name, func(t *testing.T) {
			mustSimple(t, one, "BEGIN")
			mustSimple(t, one, "UPDATE t SET n = n + 1 WHERE k = 1")
			failing()
			expect(t, two, "UPDATE t SET n = 10 WHERE k = 1", "UPDATE 1")
			expectError(t, one, "SELECT 1", "25P02")
			expect(t, one, "COMMIT", "ROLLBACK")

			mustSimple(t, one, "BEGIN; UPDATE t SET n = 20 WHERE k = 2")
			mustSimple(t, one, "SAVEPOINT a")
			mustSimple(t, one, "SET LOCAL work_mem = '7MB'; UPDATE t SET n = 30 WHERE k = 1")
			failing()
			expect(t, two, "UPDATE t SET n = 40 WHERE k = 1", "UPDATE 1")
			mustSimple(t, one, "ROLLBACK TO a")
			expect(t, one, "SHOW work_mem", "4MB\nSHOW")
			expect(t, one, "SELECT current_setting('work_mem'), n FROM t WHERE k = 1", "4MB|40\nSELECT 1")
			mustSimple(t, one, "UPDATE t SET n = n + 1 WHERE k = 1")
			mustSimple(t, one, "COMMIT")
			expect(t, two, "SELECT n FROM t ORDER BY k", "41\n20\nSELECT 2")
		})
	}
}

// A REPEATABLE READ transaction minds what happens to the tables that it uses, and not what happens to others.
func TestRepeatableReadWhileOthersShard(t *testing.T) {
	t.Parallel()
	b := newBed(t, 2)
	one, two := b.connect(0), b.connect(1)
	for _, name := range []string{"t", "other", "gone", "moved"} {
		mustSimple(t, one, "CREATE TABLE "+name+" (k int PRIMARY KEY)")
	}
	for _, name := range []string{"t", "gone", "moved"} {
		mustSimple(t, one, "SHARD TABLE "+name+" BY HASH (k) PARTITIONS 6")
	}
	mustSimple(t, one, "INSERT INTO t VALUES (1)")
	mustSimple(t, one, "BEGIN ISOLATION LEVEL REPEATABLE READ")
	expect(t, one, "SELECT k FROM t", "1\nSELECT 1")
	mustSimple(t, two, "SHARD TABLE other BY HASH (k) PARTITIONS 6")
	mustSimple(t, two, "DROP TABLE gone")
	expect(t, one, "SELECT k FROM t", "1\nSELECT 1")
	mustSimple(t, one, "SAVEPOINT a")
	expectError(t, one, "SELECT k FROM other", "40001")
	mustSimple(t, one, "ROLLBACK TO a")
	mustSimple(t, two, "UNSHARD TABLE moved")
	expectError(t, one, "SELECT k FROM moved", "40001")
	mustSimple(t, one, "ROLLBACK")
}
