package clients

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// dumpKeys are random words that pg_dump writes into its text.
var dumpKeys = regexp.MustCompile(`(?m)^\\(un)?restrict .*$`)

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// dump is pg_dump's text.
func (s side) dump(t *testing.T, database string, args ...string) string {
	t.Helper()
	shown := mustRun(t, "", "pg_dump", append(args, "-d", s.url(database))...)
	return dumpKeys.ReplaceAllString(shown, `\restrict`)
}

// dumpRows make a database worth dumping.
const dumpRows = `
INSERT INTO customers SELECT g, 'name ' || g, (ARRAY['sad', 'ok', 'happy'])[1 + g % 3]::mood, date '2024-01-01' + g FROM generate_series(1, 2000) g;
INSERT INTO orders SELECT g, 1, E'tab\t, quote '' and back\\slash', g + 0.5 FROM generate_series(1, 2000) g;
SELECT setval('numbers', 42);
CREATE TABLE parts (k int, v bytea) PARTITION BY RANGE (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
INSERT INTO parts SELECT g, decode(md5(g::text), 'hex') FROM generate_series(0, 99) g;
CREATE MATERIALIZED VIEW seen AS SELECT feels, count(*) FROM customers GROUP BY feels;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := coalesce(NEW.v, 'none'); RETURN NEW; END $$;
CREATE TRIGGER noted BEFORE INSERT ON plain FOR EACH ROW EXECUTE FUNCTION note();
GRANT SELECT ON plain TO pg_read_all_data;
SELECT lo_from_bytea(0, 'large') IS NOT NULL;
`

// TestDump: where nothing is sharded pg_dump through the router writes what it writes directly, and its text
// can be loaded through the router.
func TestDump(t *testing.T) {
	t.Parallel()
	newDatabase(t, "dumped", withoutSharding(shopSchema)+dumpRows)
	const blobs = "--no-blobs" // their OIDs differ between any two servers
	want := plain.dump(t, "dumped", blobs)
	if d := difference(want, routed.dump(t, "dumped", blobs)); d != "" {
		t.Errorf("pg_dump: %s", d)
	}
	for _, args := range [][]string{{blobs, "--inserts"}, {blobs, "--schema-only"}, {blobs, "--data-only"}, {"-t", "plain"}, {"-t", "customers", "-t", "orders", "--column-inserts"}} {
		if d := difference(plain.dump(t, "dumped", args...), routed.dump(t, "dumped", args...)); d != "" {
			t.Errorf("pg_dump %q: %s", args, d)
		}
	}
	withBlobs := routed.dump(t, "dumped")
	contains(t, withBlobs, "lo_create", "lowrite")

	newDatabase(t, "restored", "")
	file := writeFile(t, "dump.sql", strings.ReplaceAll(want, "\\restrict\n", ""))
	for _, s := range sides {
		mustRun(t, "", "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-1", "-f", file, "-d", s.url("restored"))
		if d := difference(want, s.dump(t, "restored", blobs)); d != "" {
			t.Errorf("the dump of what was restored on %s: %s", s.name, d)
		}
	}
}

// TestDumpArchive goes through pg_restore, with several connections at once.
func TestDumpArchive(t *testing.T) {
	t.Parallel()
	newDatabase(t, "archived", withoutSharding(shopSchema)+dumpRows)
	newDatabase(t, "unpacked", "")
	dir := filepath.Join(t.TempDir(), "archive")
	mustRun(t, "", "pg_dump", "-Fd", "-j", "1", "-f", dir, "-d", routed.url("archived"))
	mustRun(t, "", "pg_restore", "-j", "2", "-e", "-d", routed.url("unpacked"), dir)
	if d := difference(plain.dump(t, "archived", "--no-blobs"), routed.dump(t, "unpacked", "--no-blobs")); d != "" {
		t.Errorf("what was restored: %s", d)
	}
}

// shardedDump is a database with tables of all kinds.
const shardedDump = shopSchema + `
CREATE TABLE tenants (id text PRIMARY KEY, label text);
SHARD TABLE tenants BY DIRECTORY (id) ASSIGN ROUND ROBIN;
CREATE TABLE countries (code text PRIMARY KEY, name text NOT NULL, UNIQUE (name));
SHARD TABLE countries AS REFERENCE;
ALTER TABLE customers ADD COLUMN country text REFERENCES countries;
INSERT INTO countries VALUES ('de', 'Germany'), ('fr', 'France'), ('nz', E'New\tZealand');
INSERT INTO tenants VALUES ('a', 'A'), ('b', 'B'), ('c', 'C'), ('d', 'D'), ('e', NULL);
CREATE INDEX customers_name ON customers (lower(name)) INCLUDE (joined);
CREATE FUNCTION loud() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER heard AFTER INSERT ON countries FOR EACH ROW EXECUTE FUNCTION loud();
CREATE ROLE dump_reader_DATABASE;
GRANT SELECT ON customers TO dump_reader_DATABASE;
GRANT SELECT ON countries TO dump_reader_DATABASE;
GRANT SELECT ON plain TO dump_reader_DATABASE;
COMMENT ON TABLE customers IS 'on all shards';
COMMENT ON COLUMN countries.code IS 'ISO 3166';
`

