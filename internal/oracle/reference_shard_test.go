package oracle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/router/backend"
)

// TestShardAddedWithReferenceTables: a shard joins while writers through both routers, and one around them, change
// reference tables. It has full copies from the first statement on that goes there, and gets every later change;
// also that of a transaction that began before and writes the table only when its deferred trigger fires, at COMMIT.
func TestShardAddedWithReferenceTables(t *testing.T) {
	t.Parallel()
	own, err := Start(t.Context(), Config{Shards: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := own.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	added := devcluster.ForTest(t, devcluster.Config{Shards: 1, BurnOIDs: true})
	conn := mustConnect(t, own.RouterConnString(0, database))
	execAll(t, conn,
		"CREATE TYPE kind AS ENUM ('a', 'b')",
		"CREATE TABLE w (id int PRIMARY KEY, n int NOT NULL, name text UNIQUE, k kind DEFAULT 'a', s serial)",
		"CREATE TABLE part (id int PRIMARY KEY, w int REFERENCES w ON DELETE CASCADE)",
		"CREATE TABLE trigger_of (id int PRIMARY KEY)",
		"CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE w SET n = n + 1000 WHERE id = NEW.id; RETURN NULL; END $$",
		"CREATE CONSTRAINT TRIGGER touch AFTER INSERT ON trigger_of DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION touch()",
		"INSERT INTO w (id, n, name) SELECT i, 0, 'n' || i FROM generate_series(1, 2000) i",
		"INSERT INTO part SELECT i, i FROM generate_series(1, 500) i",
		"SHARD TABLE w AS REFERENCE", "SHARD TABLE part AS REFERENCE",
		"CREATE TABLE orders (k int PRIMARY KEY, w int REFERENCES w)", "SHARD TABLE orders BY HASH (k) PARTITIONS 8")
	late := mustConnect(t, own.RouterConnString(1, database))
	execAll(t, late, "BEGIN", "INSERT INTO trigger_of VALUES (7)")

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	counts := make([]atomic.Int64, 4)
	for number := range counts {
		target := own.RouterConnString(number%2, database)
		if number == 3 {
			target = own.Shards.ConnString(0, database)
		}
		writers.Go(func() {
			if err := countUp(ctx, target, 100+number, &counts[number]); err != nil {
				t.Errorf("writer %d: %v", number, err)
			}
		})
	}
	waitCounts(t, counts)
	shard := directory.Shard{ID: "s9", State: directory.ShardActive, Primary: added.Shards()[0].Primary}
	addShard(t, own, shard)
	execAll(t, late, "COMMIT")

	values := make([]string, 200)
	for i := range values {
		values[i] = fmt.Sprintf("(%[1]d, %[1]d)", i+1)
	}
	// At once, by a router that may just have heard of it.
	for i := range own.Routers {
		c := mustConnect(t, own.RouterConnString(i, database))
		execAll(t, c, fmt.Sprintf("CREATE TABLE fresh%d (k int PRIMARY KEY, w int NOT NULL REFERENCES w)", i),
			fmt.Sprintf("SHARD TABLE fresh%d BY HASH (k) PARTITIONS 12", i),
			fmt.Sprintf("INSERT INTO fresh%d VALUES %s", i, strings.Join(values, ", ")))
		joined, err := texts(t.Context(), c, fmt.Sprintf("SELECT w.id::text FROM fresh%d f JOIN w ON w.id = f.w", i))
		if err != nil || len(joined) != len(values) {
			t.Errorf("router %d: %d rows are joined: %v", i+1, len(joined), err)
		}
	}
	waitCounts(t, counts)
	stop()
	writers.Wait()

	execAll(t, conn, "INSERT INTO w (id, n, name, k) VALUES (9001, 1, 'new', 'b')", "UPDATE w SET n = n - 1 WHERE id > 8000", "DELETE FROM w WHERE id = 500")
	shards := []string{own.Shards.ConnString(0, database), own.Shards.ConnString(1, database), added.ConnString(0, database)}
	for _, table := range []string{"w", "part"} {
		var first string
		for i, target := range shards {
			rows := copied(t, target, table)
			if i == 0 {
				first = rows
			} else if rows != first {
				t.Errorf("%s: shard %d differs from the home shard: %s", table, i+1, firstDifference(first, rows))
			}
		}
	}
	home := mustConnect(t, shards[0])
	for number := range counts {
		var n int64
		if err := home.QueryRow(t.Context(), "SELECT n FROM w WHERE id = $1", 100+number).Scan(&n); err != nil || n < counts[number].Load() {
			t.Errorf("writer %d was told of %d changes, and %d are there: %v", number, counts[number].Load(), n, err)
		}
	}
	direct := mustConnect(t, shards[2])
	for _, sql := range []string{"DELETE FROM w WHERE id = 1", "INSERT INTO fresh0 VALUES (-1, -1)"} {
		if _, err := direct.Exec(t.Context(), sql); err == nil {
			t.Errorf("on the new shard this is not refused: %s", sql)
		}
	}
	// What refers to a row on the new shard alone keeps it there.
	var key int
	if err := direct.QueryRow(t.Context(), "SELECT w FROM fresh0 WHERE k > 150 LIMIT 1").Scan(&key); err != nil {
		t.Fatal(err)
	}
	execAll(t, conn, fmt.Sprintf("DELETE FROM fresh1 WHERE w = %d", key))
	var refused *pgconn.PgError
	if _, err := conn.Exec(t.Context(), "DELETE FROM w WHERE id = $1", key); !errors.As(err, &refused) || refused.Code != "23503" {
		t.Errorf("a row that the new shard's rows refer to can be deleted: %v", err)
	}
}

func mustConnect(t *testing.T, target string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeConn(context.Background(), conn) })
	return conn
}

