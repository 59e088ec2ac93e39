package clients

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// benchTables is how each of pgbench's tables is sharded; what belongs to a branch is not colocated with its accounts.
const benchTables = `
SHARD TABLE pgbench_accounts BY HASH (aid) PARTITIONS 16;
SHARD TABLE pgbench_branches BY HASH (bid) PARTITIONS 8;
SHARD TABLE pgbench_tellers BY HASH (tid) PARTITIONS 8;
SHARD TABLE pgbench_history BY HASH (aid) COLOCATE WITH pgbench_accounts;
`

// benchFailed is what pgbench tells of transactions that it did not try again. Deadlocks and serialization failures are
// among them; any other error ends a client, and pgbench with it.
var benchFailed = regexp.MustCompile(`number of failed transactions: (\d+) `)

// benchScript is pgbench's TPC-B. With the built-in script it wants to count the branches, and aggregates over several shards
// are refused.
const benchScript = `\set aid random(1, 100000)
\set bid random(1, 1)
\set tid random(1, 10)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
END;
`

// TestPgbenchShardedWrites runs TPC-B, whose transactions write on up to four tables, each on a shard of its own.
func TestPgbenchShardedWrites(t *testing.T) {
	t.Parallel()
	const database = "benchwrites"
	newDatabase(t, database, "")
	// pgbench makes its tables, they are sharded while they are empty, and then it fills them by COPY FREEZE
	// behind a TRUNCATE. Its VACUUM (step v) is refused.
	mustRun(t, "", "pgbench", "-i", "-I", "dtp", routed.url(database))
	routed.do(t, database, benchTables)
	shown := mustRun(t, "", "pgbench", "-i", "-I", "g", "-s", "1", routed.url(database))
	contains(t, shown, "100000 of 100000 tuples (100%) done", "done in")
	checkAccounts(t, database)
	checkSpread(t, database, "pgbench_accounts", accounts)
	checkSpread(t, database, "pgbench_tellers", 10)
	script := writeFile(t, "tpcb.sql", benchScript)
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			shown := mustRun(t, "", "pgbench", "-n", "-f", script, "-M", protocol, "-T", "3", "-c", "4", "-j", "2", routed.url(database))
			if !transactionsProcessed.MatchString(shown) || benchFailed.FindString(shown) == "" {
				t.Fatalf("pgbench:\n%s", shown)
			}
			t.Log(benchFailed.FindString(shown), transactionsProcessed.FindString(shown))
			checkSums(t, database)
		})
	}
	t.Run("tried again", func(t *testing.T) {
		bench(t, database, "-f", script, "-M", "prepared", "-t", "50", "-c", "8", "-j", "2", "--max-tries", "100")
		checkSums(t, database)
	})
	t.Run("filled again", func(t *testing.T) { // its TRUNCATE names all tables
		mustRun(t, "", "pgbench", "-i", "-I", "g", "-s", "1", routed.url(database))
		checkAccounts(t, database)
		bench(t, database, "-f", script, "-t", "20")
		checkSums(t, database)
	})
}

// checkSums checks TPC-B's consistency where the tables are sharded.
func checkSums(t *testing.T, database string) {
	t.Helper()
	sum := func(query string) (total, rows int) {
		for _, field := range strings.Fields(routed.do(t, database, query)) {
			n, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			total, rows = total+n, rows+1
		}
		return total, rows
	}
	want, rows := sum("SELECT delta FROM pgbench_history")
	if rows == 0 {
		t.Error("the history is empty")
	}
	for _, query := range []string{
		"SELECT abalance FROM pgbench_accounts WHERE abalance <> 0", "SELECT bbalance FROM pgbench_branches", "SELECT tbalance FROM pgbench_tellers",
	} {
		if got, _ := sum(query); got != want {
			t.Errorf("%s: the sum is %d, that of the history %d", query, got, want)
		}
	}
}

// checkSpread counts the rows of a table on each shard: all have some.
func checkSpread(t *testing.T, database, table string, want int) {
	t.Helper()
	total := 0
	for i, shard := range bed.Shards.Shards() {
		conn, err := pgx.Connect(t.Context(), bed.Shards.ConnString(i, database))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		err = conn.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n)
		if err := errors.Join(err, conn.Close(t.Context())); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			t.Errorf("shard %s has no row of %s", shard.ID, table)
		}
		total += n
	}
	if total != want {
		t.Errorf("the shards have %d rows of %s, want %d", total, table, want)
	}
}

// writesSchema has tables that the tests of this file fill and empty.
const writesSchema = `
CREATE TABLE t (k int PRIMARY KEY, v text, at timestamptz DEFAULT '2024-01-02 03:04:05+00', n numeric(8,2));
SHARD TABLE t BY HASH (k) PARTITIONS 12;
CREATE TABLE u (id uuid DEFAULT gen_random_uuid() PRIMARY KEY, name text);
SHARD TABLE u BY HASH (id) PARTITIONS 12;
`