// rowsOfAll are the rows of every table of a dump's database, in an order of their own.
var rowsOfAll = func() string {
	var script strings.Builder
	for _, table := range []string{"customers", "orders", "tenants", "countries", "plain", "short"} {
		script.WriteString("SELECT '" + table + "', t.* FROM " + table + " t ORDER BY 2, 3;\n")
	}
	return script.String()
}()

// TestDumpOfShardedTables: pg_dump through the router of tables of all kinds is what it is of one Postgres, and
// restores there with every row once.
func TestDumpOfShardedTables(t *testing.T) {
	t.Parallel()
	script := strings.ReplaceAll(shardedDump, "DATABASE", "whole")
	for id := 1; id <= shopCustomers; id++ {
		script += fmt.Sprintf("INSERT INTO customers VALUES (%[1]d, 'name %[1]d', 'sad', date '2024-01-01' + %[1]d, 'de');\n", id)
		script += fmt.Sprintf("INSERT INTO orders VALUES (%[1]d, 1, E'tab\\t', %[1]d.50), (%[1]d, 2, NULL, 0);\n", id)
	}
	newDatabase(t, "whole", script)
	shown := routed.dump(t, "whole")
	for _, ours := range []string{"shardyard", "FOREIGN DATA", "FOREIGN TABLE", "capture"} {
		if strings.Contains(shown, ours) {
			t.Errorf("the dump tells of %q", ours)
		}
	}
	if d := difference(plain.dump(t, "whole", "--schema-only"), routed.dump(t, "whole", "--schema-only")); d != "" {
		t.Errorf("pg_dump --schema-only: %s", d)
	}
	plain.do(t, "postgres", "CREATE DATABASE whole_again")
	file := writeFile(t, "dump.sql", strings.ReplaceAll(shown, "\\restrict\n", ""))
	mustRun(t, "", "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", file, "-d", plain.url("whole_again"))
	if d := difference(plain.dump(t, "whole", "--schema-only"), plain.dump(t, "whole_again", "--schema-only")); d != "" {
		t.Errorf("the schema of what was restored: %s", d)
	}
	if d := difference(plain.do(t, "whole", rowsOfAll), plain.do(t, "whole_again", rowsOfAll)); d != "" {
		t.Errorf("the rows of what was restored: %s", d)
	}
	plain.do(t, "postgres", "DROP DATABASE whole_again") // the two sides have the same databases again

	routed.do(t, "whole", "CREATE TABLE away (id int PRIMARY KEY); SHARD TABLE away ON s2;")
	if r := run(t, "", "pg_dump", "-d", routed.url("whole")); r.Code == 0 || !strings.Contains(r.Output, "has no partition on the home shard") {
		t.Errorf("pg_dump of a table that is not on the home shard is not refused: %s", r)
	}
	if d := difference(shown, routed.dump(t, "whole", "-T", "away")); d != "" {
		t.Errorf("pg_dump without it: %s", d)
	}
}

// TestDumpParts: single tables are dumped as from one Postgres; INSERTs, which need a cursor, are refused.
func TestDumpParts(t *testing.T) {
	ensureShop(t)
	if d := difference(plain.dump(t, "shop", "-t", "plain", "-t", "numbers"), routed.dump(t, "shop", "-t", "plain", "-t", "numbers")); d != "" {
		t.Errorf("pg_dump of an unsharded table: %s", d)
	}
	for _, args := range [][]string{{"-t", "customers"}, {"-a", "-t", "orders"}} {
		want, got := sortedLines(plain.dump(t, "shop", args...), false), sortedLines(routed.dump(t, "shop", args...), false)
		if d := difference(want, got); d != "" {
			t.Errorf("pg_dump %q of sharded tables: %s", args, d)
		}
	}
	if r := run(t, "", "pg_dump", "--inserts", "-t", "customers", "-d", routed.url("shop")); r.Code == 0 || !strings.Contains(r.Output, "not supported") {
		t.Errorf("pg_dump --inserts of a sharded table is not refused: %s", r)
	}
}
