package backend

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

func TestSettingsSets(t *testing.T) {
	var none *Settings
	a := none.With("TimeZone", "UTC").With("work_mem", "4MB").With("app.tenant", "x")
	b := NewSettings(map[string]string{"timezone": "UTC", "work_mem": "4MB", "App.Tenant": "x"})
	if !a.Equal(b) || !b.Equal(a) || a.Equal(nil) || a.Len() != 3 {
		t.Fatalf("%+v and %+v", a, b)
	}
	if same := a.With("TIMEZONE", "UTC"); same != a {
		t.Fatal("setting what is set makes a new set")
	}
	if a.Without("absent") != a || a.Without("work_mem").Len() != 2 || a.Without("work_mem").Equal(b) {
		t.Fatal("without")
	}
	if got := a.Without("work_mem").Without("timezone").Without("app.tenant"); got != nil || !got.Equal(NewSettings(nil)) {
		t.Fatalf("got %+v", got)
	}
	if v, ok := a.Get("WORK_MEM"); !ok || v != "4MB" {
		t.Fatalf("got %q", v)
	}
	if changed := a.With("work_mem", "8MB"); changed.Equal(a) || changed.Len() != 3 {
		t.Fatalf("got %+v", changed)
	}
	names := ""
	a.All(func(name, value string) bool { names += name + "=" + value + " "; return true })
	if names != "app.tenant=x timezone=UTC work_mem=4MB " {
		t.Fatalf("got %q", names)
	}
}

func TestDifference(t *testing.T) {
	set := func(pairs ...string) *Settings {
		var s *Settings
		for i := 0; i < len(pairs); i += 2 {
			s = s.With(pairs[i], pairs[i+1])
		}
		return s
	}
	for _, tc := range []struct {
		have, want *Settings
		sql        string
	}{
		{nil, nil, ""},
		{set("a", "1"), set("a", "1"), ""},
		{nil, set("application_name", "psql"), ""},
		{nil, set("a", "1", "b", "it's"), "SELECT pg_catalog.set_config('a', '1', false), pg_catalog.set_config('b', 'it''s', false)"},
		{set("a", "1", "app.t", "2"), set("a", "3"), `RESET "app"."t"; SELECT pg_catalog.set_config('a', '3', false)`},
		{set("role", "r"), nil, "RESET ROLE"},
		{set("role", "r"), set("role", "r", "a", "1"), "RESET ROLE; SELECT pg_catalog.set_config('a', '1', false); SET ROLE 'r'"},
		{
			set("session_authorization", "u", "role", "r"), set("role", "o'x"),
			"RESET ROLE; RESET SESSION AUTHORIZATION; SET ROLE 'o''x'",
		},
		{nil, set("session_authorization", "u", "role", "r"), "SET SESSION AUTHORIZATION 'u'; SET ROLE 'r'"},
	} {
		if got := difference(tc.have, tc.want, false, true); got != tc.sql {
			t.Errorf("from %+v to %+v:\n got %s\nwant %s", tc.have, tc.want, got, tc.sql)
		}
	}
	if got := difference(nil, set("a", `\'`), false, false); got != `SELECT pg_catalog.set_config('a',  E'\\''', false)` {
		t.Errorf("non-standard strings: %s", got)
	}
}

