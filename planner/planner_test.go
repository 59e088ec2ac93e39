package planner

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/shardyard/shardyard/directory"
)

// mustPlan plans one statement.
func mustPlan(t testing.TB, p *Planner, sql string, types []uint32, env *Env) (*Plan, *Statement) {
	t.Helper()
	st := &Statement{Text: sql}
	plan, err := p.Plan(st, types, env)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return plan, st
}

func shardsFor(t testing.TB, plan *Plan, a Args) string {
	t.Helper()
	target, err := plan.Targets(a)
	if err != nil {
		return describeError(err)
	}
	return fmt.Sprint(target.Shards)
}

// One value has one shard, in whatever form it comes.
func TestSameValueSameShard(t *testing.T) {
	p, env := New(Config{}), fixtureEnv()
	for _, n := range []int64{0, 1, 5, -1, 7, 123456789, -2147483648, 2147483647, 1 << 40, 1<<63 - 1, -1 << 63} {
		g, _ := env.Map.Group("customers")
		v, err := directory.IntValue(directory.Int8, n)
		if err != nil {
			t.Fatal(err)
		}
		part, _ := g.Locate([]directory.Value{v}, nil)
		want := fmt.Sprintf("[%s]", g.Partitions[part].Shard)
		for _, sql := range []string{
			fmt.Sprintf("select * from orders where customer_id = %d", n),
			fmt.Sprintf("select * from orders where customer_id = '%d'", n),
			fmt.Sprintf("select * from orders where customer_id = ' %d '", n),
			fmt.Sprintf("select * from orders where customer_id = %d.0", n),
			fmt.Sprintf("select * from orders where customer_id = '%d'::int8", n),
			fmt.Sprintf("select * from orders where customer_id in (%d)", n),
			fmt.Sprintf("select * from orders where customer_id = any ('{%d}')", n),
			fmt.Sprintf("select * from orders where customer_id >= %d and customer_id = %d", n, n),
			fmt.Sprintf("insert into orders (customer_id) values (%d)", n),
			fmt.Sprintf("insert into orders (customer_id) values ('%d')", n),
			fmt.Sprintf("insert into orders (customer_id) values (%d.4)", n),
			fmt.Sprintf("update orders set paid = true where customer_id = %d", n),
			fmt.Sprintf("delete from orders where %d = customer_id", n),
		} {
			if strings.Contains(sql, ".4)") && (n == 1<<63-1 || n == -1<<63) {
				continue
			}
			plan, st := mustPlan(t, p, sql, nil, env)
			if got := shardsFor(t, plan, Args{Map: env.Map, Statement: st}); got != want {
				t.Errorf("%s: %s, want %s\n%s", sql, got, want, plan)
			}
		}
		for _, c := range []struct {
			oid  uint32
			wire []byte
			bin  int16
		}{
			{0, fmt.Append(nil, n), 0},
			{20, fmt.Append(nil, n), 0},
			{1700, fmt.Append(nil, n, ".00"), 0},
			{0, binary.BigEndian.AppendUint64(nil, uint64(n)), 1},
			{20, binary.BigEndian.AppendUint64(nil, uint64(n)), 1},
		} {
			for _, sql := range []string{
				"select * from orders where customer_id = $1", "insert into orders (customer_id) values ($1)",
				"select * from customers c join orders o on o.customer_id = c.id where c.id = $1",
			} {
				plan, st := mustPlan(t, p, sql, []uint32{c.oid}, env)
				got := shardsFor(t, plan, Args{Map: env.Map, Statement: st, Params: [][]byte{c.wire}, Formats: []int16{c.bin}})
				if got != want {
					t.Errorf("%s with %d as type %d format %d: %s, want %s", sql, n, c.oid, c.bin, got, want)
				}
			}
		}
	}
}

func TestBinaryParameters(t *testing.T) {
	p, env := New(Config{}), fixtureEnv()
	array := func(values ...int64) []byte {
		b := binary.BigEndian.AppendUint32(nil, 1)
		b = binary.BigEndian.AppendUint32(b, 0)
		b = binary.BigEndian.AppendUint32(b, 20)
		b = binary.BigEndian.AppendUint32(b, uint32(len(values)))
		b = binary.BigEndian.AppendUint32(b, 1)
		for _, v := range values {
			b = binary.BigEndian.AppendUint32(b, 8)
			b = binary.BigEndian.AppendUint64(b, uint64(v))
		}
		return b
	}
	plan, st := mustPlan(t, p, "select * from orders where customer_id = any ($1)", []uint32{1016}, env)
	for _, c := range []struct {
		wire []byte
		want string
	}{
		{array(5), "[s3]"}, {array(5, 5), "[s3]"}, {array(1, 2), "[s1 s2]"}, {array(), "[s1]"}, {nil, "[s1]"},
		{array(5)[:20], "[s1]"}, {[]byte{1}, "[s1]"}, // malformed: a shard says so
	} {
		if got := shardsFor(t, plan, Args{Map: env.Map, Statement: st, Params: [][]byte{c.wire}, Formats: []int16{1}}); got != c.want {
			t.Errorf("%x: %s, want %s", c.wire, got, c.want)
		}
	}
	// A type that only the shard told.
	plan, st = mustPlan(t, p, "select $1, * from orders where customer_id = $1", nil, env)
	args := Args{Map: env.Map, Statement: st, Params: [][]byte{[]byte("5")}}
	if got := shardsFor(t, plan, args); got != "[s1 s2 s3]" {
		t.Errorf("uncertain parameter: %s", got)
	}
	args.Types = []uint32{20}
	if got := shardsFor(t, plan, args); got != "[s3]" {
		t.Errorf("parameter whose type is known at last: %s", got)
	}
	args.Types = []uint32{25}
	if got := shardsFor(t, plan, args); got != "[s1 s2 s3]" {
		t.Errorf("parameter of another type: %s", got)
	}
}

