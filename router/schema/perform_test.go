package schema

import (
	"slices"
	"testing"

	"github.com/shardyard/shardyard/directory"
)

// everything is a table that has one of each thing that a table can have and keep when it is sharded.
const everything = `
CREATE EXTENSION IF NOT EXISTS citext;
DO $$ BEGIN CREATE ROLE app_owner; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
DO $$ BEGIN CREATE ROLE app_reader; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
CREATE SCHEMA kinds AUTHORIZATION app_owner; GRANT USAGE ON SCHEMA kinds TO app_reader;
CREATE TYPE kinds.mood AS ENUM ('sad', 'ok');
ALTER TYPE kinds.mood ADD VALUE 'fine' BEFORE 'ok';
CREATE TYPE kinds."Address" AS (street text COLLATE "C", zip varchar(10), mood kinds.mood);
CREATE FUNCTION kinds.positive(n numeric) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT n > 0';
CREATE DOMAIN kinds.price AS numeric(10,2) DEFAULT 1 CONSTRAINT positive CHECK (kinds.positive(VALUE));
CREATE TYPE kinds.span AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE FUNCTION helper(x text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower(x)';
CREATE FUNCTION slug(x text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'DECLARE m kinds.mood; BEGIN RETURN public.helper(x); END';
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TABLE all_of_it (
    id bigint NOT NULL,
    gone int,
    mood kinds.mood DEFAULT 'ok',
    moods kinds.mood[],
    address kinds."Address",
    price kinds.price NOT NULL,
    spans kinds.span,
    name varchar(20) COLLATE "C" DEFAULT 'it''s',
    mail citext,
    slug text GENERATED ALWAYS AS (public.slug(name::text)) STORED,
    made timestamptz DEFAULT now(),
    token uuid DEFAULT gen_random_uuid(),
    CONSTRAINT all_pk PRIMARY KEY (id) WITH (fillfactor = 80),
    CONSTRAINT pair UNIQUE (name, id) DEFERRABLE,
    CONSTRAINT cheap CHECK (price < 1000),
    CONSTRAINT later CHECK (length(name) > 0) NOT VALID
) WITH (fillfactor = 70, autovacuum_enabled = false);
ALTER TABLE all_of_it DROP COLUMN gone;
ALTER TABLE all_of_it ALTER COLUMN name SET STATISTICS 500, ALTER COLUMN slug SET STORAGE EXTERNAL, ALTER COLUMN id SET (n_distinct = -1);
CREATE INDEX by_slug ON all_of_it (slug text_pattern_ops, (lower(name)) DESC) WITH (fillfactor = 60) WHERE price > 5;
CREATE STATISTICS both_columns ON name, id FROM all_of_it;
CREATE TRIGGER noted AFTER INSERT OR UPDATE OF name ON all_of_it FOR EACH ROW WHEN (NEW.price > 3) EXECUTE FUNCTION note('x');
CREATE TRIGGER asleep AFTER DELETE ON all_of_it FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE all_of_it DISABLE TRIGGER asleep;
ALTER TABLE all_of_it ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON all_of_it AS RESTRICTIVE FOR SELECT TO app_reader, app_owner USING (name = current_user);
ALTER TABLE all_of_it REPLICA IDENTITY FULL;
ALTER TABLE all_of_it CLUSTER ON all_pk;
COMMENT ON TABLE all_of_it IS 'all of ''it''';
COMMENT ON COLUMN all_of_it.name IS 'a name'; COMMENT ON CONSTRAINT cheap ON all_of_it IS 'cheap'; COMMENT ON INDEX by_slug IS 'slugs';
GRANT SELECT, INSERT ON all_of_it TO app_reader; GRANT UPDATE (name) ON all_of_it TO app_reader WITH GRANT OPTION;
ALTER TABLE all_of_it OWNER TO app_owner;
-- as PostgreSQL 15.20 and its kin note it, other on each server
UPDATE pg_catalog.pg_attribute SET attoptions = coalesce(attoptions, '{}') || ARRAY['pg_attver=' || attnum * 1000]
WHERE attrelid = 'all_of_it'::regclass AND attnum > 0 AND NOT attisdropped;
`

