package router_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/internal/testbed"
)

// ended waits until the server ends a session, and returns the SQLSTATE with which it did.
func ended(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		if _, err := conn.PgConn().ReceiveMessage(ctx); err != nil {
			var told *pgconn.PgError
			if errors.As(err, &told) {
				return told.Code
			}
			return err.Error()
		}
	}
}

// A client that is silent for too long is told so and turned out, in a transaction or outside of one; its transaction is rolled
// back. One that is busy on another shard is not silent.
func TestIdleLimits(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		conn := shop(t, b)
		idle := b.connect(0)
		mustSimple(t, idle, "SET idle_session_timeout = '300ms'")
		expect(t, idle, "SHOW idle_session_timeout", "300ms\nSHOW")
		if got := ended(t, idle); got != "57P05" {
			t.Errorf("an idle session ended with %s", got)
		}
		silent := b.connect(0, func(c *pgx.ConnConfig) { c.RuntimeParams["idle_session_timeout"] = "300ms" })
		if got := ended(t, silent); got != "57P05" {
			t.Errorf("a session that never asked anything ended with %s", got)
		}
		for _, sql := range []string{"UPDATE items SET name = 'x' WHERE id = 1", "UPDATE items SET name = 'x'", "SELECT 1/0", "SELECT 1"} {
			within := b.connect(0)
			mustSimple(t, within, "SET idle_in_transaction_session_timeout = '400ms'")
			mustSimple(t, within, "BEGIN")
			_, _ = simple(t, within, sql)
			if got := ended(t, within); got != "25P03" {
				t.Errorf("%s: ended with %s", sql, got)
			}
		}
		empty := b.connect(0)
		mustSimple(t, empty, "SET idle_in_transaction_session_timeout = '200ms'; BEGIN")
		if got := ended(t, empty); got != "25P03" {
			t.Errorf("a transaction without a statement ended with %s", got)
		}

		busy := b.connect(0)
		mustSimple(t, busy, "SET idle_in_transaction_session_timeout = '500ms'")
		mustSimple(t, busy, "BEGIN; UPDATE items SET name = 'busy'")
		mustSimple(t, busy, "SAVEPOINT a; UPDATE items SET name = 'busier'; ROLLBACK TO a")
		mustSimple(t, busy, "SELECT pg_sleep(1.2)") // the other shards have nothing to do meanwhile
		expect(t, busy, "SHOW idle_in_transaction_session_timeout", "500ms\nSHOW")
		mustSimple(t, busy, "COMMIT")
		expect(t, conn, "SELECT DISTINCT name FROM items WHERE id = 1", "busy\nSELECT 1")
		if got := mustSimple(t, conn, "SELECT name FROM items"); strings.Count(got, "busy") != 10 {
			t.Errorf("after the commit: %s", got)
		}
	})
}

// New sessions start with the settings that roles and databases have now, whatever connections there are; those that run
// keep theirs, and RESET goes back to them.
func TestDefaultsOfRolesAndDatabases(t *testing.T) {
	t.Parallel()
	b := newBed(t, 2)
	admin := b.connect(0)
	role := b.database + "_d"
	dropRoles(t, role)
	mustSimple(t, admin, "CREATE ROLE "+role+" LOGIN")
	as := func(c *pgx.ConnConfig) { c.User = role }
	settings := "SELECT current_setting('work_mem'), current_setting('TimeZone'), current_setting('search_path')"
	before := b.connect(0, as)
	was := mustSimple(t, before, settings)
	mustSimple(t, admin, "ALTER DATABASE "+b.database+" SET work_mem = '5MB'")
	mustSimple(t, admin, "ALTER ROLE "+role+" IN DATABASE "+b.database+" SET search_path = pg_catalog")
	mustSimple(t, admin, "ALTER ROLE "+role+" SET TimeZone = 'Asia/Tokyo'")
	for i := range 2 {
		after := b.connect(i, as)
		expect(t, after, settings, "5MB|Asia/Tokyo|pg_catalog\nSELECT 1")
		mustSimple(t, after, "SET work_mem = '6MB'; SET TimeZone = 'UTC'")
		mustSimple(t, after, "RESET work_mem; RESET ALL")
		expect(t, after, settings, "5MB|Asia/Tokyo|pg_catalog\nSELECT 1")
	}
	planned := "SELECT current_setting('TimeZone'), current_setting('search_path')"
	want := strings.SplitN(was, "|", 2)[1]
	expect(t, before, planned, want)
	mustSimple(t, admin, "ALTER ROLE "+role+" RESET ALL")
	expect(t, b.connect(1, as), "SHOW TimeZone", "UTC\nSHOW")
	mustSimple(t, admin, "DROP OWNED BY "+role)
}

