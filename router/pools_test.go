package router_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/console"
)

// consoleOf connects to the admin database.
func (b *bed) consoleOf(user string) *pgx.Conn {
	b.t.Helper()
	return b.connect(0, func(c *pgx.ConnConfig) { c.Database, c.User = console.Database, user })
}

// shown runs a SHOW command in the extended protocol and returns its rows by column.
func shown(t *testing.T, conn *pgx.Conn, command string) []map[string]any {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	rows, err := conn.Query(ctx, command)
	if err == nil {
		var list []map[string]any
		if list, err = pgx.CollectRows(rows, pgx.RowToMap); err == nil {
			return list
		}
	}
	t.Fatalf("%s: %v", command, err)
	return nil
}

// of chooses the rows that have these values.
func of(rows []map[string]any, values map[string]any) []map[string]any {
	return slices.DeleteFunc(slices.Clone(rows), func(row map[string]any) bool {
		for name, value := range values {
			if row[name] != value {
				return true
			}
		}
		return false
	})
}

func withAdmins(c *node.Config) {
	c.Router.AdminUsers, c.Router.StatsUsers = []string{"postgres"}, []string{"pools_looker"}
}

func TestAdminDatabase(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		client := b.connect(0, func(c *pgx.ConnConfig) { c.RuntimeParams["application_name"] = "till" })
		idle := b.connect(0)
		mustSimple(t, client, "BEGIN; SELECT 1")
		admin := b.consoleOf("postgres")

		clients := of(shown(t, admin, "SHOW CLIENTS"), map[string]any{"database": b.database})
		busy := of(clients, map[string]any{"state": "active", "application_name": "till", "shard": "s1"})
		if len(clients) != 2 || len(busy) != 1 || len(of(clients, map[string]any{"state": "idle", "link": "", "shard": ""})) != 1 {
			t.Fatalf("clients: %v", clients)
		}
		servers := of(shown(t, admin, "SHOW SERVERS"), map[string]any{"state": "active", "link": busy[0]["ptr"], "ptr": busy[0]["link"], "database": b.database})
		if len(servers) != 1 {
			t.Fatalf("servers: %v", servers)
		}
		expect(t, client, "SELECT pg_backend_pid()", fmt.Sprint(servers[0]["remote_pid"], "\nSELECT 1"))
		// Both clients count on the home shard: one has its connection, the other has none anywhere.
		pools := of(shown(t, admin, "SHOW POOLS"), map[string]any{"database": b.database, "user": "postgres", "shard": "s1"})
		if len(pools) != 1 || pools[0]["cl_active"] != int32(2) || pools[0]["sv_active"] != int32(1) || pools[0]["pool_mode"] != "transaction" {
			t.Fatalf("pools: %v", pools)
		}
		before := of(shown(t, admin, "SHOW STATS_TOTALS"), map[string]any{"database": b.database})[0]
		mustSimple(t, client, "COMMIT")
		mustExec(t, idle, "SELECT $1::int", 1)
		_, _ = simple(t, idle, "SELECT 1/0")
		after := of(shown(t, admin, "SHOW STATS"), map[string]any{"database": b.database})[0]
		// pgx prepares and runs: two requests. The open transaction counts when it ends.
		if after["total_query_count"].(int64)-before["query_count"].(int64) != 4 || after["total_xact_count"].(int64)-before["xact_count"].(int64) != 4 ||
			after["total_received"].(int64) <= before["bytes_received"].(int64) || after["total_sent"].(int64) <= before["bytes_sent"].(int64) ||
			after["total_client_parse_count"].(int64)-before["client_parse_count"].(int64) != 1 || after["total_bind_count"].(int64)-before["bind_count"].(int64) != 1 {
			t.Fatalf("before %v\nafter %v", before, after)
		}
		for _, command := range []string{"DATABASES", "USERS", "LISTS", "TOTALS", "STATS_AVERAGES", "STATE", "VERSION", "HELP", "CONFIG"} {
			if rows := shown(t, admin, "SHOW "+command); len(rows) == 0 && command != "CONFIG" {
				t.Fatalf("SHOW %s shows nothing", command)
			}
		}
		expect(t, admin, "SHOW VERSION; SELECT 1", "Shardyard devel\nSHOW\n1\nSELECT 1")
		expectError(t, admin, "SELECT * FROM pg_class", "42601")
		expectError(t, admin, "PAUSE", "0A000")
		expectError(t, admin, "RELOAD", "0A000")
		expectError(t, admin, "KILL_CLIENT 123456", "42704")
	}, withAdmins)
}

