package planner

import (
	"cmp"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/lexer"
)

// planTransaction plans BEGIN, COMMIT, SAVEPOINT and their kin.
func (a *analysis) planTransaction(t *transactionStmt) (*Plan, *Error) {
	plan := &Plan{ReadOnly: true}
	switch t.Kind {
	case transBegin, transStart:
		plan.Kind, plan.Tag = Begin, "BEGIN"
		if t.Kind == transStart {
			plan.Tag = "START TRANSACTION"
		}
		plan.Transaction = transactionOptions(t.Options)
	case transCommit:
		plan.Kind, plan.Tag, plan.Transaction = Commit, "COMMIT", &Transaction{Chain: t.Chain}
	case transRollback:
		plan.Kind, plan.Tag, plan.Transaction = Rollback, "ROLLBACK", &Transaction{Chain: t.Chain}
	case transSavepoint:
		plan.Kind, plan.Tag, plan.Name = Savepoint, "SAVEPOINT", t.SavepointName
	case transRelease:
		plan.Kind, plan.Tag, plan.Name = Release, "RELEASE", t.SavepointName
	case transRollbackTo:
		plan.Kind, plan.Tag, plan.Name = RollbackTo, "ROLLBACK", t.SavepointName
	default:
		return a.planPrepared(t)
	}
	return plan, nil
}

// planPrepared is PREPARE TRANSACTION, COMMIT PREPARED and ROLLBACK PREPARED.
func (a *analysis) planPrepared(t *transactionStmt) (*Plan, *Error) {
	tag := map[bool]string{true: "PREPARE TRANSACTION", false: "COMMIT PREPARED"}[t.Kind == transPrepare]
	if t.Kind == transRollbackPrepared {
		tag = "ROLLBACK PREPARED"
	}
	return &Plan{Kind: Relay, Tag: tag, Name: t.Gid, Route: Route{Kind: RouteHome}}, nil
}

func transactionOptions(options []*node) *Transaction {
	t := &Transaction{}
	for _, n := range options {
		o := n.GetDefElem()
		text, _ := constantText(o.GetArg())
		switch o.GetDefname() {
		case "transaction_isolation":
			t.Isolation = lower(text)
		case "transaction_read_only":
			t.Access = choose(text, "read only", "read write")
		case "transaction_deferrable":
			t.Deferrable = choose(text, "deferrable", "not deferrable")
		}
	}
	return t
}

func choose(flag, on, off string) string {
	if flag == "0" || flag == "false" {
		return off
	}
	return on
}

// planSet plans SET and RESET.
func planSet(v *variableSetStmt) *Plan {
	plan := &Plan{Kind: Set, Tag: "SET", ReadOnly: true}
	s := &Setting{Name: lower(v.Name), Local: v.IsLocal}
	plan.Set = s
	switch v.Kind {
	case varSetValue:
		s.Value, s.Opaque = settingValue(s.Name, v.Args)
	case varSetDefault:
		s.Default = true
	case varSetCurrent:
		s.Opaque = true
	case varSetMulti:
		return planSetMulti(plan, v)
	case varReset:
		plan.Kind, plan.Tag, s.Default = Reset, "RESET", true
	case varResetAll:
		plan.Kind, plan.Tag, s.Default, s.Name = Reset, "RESET", true, ""
	}
	return plan
}

func planSetMulti(plan *Plan, v *variableSetStmt) *Plan {
	switch v.Name {
	case "TRANSACTION":
		plan.Kind, plan.Set, plan.Transaction = SetTransaction, nil, transactionOptions(v.Args)
	case "TRANSACTION SNAPSHOT":
		plan.Kind, plan.Set, plan.Transaction = SetTransaction, nil, &Transaction{Snapshot: true}
	default:
		plan.Set.Opaque = true
		plan.Transaction = transactionOptions(v.Args)
	}
	return plan
}

// quotedLists are the settings whose value is a list of names, each quoted (GUC_LIST_QUOTE).
var quotedLists = map[string]bool{
	"search_path": true, "temp_tablespaces": true, "session_preload_libraries": true,
	"shared_preload_libraries": true, "local_preload_libraries": true, "unix_socket_directories": true,
}