func TestPsqlCopyInto(t *testing.T) {
	t.Parallel()
	newDatabase(t, "copyinto", writesSchema)
	folder := t.TempDir()
	var text, csv strings.Builder
	csv.WriteString("n,k,v\n")
	for k := 1; k <= 500; k++ {
		fmt.Fprintf(&text, "%d\tline \\t%d\t\\N\t%d.5\n", k, k, k)
		fmt.Fprintf(&csv, "%d.25,%d,\"a \"\"quoted\"\"\nvalue, %d\"\n", k, 1000+k, k)
	}
	for name, content := range map[string]string{
		"rows.txt": text.String(), "rows.csv": csv.String(), "bad.txt": "9001\tx\t\\N\t1\n9002\ty\t\\N\tz\n", "twice.txt": "9003\tx\t\\N\t1\n1\ty\t\\N\t1\n",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script := strings.ReplaceAll(`
\copy t FROM 'FOLDER/rows.txt'
\copy t (n, k, v) FROM 'FOLDER/rows.csv' WITH (FORMAT csv, HEADER true)
\copy t (n, k, v) FROM 'FOLDER/rows.csv' WITH (FORMAT csv, HEADER match)
\copy t FROM 'FOLDER/bad.txt'
\copy t FROM 'FOLDER/twice.txt'
\copy t (k, v) FROM STDIN WITH (FORMAT csv)
7001,from stdin
7002,"and
again"
\.
\copy t (k, v) FROM PROGRAM 'echo 7003,program' CSV
BEGIN;
\copy t (k, v) FROM STDIN
7004	undone
7005	undone
\.
SELECT k, v FROM t WHERE k >= 7000 ORDER BY k;
ROLLBACK;
SELECT * FROM t ORDER BY k;
COPY t (k) FROM STDIN;
8001
8002
8003
\.
UPDATE t SET v = 'many' WHERE k > 7000 RETURNING v;
DELETE FROM t WHERE k > 1400 AND k < 1410;
`, "FOLDER", folder)
	_, shown := sameOnBoth(t, "copyinto", script, "-a")
	contains(t, shown, "COPY 500", "COPY 500", "ERROR:  duplicate key", "bad.txt", "ERROR:  invalid input syntax for type numeric", "COPY t, line 2, column n",
		"ERROR:  duplicate key", "COPY 2", "COPY 1", "undone", "ROLLBACK", "COPY 3", "UPDATE 6", "DELETE 9")
}

// TestPgxWrites: batches and pipelines whose statements write on several shards.
func TestPgxWrites(t *testing.T) {
	t.Parallel()
	newDatabase(t, "pgxwrites", writesSchema)
	samePgx(t, "pgxwrites", writeWithPgx)
}

// writeWithPgx leaves the tables empty.
func writeWithPgx(ctx context.Context, conn *pgx.Conn, r *transcript) {
	count := func(what string) {
		rows, err := conn.Query(ctx, `SELECT k, v FROM t ORDER BY k`)
		if err == nil {
			var all []map[string]any
			all, err = pgx.CollectRows(rows, pgx.RowToMap)
			r.note(what, len(all), all)
		}
		r.note(what, err)
	}
	send := func(what string, batch *pgx.Batch) { r.note(what, conn.SendBatch(ctx, batch).Close()) }
	tag := func(what string) func(pgconn.CommandTag) error {
		return func(tag pgconn.CommandTag) error { r.note(what, tag); return nil }
	}

	batch := &pgx.Batch{}
	for k := range 10 {
		batch.Queue(`INSERT INTO t (k, v) VALUES ($1, $2)`, k, fmt.Sprint("v", k)).Exec(tag("one"))
	}
	batch.Queue(`INSERT INTO t (k, v) VALUES ($1, 'a'), ($2, 'b'), ($3, 'c') RETURNING k`, 10, 11, 12).Query(func(rows pgx.Rows) error {
		keys, err := pgx.CollectRows(rows, pgx.RowTo[int])
		r.note("returned", keys, err)
		return err
	})
	batch.Queue(`UPDATE t SET v = v || $1 WHERE k < $2`, "!", 7).Exec(tag("all shards"))
	batch.Queue(`DELETE FROM t WHERE v = $1`, "b").Exec(tag("all shards"))
	batch.Queue(`UPDATE t SET k = $1 WHERE k = $2 RETURNING k, v`, 100, 3).QueryRow(func(row pgx.Row) error {
		var k int
		var v string
		err := row.Scan(&k, &v)
		r.note("moved", k, v, err)
		return err
	})
	send("batch", batch)
	count("after the batch")

	batch = &pgx.Batch{}
	batch.Queue(`UPDATE t SET v = 'undone'`)
	batch.Queue(`DELETE FROM t WHERE k = $1`, 100)
	batch.Queue(`INSERT INTO t (k) VALUES ($1), ($2), ($3)`, 200, 201, 5)
	batch.Queue(`DELETE FROM t`)
	send("failing batch", batch)
	count("after the failing batch")

	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		batch.Queue(`UPDATE t SET n = k * $1::int`, 2)
		batch.Queue(`INSERT INTO t (k, v) VALUES ($1, 'x'), ($2, 'y') ON CONFLICT (k) DO UPDATE SET v = excluded.v`, 1, 300)
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		nested := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO t (k) VALUES (400), (401), (402), (1)`)
			return err
		})
		r.note("nested", nested)
		copied, err := tx.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"k", "v"}, pgx.CopyFromRows([][]any{{int32(500), "c"}, {int32(501), "c"}, {int32(502), nil}}))
		r.note("copy", copied, err)
		return err
	})
	r.note("transaction", err)
	count("after the transaction")

	pipeline := conn.PgConn().StartPipeline(ctx)
	pipeline.SendQueryParams(`UPDATE t SET v = 'p' WHERE k > $1`, [][]byte{[]byte("100")}, []uint32{23}, nil, nil)
	pipeline.SendQueryParams(`INSERT INTO t (k) VALUES (600), (601), (602) RETURNING k`, nil, nil, nil, nil)
	err = pipeline.Sync()
	pipeline.SendQueryParams(`DELETE FROM t WHERE k > 600`, nil, nil, nil, nil)
	pipeline.SendQueryParams(`DELETE FROM nosuch`, nil, nil, nil, nil)
	err = errors.Join(err, pipeline.Sync())
	pipeline.SendQueryParams(`DELETE FROM t WHERE k = 601`, nil, nil, nil, nil)
	r.note("pipeline", errors.Join(err, pipeline.Sync()))
	for range 8 {
		results, err := pipeline.GetResults()
		if results == nil && err == nil {
			break
		}
		if reader, ok := results.(*pgconn.ResultReader); ok {
			result := reader.Read()
			r.note("pipelined", result.CommandTag, len(result.Rows), result.Err)
			continue
		}
		r.note("pipelined", fmt.Sprintf("%T", results), err)
	}
	r.note("pipeline", pipeline.Close())
	count("after the pipeline")
	all, err := conn.Exec(ctx, `DELETE FROM t`)
	r.note("emptied", all, err)
}

func TestDatabaseSQLWrites(t *testing.T) {
	t.Parallel()
	newDatabase(t, "sqlwrites", writesSchema)
	sameDatabaseSQL(t, "sqlwrites", writeWithDatabaseSQL)
}

func writeWithDatabaseSQL(ctx context.Context, db *sql.DB, r *transcript) {
	affected := func(what string, result sql.Result, err error) {
		if err != nil {
			r.note(what, err)
			return
		}
		n, err := result.RowsAffected()
		r.note(what, n, err)
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		r.note("begin", err)
		return
	}
	insert, err := tx.PrepareContext(ctx, `INSERT INTO t (k, v) VALUES ($1, $2), ($3, $4)`)
	r.note("prepare", err)
	if err != nil {
		return
	}
	for k := 0; k < 10; k += 2 {
		result, err := insert.ExecContext(ctx, k, "even", k+1, "odd")
		affected("insert", result, err)
	}
	r.note("close", insert.Close())
	result, err := tx.ExecContext(ctx, `UPDATE t SET n = k WHERE v = $1`, "odd")
	affected("update", result, err)
	r.note("commit", tx.Commit())

	// The way to learn a key that the server has made.
	var id, name string
	err = db.QueryRowContext(ctx, `INSERT INTO u (name) VALUES ($1) RETURNING id, name`, "made").Scan(&id, &name)
	r.note("returning", len(id), name, err)
	var found string
	err = db.QueryRowContext(ctx, `SELECT name FROM u WHERE id = $1`, id).Scan(&found)
	r.note("found", found, err)
	rows, err := db.QueryContext(ctx, `INSERT INTO u (name) VALUES ($1), ($2), ($3) RETURNING name`, "a", "b", "c")
	if err == nil {
		for rows.Next() {
			err := rows.Scan(&name)
			r.note("row", name, err)
		}
		err = errors.Join(rows.Err(), rows.Close())
	}
	r.note("returning rows", err)

	tx, err = db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	r.note("begin", err)
	result, err = tx.ExecContext(ctx, `DELETE FROM t WHERE v = $1`, "even")
	affected("delete", result, err)
	_, err = tx.ExecContext(ctx, `INSERT INTO t (k) VALUES (50), (51), (52), (1)`)
	r.note("conflict", err)
	_, err = tx.ExecContext(ctx, `SELECT 1`)
	r.note("failed", err, tx.Rollback())
	result, err = db.ExecContext(ctx, `UPDATE t SET k = k + 100 WHERE k = $1`, 3)
	affected("moved", result, err)
	result, err = db.ExecContext(ctx, `DELETE FROM t`)
	affected("all", result, err)
}