func TestWhoMayUseTheAdminDatabase(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1, withAdmins, func(c *node.Config) { c.Router.Clients.Total = 2 })
	direct(t, 0, "postgres", "DROP ROLE IF EXISTS pools_looker, pools_stranger; CREATE ROLE pools_looker LOGIN; CREATE ROLE pools_stranger LOGIN")
	t.Cleanup(func() { direct(t, 0, "postgres", "DROP ROLE pools_looker, pools_stranger") })
	looker := b.consoleOf("pools_looker")
	if rows := shown(t, looker, "SHOW STATE"); len(rows) == 0 {
		t.Fatal("no state")
	}
	expectError(t, looker, "RECONNECT", "42501")
	b.login("28000", "pools_stranger", "", console.Database)
	// The admin database can be reached when no other client may come in.
	one := b.connect(0)
	b.connect(0)
	b.login("53300", "postgres", "", b.database)
	admin := b.consoleOf("postgres")
	victim := of(shown(t, admin, "SHOW CLIENTS"), map[string]any{"remote_pid": int32(one.PgConn().PID())})
	if len(victim) != 1 {
		t.Fatalf("clients: %v", shown(t, admin, "SHOW CLIENTS"))
	}
	// A client is ended in the middle of its statement too.
	done := make(chan error)
	go func() {
		_, err := one.Exec(context.Background(), "SELECT pg_sleep(60)")
		done <- err
	}()
	b.await("the statement to run", func() bool {
		return len(of(shown(t, admin, "SHOW CLIENTS"), map[string]any{"id": victim[0]["id"], "state": "active"})) == 1
	})
	expect(t, admin, fmt.Sprint("KILL_CLIENT ", victim[0]["id"]), "KILL_CLIENT")
	if err := <-done; err == nil {
		t.Fatal("the statement ended well")
	}
	b.await("the client to end", func() bool {
		return len(of(shown(t, admin, "SHOW CLIENTS"), map[string]any{"id": victim[0]["id"]})) == 0
	})
	pid := mustSimple(t, b.connect(0), "SELECT pg_backend_pid()")
	expect(t, admin, "RECONNECT "+b.database, "RECONNECT")
	b.await("other server connections", func() bool {
		for _, row := range of(shown(t, admin, "SHOW SERVERS"), map[string]any{"database": b.database}) {
			if strings.HasPrefix(pid, fmt.Sprint(row["remote_pid"], "\n")) {
				return false
			}
		}
		return true
	})
}

func TestPoolsOfUsersAndDatabases(t *testing.T) {
	t.Parallel()
	reloads := []error{nil, errors.New("line 3")}
	b := newBed(t, 1, withAdmins, func(c *node.Config) {
		c.Reload = func(context.Context) error {
			err := reloads[0]
			reloads = reloads[1:]
			return err
		}
		c.Settings = func() []console.Setting { return []console.Setting{{Key: "pool.size", Value: "20"}} }
		c.Pools.Rules = []backend.LimitRule{{User: "pools_narrow", Size: 1}}
		c.Router.Clients.User = 3
	})
	direct(t, 0, "postgres", "DROP ROLE IF EXISTS pools_narrow; CREATE ROLE pools_narrow LOGIN")
	t.Cleanup(func() { direct(t, 0, "postgres", "DROP ROLE pools_narrow") })
	narrow := func(c *pgx.ConnConfig) { c.User = "pools_narrow" }
	one, two := b.connect(0, narrow), b.connect(0, narrow)
	mustSimple(t, one, "BEGIN; SELECT 1")
	done := make(chan error)
	go func() {
		_, err := two.Exec(context.Background(), "SELECT 1")
		done <- err
	}()
	admin := b.consoleOf("postgres")
	b.await("the other to wait", func() bool {
		return len(of(shown(t, admin, "SHOW POOLS"), map[string]any{"user": "pools_narrow", "cl_waiting": int32(1), "sv_active": int32(1)})) == 1 &&
			len(of(shown(t, admin, "SHOW CLIENTS"), map[string]any{"user": "pools_narrow", "state": "waiting", "shard": "s1"})) == 1
	})
	mustSimple(t, b.connect(0), "SELECT 1") // another user does not wait
	mustSimple(t, one, "COMMIT")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b.connect(0, narrow)
	b.login("53300", "pools_narrow", "", b.database)
	expect(t, admin, "RELOAD", "RELOAD")
	expectError(t, admin, "RELOAD", "F0000")
	expect(t, admin, "SHOW CONFIG", "pool.size|20||no\nSHOW")
	// What is reloaded counts for the next client.
	changed := b.Routers[0]
	if err := changed.Reload(node.Config{Pools: backend.Config{PoolSize: 4, Rules: nil}}); err != nil {
		t.Fatal(err)
	}
	b.login("", "pools_narrow", "", b.database)
	if err := changed.Reload(node.Config{Pools: backend.Config{PoolSize: -1}}); err == nil {
		t.Fatal("a faulty configuration counts")
	}
	if size := changed.State().Limits(backend.Identity{User: "pools_narrow"}).Size; size != 4 {
		t.Fatalf("size %d", size)
	}
}