// Extensions are on all shards, with the transaction that makes or drops them.
func TestExtensions(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	conn := b.connect(0)
	mustSimple(t, conn, "CREATE TABLE pinned (id int PRIMARY KEY)")
	mustSimple(t, conn, "SHARD TABLE pinned ON s2") // s3 has nothing
	list := "SELECT extname, extversion FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1"
	mustSimple(t, conn, "BEGIN; CREATE EXTENSION pg_stat_statements VERSION '1.9'; ROLLBACK")
	mustSimple(t, conn, "CREATE EXTENSION pg_stat_statements VERSION '1.9'")
	if got := everywhere(t, b.database, list); got != "pg_stat_statements|1.9\nSELECT 1" {
		t.Errorf("created: %s", got)
	}
	mustSimple(t, conn, "ALTER EXTENSION pg_stat_statements UPDATE TO '1.10'")
	direct(t, 2, b.database, "DROP EXTENSION pg_stat_statements")
	if got := onShard(t, 1, b.database, list); got != "pg_stat_statements|1.10\nSELECT 1" {
		t.Errorf("updated: %s", got)
	}
	mustSimple(t, conn, "DROP EXTENSION pg_stat_statements")
	if got := everywhere(t, b.database, list); got != "SELECT 0" {
		t.Errorf("dropped: %s", got)
	}
	// A shard that has another version gets in the way.
	direct(t, 2, b.database, "CREATE EXTENSION pg_stat_statements VERSION '1.9'")
	expectError(t, conn, "CREATE EXTENSION pg_stat_statements", "55000")
	if got := onShard(t, 0, b.database, list); got != "SELECT 0" {
		t.Errorf("refused: %s", got)
	}
}

// Tablespaces go from server to server, the home shard last; a statement that ended half-way is run again.
func TestTablespaces(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	conn := b.connect(0)
	name := b.database + "_ts"
	t.Cleanup(func() {
		for shard := range 3 {
			direct(t, shard, "postgres", "DROP TABLESPACE IF EXISTS "+name)
		}
	})
	mustSimple(t, conn, "SET allow_in_place_tablespaces = on")
	list := "SELECT count(*) FROM pg_tablespace WHERE spcname = '" + name + "'"
	there := func() (on string) {
		for shard := range 3 {
			on += strings.TrimSuffix(onShard(t, shard, "postgres", list), "\nSELECT 1")
		}
		return on
	}
	expectError(t, conn, "BEGIN; CREATE TABLESPACE "+name+" LOCATION ''", "25001")
	mustSimple(t, conn, "ROLLBACK")
	expectError(t, conn, "CREATE TABLESPACE "+name+" LOCATION '/nowhere/at/all'", "58P01")
	expect(t, conn, "CREATE TABLESPACE "+name+" LOCATION ''", "CREATE TABLESPACE")
	if got := there(); got != "111" {
		t.Errorf("it is on %s", got)
	}
	expectError(t, conn, "CREATE TABLESPACE "+name+" LOCATION ''", "42710")
	expect(t, conn, "ALTER TABLESPACE "+name+" SET (random_page_cost = 2)", "ALTER TABLESPACE")
	expect(t, conn, "DROP TABLESPACE "+name, "DROP TABLESPACE")
	expectError(t, conn, "DROP TABLESPACE "+name, "42704")
	expect(t, conn, "DROP TABLESPACE IF EXISTS "+name, "DROP TABLESPACE")

	// As a statement leaves it that ended behind the first shard.
	testbed.Exec(t, cluster.ConnString(1, "postgres"), "SET allow_in_place_tablespaces = on", "CREATE TABLESPACE "+name+" LOCATION ''")
	expect(t, conn, "CREATE TABLESPACE "+name+" LOCATION ''", "CREATE TABLESPACE")
	if got := there(); got != "111" {
		t.Errorf("resumed, it is on %s", got)
	}
	direct(t, 2, "postgres", "DROP TABLESPACE "+name)
	mustSimple(t, conn, "CREATE TABLE used (a int) TABLESPACE "+name)
	expectError(t, conn, "DROP TABLESPACE "+name, "55000")
	if got := there(); got != "110" {
		t.Errorf("refused, it is on %s", got)
	}
	mustSimple(t, conn, "DROP TABLE used")
	expect(t, conn, "DROP TABLESPACE "+name, "DROP TABLESPACE")
	if got := there(); got != "000" {
		t.Errorf("dropped, it is on %s", got)
	}
}
