package oracle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/directory"
)

// mustHold insists that the shards together hold exactly the rows with these keys, each where
// the map says. The table's key is the int column k.
func mustHold(t *testing.T, bed *Bed, schema, table string, want map[int]bool) {
	t.Helper()
	m, err := bed.Store.LoadMap(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	c := contents{m: m, name: directory.TableName{Schema: schema, Name: table}}
	listed, ok := m.Table(c.name)
	if !ok {
		t.Fatalf("table %s is not in the map", c.name)
	}
	have := map[int]bool{}
	for i, shard := range bed.Shards.Shards() {
		conn, err := pgx.Connect(t.Context(), bed.Shards.ConnString(i, database))
		if err != nil {
			t.Fatal(err)
		}
		defer closeConn(t.Context(), conn)
		if _, err := c.placed(t.Context(), conn, listed, shard.ID); err != nil {
			t.Errorf("shard %s: %v", shard.ID, err)
		}
		rows, err := conn.Query(t.Context(), fmt.Sprintf("SELECT k FROM %s", c.name))
		if err != nil {
			t.Fatal(err)
		}
		keys, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			if have[k] {
				t.Errorf("row %d stands twice", k)
			}
			have[k] = true
			if !want[k] {
				t.Errorf("row %d stands on %s and should not", k, shard.ID)
			}
		}
	}
	for k := range want {
		if !have[k] {
			t.Errorf("acknowledged row %d is lost", k)
		}
	}
}

// writer inserts through one router and reads back through another.
type writer struct {
	number      int
	write, read *pgx.Conn
	keep        *atomic.Bool // rows stay; before, each is deleted again
	altered     *atomic.Bool // the column is there

	count     atomic.Int64 // of rounds
	kept      map[int]bool // rows that were acknowledged
	uncertain map[int]bool // rows of which nobody knows
	errors    []string
}

// round inserts one row and, until rows are to stay, deletes it in the same transaction, so that
// the table is empty for everybody else. A row of a failed statement is uncertain.
func (w *writer) round(ctx context.Context, k int) error {
	defer w.count.Add(1)
	if !w.keep.Load() {
		sql := fmt.Sprintf("INSERT INTO busy (k, v) VALUES (%d, %d); DELETE FROM busy WHERE k = %d", k, w.number, k)
		if _, err := w.write.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			w.uncertain[k] = true
			return w.note("insert and delete", err)
		}
		return nil
	}
	if _, err := w.write.Exec(ctx, "INSERT INTO busy (k, v) VALUES ($1, $2)", k, w.number); err != nil {
		w.uncertain[k] = true
		return w.note("insert", err)
	}
	w.kept[k] = true
	altered := w.altered.Load()
	rows, err := w.read.Query(ctx, fmt.Sprintf("SELECT * FROM busy WHERE k = %d", k), pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return w.note("read", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToMap)
	switch {
	case err != nil:
		return w.note("read", err)
	case len(found) != 1:
		return fmt.Errorf("row %d was acknowledged by one router, the other finds %d rows", k, len(found))
	}
	if _, there := found[0]["extra"]; altered && !there {
		return fmt.Errorf("row %d was read without the column that is there: %v", k, found[0])
	}
	return nil
}

// note keeps a server's error: they may be, but they are few.
func (w *writer) note(what string, err error) error {
	var reported *pgconn.PgError
	if !errors.As(err, &reported) {
		return fmt.Errorf("%s: %w", what, err)
	}
	w.errors = append(w.errors, fmt.Sprintf("%s: %s %s", what, reported.Code, reported.Message))
	return nil
}

// TestShardWhileInserting: while two routers insert, a third connection shards the table, which
// is empty whenever nobody is inserting, and adds a column.
func TestShardWhileInserting(t *testing.T) {
	third := connectTo(t, bed.Routers[0].Addr().String())
	mustExec(t, third, "CREATE TABLE busy (k int PRIMARY KEY, v int)")
	var keep, altered, stop atomic.Bool
	var work sync.WaitGroup
	writers := make([]*writer, 4)
	failures := make([]error, len(writers))
	for i := range writers {
		w := &writer{
			number: i, keep: &keep, altered: &altered, kept: map[int]bool{}, uncertain: map[int]bool{},
			write: connectTo(t, bed.Routers[i%2].Addr().String()), read: connectTo(t, bed.Routers[(i+1)%2].Addr().String()),
		}
		writers[i] = w
		work.Go(func() {
			for n := 0; !stop.Load() && failures[i] == nil; n++ {
				failures[i] = w.round(t.Context(), n*len(writers)+i)
			}
		})
	}
	end := sync.OnceFunc(func() {
		stop.Store(true)
		work.Wait()
	})
	defer end()

	awaitRounds(t, writers, 20)
	attempts := shardWhenEmpty(t, third)
	keep.Store(true)
	awaitRounds(t, writers, 20)
	mustExec(t, third, "ALTER TABLE busy ADD COLUMN extra int DEFAULT 7")
	altered.Store(true)
	awaitRounds(t, writers, 20)
	end()

	want := map[int]bool{}
	for i, w := range writers {
		if failures[i] != nil {
			t.Errorf("writer %d: %v", i, failures[i])
		}
		t.Logf("writer %d kept %d rows, errors %q", i, len(w.kept), w.errors)
		if len(w.kept) == 0 {
			t.Errorf("writer %d wrote nothing", i)
		}
		for k := range w.kept {
			want[k] = true
		}
		for k := range w.uncertain {
			settle(t, third, k, want)
		}
	}
	t.Logf("%d rows; SHARD TABLE found the table empty at attempt %d", len(want), attempts)
	mustHold(t, bed, "public", "busy", want)
	mustExec(t, third, "DROP TABLE busy")
}

