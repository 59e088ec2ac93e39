package planner

import (
	"slices"
	"strconv"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
	"github.com/shardyard/shardyard/planner/lexer"
)

// SequenceCall is a call, in a statement's text, of a function that tells what the session was given of sequences, or that gives it
// a value: the session puts the value there before the statement is planned and run.
type SequenceCall struct {
	// Function is "currval", "lastval" or "nextval".
	Function string
	// Sequence is what the call names; Param is the number of the parameter that does, 0: none.
	Sequence directory.TableName
	Param    int
	// Numbers: the router supplies values of the sequence. See Numbering for that of a parameter.
	Numbers bool

	start, end int  // bytes of the text
	named      bool // the call gives a result column its name
	lone       bool // the text mentions Param here only
}

// valueFunctions are the functions of SequenceCall.
var valueFunctions = map[string]bool{"currval": true, "lastval": true, "nextval": true}

// planCalls plans a statement in which the session has to put values first; nil for any other.
func (a *analysis) planCalls(m message) *Plan {
	if a.native || m != a.root || !a.env.Map.AnythingSharded() || !a.numbersRows() {
		return nil
	}
	var calls []SequenceCall
	known, ours := true, false
	walk(m, func(inner message) bool {
		f, ok := inner.(*funcCall)
		if !ok {
			return true
		}
		info := a.function(f)
		if !valueFunctions[info.name] || info.user || info.unknown {
			return true
		}
		call, ok := a.sequenceCall(f, info.name)
		known = known && (ok || info.name == "nextval")
		if !ok {
			return true
		}
		if info.name == "nextval" {
			ok = call.Numbers && a.evaluatedOnce(m, f)
		}
		if ok {
			ours = ours || call.Numbers || call.Param > 0 || info.name == "lastval"
			calls = append(calls, call)
		}
		return true
	})
	if !known || !ours {
		return nil
	}
	for _, n := range resultTargets(m) {
		t := n.GetResTarget()
		value := t.GetVal()
		for value.GetTypeCast() != nil {
			value = value.GetTypeCast().Arg
		}
		for i := range calls {
			if f := value.GetFuncCall(); f != nil && t.Name == "" && int(f.Location) == calls[i].start {
				calls[i].named = true
			}
		}
	}
	slices.SortFunc(calls, func(x, y SequenceCall) int { return x.start - y.start })
	a.valuesUsed = true
	return &Plan{Kind: Relay, Tag: commandTag(m), Route: Route{Kind: RouteHome}, Calls: calls}
}

// asksHomeOnly reports whether all calls of currval and lastval are about sequences that the router does not supply.
func (a *analysis) asksHomeOnly() bool {
	for _, f := range a.functions.sequences {
		name := a.function(f).name
		if name != "currval" && name != "lastval" {
			continue
		}
		if call, ok := a.sequenceCall(f, name); !ok && !namesNothing(f) || ok && (call.Sequence.Name == "" || call.Numbers) {
			return false
		}
	}
	return true
}

// namesNothing reports a call with a constant name that is that of no sequence, or of a temporary one: a shard knows.
func namesNothing(f *funcCall) bool {
	if len(f.Args) != 1 {
		return false
	}
	n := f.Args[0]
	if n.GetTypeCast() != nil {
		n = n.GetTypeCast().Arg
	}
	return n.GetAConst() != nil
}

// resultTargets are the result columns of a statement.
func resultTargets(m message) []*node {
	switch m := m.(type) {
	case *selectStmt:
		return m.TargetList
	case *insertStmt:
		return m.ReturningList
	case *updateStmt:
		return m.ReturningList
	case *deleteStmt:
		return m.ReturningList
	}
	return nil
}

// sequenceCall reads a call; ok is false if it cannot be seen what it names.
func (a *analysis) sequenceCall(f *funcCall, function string) (c SequenceCall, ok bool) {
	c = SequenceCall{Function: function, start: int(f.Location)}
	if c.end, ok = a.endOfCall(c.start); !ok {
		return c, false
	}
	if function == "lastval" {
		return c, len(f.Args) == 0
	}
	if len(f.Args) != 1 {
		return c, false
	}
	if p := parameterOf(f.Args[0]); p != nil && function == "currval" {
		c.Param = int(p.Number)
		c.lone = a.params[c.Param] != nil && a.params[c.Param].occurrences == 1
		return c, true
	}
	if c.Sequence, ok = a.sequenceNamed(f.Args[0]); !ok {
		c.Sequence, ok = a.serialSequence(f.Args[0])
	}
	c.Numbers = ok && a.numbers(c.Sequence)
	return c, ok
}

// parameterOf is the parameter that an argument is, cast to a text or a regclass or not; nil: it is none.
func parameterOf(n *node) *paramRef {
	for n.GetTypeCast() != nil {
		parts, ok := names(n.GetTypeCast().TypeName.GetNames())
		if !ok || len(parts) == 0 || !slices.Contains([]string{"text", "regclass", "varchar"}, parts[len(parts)-1]) {
			return nil
		}
		n = n.GetTypeCast().Arg
	}
	return n.GetParamRef()
}

