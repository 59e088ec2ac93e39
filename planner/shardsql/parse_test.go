package shardsql_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/shardyard/shardyard/planner/shardsql"
)

// TestParse runs the cases of testdata: the statement, or its error with a
// caret under its position.
func TestParse(t *testing.T) {
	cases := 0
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if strings.Contains(path, "fuzz") {
			return
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			cases++
			switch d.Cmd {
			case "parse":
				if !shardsql.Recognise(d.Input) {
					d.Fatalf(t, "not recognised")
				}
				statement, err := shardsql.Parse(d.Input)
				if err != nil {
					return describeError(t, d.Input, err)
				}
				return describe(statement)
			case "recognise":
				return fmt.Sprintln(shardsql.Recognise(d.Input))
			}
			d.Fatalf(t, "unknown command %s", d.Cmd)
			return ""
		})
	})
	if cases < 120 {
		t.Errorf("only %d cases", cases)
	}
}

func describeError(t *testing.T, sql string, err error) string {
	var refusal *shardsql.Error
	if !errors.As(err, &refusal) {
		t.Fatalf("%q: %T", sql, err)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "ERROR %s: %s\n", refusal.SQLState(), refusal.Message)
	if refusal.Position > 0 {
		before := []rune(sql)[:refusal.Position-1]
		line := strings.Split(sql, "\n")[strings.Count(string(before), "\n")]
		column := len([]rune(string(before)[strings.LastIndex(string(before), "\n")+1:]))
		fmt.Fprintf(&out, "%s\n%s^\n", line, strings.Repeat(".", column))
	}
	if refusal.Hint != "" {
		fmt.Fprintf(&out, "HINT: %s\n", refusal.Hint)
	}
	return out.String()
}

func describe(statement shardsql.Statement) string {
	var out strings.Builder
	switch s := statement.(type) {
	case *shardsql.ShardTable:
		fmt.Fprintf(&out, "shard %s by %s %s", name(s.Table), s.Method, columns(s.Key))
		if s.SubMethod != "" {
			fmt.Fprintf(&out, " then %s %s", s.SubMethod, columns(s.SubKey))
		}
		fmt.Fprintf(&out, " partitions=%d subpartitions=%d unique_local=%v", s.Partitions, s.Subpartitions, s.UniqueLocal)
		if s.Colocate != nil {
			fmt.Fprintf(&out, " colocate=%s", name(*s.Colocate))
		}
		out.WriteString("\n" + definitions(s.Defs))
	case *shardsql.PinTable:
		fmt.Fprintf(&out, "pin %s on %s@%d\n", name(s.Table), s.Shard, s.ShardPosition)
	case *shardsql.ReferenceTable:
		fmt.Fprintf(&out, "reference %s\n", name(s.Table))
	case *shardsql.DirectoryTable:
		fmt.Fprintf(&out, "directory %s %s assign=%q unique_local=%v", name(s.Table), columns(s.Key), s.Assign, s.UniqueLocal)
		if s.Shards != nil {
			fmt.Fprintf(&out, " on=%s", columns(s.Shards))
		}
		if s.Colocate != nil {
			fmt.Fprintf(&out, " colocate=%s", name(*s.Colocate))
		}
		out.WriteString("\n")
	case *shardsql.AlterShardTable:
		fmt.Fprintf(&out, "alter %s partitions %s", name(s.Table), columns(s.Partitions))
		if s.Into == nil {
			fmt.Fprintf(&out, " to %s@%d", s.Placement, s.PlacementPosition)
		}
		out.WriteString("\n" + definitions(s.Into))
	case *shardsql.AssignEntries:
		fmt.Fprintf(&out, "assign %s", name(s.Table))
		for _, key := range s.Keys {
			fmt.Fprintf(&out, " (%s)", literals(key))
		}
		fmt.Fprintf(&out, " to %s@%d\n", s.Shard, s.ShardPosition)
	case *shardsql.ShowEntries:
		fmt.Fprintf(&out, "show entries %s for=(%s) after=(%s) limit=%d\n", name(s.Table), literals(s.For), literals(s.After), s.Limit)
	case *shardsql.UnshardTable:
		fmt.Fprintf(&out, "unshard %s\n", name(s.Table))
	case *shardsql.ShardFunction:
		fmt.Fprintf(&out, "function %s by %s colocate=%s\n", name(s.Function), columns(s.Arguments), name(s.Colocate))
	case *shardsql.ShowPartitions:
		fmt.Fprintf(&out, "show partitions %s\n", name(s.Table))
	default:
		fmt.Fprintf(&out, "%T\n", statement)
	}
	return out.String()
}

