package router_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	gosync "sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/router/auth"
)

func (b *bed) try(user, password, database string) error {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", user, password, b.Routers[0].Addr(), database))
	if err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(b.t.Context(), cfg)
	if err != nil {
		return err
	}
	defer conn.Close(b.t.Context())
	_, err = conn.Exec(b.t.Context(), "SELECT 1")
	return err
}

func (b *bed) login(want, user, password, database string) {
	b.t.Helper()
	err := b.try(user, password, database)
	if want == "" && err == nil {
		return
	}
	var e interface{ SQLState() string }
	if !errors.As(err, &e) || e.SQLState() != want {
		b.t.Fatalf("%s: got %v, want %q", user, err, want)
	}
}

func TestAuthentication(t *testing.T) {
	all := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	b := newBed(t, 1, func(c *node.Config) {
		c.Router.Auth.Rules = []auth.Rule{
			{Users: []string{"postgres", "nobody_there"}, Method: auth.Trust},
			{Users: []string{"turned_away"}, Networks: all, Method: auth.Reject},
			{Networks: all, Method: auth.ScramSHA256},
		}
	})
	conn := b.connect(0)
	mustSimple(t, conn, "CREATE ROLE scram_user LOGIN PASSWORD 'secret'")
	mustSimple(t, conn, "CREATE ROLE old_user LOGIN PASSWORD 'secret' VALID UNTIL '2001-01-01'")
	mustSimple(t, conn, "CREATE ROLE no_login PASSWORD 'secret'")
	mustSimple(t, conn, "CREATE ROLE turned_away LOGIN")
	dropRoles(t, "scram_user", "old_user", "no_login", "turned_away")
	b.login("", "scram_user", "secret", b.database)
	b.login("28P01", "scram_user", "wrong", b.database)
	b.login("28P01", "old_user", "secret", b.database)
	b.login("28P01", "not_a_role", "secret", b.database)
	b.login("28000", "no_login", "secret", b.database)
	b.login("28000", "nobody_there", "x", b.database)
	b.login("28000", "turned_away", "x", b.database)
	b.login("3D000", "scram_user", "secret", "no_such_database")
	mustSimple(t, conn, "ALTER ROLE scram_user PASSWORD 'changed'")
	b.await("the new password to count", func() bool { return b.try("scram_user", "changed", b.database) == nil })
}

func TestTooManyClients(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1, func(c *node.Config) { c.Router.Clients.Total = 2 })
	b.connect(0)
	b.connect(0)
	b.login("53300", "postgres", "", b.database)
}

func TestDrain(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		idle, busy := b.script(0), b.script(0)
		busy.want("done:BEGIN ready:T", query("BEGIN"))
		busy.want("columns:1 row:1 done:SELECT_1 ready:T", query("SELECT 1"))
		var drained gosync.WaitGroup
		drained.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if err := b.Routers[0].Close(ctx); err != nil {
				t.Error(err)
			}
		})
		if got := idle.answers(1); got != "error:57P01" {
			t.Fatal(got)
		}
		busy.want("columns:1 row:2 done:SELECT_1 ready:T", query("SELECT 2"))
		busy.Send(query("COMMIT"))
		if got := busy.answers(3); got != "done:COMMIT ready:I error:57P01" {
			t.Fatal(got)
		}
		drained.Wait()
		b.Routers = nil
	})
}

// While two routers insert, the table gets a column: no row is lost, no stale plan answers.
func TestTwoRouters(t *testing.T) {
	t.Parallel()
	b := newBed(t, 2)
	setup := b.connect(0)
	mustSimple(t, setup, "CREATE TABLE log (id bigint PRIMARY KEY, who text)")
	var inserted atomic.Int64
	var failed atomic.Pointer[string]
	stop := make(chan struct{})
	var writers gosync.WaitGroup
	for w := range 4 {
		conn := b.connect(w % 2)
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				_, err := conn.Exec(ctx, "INSERT INTO log (id, who) VALUES ($1, 'w')", int64(w)*1_000_000+int64(i))
				cancel()
				if err != nil {
					text := err.Error()
					failed.Store(&text)
					return
				}
				inserted.Add(1)
			}
		})
	}
	settle := func() {
		at := inserted.Load()
		b.await("inserts", func() bool { return inserted.Load() > at+50 || failed.Load() != nil })
	}
	settle()
	// The table has rows, so it cannot be sharded yet; a pinned one could.
	expectError(t, setup, "SHARD TABLE log BY HASH (id)", "0A000")
	mustSimple(t, setup, "CREATE TABLE log2 (id bigint PRIMARY KEY, who text)")
	mustSimple(t, setup, "SHARD TABLE log2 BY HASH (id) PARTITIONS 6")
	settle()
	mustSimple(t, setup, "ALTER TABLE log2 ADD COLUMN extra text DEFAULT 'e'")
	other := b.connect(1)
	expect(t, other, "INSERT INTO log2 VALUES (5, 'w', 'x') RETURNING extra", "x\nINSERT 0 1")
	expect(t, setup, "SELECT * FROM log2", "5|w|x\nSELECT 1")
	settle()
	close(stop)
	writers.Wait()
	if text := failed.Load(); text != nil {
		t.Fatal(*text)
	}
	expect(t, other, "SELECT count(*) FROM log", fmt.Sprintf("%d\nSELECT 1", inserted.Load()))
}

