package router_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	gosync "sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/router/commit"
)

// itemOnEach are three items, one on each shard; the first is on the home shard.
func itemOnEach(t *testing.T, b *bed) []int {
	t.Helper()
	conn := b.connect(0)
	found := make([]int, len(cluster.Shards()))
	for id := 1; id < 10; id++ {
		where := strings.SplitN(mustSimple(t, conn, fmt.Sprintf("EXPLAIN SELECT * FROM items WHERE id = %d", id)), "\n", 2)[0]
		for i, shard := range cluster.Shards() {
			if strings.Contains(where, string(shard.ID)) {
				found[i] = id
			}
		}
	}
	for i, id := range found {
		if id == 0 {
			t.Fatalf("no item on shard %d", i)
		}
	}
	return found
}

// gate is a lock on the decisions of every shard: no transaction can decide while it is held.
type gate struct {
	t     *testing.T
	b     *bed
	conns []*pgx.Conn
}

func closeGate(t *testing.T, b *bed) *gate {
	t.Helper()
	g := &gate{t: t, b: b}
	for i := range cluster.Shards() {
		conn, err := pgx.Connect(t.Context(), cluster.ConnString(i, b.database))
		if err != nil {
			t.Fatal(err)
		}
		g.conns = append(g.conns, conn)
		mustExec(t, conn, "BEGIN; LOCK TABLE shardyard.decision IN SHARE MODE")
	}
	t.Cleanup(g.open)
	return g
}

func (g *gate) open() {
	for _, conn := range g.conns {
		_ = conn.Close(context.Background())
	}
	g.conns = nil
}

// waiting waits until somebody waits to decide, and returns the shard and the backend.
func (g *gate) waiting() (shard int, pid uint32) {
	g.t.Helper()
	wait(g.t, "a decision that waits", func() bool {
		for i, conn := range g.conns {
			// What pg_stat_activity says is fixed for a transaction otherwise.
			mustExec(g.t, conn, "SELECT pg_stat_clear_snapshot()")
			err := conn.QueryRow(g.t.Context(), `SELECT pid FROM pg_stat_activity
				WHERE wait_event_type = 'Lock' AND query LIKE 'SELECT shardyard.decide%' AND datname = current_database()`).Scan(&pid)
			if err == nil {
				shard = i
				return true
			}
		}
		return false
	})
	return shard, pid
}

func wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// writing begins a transaction that writes on every shard.
func writing(t *testing.T, conn *pgx.Conn, ids []int, name string) {
	t.Helper()
	mustSimple(t, conn, "BEGIN")
	for _, id := range ids {
		mustSimple(t, conn, fmt.Sprintf("UPDATE items SET name = '%s' WHERE id = %d", name, id))
	}
}

func wantNamed(t *testing.T, conn *pgx.Conn, name string, want int) {
	t.Helper()
	if got := mustSimple(t, conn, "SELECT id FROM items WHERE name = '"+name+"'"); !strings.HasSuffix(got, fmt.Sprintf("SELECT %d", want)) {
		t.Errorf("%s: %q, want %d rows", name, got, want)
	}
}

// committing commits in the background.
func committing(conn *pgx.Conn) (answer chan error) {
	answer = make(chan error, 1)
	go func() {
		_, err := conn.PgConn().Exec(context.Background(), "COMMIT").ReadAll()
		answer <- err
	}()
	return answer
}

// A transaction whose last agent loses its connection is looked up, and said to be what it is.
func TestDecisionIsLost(t *testing.T) {
	b := newBed(t, 1)
	conn := shop(t, b)
	ids := itemOnEach(t, b)
	writing(t, conn, ids, "w")
	g := closeGate(t, b)
	answer := committing(conn)
	shard, pid := g.waiting()
	listed := mustSimple(t, b.connect(0), "SHOW TRANSACTIONS")
	if !strings.Contains(listed, "|r1|") || !strings.Contains(listed, "|preparing|s"+fmt.Sprint(shard+1)+"|") || !strings.HasSuffix(listed, "\nSHOW") {
		t.Errorf("listed %q", listed)
	}
	mustExec(t, g.conns[shard], "SELECT pg_terminate_backend($1)", int32(pid))
	g.open()
	if err := <-answer; code(err) != "08006" || !strings.Contains(err.Error(), "rolled back") {
		t.Errorf("COMMIT: %v", err)
	}
	wantNamed(t, conn, "w", 0)
	nothingPrepared(t, b)
	expect(t, conn, "SHOW TRANSACTIONS", "SHOW")
}

