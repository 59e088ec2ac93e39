package catalog

import (
	"slices"
	"strings"
	"testing"

	"github.com/shardyard/shardyard/directory"
)

func table(oid uint32, schema, name string) *Relation {
	return &Relation{OID: oid, Kind: KindTable, Name: directory.TableName{Schema: schema, Name: name}}
}

func function(oid uint32, name, language, source string) *Function {
	return &Function{OID: oid, Schema: "public", Name: name, Kind: 'f', Language: language, Source: source}
}

func names(tables []directory.TableName) string {
	var all []string
	for _, name := range tables {
		all = append(all, name.Name)
	}
	return strings.Join(all, ",")
}

func TestSearchPath(t *testing.T) {
	system := table(1, "pg_catalog", "pg_class")
	system.System = true
	s := New(Data{
		Schemas: []Schema{{Name: "pg_catalog"}, {Name: "public"}, {Name: "me"}, {Name: "closed", Users: []string{"boss"}}},
		Relations: []*Relation{
			system, table(20000, "public", "pg_class"), table(20001, "public", "t"), table(20002, "me", "t"), table(20003, "closed", "t"),
		},
	})
	for _, test := range []struct {
		path       []string
		user, name string
		oid        uint32
	}{
		{[]string{"$user", "public"}, "me", "t", 20002},
		{[]string{"$user", "public"}, "you", "t", 20001},
		{[]string{"closed", "public"}, "you", "t", 20001},
		{[]string{"closed", "public"}, "boss", "t", 20003},
		{[]string{"missing", "me"}, "you", "t", 20002},
		{[]string{"public"}, "you", "pg_class", 1},
		{[]string{"public", "pg_catalog"}, "you", "pg_class", 20000},
		{nil, "you", "t", 0},
	} {
		r, ok := s.ResolveTable("", test.name, s.EffectivePath(test.path, test.user))
		if ok != (test.oid != 0) || ok && r.OID != test.oid {
			t.Errorf("%v as %s: %s is %+v", test.path, test.user, test.name, r)
		}
	}
	if got := s.EffectivePath([]string{"me", "me", "public"}, "x"); !slices.Equal(got, []string{"pg_catalog", "me", "public"}) {
		t.Errorf("effective path is %v", got)
	}
	if r, ok := s.ResolveTable("public", "pg_class", nil); !ok || r.OID != 20000 {
		t.Errorf("public.pg_class is %v", r)
	}
}

func TestOverloads(t *testing.T) {
	own, other, builtin := function(1, "f", "sql", ""), function(2, "f", "sql", ""), function(3, "f", "internal", "")
	own.ArgTypes, other.ArgTypes, builtin.ArgTypes = []uint32{23}, []uint32{25}, []uint32{23}
	builtin.Schema = "pg_catalog"
	s := New(Data{Functions: []*Function{own, other, builtin}})
	oids := func(functions []*Function) (all []uint32) {
		for _, f := range functions {
			all = append(all, f.OID)
		}
		return all
	}
	if got := oids(s.Function("", "f", []string{"pg_catalog", "public"})); !slices.Equal(got, []uint32{3, 2}) {
		t.Errorf("pg_catalog first: %v", got)
	}
	if got := oids(s.Function("", "f", []string{"public", "pg_catalog"})); !slices.Equal(got, []uint32{1, 2}) {
		t.Errorf("public first: %v", got)
	}
	if got := oids(s.Function("pg_catalog", "f", nil)); !slices.Equal(got, []uint32{3}) {
		t.Errorf("qualified: %v", got)
	}
}

