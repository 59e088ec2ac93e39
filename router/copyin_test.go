package router_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/internal/node"
)

// generated is a stream of n rows of items; instead holds other texts for some of them, numbered from 1. sent counts its bytes.
type generated struct {
	n, next int
	instead map[int]string
	before  map[int]func() error
	rest    string
	sent    atomic.Int64
}

func (g *generated) Read(b []byte) (int, error) {
	filled := 0
	for filled < len(b) {
		if g.rest == "" {
			if g.next == g.n {
				break
			}
			g.next++
			if do := g.before[g.next]; do != nil {
				if err := do(); err != nil {
					return 0, err
				}
			}
			if text, ok := g.instead[g.next]; ok {
				g.rest = text
			} else {
				g.rest = fmt.Sprintf("%d\tname of a row that is not too short, %d\n", 1000+g.next, g.next)
			}
		}
		n := copy(b[filled:], g.rest)
		g.rest = g.rest[n:]
		filled += n
		if g.before[g.next+1] != nil && g.rest == "" {
			break
		}
	}
	g.sent.Add(int64(filled))
	if filled == 0 {
		return 0, io.EOF
	}
	return filled, nil
}

const copyItems = "COPY items (id, name) FROM STDIN"

func copyInto(t *testing.T, conn *pgx.Conn, from io.Reader, sql string) (pgconn.CommandTag, *pgconn.PgError) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	tag, err := conn.PgConn().CopyFrom(ctx, from, sql)
	var reported *pgconn.PgError
	if err != nil && !errors.As(err, &reported) {
		t.Fatalf("%s: %v", sql, err)
	}
	return tag, reported
}

// A COPY of many rows; one with a bad row in the middle, of which nothing stays; all ways in which a client ends one.
func TestCopyIn(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		conn := shop(t, b)
		const many = 200_000
		if tag, err := copyInto(t, conn, &generated{n: many}, copyItems); err != nil || tag.RowsAffected() != many {
			t.Fatal(tag, err)
		}
		counted := func(want int) {
			t.Helper()
			sum := 0
			for shard := range 3 {
				sum += count(t, shard, b.database, "SELECT count(*) FROM items")
			}
			if sum != want {
				t.Fatalf("%d rows, not %d", sum, want)
			}
		}
		counted(many + 10)
		mustSimple(t, conn, "TRUNCATE plain")
		for i := range 3 {
			direct(t, i, b.database, "DELETE FROM items WHERE id > 9")
		}
		for name, c := range map[string]struct {
			row         string
			code, where string
		}{
			"bad value":      {"x\ty\n", "22P02", `COPY items, line 123456, column id: "x"`},
			"missing":        {"5\n", "22P04", `COPY items, line 123456: "5"`},
			"duplicate":      {"5\ttwice\n", "23505", "COPY items, line 123456"},
			"null":           {"\\N\tnull\n", "23502", `COPY items, line 123456: "\N	null"`},
			"mixed newlines": {"5\tx\r\n", "22P04", "COPY items, line 123456: \"5\tx\""},
		} {
			g := &generated{n: many, instead: map[int]string{123456: c.row}}
			_, err := copyInto(t, conn, g, copyItems)
			if err == nil || err.Code != c.code || err.Where != c.where && name != "mixed newlines" {
				t.Fatalf("%s: %v %q", name, err, err.Where)
			}
			counted(10)
		}
		_, err := copyInto(t, conn, &generated{n: 3, before: map[int]func() error{3: func() error { return errors.New("no more") }}}, copyItems)
		if err == nil || err.Code != "57014" || err.Message != "COPY from stdin failed: no more" {
			t.Fatal(err)
		}
		counted(10)
		expect(t, conn, "SELECT 1", "1\nSELECT 1")
	})
}

func count(t *testing.T, shard int, database, sql string) (n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, cluster.ConnString(shard, database))
	if err == nil {
		err = conn.QueryRow(ctx, sql).Scan(&n)
		_ = conn.Close(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never came to this: " + what)
		}
	}
}

// copying counts the connections that are in a COPY, or in a transaction, of items.
func copyingNow(t *testing.T, b *bed) (n int) {
	for shard := range 3 {
		n += count(t, shard, b.database, "SELECT count(*) FROM pg_locks WHERE relation = 'items'::regclass AND pid <> pg_backend_pid()")
	}
	return n
}

