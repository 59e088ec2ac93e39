package logins

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/internal/testbed"
	"github.com/shardyard/shardyard/router/auth"
)

// Each rule of the file decides for whom it is.
func TestRules(t *testing.T) {
	t.Parallel()
	d := newDoor(t, `host    nowhere  all        all          trust
host    all      role_kept  all          reject
hostssl sameuser all        127.0.0.1/32 trust
hostssl all      all        127.0.0.1/32 scram-sha-256
`)
	user := d.role("secret")
	d.mustEnter(user, "secret", "")
	d.mustEnter(user, "secret", "channel_binding=require")
	d.mustEnter(user, "secret", "channel_binding=disable")
	d.mustFail(user, "wrong", "", "28P01", `password authentication failed for user "`+user+`"`)
	d.mustFail("not_a_role", "secret", "", "28P01", `password authentication failed for user "not_a_role"`)
	d.mustFail(user, "secret", "sslmode=disable", "28000", `no rule of authentication for host "127.0.0.1", user "`+user+`"`)
	d.mustFail("role_kept", "secret", "", "28000", "SSL encryption")
	d.mustFail("role_kept", "secret", "", "28000", "a rule of authentication rejects connection")

	d.writeRules("hostssl all " + user + " all reject\nhostssl all all all trust\n")
	d.mustEnter(user, "secret", "") // not read yet
	d.mustReload()
	d.mustFail(user, "secret", "", "28000", "rejects connection")
	d.writeRules("hostssl all all all nonsense\n")
	if err := d.reload(); err == nil || !strings.Contains(err.Error(), "line 2: method") {
		t.Fatalf("got %v", err)
	}
	d.mustFail(user, "secret", "", "28000", "rejects connection")
	if log := d.log.String(); !strings.Contains(log, "client turned away") || strings.Contains(log, "secret") {
		t.Fatalf("the log is\n%s", log)
	}
}

// No password of an application stands anywhere but with its client: the shards take the keys that the exchange has shown.
func TestKeysReachTheShards(t *testing.T) {
	t.Parallel()
	d := newDoor(t, "hostssl all all all scram-sha-256\n")
	admin := d.Session(0)
	ctx := t.Context()
	for _, sql := range []string{"CREATE TABLE t (id int PRIMARY KEY, v text)", "SHARD TABLE t BY HASH (id) PARTITIONS 8",
		"INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 100) i", "GRANT ALL ON t TO PUBLIC"} {
		_, err := admin.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
		testbed.Must(t, err)
	}
	user := d.role("secret one")
	conn := testbed.Connect(t, d.url(user, "'secret one'", ""))
	var n int
	testbed.Must(t, conn.QueryRow(ctx, "SELECT id FROM t ORDER BY id DESC LIMIT 1").Scan(&n))
	for shard := range 2 {
		var encrypted int
		testbed.Must(t, d.Connect(shard).QueryRow(ctx, "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND usename = $1", user).Scan(&encrypted))
		if n != 100 || encrypted == 0 {
			t.Fatalf("got %d rows, %d connections of %s on shard %d", n, encrypted, user, shard)
		}
	}

	// The password changes. Who is in and needs a new connection is told; who comes with the new one is served, and then they
	// are too. (The shards end the connections that there are.)
	d.setPassword(user, "secret two")
	d.endConnections(user)
	_, err := conn.Exec(ctx, "SELECT 1")
	wantError(t, err, "28P01", "another verifier")
	wantHint(t, err, "connect again")
	d.await(func() error { return d.enter(user, "'secret two'", "") })
	_, err = conn.Exec(ctx, "SELECT 1")
	testbed.Must(t, err)

	// A shard whose verifier was made by somebody else gets that of the home shard, and then takes the keys.
	d.onShard(1, "ALTER ROLE "+user+" PASSWORD 'secret two'")
	d.endConnections(user)
	_, err = conn.Exec(ctx, "SELECT id FROM t ORDER BY id", pgx.QueryExecModeSimpleProtocol)
	testbed.Must(t, err)
	var there string
	testbed.Must(t, d.Connect(1).QueryRow(ctx, "SELECT rolpassword FROM pg_authid WHERE rolname = $1", user).Scan(&there))
	if here := d.verifier(user); there != here {
		t.Fatalf("the verifiers differ: %s and %s", here, there)
	}
}

func wantHint(t *testing.T, err error, words string) {
	t.Helper()
	if !strings.Contains(fmt.Sprintf("%+v", hintOf(err)), words) {
		t.Fatalf("the hint of %v is %q, want %q", err, hintOf(err), words)
	}
}

