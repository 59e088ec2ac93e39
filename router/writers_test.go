package router_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// apart are two ids of items that live on different shards.
func apart(t *testing.T, b *bed) (a, c int) {
	t.Helper()
	conn := b.connect(0)
	place := func(id int) string {
		text := mustSimple(t, conn, fmt.Sprintf("EXPLAIN SELECT * FROM items WHERE id = %d", id))
		return strings.SplitN(text, "\n", 2)[0]
	}
	first := place(0)
	for id := 1; id < 10; id++ {
		if place(id) != first {
			return 0, id
		}
	}
	t.Fatal("all items live on one shard: " + first)
	return 0, 0
}

// Whatever way a transaction writes on two shards, it writes on both or on none, and says which.
func TestTwoWriters(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		conn := shop(t, b)
		x, y := apart(t, b)
		update := func(id int) string { return fmt.Sprintf("UPDATE items SET name = 'w' WHERE id = %d", id) }
		up := func(id int) []pgproto3.FrontendMessage { return extended(update(id)) }
		mustSimple(t, conn, "CREATE SEQUENCE counter")
		mustSimple(t, conn, `CREATE FUNCTION writer() RETURNS int VOLATILE LANGUAGE plpgsql AS 'BEGIN INSERT INTO plain VALUES (1000, 1); RETURN 1; END'`)
		mustSimple(t, conn, `CREATE FUNCTION hidden() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN writer(); END'`)
		mustSimple(t, conn, "CREATE VIEW writing AS SELECT hidden() AS h")
		// On how many shards rows of ours stay, where it is not two; 0 is with an error or a ROLLBACK.
		exceptions := map[string]int{
			"select into": 1, "create as": 1, "create function": 1, "large object": 1, "explain execute": 0, "truncate": 0,
		}
		home := "UPDATE plain SET item = 77 WHERE id = 1"
		remote := x
		if strings.Contains(mustSimple(t, conn, fmt.Sprintf("EXPLAIN SELECT * FROM items WHERE id = %d", x)), "s1") {
			remote = y
		}
		for name, steps := range map[string][][]pgproto3.FrontendMessage{
			"simple":          {q("BEGIN"), q(update(x)), q(update(y)), q("COMMIT")},
			"multi":           {q(update(x) + ";" + update(y))},
			"multi block":     {q("BEGIN;" + update(x) + ";" + update(y) + ";COMMIT"), q("ROLLBACK")},
			"pipeline":        {batch(up(x), up(y), sync)},
			"pipeline block":  {batch(extended("BEGIN"), up(x), up(y), extended("COMMIT"), sync), q("ROLLBACK")},
			"pipeline begin":  {batch(up(x), extended("BEGIN"), up(y), extended("COMMIT"), sync), q("ROLLBACK")},
			"bound before":    {batch(parse("p", update(x)), bind("p", "p"), parse("q", update(y)), bind("q", "q"), execute("p", 0), execute("q", 0), sync)},
			"bound in block":  {q("BEGIN"), batch(parse("p", update(x)), bind("p", "p"), parse("q", update(y)), bind("q", "q"), sync), batch(execute("p", 0), sync), batch(execute("q", 0), sync), q("COMMIT")},
			"prepared":        {q("PREPARE u AS UPDATE items SET name = 'w' WHERE id = $1"), q("BEGIN"), q(fmt.Sprintf("EXECUTE u(%d)", x)), q(fmt.Sprintf("EXECUTE u(%d)", y)), q("COMMIT")},
			"prepared ext":    {q("PREPARE u AS UPDATE items SET name = 'w' WHERE id = $1"), batch(extended(fmt.Sprintf("EXECUTE u(%d)", x)), extended(fmt.Sprintf("EXECUTE u(%d)", y)), sync)},
			"savepoint":       {q("BEGIN"), q(update(x)), q("SAVEPOINT s"), q(update(y)), q("ROLLBACK TO s"), q(update(y)), q("COMMIT")},
			"released":        {q("BEGIN"), q("SAVEPOINT s"), q(update(x)), q("RELEASE s"), q(update(y)), q("COMMIT")},
			"function":        {q("BEGIN"), q(update(remote)), q("SELECT writer()"), q("COMMIT")},
			"function first":  {q("BEGIN"), q("SELECT writer()"), q(update(remote)), q("COMMIT")},
			"stable function": {q("BEGIN"), q("SELECT hidden()"), q(update(remote)), q("COMMIT")},
			"view":            {q("BEGIN"), q("SELECT * FROM writing"), q(update(remote)), q("COMMIT")},
			"view last":       {q("BEGIN"), q(update(remote)), q("SELECT * FROM writing"), q("COMMIT")},
			"cursor":          {q("BEGIN"), q("DECLARE c CURSOR FOR SELECT writer()"), q(update(remote)), q("FETCH c"), q("COMMIT")},
			"stable cursor":   {q("BEGIN"), q("DECLARE c CURSOR FOR SELECT hidden()"), q(update(remote)), q("FETCH c"), q("COMMIT")},
			"stable portal":   {q("BEGIN"), batch(parse("p", "SELECT hidden()"), bind("p", "p"), sync), q(update(remote)), batch(execute("p", 0), sync), q("COMMIT")},
			"cte":             {q("BEGIN"), q(update(remote)), q("WITH w AS (UPDATE plain SET item = 77 WHERE id = 1 RETURNING 1) SELECT * FROM w"), q("COMMIT")},
			"copy query":      {q("BEGIN"), q(update(remote)), q("COPY (UPDATE plain SET item = 77 WHERE id = 1 RETURNING 1) TO STDOUT"), q("COMMIT")},
			"copy function":   {q("BEGIN"), q(update(remote)), q("COPY (SELECT writer()) TO STDOUT"), q("COMMIT")},
			"copy function 1": {q("BEGIN"), q("COPY (SELECT writer()) TO STDOUT"), q(update(remote)), q("COMMIT")},
			"copy stable":     {q("BEGIN"), q("COPY (SELECT hidden()) TO STDOUT"), q(update(remote)), q("COMMIT")},
			"copy view":       {q("BEGIN"), q("COPY (TABLE writing) TO STDOUT"), q(update(remote)), q("COMMIT")},
			"for update":      {q("BEGIN"), q(update(remote)), q("SELECT * FROM plain WHERE id = 1 FOR UPDATE"), q(home), q("COMMIT")},
			"do":              {q("BEGIN"), q(update(remote)), q("DO $$BEGIN PERFORM writer(); END$$"), q("COMMIT")},
			"explain":         {q("BEGIN"), q(update(remote)), q("EXPLAIN ANALYZE " + home), q("COMMIT")},
			"explain first":   {q("BEGIN"), q("EXPLAIN ANALYZE " + home), q(update(remote)), q("COMMIT")},
			"explain sharded": {q("BEGIN"), q("EXPLAIN ANALYZE " + update(x)), q(update(y)), q("COMMIT")},
			"explain last":    {q("BEGIN"), q(update(y)), q("EXPLAIN ANALYZE " + update(x)), q("COMMIT")},
			"explain json":    {q("BEGIN"), q(update(y)), q("EXPLAIN (ANALYZE, FORMAT json) " + update(x)), q("COMMIT")},
			"explain execute": {q("PREPARE u AS " + update(x)), q("BEGIN"), q(update(y)), q("EXPLAIN ANALYZE EXECUTE u"), q("COMMIT")},
			"create as":       {q("BEGIN"), q(update(remote)), q("CREATE TABLE made AS SELECT 1"), q("COMMIT"), q("DROP TABLE IF EXISTS made")},
			"select into":     {q("BEGIN"), q(update(remote)), q("SELECT 1 INTO made"), q("COMMIT"), q("DROP TABLE IF EXISTS made")},
			"create function": {q("BEGIN"), q(update(remote)), q("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'"), q("COMMIT"), q("DROP FUNCTION IF EXISTS f()")},
			"truncate":        {q("BEGIN"), q(update(remote)), q("TRUNCATE plain"), q("ROLLBACK")},
			"large object":    {q("BEGIN"), q(update(remote)), q("SELECT lo_create(0)"), q("COMMIT")},
			"set local":       {q("BEGIN"), q(update(x)), q("SET LOCAL app.x = 'y'"), q(update(y)), q("COMMIT")},
			"chain":           {q("BEGIN"), q(update(x)), q("COMMIT AND CHAIN"), q(update(y)), q(update(x)), q("COMMIT")},
		} {
			t.Run(name, func(t *testing.T) {
				mustSimple(t, conn, "DELETE FROM plain WHERE id = 1000")
				mustSimple(t, conn, "UPDATE plain SET item = 1 WHERE id = 1")
				for i := range 10 {
					mustSimple(t, conn, fmt.Sprintf("UPDATE items SET name = 'n' WHERE id = %d", i))
				}
				s := b.script(0)
				s.t = t
				var log []string
				for _, step := range steps {
					log = append(log, s.play(step...))
				}
				all := strings.Join(log, " | ")
				wrote := 0
				for _, sql := range []string{"SELECT count(*) FROM plain WHERE id = 1000 OR item = 77",
					fmt.Sprintf("SELECT count(*) FROM items WHERE name = 'w' AND id = %d", x), fmt.Sprintf("SELECT count(*) FROM items WHERE name = 'w' AND id = %d", y)} {
					if !strings.HasPrefix(mustSimple(t, conn, sql), "0") {
						wrote++
					}
				}
				want := 2
				if n, ok := exceptions[name]; ok {
					want = n
				}
				if failed := strings.Contains(all, "error:") || name == "truncate"; failed != (want == 0) || wrote != want {
					t.Errorf("written on %d shards, not on %d: %s", wrote, want, all)
				}
				nothingPrepared(t, b)
			})
		}
	})
}

