package planner

import "slices"

// planSelect plans a SELECT, VALUES or TABLE.
func (a *analysis) planSelect(sel *selectStmt) (*Plan, *Error) {
	if intoTable(sel) != nil {
		return a.planSelectInto(sel)
	}
	top := &context{}
	a.top = top
	a.selectInto(sel, nil, top)
	a.finishAll()
	plan, err := a.plan("SELECT")
	if err != nil {
		return a.combined(sel, err)
	}
	plan.ReadOnly = a.readOnly()
	a.trackSettings(sel, plan)
	a.mayScatter(sel, top, plan)
	a.mayCombine(sel, plan)
	return plan, nil
}

// intoTable is the target of SELECT … INTO, at the top or in the first arm of a set operation.
func intoTable(sel *selectStmt) *rangeVar {
	for sel != nil {
		if sel.IntoClause != nil {
			return sel.IntoClause.Rel
		}
		sel = sel.Larg
	}
	return nil
}

// mayScatter makes a scatter of a plan that depends on values, if the statement allows it; otherwise it
// notes why it does not.
func (a *analysis) mayScatter(sel *selectStmt, top *context, plan *Plan) {
	if plan.Route.Kind != RouteFilters {
		return
	}
	sc := &scatter{analysis: a, sel: sel, top: top}
	if a.writes {
		if refusal := a.planWriting(sc, plan); refusal != nil {
			plan.Refusal = refusal
		}
		return
	}
	merge, sql, refusal := sc.plan()
	if refusal != nil {
		plan.Refusal = refusal
		return
	}
	plan.Kind, plan.Merge, plan.SQL, plan.Refusal = Scatter, merge, sql, nil
	plan.Clock, plan.texts = a.clockParameters(), a.texts
	if sql != "" {
		a.valuesUsed = true
	}
}

// readOnly reports whether the statement provably writes nothing.
func (a *analysis) readOnly() bool {
	return !a.locking && !a.writes && !a.watched() && !a.functions.writes && !a.functions.unusual && !a.anyWritten()
}

func (a *analysis) anyWritten() bool {
	return slices.ContainsFunc(a.references, func(r *reference) bool { return r.written })
}

// trackSettings notes calls of set_config in the select list that run once and say what they set; any other leaves
// state that nobody tracks.
func (a *analysis) trackSettings(sel *selectStmt, plan *Plan) {
	if a.functions.setConfig == 0 {
		return
	}
	for _, n := range sel.TargetList {
		if s, ok := a.settingOf(n.GetResTarget().GetVal()); ok && len(sel.FromClause) == 0 && sel.WhereClause == nil {
			plan.SetConfig = append(plan.SetConfig, s)
			a.valuesUsed = true
		}
	}
	if len(plan.SetConfig) != a.functions.setConfig {
		plan.Dirty = true
	}
}

func (a *analysis) settingOf(n *node) (Setting, bool) {
	call := n.GetFuncCall()
	if call == nil || len(call.Args) != 3 || a.function(call).user {
		return Setting{}, false
	}
	parts, ok := names(call.Funcname)
	if !ok || parts[len(parts)-1] != "set_config" {
		return Setting{}, false
	}
	name, nameOK := constantText(call.Args[0])
	value, valueOK := constantText(call.Args[1])
	local, localOK := constantText(call.Args[2])
	if !nameOK || !localOK || !valueOK && lower(name) == "application_name" {
		return Setting{}, false
	}
	set := Setting{Name: lower(name), Value: value, Opaque: !valueOK}
	switch local {
	case "true", "t", "on", "1", "yes", "y":
		set.Local = true
		return set, true
	case "false", "f", "off", "0", "no", "n":
		return set, true
	}
	return Setting{}, false
}

// constantText is the text of a constant or of a string constant cast to something.
func constantText(n *node) (string, bool) {
	c := n.GetAConst()
	if cast := n.GetTypeCast(); cast != nil {
		c = cast.Arg.GetAConst()
	}
	if c == nil {
		return "", false
	}
	kind, text := constantOf(c)
	return text, kind != constNull && kind != constBits
}

// noteUnseen notes that a statement may change settings of the session in a way that its text does not tell.
func (a *analysis) noteUnseen(plan *Plan) {
	if plan.Explain != nil && !plan.Explain.Analyze {
		return
	}
	sets := a.functions.sets || a.functions.setConfig > len(plan.SetConfig) || plan.Transfer != nil && plan.Transfer.Dirty
	for _, r := range a.references {
		if rel := r.relation; rel != nil {
			sets = sets || rel.Sets || r.written && rel.Opaque && len(rel.Triggers) > 0
		}
	}
	if sets {
		plan.Dirty, plan.SetsUnseen = true, true
	}
}