// awaitRounds waits until every writer has done so many rounds more.
func awaitRounds(t *testing.T, writers []*writer, more int64) {
	t.Helper()
	for i, w := range writers {
		goal := w.count.Load() + more
		for deadline := time.Now().Add(30 * time.Second); w.count.Load() < goal; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("writer %d stands still", i)
				return
			}
		}
	}
}

// shardWhenEmpty tries until nobody's row is in the way.
func shardWhenEmpty(t *testing.T, conn *pgx.Conn) (attempts int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		attempts++
		_, err := conn.Exec(t.Context(), "SHARD TABLE busy BY HASH (k) PARTITIONS 8")
		if err == nil {
			return attempts
		}
		var reported *pgconn.PgError
		if !errors.As(err, &reported) || time.Now().After(deadline) {
			t.Fatalf("attempt %d: %v", attempts, err)
		}
		if reported.Code != featureNotSupported && reported.Code != "55P03" && reported.Code != "55006" {
			t.Fatalf("attempt %d: %v", attempts, err)
		}
	}
}

// settle finds out whether a row of which nobody knows is there.
func settle(t *testing.T, conn *pgx.Conn, k int, want map[int]bool) {
	t.Helper()
	var found int
	err := conn.QueryRow(t.Context(), "SELECT k FROM busy WHERE k = $1", k).Scan(&found)
	switch {
	case err == nil:
		want[k] = true
	case !errors.Is(err, pgx.ErrNoRows):
		t.Fatal(err)
	}
}

// TestOutages stops etcd, of a bed that others do not need.
func TestOutages(t *testing.T) {
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
	t.Run("etcd", func(t *testing.T) { testEtcdOutage(t, own) })
	t.Run("directory", func(t *testing.T) { testDirectoryInAnOutage(t, own) })
}

// testEtcdOutage: the routers serve on without etcd, past their leases, new clients too; changes
// are refused meanwhile and possible afterwards.
func testEtcdOutage(t *testing.T, bed *Bed) {
	first := connectTo(t, bed.Routers[0].Addr().String())
	mustExec(t, first, "CREATE TABLE outage (k int PRIMARY KEY, v int)")
	mustExec(t, first, "SHARD TABLE outage BY HASH (k) PARTITIONS 8")
	bed.Shards.StopEtcd()
	restart := func() error { return bed.Shards.StartEtcd(context.WithoutCancel(t.Context())) }
	t.Cleanup(func() {
		if err := restart(); err != nil { // does nothing if it runs
			t.Error(err)
		}
	})
	want := map[int]bool{}
	over := time.Now().Add(bed.leaseTTL + 2*time.Second)
	refused := 0
	for k := 0; time.Now().Before(over); k++ {
		conn := first
		if k%10 == 9 {
			conn = connectTo(t, bed.Routers[k/10%2].Addr().String())
		}
		mustExec(t, conn, "INSERT INTO outage VALUES ($1, $1)", k)
		want[k] = true
		var v int
		if err := conn.QueryRow(t.Context(), "SELECT v FROM outage WHERE k = $1", k).Scan(&v); err != nil || v != k {
			t.Fatalf("read %d without etcd: %d, %v", k, v, err)
		}
		if refused < 3 {
			sql := []string{"ALTER TABLE outage ADD COLUMN x int", "SHARD TABLE outage2 BY HASH (k)", "DROP TABLE outage"}[refused]
			refused++
			_, err := conn.Exec(t.Context(), sql)
			var reported *pgconn.PgError
			if !errors.As(err, &reported) {
				t.Fatalf("%s without etcd: %v", sql, err)
			}
			t.Logf("%s: %s %s (%s)", sql, reported.Code, reported.Message, reported.Hint)
		}
	}
	var rows int
	mustHoldColumns := "SELECT count(*) FROM information_schema.columns WHERE table_name = 'outage'"
	if err := first.QueryRow(t.Context(), mustHoldColumns).Scan(&rows); err != nil || rows != 2 {
		t.Errorf("the table has %d columns, %v", rows, err)
	}
	if err := restart(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		_, err := first.Exec(t.Context(), "ALTER TABLE outage ADD COLUMN y int")
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("DDL after the outage: %v", err)
		}
	}
	mustHold(t, bed, "public", "outage", want)
	mustExec(t, first, "DROP TABLE outage")
}