func TestTranscodedText(t *testing.T) {
	p, env := New(Config{}), fixtureEnv()
	plan, st := mustPlan(t, p, "select * from users where country = 'dé'", nil, env)
	if got := shardsFor(t, plan, Args{Map: env.Map, Statement: st}); got != "[s3]" {
		t.Errorf("in the server's encoding: %s", got)
	}
	if got := shardsFor(t, plan, Args{Map: env.Map, Statement: st, Transcoded: true}); got != "[s1 s2 s3]" {
		t.Errorf("in another encoding: %s", got)
	}
}

// The cache gives the same plan for other values, and another one where anything else differs.
func TestCache(t *testing.T) {
	p, env := New(Config{}), fixtureEnv()
	first, _ := mustPlan(t, p, "select * from orders where customer_id = 5", nil, env)
	other, st := mustPlan(t, p, "SELECT  * FROM orders WHERE customer_id=1 -- x", nil, env)
	if first != other {
		t.Error("another literal missed the cache")
	}
	if got := shardsFor(t, other, Args{Map: env.Map, Statement: st}); got != "[s2]" {
		t.Errorf("cached plan with another value: %s", got)
	}
	if got := shardsFor(t, other, Args{Map: env.Map, Statement: &Statement{Text: "select * from orders where customer_id = 5"}}); got != "[s3]" {
		t.Errorf("statement that was not planned: %s", got)
	}
	changes := map[string]func(*Env){
		"path":     func(e *Env) { e.SearchPath = []string{"app"} },
		"user":     func(e *Env) { e.User = "other" },
		"timezone": func(e *Env) { e.TimeZone = "UTC" },
		"style":    func(e *Env) { e.DateStyle = "SQL" },
		"temp":     func(e *Env) { e.TempNames = []string{"orders"} },
		"catalog":  func(e *Env) { c := *e.Catalog; c.Version++; e.Catalog = &c },
		"epoch":    func(e *Env) { m := *e.Map; m.Epoch++; e.Map = &m },
	}
	for name, change := range changes {
		changed := *env
		change(&changed)
		plan, _ := mustPlan(t, p, "select * from orders where customer_id = 5", nil, &changed)
		if plan == first {
			t.Errorf("the plan is the same with another %s", name)
		}
	}
	if plan, _ := mustPlan(t, p, "select * from orders where customer_id = 5", []uint32{23}, env); plan == first {
		t.Error("the plan is the same with other parameter types")
	}
}

// A plan whose text holds literals is not used for others.
func TestCacheOfRewrittenText(t *testing.T) {
	p, env := New(Config{}), fixtureEnv()
	for range 3 {
		for _, limit := range []string{"4", "5"} {
			sql := "select id from orders order by total limit " + limit
			plan, _ := mustPlan(t, p, sql, nil, env)
			if !strings.HasSuffix(plan.SQL, "LIMIT "+limit) {
				t.Fatalf("%s is pushed as %s", sql, plan.SQL)
			}
		}
	}
}

func TestStaleMap(t *testing.T) {
	p, env := New(Config{}), fixtureEnv()
	plan, st := mustPlan(t, p, "select * from orders where customer_id = 5", nil, env)
	m := *env.Map
	m.Epoch++
	var e *Error
	if _, err := plan.Targets(Args{Map: &m, Statement: st}); !errors.As(err, &e) || e.Code != codeStaleMap {
		t.Errorf("plan of an older epoch: %v", err)
	}
}

func TestStatements(t *testing.T) {
	p := New(Config{})
	got, err := p.Statements("select 'ä'; begin ;; shard table t on s1;select 2")
	if err != nil || len(got) != 4 {
		t.Fatalf("%d statements, %v", len(got), err)
	}
	if got[1].Text != "begin" || got[1].Offset != 13 || got[1].Chars != 12 {
		t.Errorf("second statement: %+v", got[1])
	}
	broken, _ := p.Statements("select 1; selec 2")
	if len(broken) != 1 || !broken[0].unparsable || broken[0].Text != "select 1; selec 2" {
		t.Errorf("broken text: %+v", broken)
	}
}