func TestApplySettings(t *testing.T) {
	admin(t, "postgres", `DROP ROLE IF EXISTS "o'role"; CREATE ROLE "o'role"; DROP ROLE IF EXISTS other_user; CREATE ROLE other_user; GRANT "o'role" TO other_user`)
	p := newPools(t, nil)
	c := acquire(t, p, superuser)
	ctx := testContext(t)
	var none *Settings
	read := func() string {
		return one(t, c, "SELECT concat_ws('|', current_setting('TimeZone'), current_setting('search_path'), current_setting('app.tenant', true), session_user, current_user, current_setting('log_min_messages'))")
	}
	base := read()
	nasty := `it's \a "mess"; DROP TABLE x --`
	want := none.With("TimeZone", "Asia/Tokyo").With("search_path", `"$user", "my schema"`).With("app.tenant", nasty).
		With("session_authorization", "other_user").With("role", "o'role").With("log_min_messages", "error")
	for range 2 {
		if err := c.ApplySettings(ctx, want); err != nil {
			t.Fatal(err)
		}
		if got, wanted := read(), `Asia/Tokyo|"$user", "my schema"|`+nasty+`|other_user|o'role|error`; got != wanted {
			t.Fatalf("got  %s\nwant %s", got, wanted)
		}
		if c.ParameterStatus("TimeZone") != "Asia/Tokyo" {
			t.Fatalf("reported: %q", c.ParameterStatus("TimeZone"))
		}
	}
	// From under a role that may not: log_min_messages is the superuser's.
	if err := c.ApplySettings(ctx, want.With("log_min_messages", "fatal")); err != nil {
		t.Fatal(err)
	}
	if got := read(); !strings.HasSuffix(got, "|other_user|o'role|fatal") {
		t.Fatalf("got %s", got)
	}
	if err := c.ApplySettings(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if got := read(); strings.Replace(got, "||", "|", 1) != base {
		t.Fatalf("got %s, want %s", got, base)
	}
	p.Release(c)
}

// All or nothing: a set of which one is refused changes nothing, and the connection stays usable.
func TestApplySettingsRefused(t *testing.T) {
	p := newPools(t, nil)
	c := acquire(t, p, superuser)
	ctx := testContext(t)
	good := NewSettings(map[string]string{"work_mem": "5MB"})
	if err := c.ApplySettings(ctx, good); err != nil {
		t.Fatal(err)
	}
	err := c.ApplySettings(ctx, NewSettings(map[string]string{"timezone": "Nowhere/Land", "statement_timeout": "7"}))
	wantState(t, err, "22023")
	if got := one(t, c, "SELECT current_setting('work_mem') || current_setting('statement_timeout')"); got != "5MB0" || c.Settings() != good {
		t.Fatalf("got %q", got)
	}
	mustQuery(t, c, "BEGIN")
	wantState(t, c.ApplySettings(ctx, nil), "XX000")
	mustQuery(t, c, "ROLLBACK")
	p.Release(c)
}

// The pool prefers a connection that has the settings already.
func TestPoolPrefersSettings(t *testing.T) {
	p := newPools(t, nil)
	ctx := testContext(t)
	tokyo := NewSettings(map[string]string{"timezone": "Asia/Tokyo"})
	a, b := acquire(t, p, superuser), acquire(t, p, superuser)
	if err := a.ApplySettings(ctx, tokyo); err != nil {
		t.Fatal(err)
	}
	p.Release(a)
	p.Release(b)
	c, err := p.AcquireFor(ctx, shard(), superuser, 1, Wish{Settings: NewSettings(map[string]string{"timezone": "Asia/Tokyo"})})
	if err != nil || c != a {
		t.Fatalf("got the other connection (%v)", err)
	}
	p.Release(c)
	if c = acquire(t, p, superuser); c != b {
		t.Fatal("a plain session got a connection with settings")
	}
	p.Release(c)
}

// prepare runs SQL as a prepared statement, as an executor does.
func prepare(t *testing.T, c *Conn, sql string) (value string, parsed bool) {
	t.Helper()
	key := PreparedKey(sql, nil, "")
	request := c.AppendCloses(nil)
	name, ok := c.Prepared(key)
	if !ok {
		name = c.Prepare(key)
		request = wire.AppendParse(request, name, sql, nil)
	}
	request = wire.AppendBind(request, "", name, nil, nil, nil)
	request = wire.AppendExecute(request, "", 0)
	if err := c.Write(wire.AppendSync(request)); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		switch frame.Type {
		case wire.TypeParseComplete:
			c.ConfirmPrepared(key)
			parsed = true
		case wire.TypeCloseComplete:
			t.Fatal("an answer to our own Close got out")
		case wire.TypeDataRow:
			row := wire.NewRow(frame.Body)
			v, _ := row.Next()
			value = string(v)
		case wire.TypeErrorResponse:
			value = pgerr.FromShard(frame.Body).Code
		case wire.TypeReady:
			return value, parsed
		}
	}
}