// A client that goes away in the middle, and a cancel request while the client is waited for and while a shard is.
func TestCopyInEnds(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		conn := shop(t, b)
		gone := b.connect(0)
		g := &generated{n: 50_000, before: map[int]func() error{40_000: func() error {
			eventually(t, "rows arrive", func() bool { return copyingNow(t, b) > 0 })
			return gone.PgConn().Conn().Close()
		}}}
		if _, err := gone.PgConn().CopyFrom(t.Context(), g, copyItems); err == nil {
			t.Fatal("copied on a closed connection")
		}
		eventually(t, "all is rolled back", func() bool { return copyingNow(t, b) == 0 })

		g = &generated{n: 50_000, before: map[int]func() error{30_000: func() error {
			// Before the router has read the COPY nothing runs that could be cancelled.
			eventually(t, "rows arrive", func() bool { return copyingNow(t, b) > 0 })
			return conn.PgConn().CancelRequest(t.Context())
		}}}
		if _, err := copyInto(t, conn, g, copyItems); err == nil || err.Code != "57014" {
			t.Fatalf("cancelled while it sends: %v", err)
		}

		locker, err := pgx.Connect(t.Context(), cluster.ConnString(1, b.database))
		if err != nil {
			t.Fatal(err)
		}
		defer locker.Close(context.Background())
		mustSimple(t, locker, "BEGIN; LOCK TABLE items IN SHARE ROW EXCLUSIVE MODE")
		// A shard that takes no data: the client is not read on, and what waits is bounded.
		g = &generated{n: 2_000_000}
		done := make(chan error, 1)
		go func() {
			_, err := conn.PgConn().CopyFrom(t.Context(), g, copyItems)
			done <- err
		}()
		var last int64
		eventually(t, "the client is held", func() bool {
			before := last
			time.Sleep(300 * time.Millisecond)
			last = g.sent.Load()
			return last == before && last > 0
		})
		if last > 60<<20 {
			t.Fatalf("%d bytes were taken although a shard takes none", last)
		}
		if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		var reported *pgconn.PgError
		if err := <-done; !errors.As(err, &reported) || reported.Code != "57014" {
			t.Fatalf("cancelled while a shard waits: %v", err)
		}
		mustSimple(t, locker, "ROLLBACK")
		eventually(t, "all is rolled back", func() bool { return copyingNow(t, b) == 0 })
		expect(t, conn, "SELECT 1", "1\nSELECT 1")
	})
}

// Shards that say very much while they are written to: neither side waits for the other.
func TestCopyInNotices(t *testing.T) {
	t.Parallel()
	for name, table := range map[string]string{"several shards": "items", "one shard": "plain"} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, 1)
			conn := shop(t, b)
			mustSimple(t, conn, `CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
				BEGIN RAISE NOTICE 'row % %', NEW.id, repeat('x', 1000); RETURN NEW; END $$`)
			mustSimple(t, conn, "CREATE TRIGGER tell AFTER INSERT ON "+table+" FOR EACH ROW EXECUTE FUNCTION tell()")
			var told atomic.Int32
			listening := b.connect(0, func(c *pgx.ConnConfig) {
				c.OnNotice = func(*pgconn.PgConn, *pgconn.Notice) { told.Add(1) }
			})
			const many = 30_000
			column := map[string]string{"items": "name", "plain": "item"}[table]
			g := &generated{n: many, instead: map[int]string{}}
			if table == "plain" {
				for i := 1; i <= many; i++ {
					g.instead[i] = fmt.Sprintf("%d\t%d\n", 1000+i, i)
				}
			}
			tag, err := copyInto(t, listening, g, "COPY "+table+" (id, "+column+") FROM STDIN")
			if err != nil || tag.RowsAffected() != many || told.Load() != many {
				t.Fatal(tag, err, told.Load())
			}
		})
	}
}

// A row that is longer than the router keeps, and one that is not.
func TestCopyInLongRow(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1, func(c *node.Config) { c.Router.CopyRowBound = 1 << 20 })
	conn := shop(t, b)
	_, err := copyInto(t, conn, strings.NewReader("1001\tx\n1002\t"+strings.Repeat("x", 1<<20+1000)+"\n"), copyItems)
	if err == nil || err.Code != "54000" || err.Where != "COPY items, line 2" {
		t.Fatalf("%v %q", err, err.Where)
	}
	tag, err := copyInto(t, conn, strings.NewReader("1001\tx\n1002\t"+strings.Repeat("x", 1<<20-1000)+"\n"), copyItems)
	if err != nil || tag.RowsAffected() != 2 {
		t.Fatal(tag, err)
	}
}

// A client's batches of rows, and a transaction of several of them.
func TestCopyInDriver(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		conn := shop(t, b)
		rows := make([][]any, 0, 1000)
		for i := range 1000 {
			rows = append(rows, []any{1000 + i, fmt.Sprint("n", i)})
		}
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for part := range 4 {
			n, err := tx.CopyFrom(t.Context(), pgx.Identifier{"items"}, []string{"id", "name"}, pgx.CopyFromRows(rows[part*250:(part+1)*250]))
			if err != nil || n != 250 {
				t.Fatal(n, err)
			}
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect(t, conn, "SELECT name FROM items WHERE id = 1777", "n777\nSELECT 1")
		if _, err := conn.CopyFrom(t.Context(), pgx.Identifier{"items"}, []string{"id", "name"}, pgx.CopyFromRows(rows)); code(err) != "23505" {
			t.Fatal(err)
		}
	})
}
