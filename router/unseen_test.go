package router_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

const unseenCode = `
CREATE FUNCTION tune(name text, value text, local bool) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN set_config(name, value, local); END $$;
CREATE FUNCTION tenant(n text) RETURNS void LANGUAGE sql STABLE AS $$ SELECT set_config('app.tenant', n, false) $$;
CREATE FUNCTION plain(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN SET work_mem = '3MB'; RESET TimeZone; RETURN n; END $$;
CREATE FUNCTION within() RETURNS text LANGUAGE plpgsql SET work_mem = '1MB' AS $$ BEGIN RETURN current_setting('work_mem'); END $$;
CREATE PROCEDURE twice() LANGUAGE plpgsql AS $$ BEGIN SET work_mem = '13MB'; COMMIT; SET work_mem = '14MB'; RAISE EXCEPTION 'no'; END $$;
CREATE TABLE written (v text);
CREATE FUNCTION on_write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.written', new.v, false); RETURN new; END $$;
CREATE TRIGGER w BEFORE INSERT ON written FOR EACH ROW EXECUTE FUNCTION on_write()`

var unseenSteps = []string{
	"SELECT tune('work_mem', '5MB', false)", "SHOW work_mem", "RESET work_mem", "SHOW work_mem",
	"SELECT tune('work_mem', '5MB', true)", "SHOW work_mem",
	"SELECT set_config(n, v, false) FROM (VALUES ('work_mem', '6MB'), ('app.tenant', 'one')) AS t(n, v)",
	"SELECT current_setting('work_mem'), current_setting('app.tenant')",
	"SELECT tenant('two')", "SELECT current_setting('app.tenant')",
	"SET TimeZone = 'Asia/Tokyo'", "SELECT plain(1)", "SELECT current_setting('work_mem'), current_setting('TimeZone') <> 'Asia/Tokyo'",
	"SELECT within()", "SHOW work_mem",
	"DO $$ BEGIN SET work_mem = '7MB'; SET app.tenant = 'three'; SET LOCAL statement_timeout = 0; END $$",
	"SELECT current_setting('work_mem'), current_setting('app.tenant'), current_setting('statement_timeout')",
	"BEGIN", "SELECT tune('work_mem', '8MB', true), tune('app.tenant', 'four', false)", "SHOW work_mem", "SAVEPOINT a",
	"SELECT tune('app.tenant', 'five', true)", "SELECT current_setting('app.tenant')", "ROLLBACK TO a", "SELECT current_setting('app.tenant')", "COMMIT",
	"SELECT current_setting('work_mem'), current_setting('app.tenant')",
	"BEGIN; SELECT tenant('six'); SET LOCAL work_mem = '1MB'; SELECT 1; ROLLBACK", "SELECT current_setting('work_mem'), current_setting('app.tenant')",
	"BEGIN; SET LOCAL work_mem = '1MB'; SELECT tenant('six'); SELECT 1; COMMIT", "SELECT current_setting('work_mem'), current_setting('app.tenant')",
	"SELECT tenant('seven'); SELECT 1/0", "SELECT current_setting('app.tenant')",
	"SELECT tenant('eight'); SELECT current_setting('app.tenant')", "SELECT current_setting('app.tenant')",
	"SELECT tenant('nine'), 1/0", "SELECT current_setting('app.tenant')",
	"CALL twice()", "SHOW work_mem",
	"INSERT INTO written VALUES ('ten')", "SELECT current_setting('app.written')",
	"BEGIN; DECLARE c CURSOR FOR SELECT tune('app.tenant', 't' || g, false) FROM generate_series(1, 5) g", "FETCH 2 FROM c", "SELECT current_setting('app.tenant')",
	"FETCH 1 FROM c", "COMMIT", "SELECT current_setting('app.tenant')",
	"PREPARE p AS SELECT tune('app.tenant', $1, false)", "EXECUTE p('eleven')", "SELECT current_setting('app.tenant')",
	"EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) SELECT tenant('twelve')", "SELECT current_setting('app.tenant')",
	"DO $$ BEGIN EXECUTE 'SET ROLE ' || quote_ident('pg_monitor'); END $$", "SELECT current_user", "SHOW is_superuser", "RESET ROLE", "SELECT current_user",
	"UPDATE pg_settings SET setting = '9000' WHERE name = 'work_mem'", "SHOW work_mem",
	"DO $$ BEGIN PERFORM set_config('search_path', 'pg_catalog', false); END $$", "SHOW search_path", "SELECT tenant('x')", "RESET search_path",
	"SELECT tenant('')", "SELECT current_setting('app.tenant')", "DO 'BEGIN RESET work_mem; END'", "SHOW work_mem",
}

