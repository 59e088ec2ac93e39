package planner

import (
	"fmt"
	"strings"

	"github.com/shardyard/shardyard/directory"
)

// String describes the plan in a few lines, for EXPLAIN and for tests.
func (pl *Plan) String() string {
	var b strings.Builder
	b.WriteString(pl.Kind.String())
	if pl.Tag != "" {
		b.WriteString(" " + pl.Tag)
	}
	for _, flag := range []struct {
		set  bool
		text string
	}{
		{pl.ParseOnly, "parse only"}, {pl.ReadOnly, "read only"}, {pl.Mirrors, "mirrors"}, {pl.Dirty, "dirty"}, {pl.SetsUnseen, "sets unseen"}, {pl.Watched, "watched"},
		{pl.Notifies, "notifies"}, {pl.Listening, "listening"},
		{pl.Pins != "", "pins: " + pl.Pins}, {pl.SessionValue != "", "session value: " + pl.SessionValue},
		{pl.valuesUsed, "this text only"},
	} {
		if flag.set {
			b.WriteString(" [" + flag.text + "]")
		}
	}
	b.WriteString("\n")
	for _, line := range pl.RouteLines() {
		b.WriteString("  " + line + "\n")
	}
	pl.printDetails(&b)
	return strings.TrimRight(b.String(), "\n")
}

func (pl *Plan) printDetails(b *strings.Builder) {
	if pl.Name != "" {
		fmt.Fprintf(b, "  name: %s\n", pl.Name)
	}
	if pl.Transaction != nil {
		fmt.Fprintf(b, "  transaction: %+v\n", *pl.Transaction)
	}
	if pl.Set != nil {
		fmt.Fprintf(b, "  setting: %+v\n", *pl.Set)
	}
	for _, s := range pl.SetConfig {
		fmt.Fprintf(b, "  set_config: %+v\n", s)
	}
	if pl.Prepare != nil {
		fmt.Fprintf(b, "  prepare %s %v:%s\n", pl.Prepare.Name, pl.Prepare.Types, pl.Prepare.Text)
	}
	if pl.Execute != nil {
		fmt.Fprintf(b, "  execute: %+v\n", *pl.Execute)
	}
	if pl.Cursor != nil {
		fmt.Fprintf(b, "  cursor: %+v\n", *pl.Cursor)
	}
	if pl.Copy != nil {
		pl.Copy.print(b)
	}
	if pl.DDL != nil {
		fmt.Fprintf(b, "  ddl: %+v\n", *pl.DDL)
	}
	if pl.Database != nil {
		fmt.Fprintf(b, "  database: %+v\n", *pl.Database)
	}
	if pl.Everywhere != nil {
		fmt.Fprintf(b, "  everywhere: %+v\n", *pl.Everywhere)
	}
	if pl.Role != nil {
		fmt.Fprintf(b, "  role: %+v\n", *pl.Role)
	}
	if pl.Tablespace != nil {
		fmt.Fprintf(b, "  tablespace: %+v\n", *pl.Tablespace)
	}
	if pl.Sharding != nil {
		fmt.Fprintf(b, "  statement: %T\n", pl.Sharding)
	}
	if pl.Explain != nil {
		fmt.Fprintf(b, "  explain: analyze %v, format %s, %q of %s\n", pl.Explain.Analyze, pl.Explain.Format, pl.Explain.Prefix, pl.Explain.Inner.Kind)
	}
}

// RouteLines say in words where the statement goes and how the answers are put together.
func (pl *Plan) RouteLines() []string {
	var lines []string
	switch pl.Route.Kind {
	case RouteHome:
		lines = append(lines, "route: home shard")
	case RouteAny:
		lines = append(lines, "route: any shard")
	case RouteShard:
		lines = append(lines, "route: shard "+string(pl.Route.Shard))
	case RouteFilters:
		for i := range pl.Route.Filters {
			lines = append(lines, "route: "+pl.Route.Filters[i].String())
		}
		if pl.Route.Also != "" {
			lines = append(lines, "route: and shard "+string(pl.Route.Also))
		}
	}
	if pl.Merge != nil {
		lines = append(lines, "several shards: "+pl.Merge.String())
	}
	if pl.CreateAs != nil {
		lines = append(lines, "table made by: "+pl.CreateAs.Define)
	}
	if t := pl.Transfer; t != nil {
		for _, line := range t.Source.RouteLines() {
			lines = append(lines, "rows read: "+line)
		}
		lines = append(lines, "rows read by: "+t.Text, "rows stored by: "+t.insert())
	} else if pl.Modify != nil {
		lines = append(lines, "several shards: "+pl.Modify.String())
	}
	if pl.SQL != "" {
		lines = append(lines, "pushed: "+pl.SQL)
	}
	if pl.Combine != nil {
		lines = append(lines, pl.Combine.lines()...)
	}
	if pl.Refusal != nil {
		lines = append(lines, "several shards: refused: "+pl.Refusal.Message)
	}
	return lines
}

