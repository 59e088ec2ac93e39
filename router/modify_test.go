package router_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// manyWriters are conversations with statements that write on several shards, as those of TestAsPlainPostgres; the rows
// that they return are all alike, since their order is not fixed.
func manyWriters() []comparison {
	steps := func(s ...[]pgproto3.FrontendMessage) [][]pgproto3.FrontendMessage { return s }
	change := "UPDATE items SET name = $1 WHERE id < 8 RETURNING name, feels"
	describeUnnamed := []pgproto3.FrontendMessage{parse("", change), describe('S', ""), sync}
	names := q("SELECT name FROM items WHERE id = 3")
	return []comparison{
		{"row limit", steps(
			batch(parse("", change), bind("p", "", "a"), execute("p", 3), execute("p", 2), sync),
			names,
			batch(parse("", change), bind("p", "", "b"), describe('P', "p"), execute("p", 8), execute("p", 0), execute("p", 0), sync),
			batch(parse("", change), bind("", "", "c"), execute("", 100), sync),
			names,
		)},
		{"row limit in a block", steps(
			q("BEGIN"),
			batch(parse("", change), bind("p", "", "a"), execute("p", 3), sync),
			names,
			batch(execute("p", 3), sync),
			batch(execute("p", 3), sync),
			batch(&pgproto3.Close{ObjectType: 'P', Name: "p"}, bind("p", "", "b"), execute("p", 0), sync),
			q("COMMIT"),
			names,
		)},
		{"without rows", steps(
			batch(parse("", "UPDATE items SET name = 'w'"), bind("p", ""), describe('P', "p"), execute("p", 1), execute("p", 1), sync),
			names,
			batch(parse("", "DELETE FROM items WHERE id > 7"), describe('S', ""), bind("", ""), execute("", 0), sync),
			q("SELECT 1 FROM items"),
		)},
		{"described", steps(describeUnnamed, describeUnnamed)},
		{"error undoes all", steps(
			batch(parse("", "UPDATE items SET name = 'e'"), bind("", ""), execute("", 0),
				parse("", "UPDATE items SET name = (1 / (id - 5))::text"), bind("", ""), execute("", 0), sync),
			names,
			q("UPDATE items SET name = 'f'; UPDATE items SET name = (1 / (id - 5))::text; SELECT 1"),
			names,
			q("BEGIN; UPDATE items SET name = (1 / (id - 5))::text"),
			names,
			q("ROLLBACK"),
			names,
			q("UPDATE items SET name = 'g'; SELECT 1; UPDATE items SET name = 'h' RETURNING name"),
			names,
		)},
		{"pipeline", steps(
			batch(extended("UPDATE items SET name = 'i'"), extended("DELETE FROM items WHERE id = 9"),
				extended("UPDATE items SET name = 'j' RETURNING name"), sync),
			names,
		)},
		{"nothing", steps(
			batch(extended("UPDATE items SET name = 'i' WHERE id < 0 RETURNING name"), sync),
			q("UPDATE items SET name = 'i' WHERE id < 0"),
			q("DELETE FROM items WHERE id < 0 RETURNING *"),
		)},
	}
}

func TestModifyAsPlainPostgres(t *testing.T) {
	t.Parallel()
	asPlainPostgres(t, manyWriters())
}

// TestReturningBeyondMemory returns more than the router keeps in memory: all of it arrives, and a part of it alone is refused.
func TestReturningBeyondMemory(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	conn := shop(t, b)
	big := "UPDATE items SET name = repeat('x', 4000000) RETURNING name"
	if got := mustSimple(t, conn, big); len(got) != 10*4_000_001+len("UPDATE 10") {
		t.Fatalf("%d bytes", len(got))
	}
	mustSimple(t, conn, "UPDATE items SET name = 'small'")
	s := b.script(0)
	s.want("parsecomplete bindcomplete error:54000 ready:I", parse("", big), bind("", ""), execute("", 3), sync)
	s.want("columns:1 row:small done:SELECT_1 ready:I", query("SELECT name FROM items WHERE id = 3"))
}

// TestLocksOnAllShards: what one session locks, no other gets on any shard, until the end of the transaction.
func TestLocksOnAllShards(t *testing.T) {
	t.Parallel()
	b := newBed(t, 2)
	conn := shop(t, b)
	other := b.connect(1)
	mustSimple(t, conn, "BEGIN; SELECT name FROM items FOR UPDATE")
	expectError(t, other, "SELECT name FROM items FOR SHARE NOWAIT", "55P03")
	expect(t, other, "SELECT name FROM items FOR UPDATE SKIP LOCKED", "SELECT 0")
	expect(t, other, "SELECT name FROM items WHERE id = 3", "n3\nSELECT 1")
	mustSimple(t, conn, "COMMIT")
	expect(t, other, "SELECT 1 FROM items WHERE id < 2 FOR UPDATE SKIP LOCKED", "1\n1\nSELECT 2")
	mustSimple(t, conn, "BEGIN; LOCK TABLE items IN SHARE MODE")
	expectError(t, other, "BEGIN; LOCK TABLE items IN ROW EXCLUSIVE MODE NOWAIT", "55P03")
	mustSimple(t, other, "ROLLBACK")
	mustSimple(t, conn, "ROLLBACK")
	expect(t, other, "BEGIN; LOCK TABLE items IN ROW EXCLUSIVE MODE NOWAIT; COMMIT", "BEGIN\nLOCK TABLE\nCOMMIT")
}