// endConnections ends the server connections of a role, and waits until they are gone.
func (d *door) endConnections(user string) {
	d.t.Helper()
	for shard := range 2 {
		d.onShard(shard, "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE usename = '"+user+"'")
	}
}

// await tries until it works: what was read of a role counts for a few seconds.
func (d *door) await(try func() error) {
	d.t.Helper()
	var last error
	testbed.Until(d.t, "it works", func() bool {
		last = try()
		if last != nil {
			d.t.Log(last)
		}
		return last == nil
	})
}

// A role that comes in without a password has none for the shards.
func TestNoPasswordForTheShards(t *testing.T) {
	t.Parallel()
	d := newDoor(t, "hostssl all all all trust\n")
	user := d.role("secret")
	err := d.enter(user, "secret", "")
	wantError(t, err, "28P01", "")
	wantHint(t, err, "knows no password of the role")

	given := newDoor(t, "hostssl all all all trust\n", func(c *node.Config) { c.Pools.Passwords = map[string]string{user: "secret"} })
	given.mustEnter(user, "", "")
	wrong := newDoor(t, "hostssl all all all trust\n", func(c *node.Config) { c.Pools.Passwords = map[string]string{user: "x"} })
	err = wrong.enter(user, "", "")
	wantError(t, err, "28P01", "password authentication failed")
	wantHint(t, err, "router's configuration")
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	ident := t.TempDir() + "/ident.conf"
	writeFile(t, ident, "people /^(.*)@example\\.com$ \\1\n")
	d := newDoor(t, `hostssl all trusted_there all cert
hostssl all all all scram-sha-256 clientcert=verify-full
`, func(c *node.Config) { c.Router.Auth.IdentFile = ident })
	d.makeRole("trusted_there", "x") // the shards trust this role
	user := d.role("secret")
	issue := func(by signer, name string) string {
		p, err := pki.issue(by, "client-"+rand.Text(), name)
		testbed.Must(t, err)
		return "sslcert=" + p.cert + " sslkey=" + p.key
	}
	right, users := issue(pki.good, "trusted_there"), issue(pki.good, user)
	d.mustEnter("trusted_there", "", right)
	d.mustFail("trusted_there", "", "", "28000", "connection requires a valid client certificate")
	d.mustFail("trusted_there", "", users, "28000", `certificate authentication failed for user "trusted_there"`)
	if err := d.enter("trusted_there", "", issue(pki.evil, "trusted_there")); err == nil {
		t.Fatal("anybody's certificate is good")
	}
	d.mustEnter(user, "secret", users)
	d.mustFail(user, "wrong", users, "28P01", "")
	d.mustFail(user, "secret", right, "28000", "certificate authentication failed")
	d.mustFail(user, "secret", "", "28000", "requires a valid client certificate")

	d.writeRules("hostssl all all all cert map=people\n")
	d.mustReload()
	d.mustEnter("trusted_there", "", issue(pki.good, "trusted_there@example.com"))
	d.mustFail("trusted_there", "", right, "28000", "certificate authentication failed")
	if got, err := d.psql(d.url("trusted_there", "", issue(pki.good, "trusted_there@example.com")), "SELECT current_user"); err != nil || got != "trusted_there" {
		t.Fatalf("psql: %q %v", got, err)
	}
	d.writeRules("hostssl all all all trust clientcert=verify-ca\n")
	d.mustReload()
	d.mustEnter("trusted_there", "", users)
	d.mustFail("trusted_there", "", "", "28000", "requires a valid client certificate")
	d.writeRules("hostssl all all all cert map=unknown\n")
	if err := d.reload(); err == nil {
		t.Fatal("a map that does not exist was taken")
	}
}

// md5 only where a rule says so, and only of roles that have such a verifier.
func TestMD5(t *testing.T) {
	t.Parallel()
	d := newDoor(t, "hostssl all old_user,new_user all md5\nhostssl all all all scram-sha-256\n",
		func(c *node.Config) { c.Pools.Passwords = map[string]string{"old_user": "old secret"} })
	d.makeRole("old_user", "x")
	d.makeRole("new_user", "new secret")
	for shard := range 2 {
		d.onShard(shard, "SET password_encryption = 'md5'; ALTER ROLE old_user PASSWORD 'old secret'")
	}
	d.mustEnter("old_user", "'old secret'", "")
	d.mustFail("old_user", "wrong", "", "28P01", "password authentication failed")
	d.mustFail("old_user", "'old secret'", "require_auth=scram-sha-256", "", "")
	d.mustEnter("new_user", "'new secret'", "require_auth=scram-sha-256")
	d.mustFail("new_user", "wrong", "", "28P01", "password authentication failed")
	if got, err := d.psql(d.url("old_user", "'old secret'", ""), "SELECT current_user"); err != nil || got != "old_user" {
		t.Fatalf("psql: %q %v", got, err)
	}
	d.writeRules("hostssl all all all scram-sha-256\n")
	d.mustReload()
	d.mustFail("old_user", "'old secret'", "", "28P01", "password authentication failed")
}

