package clients

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

// transcript collects what a program saw, to be compared between the sides.
type transcript struct{ strings.Builder }

func (r *transcript) note(what string, values ...any) {
	fmt.Fprintf(r, "%s:", what)
	for _, v := range values {
		if err, ok := v.(error); ok {
			v = describeError(err)
		}
		fmt.Fprintf(r, " %v", v)
	}
	r.WriteString("\n")
}

// describeError is all that a program can see of an error.
func describeError(err error) string {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return err.Error()
	}
	return fmt.Sprintf("%s %s %q detail %q hint %q position %d where %q %s.%s.%s %s", e.Severity, e.Code, e.Message, e.Detail, e.Hint,
		e.Position, e.Where, e.SchemaName, e.TableName, e.ColumnName, e.ConstraintName)
}

var execModes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec,
	pgx.QueryExecModeSimpleProtocol,
}

func TestPgx(t *testing.T) {
	ensureShop(t)
	samePgx(t, "shop", usePgx)
}

// samePgx lets a program that uses pgx see both sides, in all of pgx's modes.
func samePgx(t *testing.T, database string, use func(context.Context, *pgx.Conn, *transcript)) {
	t.Helper()
	for _, mode := range execModes {
		t.Run(mode.String(), func(t *testing.T) {
			sameTranscript(t, func(s side, r *transcript) error {
				config, err := pgx.ParseConfig(s.url(database))
				if err != nil {
					return err
				}
				config.DefaultQueryExecMode = mode
				conn, err := pgx.ConnectConfig(t.Context(), config)
				if err != nil {
					return err
				}
				use(t.Context(), conn, r)
				return conn.Close(t.Context())
			})
		})
	}
}

// sameTranscript fails the test unless a program sees the same on both sides.
func sameTranscript(t *testing.T, program func(s side, r *transcript) error) {
	t.Helper()
	var transcripts [2]transcript
	for i, s := range sides {
		if err := program(s, &transcripts[i]); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
	}
	if d := difference(transcripts[0].String(), transcripts[1].String()); d != "" {
		t.Error(d)
	}
}

type customer struct {
	ID     int
	Name   string
	Feels  *string
	Joined *time.Time
}

// usePgx makes typical calls and leaves the tables as they were.
func usePgx(ctx context.Context, conn *pgx.Conn, r *transcript) {
	query := func(sql string, args ...any) {
		rows, err := conn.Query(ctx, sql, args...)
		if err == nil {
			var all []map[string]any
			if all, err = pgx.CollectRows(rows, pgx.RowToMap); err == nil {
				r.note(sql, all, rows.CommandTag(), len(rows.FieldDescriptions()))
				return
			}
		}
		r.note(sql, err)
	}
	exec := func(sql string, args ...any) {
		tag, err := conn.Exec(ctx, sql, args...)
		r.note(sql, tag, err)
	}
	for id := range 4 { // the third time and later from pgx's and our caches
		query(`SELECT id, name, joined FROM customers WHERE id = $1`, id)
		query(`SELECT * FROM plain WHERE id = $1`, id)
	}
	var one customer
	err := conn.QueryRow(ctx, `SELECT id, name, feels::text, joined FROM customers WHERE id = $1`, 8).Scan(&one.ID, &one.Name, &one.Feels, &one.Joined)
	r.note("scan", one.ID, one.Name, *one.Feels, one.Joined.Format(time.DateOnly), err)
	err = conn.QueryRow(ctx, `SELECT name FROM customers WHERE id = $1`, -1).Scan(&one.Name)
	r.note("no rows", errors.Is(err, pgx.ErrNoRows))
	query(`SELECT id, amount, item FROM orders WHERE customer_id = $1 ORDER BY id`, 8)
	query(`SELECT id, name FROM customers WHERE id = ANY($1) ORDER BY id`, []int32{3, 9, 27, 81})
	query(`SELECT id FROM customers WHERE id IN ($1, $2, $3) ORDER BY id DESC`, 5, 6, 7)
	query(`SELECT id FROM customers WHERE name = $1`, "name 33")
	query(`SELECT c.name, o.id FROM customers c JOIN orders o ON o.customer_id = c.id WHERE c.id = $1 ORDER BY 2`, 12)
	query(`SELECT id FROM customers ORDER BY id LIMIT $1 OFFSET $2`, 3, 10)
	query(`SELECT $1::int + $2::int AS n, $3::text AS t, $4::timestamptz AS at`, 1, 2, "ü", time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC))
	query(`SELECT * FROM nosuch`)
	query(`SELECT id FROM customers WHERE id = $1 AND nosuch = 1`, 3)
	query(`SELECT 1 / (id - 4) FROM customers WHERE id = $1`, 4)
	exec(`INSERT INTO customers (id, name, feels) VALUES ($1, $2, $3)`, 6001, "pgx", "happy")
	exec(`INSERT INTO customers (id, name) VALUES ($1, $2)`, 6001, "again")
	query(`INSERT INTO orders VALUES ($1, $2, $3, $4) RETURNING *`, 6001, 1, "thing", 9.25)
	exec(`INSERT INTO orders VALUES ($1, $2, $3, $4)`, 6002, 1, "thing", 9.25)
	exec(`UPDATE customers SET name = $2 WHERE id = $1`, 6001, "changed")
	query(`SELECT name, feels::text FROM customers WHERE id = $1`, 6001)
	usePgxTransactions(ctx, conn, r)
	exec(`DELETE FROM orders WHERE customer_id = $1`, 6001)
	exec(`DELETE FROM customers WHERE id = $1`, 6001)
	usePgxBatches(ctx, conn, r)
	usePgxCopy(ctx, conn, r)
	exec(`SET application_name = 'mine'`)
	query(`SHOW application_name`)
	r.note("parameter", conn.PgConn().ParameterStatus("application_name"), conn.PgConn().ParameterStatus("server_version"))
	r.note("ping", conn.Ping(ctx))
}