// serialSequence is the sequence of pg_get_serial_sequence('t', 'column').
func (a *analysis) serialSequence(n *node) (directory.TableName, bool) {
	for n.GetTypeCast() != nil {
		n = n.GetTypeCast().Arg
	}
	f := n.GetFuncCall()
	if f == nil || len(f.Args) != 2 {
		return directory.TableName{}, false
	}
	if info := a.function(f); info.name != "pg_get_serial_sequence" || info.user || info.unknown {
		return directory.TableName{}, false
	}
	table, ok := constantText(f.Args[0])
	column, given := constantText(f.Args[1])
	if !ok || !given {
		return directory.TableName{}, false
	}
	parts, ok := identifiers(table)
	if !ok {
		return directory.TableName{}, false
	}
	schema, name := qualified(parts)
	rel, ok := a.env.Catalog.ResolveTable(schema, name, a.path)
	if !ok || a.temporary(&rangeVar{Schemaname: schema, Relname: name}) {
		return directory.TableName{}, false
	}
	c, ok := rel.Column(column)
	if !ok || c.Sequence.Name == "" {
		return directory.TableName{}, false
	}
	owned, ok := a.env.Catalog.Relation(c.Sequence)
	return c.Sequence, ok && owned.OwnedBy == rel.Name
}

// endOfCall is the end of the call that begins at an offset.
func (a *analysis) endOfCall(start int) (int, bool) {
	if start < 0 || start >= len(a.sql) {
		return 0, false
	}
	lex, depth := lexer.New(a.sql[start:]), 0
	for {
		token, ok := lex.Next()
		switch {
		case !ok:
			return 0, false
		case token.IsPunct(a.sql[start:], '('):
			depth++
		case token.IsPunct(a.sql[start:], ')'):
			if depth--; depth == 0 {
				return start + token.End, true
			}
		}
	}
}

// evaluatedOnce reports whether a call is a result column of a SELECT without tables: then it is evaluated once.
func (a *analysis) evaluatedOnce(m message, f *funcCall) bool {
	sel, ok := m.(*selectStmt)
	if !ok || sel.Op != setOpNone || len(sel.FromClause) > 0 || sel.WhereClause != nil || len(sel.ValuesLists) > 0 || sel.WithClause != nil ||
		sel.LimitCount != nil || sel.LimitOffset != nil || len(sel.GroupClause) > 0 || sel.HavingClause != nil || sel.IntoClause != nil {
		return false
	}
	return slices.ContainsFunc(sel.TargetList, func(n *node) bool {
		value := n.GetResTarget().GetVal()
		for value.GetTypeCast() != nil {
			value = value.GetTypeCast().Arg
		}
		return value.GetFuncCall() == f
	})
}

// numbers reports whether a sequence numbers rows of a sharded table.
func (a *analysis) numbers(sequence directory.TableName) bool { return a.env.numbers(sequence) }

func (e *Env) numbers(sequence directory.TableName) bool {
	for i := range e.Map.Tables {
		t := &e.Map.Tables[i]
		if t.Kind != directory.TableSharded {
			continue
		}
		r, ok := e.Catalog.Relation(t.Name)
		if ok && slices.ContainsFunc(r.Columns, func(c catalog.Column) bool { return c.Sequence == sequence }) {
			return true
		}
	}
	return false
}

// SequenceNamed is the sequence that a text means as a regclass, and whether the router supplies its values. ok is false if there is
// none of the name.
func (e *Env) SequenceNamed(text string) (name directory.TableName, numbers, ok bool) {
	parts, ok := identifiers(text)
	if !ok {
		return name, false, false
	}
	schema, bare := qualified(parts)
	rel, ok := e.Catalog.ResolveTable(schema, bare, e.Catalog.EffectivePath(e.SearchPath, e.User))
	if !ok || rel.Kind != catalog.KindSequence || schema == "" && slices.Contains(e.TempNames, bare) {
		return name, false, false
	}
	return rel.Name, e.numbers(rel.Name), true
}

// WithValues is the statement with values in place of the plan's calls, in their order, and the types of its parameters, declared
// being those of the client's text.
func (pl *Plan) WithValues(st *Statement, values []int64, declared []uint32) (text string, types []uint32) {
	const textType = 25
	types = slices.Clone(declared)
	at := 0
	for i, c := range pl.Calls {
		value := "'" + strconv.FormatInt(values[i], 10) + "'::pg_catalog.int8"
		if c.named {
			value = "(SELECT " + value + " AS " + c.Function + ")"
		}
		text += st.Text[at:c.start] + value
		at = c.end
		for c.lone && len(types) < c.Param {
			types = append(types, 0)
		}
		if c.lone && types[c.Param-1] == 0 { // nothing else says what it is
			types[c.Param-1] = textType
		}
	}
	return text + st.Text[at:], types
}

// CallsFrom is where in the text the first of the calls begins, in bytes.
func (pl *Plan) CallsFrom() int { return pl.Calls[0].start }
