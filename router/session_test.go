package router_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

var execModes = map[string]pgx.QueryExecMode{
	"cache statement": pgx.QueryExecModeCacheStatement, "cache describe": pgx.QueryExecModeCacheDescribe,
	"describe exec": pgx.QueryExecModeDescribeExec, "exec": pgx.QueryExecModeExec, "simple": pgx.QueryExecModeSimpleProtocol,
}

func TestExecModes(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		for name, mode := range execModes {
			t.Run(name, func(t *testing.T) {
				conn := b.connect(0, func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = mode })
				mustExec(t, conn, "CREATE TABLE IF NOT EXISTS modes (id int PRIMARY KEY, name text, at timestamptz)")
				mustExec(t, conn, "DELETE FROM modes")
				for i := range 3 {
					if tag := mustExec(t, conn, "INSERT INTO modes VALUES ($1, $2, now())", i, "name"); tag.String() != "INSERT 0 1" {
						t.Fatal(tag)
					}
				}
				for range 3 {
					var n int
					var text string
					if err := conn.QueryRow(t.Context(), "SELECT id, name FROM modes WHERE id = $1", 2).Scan(&n, &text); err != nil {
						t.Fatal(err)
					}
					if n != 2 || text != "name" {
						t.Fatalf("got %d %q", n, text)
					}
				}
				_, err := conn.Exec(t.Context(), "INSERT INTO modes VALUES ($1, 'twice')", 2)
				if code(err) != "23505" {
					t.Fatalf("duplicate key: %v", err)
				}
			})
		}
	})
}

func TestTransactions(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		conn := b.connect(0)
		mustSimple(t, conn, "CREATE TABLE t (id int PRIMARY KEY)")
		expect(t, conn, "BEGIN", "BEGIN")
		expect(t, conn, "INSERT INTO t VALUES (1)", "INSERT 0 1")
		expect(t, conn, "ROLLBACK", "ROLLBACK")
		expect(t, conn, "SELECT count(*) FROM t", "0\nSELECT 1")
		expect(t, conn, "BEGIN; INSERT INTO t VALUES (1); SAVEPOINT a; INSERT INTO t VALUES (2)", "BEGIN\nINSERT 0 1\nSAVEPOINT\nINSERT 0 1")
		expectError(t, conn, "INSERT INTO t VALUES (1)", "23505")
		expectError(t, conn, "SELECT 1", "25P02")
		if got := conn.PgConn().TxStatus(); got != 'E' {
			t.Fatalf("status %c", got)
		}
		expect(t, conn, "ROLLBACK TO a", "ROLLBACK")
		expect(t, conn, "INSERT INTO t VALUES (3)", "INSERT 0 1")
		expect(t, conn, "RELEASE a", "RELEASE")
		expect(t, conn, "COMMIT", "COMMIT")
		expect(t, conn, "SELECT id FROM t ORDER BY id", "1\n3\nSELECT 2")
		expect(t, conn, "BEGIN", "BEGIN")
		expectError(t, conn, "SELECT 1/0", "22012")
		expect(t, conn, "COMMIT", "ROLLBACK")
		// Several statements are one implicit transaction.
		expectError(t, conn, "INSERT INTO t VALUES (7); SELECT 1/0", "22012")
		expectError(t, conn, "INSERT INTO t VALUES (7); SET work_mem = '1MB'; SELECT 1/0", "22012")
		expect(t, conn, "SELECT count(*) FROM t WHERE id = 7", "0\nSELECT 1")
		expect(t, conn, "INSERT INTO t VALUES (7); SELECT 1", "INSERT 0 1\n1\nSELECT 1")
		expectError(t, conn, "SAVEPOINT x", "25P01")
		expectError(t, conn, "BEGIN; SAVEPOINT x; RELEASE nix", "3B001")
		expect(t, conn, "ROLLBACK TO x; COMMIT AND CHAIN", "ROLLBACK\nCOMMIT")
		expect(t, conn, "ROLLBACK", "ROLLBACK")
		expect(t, conn, "BEGIN ISOLATION LEVEL REPEATABLE READ; SHOW transaction_isolation; COMMIT", "BEGIN\nrepeatable read\nSHOW\nCOMMIT")
	})
}