func TestShardTableCopiesEverything(t *testing.T) {
	b := newBench(t)
	b.exec(b.home(), everything)
	b.must("SHARD TABLE all_of_it BY HASH (id) PARTITIONS 6")
	want := b.definitionOn(0, "all_of_it")
	if len(want.Objects) < 15 || len(want.Access) < 5 {
		t.Errorf("the definition lacks things:\n%v", want.statements())
	}
	for shard := 1; shard < 3; shard++ {
		got := b.definitionOn(shard, "all_of_it")
		if got == nil {
			t.Fatalf("shard %d has no table", shard)
		}
		if !got.equal(want) {
			t.Errorf("shard %d: %s", shard, want.firstDifference(got))
		}
		b.exec(b.connect(shard, b.database), "INSERT INTO all_of_it (id, mood, moods, address, price) VALUES (1, 'fine', '{sad}', '(a,b,ok)', 7)")
	}
	m := b.load()
	table, ok := m.Table(directory.TableName{Schema: "public", Name: "all_of_it"})
	if !ok || table.Kind != directory.TableSharded || len(m.ShardsOf(table)) != 3 {
		t.Errorf("map has %+v", table)
	}
	b.settled()
}

func TestPinTableLeavesPlaceholder(t *testing.T) {
	b := newBench(t)
	home := b.home()
	b.exec(home, everything)
	before := b.definitionOn(0, "all_of_it")
	b.must("SHARD TABLE all_of_it ON s3")
	if b.definitionOn(1, "all_of_it") != nil {
		t.Error("shard 1 got the table")
	}
	if got := b.definitionOn(2, "all_of_it"); got == nil || !got.equal(before) {
		t.Errorf("shard 2 has %v", got)
	}
	if _, err := home.Exec(t.Context(), "SELECT * FROM all_of_it"); !isState(err, "55000") {
		t.Errorf("the placeholder can be read: %v", err)
	}
	stand := b.definitionOn(0, "all_of_it")
	if !slices.Equal(stand.Access, before.Access) && len(stand.Access) != len(before.Access) {
		t.Errorf("placeholder's access is %v, not %v", stand.Access, before.Access)
	}
	for i, column := range before.Columns {
		if got := stand.Columns[i]; got.text() != column.text() {
			t.Errorf("placeholder has %s, not %s", got.text(), column.text())
		}
	}
	b.must("UNSHARD TABLE all_of_it")
	if got := b.definitionOn(0, "all_of_it"); !got.equal(before) {
		t.Errorf("after UNSHARD: %s", before.firstDifference(got))
	}
	if b.definitionOn(2, "all_of_it") != nil || b.load().AnythingSharded() {
		t.Error("something is left after UNSHARD")
	}
	b.settled()
}

