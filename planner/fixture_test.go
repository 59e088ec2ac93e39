package planner

import (
	"fmt"
	"strings"
	"testing"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

// The fixture is one database: three shards, home is s1.
//
//	customers(id int8)              HASH, 6 partitions over s1, s2, s3
//	orders(customer_id int8)        colocated with customers
//	items(customer_id int4)         colocated with customers
//	tickets(tenant int8, id int8)   HASH by both columns
//	days(day date)                  RANGE: before 2024 on s1, 2024 on s2, later on s3
//	events(at timestamptz)          RANGE: before 2026 on s1, later on s2
//	users(country text)             LIST: de, fr on s1; us on s2; default on s3
//	regions(name text)              LIST without default: eu on s1, us on s2
//	sessions(region, user_id)       LIST by region, then HASH by user_id: eu on s1, s2; us on s2, s3
//	prices(amount numeric(6,2))     HASH
//	codes(code varchar(3))          HASH
//	flags(f bool)                   HASH
//	levels(l int4 default 7)        HASH, with a constant default
//	stamped(id int8)                colocated with customers; at defaults to now()
//	keyed(k int8)                   colocated with customers; k defaults to abs(3)
//	marks(k text, nondeterministic) not sharded, to be compared with
//	tenants(id), projects(tenant_id int4) DIRECTORY round robin, colocated
//	seats(tenant, name)                   DIRECTORY hash
//	vaults(name text)                     DIRECTORY, new keys refused
//	audit, ledger on s2; archive on s3: pinned; countries: reference
//	settings, notes, pairs: unsharded; v_settings, v_orders: views; traced: trigger that touches orders
const fixtureTables = `
customers  id:int8! name:text email:text:locale since:date score:int4
orders     id:int8! customer_id:int8! total:numeric at:timestamptz note:text paid:bool
items      id:int8! customer_id:int4! sku:text qty:int4
tickets    tenant:int8! id:int8! title:text
days       day:date v:int4 label:text
events     at:timestamptz kind:text payload:jsonb
users      country:text name:text
regions    name:text v:int4
sessions   region:text user_id:int8 token:uuid
prices     amount:numeric(6,2) v:int4
codes      code:varchar(3) v:int4
flags      f:bool v:int4
levels     l:int4=7 v:int4
marks      k:text:soft n:int4
audit      id:int8! what:text
ledger     id:int8! amount:numeric
countries  code:text! name:text
archive    id:int8! body:text
settings   id:int4! k:int8 name:text
notes      id:int4! body:text
pairs      a:int8 b:int8
tenants    id:int8! name:text
projects   tenant_id:int4 id:int4 title:text
seats      tenant:int8 name:text taken:bool
vaults     name:text! worth:numeric
traced     id:int4! k:int8
stamped    id:int8 at:timestamptz
keyed      k:int8 v:int4
`

type typeInfo struct {
	oid   uint32
	array uint32
}

var fixtureTypes = map[string]typeInfo{
	"int2": {21, 1005}, "int4": {23, 1007}, "int8": {20, 1016}, "text": {25, 1009}, "varchar": {1043, 1015},
	"uuid": {2950, 2951}, "date": {1082, 1182}, "timestamp": {1114, 1115}, "timestamptz": {1184, 1185},
	"numeric": {1700, 1231}, "bytea": {17, 1001}, "bool": {16, 1000}, "jsonb": {3802, 3807}, "float8": {701, 1022},
	"regclass": {2205, 2210}, "float4": {700, 1021}, "oid": {26, 1028},
}

func fixtureRelation(oid uint32, line string) *catalog.Relation {
	fields := strings.Fields(line)
	rel := &catalog.Relation{OID: oid, Name: directory.TableName{Schema: "public", Name: fields[0]}, Kind: catalog.KindTable, Persistence: 'p'}
	for i, field := range fields[1:] {
		c := catalog.Column{Typmod: -1, Ordinal: i + 1, CollationDeterministic: true}
		field, constant, hasDefault := strings.Cut(field, "=")
		if hasDefault {
			c.HasDefault, c.DefaultIsConst, c.Default, c.DefaultValue = true, true, constant, constant
		}
		field, c.NotNull = strings.CutSuffix(field, "!")
		parts := strings.Split(field, ":")
		c.Name = parts[0]
		name, modifier, modified := strings.Cut(parts[1], "(")
		c.Type = fixtureTypes[name].oid
		if modified {
			var a, b int32
			if n, _ := fmt.Sscanf(modifier, "%d,%d)", &a, &b); n == 2 {
				c.Typmod = a<<16 | b + 4
			} else {
				if _, err := fmt.Sscanf(modifier, "%d)", &a); err != nil {
					panic(err)
				}
				c.Typmod = a + 4
			}
		}
		if isText(c.Type) {
			c.Collation, c.CollationIsC = 950, true
			if len(parts) > 2 && parts[2] == "locale" {
				c.CollationIsC = false
			}
			if len(parts) > 2 && parts[2] == "soft" {
				c.CollationIsC, c.CollationDeterministic = false, false
			}
		}
		rel.Columns = append(rel.Columns, c)
	}
	return rel
}

// fixtureFunctions: kind, volatility, name, argument types; "set:" in front of a name returns a set.
const fixtureFunctions = `
a i count
a i count any
a i sum int8
a i max int8
a i min int8
w i row_number
f i lower text
f i length text
f i abs int8
f s now
f s age timestamptz
f v random
f v gen_random_uuid
f v clock_timestamp
f v pg_sleep float8
f v nextval regclass
f v currval regclass
f v lastval
f v set_config text text bool
f s current_setting text
f v pg_advisory_lock int8
f v pg_notify text text
f s set:pg_listening_channels
f s pg_backend_pid
f s to_char timestamptz text
f i set:generate_series int4 int4
f i set:unnest any
f s version
`

func name(s string) directory.TableName { return directory.TableName{Schema: "public", Name: s} }

func fixtureCatalog() *catalog.Snapshot {
	d := catalog.Data{
		Version: 7, Database: "shop", Home: "s1", ServerVersion: 150000, Encoding: "UTF8",
		Schemas: []catalog.Schema{{Name: "public"}, {Name: "pg_catalog"}, {Name: "app"}},
	}
	for i, line := range strings.Split(strings.TrimSpace(fixtureTables), "\n") {
		d.Relations = append(d.Relations, fixtureRelation(uint32(20000+i), line))
	}
	view := func(view string, columns string, on ...string) {
		rel := fixtureRelation(uint32(21000+len(d.Relations)), view+" "+columns)
		rel.Kind = catalog.KindView
		for _, table := range on {
			rel.DependsOn = append(rel.DependsOn, name(table))
		}
		d.Relations = append(d.Relations, rel)
	}
	view("v_settings", "id:int4 name:text", "settings")
	view("v_orders", "id:int8 total:numeric", "orders")
	d.Relations = append(d.Relations,
		&catalog.Relation{OID: 1259, Name: directory.TableName{Schema: "pg_catalog", Name: "pg_class"}, Kind: catalog.KindTable, System: true},
		&catalog.Relation{OID: 22001, Name: name("orders_at"), Kind: catalog.KindIndex, OwnedBy: name("orders")},
		&catalog.Relation{OID: 22002, Name: name("settings_name"), Kind: catalog.KindIndex, OwnedBy: name("settings")},
	)
	for i, line := range strings.Split(strings.TrimSpace(fixtureFunctions), "\n") {
		fields := strings.Fields(line)
		bare, set := strings.CutPrefix(fields[2], "set:")
		f := &catalog.Function{OID: uint32(100 + i), Schema: "pg_catalog", Name: bare, Kind: fields[0][0],
			Volatility: catalog.Volatility(fields[1][0]), ReturnsSet: set, Language: "internal", Source: bare}
		for _, arg := range fields[3:] {
			f.ArgTypes = append(f.ArgTypes, fixtureTypes[arg].oid)
		}
		d.Functions = append(d.Functions, f)
	}
	user := func(oid uint32, volatility byte, language, name, source string) {
		d.Functions = append(d.Functions, &catalog.Function{OID: oid, Schema: "public", Name: name, Kind: 'f', Language: language,
			Volatility: catalog.Volatility(volatility), Source: source, ArgTypes: []uint32{20}})
	}
	user(30001, 'v', "sql", "order_total", "SELECT sum(total) FROM orders WHERE customer_id = $1")
	user(30002, 'v', "plpgsql", "anything", "BEGIN EXECUTE 'x'; END")
	user(30003, 'i', "sql", "twice", "SELECT $1 * 2")
	user(30004, 'v', "plpgsql", "touch_orders", "BEGIN UPDATE orders SET paid = true; RETURN NEW; END")
	user(30005, 'v', "sql", "add_note", "INSERT INTO notes VALUES (1, 'x')")
	for _, rel := range d.Relations {
		if rel.Name.Name == "traced" {
			rel.Triggers = []catalog.Trigger{{Name: "t", Function: 30004, Row: true, Events: "INSERT", Enabled: 'O', Definition: "CREATE TRIGGER t"}}
		}
	}
	for _, rel := range d.Relations {
		if c := (map[string]int{"stamped": 1, "keyed": 0})[rel.Name.Name]; rel.Name.Name == "stamped" || rel.Name.Name == "keyed" {
			rel.Columns[c].HasDefault, rel.Columns[c].Default = true, map[int]string{0: "abs((3)::bigint)", 1: "now()"}[c]
		}
	}
	for typeName, info := range fixtureTypes {
		d.Types = append(d.Types,
			&catalog.Type{OID: info.oid, Schema: "pg_catalog", Name: typeName, Kind: 'b', Array: info.array},
			&catalog.Type{OID: info.array, Schema: "pg_catalog", Name: "_" + typeName, Kind: 'b', Category: 'A', Elem: info.oid})
	}
	return catalog.New(d)
}

func mustText(t directory.KeyType, text string) directory.Value {
	v, err := directory.ParseText(t, text)
	if err != nil {
		panic(fmt.Sprintf("fixture value %q: %v", text, err))
	}
	return v
}

func hashGroup(id string, partitions int, key ...directory.KeyType) directory.Group {
	g := directory.Group{ID: directory.GroupID(id), Method: directory.MethodHash, Key: key}
	for i, interval := range directory.HashIntervals(partitions) {
		g.Partitions = append(g.Partitions, directory.Partition{
			Name: fmt.Sprintf("p%d", i), Shard: directory.ShardID(fmt.Sprintf("s%d", i%3+1)),
			HashFrom: interval.From, HashTo: interval.To,
		})
	}
	return g
}

func rangeGroup(id string, t directory.KeyType, bounds ...string) directory.Group {
	g := directory.Group{ID: directory.GroupID(id), Method: directory.MethodRange, Key: []directory.KeyType{t}}
	from := directory.Bound{Kind: directory.MinValue}
	for i := 0; i <= len(bounds); i++ {
		to := directory.Bound{Kind: directory.MaxValue}
		if i < len(bounds) {
			to = directory.Bound{Kind: directory.Finite, Value: mustText(t, bounds[i])}
		}
		g.Partitions = append(g.Partitions, directory.Partition{
			Name: fmt.Sprintf("p%d", i), Shard: directory.ShardID(fmt.Sprintf("s%d", i%3+1)),
			From: []directory.Bound{from}, To: []directory.Bound{to},
		})
		from = to
	}
	return g
}

func list(partition, shard string, values ...string) directory.Partition {
	p := directory.Partition{Name: partition, Shard: directory.ShardID(shard)}
	for _, v := range values {
		p.Values = append(p.Values, []directory.Value{mustText(directory.Text, v)})
	}
	p.Default = len(values) == 0
	return p
}

func fixtureMap() *directory.Map {
	m := directory.Map{ClusterID: "test", Database: "shop", Epoch: 3, CatalogVersion: 7, Home: "s1"}
	for i := 1; i <= 3; i++ {
		m.Shards = append(m.Shards, directory.Shard{
			ID: directory.ShardID(fmt.Sprintf("s%d", i)), State: directory.ShardActive,
			Primary: directory.Endpoint{Host: "127.0.0.1", Port: uint16(5431 + i)},
		})
	}
	sessions := directory.Group{ID: "sessions", Method: directory.MethodList, Key: []directory.KeyType{directory.Text},
		SubMethod: directory.MethodHash, SubKey: []directory.KeyType{directory.Int8}}
	for r, region := range []string{"eu", "us"} {
		for i, interval := range directory.HashIntervals(2) {
			p := list(fmt.Sprintf("%s_%d", region, i), fmt.Sprintf("s%d", r+i+1), region)
			p.Parent, p.HashFrom, p.HashTo = region, interval.From, interval.To
			sessions.Partitions = append(sessions.Partitions, p)
		}
	}
	m.Groups = []directory.Group{
		hashGroup("customers", 6, directory.Int8),
		hashGroup("tickets", 6, directory.Int8, directory.Int8),
		hashGroup("prices", 6, directory.Numeric),
		hashGroup("codes", 6, directory.Varchar),
		hashGroup("flags", 6, directory.Bool),
		hashGroup("levels", 6, directory.Int4),
		rangeGroup("days", directory.Date, "2024-01-01", "2025-01-01"),
		rangeGroup("events", directory.Timestamptz, "2026-01-01 00:00:00+00"),
		{ID: "users", Method: directory.MethodList, Key: []directory.KeyType{directory.Text},
			Partitions: []directory.Partition{list("eu", "s1", "de", "fr"), list("us", "s2", "us"), list("rest", "s3")}},
		{ID: "regions", Method: directory.MethodList, Key: []directory.KeyType{directory.Text},
			Partitions: []directory.Partition{list("eu", "s1", "eu"), list("us", "s2", "us")}},
		sessions,
		directoryGroup("tenants", directory.AssignRoundRobin, "tenants001", directory.Int8),
		directoryGroup("seats", directory.AssignHash, "seats00001", directory.Int8, directory.Text),
		directoryGroup("vaults", directory.AssignNone, "vaults0001", directory.Text),
	}
	add := func(table, group string, key []string, types []directory.KeyType, typmods []int32) {
		m.Tables = append(m.Tables, directory.Table{Name: name(table), Kind: directory.TableSharded, Group: directory.GroupID(group),
			Key: key, KeyTypes: types, KeyTypmods: typmods})
	}
	one := func(t directory.KeyType) []directory.KeyType { return []directory.KeyType{t} }
	add("customers", "customers", []string{"id"}, one(directory.Int8), nil)
	add("orders", "customers", []string{"customer_id"}, one(directory.Int8), nil)
	add("items", "customers", []string{"customer_id"}, one(directory.Int4), nil)
	add("tickets", "tickets", []string{"tenant", "id"}, []directory.KeyType{directory.Int8, directory.Int8}, nil)
	add("stamped", "customers", []string{"id"}, one(directory.Int8), nil)
	add("keyed", "customers", []string{"k"}, one(directory.Int8), nil)
	add("prices", "prices", []string{"amount"}, one(directory.Numeric), []int32{6<<16 | 2 + 4})
	add("codes", "codes", []string{"code"}, one(directory.Varchar), []int32{7})
	add("flags", "flags", []string{"f"}, one(directory.Bool), nil)
	add("levels", "levels", []string{"l"}, one(directory.Int4), nil)
	add("days", "days", []string{"day"}, one(directory.Date), nil)
	add("events", "events", []string{"at"}, one(directory.Timestamptz), nil)
	add("users", "users", []string{"country"}, one(directory.Text), nil)
	add("regions", "regions", []string{"name"}, one(directory.Text), nil)
	add("tenants", "tenants", []string{"id"}, one(directory.Int8), nil)
	add("projects", "tenants", []string{"tenant_id"}, one(directory.Int4), nil)
	add("seats", "seats", []string{"tenant", "name"}, []directory.KeyType{directory.Int8, directory.Text}, nil)
	add("vaults", "vaults", []string{"name"}, one(directory.Text), nil)
	m.Tables = append(m.Tables, directory.Table{Name: name("sessions"), Kind: directory.TableSharded, Group: "sessions",
		Key: []string{"region"}, KeyTypes: one(directory.Text), SubKey: []string{"user_id"}, SubKeyTypes: one(directory.Int8)})
	for table, shard := range map[string]string{"audit": "s2", "ledger": "s2", "archive": "s3"} {
		m.Tables = append(m.Tables, directory.Table{Name: name(table), Kind: directory.TablePinned, Shard: directory.ShardID(shard)})
	}
	m.Tables = append(m.Tables, directory.Table{Name: name("countries"), Kind: directory.TableReference, Shard: "s1", Key: []string{"code"}, Mirror: "m1"})
	built, err := directory.NewMap(m)
	if err != nil {
		panic(err)
	}
	return built
}

func directoryGroup(id string, assign directory.Assign, entries string, key ...directory.KeyType) directory.Group {
	g := directory.Group{ID: directory.GroupID(id), Method: directory.MethodDirectory, Key: key, Assign: assign, Entries: entries}
	for _, shard := range []string{"s1", "s2", "s3"} {
		g.Partitions = append(g.Partitions, directory.Partition{Name: shard, Shard: directory.ShardID(shard)})
	}
	return g
}

// fixtureEntries knows that tenants 1 to 9 are on s1 to s3 in turn and that 10 has no entry; that seat (1, 'a') is on
// s2; that vault gold is on s3 and lead has no entry.
func fixtureEntries(m *directory.Map) *directory.Entries {
	e := directory.NewEntries(nil)
	learn := func(group, shard string, texts ...string) {
		g, ok := m.Group(directory.GroupID(group))
		if !ok {
			return
		}
		var key []directory.Value
		for i, text := range texts {
			v, err := directory.ParseText(g.Key[i], text)
			if err != nil {
				panic(err)
			}
			key = append(key, v)
		}
		e.Learn(g, directory.EntryKeyOf(key), directory.ShardID(shard))
	}
	for i := range 9 {
		learn("tenants", fmt.Sprintf("s%d", i%3+1), fmt.Sprint(i+1))
	}
	learn("tenants", "", "10")
	learn("seats", "s2", "1", "a")
	learn("vaults", "s3", "gold")
	learn("vaults", "", "lead")
	return e
}

func fixtureEnv() *Env {
	return &Env{
		Map: fixtureMap(), Catalog: fixtureCatalog(), SearchPath: []string{"$user", "public"}, User: "app",
		TimeZone: "Europe/Berlin", DateStyle: "ISO, DMY", IntervalStyle: "postgres", StandardConformingStrings: true,
	}
}

func unshardedEnv() *Env {
	env := fixtureEnv()
	m, err := directory.NewMap(directory.Map{ClusterID: "test", Database: "plain", Epoch: 1, Home: "s1", Shards: env.Map.Shards})
	if err != nil {
		panic(err)
	}
	env.Map = m
	return env
}

func TestFixtureStands(t *testing.T) {
	if !fixtureMap().AnythingSharded() || unshardedEnv().Map.AnythingSharded() {
		t.Fatal("fixture maps are wrong")
	}
}