func (c *CombineData) lines() (lines []string) {
	for i := range c.Pieces {
		lines = append(lines, c.Pieces[i].lines()...)
	}
	return append(lines, "combined by: "+c.SQL)
}

func (p *Piece) lines() []string {
	text := p.Text
	if p.Source.SQL != "" {
		text = p.Source.SQL
	}
	lines := []string{"piece " + p.Table + ": " + text}
	for _, line := range p.Source.RouteLines() {
		if strings.HasPrefix(line, "route: ") {
			lines = append(lines, "piece "+p.Table+": "+line)
		}
	}
	return lines
}

// String describes a filter: "by key public.orders.customer_id = $1".
func (f *Filter) String() string {
	if len(f.Any) == 0 {
		return "all shards of " + f.Table.String()
	}
	kind := "by key "
	if f.Stored {
		kind = "rows by key "
	}
	branches := make([]string, 0, len(f.Any))
	for i := range f.Any {
		var parts []string
		for j := range f.Any[i].Columns {
			name := f.Table.String() + "." + directory.QuoteIdentifier(f.column(j).Name)
			if text := f.Any[i].Columns[j].describe(name); text != "" {
				parts = append(parts, text)
			}
		}
		branches = append(branches, strings.Join(parts, " and "))
	}
	return kind + strings.Join(branches, " or ")
}

func (c *Condition) describe(name string) string {
	var parts []string
	switch {
	case len(c.In) == 1 && !c.In[0].Array:
		parts = append(parts, name+" = "+c.In[0].String())
	case c.In != nil:
		values := make([]string, len(c.In))
		for i := range c.In {
			values[i] = c.In[i].String()
		}
		parts = append(parts, name+" in ("+strings.Join(values, ", ")+")")
	}
	if c.Lo != nil {
		parts = append(parts, name+map[bool]string{true: " > ", false: " >= "}[c.LoOpen]+c.Lo.String())
	}
	if c.Hi != nil {
		parts = append(parts, name+map[bool]string{true: " < ", false: " <= "}[c.HiOpen]+c.Hi.String())
	}
	return strings.Join(parts, " and ")
}

// String describes a value: $1, a constant, or the ordinal of a literal as #0.
func (r *ValueRef) String() string {
	var text string
	switch {
	case r.Null:
		return "NULL"
	case r.Kind == RefConst && r.Invalid:
		return "an invalid " + r.Type.String()
	case r.Kind == RefConst && r.Unsure:
		return "an uncertain " + r.Type.String()
	case r.Kind == RefConst:
		return r.Const.Literal()
	case r.Kind == RefSupplied:
		return fmt.Sprintf("computed %d::%s", r.Param, r.Type)
	case r.Kind == RefLiteral:
		text = fmt.Sprintf("#%d", r.Literal)
		if r.Negative {
			text = "-" + text
		}
	default:
		text = fmt.Sprintf("$%d", r.Param)
	}
	text += "::" + r.Type.String()
	if r.Array {
		text += "[]"
	}
	if r.Unsure {
		text += "?"
	}
	return text
}

// String describes a merge.
func (m *Merge) String() string {
	text := "concatenate"
	if len(m.OrderBy) > 0 {
		keys := make([]string, len(m.OrderBy))
		for i, k := range m.OrderBy {
			keys[i] = fmt.Sprintf("column %d", k.Column)
			if k.Desc {
				keys[i] += " desc"
			}
			if k.NullsFirst != k.Desc {
				keys[i] += map[bool]string{true: " nulls first", false: " nulls last"}[k.NullsFirst]
			}
		}
		text = "merge by " + strings.Join(keys, ", ")
	}
	if m.Hidden > 0 {
		text += fmt.Sprintf(", hide %d", m.Hidden)
	}
	if m.Limit != nil {
		text += ", limit " + m.Limit.String()
	}
	if m.Offset != nil {
		text += ", offset " + m.Offset.String()
	}
	return text
}
