package planner

import "strings"

// planExplain plans EXPLAIN: it goes where the statement would go.
func (a *analysis) planExplain(e *explainStmt) (*Plan, *Error) {
	data := &ExplainData{Format: "text"}
	options := make([]string, 0, len(e.Options))
	for _, n := range e.Options {
		o := n.GetDefElem()
		text, ok := optionText(o.GetArg())
		switch o.GetDefname() {
		case "analyze":
			data.Analyze = !ok || text != "false" && text != "off" && text != "0"
		case "format":
			data.Format = lower(text)
		}
		option := o.GetDefname()
		if ok {
			option += " " + text
		}
		options = append(options, option)
	}
	data.Prefix = "EXPLAIN "
	if len(options) > 0 {
		data.Prefix += "(" + strings.Join(options, ", ") + ") "
	}
	a.combines = data.Format == "text" // others are not told by the router
	inner, err := a.planStatement(unwrap(e.Query))
	if err != nil {
		return nil, err
	}
	if inner.Kind == DDL && (len(inner.DDL.Tables) > 0 || inner.CreateAs != nil) {
		return nil, refuse("EXPLAIN the query alone.", "EXPLAIN of this statement on sharded tables is not supported")
	}
	if data.Analyze && inner.Modify != nil && inner.Modify.Move != nil {
		return nil, refuse("Use EXPLAIN without ANALYZE.", "EXPLAIN ANALYZE of a change of the shard key is not supported")
	}
	data.Inner = inner
	outer := *inner
	outer.Kind, outer.Tag, outer.Explain = Explain, "EXPLAIN", data
	outer.DDL, outer.Cursor, outer.Execute = nil, nil, nil
	outer.SetConfig, outer.Pins = nil, ""
	if inner.Kind == Execute {
		outer.Executes, outer.Route = inner.Execute.Name, Route{Kind: RouteHome}
	}
	if !data.Analyze {
		outer.ReadOnly, outer.Dirty, outer.Mirrors = true, false, false
	} else if inner.Pins != "" || len(inner.SetConfig) > 0 {
		outer.Dirty = true
	}
	return &outer, nil
}
