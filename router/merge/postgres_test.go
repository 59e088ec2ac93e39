package merge

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Ten thousand values of each type and the edges, made by Postgres, cut into sources, merged here, and compared with Postgres's
// own order; in both formats, in all four combinations of direction and nulls.
func TestOrderOfPostgres(t *testing.T) {
	const edges = "0.0, -0.0, 'NaN', 'Infinity', '-Infinity'"
	moment := func(typ string) string {
		return fmt.Sprintf(`SELECT (timestamp '2000-01-01' + (random()-0.5)*interval '9000 years')::%[1]s FROM generate_series(1,10000)
			UNION ALL SELECT unnest(ARRAY['infinity','-infinity','4713-01-01 BC','0001-12-31 BC','0001-01-01','1900-02-28','1900-03-01',
			'9999-12-31','10000-01-01','123456-07-08','2000-02-29','1999-12-31','1883-11-18','0044-03-15 BC']::%[1]s[])`, typ)
	}
	for _, tc := range []struct{ name, typ, values string }{
		{"bool", "bool", "SELECT random()<0.5 FROM generate_series(1,10000)"},
		{"int2", "int2", "SELECT (random()*65535-32768)::int2 FROM generate_series(1,10000) UNION ALL SELECT unnest('{-32768,32767,0}'::int2[])"},
		{"int4", "int4", "SELECT (random()*4294967295-2147483648)::int4 FROM generate_series(1,10000) UNION ALL SELECT unnest('{-2147483648,2147483647}'::int4[])"},
		{"int8", "int8", "SELECT hashint8extended(i,7) FROM generate_series(1,10000) i UNION ALL SELECT unnest('{-9223372036854775808,9223372036854775807}'::int8[])"},
		{"oid", "oid", "SELECT ((random()*4294967295)::int8)::oid FROM generate_series(1,10000) UNION ALL SELECT unnest('{0,4294967295,2147483648}'::oid[])"},
		{"float4", "float4", "SELECT ((random()-0.5)*10^(random()*60-30))::float4 FROM generate_series(1,10000) UNION ALL SELECT unnest(ARRAY[" + edges + "]::float4[])"},
		{"float8", "float8", "SELECT (random()-0.5)*10^(random()*500-250) FROM generate_series(1,10000) UNION ALL SELECT unnest(ARRAY[" + edges + ",5e-324,1.7976931348623157e308]::float8[])"},
		{"numeric", "numeric", `SELECT ((random()-0.5)::numeric*(10::numeric^(i%120-60)))::numeric FROM generate_series(1,5000) i
			UNION ALL SELECT round((random()*200-100)::numeric, i%6) FROM generate_series(1,5000) i
			UNION ALL SELECT unnest('{NaN,Infinity,-Infinity,0,0.00,-0.0,1,1.0,1.000000,10000,9999,99990000,10000.0001,0.0001,0.00001,-0.0001,1e200,-1e200,1e-200,100,1000}'::numeric[])`},
		{"date", "date", moment("date")},
		{"timestamp", "timestamp", moment("timestamp")},
		{"timestamptz", "timestamptz", moment("timestamptz")},
		{"time", "time", "SELECT time '00:00' + random()*interval '24 hours' FROM generate_series(1,10000) UNION ALL SELECT unnest('{00:00,24:00,23:59:59.999999,00:00:00.000001}'::time[])"},
		{"uuid", "uuid", "SELECT gen_random_uuid() FROM generate_series(1,10000)"},
		{"bytea", "bytea", `SELECT substr(decode(md5(i::text),'hex'),1,i%9) FROM generate_series(1,10000) i UNION ALL SELECT unnest('{"\\x","\\x00","\\xff","\\x5c5c","\\x5c78"}'::bytea[])`},
		{"text", `text COLLATE "C"`, `SELECT translate(substr(md5(i::text),1,i%8),'abc','Äß語') FROM generate_series(1,10000) i UNION ALL SELECT unnest('{"","a","A"," ","a ","a b","Z","z"}'::text[])`},
		{"varchar", `varchar COLLATE "C"`, `SELECT translate(substr(md5(i::text),1,i%8),'abc','AbC')::varchar FROM generate_series(1,10000) i`},
		{"bpchar", `char(8) COLLATE "C"`, `SELECT translate(substr(md5(i::text),1,i%8),'0123', E' \t!~')::char(8) FROM generate_series(1,10000) i`},
		{"name", "name", `SELECT substr(md5(i::text),1,i%8)::name FROM generate_series(1,10000) i`},
		{"char", `"char"`, `SELECT chr(i%128)::"char" FROM generate_series(1,10000) i WHERE i%128 > 0 UNION ALL SELECT ''::"char"`},
	} {
		t.Run(tc.name, func(t *testing.T) { checkOrder(t, tc.typ, tc.values) })
	}
}