func TestPreparedStatementsAreBounded(t *testing.T) {
	const limit = 5
	p := newPools(t, func(c *Config) { c.PreparedStatements = limit })
	c := acquire(t, p, superuser)
	for i := range 3 * limit {
		sql := fmt.Sprintf("SELECT %d", i)
		if v, parsed := prepare(t, c, sql); v != fmt.Sprint(i) || !parsed {
			t.Fatalf("%s: %q, parsed %v", sql, v, parsed)
		}
		if v, parsed := prepare(t, c, "SELECT 'kept'"); v != "kept" || parsed != (i == 0) {
			t.Fatalf("the one in use was evicted: %q %v", v, parsed)
		}
	}
	if _, parsed := prepare(t, c, "SELECT 14"); parsed {
		t.Fatal("a recent statement was forgotten")
	}
	p.Release(c)
	c = acquire(t, p, superuser) // its first write closes what is left
	if n := one(t, c, "SELECT count(*) FROM pg_prepared_statements"); n != fmt.Sprint(limit) {
		t.Fatalf("%s statements on the server", n)
	}
	if v, parsed := prepare(t, c, "SELECT 0"); v != "0" || !parsed {
		t.Fatalf("got %q %v", v, parsed)
	}
	p.Release(c)
}

func TestFailedPrepareIsForgotten(t *testing.T) {
	p := newPools(t, nil)
	c := acquire(t, p, superuser)
	for range 2 {
		if code, _ := prepare(t, c, "SELECT * FROM nowhere"); code != "42P01" {
			t.Fatalf("got %q", code)
		}
	}
	mustQuery(t, c, "CREATE TEMP TABLE nowhere AS SELECT 5")
	if v, parsed := prepare(t, c, "SELECT * FROM nowhere"); v != "5" || !parsed {
		t.Fatalf("got %q %v", v, parsed)
	}
	// The table changes its shape: one error, as from Postgres, then it is prepared anew.
	mustQuery(t, c, "ALTER TABLE nowhere ADD COLUMN x int")
	if v, _ := prepare(t, c, "SELECT * FROM nowhere"); v != "0A000" {
		t.Fatalf("got %q", v)
	}
	if v, parsed := prepare(t, c, "SELECT * FROM nowhere"); v != "5" || !parsed {
		t.Fatalf("got %q %v", v, parsed)
	}
	for _, sql := range []string{"DEALLOCATE ALL", "DISCARD ALL"} {
		prepare(t, c, "SELECT 1")
		mustQuery(t, c, sql)
		if v, parsed := prepare(t, c, "SELECT 1"); v != "1" || !parsed {
			t.Fatalf("after %s: %q %v", sql, v, parsed)
		}
	}
	p.Release(c)
}

func TestPreparedKeyIsExact(t *testing.T) {
	keys := map[string]string{}
	for _, sql := range []string{"", "a", "ab"} {
		for _, types := range [][]uint32{nil, {0}, {23}, {23, 0}} {
			for _, meaning := range []string{"", "a", "b", "\x00\x00\x00\x17"} {
				what := fmt.Sprint(sql, types, meaning)
				key := PreparedKey(sql, types, meaning)
				if other, ok := keys[key]; ok {
					t.Fatalf("%q and %q have one key", what, other)
				}
				keys[key] = what
			}
		}
	}
}

