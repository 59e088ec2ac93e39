package planner

import (
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

// ModifyData is what the router needs to know of a write that may run on several shards.
type ModifyData struct {
	// InOrder: the shards run it one after the other, in the order of their names, so that two sessions that lock the
	// same tables do not wait for each other.
	InOrder bool
	// Move is what an UPDATE that may change shard keys needs besides; nil for every other statement.
	Move *MoveData
	// Spread says which rows of the statement's own are for which shard; nil: it has none, or they are for all.
	Spread *SpreadData
	// Block: it is an error outside of a transaction block, and the shards say so.
	Block bool
}

// String describes how the shards run it.
func (d *ModifyData) String() string {
	switch {
	case d.InOrder:
		return "one after the other"
	case d.Move != nil:
		text := "at once, then rows of " + d.Move.Tables[0].Filter.Table.String()
		for _, t := range d.Move.Tables[1:] {
			text += ", " + t.Filter.Table.String()
		}
		return text + " go where their new keys belong"
	}
	if d.Spread != nil {
		return "at once, each with its own of " + itoa(d.Spread.rows) + " rows"
	}
	return "at once"
}

// mayModify lets an UPDATE or DELETE run on several shards, if each of them can do its part by itself; else
// it notes why not.
func (a *analysis) mayModify(m message, plan *Plan) *Error {
	anchor := a.target
	var refusal *Error
	var spread *SpreadData
	if a.merging != nil {
		var err *Error
		if anchor, spread, refusal, err = a.routeMerge(plan); err != nil {
			return err
		}
	}
	if refusal == nil {
		refusal = a.checkModify(plan, anchor)
	}
	if a.moved != nil { // the rows may leave whatever shard they are on
		return a.mayMove(m, plan, refusal)
	}
	if refusal != nil {
		plan.Refusal = refusal
		return nil
	}
	plan.Refusal = a.modifyPlan(m, plan, spread)
	return nil
}

// modifyPlan makes a plan for several shards, which run the statement each on its own rows.
func (a *analysis) modifyPlan(m message, plan *Plan, spread *SpreadData) *Error {
	clock := a.clockParameters()
	if clock != nil || spread != nil {
		sql, err := rewrite(m, func(edited message) error {
			if spread != nil {
				a.spreadRows(edited.(*mergeStmt), spread)
			}
			if clock == nil {
				return nil
			}
			return a.fixTime(edited, clock)
		})
		switch {
		case err != nil && spread != nil:
			return refuse(hintMerge, "VALUES of several shards in this notation are not supported")
		case err != nil:
			return refuse("Give the time as a parameter or as a constant.", "the time in this statement over several shards is not supported")
		}
		plan.SQL, a.valuesUsed = sql, true
	}
	plan.Kind, plan.Modify, plan.Refusal = Modify, &ModifyData{Spread: spread}, nil
	plan.Clock, plan.texts = clock, a.texts
	return nil
}

// mayMove plans an UPDATE that may change the shard key, unless there is a reason against running it on several shards.
func (a *analysis) mayMove(m message, plan *Plan, refusal *Error) *Error {
	u, ok := m.(*updateStmt)
	switch {
	case !ok:
		return refuse("Use UPDATE.", "column %q is part of the shard key of table %s and cannot be changed in %s", a.moved.column, a.target.name, plan.Tag).
			at(a.position(a.moved.at))
	case refusal != nil:
		return refusal
	}
	return a.planMove(u, plan)
}

// checkModify proves that what an UPDATE or DELETE does is what the shards do together when each runs it: every
// row that has a part in the change of a row is on that row's shard. Every sharded table is joined by its key to the anchor.
func (a *analysis) checkModify(plan *Plan, anchor *reference) *Error {
	sc := &scatter{analysis: a, top: a.target.context}
	if a.target.place != sharded {
		return sc.several(plan.Tag + " of a table that is not sharded, with sharded tables,")
	}
	if err := sc.checkFunctions(); err != nil {
		return err
	}
	if a.several != nil {
		return a.several
	}
	switch {
	case a.writes && a.moved != nil:
		return sc.several("a change of the shard key with WITH queries that change data")
	case plan.Pins != "":
		return sc.several("a " + plan.Pins)
	}
	for _, check := range []func() *Error{a.checkTransitions, sc.checkPlaces} {
		if err := check(); err != nil {
			return err
		}
	}
	return sc.checkJoined(anchor)
}

// checkTransitions refuses triggers that see all rows that a statement changed: each shard has its own only.
func (a *analysis) checkTransitions() *Error {
	var written []directory.TableName
	for _, r := range a.references {
		if r.written {
			written = appendName(written, r.name)
		}
	}
	for _, name := range a.referencing(written) {
		r, ok := a.env.Catalog.Relation(name)
		if !ok {
			continue
		}
		for _, trigger := range r.Triggers {
			if strings.Contains(trigger.Definition, " REFERENCING ") {
				return refuse(hintOneShard, "trigger %q of table %s has a transition table, so a statement that changes rows on several shards is not supported", trigger.Name, name)
			}
		}
	}
	return nil
}

// eachRow analyses expressions that are evaluated once for every row changed: SET and RETURNING. A volatile function
// at their top level gives each row a value of its own, on whatever shard it is.
func (a *analysis) eachRow(list []*node, s *scope, ctx *context) {
	a.perRow = s.outer == nil
	a.walkList(list, s, ctx)
	a.perRow = false
}

// defaults refuses SET column = DEFAULT over several shards where the default is not the same on each.
func (a *analysis) defaults(r *reference, targets []*node) {
	if r.place != sharded || r.relation == nil {
		return
	}
	for _, n := range targets {
		t := n.GetResTarget()
		for _, name := range defaulted(t) {
			c, ok := r.relation.Column(name)
			if !ok || c.Generated || !c.HasDefault && c.Identity == 0 && a.env.Catalog.BaseType(c.Type) == c.Type || c.DefaultIsConst {
				continue
			}
			if same, expression := a.sameEverywhere(c); same && (expression == nil || t.Val.GetSetToDefault() != nil) {
				if expression != nil && r != a.target {
					a.refuseSeveral(refuse("Give the value itself.", "the default of column %q, which reads the time, is not supported over several shards in WITH", name), int(t.Location))
				} else if expression != nil {
					a.functions.now = true
					a.timeDefaults[name] = expression
				}
				continue
			}
			a.refuseSeveral(refuse("Give the value itself.", "the default of column %q over several shards is not supported: it may differ from shard to shard", name),
				int(t.Location))
		}
	}
}

// defaulted are the columns that an item of SET sets to their default.
func defaulted(t interface {
	GetName() string
	GetVal() *node
}) []string {
	value := t.GetVal()
	if multi := value.GetMultiAssignRef(); multi != nil {
		row := multi.Source.GetRowExpr()
		if at := int(multi.Colno) - 1; row != nil && at >= 0 && at < len(row.Args) {
			value = row.Args[at]
		}
	}
	if value.GetSetToDefault() == nil {
		return nil
	}
	return []string{t.GetName()}
}

// sameEverywhere reports whether the default of a column gives the same on every shard. If it does so only when the time
// of the transaction is fixed, the expression is returned too, to be written in place of DEFAULT.
func (a *analysis) sameEverywhere(c *catalog.Column) (same bool, timed *node) {
	if c.Identity != 0 || !c.HasDefault {
		return false, nil
	}
	text := "SELECT " + c.Default
	tree, err := parse(text)
	if err != nil {
		return false, nil
	}
	m, n := tree.statement()
	sel, ok := m.(*selectStmt)
	if n != 1 || !ok || len(sel.TargetList) != 1 {
		return false, nil
	}
	own := newAnalysis(&Statement{Text: text}, nil, a.env, m)
	own.selectInto(sel, nil, &context{})
	u := &own.functions
	same = own.refused == nil && own.unseen == nil && u.volatile == "" && u.central == "" && u.clock == "" && !u.statementTime && u.server == "" &&
		u.unknown == "" && own.clockText < 0 && own.regCast < 0 && len(own.references) == 0 && own.homeOnly == ""
	if same && u.now {
		timed = sel.TargetList[0].GetResTarget().GetVal()
	}
	return same, timed
}

// refuseSeveral notes a reason against running the statement on several shards; the first one counts.
func (a *analysis) refuseSeveral(err *Error, offset int) {
	if a.several == nil {
		a.several = err.at(a.position(offset))
	}
}

// keepsKey refuses assignments to columns of the shard key, unless it is proved that they leave them as they are: the
// row might belong elsewhere then. ctx holds the facts of the rows that are changed.
func (a *analysis) keepsKey(r *reference, targets []*node, s *scope, ctx *context) {
	if r.place != sharded {
		return
	}
	k := ctx.classes()
	for _, n := range targets {
		t := n.GetResTarget()
		if t == nil || keyIndex(r.table, t.Name) < 0 || len(t.Indirection) == 0 && a.keeps(r, t.Name, t.Val, s, ctx, k) {
			continue
		}
		if r != a.target {
			a.refuse(refuse(hintMove, "column %q is part of the shard key of table %s and cannot be changed in WITH", t.Name, r.name), int(t.Location))
		} else if a.moved == nil {
			a.moved = &movedKey{column: t.Name, at: int(t.Location)}
		}
	}
}

// keeps reports whether a value is, in every row that is changed, what the key column has already.
func (a *analysis) keeps(r *reference, name string, value *node, s *scope, ctx *context, k *classes) bool {
	if multi := value.GetMultiAssignRef(); multi != nil {
		row := multi.Source.GetRowExpr()
		at := int(multi.Colno) - 1
		if row == nil || at < 0 || at >= len(row.Args) {
			return false
		}
		value = row.Args[at]
	}
	own := columnID{r.entry, name}
	if ref := value.GetColumnRef(); ref != nil {
		c, _, ok := s.resolve(ref)
		if !ok || !c.known() {
			return false
		}
		target, found := r.relation.Column(name)
		return c.id == own || found && k.same(c.id, own) && a.convertsAlike(c, target)
	}
	c, ok := r.relation.Column(name)
	if !ok {
		return false
	}
	v, _, ok := a.value(value, column{name: name, id: own, cat: c})
	if !ok {
		return false
	}
	cond := ctx.conditionOn(own, k)
	return len(cond.In) == 1 && !cond.In[0].Array && a.sameValue(&v, &cond.In[0])
}

// sameValue reports whether two values are certainly the same. Which literals of a text are equal is a part of the key
// that plans are remembered by.
func (a *analysis) sameValue(x, y *ValueRef) bool {
	if x.Kind != y.Kind || x.Type != y.Type || x.Null || y.Null || x.Unsure || y.Unsure || x.Invalid || y.Invalid {
		return false
	}
	switch x.Kind {
	case RefParam:
		return x.Param == y.Param
	case RefLiteral:
		return x.Negative == y.Negative && a.literals[x.Literal].Slot == a.literals[y.Literal].Slot
	}
	return x.Const == y.Const
}
