package planner

import (
	"slices"

	"github.com/shardyard/shardyard/planner/catalog"
)

const hintMerge = "Join the tables by their shard keys and insert the key of the source, or use INSERT … ON CONFLICT, UPDATE or DELETE."

// merging is what is known of a MERGE.
type merging struct {
	stmt *mergeStmt
	// context is that of the source's rows: all of them matter if the MERGE inserts.
	context *context
	source  fromResult
	inserts []*mergeInsert
	// joined are the pairs of columns that the condition equates.
	joined [][2]columnID
}

// mergeInsert is an action that inserts.
type mergeInsert struct {
	when   *mergeWhen
	places []*catalog.Column // for each value the column that it is for
	// stored are the rows that it stores in a sharded table; nil if their keys are not known.
	stored *Filter
}

// mergeInto analyses MERGE. Its rows are those of the source, joined to the target's as by an outer join: unless it
// inserts, a row of the source matters only where it is joined.
func (a *analysis) mergeInto(m *mergeStmt, outer *scope, ctx *context) *merging {
	s, r := a.targetScope(m.Relation, m.WithClause, outer, ctx)
	in := &merging{stmt: m, context: ctx}
	in.source = a.fromItem(m.SourceRelation, &scope{outer: outer, tables: s.tables}, ctx)
	rows := &scope{outer: outer, tables: s.tables, items: in.source.items, columns: in.source.columns, open: in.source.open}
	s.items = append(slices.Clip(s.items), in.source.items...)
	s.columns = append(slices.Clip(s.columns), in.source.columns...)
	s.open = s.open || in.source.open
	matched := ctx
	if slices.ContainsFunc(m.MergeWhenClauses, func(n *node) bool {
		return n.GetMergeWhenClause().GetCommandType() == commandInsert
	}) {
		matched = ctx.child()
		r.context = matched
	}
	a.condition(m.JoinCondition, s, matched)
	in.joined = a.joinedColumns(m.JoinCondition, s, nil)
	for _, n := range m.MergeWhenClauses {
		when := n.GetMergeWhenClause()
		switch {
		case when.GetMatchKind() == whenMatched:
			a.expression(when.Condition, s, matched)
			if when.CommandType == commandUpdate {
				a.assignments(r, when.TargetList, s, matched)
			}
		case when.GetMatchKind() == whenNoSource && r.place == sharded:
			a.refuse(refuse("Use UPDATE or DELETE … WHERE NOT EXISTS.", "WHEN NOT MATCHED BY SOURCE with sharded table %s is not supported", r.name), r.position)
		default:
			a.expression(when.GetCondition(), rows, ctx)
			if when.GetCommandType() == commandInsert {
				in.inserts = append(in.inserts, a.mergeInsert(when, in, r, rows))
			}
		}
	}
	a.eachRow(m.ReturningList, s, matched)
	if outer != nil && r.place == sharded {
		a.refuse(refuse(hintMerge, "MERGE in WITH with sharded table %s is not supported", r.name), r.position)
	}
	return in
}

// joinedColumns adds the pairs of columns that a condition equates, where values of the second column are known to be
// compared by the equality of the first one's type.
func (a *analysis) joinedColumns(n *node, s *scope, pairs [][2]columnID) [][2]columnID {
	if b := n.GetBoolExpr(); b != nil && b.Boolop == boolAnd {
		for _, arg := range b.Args {
			pairs = a.joinedColumns(arg, s, pairs)
		}
		return pairs
	}
	op := n.GetAExpr()
	if op == nil || op.Kind != opPlain || op.Lexpr == nil || op.Rexpr == nil {
		return pairs
	}
	if name, ok := operatorName(op.Name); !ok || name != "=" {
		return pairs
	}
	left, right := pair(op.Lexpr, op.Rexpr)
	for i := range left {
		l, _, lok := s.resolve(left[i].GetColumnRef())
		r, _, rok := s.resolve(right[i].GetColumnRef())
		if !lok || !rok {
			continue
		}
		for _, p := range [][2]column{{l, r}, {r, l}} {
			if !p[0].known() || len(p[1].values) == 0 {
				continue
			}
			if _, ok := a.oneOf(p[0], p[1].values, a.givenValue); ok {
				pairs = append(pairs, [2]columnID{p[0].id, p[1].id})
			}
		}
	}
	return pairs
}

