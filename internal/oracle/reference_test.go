package oracle

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// referenceTimeout bounds the wait for the worker and for recovery.
const referenceTimeout = 60 * time.Second

// settled waits until nothing is under way, nothing is prepared and no outbox has anything, and gives the rows of the table
// on each shard. A writer that is gone may have left a COMMIT behind that a router is still about.
func settled(t *testing.T, table string) []string {
	t.Helper()
	var copies []string
	deadline := time.Now().Add(referenceTimeout)
	for i := range bed.Shards.Shards() {
		conn, err := pgx.Connect(t.Context(), bed.Shards.ConnString(i, referenceDatabase))
		if err != nil {
			t.Fatal(err)
		}
		defer closeConn(t.Context(), conn)
		for {
			var left int
			err := conn.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM shardyard.change c JOIN shardyard.mirror m ON m.id = c.mirror WHERE m.relation = $1::text::regclass)
				+ (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database())
				+ (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
					AND backend_type = 'client backend')`, table).Scan(&left)
			if err != nil {
				t.Fatal(err)
			}
			if left == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("shard %d: %d changes or transactions are left", i+1, left)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	for i := range bed.Shards.Shards() {
		conn, err := pgx.Connect(t.Context(), bed.Shards.ConnString(i, referenceDatabase))
		if err != nil {
			t.Fatal(err)
		}
		defer closeConn(t.Context(), conn)
		rows, err := texts(t.Context(), conn, fmt.Sprintf("SELECT t::text FROM %s t ORDER BY 1", table))
		if err != nil {
			t.Fatal(err)
		}
		copies = append(copies, strings.Join(rows, "\n"))
	}
	return copies
}

func mustBeCopies(t *testing.T, table string) {
	t.Helper()
	copies := settled(t, table)
	for i, other := range copies[1:] {
		if other != copies[0] {
			t.Errorf("%s: shard 1 has\n%s\nand shard %d\n%s", table, copies[0], i+2, other)
		}
	}
}

// retryable are the errors that writers get from each other and from what is done to them.
func retryable(err error) bool {
	var server *pgconn.PgError
	if !errors.As(err, &server) {
		return true // the connection is gone
	}
	switch server.Code {
	case "40P01", "40001", "23505", "23503", "57P01", "08006", "08007", "08003", "57014", "55P03", "57P03":
		return true
	}
	return false
}

// referenceDatabase is a database of its own, so that the connections which are terminated are nobody else's.
const referenceDatabase = "reference_writers"

// TestReferenceUnderWriters has writers through both routers, and one around them, change the same rows of a reference
// table, while rows of a sharded table come to refer to them; then, while connections of the routers are terminated in
// the middle of whatever they do. At the end all copies are the same, and every reference is to a row that is there.
func TestReferenceUnderWriters(t *testing.T) {
	t.Parallel()
	newDatabase(t, referenceDatabase)
	session := newSessionIn(t, referenceDatabase, "reference_writers")
	for _, sql := range []string{
		"CREATE TABLE w (id int PRIMARY KEY, n int, name text UNIQUE)",
		"CREATE TABLE orders (k int, w int, PRIMARY KEY (k))",
	} {
		if err := session.Both(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for _, sql := range []string{"SHARD TABLE w AS REFERENCE", "SHARD TABLE orders BY HASH (k) PARTITIONS 8",
		"ALTER TABLE orders ADD CONSTRAINT orders_w FOREIGN KEY (w) REFERENCES w", "INSERT INTO w SELECT i, 0, 'n' || i FROM generate_series(1, 20) i"} {
		if err := session.Cluster(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for _, faults := range []bool{false, true} {
		t.Run(fmt.Sprintf("faults=%v", faults), func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			ctx, stop := context.WithTimeout(t.Context(), 6*time.Second)
			defer stop()
			var group sync.WaitGroup
			for number := range 6 {
				target := bed.RouterConnString(number%2, referenceDatabase)
				if number == 5 {
					target = bed.Shards.ConnString(0, referenceDatabase)
				}
				group.Go(func() {
					if err := writeReference(ctx, target, rand.New(rand.NewPCG(seed, uint64(number))), number < 5); err != nil {
						t.Errorf("writer %d: %v", number, err)
					}
				})
			}
			if faults {
				group.Go(func() { terminateSometimes(ctx, t) })
			}
			group.Wait()
			mustBeCopies(t, "reference_writers.w")
			for i := range bed.Shards.Shards() {
				conn, err := pgx.Connect(t.Context(), bed.Shards.ConnString(i, referenceDatabase))
				if err != nil {
					t.Fatal(err)
				}
				defer closeConn(t.Context(), conn)
				lost, err := texts(t.Context(), conn, "SELECT k::text FROM reference_writers.orders o WHERE NOT EXISTS (SELECT FROM reference_writers.w WHERE w.id = o.w)")
				if err != nil || len(lost) > 0 {
					t.Errorf("shard %d: orders without their row: %v %v", i+1, lost, err)
				}
			}
		})
	}
}

// writeReference writes until ctx ends. sharded: it also writes the sharded table, and deletes.
func writeReference(ctx context.Context, target string, random *rand.Rand, sharded bool) error {
	var conn *pgx.Conn
	clean := context.WithoutCancel(ctx)
	defer func() {
		if conn != nil {
			closeConn(clean, conn)
		}
	}()
	for ctx.Err() == nil {
		if conn == nil || conn.IsClosed() {
			fresh, err := pgx.Connect(ctx, target)
			if err != nil {
				conn = nil
				continue
			}
			conn = fresh
		}
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			for range 1 + random.IntN(3) {
				id := 1 + random.IntN(25)
				var err error
				switch choice := random.IntN(6); {
				case choice == 0 && sharded:
					_, err = tx.Exec(ctx, "DELETE FROM reference_writers.w WHERE id = $1", id)
				case choice == 1 && sharded:
					_, err = tx.Exec(ctx, "INSERT INTO reference_writers.orders VALUES ($1, $2) ON CONFLICT (k) DO UPDATE SET w = excluded.w", random.IntN(40), id)
				case choice == 2 && sharded:
					_, err = tx.Exec(ctx, "DELETE FROM reference_writers.orders WHERE k = $1", random.IntN(40))
				case choice == 3:
					_, err = tx.Exec(ctx, "UPDATE reference_writers.w SET name = name || $2, n = n + 1 WHERE id = $1 AND length(name) < 30", id, string(rune('a'+random.IntN(26))))
				default:
					_, err = tx.Exec(ctx, "INSERT INTO reference_writers.w VALUES ($1, 0, $2) ON CONFLICT (id) DO UPDATE SET n = w.n + 1", id, fmt.Sprintf("%d-%d", id, random.IntN(1000)))
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil && ctx.Err() == nil && !retryable(err) {
			return err
		}
	}
	return nil
}

// terminateSometimes ends server connections of the routers until ctx ends.
func terminateSometimes(ctx context.Context, t *testing.T) {
	for i := 0; ctx.Err() == nil; i++ {
		conn, err := pgx.Connect(ctx, bed.Shards.ConnString(i%len(bed.Shards.Shards()), referenceDatabase))
		if err != nil {
			continue
		}
		_, err = conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'shardyard/%'
			AND query LIKE ANY (ARRAY['%mirror%', 'PREPARE TRANSACTION%', 'COMMIT%', '%decide%', '%reference_writers.w%']) ORDER BY random() LIMIT 1`)
		if err != nil && ctx.Err() == nil {
			t.Logf("terminate: %v", err)
		}
		closeConn(ctx, conn)
		pause := time.NewTimer(60 * time.Millisecond)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}
