package router_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// CREATE INDEX CONCURRENTLY that fails on a shard tells where it was done, and what its hint says mends it, through
// another router too.
func TestIndexConcurrentlyFails(t *testing.T) {
	t.Parallel()
	b := newBed(t, 2)
	conn, other := shop(t, b), b.connect(1)
	x, y := apart(t, b)
	away := x
	if strings.Contains(mustSimple(t, conn, fmt.Sprintf("EXPLAIN SELECT * FROM items WHERE id = %d", x)), "s1") {
		away = y
	}
	mustSimple(t, conn, fmt.Sprintf("INSERT INTO items (id, name) VALUES (%d, 'x') ON CONFLICT DO NOTHING", away))
	create := fmt.Sprintf("CREATE INDEX CONCURRENTLY items_fail ON items ((100 / (id - %d)))", away)
	_, err := simple(t, conn, create)
	var failed *pgconn.PgError
	if !errors.As(err, &failed) || failed.Code != "22012" || !strings.Contains(failed.Detail, "CREATE INDEX was done on shard s1") ||
		!strings.Contains(failed.Hint, "DROP INDEX CONCURRENTLY IF EXISTS items_fail") {
		t.Fatalf("%s: %#v", create, err)
	}
	// What was not indexed takes rows as before. All routers know the index at once.
	mustSimple(t, other, fmt.Sprintf("DELETE FROM items WHERE id = %d", away))
	mustSimple(t, other, "DROP INDEX CONCURRENTLY IF EXISTS items_fail")
	mustSimple(t, other, create)
	for shard := range 3 {
		direct(t, shard, b.database, `DO $$ BEGIN ASSERT (SELECT indisvalid FROM pg_index WHERE indexrelid = 'items_fail'::regclass); END $$`)
	}
	mustSimple(t, other, "DROP INDEX CONCURRENTLY items_fail")
	expectError(t, other, "DROP INDEX CONCURRENTLY items_fail", "42704")
}
