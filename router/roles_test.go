package router_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/internal/testbed"
	"github.com/shardyard/shardyard/router/auth"
)

// onShard asks a shard, around the routers.
func onShard(t *testing.T, shard int, database, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), cluster.ConnString(shard, database))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	return mustSimple(t, conn, sql)
}

// everywhere insists that a query has one answer on all shards, and returns it.
func everywhere(t *testing.T, database, sql string) string {
	t.Helper()
	first := onShard(t, 0, database, sql)
	for shard := 1; shard < 3; shard++ {
		if got := onShard(t, shard, database, sql); got != first {
			t.Fatalf("%s\non the home shard: %s\non shard %d: %s", sql, first, shard, got)
		}
	}
	return first
}

// dropRoles drops roles that a test has made, on all shards.
func dropRoles(t *testing.T, names ...string) {
	t.Cleanup(func() {
		for shard := range 3 {
			for _, name := range names {
				direct(t, shard, "postgres", "DROP ROLE IF EXISTS "+name)
			}
		}
	})
}

// rolesLike prints roles with everything that belongs to them, verifiers too.
func rolesLike(pattern string) string {
	return fmt.Sprintf(`SELECT rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconnlimit,
		rolpassword, rolvaliduntil, shobj_description(oid, 'pg_authid'),
		(SELECT string_agg((setdatabase <> 0) || ' ' || setconfig::text, ';' ORDER BY setdatabase) FROM pg_db_role_setting WHERE setrole = r.oid),
		(SELECT string_agg(g.rolname || ' ' || admin_option, ';' ORDER BY g.rolname) FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE member = r.oid)
		FROM pg_authid r WHERE rolname LIKE '%s' ORDER BY rolname`, pattern)
}

// Roles reach every shard, in a database in which nothing is sharded, too, with one and the same verifier; what is rolled back is nowhere.
func TestRolesReachEveryShard(t *testing.T) {
	t.Parallel()
	b := newBed(t, 2)
	one, two := b.connect(0), b.connect(1)
	role := b.database + "_r"
	dropRoles(t, role+"1", role+"2", role+"3", role+"4", role+"5")
	mustSimple(t, one, "CREATE ROLE "+role+"1 LOGIN PASSWORD 'secret' CONNECTION LIMIT 7 VALID UNTIL '2030-01-01'")
	mustSimple(t, two, "CREATE ROLE "+role+"2 IN ROLE "+role+"1")
	mustSimple(t, two, "GRANT "+role+"1, pg_monitor TO "+role+"2 WITH ADMIN OPTION")
	mustSimple(t, one, "COMMENT ON ROLE "+role+"2 IS 'it''s'")
	mustSimple(t, one, "ALTER ROLE "+role+"2 SET search_path = a, \"B c\"")
	mustSimple(t, one, "ALTER ROLE "+role+"2 IN DATABASE "+b.database+" SET work_mem = '3MB'")
	all := everywhere(t, b.database, rolesLike(role+"%"))
	for _, want := range []string{"SCRAM-SHA-256$4096:", "|7|", "pg_monitor true", "it's", `search_path=a, ""B c""`, "work_mem=3MB"} {
		if !strings.Contains(strings.ReplaceAll(all, `\"`, `""`), want) {
			t.Errorf("%s is not in %s", want, all)
		}
	}
	mustSimple(t, one, "ALTER ROLE "+role+"1 PASSWORD 'other' CREATEDB")
	mustSimple(t, one, "SET password_encryption = 'md5'")
	mustSimple(t, one, "CREATE USER "+role+"3 PASSWORD 'secret'")
	mustSimple(t, one, "RESET password_encryption")
	if md5 := everywhere(t, b.database, rolesLike(role+"3")); !strings.Contains(md5, "|md5") {
		t.Errorf("not an md5 verifier: %s", md5)
	}
	if again := everywhere(t, b.database, rolesLike(role+"%")); again == all {
		t.Error("nothing was changed")
	}

	mustSimple(t, one, "BEGIN")
	mustSimple(t, one, "CREATE ROLE "+role+"4")
	mustSimple(t, one, "DROP ROLE "+role+"2")
	mustSimple(t, one, "ROLLBACK")
	mustSimple(t, one, "BEGIN; CREATE ROLE "+role+"4; ALTER ROLE "+role+"4 RENAME TO "+role+"5; COMMIT")
	if _, err := simple(t, one, "CREATE ROLE "+role+"4; SELECT 1/0"); code(err) != "22012" {
		t.Fatal(err)
	}
	names := everywhere(t, b.database, "SELECT string_agg(right(rolname, 2), ',' ORDER BY rolname) FROM pg_roles WHERE rolname LIKE '"+role+"%'")
	if names != "r1,r2,r3,r5\nSELECT 1" {
		t.Errorf("roles after all: %s", names)
	}
	mustSimple(t, two, fmt.Sprintf("DROP ROLE %[1]s1, %[1]s2, %[1]s3, %[1]s5", role))
	if left := everywhere(t, b.database, rolesLike(role+"%")); left != "SELECT 0" {
		t.Errorf("left: %s", left)
	}
}