func name(n shardsql.Name) string {
	if n.Schema != "" {
		return fmt.Sprintf("[%s].[%s]@%d", n.Schema, n.Name, n.Position)
	}
	return fmt.Sprintf("[%s]@%d", n.Name, n.Position)
}

func columns(list []shardsql.Column) string {
	var out []string
	for _, column := range list {
		out = append(out, fmt.Sprintf("%s@%d", column.Name, column.Position))
	}
	return "(" + strings.Join(out, ", ") + ")"
}

func literals(list []shardsql.Literal) string {
	var out []string
	for _, literal := range list {
		kind := map[shardsql.LiteralKind]string{shardsql.LiteralNumber: "number", shardsql.LiteralString: "string", shardsql.LiteralNull: "null", shardsql.LiteralBool: "bool", shardsql.LiteralMaxValue: "max"}[literal.Kind]
		out = append(out, fmt.Sprintf("%s<%s>@%d", kind, literal.Text, literal.Position))
	}
	return "(" + strings.Join(out, ", ") + ")"
}

func definitions(defs []shardsql.PartitionDef) string {
	var out strings.Builder
	for _, def := range defs {
		fmt.Fprintf(&out, "  %s@%d", def.Name, def.Position)
		if def.LessThan != nil {
			out.WriteString(" below " + literals(def.LessThan))
		}
		for _, tuple := range def.In {
			out.WriteString(" in " + literals(tuple))
		}
		if def.Default {
			out.WriteString(" default")
		}
		if def.Placement != "" {
			fmt.Fprintf(&out, " on %s@%d", def.Placement, def.PlacementPosition)
		}
		for _, sub := range def.Subpartitions {
			fmt.Fprintf(&out, " sub %s@%d", sub.Name, sub.Position)
			if sub.Placement != "" {
				fmt.Fprintf(&out, " on %s@%d", sub.Placement, sub.PlacementPosition)
			}
		}
		out.WriteString("\n")
	}
	return out.String()
}

