package clients

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// masks hide what differs between any two servers.
var masks = []struct {
	pattern *regexp.Regexp
	text    string
}{
	{regexp.MustCompile(`Time: [0-9.]+ ms.*`), "Time: N ms"},
	{regexp.MustCompile(`actual time=[0-9.]+`), "actual time=N"},
	{regexp.MustCompile(`pg_temp_\d+`), "pg_temp_N"},
	{regexp.MustCompile(`'\d{5}'`), "'OID'"}, // in psql's own queries, shown by -E
	{regexp.MustCompile(`postgres://\S+`), "URL"},
}

func masked(r result) string {
	text := r.String()
	for _, m := range masks {
		text = m.pattern.ReplaceAllString(text, m.text)
	}
	return text
}

// sameOnBoth runs psql on both sides and compares all that it shows; DIR in the script and the arguments
// is a folder of that side's own. It returns the folders and what was shown.
func sameOnBoth(t *testing.T, database, script string, args ...string) (dirs [2]string, shown string) {
	t.Helper()
	var outputs [2]string
	for i, s := range sides {
		dirs[i] = t.TempDir()
		own := slices.Clone(args)
		for n := range own {
			own[n] = strings.ReplaceAll(own[n], "DIR", dirs[i])
		}
		r := s.psql(t, database, strings.ReplaceAll(script, "DIR", dirs[i]), own...)
		outputs[i] = strings.ReplaceAll(masked(r), dirs[i], "DIR")
	}
	if d := difference(outputs[0], outputs[1]); d != "" {
		t.Errorf("psql shows something else through the router: %s", d)
	}
	return dirs, outputs[1]
}

// contains fails unless the texts are all there, in this order.
func contains(t *testing.T, shown string, texts ...string) {
	t.Helper()
	rest := shown
	for _, text := range texts {
		_, after, ok := strings.Cut(rest, text)
		if !ok {
			t.Fatalf("%q is not shown, or not where it belongs, in\n%s", text, shown)
		}
		rest = after
	}
}

// psqlCommands describe what is there.
const psqlCommands = `\d
\d+
\dt
\d orders
\d+ customers
\d plain
\d+ plain
\d short
\d+ short
\d orders_item
\d numbers
\di
\dv
\ds
\l
\du
\dg
\df
\df+ twice
\sf twice
\sv short
\dT
\dT+ mood
\dC mood
\dp
\dd
\do +
\dconfig work_mem
\dx
\dn public
\db
\z plain
\d nosuch
\dt nosuch
\encoding
\drds
\da sum
\dF
\dRp
`

