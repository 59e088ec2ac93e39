package oracle

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// changedSide is one side of TestPreparedAndChanged: a session with prepared statements and one that changes tables.
type changedSide struct {
	prepared, changes *pgx.Conn
}

// outcome is what a statement answers, in words: the error, or the columns with their types and the rows.
func (s *changedSide) outcome(t *testing.T, run func(*pgconn.PgConn) *pgconn.Result) string {
	t.Helper()
	r := run(s.prepared.PgConn())
	var failed *pgconn.PgError
	if errors.As(r.Err, &failed) {
		return failed.Code + " " + failed.Message
	}
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	var b strings.Builder
	for _, f := range r.FieldDescriptions {
		fmt.Fprintf(&b, "%s:%d:%d ", f.Name, f.DataTypeOID, f.Format)
	}
	for _, row := range r.Rows {
		fmt.Fprintf(&b, "%q ", row)
	}
	return b.String() + r.CommandTag.String()
}

var changedStatements = []struct {
	sql  string
	args []string
}{
	{"SELECT * FROM %s WHERE k = 1", nil},
	{"SELECT * FROM %s ORDER BY k", nil},
	{"SELECT v FROM %s WHERE k = $1", []string{"1"}},
	{"SELECT k FROM %s WHERE v = $1 ORDER BY k", []string{"7"}},
	{"UPDATE %s SET v = v WHERE k = $1 RETURNING *", []string{"1"}},
	{"UPDATE %s SET note = note WHERE v = $1", []string{"7"}},
	{"INSERT INTO %s (k, v) VALUES ($1, 7), ($2, 7) ON CONFLICT (k) DO UPDATE SET v = excluded.v RETURNING k", []string{"1", "2"}},
}

// TestPreparedAndChanged: statements that were prepared before a table is changed, in their own session or through another router,
// do what Postgres does with them: they go on, by the new definition, unless the columns of their result are others now.
func TestPreparedAndChanged(t *testing.T) {
	t.Parallel()
	const name = "prepared_and_changed"
	newDatabase(t, name)
	connect := func(url string) *pgx.Conn {
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeConn(t.Context(), conn) })
		return conn
	}
	plain := &changedSide{connect(bed.Plain.ConnString(0, name)), connect(bed.Plain.ConnString(0, name))}
	cluster := &changedSide{connect(bed.RouterConnString(0, name)), connect(bed.RouterConnString(1, name))}
	sides := []*changedSide{plain, cluster}
	tables := []string{"away", "everywhere", "pinned", "home"}
	for _, s := range sides {
		for _, table := range tables {
			mustExec(t, s.changes, "CREATE TABLE "+table+" (k int PRIMARY KEY, v int, note text)")
		}
	}
	mustExec(t, cluster.changes, "SHARD TABLE away BY HASH (k) PARTITIONS 6")
	mustExec(t, cluster.changes, "SHARD TABLE everywhere AS REFERENCE")
	mustExec(t, cluster.changes, "SHARD TABLE pinned ON s2")
	for _, s := range sides {
		for _, table := range tables {
			mustExec(t, s.changes, "INSERT INTO "+table+" VALUES (1, 7, 'a'), (2, 7, 'b')")
		}
	}
	for _, table := range tables {
		t.Run(table, func(t *testing.T) {
			test := &changedTest{sides: sides, table: table}
			test.prepare(t)
			for _, change := range [][2]string{
				{"ADD COLUMN x int DEFAULT 5", "DROP COLUMN x"},
				{"ALTER COLUMN v TYPE bigint", "ALTER COLUMN v TYPE int"},
				{"RENAME COLUMN note TO words", "RENAME COLUMN words TO note"},
			} {
				test.compare(t, "before "+change[0])
				for _, alter := range change {
					for _, s := range sides {
						mustExec(t, s.changes, "ALTER TABLE "+table+" "+alter)
					}
					test.compare(t, "after "+alter)
				}
			}
			// In the session's own transaction, which does not stay.
			for _, s := range sides {
				mustExec(t, s.prepared, "BEGIN")
				mustExec(t, s.prepared, "ALTER TABLE "+table+" DROP COLUMN note")
			}
			test.compare(t, "within")
			for _, s := range sides {
				mustExec(t, s.prepared, "ROLLBACK")
			}
			test.compare(t, "afterwards")
		})
	}
}

type changedTest struct {
	sides []*changedSide
	table string
}

// prepare prepares all statements, in the extended protocol and in SQL.
func (c *changedTest) prepare(t *testing.T) {
	t.Helper()
	for _, s := range c.sides {
		for i, st := range changedStatements {
			sql := fmt.Sprintf(st.sql, c.table)
			if _, err := s.prepared.PgConn().Prepare(t.Context(), fmt.Sprintf("%s_%d", c.table, i), sql, nil); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
			mustExec(t, s.prepared, fmt.Sprintf("PREPARE sql_%s_%d AS %s", c.table, i, sql), pgx.QueryExecModeSimpleProtocol)
		}
	}
}

// compare runs all statements on both sides; in a transaction each behind a savepoint.
func (c *changedTest) compare(t *testing.T, when string) {
	t.Helper()
	for i, st := range changedStatements {
		named := fmt.Sprintf("%s_%d", c.table, i)
		var args [][]byte
		for _, arg := range st.args {
			args = append(args, []byte(arg))
		}
		execute := "EXECUTE sql_" + named
		if len(st.args) > 0 {
			execute += " (" + strings.Join(st.args, ", ") + ")"
		}
		for way, run := range map[string]func(*pgconn.PgConn) *pgconn.Result{
			"text": func(conn *pgconn.PgConn) *pgconn.Result {
				return conn.ExecPrepared(t.Context(), named, args, nil, nil).Read()
			},
			"binary": func(conn *pgconn.PgConn) *pgconn.Result {
				return conn.ExecPrepared(t.Context(), named, args, nil, []int16{1}).Read()
			},
			"sql": func(conn *pgconn.PgConn) *pgconn.Result {
				results, err := conn.Exec(t.Context(), execute).ReadAll()
				if err != nil || len(results) == 0 {
					return &pgconn.Result{Err: err}
				}
				return results[0]
			},
		} {
			var got []string
			for _, s := range c.sides {
				within := s.prepared.PgConn().TxStatus() == 'T'
				if within {
					mustExec(t, s.prepared, "SAVEPOINT one")
				}
				got = append(got, s.outcome(t, run))
				if within {
					mustExec(t, s.prepared, "ROLLBACK TO one")
				}
			}
			if got[0] != got[1] {
				t.Errorf("%s, %s of %s:\nplain   %s\ncluster %s", when, way, fmt.Sprintf(st.sql, c.table), got[0], got[1])
			}
		}
	}
}
