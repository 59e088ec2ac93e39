package schema

import (
	"strings"
	"testing"

	"github.com/shardyard/shardyard/router/pgerr"
)

// refusals are statements on tables that cannot be sharded as asked: the setup, the statement, the SQLSTATE,
// and words that message or hint must have (the object in the way, the way out).
var refusals = []struct {
	name, setup, statement, state string
	words                         []string
}{
	{"missing", "", "SHARD TABLE nowhere BY HASH (a)", "42P01", []string{"nowhere"}},
	{"missing schema", "", "SHARD TABLE no.there BY HASH (a)", "3F000", []string{`"no"`}},
	{"system", "", "SHARD TABLE pg_class BY HASH (oid)", "42501", []string{"pg_class"}},
	{"view", "CREATE VIEW v AS SELECT 1 AS a", "SHARD TABLE v BY HASH (a)", "42809", []string{"view"}},
	{"temporary", "CREATE TEMP TABLE t (a int)", "SHARD TABLE t BY HASH (a)", "42P01", nil},
	{"partitioned", "CREATE TABLE t (a int) PARTITION BY LIST (a)", "SHARD TABLE t BY HASH (a)", "0A000", []string{"partitioned"}},
	{"child", "CREATE TABLE p (a int); CREATE TABLE t () INHERITS (p)", "SHARD TABLE t BY HASH (a)", "0A000", []string{`"p"`, "NO INHERIT"}},
	{"parent", "CREATE TABLE t (a int); CREATE TABLE c () INHERITS (t)", "SHARD TABLE t BY HASH (a)", "0A000", []string{`"c"`}},
	{"rows", "CREATE TABLE t (a int); INSERT INTO t VALUES (1)", "SHARD TABLE t BY HASH (a)", "0A000", []string{"has rows", "TRUNCATE"}},
	{"rows of pinned", "CREATE TABLE t (a int); INSERT INTO t VALUES (1)", "SHARD TABLE t ON s2", "0A000", []string{"has rows"}},
	{"column", "CREATE TABLE t (a int)", "SHARD TABLE t BY HASH (b)", "42703", []string{`"b"`}},
	{"system column", "CREATE TABLE t (a int)", "SHARD TABLE t BY HASH (ctid)", "42P16", []string{"ctid"}},
	{"column twice", "CREATE TABLE t (a int)", "SHARD TABLE t BY HASH (a, a)", "42701", []string{`"a"`}},
	{"key type", "CREATE TABLE t (a float8)", "SHARD TABLE t BY HASH (a)", "42804", []string{`"a"`, "bigint"}},
	{"domain key", "CREATE DOMAIN d AS int; CREATE TABLE t (a d)", "SHARD TABLE t BY HASH (a)", "42804", []string{"domains"}},
	{"range of boolean", "CREATE TABLE t (a bool)", "SHARD TABLE t BY RANGE (a) (PARTITION p VALUES LESS THAN (MAXVALUE))", "42804", []string{"HASH"}},
	{"generated key", "CREATE TABLE t (a int, b int GENERATED ALWAYS AS (a + 1) STORED)", "SHARD TABLE t BY HASH (b)", "0A000", []string{`"b"`}},
	{"nondeterministic", "CREATE COLLATION nd (provider = icu, locale = 'und-u-ks-level2', deterministic = false); CREATE TABLE t (a text COLLATE nd)",
		"SHARD TABLE t BY HASH (a)", "0A000", []string{"nondeterministic"}},
	{"range of text", "CREATE TABLE t (a text)", "SHARD TABLE t BY RANGE (a) (PARTITION p VALUES LESS THAN (MAXVALUE))", "0A000", []string{`COLLATE "C"`}},
	{"primary key", "CREATE TABLE t (a int, b int PRIMARY KEY)", "SHARD TABLE t BY HASH (a)", "0A000", []string{"t_pkey", "UNIQUE LOCAL"}},
	{"unique", "CREATE TABLE t (a int, b int CONSTRAINT u UNIQUE)", "SHARD TABLE t BY HASH (a)", "0A000", []string{`constraint "u"`}},
	{"unique index", "CREATE TABLE t (a int); CREATE UNIQUE INDEX ui ON t ((a + 1))", "SHARD TABLE t BY HASH (a)", "0A000", []string{`index "ui"`}},
	{"exclusion", "CREATE TABLE t (a int, r int4range, CONSTRAINT ex EXCLUDE USING gist (r WITH &&))", "SHARD TABLE t BY HASH (a)", "0A000", []string{`"ex"`}},
	{"exclusion by another operator", "CREATE TABLE t (a int, CONSTRAINT ex EXCLUDE USING btree (a WITH =)); CREATE EXTENSION btree_gist; ALTER TABLE t ADD CONSTRAINT ex2 EXCLUDE USING gist (a WITH <>)",
		"SHARD TABLE t BY HASH (a)", "0A000", []string{`"ex2"`}},
	{"foreign key to unsharded", "CREATE TABLE u (a int PRIMARY KEY); CREATE TABLE t (a int REFERENCES u)", "SHARD TABLE t BY HASH (a)", "0A000", []string{"t_a_fkey", "COLOCATE"}},
	{"foreign key from unsharded", "CREATE TABLE t (a int PRIMARY KEY); CREATE TABLE u (a int CONSTRAINT f REFERENCES t)", "SHARD TABLE t BY HASH (a)", "0A000", []string{`"f"`, "public.u", "DROP CONSTRAINT f"}},
	{"foreign key without key", "CREATE TABLE t (a int, b int, c int, PRIMARY KEY (a, b), FOREIGN KEY (c, b) REFERENCES t)", "SHARD TABLE t BY HASH (a)", "0A000", []string{"t_c_b_fkey"}},
	{"set null", "CREATE TABLE t (a int, b int, c int, PRIMARY KEY (a, b), FOREIGN KEY (a, c) REFERENCES t ON DELETE SET NULL)", "SHARD TABLE t BY HASH (a)", "0A000", []string{"SET NULL"}},
	{"foreign key of pinned", "CREATE TABLE u (a int PRIMARY KEY); CREATE TABLE t (a int REFERENCES u)", "SHARD TABLE t ON s2", "0A000", []string{"t_a_fkey"}},
	{"view on it", "CREATE TABLE t (a int); CREATE VIEW v AS SELECT * FROM t; CREATE VIEW w AS SELECT * FROM v", "SHARD TABLE t BY HASH (a)", "0A000", []string{"public.v"}},
	{"materialized view on it", "CREATE TABLE t (a int); CREATE MATERIALIZED VIEW mv AS SELECT * FROM t", "SHARD TABLE t ON s2", "0A000", []string{"public.mv"}},
	{"rule", "CREATE TABLE t (a int); CREATE RULE r AS ON INSERT TO t DO NOTHING", "SHARD TABLE t BY HASH (a)", "0A000", []string{"DROP RULE r"}},
	{"rule of another", "CREATE TABLE t (a int); CREATE TABLE u (a int); CREATE RULE r AS ON INSERT TO u DO ALSO INSERT INTO t VALUES (1)", "SHARD TABLE t BY HASH (a)", "0A000", []string{"public.u"}},
	{"before trigger", "CREATE TABLE t (a int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
		"SHARD TABLE t BY HASH (a)", "0A000", []string{`"tr"`, "BEFORE"}},
	{"statement trigger", "CREATE TABLE t (a int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER tr AFTER INSERT ON t EXECUTE FUNCTION f()",
		"SHARD TABLE t BY HASH (a)", "0A000", []string{`"tr"`, "statement-level"}},
	{"trigger that reaches", `CREATE TABLE t (a int); CREATE TABLE "Log x" (a int);
		CREATE FUNCTION g() RETURNS void LANGUAGE sql AS 'INSERT INTO "Log x" VALUES (1)';
		CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM g(); RETURN NULL; END'; CREATE TRIGGER tr AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()`,
		"SHARD TABLE t BY HASH (a)", "0A000", []string{`"tr"`, "Log x"}},
	{"dynamic trigger", `CREATE TABLE t (a int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN EXECUTE TG_ARGV[0]; RETURN NULL; END'; CREATE TRIGGER tr AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f('x')`,
		"SHARD TABLE t BY HASH (a)", "0A000", []string{`"tr"`, "EXECUTE"}},
	{"policy", "CREATE TABLE t (a int); CREATE TABLE u (a int); CREATE POLICY p ON t USING (EXISTS (SELECT FROM u WHERE u.a = t.a))", "SHARD TABLE t BY HASH (a)", "0A000", []string{`"p"`, "public.u"}},
	{"check", "CREATE TABLE u (a int); CREATE FUNCTION f(x int) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM u WHERE a = x)'; CREATE TABLE t (a int CONSTRAINT c CHECK (f(a)))",
		"SHARD TABLE t BY HASH (a)", "0A000", []string{`"c"`, "public.u"}},
	{"default", "CREATE TABLE u (a int); CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT max(a) FROM u'; CREATE TABLE t (a int DEFAULT f())",
		"SHARD TABLE t BY HASH (a)", "0A000", []string{`"a"`, "DROP DEFAULT"}},
	{"serial pinned", "CREATE TABLE t (a serial)", "SHARD TABLE t ON s2", "0A000", []string{"sequence", "DROP DEFAULT"}},
	{"identity pinned", "CREATE TABLE t (a int GENERATED ALWAYS AS IDENTITY)", "SHARD TABLE t ON s2", "0A000", []string{"identity"}},
	{"serial without home", "CREATE TABLE t (a serial)", "SHARD TABLE t BY LIST (a) (PARTITION p VALUES IN (1) PLACEMENT POLICY = s2)", "0A000", []string{"sequence", "home shard"}},
	{"sequence in an expression", "CREATE SEQUENCE s; CREATE TABLE t (a int, b text DEFAULT 'x' || nextval('s'))", "SHARD TABLE t BY HASH (a)", "0A000", []string{"sequence", "nextval"}},
	{"publication", "CREATE TABLE t (a int); CREATE PUBLICATION pub FOR TABLE t", "SHARD TABLE t BY HASH (a)", "0A000", []string{"pub"}},
	{"unknown shard", "CREATE TABLE t (a int)", "SHARD TABLE t ON s9", "42704", []string{"s9"}},
	{"pinned at home", "CREATE TABLE t (a int)", "SHARD TABLE t ON s1", "55000", []string{"home"}},
	{"unknown placement", "CREATE TABLE t (a int)", "SHARD TABLE t BY LIST (a) (PARTITION p VALUES IN (1) PLACEMENT POLICY = s9)", "42704", []string{"s9"}},
	{"bound type", "CREATE TABLE t (a int)", "SHARD TABLE t BY LIST (a) (PARTITION p VALUES IN ('x'))", "22P02", []string{`"x"`}},
	{"bound range", "CREATE TABLE t (a int2)", "SHARD TABLE t BY LIST (a) (PARTITION p VALUES IN (70000))", "22003", nil},
	{"bound too long", "CREATE TABLE t (a varchar(2))", "SHARD TABLE t BY LIST (a) (PARTITION p VALUES IN ('abc'))", "22003", []string{"abc"}},
	{"null bound", "CREATE TABLE t (a int)", "SHARD TABLE t BY RANGE (a) (PARTITION p VALUES LESS THAN (NULL))", "42601", nil},
	{"bounds fall", "CREATE TABLE t (a int)", "SHARD TABLE t BY RANGE (a) (PARTITION p VALUES LESS THAN (2), PARTITION q VALUES LESS THAN (2))", "42P17", []string{`"q"`}},
	{"value twice", "CREATE TABLE t (a numeric)", "SHARD TABLE t BY LIST (a) (PARTITION p VALUES IN (1.0), PARTITION q VALUES IN (1))", "42P17", []string{`"q"`}},
	{"colocate with unsharded", "CREATE TABLE t (a int); CREATE TABLE u (a int)", "SHARD TABLE t BY HASH (a) COLOCATE WITH u", "55000", []string{`"u"`}},
	{"reference", "CREATE TABLE t (a int)", "SHARD TABLE t AS REFERENCE", "0A000", []string{"reference"}},
	{"directory", "CREATE TABLE t (a int)", "SHARD TABLE t BY DIRECTORY (a) ON (nowhere)", "42704", []string{"nowhere"}},
	{"move", "CREATE TABLE t (a int)", "ALTER SHARD TABLE t PARTITION p0 PLACEMENT POLICY = s2", "0A000", nil},
	{"unshard", "CREATE TABLE t (a int)", "UNSHARD TABLE t", "55000", nil},
	{"foreign operator class", "CREATE EXTENSION IF NOT EXISTS citext; CREATE TABLE t (a citext)", "SHARD TABLE t BY HASH (a)", "42804", nil},
}

