package router_test

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// plainScript is a session on a plain Postgres that has the tables of shop, none of them sharded.
func plainScript(t *testing.T, database string) *script { return shardScript(t, 0, database) }

// shardScript is a session on a shard, around the router.
func shardScript(t *testing.T, shard int, database string) *script {
	t.Helper()
	cfg, err := pgx.ParseConfig(cluster.ConnString(shard, database))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		t.Fatal(err)
	}
	s := &script{t: t, conn: conn, Frontend: pgproto3.NewFrontend(conn, conn)}
	s.Send(&pgproto3.StartupMessage{
		ProtocolVersion: pgproto3.ProtocolVersionNumber,
		Parameters:      map[string]string{"user": "postgres", "database": database},
	})
	for {
		switch m := s.next().(type) {
		case *pgproto3.ReadyForQuery:
			return s
		case *pgproto3.ErrorResponse:
			t.Fatalf("start-up: %s", m.Message)
		}
	}
}

// plainShop makes the tables of shop in a database of its own on one server.
func plainShop(t *testing.T) (database string) {
	t.Helper()
	database = cluster.NewDatabase(t).Name
	for _, sql := range []string{
		"CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')",
		"CREATE TABLE items (id int PRIMARY KEY, name text, feel mood, feels mood[])",
		"INSERT INTO items SELECT i, 'n' || i, 'ok', '{sad,happy}' FROM generate_series(0, 9) i",
		"CREATE TABLE plain (id int PRIMARY KEY, item int)",
		"INSERT INTO plain SELECT i, i FROM generate_series(0, 9) i",
	} {
		direct(t, 0, database, sql)
	}
	return database
}

// extended is a statement in the extended protocol without its Sync.
func extended(sql string, values ...string) []pgproto3.FrontendMessage {
	return []pgproto3.FrontendMessage{parse("", sql), bind("", "", values...), execute("", 0)}
}

// batch joins messages.
func batch(parts ...any) (messages []pgproto3.FrontendMessage) {
	for _, p := range parts {
		switch p := p.(type) {
		case pgproto3.FrontendMessage:
			messages = append(messages, p)
		case []pgproto3.FrontendMessage:
			messages = append(messages, p...)
		}
	}
	return messages
}

// comparison is a conversation that must go as on a plain Postgres: each step ends with ReadyForQuery.
type comparison struct {
	name  string
	steps [][]pgproto3.FrontendMessage
}

// q is a step of one Query message.
func q(sql string) []pgproto3.FrontendMessage { return []pgproto3.FrontendMessage{query(sql)} }

// TestAsPlainPostgres plays conversations to the router and to a plain Postgres.
func TestAsPlainPostgres(t *testing.T) {
	t.Parallel()
	asPlainPostgres(t, comparisons())
}

func asPlainPostgres(t *testing.T, conversations []comparison) {
	eachMode(t, func(t *testing.T, b *bed) {
		shop(t, b)
		compareWith(t, b, plainShop(t), conversations)
	})
}

// compareWith plays conversations to a router and to a plain database.
func compareWith(t *testing.T, b *bed, plain string, conversations []comparison) {
	for _, c := range conversations {
		t.Run(c.name, func(t *testing.T) {
			ours, theirs := b.script(0), plainScript(t, plain)
			ours.t, theirs.t = t, t
			for i, step := range c.steps {
				want := withoutStatus(theirs.play(step...))
				if got := withoutStatus(ours.play(step...)); got != want {
					t.Errorf("step %d:\n   router %s\n Postgres %s", i, got, want)
				}
			}
		})
	}
}

// withoutStatus leaves out ParameterStatus messages, which may come earlier or later.
func withoutStatus(words string) string {
	return strings.ReplaceAll(strings.ReplaceAll(words, "parameterstatus ", ""), " parameterstatus", "")
}

