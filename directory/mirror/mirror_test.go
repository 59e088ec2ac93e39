package mirror

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/testbed"
)

var cluster *testbed.Cluster

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(testbed.Main(m, devcluster.Config{Shards: 2, BurnOIDs: true}, &cluster))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pair is an authority and a mirror: two databases on two servers.
type pair struct {
	*testbed.Database
	t       *testing.T
	source  *pgx.Conn // of the service role
	copy    *pgx.Conn
	secrets *Secrets
	m       *directory.Map
}

func newPair(t *testing.T) *pair {
	t.Helper()
	d := cluster.Database(t)
	return &pair{t: t, Database: d, source: d.Connect(0), copy: d.Connect(1), secrets: NewSecrets(d.Dial), m: d.Map()}
}

func (p *pair) both(statements ...string) {
	p.t.Helper()
	for _, statement := range statements {
		exec(p.t, p.source, statement)
		exec(p.t, p.copy, statement)
	}
}

func exec(t *testing.T, conn *pgx.Conn, statement string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// mirror installs a mirror of table, keyed by the columns.
func (p *pair) mirror(table string, key ...string) Mirror {
	p.t.Helper()
	shards := cluster.Shards()
	m := Mirror{
		ID: "m-" + table, Table: directory.TableName{Schema: "public", Name: table}, Key: key, Guarded: true,
		Authority: shards[0].ID, Destinations: []directory.ShardID{shards[1].ID},
	}
	for _, statement := range m.InstallSource() {
		exec(p.t, p.source, statement)
	}
	for _, statement := range m.InstallCopy() {
		exec(p.t, p.copy, statement)
	}
	return m
}

// settle is what a router does before a commit: source and copy are the client's connections.
func (p *pair) settle(source, copied *pgx.Conn) error {
	ctx := p.t.Context()
	shards := cluster.Shards()
	from, err := p.secrets.Of(ctx, shards[0], p.Name)
	must(p.t, err)
	to, err := p.secrets.Of(ctx, shards[1], p.Name)
	must(p.t, err)
	for {
		rows, err := source.Query(ctx, DrainQuery, Seal(from, source.PgConn().PID(), DrainMessage))
		if err != nil {
			return err
		}
		drained, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (payload *string, err error) {
			var id string
			return payload, row.Scan(&id, &payload)
		})
		if err != nil || len(drained) == 0 {
			return err
		}
		var payloads []string
		for _, payload := range drained {
			if payload != nil {
				payloads = append(payloads, *payload)
			}
		}
		all := strings.Join(payloads, ",")
		if _, err := copied.Exec(ctx, ApplyQuery, all, Seal(to, copied.PgConn().PID(), ApplyMessage(all))); err != nil {
			return err
		}
	}
}

// run runs statements in one transaction of a role on the source, settles after each, and commits.
func (p *pair) run(role string, statements ...string) error {
	p.t.Helper()
	source, copied := p.Connect(0), p.Connect(1)
	for _, conn := range []*pgx.Conn{source, copied} {
		exec(p.t, conn, "SET statement_timeout = '20s'; SET ROLE "+role)
		defer func() { _ = conn.Close(context.Background()) }()
		exec(p.t, conn, "BEGIN")
	}
	for _, statement := range statements {
		if _, err := source.Exec(p.t.Context(), statement); err != nil {
			return err
		}
		if err := p.settle(source, copied); err != nil {
			return err
		}
	}
	exec(p.t, source, "SET CONSTRAINTS ALL IMMEDIATE")
	if err := p.settle(source, copied); err != nil {
		return err
	}
	exec(p.t, source, "COMMIT")
	exec(p.t, copied, "COMMIT")
	return nil
}

func (p *pair) same(table string) {
	p.t.Helper()
	want, have := dump(p.t, p.source, table), dump(p.t, p.copy, table)
	if want != have {
		p.t.Errorf("source:\n%s\ncopy:\n%s", want, have)
	}
	var left int
	must(p.t, p.source.QueryRow(p.t.Context(), "SELECT count(*) FROM shardyard.change").Scan(&left))
	if left != 0 {
		p.t.Errorf("%d changes are left in the outbox", left)
	}
}