func TestReach(t *testing.T) {
	orders, log, mixed, guarded := table(1, "public", "orders"), table(2, "other", "log"), table(3, "public", "Mixed Case"), table(4, "public", "guarded")
	orders.Triggers = []Trigger{{Name: "tr", Function: 11, Row: true, Definition: "CREATE TRIGGER tr AFTER INSERT ON public.orders FOR EACH ROW EXECUTE FUNCTION public.audit()"}}
	guarded.Checks = []Check{{Name: "c", Expression: "CHECK (orders > 0)"}} // a column that is named like a table
	guarded.Policies = []Policy{{Name: "p", Using: "(EXISTS ( SELECT 1 FROM other.log))"}}
	s := New(Data{
		Relations: []*Relation{orders, log, mixed, guarded},
		Functions: []*Function{
			function(10, "plain", "sql", "SELECT 1"),
			function(11, "audit", "plpgsql", "BEGIN INSERT INTO LOG VALUES (1); RETURN NULL; END"),
			function(12, "indirect", "plpgsql", "BEGIN PERFORM audit(); END"),
			function(13, "writes", "sql", "insert into orders values (1)"),
			function(14, "dynamic", "plpgsql", "BEGIN EXECUTE x; END"),
			function(15, "python", "plpython3u", "return 1"),
			function(16, "quoted", "sql", `SELECT '"' || a FROM "Mixed Case" -- "`),
			function(17, "name", "sql", `SELECT nextval('log')`),
			function(18, "xml", "sql", `SELECT query_to_xml($1, true, true, '')`),
			function(19, "unicode", "sql", `SELECT * FROM U&"\006frders"`),
			function(20, "native", "c", "some_symbol"),
			{OID: 21, Schema: "public", Name: "citext_eq", Kind: 'f', Language: "c", Extension: "citext"},
			{OID: 22, Schema: "public", Name: "dblink", Kind: 'f', Language: "c", Extension: "dblink"},
			function(23, "by_operator", "sql", "SELECT 1 ### 2"),
			function(24, "mutual_a", "sql", "SELECT mutual_b()"),
			function(25, "mutual_b", "sql", "SELECT mutual_a(); SELECT * FROM log"),
			{OID: 26, Schema: "pg_catalog", Name: "query_to_xml", Kind: 'f', Language: "internal"},
			function(27, "total", "internal", "audit"),
		},
		Operators: []Operator{{Schema: "public", Name: "###", Left: 23, Right: 23, Function: 13}},
	})
	s.functionsByID[27].Kind = 'a'
	for _, test := range []struct {
		name, touches string
		opaque        bool
	}{
		{"plain", "", false}, {"audit", "log", false}, {"indirect", "log", false}, {"writes", "log,orders", false},
		{"dynamic", "", true}, {"python", "", true}, {"quoted", "Mixed Case", false}, {"name", "log", false},
		{"xml", "", true}, {"unicode", "", true}, {"native", "", true}, {"citext_eq", "", false}, {"dblink", "", true},
		{"by_operator", "log,orders", false}, {"mutual_a", "log", false}, {"mutual_b", "log", false},
	} {
		f := s.Function("public", test.name, nil)[0]
		if names(f.Reaches) != test.touches || f.Opaque != test.opaque {
			t.Errorf("%s touches %v, opaque %v", test.name, f.Reaches, f.Opaque)
		}
	}
	if f := s.Function("pg_catalog", "query_to_xml", nil)[0]; !f.Opaque {
		t.Error("query_to_xml is not opaque")
	}
	if names(orders.Reaches) != "log" || orders.Opaque {
		t.Errorf("orders reaches %v", orders.Reaches)
	}
	if names(guarded.Reaches) != "log" {
		t.Errorf("guarded reaches %v", guarded.Reaches)
	}
	if got, opaque := s.ExpressionReach("(orders + indirect())"); names(got) != "log" || opaque {
		t.Errorf("expression reaches %v, %v", got, opaque)
	}
	if got, _ := s.TextReach("update orders set a = 1"); names(got) != "log,orders" {
		t.Errorf("statement reaches %v", got)
	}
}

func TestOIDMaps(t *testing.T) {
	mood := &Type{OID: 16400, Schema: "public", Name: "mood", Kind: 'e', Category: 'E', Array: 16401}
	moods := &Type{OID: 16401, Schema: "public", Name: "_mood", Kind: 'b', Category: 'A', Elem: 16400}
	s := New(Data{
		Home: "s1",
		Types: []*Type{
			mood, moods,
			{OID: 23, Schema: "pg_catalog", Name: "int4", Kind: 'b', Category: 'N'},
			{OID: 1007, Schema: "pg_catalog", Name: "_int4", Kind: 'b', Category: 'A', Elem: 23},
			{OID: 16402, Schema: "public", Name: "pair", Kind: 'c', Category: 'C', Attributes: []Attribute{{Name: "a", Type: 23}, {Name: "b", Type: 16400}}},
			{OID: 16403, Schema: "public", Name: "ints", Kind: 'c', Category: 'C', Attributes: []Attribute{{Name: "a", Type: 23}}},
			{OID: 16404, Schema: "public", Name: "d", Kind: 'd', Category: 'A', Base: 16401},
			{OID: 2205, Schema: "pg_catalog", Name: "regclass", Kind: 'b', Category: 'N'},
		},
		ShardTypes: map[directory.ShardID][]ShardType{"s2": {{"public", "mood", 17000}, {"public", "only_there", 17001}}},
	})
	m := s.TypeMap("s2")
	if home, ok := m.ToHome(17000); !ok || home != 16400 {
		t.Errorf("17000 is %d, %v at home", home, ok)
	}
	if there, ok := m.ToShard(16400); !ok || there != 17000 {
		t.Errorf("16400 is %d, %v there", there, ok)
	}
	if _, ok := m.ToHome(17001); ok {
		t.Error("a type that home lacks was translated")
	}
	if _, ok := m.ToShard(16401); ok {
		t.Error("a type that the shard lacks was translated")
	}
	if same, ok := m.ToHome(23); !ok || same != 23 || m.Identical() {
		t.Error("int4 was translated")
	}
	if home := s.TypeMap("s1"); !home.Identical() {
		t.Error("the home shard's map changes something")
	}
	if _, ok := s.TypeMap("s9").ToHome(16400); ok {
		t.Error("an unknown shard's types were taken for the home shard's")
	}
	for oid, want := range map[uint32]bool{23: false, 1007: false, 16400: false, 16401: true, 16402: true, 16403: false, 16404: true, 2205: true, 99999: true} {
		if got := s.BinaryCarriesOIDs(oid); got != want {
			t.Errorf("binary form of %d carries OIDs: %v", oid, got)
		}
	}
}