func comparisons() []comparison {
	count := q("SELECT count(*) FROM plain")
	steps := func(s ...[]pgproto3.FrontendMessage) [][]pgproto3.FrontendMessage { return s }
	return []comparison{
		{"implicit transaction of a Query", steps(
			q("INSERT INTO plain VALUES (100, 1); SELECT 1/0"), count,
			q("INSERT INTO plain VALUES (100, 1); SELECT name FROM items WHERE id = 1; SELECT 1/0"), count,
			q("INSERT INTO plain VALUES (100, 1); SELECT nix"), count,
			q("INSERT INTO plain VALUES (100, 1); SELEC"), count,
			q("INSERT INTO plain VALUES (100, 1); COMMIT; INSERT INTO plain VALUES (101, 1); SELECT 1/0"), count,
			q("DELETE FROM plain WHERE id >= 100; ROLLBACK"), count,
			q("DELETE FROM plain WHERE id >= 100; ROLLBACK; SELECT 1"), count,
			q("BEGIN; DELETE FROM plain WHERE id >= 100; COMMIT; BEGIN"), count, q("ROLLBACK"),
			q("INSERT INTO plain VALUES (100, 1); BEGIN; INSERT INTO plain VALUES (101, 1)"), count, q("ROLLBACK"), count,
			q("SELECT 1; SAVEPOINT s"), q("SAVEPOINT s; SELECT 1"), q("ROLLBACK TO s"), q("RELEASE s"),
			q("SELECT 1; COMMIT AND CHAIN"), q("COMMIT AND CHAIN"), q("ROLLBACK"),
			q("SET TRANSACTION READ ONLY; INSERT INTO plain VALUES (300, 1)"), count,
			q("SELECT 1; SET LOCAL work_mem = '1MB'; SHOW work_mem"), q("SHOW work_mem"),
			q("SELECT 1; SET work_mem = '2MB'; SELECT 1/0"), q("SHOW work_mem"),
			q(";"), q(""), q(";;SELECT 1;;"), q("SELECT 1; ; SELECT 2"), q("/* c */"), q("-- c"),
		)},
		{"settings in pipelines", steps(
			batch(extended("SET work_mem = '2MB'"), extended("SELECT 1/0"), sync), q("SHOW work_mem"),
			batch(extended("SELECT set_config('work_mem', '2MB', false)"), extended("SELECT 1/0"), sync), q("SHOW work_mem"),
			batch(extended("SET work_mem = '2MB'"), extended("SHOW work_mem"), sync), q("SHOW work_mem"),
			batch(extended("RESET work_mem"), extended("SHOW work_mem"), extended("SELECT 1/0"), sync), q("SHOW work_mem"),
			batch(extended("SET app.tenant = 'a'"), extended("SELECT 1/0"), sync), q("SELECT current_setting('app.tenant', true)"),
			batch(extended("SET search_path = pg_catalog"), extended("SELECT nix"), sync), q("SHOW search_path"),
			batch(extended("SET application_name = 'x'"), extended("SELECT 1/0"), sync), q("SHOW application_name"),
			batch(extended("RESET ALL"), extended("SHOW work_mem"), extended("SELECT 1/0"), sync), q("SHOW work_mem"),
			q("DISCARD ALL"), q("SHOW work_mem"),
		)},
		{"settings in transactions", steps(
			q("BEGIN"), q("SET work_mem = '2MB'"), q("SAVEPOINT a"), q("SET work_mem = '3MB'"), q("SHOW work_mem"),
			q("ROLLBACK TO a"), q("SHOW work_mem"), q("SET LOCAL work_mem = '4MB'"), q("SHOW work_mem"), q("RELEASE a"), q("SHOW work_mem"),
			q("COMMIT"), q("SHOW work_mem"), q("BEGIN"), q("RESET work_mem"), q("SHOW work_mem"), q("ROLLBACK"), q("SHOW work_mem"),
			q("BEGIN"), q("SET LOCAL work_mem TO DEFAULT"), q("SHOW work_mem"), q("COMMIT"), q("SHOW work_mem"),
			q("BEGIN"), q("SELECT set_config('work_mem', '5MB', true)"), q("SHOW work_mem"), q("SELECT name FROM items WHERE id = 1"), q("SHOW work_mem"), q("COMMIT"), q("SHOW work_mem"),
			q("SET LOCAL work_mem = '9MB'"), q("SHOW work_mem"), q("SET nix = 1"), q("SET work_mem = 'a'"), q("SHOW nix"), q("RESET nix"),
			q("BEGIN"), q("RESET ALL"), q("SHOW work_mem"), q("ROLLBACK"), q("SHOW work_mem"),
			q("SET TIME ZONE 'Europe/Berlin'"), q("SHOW TimeZone"), q("RESET TimeZone"), q("BEGIN"), q("DISCARD ALL"), q("ROLLBACK"), q("DISCARD ALL"), q("SHOW work_mem"),
			q("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"), q("INSERT INTO plain VALUES (400, 1)"), q("SET default_transaction_read_only = off"),
			q("SET transaction_read_only = on"), q("BEGIN; SET transaction_read_only = on"), q("INSERT INTO plain VALUES (400, 1)"), q("ROLLBACK"),
			q("BEGIN; SHOW transaction_isolation; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SHOW transaction_isolation; COMMIT"),
			q("BEGIN; SELECT 1; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"), q("ROLLBACK"),
		)},
		{"failed transactions", steps(
			q("BEGIN"), q("SELECT nix"), q("SELECT 1"), q("SET work_mem = '1MB'"), q("SHOW work_mem"), q("SHOW application_name"), q("BEGIN"), q("SAVEPOINT s"), q("SELEC"), q(""), q("ROLLBACK TO nix"), q("COMMIT"),
			q("BEGIN"), q("SAVEPOINT s"), q("SELECT nix"), q("ROLLBACK TO s"), q("SELECT 1"), q("RELEASE s"), q("ROLLBACK TO s"), q("COMMIT"),
			q("BEGIN"), q("SELECT nix"), q("ROLLBACK AND CHAIN"), q("SELECT 1"), q("COMMIT AND CHAIN"), q("SELECT 1"), q("COMMIT"),
			q("COMMIT"), q("ROLLBACK"), q("BEGIN"), q("BEGIN"), q("COMMIT"), q("PREPARE p AS SELECT 1"), q("BEGIN"), q("SELECT nix"), q("EXECUTE p"), q("DEALLOCATE p"), q("PREPARE x AS SELECT 2"), q("DISCARD ALL"), q("ROLLBACK"), q("EXECUTE p"),
			q("BEGIN"), batch(extended("SELECT nix"), sync), batch(parse("a", "SELECT 1"), sync), batch(bind("", "p"), sync), batch(parse("a", "ROLLBACK"), bind("", "a"), execute("", 0), sync),
			q("DEALLOCATE ALL"), q("DEALLOCATE nix"), q("EXECUTE nix"), q("CLOSE nix"), q("FETCH nix"), q("CLOSE ALL"),
		)},
		{"pipelines", steps(
			batch(extended("INSERT INTO plain VALUES (200, 1)"), extended("SELECT 1/0"), extended("SELECT 1"), sync), count,
			batch(extended("INSERT INTO plain VALUES (200, 1)"), bind("", "nix"), execute("", 0), sync), count,
			batch(extended("INSERT INTO plain VALUES (200, 1)"), execute("nix", 0), sync), count,
			batch(extended("INSERT INTO plain VALUES (200, 1)"), describe('P', "nix"), sync), count,
			batch(extended("INSERT INTO plain VALUES (200, 1)"), describe('S', "nix"), sync), count,
			batch(extended("INSERT INTO plain VALUES (200, 1)"), extended("COMMIT"), extended("SELECT 1/0"), sync), count,
			q("DELETE FROM plain WHERE id = 200"),
			batch(extended("INSERT INTO plain VALUES (200, 1)"), extended("ROLLBACK"), extended("SELECT 1"), sync), count,
			batch(extended("BEGIN"), extended("INSERT INTO plain VALUES (200, 1)"), extended("SELECT 1/0"), extended("COMMIT"), sync), count, q("ROLLBACK"), count,
			batch(extended("BEGIN"), extended("INSERT INTO plain VALUES (200, 1)"), extended("SAVEPOINT a"), extended("SELECT 1/0"), sync),
			batch(extended("ROLLBACK TO a"), extended("COMMIT"), extended("SELECT count(*) FROM plain"), sync), q("DELETE FROM plain WHERE id = 200"),
			batch(extended("INSERT INTO plain VALUES (200, 1)"), query("SELECT 1")), q("SELECT 2"), []pgproto3.FrontendMessage{sync}, count, q("DELETE FROM plain WHERE id = 200"),
			batch(extended("SAVEPOINT a"), sync), batch(extended("SELECT 1"), extended("SAVEPOINT a"), sync),
			batch(sync), batch(&pgproto3.Flush{}, sync),
			batch(parse("two", "SELECT $1::int + $2::int"), bind("", "two", "1"), execute("", 0), sync),
			batch(bind("", "two", "1", "2"), execute("", 0), sync),
			batch(bind("", "two", "1", "2", "3"), execute("", 0), sync), batch(bind("", "two", "a", "3"), execute("", 0), sync),
			batch(&pgproto3.Bind{PreparedStatement: "two", Parameters: [][]byte{[]byte("1"), []byte("2")}, ParameterFormatCodes: []int16{0, 0, 0}}, sync),
			batch(&pgproto3.Bind{PreparedStatement: "two", Parameters: [][]byte{[]byte("1"), []byte("2")}, ParameterFormatCodes: []int16{7}}, sync),
			batch(&pgproto3.Bind{PreparedStatement: "two", Parameters: [][]byte{[]byte("1"), []byte("2")}, ResultFormatCodes: []int16{0, 1}}, execute("", 0), sync),
			batch(&pgproto3.Bind{PreparedStatement: "two", Parameters: [][]byte{[]byte("1"), []byte("2")}, ResultFormatCodes: []int16{9}}, execute("", 0), sync),
			batch(&pgproto3.Bind{PreparedStatement: "two", Parameters: [][]byte{[]byte("1"), []byte("2")}, ParameterFormatCodes: []int16{1}}, execute("", 0), sync),
			batch(parse("key", "SELECT name FROM items WHERE id = $1"), bind("", "key"), execute("", 0), sync),
			batch(parse("key", "SELECT name FROM items WHERE id = $1"), sync), batch(bind("", "key", "1", "2"), execute("", 0), sync), batch(bind("", "key"), execute("", 0), sync),
			batch(parse("key", "SELECT name FROM items WHERE id = $1"), sync),
			batch(&pgproto3.Bind{PreparedStatement: "key", Parameters: [][]byte{[]byte("1")}, ParameterFormatCodes: []int16{1}}, execute("", 0), sync),
			batch(&pgproto3.Bind{PreparedStatement: "key", Parameters: [][]byte{[]byte("1")}, ParameterFormatCodes: []int16{3}}, execute("", 0), sync),
			batch(&pgproto3.Bind{PreparedStatement: "key", Parameters: [][]byte{[]byte("1")}, ParameterFormatCodes: []int16{0, 0}}, execute("", 0), sync),
			batch(&pgproto3.Bind{PreparedStatement: "key", Parameters: [][]byte{{0, 0, 0, 1}}, ParameterFormatCodes: []int16{1}}, execute("", 0), sync),
			batch(&pgproto3.Bind{PreparedStatement: "key", Parameters: [][]byte{nil}}, execute("", 0), sync),
			batch(bind("", "key", "abc"), execute("", 0), sync), batch(bind("", "key", "99999999999"), execute("", 0), sync), batch(bind("", "key", " 1 "), execute("", 0), sync),
			batch(parse("all", "SELECT id FROM items ORDER BY id"), bind("", "all", "1"), execute("", 0), sync),
			batch(parse("scat", "SELECT id FROM items WHERE id > $1 ORDER BY id"), bind("", "scat"), execute("", 0), sync),
			batch(parse("scat", "SELECT id FROM items WHERE id > $1 ORDER BY id"), sync), batch(bind("", "scat", "5", "6"), execute("", 0), sync), batch(bind("", "scat", "7"), execute("", 0), sync),
			batch(bind("", "scat", "x"), execute("", 0), sync), batch(bind("", "scat", "1"), execute("", 4), execute("", 4), execute("", 4), execute("", 4), sync),
		)},
		{"portals", steps(
			q("BEGIN"),
			batch(parse("", "SELECT id FROM items ORDER BY id LIMIT 3"), bind("a", ""), execute("a", 3), execute("a", 3), execute("a", 0), sync),
			batch(parse("", "SELECT id FROM items ORDER BY id"), bind("b", ""), execute("b", 10), execute("b", 10), execute("b", 1), sync),
			batch(parse("", "SELECT id FROM items WHERE id = 1"), bind("c", ""), execute("c", 1), execute("c", 1), execute("c", 1), sync),
			batch(parse("", "SELECT id FROM items WHERE id > 100 ORDER BY id"), bind("d", ""), execute("d", 1), execute("d", 1), sync),
			batch(parse("", "SELECT id FROM items LIMIT 0"), bind("f", ""), execute("f", 1), execute("f", 0), sync),
			batch(bind("a", ""), sync), q("ROLLBACK"), batch(execute("a", 1), sync),
			batch(parse("s", "SELECT id FROM items ORDER BY id"), bind("a", "s"), execute("a", 2), sync), batch(execute("a", 2), sync),
			batch(bind("a", "s"), &pgproto3.Close{ObjectType: 'S', Name: "s"}, execute("a", 2), sync),
			q("BEGIN"), q("SAVEPOINT x"), batch(parse("s", "SELECT id FROM items ORDER BY id"), bind("a", "s"), execute("a", 2), sync), q("ROLLBACK TO x"), batch(execute("a", 2), sync),
			q("ROLLBACK TO x"), batch(bind("a", "s"), execute("a", 1), sync), q("ROLLBACK"),
			q("BEGIN"), q("SAVEPOINT x"), batch(parse("t", "SELECT id FROM plain ORDER BY id"), bind("a", "t"), execute("a", 2), sync), q("ROLLBACK TO x"), batch(execute("a", 2), sync),
			q("ROLLBACK TO x"), batch(bind("a", "t"), execute("a", 1), sync), q("ROLLBACK"),
			batch(parse("sh", "SHOW application_name"), bind("", "sh"), describe('P', ""), execute("", 1), execute("", 1), sync),
			batch(parse("ins", "INSERT INTO plain VALUES (600, 1), (601, 1) RETURNING id"), bind("", "ins"), execute("", 1), sync), count, q("DELETE FROM plain WHERE id >= 600"),
			batch(parse("be", "BEGIN"), bind("", "be"), execute("", 0), execute("", 0), sync), q("ROLLBACK"),
			batch(bind("", "ins"), execute("", 0), execute("", 0), sync), q("DELETE FROM plain WHERE id >= 600"),
			q("BEGIN; DECLARE c CURSOR FOR SELECT id FROM plain ORDER BY id"), q("FETCH 2 FROM c"), batch(describe('P', "c"), execute("c", 2), sync), q("MOVE 1 IN c"), q("FETCH BACKWARD 1 FROM c"), q("CLOSE c"), q("FETCH c"), q("ROLLBACK"),
		)},
	}
}
