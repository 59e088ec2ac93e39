package clients

import (
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
	newDatabase(t, "archived", withoutSharding(shopSchema)+dumpRows)
	newDatabase(t, "unpacked", "")
	dir := filepath.Join(t.TempDir(), "archive")
	mustRun(t, "", "pg_dump", "-Fd", "-j", "1", "-f", dir, "-d", routed.url("archived"))
	mustRun(t, "", "pg_restore", "-j", "2", "-e", "-d", routed.url("unpacked"), dir)
	if d := difference(plain.dump(t, "archived", "--no-blobs"), routed.dump(t, "unpacked", "--no-blobs")); d != "" {
		t.Errorf("what was restored: %s", d)
	}
}

// TestDumpWithShardedTables: the tables that nobody sharded can be dumped; a dump that would miss rows is refused.
func TestDumpWithShardedTables(t *testing.T) {
	ensureShop(t)
	if d := difference(plain.dump(t, "shop", "-t", "plain", "-t", "numbers"), routed.dump(t, "shop", "-t", "plain", "-t", "numbers")); d != "" {
		t.Errorf("pg_dump of an unsharded table: %s", d)
	}
	for _, args := range [][]string{nil, {"-t", "customers"}, {"-a", "-t", "orders"}, {"--inserts", "-t", "customers"}} {
		r := run(t, "", "pg_dump", append(args, "-d", routed.url("shop"))...)
		if r.Code == 0 || !strings.Contains(r.Output, "not supported") {
			t.Errorf("pg_dump %q of sharded tables is not refused: %s", args, r)
		}
	}
}
