package router_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// shop is a sharded table of ten rows on three shards.
func shop(t *testing.T, b *bed) *pgx.Conn {
	conn := b.connect(0)
	mustSimple(t, conn, "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')")
	mustSimple(t, conn, "CREATE TABLE items (id int PRIMARY KEY, name text, feel mood, feels mood[])")
	mustSimple(t, conn, "SHARD TABLE items BY HASH (id) PARTITIONS 6")
	for i := range 10 {
		expect(t, conn, fmt.Sprintf("INSERT INTO items VALUES (%d, 'n%d', 'ok', '{sad,happy}')", i, i), "INSERT 0 1")
	}
	mustSimple(t, conn, "CREATE TABLE plain (id int PRIMARY KEY, item int)")
	mustSimple(t, conn, "INSERT INTO plain SELECT i, i FROM generate_series(0, 9) i")
	return conn
}

func TestSharded(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		conn := shop(t, b)
		expect(t, conn, "SELECT name FROM items WHERE id = 7", "n7\nSELECT 1")
		expect(t, conn, "SELECT id FROM items ORDER BY id", "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\nSELECT 10")
		expect(t, conn, "SELECT id FROM items ORDER BY id DESC LIMIT 3 OFFSET 1", "8\n7\n6\nSELECT 3")
		expect(t, conn, "SELECT name FROM items ORDER BY id LIMIT 2", "n0\nn1\nSELECT 2")
		if got := strings.Count(mustSimple(t, conn, "SELECT id FROM items"), "\n"); got != 10 {
			t.Fatalf("%d rows", got)
		}
		expect(t, conn, "UPDATE items SET name = 'x' WHERE id = 3 RETURNING name", "x\nUPDATE 1")
		expect(t, conn, "BEGIN; UPDATE items SET name = 'y' WHERE id = 3; ROLLBACK; SELECT name FROM items WHERE id = 3",
			"BEGIN\nUPDATE 1\nROLLBACK\nx\nSELECT 1")
		expectError(t, conn, "INSERT INTO items VALUES (3, 'twice')", "23505")
		expect(t, conn, "SELECT count(*), sum(item) FROM items JOIN plain USING (id)", "10|45\nSELECT 1")
		expectError(t, conn, "UPDATE items SET name = 'all' FROM plain", "0A000")
		if got := mustSimple(t, conn, "EXPLAIN SELECT * FROM items WHERE id = 3"); !strings.Contains(got, "Shardyard:") {
			t.Fatal(got)
		}
		if got := mustSimple(t, conn, "SHOW SHARDS"); !strings.HasPrefix(got, "s1|") {
			t.Fatal(got)
		}
	})
}

// A transaction writes on all shards, with savepoints that stand from before a shard was enlisted.
func TestWritersAndSavepoints(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		conn := shop(t, b)
		mustSimple(t, conn, "BEGIN; SAVEPOINT outer_one")
		for i := range 10 {
			mustSimple(t, conn, "SAVEPOINT s")
			mustSimple(t, conn, fmt.Sprintf("UPDATE items SET name = 'w' WHERE id = %d", i))
			if i%2 == 0 {
				mustSimple(t, conn, "RELEASE s")
				continue
			}
			expectError(t, conn, fmt.Sprintf("UPDATE items SET name = name || 1/0 WHERE id = %d", (i+1)%10), "22012")
			expectError(t, conn, fmt.Sprintf("SELECT name FROM items WHERE id = %d", i), "25P02")
			mustSimple(t, conn, "ROLLBACK TO s")
		}
		// Reading everything is fine.
		expect(t, conn, "SELECT id FROM items WHERE name = 'w' ORDER BY id LIMIT 0", "SELECT 0")
		expect(t, conn, "COMMIT", "COMMIT")
		got := mustSimple(t, conn, "SELECT id FROM items WHERE name = 'w' ORDER BY id")
		if got != "0\n2\n4\n6\n8\nSELECT 5" {
			t.Fatalf("updated: %q", got)
		}
		nothingPrepared(t, b)
		mustSimple(t, conn, "BEGIN ISOLATION LEVEL REPEATABLE READ")
		expect(t, conn, "SELECT id FROM items ORDER BY id LIMIT 1", "0\nSELECT 1")
		expect(t, conn, "ROLLBACK", "ROLLBACK")
	})
}

