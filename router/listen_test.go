package router_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/shardyard/shardyard/internal/node"
)

func listenComparisons() []comparison {
	steps := func(s ...[]pgproto3.FrontendMessage) [][]pgproto3.FrontendMessage { return s }
	channels := q("SELECT * FROM pg_listening_channels() ORDER BY 1")
	return []comparison{
		{"listen", steps(
			q("NOTIFY a"), q("LISTEN a"), q("NOTIFY a"), q("NOTIFY a, 'x'"), q("SELECT pg_notify('a', 'y')"), q("NOTIFY b"), q("LISTEN a"), q("NOTIFY a, '1'"),
			q("NOTIFY a, '1'; NOTIFY a, '1'; NOTIFY a, '2'; SELECT 1"), q("NOTIFY a, '1'; SELECT 1/0"),
			q(`LISTEN "A b""c"`), q(`NOTIFY "A b""c", 'quoted'`), q("NOTIFY A"), channels, q("SELECT pg_listening_channels() AS c ORDER BY c"),
			q("SELECT count(*) FROM pg_listening_channels() AS x(y)"),
			q("UNLISTEN nix"), q("UNLISTEN a"), q("NOTIFY a"), channels, q("UNLISTEN *"), q(`NOTIFY "A b""c"`), channels, q("UNLISTEN *"),
			q("SELECT pg_notify('', 'x')"), q("SELECT pg_notify(NULL, 'x')"), q("SELECT pg_notify('a', repeat('x', 8000))"), q("SELECT pg_notify(repeat('a', 64), 'x')"),
			q("LISTEN ü"), q("NOTIFY ü, 'äöü€'"), q("SELECT pg_notify('ü', repeat('ä', 3000))"), q("DISCARD ALL"), q("NOTIFY ü, 'x'"), channels,
		)},
		{"listen in transactions", steps(
			q("LISTEN a"), q("BEGIN"), q("NOTIFY a, '1'"), q("SELECT 1"), q("NOTIFY a, '2'"), q("NOTIFY a, '1'"), q("COMMIT"),
			q("BEGIN"), q("NOTIFY a, '1'"), q("ROLLBACK"), q("BEGIN"), q("NOTIFY a, '1'"), q("SELECT 1/0"), q("COMMIT"), q("SELECT 1"),
			q("BEGIN"), q("LISTEN b"), q("NOTIFY b, 'own'"), q("COMMIT"), q("NOTIFY b"),
			q("BEGIN"), q("LISTEN c"), q("ROLLBACK"), q("NOTIFY c"), q("BEGIN; LISTEN c; SELECT 1/0"), q("ROLLBACK"), q("NOTIFY c"),
			q("BEGIN"), q("UNLISTEN a"), q("NOTIFY a, 'not heard'"), q("COMMIT"), q("NOTIFY a"), q("BEGIN; UNLISTEN *; ROLLBACK"), q("NOTIFY b"),
			q("BEGIN"), q("LISTEN d"), q("SAVEPOINT s"), q("LISTEN e"), q("UNLISTEN b"), q("NOTIFY b, 'gone'"), q("ROLLBACK TO s"), q("LISTEN f"), q("RELEASE s"), q("COMMIT"),
			q("NOTIFY b"), q("NOTIFY d"), q("NOTIFY e"), q("NOTIFY f"), channels,
			q("BEGIN; SAVEPOINT s; NOTIFY d, 'undone'; ROLLBACK TO s; NOTIFY d, 'kept'; COMMIT"),
			q("BEGIN; NOTIFY d; COMMIT AND CHAIN"), q("NOTIFY f"), q("COMMIT"),
			q("BEGIN READ ONLY; LISTEN g; NOTIFY g; COMMIT"), q("BEGIN ISOLATION LEVEL REPEATABLE READ; NOTIFY g; COMMIT"),
			q("LISTEN h; SELECT 1/0"), q("NOTIFY h"), q("LISTEN h; NOTIFY h; SELECT 1"), q("UNLISTEN h; LISTEN h; NOTIFY h"),
			q("BEGIN"), q("DISCARD ALL"), q("ROLLBACK"), q("NOTIFY h"),
		)},
		{"listen in pipelines", steps(
			batch(extended("LISTEN a"), extended("NOTIFY a, '1'"), sync), batch(extended("NOTIFY a, '2'"), extended("SELECT 1"), extended("NOTIFY a, '2'"), sync),
			batch(extended("LISTEN b"), extended("SELECT 1/0"), sync), q("NOTIFY b"),
			batch(extended("SELECT pg_notify($1, $2)", "a", "parameter"), sync), batch(extended("SELECT pg_notify('a', 'gone')"), extended("SELECT 1/0"), sync), q("SELECT 1"),
			batch(extended("BEGIN"), extended("LISTEN b"), extended("NOTIFY b"), extended("COMMIT"), sync), batch(extended("NOTIFY b"), query("SELECT 1")), []pgproto3.FrontendMessage{sync},
			batch(extended("LISTEN c"), query("NOTIFY c")), []pgproto3.FrontendMessage{sync}, q("NOTIFY c"),
			batch(parse("l", "LISTEN d"), describe('S', "l"), bind("", "l"), describe('P', ""), execute("", 0), sync), q("NOTIFY d"),
			batch(parse("n", "NOTIFY d, 'again'"), bind("", "n"), execute("", 0), sync), batch(bind("", "n"), execute("", 0), bind("", "n"), execute("", 0), sync),
			batch(extended("UNLISTEN *"), sync), q("NOTIFY d"), batch(extended("SELECT * FROM pg_listening_channels()"), sync),
			q("PREPARE p AS SELECT pg_notify('d', 'prepared')"), q("LISTEN d"), q("EXECUTE p"), batch(extended("EXECUTE p"), sync),
		)},
		{"notify from functions", steps(
			q("LISTEN a"), q("DO $$BEGIN PERFORM pg_notify('a', 'do'); END$$"), q("DO $$BEGIN NOTIFY a, 'do'; END$$"),
			q("BEGIN; DO $$BEGIN NOTIFY a, 'do'; END$$; ROLLBACK"), q("INSERT INTO told VALUES (1)"), q("BEGIN; INSERT INTO told VALUES (2); ROLLBACK"),
			batch(extended("INSERT INTO told VALUES ($1)", "3"), sync), q("UNLISTEN *"), q("INSERT INTO told VALUES (4)"),
		)},
	}
}

