package router_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// in makes a session use another database.
func in(database string) func(*pgx.ConnConfig) {
	return func(c *pgx.ConnConfig) { c.Database = database }
}

// holding are the shards that have a database.
func holding(t *testing.T, database string) (shards []int) {
	t.Helper()
	for i := range cluster.Shards() {
		conn, err := pgx.Connect(t.Context(), cluster.ConnString(i, "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		var exists bool
		if err := conn.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database).Scan(&exists); err != nil {
			t.Fatal(err)
		}
		if exists {
			shards = append(shards, i)
		}
		_ = conn.Close(t.Context())
	}
	return shards
}

// refusedLogin is the SQLSTATE with which a router turns a client of a database away; "" if it does not.
func (b *bed) refusedLogin(i int, database string) string {
	cfg, err := pgx.ParseConfig(b.url(i))
	if err != nil {
		b.t.Fatal(err)
	}
	cfg.Database = database
	conn, err := pgx.ConnectConfig(b.t.Context(), cfg)
	if err == nil {
		_ = conn.Close(context.Background())
		return ""
	}
	var failed *pgconn.PgError
	if errors.As(err, &failed) {
		return failed.Code
	}
	return err.Error()
}

// CREATE and DROP DATABASE through one router are for all shards and all routers, with Postgres's errors.
func TestDatabases(t *testing.T) {
	b := newBed(t, 2)
	one, two := b.connect(0), b.connect(1)
	name := b.database + "_new"
	t.Cleanup(func() {
		for shard := range 3 {
			direct(t, shard, "postgres", "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
			direct(t, shard, "postgres", "DROP DATABASE IF EXISTS "+name+"2 WITH (FORCE)")
		}
	})
	expect(t, one, "CREATE DATABASE "+name, "CREATE DATABASE")
	if got := holding(t, name); !slices.Equal(got, []int{0, 1, 2}) {
		t.Fatalf("the database is on %v", got)
	}
	expectError(t, two, "CREATE DATABASE "+name, "42P04")

	// Rows on all shards, connections of both routers.
	for round := range 2 {
		x, y := b.connect(0, in(name)), b.connect(1, in(name))
		mustSimple(t, x, "CREATE TABLE items (id bigserial PRIMARY KEY, name text)")
		mustSimple(t, x, "SHARD TABLE items BY HASH (id) PARTITIONS 6")
		expect(t, x, "INSERT INTO items (name) VALUES ('n1')"+strings.Repeat(", ('n')", 49), "INSERT 0 50")
		expect(t, y, "INSERT INTO items (name) VALUES ('more') RETURNING id > 50", "t\nINSERT 0 1")
		expect(t, y, "SELECT id FROM items WHERE name = 'n1'", "1\nSELECT 1") // nothing of the round before
		expectError(t, one, "CREATE DATABASE "+name+"2 TEMPLATE "+name, "0A000")
		expectError(t, one, "ALTER DATABASE "+name+" RENAME TO "+name+"2", "0A000")
		expect(t, one, "ALTER DATABASE "+name+" SET work_mem = '1MB'", "ALTER DATABASE")
		expect(t, x, "ALTER DATABASE "+name+" SET work_mem = '2MB'", "ALTER DATABASE")
		if got := everywhere(t, name, "SHOW work_mem"); got != "2MB\nSHOW" {
			t.Fatalf("work_mem is %s", got)
		}
		expectError(t, x, "DROP DATABASE "+name, "55006") // its own

		// Sessions of either router are in the way.
		_ = x.Close(t.Context())
		drop := "DROP DATABASE " + name
		if round == 0 {
			expectError(t, one, drop, "55006")
			expect(t, y, "SELECT count(*) FROM items WHERE id = 1", "1\nSELECT 1")
			_ = y.Close(t.Context())
		} else {
			drop += " WITH (FORCE)"
		}
		if got := mustSimple(t, one, drop); got != "DROP DATABASE" {
			t.Fatalf("%s: %s", drop, got)
		}
		if got := holding(t, name); got != nil {
			t.Fatalf("the database is still on %v", got)
		}
		if round == 1 {
			expectError(t, y, "SELECT 1", "57P01")
		}
		for router := range 2 {
			if code := b.refusedLogin(router, name); code != "3D000" {
				t.Fatalf("router %d: %s", router, code)
			}
		}
		if round == 0 {
			expect(t, two, "CREATE DATABASE "+name, "CREATE DATABASE")
		}
	}
	expectError(t, one, "DROP DATABASE "+name, "3D000")
	expect(t, one, "DROP DATABASE IF EXISTS "+name, "DROP DATABASE")
	expectError(t, one, "DROP DATABASE "+b.database, "55006")
	expectError(t, one, "DROP DATABASE template1", "42809")
	expectError(t, one, "DROP DATABASE postgres", "0A000")
	expectError(t, one, "BEGIN; DROP DATABASE "+name, "25001")
	mustSimple(t, one, "ROLLBACK")
	expectError(t, one, "SELECT 1; CREATE DATABASE "+name, "25001")
	// The extended protocol.
	mustExec(t, one, "CREATE DATABASE "+name, pgx.QueryExecModeExec)
	mustExec(t, one, "DROP DATABASE "+name, pgx.QueryExecModeExec)
	if got := holding(t, name); got != nil {
		t.Fatalf("the database is still on %v", got)
	}
}

// A database without sharded tables is renamed everywhere.
func TestRenameDatabase(t *testing.T) {
	b := newBed(t, 2)
	one := b.connect(0)
	name, renamed := b.database+"_old", b.database+"_renamed"
	t.Cleanup(func() {
		for shard := range 3 {
			direct(t, shard, "postgres", "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
			direct(t, shard, "postgres", "DROP DATABASE IF EXISTS "+renamed+" WITH (FORCE)")
		}
	})
	expect(t, one, "CREATE DATABASE "+name, "CREATE DATABASE")
	y := b.connect(1, in(name))
	expect(t, y, "CREATE TABLE t AS SELECT 1 AS a", "SELECT 1")
	rename := "ALTER DATABASE " + name + " RENAME TO " + renamed
	expectError(t, one, rename, "55006")
	expect(t, y, "SELECT a FROM t", "1\nSELECT 1")
	_ = y.Close(t.Context())
	expectError(t, one, "ALTER DATABASE "+name+" RENAME TO "+b.database, "42P04")
	if got := holding(t, name); !slices.Equal(got, []int{0, 1, 2}) {
		t.Fatalf("after a rename that failed the database is on %v", got)
	}
	expect(t, one, rename, "ALTER DATABASE")
	if got := holding(t, renamed); !slices.Equal(got, []int{0, 1, 2}) {
		t.Fatalf("the renamed database is on %v", got)
	}
	if code := b.refusedLogin(1, name); code != "3D000" {
		t.Fatalf("the old name: %s", code)
	}
	expect(t, b.connect(1, in(renamed)), "SELECT a FROM t", "1\nSELECT 1")
	expect(t, one, "ALTER DATABASE "+renamed+" SET work_mem = '1MB'", "ALTER DATABASE")
}

// Who may not drop a database gets Postgres's error, and nothing happens to it.
func TestDropDatabaseOfAnother(t *testing.T) {
	b := newBed(t, 1)
	role := b.database + "_user"
	direct(t, 0, "postgres", "CREATE ROLE "+role+" LOGIN")
	t.Cleanup(func() { direct(t, 0, "postgres", "DROP ROLE "+role) })
	mustSimple(t, b.connect(0), "SELECT 1")
	conn := b.connect(0, in("postgres"), func(c *pgx.ConnConfig) { c.User = role })
	expectError(t, conn, "DROP DATABASE "+b.database, "42501")
	expectError(t, conn, "CREATE DATABASE "+role, "42501")
	if got := holding(t, role); got != nil {
		t.Fatalf("the database is on %v", got)
	}
	expect(t, b.connect(0), "SELECT 1", "1\nSELECT 1")
}

// CREATE DATABASE that a shard fails tells where it was done; the database works, and can be dropped.
func TestCreateDatabaseFails(t *testing.T) {
	b := newBed(t, 1)
	conn := b.connect(0)
	name := b.database + "_half"
	t.Cleanup(func() {
		for shard := range 3 {
			direct(t, shard, "postgres", "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
		}
	})
	direct(t, 2, "postgres", "CREATE DATABASE "+name)
	_, err := simple(t, conn, "CREATE DATABASE "+name)
	var failed *pgconn.PgError
	if !errors.As(err, &failed) || failed.Code != "42P04" || !strings.Contains(failed.Detail, "s3") {
		t.Fatalf("%#v", err)
	}
	direct(t, 2, "postgres", "DROP DATABASE "+name)
	readOnly := func(on bool) {
		direct(t, 2, "postgres", fmt.Sprintf("ALTER SYSTEM SET default_transaction_read_only = %t", on))
		direct(t, 2, "postgres", "SELECT pg_reload_conf()")
		for deadline := time.Now().Add(30 * time.Second); ; {
			setting := asked(t, 2, "SELECT setting FROM pg_settings WHERE name = 'default_transaction_read_only'")
			if on == (setting == "on") {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("the setting does not arrive")
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	readOnly(true)
	_, err = simple(t, conn, "CREATE DATABASE "+name)
	readOnly(false)
	if !errors.As(err, &failed) || failed.Code != "25006" || !strings.Contains(failed.Detail, "done on s1, s2, and failed on s3") {
		t.Fatalf("%#v", err)
	}
	half := b.connect(0, in(name))
	mustSimple(t, half, "CREATE TABLE items (id int PRIMARY KEY)")
	mustSimple(t, half, "SHARD TABLE items BY HASH (id) PARTITIONS 6")
	expect(t, half, "INSERT INTO items VALUES (1), (2), (3), (4), (5), (6)", "INSERT 0 6")
	_ = half.Close(t.Context())
	expect(t, conn, "DROP DATABASE "+name, "DROP DATABASE")
	if got := holding(t, name); got != nil {
		t.Fatalf("the database is on %v", got)
	}
}

// asked is the value that a shard answers with.
func asked(t *testing.T, shard int, sql string) (value string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), cluster.ConnString(shard, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), sql).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

// Who logs in while a shard asks for a newer map than the router has waits for it, as statements do.
func TestLoginAwaitsTheMap(t *testing.T) {
	b := newBed(t, 1)
	first := b.connect(0)
	mustSimple(t, first, "CREATE TABLE t (k int PRIMARY KEY)")
	mustSimple(t, first, "SHARD TABLE t BY HASH (k)")
	mustSimple(t, first, "BEGIN; SELECT 1") // it keeps its connection: the next client needs a new one
	direct(t, 0, b.database, "UPDATE shardyard.epoch SET floor = 50")
	second := b.connect(0, func(c *pgx.ConnConfig) { c.RuntimeParams["work_mem"] = "5MB" })
	if got := mustSimple(t, second, "SHOW work_mem"); got != "5MB\nSHOW" {
		t.Errorf("got %s", got)
	}
}