func TestUserTypes(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		shop(t, b)
		for name, mode := range execModes {
			t.Run(name, func(t *testing.T) {
				conn := b.connect(0, func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = mode })
				types, err := conn.LoadTypes(t.Context(), []string{"mood", "_mood"})
				if err != nil {
					t.Fatal(err)
				}
				conn.TypeMap().RegisterTypes(types)
				for i := range 10 {
					var feel string
					var feels []string
					row := conn.QueryRow(t.Context(), "SELECT feel, feels FROM items WHERE id = $1", i)
					if err := row.Scan(&feel, &feels); err != nil {
						t.Fatalf("row %d: %v", i, err)
					}
					if feel != "ok" || len(feels) != 2 || feels[1] != "happy" {
						t.Fatalf("row %d: %q %q", i, feel, feels)
					}
					if mode == pgx.QueryExecModeExec || mode == pgx.QueryExecModeSimpleProtocol {
						continue
					}
					tag := mustExec(t, conn, "UPDATE items SET feels = $2 WHERE id = $1", i, []string{"sad", "happy"})
					if tag.RowsAffected() != 1 {
						t.Fatal(tag)
					}
				}
				rows, err := conn.Query(t.Context(), "SELECT feels FROM items ORDER BY id")
				if err != nil {
					t.Fatal(err)
				}
				all, err := pgx.CollectRows(rows, pgx.RowTo[[]string])
				if err != nil {
					t.Fatal(err)
				}
				if len(all) != 10 || all[9][0] != "sad" {
					t.Fatalf("%q", all)
				}
			})
		}
	})
}

func TestCopy(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		conn := shop(t, b)
		for _, format := range []string{"", " CSV", " CSV HEADER", " BINARY"} {
			var text, all strings.Builder
			if _, err := conn.PgConn().CopyTo(t.Context(), &text, "COPY plain TO STDOUT"+format); err != nil {
				t.Fatal(err)
			}
			tag, err := conn.PgConn().CopyTo(t.Context(), &all, "COPY items (id) TO STDOUT"+format)
			if err != nil {
				t.Fatalf("copy out%s: %v", format, err)
			}
			if tag.String() != "COPY 10" {
				t.Fatal(tag)
			}
			if format == " BINARY" {
				mustSimple(t, conn, "CREATE TABLE back (id int)")
				if _, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader(all.String()), "COPY back FROM STDIN BINARY"); err != nil {
					t.Fatal(err)
				}
				expect(t, conn, "SELECT count(DISTINCT id), min(id), max(id) FROM back", "10|0|9\nSELECT 1")
			} else if want := 10 + strings.Count(format, "HEADER"); strings.Count(all.String(), "\n") != want {
				t.Fatalf("copy out%s: %q", format, all.String())
			}
		}
		if _, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader("1\t2\n"), "COPY plain FROM STDIN"); code(err) != "23505" {
			t.Fatalf("duplicate: %v", err)
		}
		if _, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader(strings.Repeat("x\ty\n", 100_000)), "COPY plain FROM STDIN"); code(err) != "22P02" {
			t.Fatalf("bad data: %v", err)
		}
		tag, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader("100\t2\n101\t3\n"), "COPY plain FROM STDIN")
		if err != nil || tag.String() != "COPY 2" {
			t.Fatal(tag, err)
		}
		expect(t, conn, "SELECT 1", "1\nSELECT 1")
		tag, err = conn.PgConn().CopyFrom(t.Context(), strings.NewReader("100\ta\n101\tb\n102\tc\n"), "COPY items (id, name) FROM STDIN")
		if err != nil || tag.String() != "COPY 3" {
			t.Fatalf("copy into a sharded table: %s, %v", tag, err)
		}
	})
}

// Definitions within a transaction, and what uses them at once.
func TestDefinitionsInTransaction(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		conn := shop(t, b)
		expect(t, conn, "BEGIN; CREATE TABLE fresh (a int); INSERT INTO fresh VALUES (1); SELECT * FROM fresh; ALTER TABLE fresh ADD b int DEFAULT 2; SELECT * FROM fresh; COMMIT",
			"BEGIN\nCREATE TABLE\nINSERT 0 1\n1\nSELECT 1\nALTER TABLE\n1|2\nSELECT 1\nCOMMIT")
		mustSimple(t, conn, "BEGIN; CREATE FUNCTION peek() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM items'")
		_, err := simple(t, conn, "SELECT peek()")
		if code(err) != "0A000" {
			t.Fatalf("a function that reads a sharded table: %v", err)
		}
		mustSimple(t, conn, "ROLLBACK")
		expect(t, conn, "CREATE TEMP TABLE items (id int); SELECT count(*) FROM items; DROP TABLE items; SELECT name FROM items WHERE id = 7",
			"CREATE TABLE\n0\nSELECT 1\nDROP TABLE\nn7\nSELECT 1")
	})
}