// What functions and DO blocks set lasts as what SET sets, for the session alone.
func TestSettingsOfFunctions(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		one, other := b.connect(0), b.connect(0)
		plain := plainSession(t)
		mustSimple(t, one, unseenCode)
		mustSimple(t, plain, unseenCode)
		run := func(t *testing.T) {
			for _, sql := range unseenSteps {
				want, wantErr := simple(t, plain, sql)
				got, err := simple(t, one, sql)
				if strings.Join(got, "\n") != strings.Join(want, "\n") || code(err) != code(wantErr) {
					t.Errorf("%s:\n got %q, %v\nwant %q, %v", sql, got, err, want, wantErr)
				}
				expect(t, other, "SELECT current_setting('work_mem'), current_setting('role'), nullif(current_setting('app.tenant', true), '')", "4MB|none|NULL\nSELECT 1")
			}
		}
		t.Run("unsharded", run)
		mustSimple(t, one, "CREATE TABLE apart (id int PRIMARY KEY, v text)")
		mustSimple(t, one, "SHARD TABLE apart BY HASH (id)")
		mustSimple(t, one, "INSERT INTO apart SELECT g, 'v' FROM generate_series(1, 20) g")
		mustSimple(t, one, "DEALLOCATE ALL")
		mustSimple(t, plain, "DEALLOCATE ALL")
		t.Run("sharded", run)
		expect(t, one, "SELECT tenant('five')", "NULL\nSELECT 1")
		expect(t, one, "SELECT id FROM apart WHERE current_setting('app.tenant') <> 'five'", "SELECT 0")
		// What is LOCAL reaches all shards that the transaction uses.
		expect(t, one, "BEGIN; SELECT tune('app.tenant', 'six', true)", "BEGIN\nsix\nSELECT 1")
		expect(t, one, "SELECT id FROM apart WHERE current_setting('app.tenant') <> 'six'", "SELECT 0")
		expect(t, one, "COMMIT; SELECT id FROM apart WHERE current_setting('app.tenant') <> 'five'", "COMMIT\nSELECT 0")
		// The same in the extended protocol, in one pipeline and in several.
		mustExec(t, one, "SELECT set_config($1, $2, false)", "app.tenant", "seven")
		expect(t, one, "SELECT id FROM apart WHERE current_setting('app.tenant') <> 'seven'", "SELECT 0")
		batch := &pgx.Batch{}
		batch.Queue("SELECT tune($1, $2, true)", "app.tenant", "eight")
		batch.Queue("SELECT count(*) FROM written WHERE current_setting('app.tenant') <> $1", "eight")
		var tuned string
		var wrong int
		results := one.SendBatch(t.Context(), batch)
		err := errors.Join(results.QueryRow().Scan(&tuned), results.QueryRow().Scan(&wrong), results.Close())
		if err != nil || wrong != 0 {
			t.Fatal(err, tuned, wrong)
		}
		expect(t, one, "SELECT id FROM apart WHERE current_setting('app.tenant') <> 'seven'", "SELECT 0")
	})
}

// plainSession is a session on a plain Postgres, in a database of its own.
func plainSession(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), cluster.ConnString(0, cluster.NewDatabase(t).Name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// A statement_timeout that is shorter than the question for the settings does not keep the router from asking.
func TestSettingsOfFunctionsWithShortTimeout(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	conn := b.connect(0)
	mustSimple(t, conn, unseenCode)
	mustSimple(t, conn, "SET statement_timeout = '1ms'")
	for i := range 20 {
		value := fmt.Sprint(i)
		if _, err := simple(t, conn, "SELECT tenant('"+value+"')"); code(err) == "57014" && !conn.IsClosed() {
			continue // the statement itself took longer
		} else if err != nil {
			t.Fatal(err)
		}
		mustSimple(t, conn, "BEGIN; SET LOCAL statement_timeout = 0")
		expect(t, conn, "SELECT current_setting('app.tenant'); COMMIT", value+"\nSELECT 1\nCOMMIT")
	}
	expect(t, conn, "SET statement_timeout = '0'; SHOW statement_timeout", "SET\n0\nSHOW")
}
