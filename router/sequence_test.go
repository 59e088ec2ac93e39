package router_test

import (
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"
)

// number runs a statement that gives one number.
func number(t *testing.T, conn *pgx.Conn, sql string) int {
	t.Helper()
	lines, err := simple(t, conn, sql)
	if err != nil || len(lines) != 2 { // the tag is the second
		t.Fatalf("%s: %v, %v", sql, lines, err)
	}
	n, err := strconv.Atoi(lines[0])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// Each session's numbers ascend, also those that the home shard draws by itself, on two routers; setval holds on both.
func TestNumbersOfTwoRouters(t *testing.T) {
	b := newBed(t, 2)
	one, two := b.connect(0), b.connect(1)
	for _, sql := range []string{
		"CREATE TABLE numbered (id serial PRIMARY KEY, v text)", "CREATE TABLE plain (id serial PRIMARY KEY, v text)",
		"SHARD TABLE numbered BY HASH (id) PARTITIONS 8",
	} {
		if _, err := simple(t, one, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	const insert = "INSERT INTO numbered (v) VALUES ('x') RETURNING id"
	last := map[*pgx.Conn]int{}
	for range 5 {
		for _, conn := range []*pgx.Conn{one, two, b.connect(0)} {
			for _, sql := range []string{
				insert, "SELECT nextval('numbered_id_seq')", insert, "SELECT max(n) FROM (SELECT nextval('numbered_id_seq') AS n FROM generate_series(1, 3)) q", insert,
			} {
				n := number(t, conn, sql)
				if n <= last[conn] {
					t.Errorf("%s gave %d after %d", sql, n, last[conn])
				}
				last[conn] = n
			}
			if n := number(t, conn, "SELECT currval('numbered_id_seq')"); n != last[conn] {
				t.Errorf("currval is %d, the last number was %d", n, last[conn])
			}
		}
	}
	if n := number(t, one, "SELECT setval('numbered_id_seq', 10000)"); n != 10000 {
		t.Errorf("setval gave %d", n)
	}
	if n := number(t, one, insert); n != 10001 {
		t.Errorf("after setval the session that did it got %d, want 10001", n)
	}
	wait(t, "the other router sees setval", func() bool { return number(t, two, insert) > 10001 })

	// What the home shard has drawn is told by the connection that drew it, or not at all.
	third := b.connect(0)
	if _, err := simple(t, third, "SELECT lastval()"); code(err) != "55000" {
		t.Errorf("lastval of a session that has drawn nothing: %v, want 55000", err)
	}
	drawn := number(t, third, "INSERT INTO plain (v) VALUES ('x') RETURNING id")
	if n := number(t, third, "SELECT lastval()"); n != drawn {
		t.Errorf("lastval is %d, want %d", n, drawn)
	}
	number(t, one, "INSERT INTO plain (v) VALUES ('x') RETURNING id") // likely on the same connection to the shard
	if lines, err := simple(t, third, "SELECT currval('plain_id_seq')"); code(err) != "0A000" && (err != nil || lines[0] != strconv.Itoa(drawn)) {
		t.Errorf("currval after another session may have used the connection: %v, %v, want %d or 0A000", lines, err, drawn)
	}
}