// A transaction whose last agent is gone has an unknown outcome, and is finished when the shard is back.
func TestOutcomeIsUnknown(t *testing.T) {
	b := newBed(t, 1)
	conn := shop(t, b)
	ids := itemOnEach(t, b)
	writing(t, conn, ids, "w")
	g := closeGate(t, b)
	answer := committing(conn)
	shard, _ := g.waiting()
	other := b.connect(0)
	if err := cluster.KillShard(shard); err != nil {
		t.Fatal(err)
	}
	err := <-answer
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != "08007" || !strings.Contains(e.Hint, "SHOW TRANSACTIONS") {
		t.Errorf("COMMIT: %v", err)
	} else if gid, ok := commit.Parse(strings.TrimSuffix(strings.TrimPrefix(e.Detail, "The transaction is "), ".")); !ok || gid.Router != "r1" {
		t.Errorf("the detail is %q", e.Detail)
	}
	if listed := mustSimple(t, other, "SHOW TRANSACTIONS"); !strings.Contains(listed, "|in doubt|") {
		t.Errorf("listed %q", listed)
	}
	g.open()
	if err := cluster.StartShard(t.Context(), shard); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	wait(t, "nothing left", func() bool {
		lines, err := simple(t, conn, "SHOW TRANSACTIONS")
		return err == nil && len(lines) == 1
	})
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("recovery took %s", took)
	}
	nothingPrepared(t, b)
	wantNamed(t, conn, "w", 0)
}

// A cancel request while the shards decide: all or nothing.
func TestCancelWhileCommitting(t *testing.T) {
	b := newBed(t, 1)
	conn := shop(t, b)
	writing(t, conn, itemOnEach(t, b), "w")
	g := closeGate(t, b)
	answer := committing(conn)
	g.waiting()
	if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; code(err) != "57014" {
		t.Errorf("COMMIT: %v", err)
	}
	g.open()
	wantNamed(t, conn, "w", 0)
	nothingPrepared(t, b)
}

// Cancel requests at any moment leave a transaction whole.
func TestCancelStorm(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	conn := shop(t, b)
	ids := itemOnEach(t, b)
	committed, cancelled := 0, 0
	for i := range 60 {
		name := fmt.Sprintf("c%d", i)
		writing(t, conn, ids, name)
		answer := committing(conn)
		time.Sleep(time.Duration(i) * 100 * time.Microsecond) // any moment
		if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := len(ids)
		switch err := <-answer; {
		case err == nil:
			committed++
		case code(err) == "57014":
			want = 0
			cancelled++
		default:
			t.Fatalf("COMMIT: %v", err)
		}
		wait(t, "the request is over", func() bool { // a late one may hit what comes next
			_, err := simple(t, conn, "SELECT 1 FROM items")
			return err == nil
		})
		wantNamed(t, conn, name, want)
		nothingPrepared(t, b)
	}
	t.Logf("%d committed, %d cancelled", committed, cancelled)
}

// Shards that cannot prepare: one decides, two are refused, and nothing of the transaction stays, but its settings
// are what the client was told.
func TestCannotPrepare(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	conn := shop(t, b)
	ids := itemOnEach(t, b)
	mustSimple(t, conn, "CREATE TABLE remote (id int PRIMARY KEY, v int)")
	mustSimple(t, conn, "SHARD TABLE remote ON s2")
	mustSimple(t, conn, "INSERT INTO remote VALUES (1, 0)")
	mustSimple(t, conn, `CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_notify(''c'', ''x''); RETURN NULL; END'`)
	mustSimple(t, conn, "CREATE TRIGGER tell AFTER UPDATE ON items FOR EACH ROW EXECUTE FUNCTION tell()")
	mustSimple(t, conn, "CREATE TEMP TABLE scratch (n int)")

	// One of them, anywhere.
	for i, id := range ids {
		mustSimple(t, conn, "BEGIN")
		mustSimple(t, conn, fmt.Sprintf("UPDATE items SET name = 'one%d' WHERE id = %d", i, id))
		if i != 1 {
			mustSimple(t, conn, "UPDATE remote SET v = v + 1 WHERE id = 1")
		}
		if i != 0 {
			mustSimple(t, conn, "UPDATE plain SET item = item + 1 WHERE id = 1")
		}
		_, err := simple(t, conn, "COMMIT")
		want := 1
		if err != nil {
			t.Errorf("COMMIT with a trigger on shard %d: %v", i, err)
			want = 0
		}
		wantNamed(t, conn, fmt.Sprintf("one%d", i), want)
		nothingPrepared(t, b)
	}
	expect(t, conn, "SELECT v FROM remote WHERE id = 1", "2\nSELECT 1")
	expect(t, conn, "SHOW datestyle", "ISO, MDY\nSHOW")
	mustSimple(t, conn, "BEGIN; SET datestyle = 'German'; UPDATE remote SET v = 77 WHERE id = 1")
	mustSimple(t, conn, fmt.Sprintf("UPDATE items SET name = 'two' WHERE id = %d", ids[0]))
	mustSimple(t, conn, fmt.Sprintf("UPDATE items SET name = 'two' WHERE id = %d", ids[2]))
	_, err := simple(t, conn, "COMMIT")
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != "0A000" || !strings.Contains(e.Detail, "PREPARE") || e.Hint == "" {
		t.Errorf("COMMIT: %v", err)
	}
	wantNamed(t, conn, "two", 0)
	nothingPrepared(t, b)
	expect(t, conn, "SHOW datestyle", "ISO, MDY\nSHOW")
	expect(t, conn, "SELECT v, current_setting('datestyle') FROM remote WHERE id = 1", "2|ISO, MDY\nSELECT 1")
	for _, id := range ids {
		expect(t, conn, fmt.Sprintf("SELECT current_setting('datestyle') FROM items WHERE id = %d", id), "ISO, MDY\nSELECT 1")
	}
}

