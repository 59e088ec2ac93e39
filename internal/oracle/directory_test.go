package oracle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// TestDirectoryOverTwoRouters: what was committed through one router is found by the other at once, also when that
// has just found that the key has no entry; rows of one key that is stored through both at once end up together.
func TestDirectoryOverTwoRouters(t *testing.T) {
	first, second := connectTo(t, bed.Routers[0].Addr().String()), connectTo(t, bed.Routers[1].Addr().String())
	mustExec(t, first, "CREATE TABLE entered (k int, n int, PRIMARY KEY (k, n))")
	mustExec(t, first, "SHARD TABLE entered BY DIRECTORY (k) ASSIGN ROUND ROBIN")
	count := func(conn *pgx.Conn, k int) (n int) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM entered WHERE k = $1", k).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for k := range 50 {
		writer, reader := first, second
		if k%2 == 1 {
			writer, reader = second, first
		}
		if n := count(reader, k); n != 0 {
			t.Fatalf("%d rows of key %d before there is any", n, k)
		}
		mustExec(t, writer, "INSERT INTO entered VALUES ($1, 0)", k)
		if n := count(reader, k); n != 1 {
			t.Fatalf("%d rows of key %d are seen after the commit", n, k)
		}
	}
	var storing sync.WaitGroup
	for n, conn := range []*pgx.Conn{first, second} {
		storing.Go(func() {
			for k := 100; k < 150; k++ {
				if _, err := conn.Exec(t.Context(), "INSERT INTO entered VALUES ($1, $2)", k, n); err != nil {
					t.Error(err)
				}
			}
		})
	}
	storing.Wait()
	for k := 100; k < 150; k++ {
		if a, b := count(first, k), count(second, k); a != 2 || b != 2 {
			t.Errorf("key %d: %d and %d rows, want 2", k, a, b)
		}
	}
	mustExec(t, first, "DROP TABLE entered")
}

// testDirectoryInAnOutage: without etcd keys that a router knows work, others are refused and never without rows.
func testDirectoryInAnOutage(t *testing.T, bed *Bed) {
	first, second := connectTo(t, bed.Routers[0].Addr().String()), connectTo(t, bed.Routers[1].Addr().String())
	mustExec(t, first, "CREATE TABLE kept (k int PRIMARY KEY, v int)")
	mustExec(t, first, "SHARD TABLE kept BY DIRECTORY (k) ASSIGN HASH")
	for k := range 20 {
		mustExec(t, first, "INSERT INTO kept VALUES ($1, $1)", k)
	}
	bed.Shards.StopEtcd()
	restart := func() error { return bed.Shards.StartEtcd(context.WithoutCancel(t.Context())) }
	t.Cleanup(func() {
		if err := restart(); err != nil { // does nothing if it runs
			t.Error(err)
		}
	})
	for k := range 20 {
		var v int
		if err := first.QueryRow(t.Context(), "SELECT v FROM kept WHERE k = $1", k).Scan(&v); err != nil || v != k {
			t.Fatalf("key %d of the router that knows it: %d, %v", k, v, err)
		}
		mustExec(t, first, "UPDATE kept SET v = v WHERE k = $1", k)
	}
	var rows int
	if err := second.QueryRow(t.Context(), "SELECT v FROM kept WHERE v = 7").Scan(&rows); err != nil || rows != 7 {
		t.Errorf("a statement that needs no entry: %d, %v", rows, err)
	}
	for _, sql := range []string{"SELECT v FROM kept WHERE k = 3", "UPDATE kept SET v = 0 WHERE k = 4", "INSERT INTO kept VALUES (100, 1)"} {
		_, err := second.Exec(t.Context(), sql)
		var reported *pgconn.PgError
		if !errors.As(err, &reported) || reported.Code != "57P03" || reported.Hint == "" {
			t.Errorf("%s on the router that does not know the key: %v", sql, err)
		}
	}
	if err := restart(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, err := second.Exec(t.Context(), "INSERT INTO kept VALUES (100, 1)")
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(fmt.Errorf("still refused: %w", err))
		}
	}
	var v int
	if err := second.QueryRow(t.Context(), "SELECT v FROM kept WHERE k = 3").Scan(&v); err != nil || v != 3 {
		t.Errorf("key 3 after the outage: %d, %v", v, err)
	}
}