func TestSessionPooling(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		other := b.connect(0)
		conn := b.connect(0)
		shard(t, conn)
		pids := func(c *pgx.Conn) string {
			return mustSimple(t, c, "SELECT pg_backend_pid()") + mustSimple(t, c, "SELECT pg_backend_pid() FROM pooled WHERE id = 3") +
				mustSimple(t, c, "SELECT id FROM pooled WHERE v < 0")
		}
		mine, others := pids(conn), pids(other)
		if mine == others {
			t.Fatal("two sessions share a connection")
		}
		mustSimple(t, conn, "CREATE TEMP TABLE mine (a int); SET work_mem = '7MB'; SELECT pg_advisory_lock(4711)")
		mustSimple(t, conn, "PREPARE p AS SELECT current_setting('work_mem')")
		for range 3 {
			if got := pids(conn); got != mine {
				t.Fatalf("the connections changed: %q, %q", got, mine)
			}
			if got := pids(other); got != others {
				t.Fatalf("the other's connections changed: %q, %q", got, others)
			}
		}
		expect(t, conn, "EXECUTE p", "7MB\nSELECT 1")
		expect(t, other, "SELECT pg_try_advisory_lock(4711)", "f\nSELECT 1")
		mustSimple(t, conn, "BEGIN; UPDATE pooled SET v = 1; COMMIT")
		expect(t, conn, "SELECT v FROM pooled WHERE id = 20", "1\nSELECT 1")

		mustSimple(t, conn, "DISCARD ALL")
		expect(t, other, "SELECT pg_try_advisory_lock(4711)", "t\nSELECT 1")
		expectError(t, conn, "SELECT * FROM mine", "42P01")
		expect(t, conn, "SELECT current_setting('work_mem') <> '7MB'", "t\nSELECT 1")
		if got := pids(conn); got != mine {
			t.Fatalf("DISCARD ALL changed the connections: %q, %q", got, mine)
		}

		// What a session leaves behind, the next one on its connection does not find.
		mustSimple(t, conn, "CREATE TEMP TABLE mine (a int); SET work_mem = '9MB'; SELECT pg_advisory_lock(4712)")
		pid := strings.SplitN(mine, "\n", 2)[0]
		if err := conn.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.await("its connection to be clean", func() bool {
			for _, c := range b.Routers[0].State().Connections {
				if fmt.Sprint(c.PID) == pid {
					return c.State == backend.ConnIdle
				}
			}
			return false
		})
		next := b.connect(0)
		expect(t, next, "SELECT pg_backend_pid() = "+pid+", to_regclass('mine') IS NULL, current_setting('work_mem') <> '9MB', pg_try_advisory_lock(4712)",
			"t|t|t|t\nSELECT 1")
		// The pool has two connections: a third session comes in, also when its greeting must be looked at again, waits and gets 53300.
		mustSimple(t, other, "CREATE TABLE later (a int)")
		third := b.connect(0)
		expectError(t, third, "SELECT 1", "53300")
		mustSimple(t, other, "DROP TABLE later; ALTER DATABASE "+b.database+" SET work_mem = '6MB'")
		b.login("53300", "postgres", "", b.database) // it would begin with other settings
		testClose(t, next)
		expect(t, third, "SELECT 1", "1\nSELECT 1")
	}, func(c *node.Config) {
		c.Pools.Mode, c.Pools.PoolSize, c.Pools.AcquireTimeout = backend.SessionMode, 2, 500*time.Millisecond
	})
}