// The role that prepares need not be the one that commits.
func TestCommitUnderAnotherRole(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	conn := shop(t, b)
	ids := itemOnEach(t, b)
	role := "app_" + b.database
	mustSimple(t, conn, "CREATE ROLE "+role)
	mustSimple(t, conn, "GRANT ALL ON items TO "+role)
	for i, set := range []string{"SET LOCAL ROLE ", "SET ROLE "} {
		user := b.connect(0)
		mustSimple(t, user, "BEGIN; "+set+role)
		name := fmt.Sprintf("role%d", i)
		for _, id := range ids {
			mustSimple(t, user, fmt.Sprintf("UPDATE items SET name = '%s' WHERE id = %d", name, id))
		}
		expect(t, user, "COMMIT", "COMMIT")
		nothingPrepared(t, b)
		wantNamed(t, user, name, 3)
		expect(t, user, "SELECT current_user = '"+role+"'", map[bool]string{true: "t", false: "f"}[i == 1]+"\nSELECT 1")
	}
	// A role that owns nothing but its session: what SET LOCAL ROLE prepared as the superuser's.
	user := b.connect(0)
	mustSimple(t, user, "SET ROLE "+role)
	mustSimple(t, user, "BEGIN; SET LOCAL ROLE NONE")
	for _, id := range ids {
		mustSimple(t, user, fmt.Sprintf("UPDATE items SET name = 'none' WHERE id = %d", id))
	}
	expect(t, user, "COMMIT", "COMMIT")
	nothingPrepared(t, b)
	wantNamed(t, user, "none", 3)
}

// logLines collects what is logged.
type logLines struct {
	mu    gosync.Mutex
	lines []string
}

func (l *logLines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(line))
	return len(line), nil
}

func (l *logLines) has(part string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(strings.Join(l.lines, ""), part)
}

// A shard that cannot prepare anything is named in the log, and in the error of a commit that needs it.
func TestNoPreparedTransactions(t *testing.T) {
	log := new(logLines)
	b := newBed(t, 1, func(c *node.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) })
	conn := shop(t, b)
	ids := itemOnEach(t, b)
	change := func(sql string) {
		direct(t, 1, "postgres", sql)
		if err := cluster.RestartShard(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	change("ALTER SYSTEM SET max_prepared_transactions = 0")
	t.Cleanup(func() {
		direct(t, 1, "postgres", "ALTER SYSTEM RESET max_prepared_transactions")
		if err := cluster.RestartShard(context.Background(), 1); err != nil {
			t.Error(err)
		}
	})
	wait(t, "the log's warning", func() bool { return log.has("max_prepared_transactions is 0") })
	wait(t, "the shard serves", func() bool {
		_, err := simple(t, conn, "SELECT id FROM items")
		return err == nil
	})
	writing(t, conn, ids, "w")
	_, err := simple(t, conn, "COMMIT")
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != "55000" || !strings.Contains(e.Hint, "max_prepared_transactions") {
		t.Errorf("COMMIT: %v", err)
	}
	wantNamed(t, conn, "w", 0)
	nothingPrepared(t, b)
}