// mergeInsert analyses an action that inserts. It sees the rows of the source only.
func (a *analysis) mergeInsert(when *mergeWhen, in *merging, r *reference, rows *scope) *mergeInsert {
	insert := &mergeInsert{when: when}
	a.eachRow(when.Values, rows, in.context)
	if r.place != sharded || r.relation == nil {
		return insert
	}
	insert.places = a.mergePlaces(when, r)
	for _, c := range r.relation.Live() {
		p := slices.Index(insert.places, c)
		given := p >= 0 && p < len(when.Values) && when.Values[p].GetSetToDefault() == nil
		if k := constantAt(when.Values, p); k != nil && !mayHoldTime(a.env.Catalog.BaseType(c.Type)) {
			a.noTime(k)
		}
		switch {
		case !given:
			a.mergeDefault(r, c)
		case c.Identity == 'a' && when.Override != overridingSystem || c.Identity != 0 && when.Override == overridingUser:
			a.refuse(refuse("Use INSERT.", "MERGE with a value for identity column %q of sharded table %s is not supported", c.Name, r.name), r.position)
		}
	}
	insert.stored = a.mergedRows(insert, in, r, rows)
	return insert
}

// mergePlaces lists, for each value of an action that inserts, the column that it is for.
func (a *analysis) mergePlaces(when *mergeWhen, r *reference) []*catalog.Column {
	if len(when.TargetList) == 0 {
		return r.relation.Live()
	}
	places := make([]*catalog.Column, 0, len(when.TargetList))
	for _, n := range when.TargetList {
		t := n.GetResTarget()
		c, ok := r.relation.Column(t.GetName())
		if !ok || len(t.GetIndirection()) > 0 {
			c = &catalog.Column{Name: t.GetName()} // a shard says the error
		}
		places = append(places, c)
	}
	return places
}

func constantAt(values []*node, i int) *constant {
	if i < 0 || i >= len(values) {
		return nil
	}
	return values[i].GetAConst()
}

// mergeDefault looks at a column that an action leaves to its default.
func (a *analysis) mergeDefault(r *reference, c *catalog.Column) {
	switch {
	case c.Sequence.Name != "" || c.Identity != 0:
		a.refuse(refuse(hintNumbers, "column %q of table %s gets values of a sequence, which is supported in INSERT … VALUES at the top level only", c.Name, r.name), r.position)
		return
	case !c.HasDefault || c.DefaultIsConst || c.Generated:
		return
	}
	def := a.defaultNode(c)
	if def != nil && a.clockIn(def) < 0 {
		return // each row has a value of its own
	}
	same, timed := a.sameEverywhere(c)
	if !same || timed == nil {
		a.refuseSeveral(refuse("Give the value itself.", "the default of column %q over several shards is not supported: it may differ from shard to shard", c.Name), r.position)
		return
	}
	a.functions.now = true
	a.timeDefaults[c.Name] = timed
}

// mergedRows finds the shard keys of the rows that an action inserts, if they are constants and parameters: of the
// action itself or of the source. nil if not.
func (a *analysis) mergedRows(insert *mergeInsert, in *merging, r *reference, rows *scope) *Filter {
	keys := append(slices.Clone(r.table.Key), r.table.SubKey...)
	lists := make([][]ValueRef, len(keys))
	length := 1
	for i, name := range keys {
		lists[i] = a.mergedKey(insert, in, r, rows, name)
		switch {
		case len(lists[i]) == 0:
			return nil
		case len(lists[i]) > 1 && !isValues(in.stmt.SourceRelation):
			return nil // of several columns it would not be known which values belong together
		}
		length = max(length, len(lists[i]))
	}
	f := r.bareFilter()
	f.Stored = true
	for row := range length {
		alternative := Alternative{Columns: make([]Condition, len(keys))}
		for i, list := range lists {
			alternative.Columns[i].In = []ValueRef{list[min(row, len(list)-1)]}
		}
		f.Any = append(f.Any, alternative)
	}
	return &f
}

// isValues tells VALUES as an item of FROM.
func isValues(n *node) bool {
	sel := n.GetRangeSubselect().GetSubquery().GetSelectStmt()
	return sel != nil && len(sel.ValuesLists) > 0 && sel.WithClause == nil && sel.LimitCount == nil && sel.LimitOffset == nil
}