// While routers insert, their table is sharded: what was acknowledged is there, each row where it belongs.
func TestShardWhileInserting(t *testing.T) {
	t.Parallel()
	b := newBed(t, 2)
	setup := b.connect(0)
	for attempt := range 20 {
		table := fmt.Sprintf("live%d", attempt)
		mustSimple(t, setup, "CREATE TABLE "+table+" (id bigint PRIMARY KEY, who text)")
		result := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
			defer cancel()
			_, err := setup.PgConn().Exec(ctx, "SHARD TABLE "+table+" BY HASH (id) PARTITIONS 6").ReadAll()
			result <- err
		}()
		b.await("the hold, or the end", func() bool {
			return len(result) > 0 || strings.Contains(mustSimple(t, b.connect(1), "SHOW TABLES"), table)
		})
		var done gosync.WaitGroup
		for w := range 4 {
			conn := b.connect(w % 2)
			done.Go(func() {
				for i := range 25 {
					ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
					_, err := conn.Exec(ctx, "INSERT INTO "+table+" VALUES ($1, 'w')", int64(w*1000+i))
					cancel()
					if err != nil {
						t.Errorf("insert: %v", err)
						return
					}
				}
			})
		}
		done.Wait()
		if err := <-result; err != nil {
			if code(err) != "0A000" { // a row was faster than the hold
				t.Fatal(err)
			}
			continue
		}
		for i := range 2 {
			conn := b.connect(i)
			lines := strings.Split(mustSimple(t, conn, "SELECT id FROM "+table+" ORDER BY id"), "\n")
			if len(lines) != 101 {
				t.Fatalf("%d rows of 100", len(lines)-1)
			}
			for _, id := range lines[:100] {
				expect(t, conn, "SELECT who FROM "+table+" WHERE id = "+id, "w\nSELECT 1")
			}
		}
		if attempt > 3 {
			return
		}
	}
}

// Everything but definitions outlives an outage of etcd.
func TestDirectoryOutage(t *testing.T) {
	b := newBed(t, 1)
	conn := shop(t, b)
	cluster.StopEtcd()
	defer func() {
		if err := cluster.StartEtcd(context.Background()); err != nil {
			t.Fatal(err)
		}
	}()
	expect(t, conn, "SELECT name FROM items WHERE id = 7", "n7\nSELECT 1")
	expect(t, conn, "UPDATE items SET name = 'o' WHERE id = 7", "UPDATE 1")
	expect(t, b.connect(0), "SELECT name FROM items WHERE id = 7", "o\nSELECT 1")
	expectError(t, conn, "CREATE TABLE more (id int)", "57P03")
	expectError(t, conn, "ALTER TABLE items ADD COLUMN more int", "57P03")
}

// A shard's connections lost in a transaction fail the transaction, not the session.
func TestLostConnection(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		conn := shop(t, b)
		mustSimple(t, conn, "BEGIN; INSERT INTO plain VALUES (900, 1)")
		direct(t, 0, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+b.database+
			"' AND state = 'idle in transaction'")
		_, err := simple(t, conn, "SELECT count(*) FROM plain")
		if got := code(err); got != "57P01" && got != "08006" {
			t.Fatalf("got %v", err)
		}
		expectError(t, conn, "SELECT 1", "25P02")
		expect(t, conn, "COMMIT", "ROLLBACK")
		expect(t, conn, "SELECT count(*) FROM plain WHERE id = 900", "0\nSELECT 1")
	})
}

func TestErrorPositions(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		conn := shop(t, b)
		for sql, want := range map[string]int32{
			"SELECT nix":             8,
			"SELECT 'ä'; SELECT nix": 20,
			"SET work_mem = '1MB'; SELECT 1; SELECT nix":                     40,
			"BEGIN; SELECT nix FROM items WHERE id = 3":                      15,
			"SELECT 1; SELECT nix FROM items ORDER BY id":                    0,
			"SELECT name FROM items WHERE id = 3 AND nix":                    41,
			"SELECT 1; UPDATE items SET name = 'all' FROM plain; SELECT 'x'": 0,
		} {
			_, err := simple(t, conn, sql)
			if err == nil {
				t.Fatalf("%s: no error", sql)
			}
			if got := pgPosition(err); want != 0 && got != want {
				t.Errorf("%s: position %d, want %d (%v)", sql, got, want, err)
			}
			_, _ = simple(t, conn, "ROLLBACK")
		}
	})
}
