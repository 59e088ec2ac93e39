package router_test

import (
	"strings"
	"testing"
)

// Where no shard is named by the statement (only reference tables are read, nothing can match) EXPLAIN shows the
// shard that it would run on, with its plan, and EXPLAIN ANALYZE runs it.
func TestExplainWithoutAShard(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	conn := b.connect(0)
	mustSimple(t, conn, "CREATE TABLE colours (id int PRIMARY KEY, name text)")
	mustSimple(t, conn, "INSERT INTO colours VALUES (1, 'red')")
	mustSimple(t, conn, "SHARD TABLE colours AS REFERENCE")
	mustSimple(t, conn, "CREATE TABLE keys (id int PRIMARY KEY)")
	mustSimple(t, conn, "SHARD TABLE keys BY DIRECTORY (id) ASSIGN NONE")
	for _, sql := range []string{"SELECT * FROM colours WHERE id = 1", "SELECT * FROM keys WHERE id = 1"} {
		got := mustSimple(t, conn, "EXPLAIN (ANALYZE) "+sql)
		if !strings.HasPrefix(got, "Shardyard: one shard: s1\n") || !strings.Contains(got, "actual time") {
			t.Errorf("EXPLAIN ANALYZE %s:\n%s", sql, got)
		}
	}
	mustSimple(t, conn, "BEGIN")
	mustSimple(t, conn, "SELECT 1 FROM colours")
	if got := mustSimple(t, conn, "EXPLAIN SELECT * FROM colours"); !strings.Contains(got, "Scan") {
		t.Errorf("EXPLAIN in a transaction:\n%s", got)
	}
	mustSimple(t, conn, "COMMIT")
}