func TestStandardConformingStrings(t *testing.T) {
	p, env := New(Config{}), fixtureEnv()
	env.StandardConformingStrings = false
	for text, parseOnly := range map[string]bool{
		"select * from orders where customer_id = 5": false, `select 'a\'b' from orders`: true, "select U&'x'": true,
	} {
		plan, err := p.Plan(&Statement{Text: text}, nil, env)
		if err != nil || plan.ParseOnly != parseOnly {
			t.Errorf("%s: %v, %v", text, plan, err)
		}
	}
	if _, err := p.Plan(&Statement{Text: `savepoint "a\"`}, nil, env); err == nil {
		t.Error("a savepoint with a backslash is planned with standard_conforming_strings off")
	}
	if _, err := p.Plan(&Statement{Text: "set standard_conforming_strings = on"}, nil, env); err != nil {
		t.Errorf("cannot be set on again: %v", err)
	}
}

func TestConcurrentUse(t *testing.T) {
	p, env := New(Config{CacheSize: 16}), fixtureEnv()
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for i := range 200 {
				sql := fmt.Sprintf("select %d, c%d from orders where customer_id = %d", i, i%40, worker)
				st := &Statement{Text: sql}
				plan, err := p.Plan(st, nil, env)
				if err != nil {
					t.Errorf("%s: %v", sql, err)
					return
				}
				if _, err := plan.Targets(Args{Map: env.Map, Statement: st}); err != nil {
					t.Errorf("%s: %v", sql, err)
				}
			}
		})
	}
	group.Wait()
}

// FuzzPlan: whatever parses is planned or refused, with a SQLSTATE and never with a panic, and so are
// its targets.
func FuzzPlan(f *testing.F) {
	for _, sql := range corpus(f) {
		f.Add(sql)
	}
	f.Add("insert into orders values (1, 1, 1), (2, 2, 'x \xa4')returning id,n")
	p, env, plain := New(Config{CacheSize: 100}), fixtureEnv(), unshardedEnv()
	f.Fuzz(func(t *testing.T, sql string) {
		statements, err := p.Statements(sql)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range []*Env{env, plain} {
			for i := range statements {
				checkPlan(t, p, &statements[i], e)
			}
		}
	})
}

// checkSplit: what the shards of an INSERT get are statements, with all rows.
func checkSplit(t *testing.T, plan *Plan, args Args, target Target) {
	texts, err := plan.Split(args, target)
	if err != nil {
		t.Fatalf("%q: %v", args.Statement.Text, err)
	}
	rows := 0
	for _, text := range texts {
		rows += text.Rows
		// Our parser takes no text that is not UTF-8; a shard that gets it says that it is not.
		if _, err := parse(text.Text); err != nil && utf8.ValidString(text.Text) {
			t.Fatalf("%q became %q: %v", args.Statement.Text, text.Text, err)
		}
	}
	if rows != len(target.Rows) {
		t.Errorf("%q: %d rows became %d", args.Statement.Text, len(target.Rows), rows)
	}
}

func checkPlan(t *testing.T, p *Planner, st *Statement, env *Env) {
	plan, err := p.Plan(st, nil, env)
	if err == nil {
		_ = plan.String()
		args := Args{Map: env.Map, Statement: st, Entries: fixtureEntries(env.Map), Params: [][]byte{[]byte("5"), nil, []byte("x"), []byte("{1}")}}
		var target Target
		target, err = plan.Targets(args)
		if target.Ask {
			plan = plan.Asking()
			args.Supplied = make([][]byte, len(plan.Insert.Values))
			target, err = plan.Targets(args)
		}
		if target.Rows != nil && plan.Insert != nil {
			checkSplit(t, plan, args, target)
		}
		if err == nil && len(target.Shards) == 0 && len(target.Missing) == 0 && plan.Route.Kind != RouteNone && plan.Route.Kind != RouteAny {
			t.Errorf("no shard for %q", st.Text)
		}
		if err == nil && len(target.Shards) > 1 && plan.Merge == nil && plan.Modify == nil {
			t.Errorf("several shards without a merge for %q", st.Text)
		}
		if plan.Describer(env.Map) == "" {
			t.Errorf("no describer for %q", st.Text)
		}
	}
	if err == nil {
		return
	}
	var e *Error
	if !errors.As(err, &e) || len(e.Code) != 5 || e.Message == "" {
		t.Fatalf("%q: error without SQLSTATE: %v", st.Text, err)
	}
	if e.Code == codeInternal {
		t.Fatalf("%q: %v", st.Text, err)
	}
}