// Verifiers from a file of users, and from a query.
func TestVerifiers(t *testing.T) {
	t.Parallel()
	users := t.TempDir() + "/userlist.txt"
	writeFile(t, users, "")
	d := newDoor(t, "hostssl all all all scram-sha-256\n", func(c *node.Config) { c.Router.Auth.UserFile = users })
	user, other := d.role("secret"), d.role("other secret")
	d.mustEnter(user, "secret", "")
	writeFile(t, users, `"`+user+`" "md50123456789abcdef0123456789abcdef"`)
	d.mustReload()
	d.mustFail(user, "secret", "", "28P01", "")
	d.mustEnter(other, "'other secret'", "")

	// A password in the file is what the shards get too.
	writeFile(t, users, `"`+user+`" "new secret"`)
	d.mustReload()
	d.setPassword(user, "new secret")
	d.endConnections(user)
	d.mustEnter(user, "'new secret'", "")
	d.mustFail(user, "secret", "", "28P01", "")
	verifier := d.verifier(other)
	d.Exec(0, "CREATE TABLE verifiers (name text, verifier text)", "INSERT INTO verifiers VALUES ('"+other+"', '"+verifier+"'), ('"+user+"', NULL)")
	asked := newDoor(t, "hostssl all all all scram-sha-256\n", func(c *node.Config) {
		c.Router.Auth.Query, c.Router.Auth.QueryDatabase = "SELECT name, verifier FROM verifiers WHERE name = $1", d.Name
	})
	asked.mustEnter(other, "'other secret'", "")
	asked.mustFail(other, "wrong", "", "28P01", "")
	asked.mustFail(user, "'new secret'", "", "28P01", "")
	d.Exec(0, "DELETE FROM verifiers", "INSERT INTO verifiers VALUES ('"+other+"', 'garbage')")
	asked.mustReload() // forgets what was read
	asked.mustFail(other, "'other secret'", "", "28P01", "")
	d.Exec(0, "DROP TABLE verifiers")
	asked.mustReload()
	asked.mustFail(other, "'other secret'", "", "42P01", "verifiers")
	if log := asked.log.String(); !strings.Contains(log, "verifier of a role cannot be used") || strings.Contains(log, "garbage") {
		t.Fatalf("the log is\n%s", log)
	}
}

// Roles that may not log in, or whose password is too old.
func TestRolesThatMayNotLogIn(t *testing.T) {
	t.Parallel()
	d := newDoor(t, "hostssl all all all scram-sha-256\n")
	old, none := d.role("secret"), d.role("secret")
	for shard := range 2 {
		d.onShard(shard, "ALTER ROLE "+old+" VALID UNTIL '2001-01-01'", "ALTER ROLE "+none+" NOLOGIN")
	}
	d.mustFail(old, "secret", "", "28P01", "password authentication failed")
	d.mustFail(none, "secret", "", "28000", "is not permitted to log in")
	d.mustFail(none, "wrong", "", "28P01", "password authentication failed")
}

func TestTooManyFailures(t *testing.T) {
	t.Parallel()
	d := newDoor(t, "hostssl all all all scram-sha-256\n", func(c *node.Config) { c.Router.Auth.Failures = auth.FailureLimits{Max: 4} })
	user, other := d.role("secret"), d.role("secret")
	for range 3 {
		d.mustFail(user, "wrong", "", "28P01", "password authentication failed")
	}
	d.mustEnter(user, "secret", "") // forgets them
	for range 4 {
		d.mustFail(user, "wrong", "", "28P01", "password authentication failed")
	}
	d.mustFail(user, "wrong", "", "28000", "too many failed logins as user")
	d.mustFail(user, "secret", "", "28000", "too many failed logins as user")
	wantHint(t, d.enter(user, "secret", ""), "The next attempt counts in")
	d.mustEnter(other, "secret", "")
	d.mustEnter("postgres", "", "sslmode=disable") // a trusted client proves nothing
}