func TestColocatedForeignKeys(t *testing.T) {
	b := newBench(t)
	b.exec(b.home(), `CREATE TABLE customers (id int PRIMARY KEY, boss int);
		CREATE TABLE orders (id bigint, customer bigint NOT NULL, PRIMARY KEY (customer, id));
		CREATE TABLE lines (customer bigint, number bigint, line int, PRIMARY KEY (customer, number, line),
			FOREIGN KEY (customer, number) REFERENCES orders (customer, id) ON DELETE CASCADE)`)
	b.must("SHARD TABLE customers BY HASH (id) PARTITIONS 4")
	if _, err := b.sharding(b.p, "SHARD TABLE orders BY HASH (customer) COLOCATE WITH customers"); err == nil {
		t.Error("orders were sharded although lines references them")
	}
	b.exec(b.home(), "ALTER TABLE lines DROP CONSTRAINT lines_customer_number_fkey")
	b.must("SHARD TABLE orders BY HASH (customer) COLOCATE WITH customers")
	b.exec(b.home(), "ALTER TABLE lines ADD CONSTRAINT line_of FOREIGN KEY (customer, number) REFERENCES orders (customer, id) ON DELETE CASCADE")
	b.must("SHARD TABLE lines BY HASH (customer) COLOCATE WITH orders")
	b.mustDDL("ALTER TABLE", "ALTER TABLE orders ADD CONSTRAINT of_customer FOREIGN KEY (customer) REFERENCES customers (id)", "orders")
	for shard := range 3 {
		if got := b.definitionOn(shard, "lines"); got == nil || len(got.Objects) != 2 {
			t.Errorf("shard %d: lines is %v", shard, got)
		}
		if got := b.definitionOn(shard, "orders"); got == nil || len(got.Objects) != 2 {
			t.Errorf("shard %d: orders is %v", shard, got)
		}
	}
	m := b.load()
	if len(m.Groups) != 1 {
		t.Errorf("there are %d groups", len(m.Groups))
	}
	b.settled()
}

func TestMethods(t *testing.T) {
	b := newBench(t)
	b.exec(b.home(), `CREATE TABLE events (at timestamptz NOT NULL, n numeric(6,2)); CREATE TABLE users (country varchar(2), id int);
		CREATE TABLE sessions (region text, user_id uuid, PRIMARY KEY (region, user_id)); CREATE TABLE wide (a int, b date, c text)`)
	b.must(`SHARD TABLE events BY RANGE (at) (PARTITION old VALUES LESS THAN ('2025-01-01') PLACEMENT POLICY = s2,
		PARTITION rest VALUES LESS THAN (MAXVALUE) PLACEMENT POLICY = s3)`)
	b.must(`SHARD TABLE users BY LIST (country) (PARTITION eu VALUES IN ('de', 'fr') PLACEMENT POLICY = s2, PARTITION other DEFAULT)`)
	b.must(`SHARD TABLE sessions BY LIST (region) SUBPARTITION BY HASH (user_id) SUBPARTITIONS 4 (PARTITION eu VALUES IN ('eu'), PARTITION us VALUES IN ('us', NULL))`)
	b.must(`SHARD TABLE wide BY RANGE (a, b) (PARTITION p0 VALUES LESS THAN (10, '2025-01-01'), PARTITION p1 VALUES LESS THAN (10, MAXVALUE), PARTITION p2 VALUES LESS THAN (MAXVALUE, MAXVALUE))`)
	m := b.load()
	events, _ := m.Table(directory.TableName{Schema: "public", Name: "events"})
	if got := m.ShardsOf(events); len(got) != 2 || slices.Contains(got, m.Home) {
		t.Errorf("events is on %v", got)
	}
	if d := b.definitionOn(0, "events"); len(d.Columns) != 2 {
		t.Errorf("the home shard has %v", d)
	}
	shown, err := b.sharding(b.p, "SHOW PARTITIONS FROM sessions")
	if err != nil || len(shown.Rows) != 8 || shown.Rows[5][3] != "us" || shown.Rows[5][0] != "us_s1" {
		t.Errorf("SHOW PARTITIONS: %v, %v", shown, err)
	}
	shown, err = b.sharding(b.p, "SHOW TABLES")
	if err != nil || len(shown.Rows) != 4 || shown.Rows[1][3] != "list, hash" || shown.Rows[1][4] != "(region), (user_id)" {
		t.Errorf("SHOW TABLES: %v, %v", shown, err)
	}
	shown, err = b.sharding(b.p, "SHOW SHARDS")
	if err != nil || len(shown.Rows) != 3 || shown.Rows[0][1] != "home" || shown.Columns[0] != "name" {
		t.Errorf("SHOW SHARDS: %v, %v", shown, err)
	}
	b.settled()
}