const toldTable = `CREATE TABLE told (id int);
	CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_notify(''a'', NEW.id::text); RETURN NULL; END';
	CREATE TRIGGER tell AFTER INSERT ON told FOR EACH ROW EXECUTE FUNCTION tell()`

// What one session listens for and sends itself comes as from a plain Postgres, and in the same place.
func TestListenAsPlainPostgres(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		conn := shop(t, b)
		mustSimple(t, conn, toldTable)
		plain := plainShop(t)
		direct(t, 0, plain, toldTable)
		compareWith(t, b, plain, listenComparisons())
	})
}

// expect reads the next answer.
func (s *script) expect(want string) {
	s.t.Helper()
	if got := s.answers(1); got != want {
		s.t.Fatalf("got %s, want %s", got, want)
	}
}

// pidOfNext reads a notification and returns its process id.
func (s *script) pidOfNext() uint32 {
	s.t.Helper()
	n, ok := s.next().(*pgproto3.NotificationResponse)
	if !ok {
		s.t.Fatal("not a notification")
	}
	return n.PID
}

// What a session has sent is there when it has its answer: who listens through the same router and asks then gets it with the answer.
func TestNotificationsBeforeTheNextAnswer(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		conn := shop(t, b)
		mustSimple(t, conn, toldTable)
		mustSimple(t, conn, "CREATE TABLE spread (id int)")
		mustSimple(t, conn, "SHARD TABLE spread BY HASH (id)")
		mustSimple(t, conn, "CREATE TRIGGER tell AFTER INSERT ON spread FOR EACH ROW EXECUTE FUNCTION tell()")
		listener, sender := b.script(0), b.script(0)
		listener.want("done:LISTEN ready:I", query("LISTEN a"))
		for i := range 20 {
			for _, step := range [][]pgproto3.FrontendMessage{
				q(fmt.Sprintf("NOTIFY a, '%d'", i)), q(fmt.Sprintf("INSERT INTO told VALUES (%d)", i)), q(fmt.Sprintf("INSERT INTO spread VALUES (%d)", i)),
				batch(extended("SELECT pg_notify('a', $1)", fmt.Sprint(i)), sync), q(fmt.Sprintf("BEGIN; DO $$BEGIN NOTIFY a, '%d'; END$$; COMMIT", i)),
			} {
				if got := sender.play(step...); strings.Contains(got, "error") {
					t.Fatal(got)
				}
				if got, want := listener.play(query("SELECT 1")), fmt.Sprintf("notify:a:%d", i); !strings.Contains(got, want) {
					t.Fatalf("%v: got %q, want %s", step, got, want)
				}
			}
		}
	})
}