// nothingPrepared checks that no prepared transaction is left on any shard.
func nothingPrepared(t *testing.T, b *bed) {
	t.Helper()
	for i := range cluster.Shards() {
		conn, err := pgx.Connect(t.Context(), cluster.ConnString(i, b.database))
		if err != nil {
			t.Fatal(err)
		}
		var left int
		err = conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()").Scan(&left)
		if err != nil || left != 0 {
			t.Errorf("shard %d: %d prepared transactions left, %v", i, left, err)
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// What a COMMIT answers is what happened, also when a shard that was only read is lost.
func TestCommitWithoutReader(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	conn := shop(t, b)
	x, y := apart(t, b)
	mustSimple(t, conn, "BEGIN")
	if mustSimple(t, conn, "SELECT 1 FROM items WHERE id = "+fmt.Sprint(y)) != "1\nSELECT 1" {
		t.Fatal("no such item")
	}
	reader := mustSimple(t, conn, fmt.Sprintf("SELECT pg_backend_pid(), inet_server_port() FROM items WHERE id = %d", y))
	mustSimple(t, conn, fmt.Sprintf("UPDATE items SET name = 'kept' WHERE id = %d", x))
	pid, _, _ := strings.Cut(reader, "|")
	for i := range cluster.Shards() {
		direct(t, i, b.database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction' AND pid = "+pid+" AND datname = '"+b.database+"'")
	}
	want := "kept\nSELECT 1"
	if _, err := simple(t, conn, "COMMIT"); err != nil {
		want = fmt.Sprintf("n%d\nSELECT 1", x)
	}
	expect(t, conn, fmt.Sprintf("SELECT name FROM items WHERE id = %d", x), want)
}