// mergedKey are the values that an action gives a key column: one for all rows, or one for each row of the source.
func (a *analysis) mergedKey(insert *mergeInsert, in *merging, r *reference, rows *scope, name string) []ValueRef {
	c, ok := r.relation.Column(name)
	if !ok {
		return nil
	}
	place := slices.Index(insert.places, c)
	if place < 0 || place >= len(insert.when.Values) || insert.when.Values[place].GetSetToDefault() != nil {
		if v, err := a.constantDefault(r, c); err == nil {
			return []ValueRef{v}
		}
		return nil
	}
	into := column{name: name, id: columnID{r.entry, name}, cat: c}
	value := insert.when.Values[place]
	if v, _, ok := a.value(value, into); ok {
		return []ValueRef{v}
	}
	from, _, ok := rows.resolve(value.GetColumnRef())
	if !ok {
		return nil
	}
	if from.values == nil {
		cond := in.context.conditionOn(from.id, in.context.classes())
		if a.convertsAlike(from, c) && len(cond.In) == 1 && !cond.In[0].Array {
			return cond.In
		}
		return nil
	}
	var list []ValueRef
	for _, n := range from.values {
		v, _, ok := a.givenValue(n, into)
		if !ok {
			return nil
		}
		list = append(list, v)
	}
	return list
}

// mergeSource is the table of the outermost FROM of the source under whose key every action inserts; nil if there is
// none.
func (a *analysis) mergeSource() *reference {
	in, target := a.merging, a.target
	k := in.context.classes()
	inserts := func(r *reference, insert *mergeInsert) bool {
		from, into := r.keyColumns(), target.keyColumns()
		for n := range into {
			p := slices.IndexFunc(insert.places, func(c *catalog.Column) bool { return c.Name == into[n].name })
			if p < 0 || p >= len(insert.when.Values) || len(from) != len(into) {
				return false
			}
			ref := insert.when.Values[p].GetColumnRef()
			rows := &scope{items: in.source.items, columns: in.source.columns, open: in.source.open}
			c, _, ok := rows.resolve(ref)
			if !ok || !c.known() || !k.same(c.id, from[n]) || !a.storesAlike(c.cat, insert.places[p]) || insert.places[p].Generated {
				return false
			}
		}
		return true
	}
	for _, r := range a.ofPart(nil) {
		if r == target || r.context != in.context || r.table.Group != target.table.Group {
			continue
		}
		if !slices.ContainsFunc(in.inserts, func(insert *mergeInsert) bool { return !inserts(r, insert) }) {
			return r
		}
	}
	return nil
}

// routeMerge adds the rows that a MERGE inserts to its route, and refuses it if nobody knows where they belong. several
// is why it may not run on several shards: nil if each shard may do its part, or that of VALUES which is its own.
func (a *analysis) routeMerge(plan *Plan) (anchor *reference, spread *SpreadData, several, err *Error) {
	if len(a.merging.inserts) == 0 || a.target.place != sharded {
		return a.target, nil, nil, nil
	}
	anchor = a.mergeSource()
	for _, insert := range a.merging.inserts {
		switch {
		case insert.stored != nil:
			a.settle(insert.stored)
			plan.Route.Filters = append(plan.Route.Filters, *insert.stored)
		case anchor == nil:
			return nil, nil, nil, refuse(hintMerge, "it is not known where the rows belong that MERGE inserts into sharded table %s", a.target.name).
				at(a.position(a.target.position))
		}
	}
	if anchor != nil {
		return anchor, nil, nil, nil
	}
	if spread = a.spread(plan); spread != nil {
		return a.target, spread, nil, nil
	}
	several = refuse(hintMerge, "MERGE that inserts rows of several shards into table %s is not supported, unless they are those of a colocated table or of VALUES", a.target.name).
		at(a.position(a.target.position))
	return nil, nil, several, nil
}

// fixMerge writes the time in place of defaults that read it.
func (a *analysis) fixMerge(m *mergeStmt) {
	for _, n := range m.MergeWhenClauses {
		when := n.GetMergeWhenClause()
		switch when.GetCommandType() {
		case commandUpdate:
			a.fixDefaults(when.TargetList)
		case commandInsert:
			a.fixMergeInsert(when)
		}
	}
}

func (a *analysis) fixMergeInsert(when *mergeWhen) {
	if len(a.timeDefaults) == 0 || a.target.relation == nil {
		return
	}
	live := a.target.relation.Live()
	if len(when.TargetList) == 0 {
		for i := range when.Values {
			if i < len(live) {
				when.TargetList = append(when.TargetList, targetNode(live[i].Name, nil))
			}
		}
	}
	given := make(map[string]bool)
	for i, n := range when.TargetList {
		name := n.GetResTarget().GetName()
		given[name] = true
		if expression := a.timeDefaults[name]; expression != nil && i < len(when.Values) && when.Values[i].GetSetToDefault() != nil {
			when.Values[i] = cloneNode(expression)
		}
	}
	for _, c := range live {
		if expression := a.timeDefaults[c.Name]; expression != nil && !given[c.Name] {
			when.TargetList = append(when.TargetList, targetNode(c.Name, nil))
			when.Values = append(when.Values, cloneNode(expression))
		}
	}
}
