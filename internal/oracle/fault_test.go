package oracle

import (
	"slices"
	"strconv"
	"testing"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
)

// faultBound is within how many random statements a planted fault must show.
const faultBound = 1500

// faultSeed makes the test the same every time.
const faultSeed = 20240105

// faults are mistakes that a planner or a router could make.
var faults = []struct {
	name  string
	plant func(*planner.Plan)
}{
	{"OR is read as AND", func(p *planner.Plan) { eachFilter(p, mergeAlternatives) }},
	{"the second alternative is dropped", func(p *planner.Plan) {
		eachFilter(p, func(f *planner.Filter) {
			if len(f.Any) > 1 {
				f.Any = slices.Delete(slices.Clone(f.Any), 1, 2)
			}
		})
	}},
	{"an IN list is cut to its first value", func(p *planner.Plan) {
		eachCondition(p, func(c *planner.Condition) { c.In = c.In[:min(len(c.In), 1)] })
	}},
	{"a closed upper bound is open", func(p *planner.Plan) {
		eachCondition(p, func(c *planner.Condition) {
			c.HiOpen, c.LoOpen = c.HiOpen || c.Hi != nil, c.LoOpen || c.Lo != nil
		})
	}},
	{"a lower bound is an upper bound", func(p *planner.Plan) {
		eachCondition(p, func(c *planner.Condition) { c.Lo, c.Hi, c.LoOpen, c.HiOpen = c.Hi, c.Lo, c.HiOpen, c.LoOpen })
	}},
	{"LIMIT is pushed and not applied again", func(p *planner.Plan) { editMerge(p, func(m *planner.Merge) { m.Limit = nil }) }},
	{"OFFSET is not applied", func(p *planner.Plan) { editMerge(p, func(m *planner.Merge) { m.Offset = nil }) }},
	{"OFFSET is pushed to every shard", func(p *planner.Plan) {
		if p.Kind == planner.Scatter && p.Merge.Offset != nil && p.Merge.Hidden == 0 {
			p.SQL = ""
			editMerge(p, func(m *planner.Merge) { m.Offset = nil })
		}
	}},
	{"hidden columns are not removed", func(p *planner.Plan) { editMerge(p, func(m *planner.Merge) { m.Hidden = 0 }) }},
	{"the merge is a concatenation", func(p *planner.Plan) { editMerge(p, func(m *planner.Merge) { m.OrderBy = nil }) }},
	{"descending is ascending", func(p *planner.Plan) {
		editKeys(p, func(k *planner.SortKey) { k.Desc = !k.Desc })
	}},
	{"NULLs sort at the other end", func(p *planner.Plan) {
		editKeys(p, func(k *planner.SortKey) { k.NullsFirst = !k.NullsFirst })
	}},
	{"only the first sort key counts", func(p *planner.Plan) {
		editMerge(p, func(m *planner.Merge) { m.OrderBy = m.OrderBy[:min(1, len(m.OrderBy))] })
	}},
	{"the hash is that of the unsigned lower half", func(p *planner.Plan) {
		eachValue(p, func(v *planner.ValueRef) {
			if v.Kind != planner.RefConst || v.Const.IsNull() {
				return
			}
			n, err := strconv.ParseInt(v.Const.Text(), 10, 32)
			if err != nil || n >= 0 {
				return
			}
			if wide, err := directory.ParseText(v.Type, strconv.FormatUint(uint64(uint16(n)), 10)); err == nil {
				v.Const = wide
			}
		})
	}},
	{"the key is hashed as a value of another type", func(p *planner.Plan) {
		eachFilter(p, func(f *planner.Filter) {
			for i := range f.Key {
				f.Key[i].Type = otherFamily(f.Key[i].Type)
			}
		})
		eachValue(p, func(v *planner.ValueRef) {
			if changed, err := directory.ParseText(otherFamily(v.Type), v.Const.Text()); v.Kind == planner.RefConst && err == nil {
				v.Const = changed
			}
			v.Type = otherFamily(v.Type)
		})
	}},
	{"a parameter is taken for the next one", func(p *planner.Plan) {
		eachValue(p, func(v *planner.ValueRef) {
			if v.Kind == planner.RefParam && v.Param > 1 {
				v.Param--
			}
		})
	}},
	{"a literal is taken for the one before it", func(p *planner.Plan) {
		eachValue(p, func(v *planner.ValueRef) {
			if v.Kind == planner.RefLiteral && v.Literal > 0 {
				v.Literal--
			}
		})
	}},
	{"a minus sign is lost", func(p *planner.Plan) {
		eachValue(p, func(v *planner.ValueRef) { v.Negative = false })
	}},
	{"the first alternative is all that is asked", func(p *planner.Plan) {
		eachFilter(p, func(f *planner.Filter) { f.Any = f.Any[:min(len(f.Any), 1)] })
	}},
	{"a condition on another column counts for the key", func(p *planner.Plan) {
		eachFilter(p, func(f *planner.Filter) {
			if len(f.Any) > 0 || p.Kind != planner.Scatter {
				return
			}
			zero, _ := directory.ParseText(f.Key[0].Type, "0")
			columns := make([]planner.Condition, len(f.Key)+len(f.Sub))
			columns[0].In = []planner.ValueRef{{Kind: planner.RefConst, Const: zero, Type: f.Key[0].Type}}
			f.Any = []planner.Alternative{{Columns: columns}}
		})
	}},
	{"a refused scatter is let through", func(p *planner.Plan) {
		if p.Refusal != nil {
			p.Kind, p.Merge, p.Refusal, p.Combinable = planner.Scatter, &planner.Merge{}, nil, false
		}
	}},
	{"a piece of what is combined is read on one shard", func(p *planner.Plan) {
		if p.Combine != nil {
			data := *p.Combine
			data.Pieces = slices.Clone(data.Pieces)
			source := *data.Pieces[0].Source
			source.Route = planner.Route{Kind: planner.RouteAny}
			data.Pieces[0].Source, p.Combine = &source, &data
		}
	}},
	{"a piece of what is combined has its rows twice", func(p *planner.Plan) {
		if p.Combine != nil {
			data := *p.Combine
			data.Pieces = slices.Clone(data.Pieces)
			data.Pieces[0].Text += " UNION ALL " + data.Pieces[0].Text
			p.Combine = &data
		}
	}},
	{"the map is stale", func(p *planner.Plan) { p.Epoch-- }},
}