// settingValue is the value that SET gives a setting (flatten_set_variable_args).
func settingValue(name string, args []*node) (value string, opaque bool) {
	var parts []string
	for _, n := range args {
		c := n.GetAConst()
		if c == nil {
			return "", true
		}
		kind, text := constantOf(c)
		switch {
		case kind == constNull || kind == constBits:
			return "", true
		case quotedLists[name]:
			text = directory.QuoteIdentifier(text)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", "), false
}

// planPrepare plans PREPARE name AS statement.
func (a *analysis) planPrepare(p *prepareStmt) (*Plan, *Error) {
	text, offset, ok := afterAs(a.sql)
	if !ok {
		return nil, &Error{Code: codeInternal, Message: "the statement behind AS was not found"}
	}
	data := &PrepareData{Name: p.Name, Text: text, Offset: offset}
	for _, n := range p.Argtypes {
		oid, name := a.typeNamed(n.GetTypeName())
		data.Types, data.Named = append(data.Types, oid), append(data.Named, name)
	}
	return &Plan{Kind: Prepare, Tag: "PREPARE", Prepare: data, ReadOnly: true}, nil
}

// typeNamed resolves a type; 0 if the catalog does not have it.
func (a *analysis) typeNamed(t *typeNameNode) (oid uint32, name string) {
	parts, ok := names(t.GetNames())
	if !ok || len(parts) == 0 {
		return 0, ""
	}
	schema, bare := "", parts[len(parts)-1]
	if len(parts) > 1 {
		schema = parts[len(parts)-2]
	}
	name = strings.Join(parts, ".")
	array := len(t.ArrayBounds) > 0
	if array {
		name += "[]"
	}
	found, ok := a.env.Catalog.TypeByName(schema, bare, a.path)
	switch {
	case !ok && !array && (schema == "" || schema == "pg_catalog"):
		oid, _ := a.builtinType(t)
		return oid, name
	case !ok:
		return 0, name
	case array:
		return found.Array, name
	}
	return found.OID, name
}

// afterAs cuts the statement out of PREPARE name (types) AS statement.
func afterAs(sql string) (text string, offset int, ok bool) {
	l := lexer.New(sql)
	depth := 0
	for first := 0; ; first++ {
		token, more := l.Next()
		switch {
		case !more:
			return "", 0, false
		case token.IsPunct(sql, '('):
			depth++
		case token.IsPunct(sql, ')'):
			depth--
		case depth == 0 && first > 1 && token.IsWord(sql, "as"):
			return sql[token.End:], token.End, true
		}
	}
}

// planExecute plans EXECUTE name (arguments).
func (a *analysis) planExecute(e *executeStmt) (*Plan, *Error) {
	data := &ExecuteData{Name: e.Name}
	a.walkList(e.Params, &scope{}, &context{})
	if err := cmp.Or(a.refused, a.unseen); err != nil && a.env.Map.AnythingSharded() {
		return nil, err
	}
	if name := a.valueCall(e.Params); name != "" && a.env.Map.AnythingSharded() && a.numbersRows() {
		return nil, refuse("Call it in a statement of its own.",
			"%s in the arguments of EXECUTE is not supported where sequences number the rows of sharded tables", name)
	}
	for _, n := range e.Params {
		var arg ExecuteArg
		c := n.GetAConst()
		if cast := n.GetTypeCast(); cast != nil && c == nil && len(cast.TypeName.GetTypmods()) == 0 {
			c = nil // the text of a cast value need not be that of the parameter's type
		}
		if c != nil {
			kind, text := constantOf(c)
			arg.Constant, arg.Null, arg.Text = kind != constBits, kind == constNull, text
			arg.Kind = argKinds[kind]
		}
		data.Clock = data.Clock || a.clockIn(n) >= 0
		data.Args = append(data.Args, arg)
	}
	return &Plan{Kind: Execute, Tag: "EXECUTE", Execute: data, Dirty: a.functions.dirty}, nil
}

// valueCall names the first function of sequences that expressions call; "" if there is none.
func (a *analysis) valueCall(list []*node) string {
	name := ""
	for _, n := range list {
		walk(n, func(m message) bool {
			if f, ok := m.(*funcCall); ok {
				if info := a.function(f); (valueFunctions[info.name] || info.name == "setval") && !info.user && name == "" {
					name = info.name
				}
			}
			return name == ""
		})
	}
	return name
}

var argKinds = map[constantKind]ArgKind{constInt: ArgInteger, constFloat: ArgDecimal, constBool: ArgBool}

// Options of DECLARE CURSOR (src/include/nodes/parsenodes.h).
const (
	cursorBinary = 0x0001
	cursorScroll = 0x0002
	cursorHold   = 0x0020
)

// planDeclare plans DECLARE CURSOR: its query must run on one shard.
func (a *analysis) planDeclare(d *declareStmt) (*Plan, *Error) {
	sel := d.Query.GetSelectStmt()
	if sel == nil {
		return a.planHome("DECLARE CURSOR"), nil
	}
	plan, err := a.planSelect(sel)
	if err != nil {
		return nil, err
	}
	plan.Kind, plan.Tag = DeclareCursor, "DECLARE CURSOR"
	if plan.Merge != nil || plan.Modify != nil {
		plan.Merge, plan.Modify, plan.SQL = nil, nil, ""
		plan.Refusal = refuse(hintOneShard+" Or run the query without a cursor.", "a cursor over several shards is not supported yet")
	}
	plan.Cursor = &CursorData{
		Name: d.Portalname, Binary: d.Options&cursorBinary != 0,
		Scroll: d.Options&cursorScroll != 0, Hold: d.Options&cursorHold != 0,
	}
	if plan.Cursor.Hold && plan.Watched {
		return nil, a.unseen // its query may run when the transaction commits
	}
	if plan.Cursor.Hold {
		plan.Pins = "cursor with hold"
	}
	return plan, nil
}

// planHome relays to the home shard what no table of the map has to do with.
func (a *analysis) planHome(tag string) *Plan {
	return &Plan{Kind: Relay, Tag: tag, Route: Route{Kind: RouteHome}}
}

// planDo plans DO: its code must not reach tables elsewhere.
func (a *analysis) planDo(m message) (*Plan, *Error) {
	plan := a.planHome("DO")
	plan.Dirty = true
	if !a.env.Map.AnythingSharded() {
		plan.SetsUnseen = true
		return plan, nil
	}
	body, language := "", "plpgsql"
	walk(m, func(inner message) bool {
		if o, ok := inner.(*defElem); ok {
			if s := o.Arg.GetString_(); s != nil && o.Defname == "as" {
				body = s.Sval
			} else if s != nil && o.Defname == "language" {
				language = lower(s.Sval)
			}
		}
		return true
	})
	hint := "Send the statements of the block one by one."
	relations, opaque := a.env.Catalog.ExpressionReach(body)
	opaque = opaque || language != "plpgsql" || mentions(body, "execute")
	plan.SetsUnseen = opaque || a.env.Catalog.TextSets(body)
	plan.Mirrors = a.anyReference(relations)
	if name, ok := a.away(relations); ok {
		return nil, refuse(hint, "the DO block may use table %s, which is not on the home shard alone", name)
	}
	named := directory.TableName{}
	for i := range a.env.Map.Tables {
		t := &a.env.Map.Tables[i]
		if _, elsewhere := a.away([]directory.TableName{t.Name}); elsewhere && mentions(body, t.Name.Name) {
			named, opaque = t.Name, true
		}
	}
	if opaque && endsTransactions(body) && named.Name != "" {
		return nil, refuse(hint, "the DO block may use table %s, which is not on the home shard alone", named)
	}
	if opaque && endsTransactions(body) {
		return nil, refuse(hint, "it cannot be seen which tables the DO block uses, tables of this database are sharded, and it ends transactions")
	}
	plan.Watched, plan.Mirrors = opaque, plan.Mirrors || opaque && a.anyReferences()
	return plan, nil
}

// mentions reports whether a text holds a word, whatever its case and wherever it stands.
func mentions(text, word string) bool {
	return strings.Contains(lower(text), lower(word))
}

// endsTransactions reports whether code may commit or roll back: within the transaction in which it would have to be watched it
// could not.
func endsTransactions(body string) bool {
	lex := lexer.New(body)
	ends := false // the last word was COMMIT or ROLLBACK
	for {
		token, ok := lex.Next()
		if !ok {
			return lex.Err() != nil && (mentions(body, "commit") || mentions(body, "rollback"))
		}
		if ends && (token.IsPunct(body, ';') || token.IsWord(body, "and") || token.IsWord(body, "work") || token.IsWord(body, "transaction")) {
			return true
		}
		ends = token.IsWord(body, "commit") || token.IsWord(body, "rollback")
	}
}

// planCall plans CALL.
func (a *analysis) planCall(m message) (*Plan, *Error) {
	s := &scope{}
	a.walkMessage(m, s, &context{})
	plan, err := a.plan("CALL")
	if err != nil {
		return nil, err
	}
	plan.Dirty = true
	if plan.Watched && a.callEndsTransactions(m) {
		return nil, a.unseen
	}
	if plan.Route.Kind == RouteFilters {
		return nil, refuse("Compute the arguments in a statement of their own.", "CALL with a query on sharded tables is not supported")
	}
	return plan, nil
}

// callEndsTransactions reports whether a procedure that is called may commit or roll back.
func (a *analysis) callEndsTransactions(m message) bool {
	found := false
	walk(m, func(inner message) bool {
		f, ok := inner.(*funcCall)
		if !ok {
			return true
		}
		parts, ok := names(f.Funcname)
		if !ok || len(parts) == 0 {
			return true
		}
		schema, name := qualified(parts)
		for _, overload := range a.env.Catalog.Function(schema, name, a.path) {
			found = found || endsTransactions(overload.Source)
		}
		return true
	})
	return found
}
