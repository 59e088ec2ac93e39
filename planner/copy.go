package planner

// planCopy plans COPY.
func (a *analysis) planCopy(c *copyStmt) (*Plan, *Error) {
	data := &CopyData{From: c.IsFrom, Stdio: c.Filename == "" && !c.IsProgram, Format: "text"}
	for _, n := range c.Options {
		o := n.GetDefElem()
		text, _ := optionText(o.GetArg())
		switch o.GetDefname() {
		case "format":
			data.Format = lower(text)
		case "header":
			data.Header = optionOn(o.GetArg())
		}
	}
	var plan *Plan
	var err *Error
	if c.Query != nil {
		plan, err = a.planCopyQuery(c)
	} else {
		plan, err = a.planCopyTable(c, data)
	}
	if err != nil {
		return nil, err
	}
	plan.Kind, plan.Tag, plan.Copy = Copy, "COPY", data
	if !data.Stdio && plan.Route.Kind != RouteHome {
		return nil, refuse("Use COPY … TO STDOUT or \\copy.", "COPY with a file of the server is supported for tables of the home shard only")
	}
	return plan, nil
}

// optionText is the text of an option's argument.
func optionText(n *node) (string, bool) {
	switch {
	case n.GetString_() != nil:
		return n.GetString_().Sval, true
	case n.GetInteger() != nil:
		return itoa(int(n.GetInteger().Ival)), true
	case n.GetBoolean() != nil:
		if n.GetBoolean().Boolval {
			return "true", true
		}
		return "false", true
	case n.GetFloat() != nil:
		return n.GetFloat().Fval, true
	}
	return constantText(n)
}

// planCopyQuery is COPY (query) TO: on one shard.
func (a *analysis) planCopyQuery(c *copyStmt) (*Plan, *Error) {
	if sel := c.Query.GetSelectStmt(); sel != nil {
		plan, err := a.planSelect(sel)
		if err != nil {
			return nil, err
		}
		if plan.Route.Kind == RouteFilters {
			plan.Merge, plan.Modify, plan.SQL = nil, nil, ""
			plan.Refusal = refuse(hintOneShard+" Or COPY the whole table.", "COPY of a query over several shards is not supported yet")
		}
		return plan, nil
	}
	return a.planModification(unwrap(c.Query), "COPY")
}

func (a *analysis) planCopyTable(c *copyStmt, data *CopyData) (*Plan, *Error) {
	ctx := &context{}
	r := a.relation(c.Relation, ctx)
	r.written = c.IsFrom
	data.Table, data.Sharded = r.name, r.place == sharded
	columns, open := r.columnsOf()
	s := &scope{items: []item{{alias: r.name.Name, columns: columns, open: open}}, columns: columns, open: open}
	a.expression(c.WhereClause, s, ctx)
	plan, err := a.plan("COPY")
	if err != nil {
		return nil, err
	}
	plan.ReadOnly = !c.IsFrom
	if r.place != sharded {
		return plan, nil
	}
	if c.IsFrom && data.Stdio {
		return a.planCopyFrom(c, r, plan, data)
	}
	plan.Refusal, plan.Merge = nil, &Merge{}
	return plan, nil
}
