package clients

import (
	"database/sql"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/golang-migrate/migrate/v4"
	migratepgx "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	"github.com/golang-migrate/migrate/v4/source/iofs"
	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

// migrationFiles are two migrations that change every shard, and one that fails at its end.
var migrationFiles = fstest.MapFS{
	"1_notes.up.sql": {Data: []byte(`
CREATE TYPE colour AS ENUM ('red', 'green');
ALTER TABLE customers ADD COLUMN note text NOT NULL DEFAULT 'none', ADD COLUMN paint colour DEFAULT 'green';
CREATE INDEX customers_note ON customers (note);
CREATE TABLE logs (id int PRIMARY KEY, what text);
INSERT INTO logs VALUES (1, 'migrated');
INSERT INTO customers (id, name, note) VALUES (1001, 'new', 'by migration'), (1002, 'new', 'by migration'), (1003, 'new', 'by migration');
UPDATE customers SET note = 'old' WHERE id < 1000;
`)},
	"1_notes.down.sql": {Data: []byte(`
DELETE FROM customers WHERE id > 1000;
DROP TABLE logs;
ALTER TABLE customers DROP COLUMN note, DROP COLUMN paint;
DROP TYPE colour;
`)},
	"2_broken.up.sql": {Data: []byte(`
ALTER TABLE customers ADD COLUMN broken int;
ALTER TABLE plain ADD COLUMN broken int;
UPDATE customers SET broken = 1;
INSERT INTO plain (id, v) VALUES (1, 'there already');
`)},
	"2_broken.down.sql": {Data: []byte("SELECT 1")},
}

// TestMigrate: golang-migrate migrates every shard; a migration that fails leaves none changed.
func TestMigrate(t *testing.T) {
	t.Parallel()
	newDatabase(t, "migrated", shopSchema+"INSERT INTO customers (id, name) VALUES (7, 'name'), (8, 'name'), (9, 'name');\n")
	source, err := iofs.New(migrationFiles, ".")
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("pgx", routed.url("migrated"))
	if err != nil {
		t.Fatal(err)
	}
	driver, err := migratepgx.WithInstance(db, &migratepgx.Config{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := migrate.NewWithInstance("iofs", source, "pgx", driver)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = m.Close() }()
	columns := func(want string) {
		t.Helper()
		for i, shard := range bed.Shards.Shards() {
			conn, err := pgx.Connect(t.Context(), bed.Shards.ConnString(i, "migrated"))
			if err != nil {
				t.Fatal(err)
			}
			var got string
			err = conn.QueryRow(t.Context(), `SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
				WHERE attrelid = 'customers'::regclass AND attnum > 4 AND NOT attisdropped`).Scan(&got)
			_ = conn.Close(t.Context())
			if want == "" && got == "" {
				continue
			}
			if err != nil || got != want {
				t.Errorf("shard %s has the columns %q, not %q (%v)", shard.ID, got, want, err)
			}
		}
	}
	if err := m.Steps(1); err != nil {
		t.Fatal(err)
	}
	columns("note paint")
	if got := strings.TrimSpace(routed.do(t, "migrated", "SELECT note FROM customers WHERE id = 1001; SELECT note FROM customers WHERE id = 7; SELECT what FROM logs")); got != "by migration\nold\nmigrated" {
		t.Errorf("after the first migration: %q", got)
	}
	if err := m.Steps(1); err == nil || !strings.Contains(err.Error(), "plain_pkey") {
		t.Errorf("the broken migration: %v", err)
	}
	columns("note paint")
	if err := m.Force(1); err != nil {
		t.Fatal(err)
	}
	if err := m.Steps(-1); err != nil {
		t.Fatal(err)
	}
	columns("")
	if got := strings.TrimSpace(routed.do(t, "migrated", "SELECT name FROM customers WHERE id = 7")); got != "name" {
		t.Errorf("after going back: %q", got)
	}
}