func TestRefusals(t *testing.T) {
	b := newBench(t)
	b.must0()
	for _, test := range refusals {
		t.Run(test.name, func(t *testing.T) {
			b := *b
			b.t = t
			home := b.home()
			b.exec(home, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
			b.exec(home, test.setup)
			_, err := b.sharding(b.p, test.statement)
			if err == nil {
				t.Fatalf("%s: accepted", test.statement)
			}
			e := pgerr.Of(err)
			text := e.Message + " " + e.Detail + " " + e.Hint
			if e.Code != test.state {
				t.Errorf("got %s", explain(err))
			}
			for _, word := range test.words {
				if !strings.Contains(text, word) {
					t.Errorf("%q is not in %s", word, explain(err))
				}
			}
			if e.Code == "0A000" && e.Hint == "" {
				t.Errorf("no hint: %s", explain(err))
			}
			if m := b.load(); m.AnythingSharded() {
				t.Errorf("the map has %+v", m.Tables)
			}
		})
	}
	b.settled()
}

// must0 registers the database, so that every case has a map.
func (b *bench) must0() {
	b.t.Helper()
	if _, err := b.p.register(b.t.Context(), b.database); err != nil {
		b.t.Fatal(explain(err))
	}
}

func TestUniqueLocalAndPermission(t *testing.T) {
	b := newBench(t)
	home := b.home()
	b.exec(home, "CREATE TABLE t (a int, b int CONSTRAINT ub UNIQUE); CREATE TABLE u (a int)")
	b.must("SHARD TABLE t BY HASH (a) UNIQUE LOCAL")
	if tables := b.load().Tables; len(tables) != 1 || len(tables[0].UniqueLocal) != 1 || tables[0].UniqueLocal[0] != "ub" {
		t.Errorf("map has %+v", tables)
	}
	if _, err := b.sharding(b.p, "SHARD TABLE t BY HASH (a)"); pgerr.Of(err).Code != "55000" {
		t.Errorf("sharded twice: %v", err)
	}
	b.exec(home, "DO $$ BEGIN CREATE ROLE nobody_special; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
	r := mustParse(t, "SHARD TABLE u BY HASH (a)")
	r.Database, r.User = b.database, "nobody_special"
	if _, err := b.p.Perform(t.Context(), r); pgerr.Of(err).Code != "42501" {
		t.Errorf("a stranger sharded the table: %v", err)
	}
	r.User, r.InTransaction = "postgres", true
	if _, err := b.p.Perform(t.Context(), r); pgerr.Of(err).Code != "25001" {
		t.Errorf("sharded in a transaction: %v", err)
	}
}

func TestUncertainBoundsAreAskedOfHome(t *testing.T) {
	b := newBench(t)
	b.exec(b.home(), "CREATE TABLE t (at date)")
	r := mustParse(t, "SHARD TABLE t BY RANGE (at) (PARTITION p VALUES LESS THAN ('02/01/2024'), PARTITION q VALUES LESS THAN (MAXVALUE))")
	r.Database, r.User, r.Settings = b.database, "postgres", map[string]string{"DateStyle": "SQL, DMY", "client_encoding": "LATIN1", "lock_timeout": "0"}
	if _, err := b.p.Perform(t.Context(), r); err != nil {
		t.Fatal(explain(err))
	}
	if got := b.load().Groups[0].Partitions[0].To[0].Value.Text(); got != "2024-01-02" {
		t.Errorf("the bound is %s", got)
	}
}
