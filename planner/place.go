package planner

import (
	"reflect"
	"slices"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

const (
	hintMixed = "Read the tables in separate statements, or shard the other table so that it is colocated."
	hintPin   = "Give a value for every column of the shard key (column = value) of each sharded table, or join the tables by their shard keys."
)

// numbersRows reports whether a sequence numbers a column of any sharded table.
func (a *analysis) numbersRows() bool {
	if a.env.Catalog == nil {
		return false
	}
	for i := range a.env.Map.Tables {
		t := &a.env.Map.Tables[i]
		if t.Kind != directory.TableSharded {
			continue
		}
		r, ok := a.env.Catalog.Relation(t.Name)
		if ok && slices.ContainsFunc(r.Columns, func(c catalog.Column) bool { return c.Sequence != directory.TableName{} }) {
			return true
		}
	}
	return false
}

// plan says where a statement goes, from the relations that it mentions. The plan is a Relay.
func (a *analysis) plan(tag string) (*Plan, *Error) {
	plan := &Plan{Kind: Relay, Tag: tag, Tables: a.mapTables(), Dirty: a.functions.dirty,
		Notifies: a.functions.notifies, Listening: a.functions.listening}
	if a.functions.advisory {
		plan.Pins = "session advisory lock"
	}
	if name := a.functions.sessionValue; name != "" {
		if !a.native && a.numbersRows() && !a.asksHomeOnly() {
			return nil, refuse("Use INSERT … RETURNING, which tells the value.",
				"%s is not supported in this place where sequences number the rows of sharded tables: the router supplies those values", name)
		}
		plan.SessionValue = name
	}
	plan.Sequences = a.sequenceUse()
	plan.Mirrors = a.mirrors()
	for _, r := range a.references {
		if r.written && r.relation != nil && len(r.relation.Triggers) > 0 {
			plan.Dirty = true
			a.functions.native = a.functions.native || slices.ContainsFunc(r.relation.Triggers, a.triggerIsNative)
		}
	}
	if a.functions.native && plan.Pins == "" {
		plan.Pins = PinsProcess
	}
	if !a.env.Map.AnythingSharded() {
		plan.Route = Route{Kind: RouteHome}
		return plan, nil
	}
	if a.refused != nil {
		return nil, a.refused
	}
	spread, elsewhere, home := a.sorted()
	if a.later != nil && len(spread)+len(elsewhere) > 0 {
		return nil, a.later
	}
	for _, r := range home {
		if err := a.checkHome(r); err != nil {
			return nil, err.at(a.position(r.position))
		}
	}
	if err := a.checkMix(spread, elsewhere, home); err != nil {
		return nil, err
	}
	if a.homeOnly != "" && len(spread)+len(elsewhere) > 0 {
		return nil, refuse("Use it in statements on tables of the home shard, or create it on every shard.",
			"%s exists on the home shard only", a.homeOnly).at(a.position(a.homeOnlyP))
	}
	if u := &a.functions; u.central != "" && len(spread)+len(elsewhere) > 0 {
		return nil, refuse("Call the function in a statement of its own, which runs on the home shard.",
			"function %s would act on another shard than the home shard", u.central).at(a.position(u.centralP))
	}
	if plan.Watched = a.watched(); plan.Watched {
		if len(spread)+len(elsewhere) > 0 {
			return nil, a.unseen
		}
		plan.Mirrors = plan.Mirrors || a.anyReferences()
	}
	switch {
	case len(spread) > 0:
		plan.Route = a.routeByKey(spread)
		if len(elsewhere) > 0 {
			plan.Route.Also = elsewhere[0].table.Shard
		}
		plan.Refusal = refuse(hintPin, "%s", a.severalShards(tag))
	case len(elsewhere) > 0:
		plan.Route = Route{Kind: RouteShard, Shard: elsewhere[0].table.Shard}
	case a.onlyReferences() && !plan.Watched:
		plan.Route = Route{Kind: RouteAny}
	default:
		plan.Route = Route{Kind: RouteHome}
	}
	return plan, nil
}

// PinsProcess is what pins a session to a server process that must not serve another session afterwards.
const PinsProcess = "function in C"

func (a *analysis) triggerIsNative(t catalog.Trigger) bool {
	f, ok := a.env.Catalog.FunctionByOID(t.Function)
	return ok && isNative(f)
}

func (a *analysis) severalShards(tag string) string {
	switch tag {
	case "INSERT", "UPDATE", "DELETE":
		return tag + " on several shards is not supported yet"
	}
	return "this statement is supported on one shard only, and it cannot be proved that one shard has all of its rows"
}

// checkHome refuses relations of the home shard that lead to tables elsewhere: views, tables with
// children, rules or policies, and what a write sets off. Those that lead nobody knows where are watched.
func (a *analysis) checkHome(r *reference) *Error {
	rel := r.relation
	if rel == nil || rel.System {
		return nil
	}
	if rel.Placeholder && r.table == nil {
		return refuse("Read the catalog again: the table is known to live elsewhere.", "table %s is not on the home shard", rel.Name)
	}
	plain := (rel.Kind == catalog.KindTable || rel.Kind == catalog.KindForeignTable || rel.Kind == catalog.KindSequence) &&
		!rel.RowSecurity && len(rel.Rules) == 0 && len(rel.Children) == 0
	if plain && !r.written {
		return nil
	}
	what := rel.Kind.Noun()
	if name, perhaps, ok := a.leadsAway(rel.Reach); ok {
		hint := "Name the table in the statement itself."
		if perhaps {
			hint = hintSchemas
		}
		reason := refuse(hint, "%s %s leads to table %s, which is not on the home shard alone", what, rel.Name, name)
		if !perhaps {
			return reason
		}
		a.watch(reason, r.position)
	}
	if rel.Opaque {
		a.watch(refuse("Write the functions that it calls in a language whose body can be read (SQL, or PL/pgSQL without EXECUTE).",
			"%s %s calls a function of which it cannot be seen which tables it uses, and tables of this database are sharded", what, rel.Name), r.position)
	}
	return nil
}

// checkMix refuses statements over tables that no one shard has together.
func (a *analysis) checkMix(spread, elsewhere, home []*reference) *Error {
	away := append(append([]*reference(nil), spread...), elsewhere...)
	if len(home) > 0 && len(away) > 0 {
		h, other := home[0], away[0]
		if h.place == everywhere {
			return refuse("Write the reference table in a statement of its own; lock only the other tables (FOR UPDATE OF …).",
				"reference table %s is written or locked in a statement with table %s, which is not on the home shard alone", h.name, other.name).
				at(a.position(h.position))
		}
		if h.system {
			return refuse(hintMixed, "system catalog %s and table %s are in one statement, but %s is not on the home shard alone", h.name, other.name, other.name).
				at(a.position(h.position))
		}
		return refuse(hintMixed, "tables %s and %s are in one statement, but %s is on the home shard and %s is not on it alone", h.label(), other.name, h.label(), other.name).
			at(a.position(h.position))
	}
	for _, r := range elsewhere {
		if first := elsewhere[0]; r.table.Shard != first.table.Shard {
			return refuse(hintMixed, "tables %s and %s are on different shards", first.name, r.name).at(a.position(r.position))
		}
	}
	return nil
}

func (r *reference) label() string {
	if r.name.Schema == "" {
		return r.name.Name
	}
	return r.name.String()
}

// routeByKey collects the filters of the references to sharded tables.
func (a *analysis) routeByKey(spread []*reference) Route {
	route := Route{Kind: RouteFilters}
	for _, r := range spread {
		f := r.stored
		if f == nil {
			own := r.filter()
			f = &own
		}
		a.settle(f)
		known := slices.ContainsFunc(route.Filters, func(g Filter) bool {
			return g.Group == f.Group && g.Stored == f.Stored && sameTypes(g.Key, f.Key) && sameTypes(g.Sub, f.Sub) &&
				reflect.DeepEqual(g.Any, f.Any)
		})
		if !known {
			route.Filters = append(route.Filters, *f)
		}
	}
	return route
}

func sameTypes(a, b []KeyColumn) bool {
	return slices.EqualFunc(a, b, func(x, y KeyColumn) bool { return x.Type == y.Type && x.Typmod == y.Typmod })
}

// settle marks parameters whose type is not certain.
func (a *analysis) settle(f *Filter) {
	for i := range f.Any {
		for j := range f.Any[i].Columns {
			c := &f.Any[i].Columns[j]
			in := append([]ValueRef(nil), c.In...)
			for k := range in {
				in[k].Unsure = in[k].Unsure || a.unsure(&in[k])
			}
			if c.In != nil {
				c.In = in
			}
			c.Lo, c.Hi = a.settled(c.Lo), a.settled(c.Hi)
		}
	}
}

func (a *analysis) settled(r *ValueRef) *ValueRef {
	if r == nil || !a.unsure(r) {
		return r
	}
	copied := *r
	copied.Unsure = true
	return &copied
}

func (a *analysis) unsure(r *ValueRef) bool {
	return r.Kind == RefParam && r.Inferred && !a.sure(r.Param)
}

// keyIndex is the position of a column in the table's key followed by its subkey, -1 if it is in neither.
func keyIndex(t *directory.Table, name string) int {
	if i := slices.Index(t.Key, name); i >= 0 {
		return i
	}
	if i := slices.Index(t.SubKey, name); i >= 0 {
		return len(t.Key) + i
	}
	return -1
}