func usePgxTransactions(ctx context.Context, conn *pgx.Conn, r *transcript) {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE customers SET name = $2 WHERE id = $1`, 6001, "in a transaction"); err != nil {
			return err
		}
		nested := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO customers (id, name) VALUES ($1, 'twice')`, 6001)
			return err
		})
		r.note("nested", nested)
		var name string
		err := tx.QueryRow(ctx, `SELECT name FROM customers WHERE id = $1`, 6001).Scan(&name)
		r.note("inside", name)
		return err
	})
	r.note("commit", err)
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM customers WHERE id = $1`, 6001)
		return errors.Join(err, errors.New("changed my mind"))
	})
	r.note("rollback", err)
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		var name, level string
		if err := tx.QueryRow(ctx, `SELECT name FROM customers WHERE id = $1`, 6001).Scan(&name); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, `SHOW transaction_isolation`).Scan(&level); err != nil {
			return err
		}
		r.note("read only", name, level)
		_, err := tx.Exec(ctx, `DELETE FROM customers WHERE id = $1`, 6001)
		return err
	})
	r.note("write in a read only transaction", err)
}

func usePgxBatches(ctx context.Context, conn *pgx.Conn, r *transcript) {
	batch := &pgx.Batch{}
	for id := 1; id <= 5; id++ {
		batch.Queue(`SELECT name FROM customers WHERE id = $1`, id).QueryRow(func(row pgx.Row) error {
			var name string
			err := row.Scan(&name)
			r.note("batch", id, name, err)
			return err
		})
		batch.Queue(`UPDATE plain SET v = v WHERE id = $1`, id).Exec(func(tag pgconn.CommandTag) error {
			r.note("batch", tag)
			return nil
		})
	}
	r.note("batch", conn.SendBatch(ctx, batch).Close())
	batch = &pgx.Batch{}
	batch.Queue(`INSERT INTO customers (id, name) VALUES ($1, 'undone')`, 6003)
	batch.Queue(`SELECT 1 / $1::int`, 0)
	batch.Queue(`SELECT 1`)
	r.note("failing batch", conn.SendBatch(ctx, batch).Close())
	var n int
	err := conn.QueryRow(ctx, `SELECT count(*) FROM customers WHERE id = $1`, 6003).Scan(&n)
	r.note("left of the failing batch", n, err)
}

func usePgxCopy(ctx context.Context, conn *pgx.Conn, r *transcript) {
	rows := make([][]any, 5000)
	for i := range rows {
		rows[i] = []any{int32(100_000 + i), fmt.Sprintf("copied %d", i), time.Unix(int64(i), 0)}
	}
	n, err := conn.CopyFrom(ctx, pgx.Identifier{"plain"}, []string{"id", "v", "at"}, pgx.CopyFromRows(rows))
	r.note("copy", n, err)
	n, err = conn.CopyFrom(ctx, pgx.Identifier{"plain"}, []string{"id", "v", "at"}, pgx.CopyFromRows(rows[:1]))
	r.note("copy again", n, err)
	var out strings.Builder
	tag, err := conn.PgConn().CopyTo(ctx, &out, `COPY (SELECT count(*), sum(id) FROM plain WHERE id >= 100000) TO STDOUT`)
	r.note("copy out", out.String(), tag, err)
	deleted, err := conn.Exec(ctx, `DELETE FROM plain WHERE id >= $1`, 100_000)
	r.note("copied", deleted, err)
	out.Reset()
	tag, err = conn.PgConn().CopyTo(ctx, &out, `COPY orders TO STDOUT`)
	r.note("copy out of a sharded table", len(out.String()), tag, err)
}

func TestDatabaseSQL(t *testing.T) {
	ensureShop(t)
	sameDatabaseSQL(t, "shop", useDatabaseSQL)
}

// sameDatabaseSQL lets a program that uses database/sql see both sides.
func sameDatabaseSQL(t *testing.T, database string, use func(context.Context, *sql.DB, *transcript)) {
	t.Helper()
	sameTranscript(t, func(s side, r *transcript) error {
		db, err := sql.Open("pgx", s.url(database))
		if err != nil {
			return err
		}
		use(t.Context(), db, r)
		return db.Close()
	})
}

func useDatabaseSQL(ctx context.Context, db *sql.DB, r *transcript) {
	r.note("ping", db.PingContext(ctx))
	byKey, err := db.PrepareContext(ctx, `SELECT name, joined, feels FROM customers WHERE id = $1`)
	r.note("prepare", err)
	for id := 38; id < 43; id++ {
		var name string
		var joined sql.NullTime
		var feels sql.NullString
		err := byKey.QueryRowContext(ctx, id).Scan(&name, &joined, &feels)
		r.note("by key", name, joined, feels, err)
	}
	r.note("close", byKey.Close())
	_, err = db.PrepareContext(ctx, `SELECT nosuch FROM customers WHERE id = $1`)
	r.note("prepare", err)
	rows, err := db.QueryContext(ctx, `SELECT id, amount FROM orders WHERE customer_id = $1 ORDER BY id`, 21)
	if err != nil {
		r.note("query", err)
		return
	}
	columns, err := rows.Columns()
	r.note("columns", columns, err)
	for rows.Next() {
		var id int64
		var amount string
		err := rows.Scan(&id, &amount)
		r.note("row", id, amount, err)
	}
	r.note("rows", errors.Join(rows.Err(), rows.Close()))

	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
	r.note("begin", err)
	result, err := tx.ExecContext(ctx, `UPDATE customers SET name = 'sql' WHERE id = $1`, 22)
	if err != nil {
		r.note("update", err)
		return
	}
	affected, err := result.RowsAffected()
	r.note("update", affected, err, tx.Rollback(), tx.Commit())
	var name string
	err = db.QueryRowContext(ctx, `SELECT name FROM customers WHERE id = 22`).Scan(&name)
	r.note("rolled back", name, err)
	err = db.QueryRowContext(ctx, `SELECT name FROM customers WHERE id = $1`, 9999).Scan(&name)
	r.note("no rows", errors.Is(err, sql.ErrNoRows))
}

// TestPool runs several sessions at once over one pgxpool, each with transactions of its own.
func TestPool(t *testing.T) {
	ensureShop(t)
	pool, err := pgxpool.New(t.Context(), routed.url("shop")+"&pool_max_conns=8")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	const workers, rounds = 8, 25
	var group sync.WaitGroup
	failures := make(chan error, workers*rounds)
	for worker := range workers {
		group.Go(func() {
			for round := range rounds {
				if err := usePool(t.Context(), pool, 7000+worker*rounds+round); err != nil {
					failures <- err
				}
			}
		})
	}
	group.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	rows, err := pool.Query(t.Context(), `SELECT id FROM customers WHERE id >= 7000`)
	if err != nil {
		t.Fatal(err)
	}
	left, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil || len(left) != 0 {
		t.Errorf("rows left: %v %v", left, err)
	}
}

// usePool inserts a customer with an order in a transaction, reads it on another connection, and deletes it.
func usePool(ctx context.Context, pool *pgxpool.Pool, id int) error {
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO customers (id, name) VALUES ($1, $2)`, id, fmt.Sprint("pool ", id)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO orders VALUES ($1, 1, 'x', $2)`, id, id)
		return err
	})
	if err != nil {
		return fmt.Errorf("insert %d: %w", id, err)
	}
	var name string
	var amount int
	err = pool.QueryRow(ctx, `SELECT name, amount::int FROM customers JOIN orders ON customer_id = customers.id WHERE customers.id = $1`, id).Scan(&name, &amount)
	if err != nil || name != fmt.Sprint("pool ", id) || amount != id {
		return fmt.Errorf("read %d: got %q, %d: %w", id, name, amount, err)
	}
	batch := &pgx.Batch{}
	batch.Queue(`DELETE FROM orders WHERE customer_id = $1`, id)
	batch.Queue(`DELETE FROM customers WHERE id = $1`, id)
	if err := pool.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("delete %d: %w", id, err)
	}
	return nil
}

// TestPgxCancels: a context that ends cancels the statement on the shard.
func TestPgxCancels(t *testing.T) {
	ensureShop(t)
	for _, statement := range []string{`SELECT pg_sleep(300)`, `SELECT id, pg_sleep(300) FROM customers`, `SELECT pg_sleep(300) FROM customers WHERE id = 3`} {
		config, err := pgx.ParseConfig(routed.url("shop"))
		if err != nil {
			t.Fatal(err)
		}
		db := stdlib.OpenDB(*config)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err = db.ExecContext(ctx, statement)
		cancel()
		if err == nil {
			t.Errorf("%s: not cancelled", statement)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		waitUntilIdle(t, "pg_sleep(300)")
	}
}

// TestCancelAtAnyTime sends a cancel request at some time after a statement, again and again until it is heard,
// as somebody does who presses Ctrl-C. The first may come before the router has read the statement; whenever
// one comes, also while the shards are only about to begin, everything must be over soon.
func TestCancelAtAnyTime(t *testing.T) {
	ensureShop(t)
	conn, err := pgconn.Connect(t.Context(), routed.url("shop"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	exec := func(statement string) error {
		_, err := conn.Exec(t.Context(), statement).ReadAll()
		return err
	}
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	for round := range 60 {
		statement := []string{
			`SELECT id, pg_sleep(64) FROM customers`, `SELECT pg_sleep(64)`, `SELECT pg_sleep(64) FROM customers WHERE id = 9`,
			`SELECT id, pg_sleep(64) FROM customers ORDER BY id`,
		}[round%4]
		block := round%3 == 0
		if block {
			if err := errors.Join(exec(`BEGIN`), exec(fmt.Sprintf(`UPDATE customers SET name = 'x' WHERE id = %d`, 1+round%shopCustomers))); err != nil {
				t.Fatal(err)
			}
		}
		ended := make(chan error, 1)
		go func() { ended <- exec(statement) }()
		time.Sleep(time.Duration(random.Int64N(int64(6 * time.Millisecond)))) // when, is the point
		begun := time.Now()
		err := cancelUntilHeard(t, conn, ended)
		var e *pgconn.PgError
		if !errors.As(err, &e) || e.Code != "57014" {
			t.Fatalf("round %d: %s: %v", round, statement, err)
		}
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("round %d: %s was cancelled after %s", round, statement, took)
		}
		if block {
			if err := exec(`ROLLBACK`); err != nil {
				t.Fatal(err)
			}
		}
	}
	waitUntilIdle(t, "pg_sleep(64)")
}

func cancelUntilHeard(t *testing.T, conn *pgconn.PgConn, ended <-chan error) error {
	for deadline := time.After(10 * time.Second); ; {
		if err := conn.CancelRequest(t.Context()); err != nil {
			return err
		}
		select {
		case err := <-ended:
			return err
		case <-deadline:
			return errors.New("not cancelled")
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// TestErrorOfOneShardEndsTheOthers: the shards that do not fail would sleep on; some may not even have begun when
// the first one fails, and drop a cancel request that comes so early.
func TestErrorOfOneShardEndsTheOthers(t *testing.T) {
	ensureShop(t)
	holders := make([]int, len(bed.Shards.Shards())) // a customer of each shard
	for i := range holders {
		conn, err := pgx.Connect(t.Context(), bed.Shards.ConnString(i, "shop"))
		if err != nil {
			t.Fatal(err)
		}
		err = conn.QueryRow(t.Context(), `SELECT id FROM customers ORDER BY id LIMIT 1`).Scan(&holders[i])
		if err := errors.Join(err, conn.Close(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := pgx.Connect(t.Context(), routed.url("shop"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	for round := range 60 {
		begun := time.Now()
		_, err := conn.Exec(t.Context(), fmt.Sprintf(
			`SELECT CASE WHEN id = %[1]d THEN (1 / (id - %[1]d))::text ELSE pg_sleep(65)::text END FROM customers WHERE name IN ('name %[1]d', 'name %[2]d', 'name %[3]d')`,
			holders[0], holders[1], holders[2]), pgx.QueryExecModeSimpleProtocol)
		var e *pgconn.PgError
		if !errors.As(err, &e) || e.Code != "22012" {
			t.Fatalf("round %d: %v", round, err)
		}
		if took := time.Since(begun); took > 3*time.Second {
			t.Fatalf("round %d: the error came after %s", round, took)
		}
	}
	waitUntilIdle(t, "pg_sleep(65)")
}
