package schema

import (
	"testing"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/shardsql"
	"github.com/shardyard/shardyard/router/pgerr"
)

func mustParse(t *testing.T, sql string) Request {
	t.Helper()
	statement, err := shardsql.Parse(sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return Request{Statement: statement, SQL: sql, User: "postgres", SearchPath: []string{"public"}}
}

func (b *bench) alike(table string, shards ...int) *definition {
	b.t.Helper()
	want := b.definitionOn(shards[0], table)
	for _, shard := range shards[1:] {
		got := b.definitionOn(shard, table)
		if got == nil || want == nil {
			b.t.Fatalf("table %s: shard %d has %v, shard %d has %v", table, shards[0], want, shard, got)
		}
		if !got.equal(want) {
			b.t.Errorf("shard %d: %s", shard, want.firstDifference(got))
		}
	}
	return want
}

func TestDDLOnAllShards(t *testing.T) {
	b := newBench(t)
	home := b.home()
	b.exec(home, "CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE t (id int PRIMARY KEY, n text)")
	b.must("SHARD TABLE t BY HASH (id)")
	b.exec(home, "CREATE TYPE color AS ENUM ('red')")
	before := b.load()
	for _, s := range [][2]string{
		{"ALTER TABLE", "ALTER TABLE t ADD COLUMN c color DEFAULT 'red', ADD COLUMN d int NOT NULL DEFAULT 7"},
		{"ALTER TABLE", "ALTER TABLE t RENAME COLUMN n TO note"},
		{"ALTER TABLE", "ALTER TABLE t ALTER COLUMN d TYPE bigint, ADD CHECK (d > 0)"},
		{"ALTER TABLE", "ALTER TABLE t ADD UNIQUE (id, note)"},
		{"CREATE INDEX", "CREATE INDEX ON t (note)"},
		{"CREATE INDEX", "CREATE UNIQUE INDEX un ON t (d, id)"},
		{"DROP INDEX", "DROP INDEX t_note_idx"},
		{"COMMENT", "COMMENT ON COLUMN t.note IS 'a note'"},
		{"GRANT", "GRANT SELECT ON t TO PUBLIC"},
		{"ALTER TABLE", "ALTER TABLE t ALTER COLUMN note SET NOT NULL"},
		{"ALTER TABLE", "ALTER TABLE t DROP COLUMN c"},
	} {
		b.mustDDL(s[0], s[1], "t")
		b.alike("t", 0, 1, 2)
	}
	after := b.load()
	if after.CatalogVersion <= before.CatalogVersion {
		t.Error("the catalog version did not rise")
	}
	b.mustDDL("ALTER TABLE", "ALTER TABLE t RENAME TO renamed", "t")
	if _, ok := b.load().Table(directory.TableName{Schema: "public", Name: "renamed"}); !ok {
		t.Error("the map did not follow the new name")
	}
	b.alike("renamed", 0, 1, 2)
	if err := b.ddl("DROP TABLE", "DROP TABLE renamed", "renamed"); err != nil {
		t.Fatal(explain(err))
	}
	if b.load().AnythingSharded() || b.definitionOn(1, "renamed") != nil {
		t.Error("something is left of the dropped table")
	}
	b.settled()
}

func TestDDLOfPlaceholder(t *testing.T) {
	b := newBench(t)
	b.exec(b.home(), "CREATE TABLE t (id int, n text DEFAULT 'x'); CREATE SCHEMA other")
	b.must("SHARD TABLE t BY LIST (id) (PARTITION a VALUES IN (1) PLACEMENT POLICY = s2, PARTITION b DEFAULT PLACEMENT POLICY = s3)")
	for _, s := range [][2]string{
		{"ALTER TABLE", "ALTER TABLE t ADD COLUMN d numeric(8,2) DEFAULT 7, DROP COLUMN n"},
		{"ALTER TABLE", "ALTER TABLE t RENAME COLUMN d TO e"},
		{"ALTER TABLE", "ALTER TABLE t ALTER COLUMN e TYPE bigint, ALTER COLUMN e SET NOT NULL"},
		{"GRANT", "GRANT SELECT ON t TO PUBLIC"},
		{"COMMENT", "COMMENT ON TABLE t IS 'away'"},
		{"CREATE INDEX", "CREATE INDEX ei ON t (e)"},
	} {
		b.mustDDL(s[0], s[1], "t")
		real, stand := b.alike("t", 1, 2), b.definitionOn(0, "t")
		if len(stand.Columns) != len(real.Columns) {
			t.Fatalf("%s: placeholder has %v", s[1], stand.Columns)
		}
		for i := range real.Columns {
			if stand.Columns[i].text() != real.Columns[i].text() {
				t.Errorf("%s: placeholder has %s, the table %s", s[1], stand.Columns[i].text(), real.Columns[i].text())
			}
		}
		if len(stand.Access) != len(real.Access) {
			t.Errorf("%s: placeholder has %v, the table %v", s[1], stand.Access, real.Access)
		}
	}
	b.mustDDL("ALTER TABLE", "ALTER TABLE t SET SCHEMA other", "t")
	if tables := b.load().Tables; len(tables) != 1 || tables[0].Name.Schema != "other" {
		t.Errorf("map has %+v", tables)
	}
	b.settled()
}

func TestDDLRefusals(t *testing.T) {
	b := newBench(t)
	home := b.home()
	b.exec(home, `CREATE TABLE t (id int, n int, at date); CREATE TABLE log (n int); CREATE TABLE pinned (a int); CREATE TABLE other (a int PRIMARY KEY); INSERT INTO other VALUES (1);
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (1); RETURN NULL; END';
		CREATE FUNCTION quiet() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`)
	b.must("SHARD TABLE t BY HASH (id) PARTITIONS 6")
	b.must("SHARD TABLE pinned ON s2")
	for shard := range 3 {
		b.exec(b.connect(shard, b.database), "INSERT INTO t VALUES (1, 1)")
	}
	want := b.alike("t", 0, 1, 2)
	for _, test := range []struct{ tag, sql, state string }{
		{"ALTER TABLE", "ALTER TABLE t ADD UNIQUE (n)", "0A000"},
		{"ALTER TABLE", "ALTER TABLE t ADD PRIMARY KEY (n)", "0A000"},
		{"ALTER TABLE", "ALTER TABLE t DROP COLUMN id", "0A000"},
		{"ALTER TABLE", "ALTER TABLE t RENAME COLUMN id TO key", "0A000"},
		{"ALTER TABLE", "ALTER TABLE t ALTER COLUMN id TYPE text", "0A000"},
		{"ALTER TABLE", "ALTER TABLE t ADD COLUMN s serial", "0A000"},
		{"ALTER TABLE", "ALTER TABLE t ADD COLUMN made timestamptz DEFAULT now()", "0A000"},
		{"ALTER TABLE", "ALTER TABLE t ADD FOREIGN KEY (n) REFERENCES other (a)", "0A000"},
		{"CREATE TRIGGER", "CREATE TRIGGER tr AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()", "0A000"},
		{"CREATE TRIGGER", "CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION quiet()", "0A000"},
		{"CREATE RULE", "CREATE RULE r AS ON INSERT TO t DO NOTHING", "0A000"},
		{"CREATE INDEX", "CREATE INDEX CONCURRENTLY ON t (n)", "0A000"},
		{"ALTER TABLE", "ALTER TABLE t ADD COLUMN n int", "42701"},
		{"CREATE UNIQUE INDEX", "CREATE INDEX x ON t (nothing)", "42703"},
	} {
		err := b.ddl(test.tag, test.sql, "t")
		if err == nil || pgerr.Of(err).Code != test.state {
			t.Errorf("%s: %v", test.sql, err)
		}
		if err != nil && test.state == "0A000" && pgerr.Of(err).Hint == "" {
			t.Errorf("%s: no hint", test.sql)
		}
	}
	if err := b.ddl("CREATE INDEX", "CREATE INDEX x ON t (nothing)", "t"); pgerr.Of(err).Position == 0 && pgerr.Of(err).Routine == "" {
		t.Errorf("the shard's error came incomplete: %+v", pgerr.Of(err))
	}
	if err := b.ddl("DROP TABLE", "DROP TABLE t, pinned", "t", "pinned"); pgerr.Of(err).Code != "0A000" {
		t.Errorf("two tables on different shards: %v", err)
	}
	if got := b.alike("t", 0, 1, 2); !got.equal(want) {
		t.Errorf("a refused statement changed the table: %s", want.firstDifference(got))
	}
	b.mustDDL("CREATE TRIGGER", "CREATE TRIGGER tr AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION quiet()", "t")
	b.alike("t", 0, 1, 2)
	b.settled()
}

func TestObjectDDL(t *testing.T) {
	b := newBench(t)
	b.exec(b.home(), `CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE log (n int);
		CREATE FUNCTION quiet() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
		CREATE TABLE t (id int, m mood); CREATE TRIGGER tr AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION quiet()`)
	b.must("SHARD TABLE t BY HASH (id)")
	b.mustDDL("ALTER TYPE", "ALTER TYPE mood ADD VALUE 'ok'")
	for shard := range 3 {
		b.exec(b.connect(shard, b.database), "INSERT INTO t VALUES (1, 'ok')")
	}
	if err := b.ddl("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION quiet() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (1); RETURN NULL; END'"); pgerr.Of(err).Code != "0A000" {
		t.Errorf("a trigger's function now reaches an unsharded table: %v", err)
	}
	b.mustDDL("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION quiet() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''x''; RETURN NULL; END'")
	for shard := range 3 {
		var source string
		if err := b.connect(shard, b.database).QueryRow(t.Context(), "SELECT prosrc FROM pg_proc WHERE proname = 'quiet'").Scan(&source); err != nil || len(source) < 40 {
			t.Errorf("shard %d has %q, %v", shard, source, err)
		}
	}
	b.settled()
}

// TestDDLRights: the statement runs with the user's rights, on a connection that is the user's.
func TestDDLRights(t *testing.T) {
	b := newBench(t)
	b.exec(b.home(), `DO $$ BEGIN CREATE ROLE table_owner LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
		DO $$ BEGIN CREATE ROLE stranger LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
		CREATE TABLE t (id int, n int); ALTER TABLE t OWNER TO table_owner; GRANT CREATE ON SCHEMA public TO table_owner;
		CREATE FUNCTION grab(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RESET SESSION AUTHORIZATION; ALTER ROLE stranger SUPERUSER; RETURN 1; END'`)
	b.must("SHARD TABLE t BY HASH (id) PARTITIONS 3")
	for shard := range 3 {
		b.exec(b.connect(shard, b.database), "INSERT INTO t VALUES (1, 1)")
	}
	if err := b.ddlOf(b.p, "stranger", "ALTER TABLE", "ALTER TABLE t ADD COLUMN x int", "t"); pgerr.Of(err).Code != "42501" {
		t.Errorf("a stranger changed the table: %v", err)
	}
	if err := b.ddlOf(b.p, "table_owner", "ALTER TABLE", "ALTER TABLE t ALTER COLUMN n TYPE bigint USING grab(n)", "t"); pgerr.Of(err).Code != "42501" {
		t.Errorf("the user's code took other rights: %v", err)
	}
	if err := b.ddlOf(b.p, "table_owner", "ALTER TABLE", "ALTER TABLE t ADD COLUMN x int", "t"); err != nil {
		t.Error(explain(err))
	}
	b.alike("t", 0, 1, 2)
	b.settled()
}