func TestSettings(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		one, other := b.connect(0), b.connect(0)
		expect(t, one, "SET work_mem = '7MB'", "SET")
		expect(t, other, "SHOW work_mem", "4MB\nSHOW")
		expect(t, one, "SHOW work_mem", "7MB\nSHOW")
		expect(t, one, "BEGIN; SET work_mem = '9MB'; SHOW work_mem; ROLLBACK; SHOW work_mem", "BEGIN\nSET\n9MB\nSHOW\nROLLBACK\n7MB\nSHOW")
		expect(t, one, "BEGIN; SET LOCAL work_mem = '9MB'; SHOW work_mem; COMMIT; SHOW work_mem", "BEGIN\nSET\n9MB\nSHOW\nCOMMIT\n7MB\nSHOW")
		expect(t, one, "BEGIN; SAVEPOINT a; SET work_mem = '9MB'; ROLLBACK TO a; SHOW work_mem; COMMIT", "BEGIN\nSAVEPOINT\nSET\nROLLBACK\n7MB\nSHOW\nCOMMIT")
		expectError(t, one, "SET work_mem = 'lots'", "22023")
		expectError(t, one, "SET nix = 1", "42704")
		expect(t, one, "SET app.tenant = 'x'", "SET")
		expect(t, one, "SELECT current_setting('app.tenant')", "x\nSELECT 1")
		expect(t, other, "SELECT nullif(current_setting('app.tenant', true), '')", "NULL\nSELECT 1")
		expect(t, one, "SELECT set_config('app.tenant', 'y', false)", "y\nSELECT 1")
		expect(t, other, "SELECT 1", "1\nSELECT 1")
		expect(t, one, "SELECT current_setting('app.tenant')", "y\nSELECT 1")
		mustExec(t, one, "SELECT set_config('app.tenant', $1, false), set_config('work_mem', $2, false)", "z", "8MB") // as applications do
		expect(t, other, "SELECT nullif(current_setting('app.tenant', true), '')", "NULL\nSELECT 1")
		expect(t, one, "SELECT current_setting('app.tenant'), current_setting('work_mem')", "z|8MB\nSELECT 1")
		expect(t, one, "SELECT set_config('app.tenant', 'for ' || current_user, false)", "for postgres\nSELECT 1")
		expect(t, one, "SELECT current_setting('app.tenant')", "for postgres\nSELECT 1")
		expect(t, one, "RESET work_mem", "RESET")
		expect(t, one, "SHOW work_mem", "4MB\nSHOW")
		mustSimple(t, one, "SET TimeZone = 'Asia/Tokyo'")
		if got := one.PgConn().ParameterStatus("TimeZone"); got != "Asia/Tokyo" {
			t.Fatalf("TimeZone reported as %q", got)
		}
		expect(t, one, "SET application_name = 'me'; SHOW application_name", "SET\nme\nSHOW")
		expect(t, one, "DISCARD ALL", "DISCARD ALL")
		expect(t, one, "SHOW TimeZone", one.PgConn().ParameterStatus("TimeZone")+"\nSHOW")
		tuned := b.connect(0, func(c *pgx.ConnConfig) {
			c.RuntimeParams = map[string]string{"DateStyle": "SQL, DMY", "options": "-c work_mem=3MB"}
		})
		expect(t, tuned, "SELECT DATE '2024-12-31'", "31/12/2024\nSELECT 1")
		expect(t, tuned, "SHOW work_mem", "3MB\nSHOW")
		expect(t, tuned, "SET work_mem = '5MB'; RESET ALL; SHOW work_mem", "SET\nRESET\n3MB\nSHOW")
		// RESET goes back to what the start-up message said, on the connection too, whatever it had before.
		expect(t, tuned, "RESET work_mem", "RESET")
		expect(t, tuned, "SHOW work_mem", "3MB\nSHOW")
		expect(t, tuned, "SELECT DATE '2024-12-31', current_setting('work_mem')", "31/12/2024|3MB\nSELECT 1")
		expect(t, tuned, "BEGIN; SET LOCAL work_mem TO DEFAULT; SELECT current_setting('work_mem'); ROLLBACK", "BEGIN\nSET\n3MB\nSELECT 1\nROLLBACK")
		expect(t, tuned, "SELECT current_setting('work_mem')", "3MB\nSELECT 1")
	})
}

// A new session user has not chosen a role, on whatever connection.
func TestSessionAuthorizationForgetsTheRole(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		conn := b.connect(0)
		role := "member_" + b.database
		mustSimple(t, conn, "CREATE ROLE "+role)
		mustSimple(t, conn, "SET ROLE pg_monitor")
		mustSimple(t, conn, "RESET ROLE")
		mustSimple(t, conn, "SET ROLE "+role)
		mustSimple(t, conn, "RESET ROLE")
		mustSimple(t, conn, "SET ROLE pg_monitor")
		mustSimple(t, conn, "SET SESSION AUTHORIZATION "+role)
		busy := b.connect(0) // takes the connection that was just used
		mustSimple(t, busy, "BEGIN")
		mustSimple(t, busy, "SELECT 1")
		expect(t, conn, "SELECT current_user, session_user", role+"|"+role+"\nSELECT 1")
		mustSimple(t, busy, "COMMIT")
	})
}

func TestPrepareAndCursors(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		conn := b.connect(0)
		mustSimple(t, conn, "CREATE TABLE p AS SELECT i AS id FROM generate_series(1, 100) i")
		expect(t, conn, "PREPARE one (int) AS SELECT id FROM p WHERE id = $1", "PREPARE")
		expect(t, conn, "EXECUTE one (1 + 1)", "2\nSELECT 1")
		expectError(t, conn, "PREPARE one AS SELECT 1", "42P05")
		expectError(t, conn, "EXECUTE one (1, 2)", "42601")
		expect(t, conn, "DEALLOCATE one", "DEALLOCATE")
		expectError(t, conn, "EXECUTE one (1)", "26000")
		expect(t, conn, "BEGIN; DECLARE c CURSOR FOR SELECT id FROM p ORDER BY id; FETCH 2 FROM c; FETCH FROM c; CLOSE c; COMMIT",
			"BEGIN\nDECLARE CURSOR\n1\n2\nFETCH 2\n3\nFETCH 1\nCLOSE CURSOR\nCOMMIT")
		expect(t, conn, "CREATE TEMP TABLE tt (a int)", "CREATE TABLE")
		expect(t, conn, "INSERT INTO tt VALUES (5)", "INSERT 0 1")
		expect(t, conn, "SELECT * FROM tt", "5\nSELECT 1")
		expect(t, conn, "DISCARD ALL", "DISCARD ALL")
		expectError(t, conn, "SELECT * FROM tt", "42P01")
	})
}