func connect(t *testing.T) (context.Context, *pgconn.PgConn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	conn, err := pgconn.Connect(ctx, cluster.ConnString(0, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return ctx, conn
}

func checkOrder(t *testing.T, typ, values string) {
	ctx, conn := connect(t)
	for _, sql := range []string{
		"CREATE TEMP TABLE v (v " + typ + ", source int)",
		"INSERT INTO v SELECT v, (random()*6)::int FROM (" + values + ") s(v)",
		"INSERT INTO v SELECT NULL, i%7 FROM generate_series(1,40) i",
		"SET TimeZone = 'America/St_Johns'", // offsets with seconds before 1935
	} {
		if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	for _, order := range []string{"ASC NULLS LAST", "ASC NULLS FIRST", "DESC NULLS LAST", "DESC NULLS FIRST"} {
		for format := range int16(2) {
			checkOneOrder(t, ctx, conn, order, format)
		}
	}
}

func checkOneOrder(t *testing.T, ctx context.Context, conn *pgconn.PgConn, order string, format int16) {
	// Values that compare equal but look different (0.0 and -0.0, 1 and 1.00) may come in any order, so what is compared is
	// the dense rank that Postgres gives each row.
	sql := "SELECT v, dense_rank() OVER (ORDER BY v " + order + ")::int4 FROM v"
	result := conn.ExecParams(ctx, "SELECT * FROM ("+sql+") r ORDER BY 2", nil, nil, nil, []int16{format, 1}).Read()
	if result.Err != nil {
		t.Fatal(result.Err)
	}
	oid := result.FieldDescriptions[0].DataTypeOID
	if len(result.Rows) < 9_900 || !Mergeable(oid, true) {
		t.Fatalf("%d rows of type %d", len(result.Rows), oid)
	}
	sources := make([]*rows, 7)
	for i := range sources {
		sources[i] = &rows{}
	}
	for i, row := range result.Rows { // a deterministic scatter that keeps each source sorted
		s := sources[(i*i/3+i/11)%len(sources)]
		s.list = append(s.list, dataRow(row...))
	}
	list := make([]Source, len(sources))
	for i, s := range sources {
		list[i] = s
	}
	key := Key{Type: oid, Format: format, Desc: order[0] == 'D', NullsFirst: order[len(order)-5:] == "FIRST"}
	m, err := New(list, []Key{key})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		row, ok, err := m.Next()
		if err != nil {
			t.Fatalf("%s, format %d: %v", order, format, err)
		}
		if !ok {
			break
		}
		got = append(got, string(row[len(row)-4:]))
	}
	want := make([]string, len(result.Rows))
	for i, row := range result.Rows {
		want[i] = string(row[1])
	}
	if !slices.Equal(got, want) {
		for i := range want {
			if i >= len(got) || got[i] != want[i] {
				t.Fatalf("%s, format %d: row %d of %d differs, near value %q", order, format, i, len(want), result.Rows[i][0])
			}
		}
	}
	checkEveryPair(t, oid, format, order, result.Rows)
}

// checkEveryPair compares neighbours both ways: equal exactly where Postgres ranks them equal.
func checkEveryPair(t *testing.T, oid uint32, format int16, order string, sorted [][][]byte) {
	d, _ := decoderOf(oid, format)
	for i := 1; i < len(sorted); i++ {
		var a, b value
		if sorted[i-1][0] == nil || sorted[i][0] == nil {
			continue
		}
		if err := errorsOf(d.decode(&a, sorted[i-1][0]), d.decode(&b, sorted[i][0])); err != nil {
			t.Fatal(err)
		}
		want := -1
		if slices.Equal(sorted[i-1][1], sorted[i][1]) {
			want = 0
		} else if order[0] == 'D' {
			want = 1
		}
		if got, back := d.compare(&a, &b), d.compare(&b, &a); got != want || back != -want {
			t.Fatalf("%s, format %d: %q against %q: %d and %d, want %d", order, format, sorted[i-1][0], sorted[i][0], got, back, want)
		}
	}
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
