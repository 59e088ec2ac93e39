package planner

// A query of WITH that changes data is run by every shard on its own rows, if what has a part in it is joined by the key to
// its target. Its rows are then on the shard of the changed row, so that it is read like a table that is colocated with
// its target: each mention of it must be joined by the key, if RETURNING gives that, to the rest of the statement.

// modifies analyses a query of WITH that changes data.
func (a *analysis) modifies(c *cte, m message, base *context) {
	c.done, c.unknown = true, true
	a.writes = true
	outer := a.part
	a.part = c
	target, returned := a.modification(m, c.outer, base)
	a.part = outer
	a.parts = append(a.parts, c)
	if target == nil || target.place != sharded {
		return
	}
	columns, ok := renamed(returned.columns, c.alias)
	c.target, c.columns, c.unknown = target, columns, returned.open || !ok
}

// mention is the result of a query of WITH that changed rows: its columns that are columns of the table keep what is
// known of them.
func (a *analysis) mention(c *cte, ctx *context) result {
	r := &reference{
		entry: a.newEntry(), name: c.target.name, relation: c.target.relation, table: c.target.table, place: sharded,
		context: ctx, position: c.target.position, alias: c.name, part: a.part,
	}
	a.mentions = append(a.mentions, r)
	out := result{open: c.unknown}
	for _, column := range c.columns {
		own := column
		own.values = nil
		if own.id.entry == c.target.entry && own.cat != nil {
			own.id = columnID{r.entry, own.id.name}
		} else {
			own.id, own.cat = columnID{r.entry, "?" + own.name}, nil
		}
		out.columns = append(out.columns, own)
	}
	return out
}

// checkParts proves that each shard can run the queries of WITH that change data on its own rows.
func (a *analysis) checkParts() *Error {
	for _, c := range a.parts {
		if c.target == nil {
			return refuse(hintOneShard, "WITH queries over several shards that change data other than by UPDATE and DELETE are not supported")
		}
		if err := a.joinedTo(c.target, c); err != nil {
			return err
		}
	}
	return nil
}

// ofPart are the mentions of sharded tables, and of queries that change them, that are in one part of the statement; nil is
// the statement itself.
func (a *analysis) ofPart(part *cte) []*reference {
	var list []*reference
	for _, from := range [][]*reference{a.references, a.mentions} {
		for _, r := range from {
			if r.place == sharded && r.part == part {
				list = append(list, r)
			}
		}
	}
	return list
}

// planWriting makes a plan of a SELECT whose WITH changes data: each shard runs it on its own rows, and the client gets what
// they return.
func (a *analysis) planWriting(s *scatter, plan *Plan) *Error {
	s.writing = true
	for _, check := range []func() *Error{s.checkClauses, s.checkFunctions, a.checkTransitions, s.checkTables} {
		if err := check(); err != nil {
			return err
		}
	}
	sel := s.sel
	switch {
	case len(sel.SortClause) > 0:
		return s.several("ORDER BY in a statement whose WITH changes data")
	case sel.LimitCount != nil || sel.LimitOffset != nil:
		return s.several("LIMIT or OFFSET in a statement whose WITH changes data")
	case plan.Pins != "":
		return s.several("a " + plan.Pins)
	case a.several != nil:
		return a.several
	}
	return a.modifyPlan(sel, plan, nil)
}