func TestKeyOperator(t *testing.T) {
	for _, test := range []struct {
		name        string
		left, right uint32
		want        KeyComparison
		ok          bool
	}{
		{"=", 20, 23, KeyComparison{Comparison: Equal, Order: true, Hash: true}, true},
		{"<", 1043, 25, KeyComparison{Comparison: Less, Order: true, Hash: true}, true},
		{"=", 1082, 1114, KeyComparison{Comparison: Equal, Order: true}, true},
		{"=", 1082, 1184, KeyComparison{Comparison: Equal, Order: true, Stable: true}, true},
		{"=", 20, 701, KeyComparison{}, false},
		{"=", 25, 1042, KeyComparison{}, false},
		{"=", 20, 1700, KeyComparison{}, false},
		{"~~", 25, 25, KeyComparison{}, false},
	} {
		if got, ok := KeyOperator(test.name, test.left, test.right); ok != test.ok || got != test.want {
			t.Errorf("%d %s %d is %+v, %v", test.left, test.name, test.right, got, ok)
		}
	}
}

func FuzzWords(f *testing.F) {
	f.Add(`select "a""b" from U&"x" where E'\'' ### 1`)
	f.Fuzz(func(t *testing.T, text string) {
		words(text, func(word string, operator bool) {
			if word == "" || len(word) > maxIdentifier && !operator {
				t.Errorf("word %q of %q", word, text)
			}
		})
	})
}

func TestSettingNames(t *testing.T) {
	for text, want := range map[string]string{
		"select set_config('App.Tenant', 'x.y z', true)":             "app.tenant",
		"begin set local app.a = 1; RESET /* no */ app.b; end":       "app.a app.b",
		"do 'begin perform set_config(''app.c'', ''1'', false) end'": "app.c",
		"update s.t set a = t.b":                                     "",
		"set work_mem = '1MB'":                                       "",
	} {
		if got := strings.Join(SettingNames(text), " "); got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}

func TestTextSets(t *testing.T) {
	s := New(Data{})
	for text, want := range map[string]bool{
		"begin set x = 1; end": true, "SET x = 1": true, "begin if true then reset x; end if; end": true, "x; -- why\n set x = 1": true,
		"select set_config('x', 'y', true)": true, "do $a$ set x = 1 $a$": true, "update pg_settings set setting = 1": true, "execute 'x'": true,
		"update t set x = 1": false, "insert into t values (1) on conflict (a) do update set b = 1": false, "select offset from t": false, "": false,
	} {
		if got := s.TextSets(text); got != want {
			t.Errorf("%s: got %v", text, got)
		}
	}
}

func TestQualifier(t *testing.T) {
	for text, want := range map[string]string{
		"t": "", "s.t": "s", "from S . t": "s", `"My s".t`: "My s", `"a""b".t`: "", `s."t`: "s", "1.t": "", ".t": "", "s\n.t": "", "s.\nt": "", "a.b.t": "b", "(t": "",
	} {
		if got := qualifier(text, len(text)-1); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestCertainty(t *testing.T) {
	s := New(Data{
		Schemas:   []Schema{{Name: "public"}, {Name: "other"}},
		Relations: []*Relation{table(1, "public", "t"), table(2, "other", "t")},
		Functions: []*Function{
			function(10, "bare", "sql", "SELECT * FROM t"), function(11, "exact", "sql", "SELECT * FROM other.t"), function(12, "both", "sql", "SELECT * FROM t, other.t"),
			{OID: 13, Schema: "public", Name: "own", Kind: 'f', Language: "sql", Source: "SELECT * FROM t", Path: []string{"public"}},
			function(14, "calls", "sql", "SELECT bare(), own()"), function(15, "standard", "sql", "CREATE OR REPLACE FUNCTION f BEGIN ATOMIC SELECT * FROM t; END"),
			function(16, "field", "plpgsql", "BEGIN NEW.t := 1; END"),
		},
	})
	for name, want := range map[string]string{
		"bare": "other.t public.t / other.t public.t / ", "exact": "other.t /  / ", "both": "other.t public.t / public.t / ", "own": "other.t public.t /  / other.t",
		"calls": "other.t public.t / other.t / ", "standard": "other.t public.t /  / ", "field": "other.t public.t / other.t public.t / ",
	} {
		r := s.Function("public", name, nil)[0].Reach
		var lists []string
		for _, list := range [][]directory.TableName{r.Reaches, r.Perhaps, r.Unlikely} {
			var all []string
			for _, n := range list {
				all = append(all, n.String())
			}
			lists = append(lists, strings.Join(all, " "))
		}
		if got := strings.Join(lists, " / "); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