// What comes back dirty is as new when it is given out again.
func TestDirtyConnectionsAreCleaned(t *testing.T) {
	admin(t, "postgres", "DROP ROLE IF EXISTS dirty_role; CREATE ROLE dirty_role")
	p := newPools(t, func(c *Config) { c.PoolSize = 1 })
	c := acquire(t, p, superuser)
	pid := c.PID()
	prepare(t, c, "SELECT 1")
	mustQuery(t, c, "CREATE TEMP TABLE scratch (x int)")
	mustQuery(t, c, "SELECT pg_advisory_lock(42)")
	mustQuery(t, c, "SET work_mem = '7MB'")
	mustQuery(t, c, "LISTEN something")
	mustQuery(t, c, "SET ROLE dirty_role")
	c.MarkDirty()
	p.Release(c)
	c = acquire(t, p, superuser)
	if c.PID() != pid || c.Dirty() || c.Settings() != nil {
		t.Fatal("not the same connection, or not clean")
	}
	got := one(t, c, `SELECT concat_ws('|', to_regclass('pg_temp.scratch'), current_user, current_setting('work_mem'),
		(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
		(SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_prepared_statements))`)
	if got != "postgres|4MB|0|0|0" {
		t.Fatalf("left over: %s", got)
	}
	if _, parsed := prepare(t, c, "SELECT 1"); !parsed {
		t.Fatal("the registry survived DISCARD ALL")
	}
	p.Release(c)
}

func TestOpenTransactionsAreRolledBack(t *testing.T) {
	admin(t, "postgres", "DROP TABLE IF EXISTS written; CREATE TABLE written (x int)")
	p := newPools(t, func(c *Config) { c.PoolSize = 1 })
	for _, statements := range [][]string{{"BEGIN", "INSERT INTO written VALUES (1)"}, {"BEGIN", "INSERT INTO written VALUES (1)", "SELECT 1/0"}} {
		c := acquire(t, p, superuser)
		pid := c.PID()
		for _, sql := range statements {
			_, _ = query(c, sql)
		}
		if c.TxStatus() == wire.TxIdle {
			t.Fatal("no transaction")
		}
		p.Release(c)
		c = acquire(t, p, superuser)
		if n := one(t, c, "SELECT count(*) FROM written"); n != "0" || c.TxStatus() != wire.TxIdle || c.PID() != pid {
			t.Fatalf("%s rows, status %c", n, c.TxStatus())
		}
		p.Release(c)
	}
}

// A connection given back with answers outstanding is never used again, and what it ran is cancelled.
func TestUnreadAnswersAreNotInherited(t *testing.T) {
	p := newPools(t, func(c *Config) { c.PoolSize = 1 })
	c := acquire(t, p, superuser)
	pid := c.PID()
	if err := c.Write(wire.AppendQuery(nil, "SELECT pg_sleep(1000)")); err != nil {
		t.Fatal(err)
	}
	p.Release(c)
	c = acquire(t, p, superuser)
	if c.PID() == pid {
		t.Fatal("a connection in the middle of a statement was used again")
	}
	eventually(t, "the abandoned statement ends", func() bool {
		return one(t, c, fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE pid = %d", pid)) == "0"
	})
	// Answers to pipelined requests: one is read, the other is not.
	if err := c.Write(wire.AppendQuery(wire.AppendQuery(nil, "SELECT 1"), "SELECT 'secret'")); err != nil {
		t.Fatal(err)
	}
	if _, err := answer(c); err != nil {
		t.Fatal(err)
	}
	p.Release(c)
	c = acquire(t, p, superuser)
	if v := one(t, c, "SELECT 'mine'"); v != "mine" {
		t.Fatalf("got another session's answer %q", v)
	}
	p.Release(c)
}

func TestServerErrorKeepsFields(t *testing.T) {
	p := newPools(t, nil)
	c := acquire(t, p, superuser)
	_, err := query(c, "SELECT nonsense")
	var e *pgerr.Error
	if !errors.As(err, &e) || e.Code != "42703" || e.Position != 8 || c.Broken() {
		t.Fatalf("got %+v", e)
	}
	p.Release(c)
}