// TestPlantedFaults shows that the oracle bites: with each fault in the routers the random
// statements soon give a difference, and none without.
func TestPlantedFaults(t *testing.T) {
	t.Parallel()
	const schema = "planted_faults"
	setUpGenerated(t, newSession(t, schema))
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			plant := func(p planner.Plan) planner.Plan {
				fault.plant(&p)
				return p
			}
			session := newSession(t, schema)
			g := newGenerator(faultSeed)
			g.first = []string{"SELECT * FROM rh WHERE k = int '-7'", "SELECT * FROM rh WHERE k = int '-8'", "SELECT * FROM rh WHERE k = int '-9'"}
			for i := range faultBound {
				statement, mode := g.next(), Modes[i%len(Modes)]
				verdict := askPlanted(t, session, statement, mode, schema, plant)
				if verdict.Difference == "" {
					continue
				}
				t.Logf("caught by statement %d, %s: %s\n%s", i, mode, verdict, statement)
				// A bug that the router notices itself closes the connection.
				verdict, err := statement.ask(t.Context(), newSession(t, schema), mode)
				if err != nil || verdict.Difference != "" {
					t.Errorf("without the fault: %v %s", err, verdict)
				}
				return
			}
			t.Errorf("not caught by %d statements", faultBound)
		})
	}
}

func askPlanted(t *testing.T, session *Session, statement generated, mode Mode, schema string, plant func(planner.Plan) planner.Plan) Verdict {
	t.Helper()
	planted.Store(schema, plant)
	defer planted.Delete(schema)
	verdict, err := statement.ask(t.Context(), session, mode)
	if err != nil {
		t.Fatalf("%v\n%s", err, statement)
	}
	return verdict
}

// eachFilter edits the plan's filters, which are copied before: plans are shared.
func eachFilter(p *planner.Plan, edit func(*planner.Filter)) {
	p.Route.Filters = slices.Clone(p.Route.Filters)
	for i := range p.Route.Filters {
		f := &p.Route.Filters[i]
		f.Key, f.Sub, f.Any = slices.Clone(f.Key), slices.Clone(f.Sub), slices.Clone(f.Any)
		for j := range f.Any {
			f.Any[j].Columns = slices.Clone(f.Any[j].Columns)
			for n := range f.Any[j].Columns {
				c := &f.Any[j].Columns[n]
				c.In, c.Lo, c.Hi = slices.Clone(c.In), clone(c.Lo), clone(c.Hi)
			}
		}
		edit(f)
	}
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	copied := *p
	return &copied
}

func eachCondition(p *planner.Plan, edit func(*planner.Condition)) {
	eachFilter(p, func(f *planner.Filter) {
		for i := range f.Any {
			for j := range f.Any[i].Columns {
				edit(&f.Any[i].Columns[j])
			}
		}
	})
}

func eachValue(p *planner.Plan, edit func(*planner.ValueRef)) {
	eachCondition(p, func(c *planner.Condition) {
		for i := range c.In {
			edit(&c.In[i])
		}
		for _, bound := range []*planner.ValueRef{c.Lo, c.Hi} {
			if bound != nil {
				edit(bound)
			}
		}
	})
}

// mergeAlternatives makes one conjunction of all alternatives.
func mergeAlternatives(f *planner.Filter) {
	if len(f.Any) < 2 {
		return
	}
	merged := f.Any[0]
	for _, other := range f.Any[1:] {
		for i, c := range other.Columns {
			into := &merged.Columns[i]
			if len(into.In) == 0 {
				into.In = c.In
			}
			if into.Lo == nil {
				into.Lo, into.LoOpen = c.Lo, c.LoOpen
			}
			if into.Hi == nil {
				into.Hi, into.HiOpen = c.Hi, c.HiOpen
			}
		}
	}
	f.Any = []planner.Alternative{merged}
}

func editMerge(p *planner.Plan, edit func(*planner.Merge)) {
	if p.Merge == nil {
		return
	}
	p.Merge = clone(p.Merge)
	edit(p.Merge)
}

func editKeys(p *planner.Plan, edit func(*planner.SortKey)) {
	editMerge(p, func(m *planner.Merge) {
		m.OrderBy = slices.Clone(m.OrderBy)
		for i := range m.OrderBy {
			edit(&m.OrderBy[i])
		}
	})
}

// otherFamily is a type whose hash of the same value is another one.
func otherFamily(t directory.KeyType) directory.KeyType {
	switch t {
	case directory.Int2, directory.Int4, directory.Int8:
		return directory.Numeric
	}
	return t
}
