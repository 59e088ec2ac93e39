package oracle

import (
	"slices"
	"testing"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
)

// writeFaults are mistakes that a planner or a router could make with statements that write on several shards.
var writeFaults = []struct {
	name  string
	plant func(*planner.Plan)
}{
	{"a row is sent where another belongs", func(p *planner.Plan) {
		eachStored(p, func(f *planner.Filter) {
			if n := len(f.Any); n > 1 {
				f.Any[0], f.Any[n-1] = f.Any[n-1], f.Any[0]
			}
		})
	}},
	{"all rows go where the first belongs", func(p *planner.Plan) {
		eachStored(p, func(f *planner.Filter) {
			for i := range f.Any {
				f.Any[i] = f.Any[0]
			}
		})
	}},
	{"a row of ON CONFLICT goes where another belongs", func(p *planner.Plan) {
		if p.Insert == nil || p.Insert.Each {
			return
		}
		eachStored(p, func(f *planner.Filter) { slices.Reverse(f.Any) })
	}},
	{"a key is not coerced before it is routed", func(p *planner.Plan) {
		eachStored(p, func(f *planner.Filter) {
			for i := range f.Any {
				for j := range f.Any[i].Columns {
					for n := range f.Any[i].Columns[j].In {
						v := &f.Any[i].Columns[j].In[n]
						if changed, err := directory.ParseText(otherFamily(v.Type), v.Const.Text()); v.Kind == planner.RefConst && err == nil && !v.Const.IsNull() {
							v.Const = changed
						}
						v.Type = otherFamily(v.Type)
					}
				}
			}
			for i := range f.Key {
				f.Key[i].Type = otherFamily(f.Key[i].Type)
			}
		})
	}},
	{"a shard is left out of an UPDATE or DELETE", func(p *planner.Plan) {
		if p.Kind != planner.Modify || p.Insert != nil {
			return
		}
		eachFilter(p, func(f *planner.Filter) {
			zero, err := directory.ParseText(f.Key[0].Type, "0")
			if len(f.Any) > 0 || err != nil {
				return
			}
			columns := make([]planner.Condition, len(f.Key)+len(f.Sub))
			columns[0].In = []planner.ValueRef{{Kind: planner.RefConst, Const: zero, Type: f.Key[0].Type}}
			f.Any = []planner.Alternative{{Columns: columns}}
		})
	}},
	{"only the first alternative of an UPDATE or DELETE counts", func(p *planner.Plan) {
		if p.Kind == planner.Modify && p.Insert == nil {
			eachFilter(p, func(f *planner.Filter) { f.Any = f.Any[:min(len(f.Any), 1)] })
		}
	}},
	{"a row whose key changes stays where it is", func(p *planner.Plan) {
		editMove(p, func(m *planner.MoveData) {
			m.Tables[0].Filter.Key[0].Type = otherFamily(m.Tables[0].Filter.Key[0].Type)
		})
	}},
	{"a column of a row that moves is lost", func(p *planner.Plan) {
		editMove(p, func(m *planner.MoveData) { m.Tables[0].Columns = m.Tables[0].Columns[:len(m.Tables[0].Columns)-1] })
	}},
	{"columns of a row that moves change places", func(p *planner.Plan) {
		editMove(p, func(m *planner.MoveData) {
			c := m.Tables[0].Columns
			c[0], c[1] = c[1], c[0]
			c[0].Name, c[1].Name = c[1].Name, c[0].Name
		})
	}},
	{"the keys of an UPDATE are returned", func(p *planner.Plan) {
		if p.Modify != nil && p.Modify.Move != nil {
			p.Modify = &planner.ModifyData{InOrder: p.Modify.InOrder}
		}
	}},
}

// eachStored edits the rows of an INSERT.
func eachStored(p *planner.Plan, edit func(*planner.Filter)) {
	eachFilter(p, func(f *planner.Filter) {
		if f.Stored && len(f.Any) > 0 {
			edit(f)
		}
	})
}

// editMove edits a copy of what is said of rows that change their keys.
func editMove(p *planner.Plan, edit func(*planner.MoveData)) {
	if p.Modify == nil || p.Modify.Move == nil {
		return
	}
	p.Modify = clone(p.Modify)
	p.Modify.Move = clone(p.Modify.Move)
	p.Modify.Move.Tables = slices.Clone(p.Modify.Move.Tables)
	for i := range p.Modify.Move.Tables {
		t := &p.Modify.Move.Tables[i]
		t.Columns, t.Filter.Key = slices.Clone(t.Columns), slices.Clone(t.Filter.Key)
	}
	edit(p.Modify.Move)
}

// writeFaultBound is within how many random writes a planted fault must show.
const writeFaultBound = 600

// TestPlantedWriteFaults is TestPlantedFaults for writes.
func TestPlantedWriteFaults(t *testing.T) {
	t.Parallel()
	const schema = "case_generated_write_faults"
	setUpGenerated(t, newSession(t, schema))
	for _, fault := range writeFaults {
		t.Run(fault.name, func(t *testing.T) {
			plant := func(p planner.Plan) planner.Plan {
				fault.plant(&p)
				return p
			}
			session := newSession(t, schema)
			g := newGenerator(faultSeed)
			for i := range writeFaultBound {
				statement, table := g.nextWrite()
				mode := Modes[i%len(Modes)]
				planted.Store(schema, plant)
				verdict, err := g.write(t.Context(), session, statement, table, mode, ending{})
				planted.Delete(schema)
				either := false
				if err == nil {
					either, err = g.eitherError(t.Context(), session, verdict, statement)
				}
				if caught := verdict.Difference != "" && !either; !caught && err == nil {
					continue
				} else if !caught {
					t.Fatalf("%v\n%s", err, statement.SQL)
				}
				t.Logf("caught by statement %d, %s: %s\n%s", i, mode, verdict, statement.SQL)
				// A bug that the router notices itself closes the connection.
				verdict, err = g.write(t.Context(), newSession(t, schema), statement, table, mode, ending{})
				if err != nil || verdict.Difference != "" {
					t.Errorf("without the fault: %v %s", err, verdict)
				}
				return
			}
			t.Errorf("not caught by %d statements", writeFaultBound)
		})
	}
}