func execAll(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		mustExec(t, conn, sql)
	}
}

// addShard is `shardyard shard add`.
func addShard(t *testing.T, b *Bed, shard directory.Shard) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), referenceTimeout)
	defer cancel()
	log := slog.New(slog.DiscardHandler)
	pools, err := backend.New(ctx, backend.Config{RouterName: "cli", ServiceUser: "postgres", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer pools.Close()
	performer, leave, err := node.NewPerformer(ctx, b.Store, pools, "cli", log)
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	began := time.Now()
	defer func() { t.Logf("added after %s", time.Since(began)) }()
	for ctx.Err() == nil {
		err = node.AddShard(ctx, b.Store, pools, performer, shard)
		var server interface{ SQLState() string }
		if err == nil || !errors.As(err, &server) || server.SQLState() != "55P03" {
			break // writers keep the table's lock from it sometimes; the command says so and may be repeated
		}
		t.Logf("add shard: %v", err)
	}
	if err != nil {
		t.Fatalf("add shard: %v", err)
	}
}

// countUp adds to the row of a writer, in short transactions, until ctx ends; told counts those that were acknowledged.
func countUp(ctx context.Context, target string, id int, told *atomic.Int64) error {
	conn, err := pgx.Connect(ctx, target)
	if err != nil {
		return err
	}
	defer closeConn(context.WithoutCancel(ctx), conn)
	for ctx.Err() == nil {
		// The last one is not cut off, so that what it did is known.
		_, err := conn.Exec(context.WithoutCancel(ctx), "UPDATE w SET n = n + 1 WHERE id = $1", id)
		switch {
		case err == nil:
			told.Add(1)
		case !retryable(err) || conn.IsClosed():
			return err
		}
	}
	return nil
}

// waitCounts waits until every writer has written again.
func waitCounts(t *testing.T, counts []atomic.Int64) {
	t.Helper()
	deadline := time.Now().Add(referenceTimeout)
	for i := range counts {
		for from := counts[i].Load(); counts[i].Load() < from+3; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("writer %d stands still at %d", i, from)
			}
		}
	}
}

// copied waits until the outbox on the server is empty and gives the rows.
func copied(t *testing.T, target, table string) string {
	t.Helper()
	conn := mustConnect(t, target)
	deadline := time.Now().Add(referenceTimeout)
	for left := -1; left != 0; time.Sleep(20 * time.Millisecond) {
		if err := conn.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM shardyard.change) + (SELECT count(*) FROM pg_prepared_xacts)").Scan(&left); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d changes or prepared transactions are left", left)
		}
	}
	rows, err := texts(t.Context(), conn, fmt.Sprintf("SELECT t::text FROM %s t ORDER BY id", table))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(rows, "\n")
}

func firstDifference(want, got string) string {
	wants, gots := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(wants), len(gots)) {
		if wants[i] != gots[i] {
			return fmt.Sprintf("%q and not %q", gots[i], wants[i])
		}
	}
	return fmt.Sprintf("%d rows and not %d", len(gots), len(wants))
}
