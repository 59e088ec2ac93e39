package router_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/shardyard/shardyard/internal/node"
)

// A cancel request reaches a statement on a connection that the transaction has held for long.
func TestCancelInTransaction(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		shop(t, b)
		s := b.script(0)
		s.want("done:BEGIN ready:T", query("BEGIN"))
		s.want("columns:1 row:1 done:SELECT_1 ready:T", query("SELECT 1"))
		for _, m := range batch(extended("SELECT pg_sleep(20)"), sync) {
			s.Send(m)
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		b.cancelUntil(s, func() string { return s.answers(0) })
	})
}

// Settings of a client never show at another that shares its only server connection.
func TestSettingsStayHome(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		shop(t, b)
		direct(t, 0, b.database, "CREATE ROLE "+b.database+"_role; GRANT ALL ON plain TO "+b.database+"_role")
		role := b.database + "_role"
		for name, steps := range map[string][][]pgproto3.FrontendMessage{
			"pipeline":          {batch(extended("SET app.tenant = 'a'"), extended("SELECT 1/0"), sync)},
			"pipeline after":    {batch(extended("SELECT 1"), extended("SET work_mem = '2MB'"), extended("SELECT 1/0"), sync)},
			"set_config after":  {batch(extended("SELECT 1"), extended("SELECT set_config('work_mem', '2MB', false)"), extended("SELECT 1/0"), sync)},
			"set_config":        {q("SELECT set_config('app.tenant', 'a', false)")},
			"set_config local":  {q("BEGIN"), q("SELECT set_config('app.tenant', 'a', true)"), q("COMMIT")},
			"set_config values": {q("SELECT set_config(n, 'a', false) FROM (VALUES ('app.tenant')) v(n)")},
			"set_config where":  {q("SELECT 1 WHERE set_config('app.tenant', 'a', false) = 'a'")},
			"app name":          {q("SELECT set_config('application_name', 'a', false)")},
			"app name dynamic":  {q("SELECT set_config(n, 'a', false) FROM (VALUES ('application_name')) v(n)")},
			"app name do":       {q("DO $$BEGIN PERFORM set_config('application_name', 'a', false); END$$")},
			"app name update":   {q("UPDATE pg_settings SET setting = 'a' WHERE name = 'application_name'")},
			"update":            {q("UPDATE pg_settings SET setting = '2MB' WHERE name = 'work_mem'")},
			"do":                {q("DO $$BEGIN SET app.tenant = 'a'; END$$")},
			"role":              {q("SET ROLE " + role)},
			"authorization":     {q("SET SESSION AUTHORIZATION " + role)},
			"role local":        {q("BEGIN"), q("SET LOCAL ROLE " + role), q("COMMIT")},
			"role rollback":     {q("BEGIN"), q("SET ROLE " + role), q("ROLLBACK")},
			"role pipeline":     {batch(extended("SELECT 1"), extended("SET ROLE "+role), extended("SELECT 1/0"), sync)},
			"role reset":        {q("SET ROLE " + role), q("BEGIN"), q("RESET ROLE"), q("ROLLBACK")},
			"savepoint":         {q("BEGIN"), q("SAVEPOINT a"), q("SET app.tenant = 'b'"), q("ROLLBACK TO a"), q("SET app.tenant = 'a'"), q("RELEASE a"), q("ROLLBACK")},
			"failed":            {q("BEGIN"), q("SET app.tenant = 'b'"), q("SELECT 1/0"), q("COMMIT")},
			"multi":             {q("SET app.tenant = 'b'; SELECT 1; SELECT 1/0")},
			"multi 2":           {q("SELECT 1; SET work_mem = '2MB'; SELECT 1/0")},
			"multi 3":           {q("SELECT 1; SELECT set_config('work_mem', '2MB', false); SELECT 1/0")},
			"search path":       {q("SET search_path = pg_catalog")},
			"explain":           {q("EXPLAIN ANALYZE SELECT set_config('app.tenant', 'a', false)")},
			"lock":              {q("SELECT pg_advisory_lock(7)")},
			"temp":              {q("CREATE TEMP TABLE plain2 (a int)")},
			"prepared":          {q("PREPARE leak AS SELECT set_config('app.tenant', 'a', false)"), q("EXECUTE leak")},
			"prepared ext":      {q("PREPARE leak AS SELECT set_config('app.tenant', 'a', false)"), batch(extended("EXECUTE leak"), sync)},
			"copy":              {q("COPY (SELECT set_config('app.tenant', 'a', false)) TO STDOUT")},
			"returning":         {q("INSERT INTO plain VALUES (-5, 1) RETURNING set_config('app.tenant', 'a', false)"), q("DELETE FROM plain WHERE id < 0")},
			"cursor":            {q("BEGIN"), q("DECLARE c CURSOR FOR SELECT set_config('app.tenant', 'a', false)"), q("FETCH c"), q("COMMIT")},
			"portal":            {q("BEGIN"), batch(parse("x", "SELECT set_config('app.tenant', $1, false)"), bind("p", "x", "a"), execute("p", 0), sync), q("COMMIT")},
			"parameter":         {batch(extended("SELECT set_config('app.tenant', $1, false)", "a"), sync)},
			"parameter name":    {batch(extended("SELECT set_config($1, $2, false)", "application_name", "a"), sync)},
			"select into":       {q("CREATE TABLE made2 AS SELECT set_config('app.tenant', 'a', false)"), q("DROP TABLE made2")},
			"seed":              {q("SELECT setseed(0.5)")},
			"listen":            {q("LISTEN x")},
		} {
			t.Run(name, func(t *testing.T) {
				look := func() string {
					s := b.script(0)
					s.t = t
					defer s.conn.Close()
					return s.play(query("SELECT current_setting('app.tenant', true) IN ('a', 'b'), current_setting('work_mem'), current_user, session_user, current_setting('search_path'), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()), application_name LIKE 'shardyard/%' FROM pg_stat_activity WHERE pid = pg_backend_pid()"))
				}
				want := strings.Replace(look(), "row:t,", "row:,", 1)
				want = strings.Replace(want, "row:f,", "row:,", 1)
				s := b.script(0)
				s.t = t
				var log []string
				for _, step := range steps {
					log = append(log, s.play(step...))
				}
				check := "SELECT count(*) FROM pg_stat_activity WHERE datname = '" + b.database + "' AND backend_type = 'client backend' AND application_name NOT LIKE 'shardyard/%' AND application_name <> ''"
				c := plainScript(t, b.database)
				if got := c.play(query(check)); !strings.Contains(got, "row:0") {
					t.Errorf("a server connection hides: %s (%v)", got, log)
				}
				_ = c.conn.Close()
				_ = s.conn.Close()
				got := strings.Replace(look(), "row:f,", "row:,", 1)
				if got != want {
					t.Errorf("\n got %s\nwant %s\n(%v)", got, want, log)
				}
			})
		}
	}, func(c *node.Config) { c.Pools.PoolSize = 1 })
}