// The verifier that the router makes fits the password, as Postgres itself judges, and clients get in by it.
func TestVerifiersFit(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1, func(c *node.Config) {
		c.Router.Auth.Rules = []auth.Rule{{Users: []string{"postgres"}, Method: auth.Trust}, {Method: auth.ScramSHA256}}
	})
	conn := b.connect(0)
	role := b.database + "_v"
	dropRoles(t, role)
	mustSimple(t, conn, "CREATE ROLE "+role+" LOGIN PASSWORD 'one'")
	b.login("", role, "one", b.database)
	for literal, password := range map[string]string{
		"E'a\\'\\u00e4b'": "a'äb", "$x$it's$x$": "it's", "U&'d!0061t' UESCAPE '!'": "dat", "'I\u00adX'": "IX", "'a'\n  'b'": "ab",
	} {
		mustSimple(t, conn, "ALTER ROLE "+role+" ENCRYPTED PASSWORD "+literal+" VALID UNTIL 'infinity'")
		b.await("the password "+literal+" to count", func() bool {
			cfg, err := pgx.ParseConfig(b.url(0))
			if err != nil {
				t.Fatal(err)
			}
			cfg.User, cfg.Password, cfg.Database = role, password, b.database
			c, err := pgx.ConnectConfig(t.Context(), cfg)
			if err != nil {
				return false
			}
			_ = c.Close(t.Context())
			return true
		})
	}
	// A verifier is stored as it is.
	verifier := onShard(t, 0, b.database, "SELECT rolpassword FROM pg_authid WHERE rolname = '"+role+"'")
	verifier, _, _ = strings.Cut(verifier, "\n")
	mustSimple(t, conn, "ALTER ROLE "+role+" PASSWORD 'x'")
	mustSimple(t, conn, "ALTER ROLE "+role+" PASSWORD '"+verifier+"'")
	if got := everywhere(t, b.database, "SELECT rolpassword FROM pg_authid WHERE rolname = '"+role+"'"); !strings.HasPrefix(got, verifier+"\n") {
		t.Errorf("%s became %s", verifier, got)
	}
}

// An error behind a password points at the place in what the client sent.
func TestPositionBehindPassword(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	role := b.database + "_p"
	dropRoles(t, role)
	sql := "SELECT 'ä'; CREATE ROLE " + role + " PASSWORD 'ü' LOGIN NOLOGIN"
	_, routed := simple(t, b.connect(0), sql)
	_, plain := simple(t, testbed.Connect(t, cluster.ConnString(0, b.database)), sql)
	if code(routed) != "42601" || pgPosition(routed) != pgPosition(plain) || pgPosition(plain) == 0 {
		t.Errorf("%v at %d, plain %v at %d", routed, pgPosition(routed), plain, pgPosition(plain))
	}
}

// What was made around the routers is brought where it is needed; what stands in the way is told.
func TestRolesAroundTheRouters(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	conn := b.connect(0)
	role := b.database + "_a"
	dropRoles(t, role, role+"2", role+"3")
	shop(t, b)
	direct(t, 0, b.database, fmt.Sprintf("CREATE ROLE %s LOGIN; GRANT SELECT ON items TO %[1]s", role))
	mustSimple(t, conn, "GRANT SELECT ON items TO "+role)
	user := b.connect(0, func(c *pgx.ConnConfig) { c.User = role })
	expect(t, user, "SELECT count(*) FROM items WHERE id = 1", "1\nSELECT 1")
	for id := range 10 {
		expect(t, user, fmt.Sprintf("SELECT id FROM items WHERE id = %d", id), fmt.Sprintf("%d\nSELECT 1", id))
	}

	mustSimple(t, conn, "DROP OWNED BY "+role)

	direct(t, 0, "postgres", "CREATE ROLE "+role+"2 LOGIN PASSWORD 'x' CONNECTION LIMIT 3")
	mustSimple(t, conn, "ALTER ROLE "+role+"2 CREATEDB")
	if got := everywhere(t, b.database, rolesLike(role+"2")); !strings.Contains(got, "|3|SCRAM") {
		t.Error(got)
	}
	direct(t, 1, "postgres", "CREATE ROLE "+role+"3 SUPERUSER")
	_, err := simple(t, conn, "CREATE ROLE "+role+"3")
	if code(err) != "42710" || !strings.Contains(pgDetail(err), "Shard s2 refused it") {
		t.Errorf("%v, detail %s", err, pgDetail(err))
	}
	if got := onShard(t, 0, "postgres", rolesLike(role+"3")); got != "SELECT 0" {
		t.Errorf("the home shard has it: %s", got)
	}
	mustSimple(t, conn, "DROP ROLE IF EXISTS "+role+"3")
	mustSimple(t, conn, "CREATE ROLE "+role+"3")
	if got := everywhere(t, b.database, "SELECT rolsuper FROM pg_roles WHERE rolname = '"+role+"3'"); got != "f\nSELECT 1" {
		t.Error(got)
	}
}

func pgDetail(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Detail
	}
	return ""
}
