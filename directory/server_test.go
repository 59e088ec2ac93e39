package directory_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/internal/devcluster"
)

// valuesPerType is how many random values of each type are compared with a server.
const valuesPerType = 10_000

// sendFunctions give the binary form of a value on a server.
var sendFunctions = map[directory.KeyType]string{
	directory.Int2: "int2send", directory.Int4: "int4send", directory.Int8: "int8send", directory.Text: "textsend",
	directory.Varchar: "varcharsend", directory.UUID: "uuid_send", directory.Date: "date_send", directory.Timestamp: "timestamp_send",
	directory.Timestamptz: "timestamptz_send", directory.Numeric: "numeric_send", directory.Bytea: "byteasend", directory.Bool: "boolsend",
}

// server is a live Postgres with one connection, under the settings of Value.Text.
type server struct{ conn *pgx.Conn }

func (s server) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := s.conn.Exec(context.Background(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// queryEach is query that must give n rows.
func queryEach[T any](t *testing.T, s server, n int, scan pgx.RowToFunc[T], sql string, args ...any) []T {
	t.Helper()
	all := query(t, s, scan, sql, args...)
	if len(all) != n {
		t.Fatalf("%s: %d rows, want %d", sql, len(all), n)
	}
	return all
}

// query collects the rows of a query whose columns are what scan takes.
func query[T any](t *testing.T, s server, scan pgx.RowToFunc[T], sql string, args ...any) []T {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rows, err := s.conn.Query(ctx, sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	all, err := pgx.CollectRows(rows, scan)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return all
}

// TestServer compares this package with a live Postgres.
func TestServer(t *testing.T) {
	cluster := devcluster.ForTest(t, devcluster.Config{Shards: 1})
	conn, err := pgx.Connect(t.Context(), cluster.ConnString(0, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	s := server{conn}
	s.exec(t, `SET TimeZone = 'UTC'; SET DateStyle = 'ISO, MDY'; SET bytea_output = 'hex'`)
	for _, typ := range directory.KeyTypes() {
		t.Run(typ.String(), func(t *testing.T) {
			t.Run("values", func(t *testing.T) { s.compareValues(t, typ) })
			t.Run("order", func(t *testing.T) { s.compareOrder(t, typ) })
			t.Run("input", func(t *testing.T) { s.compareInput(t, typ) })
			t.Run("binary", func(t *testing.T) { s.compareBinary(t, typ) })
		})
	}
	t.Run("keys", s.compareKeys)
	t.Run("coerce", s.compareCoerce)
	t.Run("identifiers", s.compareIdentifiers)
}

// compareValues compares hash, text and binary form of random values and edges.
func (s server) compareValues(t *testing.T, typ directory.KeyType) {
	r := newRandom(t)
	texts := append([]string(nil), edges[typ]...)
	for len(texts) < valuesPerType {
		texts = append(texts, randomText(r, typ))
	}
	type row struct {
		Hash int64
		Text string
		Wire []byte
	}
	rows := queryEach(t, s, len(texts), pgx.RowToStructByPos[row], fmt.Sprintf(
		`SELECT hash_record_extended(ROW(v), 8816678312871386365), v::text, %s(v) FROM unnest($1::text[]) WITH ORDINALITY u(x, n), CAST(x AS %s) v ORDER BY n`,
		sendFunctions[typ], typ), texts)
	for i, want := range rows {
		v := mustParse(t, typ, texts[i])
		// bool's cast to text differs from its output function.
		if typ != directory.Bool && v.Text() != want.Text {
			t.Fatalf("text of %q: %q, the server says %q", texts[i], v.Text(), want.Text)
		}
		received, err := directory.ParseBinary(typ, want.Wire)
		if err != nil {
			t.Fatalf("binary of %q, %x: %v", texts[i], want.Wire, err)
		}
		if directory.Compare(v, received) != 0 || received.Text() != v.Text() {
			t.Fatalf("binary of %q, %x: read as %q, not %q", texts[i], want.Wire, received.Text(), v.Text())
		}
		for _, value := range []directory.Value{v, received, mustParse(t, typ, v.Text())} {
			if hash := directory.KeyHash([]directory.Value{value}); hash != uint64(want.Hash) {
				t.Fatalf("hash of %q: %x, the server says %x", texts[i], hash, uint64(want.Hash))
			}
		}
	}
}

// compareOrder compares Compare with the server's operators, on close pairs too.
func (s server) compareOrder(t *testing.T, typ directory.KeyType) {
	r := newRandom(t)
	var left, right []string
	for _, a := range edges[typ] {
		for _, b := range edges[typ] {
			left, right = append(left, a), append(right, b)
		}
	}
	for range valuesPerType {
		a, b := randomText(r, typ), randomText(r, typ)
		if typ == directory.Text && r.IntN(2) == 0 {
			b = a + b
		}
		left, right = append(left, a), append(right, b)
	}
	collation := ""
	if typ.Family() == directory.FamilyText {
		collation = ` COLLATE "C"`
	}
	sql := fmt.Sprintf(`SELECT CASE WHEN a < b%[2]s THEN -1 WHEN a = b%[2]s THEN 0 ELSE 1 END
		FROM unnest($1::text[], $2::text[]) WITH ORDINALITY u(x, y, n), CAST(x AS %[1]s) a, CAST(y AS %[1]s) b ORDER BY n`, typ, collation)
	for i, want := range queryEach(t, s, len(left), pgx.RowTo[int], sql, left, right) {
		a, b := mustParse(t, typ, left[i]), mustParse(t, typ, right[i])
		if got := directory.Compare(a, b); got != want || directory.Compare(b, a) != -want {
			t.Fatalf("compare %q with %q: %d, the server says %d", left[i], right[i], got, want)
		}
		if want == 0 && directory.KeyHash([]directory.Value{a}) != directory.KeyHash([]directory.Value{b}) {
			t.Fatalf("%q equals %q and has another hash", left[i], right[i])
		}
	}
}

// compareInput compares what ParseText says of any text with the input function,
// under two sets of settings.
func (s server) compareInput(t *testing.T, typ directory.KeyType) {
	r := newRandom(t)
	texts := append([]string(nil), hostile...)
	for len(texts) < valuesPerType {
		texts = append(texts, mutate(r, randomText(r, typ)))
	}
	s.exec(t, fmt.Sprintf(`CREATE OR REPLACE FUNCTION pg_temp.input(x text) RETURNS bytea LANGUAGE plpgsql AS
		$$ BEGIN RETURN %s(x::%s); EXCEPTION WHEN others THEN RETURN NULL; END $$`, sendFunctions[typ], typ))
	defer s.exec(t, `DROP FUNCTION pg_temp.input(text)`)
	defer s.exec(t, `SET TimeZone = 'UTC'; SET DateStyle = 'ISO, MDY'; SET bytea_output = 'hex'`)
	var certain, invalid int
	for _, settings := range []string{
		`SET TimeZone = 'UTC'; SET DateStyle = 'ISO, MDY'`,
		`SET TimeZone = 'Australia/Sydney'; SET DateStyle = 'German, DMY'; SET bytea_output = 'escape'`,
		`SET TimeZone = 'America/St_Johns'; SET DateStyle = 'SQL, YMD'`,
	} {
		s.exec(t, settings)
		for i, wire := range queryEach(t, s, len(texts), pgx.RowTo[[]byte],
			`SELECT pg_temp.input(x) FROM unnest($1::text[]) WITH ORDINALITY u(x, n) ORDER BY n`, texts) {
			v, err := directory.ParseText(typ, texts[i])
			switch {
			case errors.Is(err, directory.ErrUncertain):
				continue
			case err != nil:
				if invalid++; wire != nil {
					t.Fatalf("%s: %q: %v, the server reads %x", settings, texts[i], err, wire)
				}
			default:
				certain++
				if wire == nil {
					t.Fatalf("%s: %q: read as %q, the server refuses it", settings, texts[i], v.Text())
				}
				received, err := directory.ParseBinary(typ, wire)
				if err != nil || received.Text() != v.Text() {
					t.Fatalf("%s: %q: read as %q, the server reads %q (%v)", settings, texts[i], v.Text(), received.Text(), err)
				}
			}
		}
	}
	if certain < 100 || (invalid < 20 && typ.Family() != directory.FamilyText) {
		t.Fatalf("only %d texts were certain and %d invalid: the test does not bite", certain, invalid)
	}
}

// compareBinary compares what ParseBinary says of any bytes with the receive function.
func (s server) compareBinary(t *testing.T, typ directory.KeyType) {
	r := newRandom(t)
	sql := fmt.Sprintf(`SELECT %s($1)`, sendFunctions[typ])
	var accepted, refused int
	for n := range 2000 {
		wire := randomWire(r, typ, n)
		result := s.conn.PgConn().ExecParams(context.Background(), sql, [][]byte{wire}, []uint32{typ.OID()}, []int16{1}, []int16{1}).Read()
		v, err := directory.ParseBinary(typ, wire)
		switch {
		case err != nil:
			if refused++; result.Err == nil {
				t.Fatalf("%x: %v, the server reads it", wire, err)
			}
		case result.Err != nil:
			t.Fatalf("%x: read as %q, the server says %v", wire, v.Text(), result.Err)
		default:
			accepted++
			want, err := directory.ParseBinary(typ, result.Rows[0][0])
			if err != nil || want.Text() != v.Text() {
				t.Fatalf("%x: read as %q, the server as %q (%v)", wire, v.Text(), want.Text(), err)
			}
		}
	}
	if accepted < 100 || refused < 100 && typ != directory.Bytea {
		t.Fatalf("%d accepted and %d refused: the test does not bite", accepted, refused)
	}
}

// compareKeys compares the hash of keys of several columns, HashExpression and
// HashCondition.
func (s server) compareKeys(t *testing.T) {
	r := newRandom(t)
	s.exec(t, `CREATE TEMP TABLE keys (n int PRIMARY KEY, "Tenant" int4, "user" text, "day" date, amount numeric(12,2))`)
	types := []directory.KeyType{directory.Int4, directory.Text, directory.Date, directory.Numeric}
	columns := []string{"Tenant", "user", "day", "amount"}
	var keys [][]directory.Value
	var rows [][]any
	for n := range 2000 {
		key := make([]directory.Value, len(types))
		texts := make([]*string, len(types))
		for i, typ := range types {
			text := randomText(r, typ)
			if typ == directory.Numeric {
				text = fmt.Sprintf("%d.%02d", r.IntN(1_000_000), r.IntN(100))
			}
			key[i], texts[i] = mustParse(t, typ, text), &text
			if r.IntN(10) == 0 {
				key[i], texts[i] = directory.Null(typ), nil
			}
		}
		keys = append(keys, key)
		rows = append(rows, []any{n, texts[0], texts[1], texts[2], texts[3]})
	}
	for _, row := range rows {
		s.exec(t, `INSERT INTO keys VALUES ($1, $2::text::int, $3, $4::text::date, $5::text::numeric)`, row...)
	}
	hashes := queryEach(t, s, len(keys), pgx.RowTo[int64], `SELECT `+directory.HashExpression(columns)+` FROM keys ORDER BY n`)
	for n, want := range hashes {
		if got := directory.KeyHash(keys[n]); got != uint64(want) {
			t.Fatalf("hash of row %d: %x, the server says %x", n, got, uint64(want))
		}
	}
	intervals := append(directory.HashIntervals(1), directory.HashIntervals(7)...)
	intervals = append(intervals, directory.HashIntervals(2)...)
	intervals = append(intervals, directory.HashInterval{From: 1<<63 - 1, To: 1 << 63}, directory.HashInterval{From: 1 << 63, To: 1 << 63})
	for range 50 {
		a, b := r.Uint64(), r.Uint64()
		exact := uint64(hashes[r.IntN(len(hashes))])
		intervals = append(intervals, directory.HashInterval{From: min(a, b), To: max(a, b)},
			directory.HashInterval{From: exact, To: exact}, directory.HashInterval{From: min(a, exact), To: max(a, exact)})
	}
	for _, interval := range intervals {
		var want []int
		for n, key := range keys {
			if h := directory.KeyHash(key); h >= interval.From && h <= interval.To {
				want = append(want, n)
			}
		}
		got := query(t, s, pgx.RowTo[int], `SELECT n FROM keys WHERE `+directory.HashCondition(columns, interval.From, interval.To)+` ORDER BY n`)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("condition of %x-%x: %d rows, want %d", interval.From, interval.To, len(got), len(want))
		}
	}
}

// compareCoerce compares Coerce with what an INSERT stores.
func (s server) compareCoerce(t *testing.T) {
	varchar := func(n int32) int32 { return n + 4 }
	numeric := func(precision, scale int32) int32 { return (precision<<16 | scale&0x7ff) + 4 }
	cases := []struct {
		column string
		to     directory.KeyType
		typmod int32
		from   []directory.KeyType
	}{
		{"int2", directory.Int2, -1, []directory.KeyType{directory.Int2, directory.Int4, directory.Int8, directory.Numeric}},
		{"int4", directory.Int4, -1, []directory.KeyType{directory.Int2, directory.Int4, directory.Int8, directory.Numeric}},
		{"int8", directory.Int8, -1, []directory.KeyType{directory.Int2, directory.Int4, directory.Int8, directory.Numeric}},
		{"text", directory.Text, -1, []directory.KeyType{
			directory.Varchar, directory.Int2, directory.Int8, directory.UUID, directory.Numeric, directory.Bool, directory.Date, directory.Bytea}},
		{"varchar", directory.Varchar, -1, []directory.KeyType{directory.Text, directory.Int8}},
		{"varchar(5)", directory.Varchar, varchar(5), []directory.KeyType{directory.Text, directory.Varchar, directory.Int4, directory.Bool}},
		{"varchar(12)", directory.Varchar, varchar(12), []directory.KeyType{directory.Text, directory.Varchar, directory.Numeric}},
		{"numeric", directory.Numeric, -1, []directory.KeyType{directory.Int2, directory.Int4, directory.Int8, directory.Numeric}},
		{"numeric(5,2)", directory.Numeric, numeric(5, 2), []directory.KeyType{directory.Int2, directory.Int8, directory.Numeric}},
		{"numeric(20,6)", directory.Numeric, numeric(20, 6), []directory.KeyType{directory.Int8, directory.Numeric}},
		{"numeric(4,0)", directory.Numeric, numeric(4, 0), []directory.KeyType{directory.Int4, directory.Numeric}},
		{"numeric(6,-3)", directory.Numeric, numeric(6, -3), []directory.KeyType{directory.Int8, directory.Numeric}},
		{"numeric(3,5)", directory.Numeric, numeric(3, 5), []directory.KeyType{directory.Int2, directory.Numeric}},
		{"timestamp", directory.Timestamp, -1, []directory.KeyType{directory.Date, directory.Timestamp, directory.Timestamptz}},
		{"timestamp(0)", directory.Timestamp, 0, []directory.KeyType{directory.Date, directory.Timestamp}},
		{"timestamp(3)", directory.Timestamp, 3, []directory.KeyType{directory.Timestamp}},
		{"timestamp(6)", directory.Timestamp, 6, []directory.KeyType{directory.Timestamp}},
		{"timestamptz(1)", directory.Timestamptz, 1, []directory.KeyType{directory.Timestamptz, directory.Date}},
		{"date", directory.Date, -1, []directory.KeyType{directory.Date, directory.Timestamp, directory.Timestamptz}},
		{"uuid", directory.UUID, -1, []directory.KeyType{directory.UUID}},
		{"bytea", directory.Bytea, -1, []directory.KeyType{directory.Bytea}},
		{"bool", directory.Bool, -1, []directory.KeyType{directory.Bool}},
	}
	for _, c := range cases {
		for _, from := range c.from {
			t.Run(fmt.Sprintf("%s to %s", from, c.column), func(t *testing.T) { s.coerceOne(t, c.column, from, c.to, c.typmod) })
		}
	}
}

func (s server) coerceOne(t *testing.T, column string, from, to directory.KeyType, typmod int32) {
	r := newRandom(t)
	texts := append([]string(nil), edges[from]...)
	near := map[directory.Family][]string{
		directory.FamilyNumeric: {"0.5", "1.5", "-0.5", "2.5", "-2.5", "999.994", "999.995", "-999.995", "0.005", "0.00499", "32767.4", "32767.5",
			"-32768.5", "-32768.4", "9223372036854775807.4", "9223372036854775807.5", "-9223372036854775808.4", "-9223372036854775808.5", "99999.5",
			"2147483647.5", "1499", "1500", "499", "500", "999499", "999499999", "0.009994", "0.009995", "0.0099951", "0.000004", "0.000005", "9999.5", "9999.4"},
		directory.FamilyText: {"12345", "123456", "12345 ", "1234  ", "     ", "      ", "äöüßé", "äöüßé ", "äöüßéx", "a     b", "日本語日本語 "},
	}[from.Family()]
	texts = append(texts, near...)
	for len(texts) < 1000 {
		texts = append(texts, randomText(r, from))
	}
	s.exec(t, fmt.Sprintf(`CREATE TEMP TABLE stored (v %s)`, column))
	s.exec(t, fmt.Sprintf(`CREATE FUNCTION pg_temp.store(x text) RETURNS bytea LANGUAGE plpgsql AS $$
		DECLARE wire bytea; BEGIN
			INSERT INTO stored VALUES (x::%s) RETURNING %s(v) INTO wire; RETURN wire;
		EXCEPTION WHEN others THEN RETURN NULL; END $$`, from, sendFunctions[to]))
	defer s.exec(t, `DROP FUNCTION pg_temp.store(text); DROP TABLE stored`)
	wires := queryEach(t, s, len(texts), pgx.RowTo[[]byte], `SELECT pg_temp.store(x) FROM unnest($1::text[]) WITH ORDINALITY u(x, n) ORDER BY n`, texts)
	certain := 0
	for i, wire := range wires {
		v, err := directory.Coerce(mustParse(t, from, texts[i]), to, typmod)
		switch {
		case errors.Is(err, directory.ErrUncertain):
			continue
		case err != nil:
			if wire != nil {
				t.Fatalf("%q: %v, the server stores %x", texts[i], err, wire)
			}
		default:
			want, parseErr := directory.ParseBinary(to, wire)
			if wire == nil || parseErr != nil || want.Text() != v.Text() || v.Type() != to {
				t.Fatalf("%q: stored as %q, by the server as %q (%v)", texts[i], v.Text(), want.Text(), bytes.Clone(wire))
			}
		}
		certain++
	}
	settings := to == directory.Text && (from == directory.Date || from == directory.Bytea) ||
		(from == directory.Timestamptz) != (to == directory.Timestamptz)
	if !settings && certain < len(texts)*9/10 {
		t.Fatalf("only %d of %d were certain", certain, len(texts))
	}
}

// compareIdentifiers compares QuoteIdentifier with quote_ident.
func (s server) compareIdentifiers(t *testing.T) {
	names := query(t, s, pgx.RowTo[string], `SELECT word FROM pg_get_keywords()`)
	names = append(names, "a", "A", "a1", "1a", "_", "", `a"b`, "a b", "ä", "a$", "users", "Orders")
	for i, want := range queryEach(t, s, len(names), pgx.RowTo[string], `SELECT quote_ident(x) FROM unnest($1::text[]) WITH ORDINALITY u(x, n) ORDER BY n`, names) {
		if got := directory.QuoteIdentifier(names[i]); got != want {
			t.Errorf("quote %q: %s, the server says %s", names[i], got, want)
		}
	}
}