func dump(t *testing.T, conn *pgx.Conn, table string) string {
	t.Helper()
	rows, err := conn.Query(t.Context(), "SELECT t::text FROM "+table+" t ORDER BY 1")
	must(t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(t, err)
	return strings.Join(lines, "\n")
}

func wantState(t *testing.T, err error, state string) {
	t.Helper()
	var server *pgconn.PgError
	if !errors.As(err, &server) || server.Code != state {
		t.Fatalf("error is %v, want SQLSTATE %s", err, state)
	}
}

// TestEveryType: every value is on the mirror as it was, under settings that print values inexactly.
func TestEveryType(t *testing.T) {
	p := newPair(t)
	p.both("CREATE TYPE mood AS ENUM ('sad', 'so, so', 'h\"appy')", "CREATE DOMAIN small AS int CHECK (value < 1000)",
		"CREATE TYPE point3 AS (x float8, y text, m mood)", "CREATE TYPE floats AS RANGE (SUBTYPE = float8)",
		`CREATE TABLE every (k1 text, k2 timestamptz, gone1 int, f4 float4, f8 float8, n numeric, i interval, ai int[], at text[][], m mood, am mood[],
			d small, c point3, ac point3[], j json, jb jsonb, b bytea, ch char(5), vc varchar(7), dt date, ts timestamp(3), tz timetz, u uuid, bo boolean, inet inet,
			bits bit varying, r int4range, fr floats, mr datemultirange, tsv tsvector, x xml, mo money, rc regclass, gone2 text,
			g numeric GENERATED ALWAYS AS (n * 2) STORED, id int GENERATED ALWAYS AS IDENTITY, "odd "" name" text, PRIMARY KEY (k1, k2))`,
		"ALTER TABLE every DROP COLUMN gone1", "ALTER TABLE every DROP COLUMN gone2", "CREATE ROLE writer_"+p.Name,
		"GRANT INSERT, UPDATE, DELETE, SELECT ON every TO writer_"+p.Name)
	p.mirror("every", "k1", "k2")
	insert := `INSERT INTO every (k1, k2, f4, f8, n, i, ai, at, m, am, d, c, ac, j, jb, b, ch, vc, dt, ts, tz, u, bo, inet, bits, r, fr, mr, tsv, x, mo, rc, "odd "" name") VALUES
		('a"b,\{}''', '2024-05-05 01:02:03.123456+03', 1e-45, 0.1::float8 + 0.2, 12345678901234567890.123456789000, '-1 mon +3 days -04:05:06.789', '[2:3]={1,NULL}',
		 '{{a,"NULL"},{NULL,"x\\y"}}', 'so, so', '{sad,"h\"appy"}', 999, ROW(1e308, 'a,b"(', 'h"appy'), ARRAY[ROW(NULL, '', 'sad')::point3, NULL], '{"a" :  [1, 2.50]}', '{"b": 1.0, "é": null}',
		 '\x00ff5c', 'ab', 'x      ', '0044-03-15 BC', 'infinity', '12:00:00.5+05:30', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', true, '10.1.2.3/8', '10101',
		 '[3,9)', '[0.1,0.3)', '{[2020-01-01,2020-02-01)}', 'a:1A b', '<a>é</a>', '12.34', 'every', ''),
		('', '-infinity', 'NaN', '-infinity', 'NaN', '178000000 years', '{}', NULL, NULL, '{}', NULL, NULL, '{}', 'null', '"\\u00e9"', '', '', '', 'infinity', '-infinity', '00:00+15:59',
		 NULL, false, '::1', '', 'empty', '(,)', '{}', '', NULL, '-1', NULL, NULL)`
	must(t, p.run("writer_"+p.Name, "SET LOCAL DateStyle = 'German'; SET LOCAL extra_float_digits = -15; SET LOCAL IntervalStyle = 'sql_standard'; SET LOCAL TimeZone = 'Asia/Kolkata'; SET LOCAL bytea_output = 'escape'; SET LOCAL client_encoding = 'LATIN1'",
		insert))
	p.same("every")
	must(t, p.run("writer_"+p.Name, "UPDATE every SET f8 = f8 / 3, k1 = k1 || 'x', c = NULL WHERE k1 <> ''", "DELETE FROM every WHERE k1 = ''", insert))
	p.same("every")
}

// TestUniqueValuesMove: values of unique keys that go from row to row, in one statement and in several.
func TestUniqueValuesMove(t *testing.T) {
	p := newPair(t)
	p.both("CREATE TABLE u (id int PRIMARY KEY, name text UNIQUE, code int UNIQUE DEFERRABLE)")
	p.mirror("u", "id")
	must(t, p.run("postgres", "INSERT INTO u SELECT i, 'n' || i, i FROM generate_series(1, 1200) i"))
	p.same("u")
	must(t, p.run("postgres", "UPDATE u SET code = 3 - code WHERE code IN (1, 2)"))
	must(t, p.run("postgres", "UPDATE u SET name = 'tmp' WHERE id = 1; UPDATE u SET name = 'n1' WHERE id = 2; UPDATE u SET name = 'n2' WHERE id = 1"))
	p.same("u")
	must(t, p.run("postgres", "DELETE FROM u WHERE id > 600; UPDATE u SET id = -id; INSERT INTO u VALUES (5, 'new', 5000) ON CONFLICT (id) DO NOTHING; UPDATE u SET id = -id WHERE id < -9"))
	p.same("u")
	must(t, p.run("postgres", "SAVEPOINT a", "UPDATE u SET name = 'gone'  WHERE id = 10", "TRUNCATE u; INSERT INTO u VALUES (1, 'n1', 1)", "INSERT INTO u VALUES (2, 'n2', 2)"))
	p.same("u")
}

// TestForeignKeysOfOtherTables: a row that a table of the mirror's shard refers to stays, with Postgres's own error; an
// update of it neither breaks nor waits for what refers to it.
func TestForeignKeysOfOtherTables(t *testing.T) {
	p := newPair(t)
	p.both("CREATE TABLE r (id int PRIMARY KEY, name text)", "CREATE TABLE r2 (id int PRIMARY KEY, r int REFERENCES r ON DELETE CASCADE ON UPDATE CASCADE)")
	p.mirror("r", "id")
	p.mirror("r2", "id")
	must(t, p.run("postgres", "INSERT INTO r VALUES (1, 'a'), (2, 'b'), (3, 'c')", "INSERT INTO r2 VALUES (1, 1), (2, 2), (3, 3)"))
	exec(t, p.copy, "CREATE TABLE child (r int REFERENCES r)")
	exec(t, p.copy, "INSERT INTO child VALUES (1)")
	err := p.run("postgres", "DELETE FROM r WHERE id = 1")
	wantState(t, err, "23503")
	var server *pgconn.PgError
	if errors.As(err, &server); server.ConstraintName != "child_r_fkey" || server.Detail != `Key (id)=(1) is still referenced from table "child".` {
		t.Errorf("constraint %q, detail %q", server.ConstraintName, server.Detail)
	}
	wantState(t, p.run("postgres", "UPDATE r SET id = 10 WHERE id = 1"), "23503")
	other := p.Connect(1)
	exec(t, other, "BEGIN; INSERT INTO child VALUES (1)") // holds a lock on the key
	must(t, p.run("postgres", "UPDATE r SET name = 'x' WHERE id = 1"))
	exec(t, other, "COMMIT")
	must(t, p.run("postgres", "DELETE FROM r WHERE id = 2", "UPDATE r SET id = 30 WHERE id = 3"))
	p.same("r")
	p.same("r2")
}

// TestTriggersOfTheApplication fire on the source only, and what they write counts as it came out.
func TestTriggersOfTheApplication(t *testing.T) {
	p := newPair(t)
	p.both("CREATE TABLE tr (id int PRIMARY KEY, v int)", `CREATE FUNCTION before() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id := NEW.id + 100; RETURN NEW; END $$`,
		`CREATE FUNCTION after() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF pg_trigger_depth() = 1 THEN UPDATE tr SET v = v * 2 WHERE id = NEW.id; INSERT INTO tr VALUES (NEW.id + 1, 0) ON CONFLICT DO NOTHING; END IF; RETURN NULL; END $$`,
		"CREATE TRIGGER a BEFORE INSERT ON tr FOR EACH ROW EXECUTE FUNCTION before()", "CREATE TRIGGER z AFTER INSERT ON tr FOR EACH ROW EXECUTE FUNCTION after()",
		"CREATE CONSTRAINT TRIGGER d AFTER UPDATE ON tr DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION after()")
	p.mirror("tr", "id")
	must(t, p.run("postgres", "INSERT INTO tr VALUES (1, 5)", "UPDATE tr SET v = 7 WHERE id = 101"))
	p.same("tr")
	if rows := dump(t, p.source, "tr"); rows == "" {
		t.Error("no rows")
	}
}

// TestApplicationsCannotForge: neither the tables nor the functions are theirs, and mirrors refuse direct writes.
func TestApplicationsCannotForge(t *testing.T) {
	p := newPair(t)
	p.both("CREATE TABLE f (id int PRIMARY KEY)", "CREATE ROLE forger_"+p.Name, "GRANT ALL ON f TO forger_"+p.Name)
	p.mirror("f", "id")
	must(t, p.run("forger_"+p.Name, "INSERT INTO f VALUES (1)"))
	app := p.Connect(1)
	exec(t, app, "SET ROLE forger_"+p.Name)
	secret, err := p.secrets.Of(t.Context(), cluster.Shards()[1], p.Name)
	must(t, err)
	mine, other := app.PgConn().PID(), p.copy.PgConn().PID()
	for _, statement := range []string{
		"SELECT * FROM shardyard.seal", "SELECT * FROM shardyard.mirror", "DELETE FROM shardyard.change", "SELECT shardyard.mirror_write('')",
		"SELECT shardyard.mirror_enforce(1)", "SELECT shardyard.mirror_state('m-f', '{}', true)", "SELECT shardyard.mirror_apply('', '')",
		"SELECT * FROM shardyard.mirror_drain(1, NULL)", "CREATE TRIGGER x AFTER INSERT ON f FOR EACH ROW EXECUTE FUNCTION shardyard.capture('a', 'b')",
		"SELECT shardyard.mirror_apply('', '" + Seal(secret, other, ApplyMessage("")) + "')",
		"SELECT shardyard.mirror_apply('x', '" + Seal(secret, mine, ApplyMessage("")) + "')",
	} {
		_, err := app.Exec(t.Context(), statement)
		wantState(t, err, "42501")
	}
	exec(t, app, "SELECT shardyard.mirror_apply('', '"+Seal(secret, mine, ApplyMessage(""))+"')")
	for _, statement := range []string{"INSERT INTO f VALUES (2)", "DELETE FROM f", "UPDATE f SET id = 2"} {
		_, err := app.Exec(t.Context(), statement)
		wantState(t, err, "0A000")
	}
	p.same("f")
}

// TestSweep applies what writers around the router have left.
func TestSweep(t *testing.T) {
	p := newPair(t)
	p.both("CREATE TABLE s (id int PRIMARY KEY, v text)")
	m := p.mirror("s", "id")
	sweep := func(want int) {
		t.Helper()
		n, err := Sweep(t.Context(), p.m, m, p.Dial)
		must(t, err)
		if n != want {
			t.Errorf("%d changes applied, want %d", n, want)
		}
	}
	exec(t, p.source, "INSERT INTO s SELECT i, 'v' FROM generate_series(1, 1300) i")
	exec(t, p.source, "UPDATE s SET id = -id WHERE id <= 10")
	sweep(1310)
	p.same("s")
	// A writer under way: nothing happens until it has ended.
	writer := p.Connect(0)
	exec(t, writer, "BEGIN; UPDATE s SET v = 'w' WHERE id = 20")
	exec(t, p.source, "DELETE FROM s WHERE id = 30")
	sweep(0)
	exec(t, writer, "ROLLBACK")
	sweep(1)
	p.same("s")
	// A change that a mirror refuses does not stop the others.
	exec(t, p.copy, "CREATE TABLE child (s int REFERENCES s); INSERT INTO child VALUES (40)")
	exec(t, p.source, "UPDATE s SET v = 'x' WHERE id = 39; DELETE FROM s WHERE id = 40; UPDATE s SET v = 'y' WHERE id = 41")
	n, err := Sweep(t.Context(), p.m, m, p.Dial)
	wantState(t, err, "23503")
	if n != 2 {
		t.Errorf("%d changes applied", n)
	}
	exec(t, p.copy, "DROP TABLE child")
	sweep(1)
	p.same("s")
	exec(t, p.source, "TRUNCATE s; INSERT INTO s VALUES (1, 'again'), (2, NULL)")
	sweep(3)
	p.same("s")
	sweep(0)
}

// TestTruncatedDuringSweep: a truncation that comes when a sweep has looked already is repeated too.
func TestTruncatedDuringSweep(t *testing.T) {
	p := newPair(t)
	p.both("CREATE TABLE s (id int PRIMARY KEY, v text)")
	m := p.mirror("s", "id")
	exec(t, p.source, "INSERT INTO s VALUES (1, 'a'), (2, 'b')")
	_, err := Sweep(t.Context(), p.m, m, p.Dial)
	must(t, err)
	exec(t, p.source, "INSERT INTO s VALUES (4, 'e')")
	_, err = Sweep(t.Context(), p.m, m, func(ctx context.Context, shard directory.Shard, database string) (*pgx.Conn, error) {
		if shard.ID != m.Authority {
			exec(t, p.source, "UPDATE s SET v = 'c' WHERE id = 2; TRUNCATE s; INSERT INTO s VALUES (3, 'd')")
		}
		return p.Dial(ctx, shard, database)
	})
	must(t, err)
	p.same("s")
	n, err := Sweep(t.Context(), p.m, m, p.Dial)
	must(t, err)
	if n != 0 {
		t.Errorf("%d changes were left", n)
	}
}