// shard makes a table with twenty rows on all shards.
func shard(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	mustSimple(t, conn, "CREATE TABLE pooled (id int PRIMARY KEY, v int)")
	mustSimple(t, conn, "SHARD TABLE pooled BY HASH (id) PARTITIONS 6")
	mustSimple(t, conn, "INSERT INTO pooled SELECT g, 0 FROM generate_series(1, 20) g")
}

// A server connection that is lost between two statements of a session costs it one error.
func TestSessionPoolingSurvivesALostConnection(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1, func(c *node.Config) {
		c.Pools.Rules = []backend.LimitRule{{User: "postgres", Mode: backend.SessionMode}}
	})
	conn := b.connect(0)
	pid := strings.SplitN(mustSimple(t, conn, "SELECT pg_backend_pid()"), "\n", 2)[0]
	direct(t, 0, "postgres", "SELECT pg_terminate_backend("+pid+", 10000)")
	if _, err := simple(t, conn, "SELECT 1"); code(err) != "08006" && code(err) != "57P01" {
		t.Fatalf("got %v", err)
	}
	expect(t, conn, "SELECT pg_backend_pid() <> "+pid, "t\nSELECT 1")
	// One that is to be closed is exchanged where the session has nothing on it.
	pid = strings.SplitN(mustSimple(t, conn, "SELECT pg_backend_pid()"), "\n", 2)[0]
	mustSimple(t, conn, "BEGIN; SELECT 1")
	b.Routers[0].Reconnect(b.database)
	expect(t, conn, "SELECT pg_backend_pid() = "+pid, "t\nSELECT 1")
	mustSimple(t, conn, "COMMIT")
	expect(t, conn, "SELECT pg_backend_pid() <> "+pid, "t\nSELECT 1")
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1, func(c *node.Config) { c.Metrics = "127.0.0.1:0" })
	conn := b.connect(0)
	shard(t, conn)
	mustSimple(t, conn, "SELECT v FROM pooled WHERE id = 1")
	mustSimple(t, conn, "SELECT id FROM pooled WHERE v < 0")
	mustSimple(t, conn, "SET work_mem = '5MB'")
	mustSimple(t, conn, "BEGIN; UPDATE pooled SET v = v + 1; COMMIT")
	_, _ = simple(t, conn, "SELECT 1/0")
	get := func(path string) string {
		response, err := http.Get("http://" + b.Routers[0].MetricsAddr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %v, %s", path, err, response.Status)
		}
		return string(body)
	}
	if got := get("/health"); got != "ok\n" {
		t.Fatalf("got %q", got)
	}
	page := get("/metrics")
	for _, want := range []string{
		`shardyard_request_duration_seconds_count{database="` + b.database + `",kind="single"}`,
		`shardyard_request_duration_seconds_bucket{database="` + b.database + `",kind="scatter",le="0.05"}`,
		`shardyard_transaction_duration_seconds_count{database="` + b.database + `",kind="two_phase"}`,
		`shardyard_clients{database="` + b.database + `"} 1`,
		`shardyard_errors_total{class="22"} 1`, `shardyard_plans_total{result="made"} `,
		`shardyard_pool_size{database="` + b.database + `",shard="s2",user="postgres"} 20`,
		`shardyard_pool_connections{database="` + b.database + `",shard="s1",state="idle",user="postgres"}`,
		`shardyard_pool_events_total{database="` + b.database + `",event="acquired",shard="s3",user="postgres"}`,
		`shardyard_server_connect_seconds_count{shard="s1"}`, `shardyard_build_info{router="r1",version="Shardyard devel"} 1`, "go_goroutines ",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s", want)
		}
	}
	for _, never := range []string{
		`shardyard_transaction_duration_seconds_count{database="` + b.database + `",kind="two_phase"} 0`,
		`shardyard_request_duration_seconds_count{database="` + b.database + `",kind="scatter"} 0`,
	} {
		if strings.Contains(page, never) {
			t.Errorf("%s", never)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