// Notifications of others reach a client that does nothing, those that came in a transaction after it.
func TestNotificationsOfOthers(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		shop(t, b)
		idle, other, sender := b.script(0), b.script(0), b.script(0)
		idle.want("done:LISTEN ready:I", query("LISTEN a"))
		other.want("done:LISTEN done:LISTEN ready:I", query("LISTEN a; LISTEN b"))
		for i := range 20 {
			sender.want("done:NOTIFY ready:I", query(fmt.Sprintf("NOTIFY a, '%d'", i)))
			idle.expect(fmt.Sprintf("notify:a:%d", i))
			other.expect(fmt.Sprintf("notify:a:%d", i))
		}
		// Whose they are, though all share server connections.
		sender.want("done:NOTIFY ready:I", query("NOTIFY a"))
		if pid := idle.pidOfNext(); pid != sender.key.ProcessID {
			t.Errorf("the notification is from %d, want %d", pid, sender.key.ProcessID)
		}
		other.expect("notify:a:")
		other.want("done:NOTIFY notify:a: ready:I", query("NOTIFY a"))
		if pid := idle.pidOfNext(); pid != other.key.ProcessID {
			t.Errorf("the notification is from %d, want %d", pid, other.key.ProcessID)
		}
		// In a transaction they wait.
		idle.want("done:BEGIN ready:T", query("BEGIN"))
		sender.want("done:NOTIFY ready:I", query("NOTIFY a, 'later'"))
		other.expect("notify:a:later")
		idle.want("columns:1 row:1 done:SELECT_1 ready:T", query("SELECT 1"))
		idle.want("done:COMMIT notify:a:later ready:I", query("COMMIT"))
		// One that came in the transaction in which its channel is given up does not come.
		other.want("done:BEGIN ready:T", query("BEGIN"))
		sender.want("done:NOTIFY ready:I", query("NOTIFY a, 'too late'"))
		idle.expect("notify:a:too late")
		other.want("done:UNLISTEN ready:T", query("UNLISTEN a"))
		other.want("done:COMMIT ready:I", query("COMMIT"))
		// From around the router, many and long ones.
		go direct(t, 0, b.database, "SELECT pg_notify('b', i || repeat('x', 7000)) FROM generate_series(1, 300) i")
		for i := 1; i <= 300; i++ {
			other.expect(fmt.Sprintf("notify:b:%d%s", i, strings.Repeat("x", 7000)))
		}
		idle.want("columns:1 row:1 done:SELECT_1 ready:I", query("SELECT 1"))
	}, func(c *node.Config) { c.Pools.PoolSize = 2 })
}

// A trigger of a sharded table notifies on the shard of the row, whenever that came to hold the table; a transaction of
// several shards notifies when it is committed.
func TestNotificationsOfShards(t *testing.T) {
	t.Parallel()
	b := newBed(t, 2)
	listener := b.script(1)
	listener.want("done:LISTEN done:LISTEN ready:I", query("LISTEN a; LISTEN own"))
	conn := shop(t, b)
	mustSimple(t, conn, strings.ReplaceAll(toldTable, "(id int)", "(id int PRIMARY KEY)"))
	mustSimple(t, conn, "SHARD TABLE told BY HASH (id) PARTITIONS 6")
	b.await("the second router to know the table", func() bool {
		return strings.Contains(listener.play(query("SHOW TABLES")), "told")
	})
	for i := range 12 {
		mustSimple(t, conn, fmt.Sprintf("INSERT INTO told VALUES (%d)", i))
		listener.expect(fmt.Sprintf("notify:a:%d", i))
	}
	ids := itemOnEach(t, b)
	write := func() {
		mustSimple(t, conn, "BEGIN")
		for _, id := range ids {
			mustSimple(t, conn, fmt.Sprintf("UPDATE items SET name = 'told' WHERE id = %d", id))
		}
		mustSimple(t, conn, "NOTIFY own, 'several'")
		mustSimple(t, conn, "SELECT pg_notify('own', 'function')")
	}
	write()
	mustSimple(t, conn, "ROLLBACK")
	write()
	mustSimple(t, conn, "COMMIT")
	listener.expect("notify:own:several")
	listener.expect("notify:own:function")
	mustSimple(t, conn, "NOTIFY own, 'end'")
	listener.expect("notify:own:end")
	nothingPrepared(t, b)
}

// When the connection that hears is lost, who listens is told, and nobody else; in a transaction when it has ended.
func TestLostNotifications(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		shop(t, b)
		idle, busy, deaf := b.script(0), b.script(0), b.script(0)
		idle.want("done:LISTEN ready:I", query("LISTEN a"))
		busy.want("done:LISTEN ready:I", query("LISTEN a"))
		busy.want("done:BEGIN ready:T", query("BEGIN"))
		deaf.want("done:LISTEN done:UNLISTEN ready:I", query("LISTEN a; UNLISTEN a"))
		direct(t, 0, b.database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND (query LIKE 'LISTEN%' OR query = '') AND pid <> pg_backend_pid()")
		idle.expect("error:08006")
		busy.want("done:INSERT_0_1 ready:T", query("INSERT INTO plain VALUES (77, 1)"))
		busy.want("done:COMMIT ready:I", query("COMMIT"))
		busy.expect("error:08006")
		deaf.want("columns:1 row:1 done:SELECT_1 ready:I", query("SELECT count(*) FROM plain WHERE id = 77"))
		deaf.want("done:LISTEN done:NOTIFY notify:a: ready:I", query("LISTEN a; NOTIFY a"))
	})
}