// TestStringsAreOurs: the value of a string in a bound is Postgres's, whatever
// MySQL would make of it.
func TestStringsAreOurs(t *testing.T) {
	for text, want := range map[string]string{
		`'a\'`: `a\`, `'a\\b'`: `a\\b`, `'\''`: `\'`, `'a''b'`: `a'b`, `'%_'`: `%_`, `'a"b'`: `a"b`, `'#x'`: `#x`, `'-- x'`: `-- x`, `'/* x */'`: `/* x */`, `'/*! x */'`: `/*! x */`,
		`'i3'`: `i3`, `'s99'`: `s99`, `'é''日本'`: `é'日本`, "'a\nb'": "a\nb", "'a'\n'b'": "ab", `''`: ``, `'\n\0'`: `\n\0`, `'?'`: `?`, `'@x'`: `@x`, "'`x`'": "`x`", `';'`: `;`,
	} {
		sql := "shard table t by list (k) (partition p values in (" + text + "))"
		statement, err := shardsql.Parse(sql)
		if text == `'\''` { // a backslash escapes nothing: the string ends, and another one does not
			if err == nil {
				t.Errorf("%s is accepted", text)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := statement.(*shardsql.ShardTable).Defs[0].In[0][0].Text; got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for text, want := range map[string]string{
		"5": "5", "-5": "-5", "+5": "5", "- 5": "-5", "010": "010", "1_000": "1000", "0x1F": "31", "0o17": "15", "0b101": "5", "-0xff": "-255", "1.50": "1.50", ".5": ".5", "1e3": "1e3", "1_0.5_0": "10.50",
		"99999999999999999999999": "99999999999999999999999", "(5)": "5", "((-5))": "-5",
	} {
		statement, err := shardsql.Parse("shard table t by range (k) (partition p values less than (" + text + "))")
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := statement.(*shardsql.ShardTable).Defs[0].LessThan[0]; got.Text != want || got.Kind != shardsql.LiteralNumber {
			t.Errorf("%s: %+v, want %s", text, got, want)
		}
	}
}

func TestRecogniseAllocates(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() {
		if shardsql.Recognise("select a from t where k = 5") || !shardsql.Recognise("SHARD TABLE t ON s1") {
			t.Fail()
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestManyPartitions(t *testing.T) {
	var sql strings.Builder
	sql.WriteString("shard table t by range (k) (partition p0 values less than (0)")
	for i := 1; i < 5000; i++ {
		fmt.Fprintf(&sql, ", partition p%d values less than (%d) placement policy = s%d", i, i, i%7)
	}
	sql.WriteString(")")
	statement, err := shardsql.Parse(sql.String())
	if err != nil {
		t.Fatal(err)
	}
	defs := statement.(*shardsql.ShardTable).Defs
	if len(defs) != 5000 || defs[4999].Name != "p4999" || defs[4999].LessThan[0].Text != "4999" || defs[4999].Placement != "s1" {
		t.Errorf("%d partitions, the last %+v", len(defs), defs[len(defs)-1])
	}
}

// FuzzParse: never a panic, and every error has a position within the text.
func FuzzParse(f *testing.F) {
	for _, sql := range []string{
		"SHARD TABLE customers BY HASH (id) PARTITIONS 16;",
		"SHARD TABLE s.\"T\" BY RANGE (a, b) (PARTITION p VALUES LESS THAN (-1, 'x') PLACEMENT POLICY = s1, PARTITION q VALUES LESS THAN (MAXVALUE, MAXVALUE)) UNIQUE LOCAL",
		"SHARD TABLE t BY LIST (a, b) (PARTITION p VALUES IN ((1, 'x'), (2, NULL)), PARTITION o DEFAULT)",
		"SHARD TABLE t BY LIST (a) SUBPARTITION BY HASH (b, c) SUBPARTITIONS 2 (PARTITION p VALUES IN (true) (SUBPARTITION a, SUBPARTITION b PLACEMENT POLICY s2))",
		"SHARD TABLE t BY HASH (a) COLOCATE WITH u", "SHARD TABLE t BY DIRECTORY (a) ASSIGN ROUND ROBIN", "SHARD TABLE t AS REFERENCE", "SHARD TABLE t ON s3",
		"ALTER SHARD TABLE t PARTITION p PLACEMENT POLICY = s4", "ALTER SHARD TABLE t REORGANIZE PARTITION p, q INTO (PARTITION a VALUES LESS THAN (5), PARTITION b VALUES IN (5))",
		"UNSHARD TABLE t", "SHARD FUNCTION f BY (a) COLOCATE WITH t", "SHOW SHARDS", "SHOW TABLES", "SHOW PARTITIONS FROM s.t",
	} {
		f.Add(sql)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		shardsql.Recognise(sql)
		statement, err := shardsql.Parse(sql)
		if (statement == nil) == (err == nil) {
			t.Fatalf("%q: %v, %v", sql, statement, err)
		}
		var refusal *shardsql.Error
		if err != nil && (!errors.As(err, &refusal) || refusal.Message == "" || len(refusal.Code) != 5 || refusal.Position < 1 || refusal.Position > len([]rune(sql))+1) {
			t.Fatalf("%q: %+v", sql, err)
		}
		if err == nil && !shardsql.Recognise(sql) {
			t.Fatalf("%q parses but is not recognised", sql)
		}
	})
}