func TestPsqlDescribes(t *testing.T) {
	ensureShop(t)
	for _, database := range []string{"shop", "corner"} {
		t.Run(database, func(t *testing.T) {
			var script strings.Builder
			for meta := range strings.Lines(psqlCommands) {
				script.WriteString("\\echo == " + strings.ReplaceAll(meta, `\`, "") + meta)
			}
			_, shown := sameOnBoth(t, database, script.String())
			if strings.Contains(shown, "ERROR") {
				t.Errorf("a command fails:\n%s", shown)
			}
		})
	}
}

// TestPsqlListsWithSizes compares all but the sizes: those of sharded tables are the home shard's.
func TestPsqlListsWithSizes(t *testing.T) {
	ensureShop(t)
	size := regexp.MustCompile(` *\d+ (bytes|kB|MB) *`)
	for _, meta := range []string{`\dt+`, `\di+`, `\dm+`, `\ds+`, `\l+`} {
		var outputs [2]string
		for i, s := range sides {
			outputs[i] = size.ReplaceAllString(s.psql(t, "shop", "\\pset format unaligned\n"+meta+"\n").String(), "SIZE")
		}
		if d := difference(outputs[0], outputs[1]); d != "" {
			t.Errorf("%s: %s", meta, d)
		}
	}
}

// psqlScripts must look the same to the letter on both sides, in a database with sharded tables.
var psqlScripts = map[string]string{
	"statements": `SELECT 1 AS one, 'two' AS "Two", NULL; TABLE plain; VALUES (1, 'a'), (2, 'b'); ;; SELECT;
		INSERT INTO plain VALUES (20, 'twenty') RETURNING *; UPDATE plain SET v = 'x' WHERE id = 20; DELETE FROM plain WHERE id = 20 RETURNING v;
		CREATE TABLE tmp AS SELECT 1 AS a; DROP TABLE tmp; SELECT twice(21); SELECT * FROM short ORDER BY id;
		SELECT nextval('numbers'), currval('numbers');`,
	"by key": `SELECT * FROM customers WHERE id = 7; SELECT c.name, o.* FROM customers c JOIN orders o ON o.customer_id = c.id WHERE c.id = 9 ORDER BY o.id;
		INSERT INTO customers VALUES (1000, 'new', 'happy') RETURNING *; UPDATE customers SET name = 'newer' WHERE id = 1000; DELETE FROM customers WHERE id = 1000;
		SELECT count(*), sum(amount) FROM orders WHERE customer_id = 5;`,
	"several shards":  `SELECT id, feels FROM customers WHERE id IN (1, 2, 3, 4, 5, 6) ORDER BY id DESC; SELECT id, name FROM customers ORDER BY id LIMIT 7 OFFSET 5;`,
	"expanded":        "\\x\nSELECT * FROM plain ORDER BY id LIMIT 2;\n\\x auto\nSELECT 1;\n\\x off\nSELECT * FROM customers WHERE id = 3 \\gx\n",
	"formats":         "\\pset format csv\nTABLE plain;\n\\pset format html\nSELECT * FROM customers WHERE id = 3;\n\\a\n\\t\nTABLE short;\n\\pset null NIL\nSELECT NULL;\n",
	"gexec":           "SELECT format('SELECT %s AS n', g) FROM generate_series(1, 3) g \\gexec\nSELECT 'SELECT name FROM customers WHERE id = ' || g FROM generate_series(1, 3) g\n\\gexec\n",
	"gexec error":     "SELECT unnest(ARRAY['SELECT 1', 'SELECT nosuch', 'SELECT 3']) \\gexec\n",
	"gset":            "SELECT id, v FROM plain WHERE id = 3 \\gset\n\\echo :id :v\nSELECT name AS customer FROM customers WHERE id = :id \\gset got_\n\\echo :got_customer :'got_customer'\nSELECT id FROM plain \\gset\n",
	"gdesc":           "SELECT id, v, at, 1.5 AS n FROM plain \\gdesc\nSELECT * FROM customers WHERE id = 1 \\gdesc\nINSERT INTO plain VALUES (1) \\gdesc\nSELEC \\gdesc\n",
	"crosstab":        "SELECT id % 2 AS r, v AS c, id FROM plain ORDER BY id \\crosstabview\n",
	"variables":       "\\set n 4\nSELECT v FROM plain WHERE id = :n;\n\\set s 'it''s'\nSELECT :'s';\n\\set t plain\nSELECT count(*) FROM :\"t\";\n\\if :{?n}\n\\echo yes\n\\endif\n\\echo :ROW_COUNT :SQLSTATE :ERROR :SERVER_VERSION_NUM :ENCODING :DBNAME :USER\n",
	"prepared":        `PREPARE p(int) AS SELECT * FROM plain WHERE id = $1; EXECUTE p(2); EXECUTE p('3'); PREPARE p AS SELECT 1; EXECUTE p(1, 2); EXECUTE nosuch; DEALLOCATE p; EXECUTE p(1); DEALLOCATE ALL;`,
	"prepared by key": `PREPARE k(int) AS SELECT * FROM customers WHERE id = $1; EXECUTE k(2); EXECUTE k(3); EXECUTE k(NULL); PREPARE i(int, text) AS INSERT INTO customers(id, name) VALUES ($1, $2) RETURNING id; EXECUTE i(2000, 'x'); EXECUTE i(2000, 'x'); DELETE FROM customers WHERE id = 2000; DEALLOCATE k; EXECUTE k(1);`,
	"syntax error":    "selec 1;\nSELECT 1;\nSELECT * FORM plain;\nSELECT\n  1 +\n    FROM\n;\nSELECT 'é' || nosuch FROM plain;\n",
	"error at key":    "SELECT id, nosuch FROM customers WHERE id = 1;\nSELECT name\n  FROM customers\n WHERE idd = 3;\nSELECT 'ü', id, nosuch FROM customers WHERE id = 4;\nSELECT id FROM customers WHERE id = 'x';\nINSERT INTO customers(id, nme) VALUES (5, 'x');\n",
	"error all":       "SELECT id, nosuch\n  FROM customers;\nSELECT x.id FROM customers c;\nSELECT id FROM customers WHERE name = 5;\n",
	"errverbose": `\set VERBOSITY verbose` + "\nINSERT INTO plain VALUES (1);\nINSERT INTO customers VALUES (1, 'x');\nINSERT INTO orders VALUES (1, 5, 'x', -1);\n" +
		"INSERT INTO orders VALUES (77777, 5, 'x', 1);\nSELECT nosuch;\n\\set VERBOSITY default\nSELECT 1/0;\n\\errverbose\n\\echo :LAST_ERROR_SQLSTATE :LAST_ERROR_MESSAGE\n",
	"notices":           `DO $$ BEGIN RAISE NOTICE 'hello %', 1; RAISE WARNING 'w' USING HINT = 'h', DETAIL = 'd'; END $$; DROP TABLE IF EXISTS nosuch; CREATE TABLE IF NOT EXISTS plain (id int); SET client_min_messages = error; DROP TABLE IF EXISTS nosuch; ROLLBACK; RESET client_min_messages; COMMIT;`,
	"transactions":      "BEGIN;\nINSERT INTO plain VALUES (30, 'a');\nSELECT nosuch;\nSELECT 1;\nCOMMIT;\nSELECT count(*) FROM plain;\nBEGIN; BEGIN; SELECT 1; ROLLBACK; ROLLBACK;\nBEGIN; INSERT INTO customers VALUES (3000, 'x'); SAVEPOINT s; INSERT INTO customers VALUES (3000, 'x'); ROLLBACK TO s; SELECT name FROM customers WHERE id = 3000; RELEASE s; ROLLBACK; SELECT name FROM customers WHERE id = 3000;\nSTART TRANSACTION READ ONLY; DELETE FROM plain; ROLLBACK; SAVEPOINT x; BEGIN ISOLATION LEVEL SERIALIZABLE; SHOW transaction_isolation; COMMIT AND CHAIN; SHOW transaction_isolation; END; COMMIT AND CHAIN;\n",
	"on_error_rollback": "\\set ON_ERROR_ROLLBACK on\nBEGIN;\nINSERT INTO plain VALUES (40, 'a');\nSELECT nosuch;\nINSERT INTO plain VALUES (40, 'b');\nINSERT INTO plain VALUES (41, 'b');\nCOMMIT;\nSELECT * FROM plain WHERE id >= 40 ORDER BY id;\nDELETE FROM plain WHERE id >= 40;\nBEGIN;\nINSERT INTO customers VALUES (4000, 'a');\nINSERT INTO customers VALUES (4000, 'a');\nSELECT selec;\nSELECT name FROM customers WHERE id = 4000;\nCOMMIT;\nDELETE FROM customers WHERE id = 4000;\n",
	"autocommit off":    "\\set AUTOCOMMIT off\nINSERT INTO plain VALUES (50, 'a');\nROLLBACK;\nSELECT count(*) FROM plain;\nINSERT INTO customers VALUES (5000, 'a');\nCOMMIT;\nDELETE FROM customers WHERE id = 5000;\nCOMMIT;\n",
	"one message":       "SELECT 1\\; SELECT 2\\; SELECT 3;\nINSERT INTO plain VALUES (60, 'a')\\; SELECT nosuch\\; SELECT 2;\nSELECT count(*) FROM plain\\; selec;\nBEGIN\\; SELECT 5\\; COMMIT;\nSELECT name FROM customers WHERE id = 1\\; SELECT name FROM customers WHERE id = 2;\n",
	"timing":            "\\timing on\nSELECT 1;\nSELECT name FROM customers WHERE id = 1;\nSELECT nosuch;\n\\timing off\nSELECT 2;\n",
	"single step":       "\\set ECHO all\nSELECT 1;\n\\set ECHO_HIDDEN on\n\\dt plain\n\\set ECHO_HIDDEN off\n\\set ECHO errors\nSELECT nosuch;\n",
	"fetch count":       "\\set FETCH_COUNT 2\nSELECT * FROM plain ORDER BY id;\nSELECT * FROM orders WHERE customer_id = 3 ORDER BY id;\nSELECT nosuch;\nSELECT 1 / (3 - id) FROM plain ORDER BY id;\n",
	"cursors":           "BEGIN; DECLARE c CURSOR FOR SELECT * FROM plain ORDER BY id; FETCH 2 FROM c; MOVE c; FETCH ALL c; CLOSE c; FETCH c; ROLLBACK; BEGIN; DECLARE d CURSOR FOR SELECT * FROM orders WHERE customer_id = 2 ORDER BY id; FETCH d; FETCH d; FETCH d; COMMIT; FETCH d;",
	"settings":          "SET work_mem = '5MB'; SHOW work_mem; SET search_path = pg_catalog; SHOW search_path; SELECT count(*) FROM plain; RESET search_path; SELECT count(*) FROM plain; SET TIME ZONE 'Asia/Tokyo'; SELECT at FROM plain WHERE id = 1; SET DateStyle = German; SELECT joined FROM customers WHERE id = 2; BEGIN; SET LOCAL work_mem = '6MB'; SHOW work_mem; COMMIT; SHOW work_mem; SET nosuch = 1; SET app.tenant = '7'; SELECT current_setting('app.tenant'); RESET ALL; SHOW DateStyle;",
	"copy out":          "COPY plain TO STDOUT; COPY (SELECT id FROM plain ORDER BY 1 DESC) TO STDOUT (FORMAT csv, HEADER); COPY plain TO STDOUT (FORMAT nosuch); COPY nosuch TO STDOUT; COPY (SELECT 1 / (id - 3) FROM plain ORDER BY id) TO STDOUT;",
	"copy in":           "COPY plain FROM STDIN;\n70\tseventy\t\\N\n71\teins\\tzwei\t2024-05-06 00:00+00\n\\.\nSELECT * FROM plain WHERE id >= 70 ORDER BY id;\nCOPY plain FROM STDIN;\n72\ttoo many\t\\N\tx\n\\.\nCOPY plain (id) FROM STDIN (FORMAT csv);\n73\nx\n\\.\nCOPY plain (id) FROM STDIN;\n\\.\nDELETE FROM plain WHERE id >= 70;\n",
	"copy in failing":   "BEGIN;\nCOPY plain (id, v) FROM STDIN;\n80\ta\n80\tb\n\\.\nSELECT 1;\nROLLBACK;\nSELECT count(*) FROM plain;\n",
	"large objects":     "\\lo_list\nBEGIN;\nSELECT lo_create(4711);\nROLLBACK;\n",
	"temporary":         "CREATE TEMP TABLE mine (id int); INSERT INTO mine SELECT generate_series(1, 3); SELECT count(*) FROM mine; \\d mine\nDROP TABLE mine;",
	"long text":         "SELECT length(repeat('x', 3000000)), repeat('y', 20);\nSELECT md5(repeat('xyz', 100000));\n",
	"wide characters":   "SELECT 'Grüße, 世界' AS \"Ünï\";\nSELECT 'Grüße' AS a, nosuch;\n\\encoding SQL_ASCII\nSHOW client_encoding;\n\\encoding UTF8\n",
	"watch":             "SELECT count(*) FROM plain WHERE id = 1;\n\\g\n\\p\n\\r\n\\p\nSELECT 5 \\g\n",
	"help":              "\\h SHOW\n\\echo :VERSION_NAME\n",
	"to a file":         "\\o DIR/out\nSELECT name FROM customers WHERE id = 12;\n\\o\n\\! cat DIR/out\nSELECT v FROM plain WHERE id = 1 \\g DIR/g\n\\! cat DIR/g\nSELECT 1 \\g | cat\n",
	"includes":          "\\o DIR/script.sql\n\\qecho 'SELECT 42;'\n\\qecho 'SELECT nosuch;'\n\\o\n\\i DIR/script.sql\n\\ir DIR/nosuch.sql\n",
}

func TestPsqlScripts(t *testing.T) {
	ensureShop(t)
	for name, script := range psqlScripts {
		t.Run(name, func(t *testing.T) { sameOnBoth(t, "shop", script+"\n") })
	}
}

func TestPsqlCommandsAndFiles(t *testing.T) {
	ensureShop(t)
	cases := map[string][]string{
		"several statements in one -c":  {"-c", "SELECT 1; SELECT 2"},
		"syntax error in a later one":   {"-c", "SELECT 1; selec 2"},
		"syntax error on a later line":  {"-c", "SELECT 1;\nSELECT name\n  FROM customers\n WHERE id == 3"},
		"error in a later one":          {"-c", "SELECT 1; SELECT nosuch; SELECT 3"},
		"error in a later one by key":   {"-c", "SELECT 1;\nSELECT id\n FROM customers WHERE idd = 3"},
		"a later one fails and undoes":  {"-c", "INSERT INTO plain VALUES (90, 'a'); SELECT 1 / 0", "-c", "SELECT count(*) FROM plain"},
		"undone on a shard":             {"-c", "INSERT INTO customers VALUES (9000, 'a'); SELECT 1 / 0", "-c", "SELECT count(*) FROM customers WHERE id = 9000"},
		"-1 of two commands":            {"-1", "-c", "INSERT INTO plain VALUES (91, 'a')", "-c", "SELECT nosuch", "-c", "SELECT 1"},
		"-1 -f":                         {"-1", "-f", "DIR/script.sql"},
		"-1 -f stops":                   {"-1", "-v", "ON_ERROR_STOP=1", "-f", "DIR/script.sql"},
		"-f":                            {"-f", "DIR/script.sql"},
		"-f, then the number of rows":   {"-f", "DIR/script.sql", "-c", "SELECT count(*) FROM plain"},
		"-A -t -F":                      {"-A", "-t", "-F", "|", "-c", "SELECT * FROM customers WHERE id = 4"},
		"--csv":                         {"--csv", "-c", "SELECT * FROM orders WHERE customer_id = 4 ORDER BY id"},
		"-E":                            {"-E", "-c", `\d orders`},
		"-l":                            {"-l"},
		"-e":                            {"-e", "-c", "SELECT 1", "-c", `\dt plain`},
		"a database that is not there":  {"-d", "nosuch"},
		"a statement that ends nothing": {"-c", "COMMIT; SELECT 1; ROLLBACK"},
	}
	const script = "INSERT INTO plain VALUES (92, 'a');\nINSERT INTO plain VALUES (92, 'a');\nSELECT name\n  FROM customers\n WHERE id = 1;\n"
	for name, args := range cases {
		t.Run(name, func(t *testing.T) {
			var outputs [2]string
			for i, s := range sides {
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, "script.sql"), []byte(script), 0o600); err != nil {
					t.Fatal(err)
				}
				own := slices.Clone(args)
				for n := range own {
					own[n] = strings.ReplaceAll(own[n], "DIR", dir)
				}
				if len(own) == 2 && own[0] == "-d" {
					own[1] = s.url(own[1])
				}
				text := strings.ReplaceAll(masked(s.psql(t, "shop", "", own...)), dir, "DIR")
				outputs[i] = regexp.MustCompile(`port \d+`).ReplaceAllString(text, "port N")
				s.do(t, "shop", "DELETE FROM plain WHERE id >= 90")
			}
			if d := difference(outputs[0], outputs[1]); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestPsqlCopies compares the files that \copy writes; those of sharded tables as bags of lines.
func TestPsqlCopies(t *testing.T) {
	ensureShop(t)
	script := `\copy plain to 'DIR/plain.txt'
\copy plain to 'DIR/plain.csv' with (format csv, header)
\copy plain to 'DIR/plain.bin' with (format binary)
\copy (select id, v from plain order by id desc) to 'DIR/query.txt'
\copy customers to 'DIR/customers.txt'
\copy customers to 'DIR/customers.csv' with (format csv, header)
\copy customers (name, id) to 'DIR/columns.csv' csv header delimiter ';' force quote name
\copy orders to 'DIR/orders.csv' csv
\! sort -o DIR/orders.csv DIR/orders.csv
\copy (select * from orders where customer_id = 11 order by id) to 'DIR/key.txt'
\copy (select name from customers where id = 11) to stdout
\copy plain from 'DIR/plain.txt'
create table target (like plain);
\copy target from 'DIR/plain.txt'
\copy target from 'DIR/plain.csv' csv header
\copy target from 'DIR/plain.bin' binary
select count(*), sum(id), min(at), max(v) from target;
\copy target (id) from program 'seq 1000'
\copy target from 'DIR/orders.csv' csv
\copy target to program 'wc -l'
select count(*) from target;
drop table target;
\copy nosuch to 'DIR/nosuch.txt'
\copy plain to '/nonexistent/file'
`
	dirs, shown := sameOnBoth(t, "shop", script)
	contains(t, shown, "COPY 5", "COPY 40", "COPY 80", "COPY 1000")
	for _, name := range []string{"plain.txt", "plain.csv", "plain.bin", "query.txt", "key.txt", "customers.txt", "customers.csv", "columns.csv", "orders.csv"} {
		var contents [2]string
		for i, dir := range dirs {
			content, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			contents[i] = string(content)
			if sharded := !strings.HasPrefix(name, "plain") && name != "query.txt" && name != "key.txt"; sharded {
				contents[i] = sortedLines(contents[i], strings.HasPrefix(name, "c") && strings.HasSuffix(name, ".csv"))
			}
		}
		if d := difference(contents[0], contents[1]); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// sortedLines sorts all lines but a header.
func sortedLines(text string, header bool) string {
	lines := slices.Collect(strings.Lines(text))
	if header {
		slices.Sort(lines[1:])
	} else {
		slices.Sort(lines)
	}
	return strings.Join(lines, "")
}

// TestPsqlCopiesBinaryOfAll reads what a binary \copy of a sharded table gave.
func TestPsqlCopiesBinaryOfAll(t *testing.T) {
	ensureShop(t)
	file := filepath.Join(t.TempDir(), "orders.bin")
	routed.do(t, "shop", `\copy orders to '`+file+`' binary`)
	got := plain.do(t, "shop", `create table again (like orders);
\copy again from '`+file+`' binary
select count(*) from (table again except all table orders) x union all select count(*) from (table orders except all table again) x;`)
	if got != "0\n0\n" {
		t.Errorf("rows that are not in both: %q", got)
	}
}

func TestPsqlSharding(t *testing.T) {
	ensureShop(t)
	shown := routed.psql(t, "shop", "SHOW SHARDS;\nSHOW TABLES;\nSHOW PARTITIONS FROM customers;\nEXPLAIN SELECT * FROM customers WHERE id = 5;\n"+
		"EXPLAIN SELECT * FROM customers;\nEXPLAIN SELECT * FROM plain;\nSHOW PARTITIONS FROM plain;\nSHOW PARTITIONS FROM nosuch;\n"+
		"SHARD TABLE plain BY HASH (nosuch) PARTITIONS 4;\nSHARD TABLE plain BY HASH (id) PARTITION 4;\n\\echo :LAST_ERROR_SQLSTATE\n").String()
	contains(t, shown, "name | role |", " s1   | home |", " s2 ", " s3 ", "(3 rows)",
		"schema |   name    |  kind", "customers", "hash", "orders", "(2 rows)",
		"p0", "(16 rows)",
		"QUERY PLAN", "Shardyard: one shard: s", "(id = 5)",
		"QUERY PLAN", "Shardyard: 3 shards: s1, s2, s3", "Shard s1:", "Shard s2:", "Shard s3:",
		"QUERY PLAN", "Seq Scan on plain",
		`ERROR:  table "plain" is not sharded`, `ERROR:  table "nosuch" is not sharded`,
		`ERROR:  column "nosuch" of table "plain" does not exist`+"\nLINE 1: SHARD TABLE plain BY HASH (nosuch) PARTITIONS 4;\n                                   ^",
		"ERROR:  syntax error", "LINE 1: SHARD TABLE plain BY HASH (id) PARTITION 4;\n                                                 ^", "42601")
}

// TestPsqlRefusals: what is not supported is refused with 0A000, and the session and its transaction state stay right.
func TestPsqlRefusals(t *testing.T) {
	ensureShop(t)
	shown := routed.psql(t, "shop", `SELECT ctid FROM customers;
\echo :LAST_ERROR_SQLSTATE
BEGIN;
SELECT ctid FROM customers;
SELECT 1;
ROLLBACK;
\copy customers from program 'echo nonsense'
\echo :LAST_ERROR_SQLSTATE
SELECT nosuch(id) FROM customers;
SELECT id FROM customers, nosuch;
SELECT name FROM customers WHERE id = 8;
`).String()
	contains(t, shown, "ERROR:  ", "not supported", "0A000", "BEGIN", "ERROR:  ", "current transaction is aborted", "ROLLBACK",
		`ERROR:  invalid input syntax for type integer: "nonsense"`, "CONTEXT:  COPY customers, line 1, column id", "ERROR:  ", "nosuch", "ERROR:  ", "nosuch", "name 8", "exit code 0")
}

func TestPsqlReconnects(t *testing.T) {
	ensureShop(t)
	shown := routed.psql(t, "shop", "SELECT name FROM customers WHERE id = 1;\n\\c postgres\nSELECT current_database();\n\\c shop\nSELECT name FROM customers WHERE id = 2;\n\\c nosuch\n").String()
	contains(t, shown, "name 1", `now connected to database "postgres"`, "postgres", `now connected to database "shop"`, "name 2", `database "nosuch" does not exist`)
}

// The programs under test are there: a machine without them must not pass by testing nothing.
func TestProgramsExist(t *testing.T) {
	for _, program := range []string{"psql", "pgbench", "pg_dump"} {
		if _, err := exec.LookPath(programPath(program)); err != nil {
			t.Errorf("%s is neither in %s nor in PATH: %v", program, programs.Dir, err)
		}
	}
}
