package planner

import (
	"cmp"
	"strings"

	"github.com/shardyard/shardyard/planner/catalog"
)

// expression notes what an expression contains: subqueries, functions, casts, system columns. It proves
// nothing about rows.
func (a *analysis) expression(n *node, s *scope, ctx *context) {
	if n != nil {
		a.walkMessage(unwrap(n), s, ctx)
	}
}

func (a *analysis) walkList(list []*node, s *scope, ctx *context) {
	for _, n := range list {
		a.expression(n, s, ctx)
	}
}

func (a *analysis) walkMessage(m message, s *scope, ctx *context) {
	walk(m, func(inner message) bool {
		switch inner := inner.(type) {
		case *subLink:
			a.expression(inner.Testexpr, s, ctx)
			if sel := inner.Subselect.GetSelectStmt(); sel != nil {
				a.query(sel, s, ctx)
			}
			return false
		case *selectStmt:
			a.query(inner, s, ctx)
			return false
		case *funcCall:
			if a.isSuppliedNextval(inner) {
				return false
			}
			a.call(inner, s)
		case *sqlValueFunction:
			a.sqlValue(inner)
		case *typeCast:
			a.cast(inner)
		case *columnRef:
			a.systemColumn(inner)
			a.attributeCall(inner, s)
		case *operation:
			a.operator(inner)
		default:
			switch kindName(inner) {
			case "JsonObjectAgg", "JsonArrayAgg", "GroupingFunc":
				a.functions.aggregate = true
				a.outerAgg = a.outerAgg || s.outer != nil
			case "JsonTable", "XmlExpr", "XmlSerialize", "JsonFuncExpr":
				a.functions.unusual = true
			case "CurrentOfExpr":
				a.functions.currentOf = true
			}
		}
		return true
	})
}

// functionUse sums up the functions that a statement calls.
type functionUse struct {
	aggregate bool
	volatile  string // name of a volatile function that is not harmless
	volatileP int
	central   string // name of a volatile built-in whose effect is one for the database: on the home shard
	centralP  int
	clock     string // name of a function of the transaction's time that cannot be replaced by a value
	clockP    int
	// now, statementTime: the time of the transaction, of the statement, is read.
	now, statementTime bool
	server             string // name of a function whose result depends on the server
	serverP            int
	unknown            string // name of a function that the catalog does not have
	unknownP           int
	writes             bool // a function that may write
	dirty              bool // may leave session state
	sets               bool // may change settings of the session
	sample             bool
	unusual            bool
	currentOf          bool
	advisory           bool // takes a session advisory lock
	setConfig          int  // calls of set_config
	notifies           bool // calls pg_notify
	listening          bool // calls pg_listening_channels
	user               bool // a function of a user
	native             bool // a volatile function in C that is no extension's
	mirrors            bool // one that may write a reference table
	// sequences are the calls of nextval, setval, currval and lastval.
	sequences []*funcCall
	// sessionValue names currval or lastval.
	sessionValue string
}

// functionInfo is the worst of what the overloads of a name say.
type functionInfo struct {
	name       string
	aggregate  bool
	window     bool
	returnsSet bool
	unknown    bool
	volatile   bool
	stable     bool
	user       bool
	touches    string // a table away from home that it may reach
	perhaps    string // one that it reaches if the search path of its code leads there
	opaque     bool
	reaches    bool // a user function that may get at any table
	mirrors    bool // a user function that may get at a reference table
	native     bool // a volatile function in C that is no extension's
	sets       bool // a user function that may change settings of the session
}

// function looks a call's function up.
func (a *analysis) function(f *funcCall) functionInfo {
	parts, ok := names(f.Funcname)
	if !ok || len(parts) == 0 {
		return functionInfo{unknown: true}
	}
	return a.functionNamed(parts, len(f.Args), f.FuncVariadic)
}

func (a *analysis) functionNamed(parts []string, arguments int, variadic bool) functionInfo {
	schema, name := "", parts[len(parts)-1]
	if len(parts) > 1 {
		schema = parts[len(parts)-2]
	}
	info := functionInfo{name: name}
	overloads := a.env.Catalog.Function(schema, name, a.path)
	if len(overloads) == 0 {
		info.unknown = true
		return info
	}
	fitting := 0
	for _, f := range overloads {
		if !fits(f, arguments, variadic) {
			continue
		}
		fitting++
		info.add(a, f)
	}
	if fitting == 0 {
		for _, f := range overloads {
			info.add(a, f)
		}
	}
	return info
}

// fits reports whether a function can be called with that many arguments.
func fits(f *catalog.Function, arguments int, variadic bool) bool {
	n := len(f.ArgTypes)
	if f.Variadic != 0 || variadic {
		return arguments >= n-1-f.Defaults
	}
	if f.Kind == 'a' {
		return true // ordered-set aggregates count their arguments otherwise
	}
	return arguments <= n && arguments >= n-f.Defaults
}

func (i *functionInfo) add(a *analysis, f *catalog.Function) {
	i.aggregate = i.aggregate || f.Kind == 'a'
	i.window = i.window || f.Kind == 'w'
	i.returnsSet = i.returnsSet || f.ReturnsSet
	i.volatile = i.volatile || f.Volatility == catalog.Volatile
	i.stable = i.stable || f.Volatility == catalog.Stable
	i.user = i.user || !f.Builtin()
	i.opaque = i.opaque || f.Opaque
	i.reaches = i.reaches || !f.Builtin() && (f.Opaque || len(f.Reaches) > 0)
	i.mirrors = i.mirrors || a.anyReference(f.Reaches)
	i.native = i.native || isNative(f)
	i.sets = i.sets || !f.Builtin() && (f.Sets || f.Opaque && f.Volatility == catalog.Volatile)
	if name, perhaps, ok := a.leadsAway(f.Reach); ok && perhaps {
		i.perhaps = cmp.Or(i.perhaps, name.String())
	} else if ok {
		i.touches = cmp.Or(i.touches, name.String())
	}
}

// isNative reports whether a function may keep something in its server process that nobody can carry over or clear: it is in C, and
// not one of an extension.
func isNative(f *catalog.Function) bool {
	return f.Language == "c" && f.Extension == "" && f.Volatility == catalog.Volatile
}

// Volatile functions of Postgres that write nothing, leave nothing behind and give every row, or every
// server, a value of its own anyway.
var harmless = map[string]bool{
	"random": true, "gen_random_uuid": true, "clock_timestamp": true, "timeofday": true,
	"pg_sleep": true, "pg_sleep_for": true, "uuid_generate_v4": true, "uuidv4": true, "uuidv7": true,
}

// Functions of the transaction's or the statement's time.
var clocks = map[string]bool{"now": true, "transaction_timestamp": true, "statement_timestamp": true}

// Volatile functions that only read.
var readers = map[string]bool{
	"currval": true, "lastval": true, "pg_current_wal_lsn": true, "pg_current_wal_insert_lsn": true,
	"pg_relation_size": true, "pg_total_relation_size": true, "pg_table_size": true, "pg_indexes_size": true,
	"pg_database_size": true, "pg_tablespace_size": true, "pg_stat_file": true, "pg_size_pretty": true,
	"pg_current_xact_id_if_assigned": true, "txid_current_if_assigned": true,
}

func (a *analysis) call(f *funcCall, s *scope) {
	info := a.function(f)
	u := &a.functions
	position := int(f.Location)
	if info.aggregate && f.Over == nil {
		u.aggregate = true
		if s.outer != nil && !a.ownAggregate(f, s) {
			a.outerAgg = true
		}
	}
	a.reach(info, position)
	a.noteSession(info, f)
	// A function that is declared STABLE or IMMUTABLE may still call one that writes to what it reaches.
	u.writes = u.writes || info.reaches
	switch {
	case info.unknown:
		setFirst(&u.unknown, &u.unknownP, info.name, position)
		u.dirty, u.writes, u.sets = true, true, true
	case clocks[info.name] && !info.user:
		u.statementTime = u.statementTime || info.name == "statement_timestamp"
		u.now = u.now || info.name != "statement_timestamp"
	case info.name == "age" && len(f.Args) == 1 && !info.user:
		setFirst(&u.clock, &u.clockP, info.name, position)
	case harmless[info.name] && !info.user:
		// Beneath the top level it may be evaluated once for many rows, on one Postgres.
		if s.outer != nil || a.inFrom {
			setFirst(&u.volatile, &u.volatileP, info.name, position)
		}
	case info.volatile:
		if !a.perRow || s.outer != nil || a.inFrom {
			setFirst(&u.volatile, &u.volatileP, info.name, position)
		}
		if !info.user {
			setFirst(&u.central, &u.centralP, info.name, position)
		}
		u.dirty = u.dirty || info.user || info.name == "setseed"
		u.writes = u.writes || info.user || !readers[info.name]
	case !info.user && serverBound(info.name):
		setFirst(&u.server, &u.serverP, info.name, position)
	}
}

func setFirst(name *string, at *int, value string, position int) {
	if *name == "" {
		*name, *at = value, position
	}
}

const hintSchemas = "Name the tables in the code with their schemas."

// reach refuses functions that may read or write tables that are not on the home shard alone, and has those watched that cannot be
// read.
func (a *analysis) reach(info functionInfo, position int) {
	a.functions.user = a.functions.user || info.user
	a.functions.mirrors = a.functions.mirrors || info.mirrors
	a.functions.native = a.functions.native || info.native
	a.functions.sets = a.functions.sets || info.sets
	switch {
	case info.touches != "":
		a.refuse(refuse("Use the table in the statement itself.",
			"function %s may use table %s, which is not on the home shard alone", info.name, info.touches), position)
	case info.perhaps != "":
		a.watch(refuse(hintSchemas, "function %s may use table %s, which is not on the home shard alone", info.name, info.perhaps), position)
	case info.opaque:
		a.watch(refuse("Write what the function does as a statement, or in a language whose body can be read (SQL, or PL/pgSQL without EXECUTE).",
			"it cannot be seen which tables function %s uses, and tables of this database are sharded", info.name), position)
	}
}

// noteSession notes what a built-in function leaves behind in the session.
func (a *analysis) noteSession(info functionInfo, f *funcCall) {
	if info.user {
		return
	}
	switch {
	case strings.HasPrefix(info.name, "pg_advisory_lock"), strings.HasPrefix(info.name, "pg_try_advisory_lock"):
		a.functions.advisory = true
	case info.name == "set_config":
		a.functions.setConfig++
	case info.name == "pg_notify":
		a.functions.notifies = true
	case info.name == "pg_listening_channels":
		a.functions.listening = true
	case info.name == "nextval" || info.name == "setval":
		a.functions.sequences = append(a.functions.sequences, f)
	case info.name == "currval" || info.name == "lastval":
		a.functions.sequences = append(a.functions.sequences, f)
		a.functions.sessionValue = info.name
	}
}

// serverBound reports whether a stable built-in may give another result on another server.
func serverBound(name string) bool {
	for _, prefix := range []string{"pg_", "txid_", "inet_", "has_", "to_reg", "col_description", "obj_description", "row_security"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return strings.HasSuffix(name, "_to_xml") || name == "version" || name == "format_type"
}

// ownAggregate reports whether an aggregate in a subquery belongs to that subquery: one of its arguments
// is certainly a column of that level, or it has no columns in its arguments at all.
func (a *analysis) ownAggregate(f *funcCall, s *scope) bool {
	own, columns := false, false
	for _, list := range [][]*node{f.Args, f.AggOrder} {
		for _, n := range list {
			walk(unwrap(n), func(m message) bool {
				if ref, ok := m.(*columnRef); ok {
					columns = true
					if _, local, found := s.resolve(ref); found && local {
						own = true
					}
				}
				return true
			})
		}
	}
	return own || !columns
}

func (a *analysis) sqlValue(f *sqlValueFunction) {
	if name, _ := clockValue(f); name != "" {
		a.functions.now = true
	}
}

func (a *analysis) cast(c *typeCast) {
	parts, ok := names(c.TypeName.GetNames())
	if !ok || len(parts) == 0 {
		return
	}
	name := parts[len(parts)-1]
	if strings.HasPrefix(name, "reg") && a.regCast < 0 {
		a.regCast = int(c.Location)
	}
	if k := c.Arg.GetAConst(); k != nil && a.clockText < 0 {
		if kind, text := constantOf(k); kind == constString && readsClock(text) && isTimeType(name) {
			a.clockText = int(c.Location)
			if _, _, open := a.findLiteral(int(k.Location)); open {
				a.valuesUsed = true
			}
		}
	}
}

func isTimeType(name string) bool {
	switch name {
	case "date", "time", "timetz", "timestamp", "timestamptz":
		return true
	}
	return false
}

// readsClock reports whether a text is one of the words that the input functions of dates and times
// replace by the present.
func readsClock(text string) bool {
	for len(text) > 0 && text[0] <= ' ' {
		text = text[1:]
	}
	for _, word := range []string{"now", "today", "tomorrow", "yesterday"} {
		if len(text) >= len(word) && strings.EqualFold(text[:len(word)], word) {
			return true
		}
	}
	return false
}

func (a *analysis) systemColumn(ref *columnRef) {
	parts, ok := names(ref.Fields)
	if !ok || len(parts) == 0 || a.systemCol >= 0 {
		return
	}
	if _, system := catalog.SystemColumn(parts[len(parts)-1]); system {
		a.systemCol = int(ref.Location)
	}
}

// attributeCall notes a function that is called as if it were a column: row.function.
func (a *analysis) attributeCall(ref *columnRef, s *scope) {
	parts, ok := names(ref.Fields)
	if !ok || len(parts) < 2 {
		return
	}
	if _, _, column := s.resolve(ref); column {
		return
	}
	info := a.functionNamed(parts[len(parts)-1:], 1, false)
	if info.unknown || !info.user {
		return
	}
	a.reach(info, int(ref.Location))
	if info.volatile {
		setFirst(&a.functions.volatile, &a.functions.volatileP, info.name, int(ref.Location))
		a.functions.writes, a.functions.dirty = true, true
	}
}

// operator checks what user-defined operators of the name may reach.
func (a *analysis) operator(op *operation) {
	parts, ok := names(op.Name)
	if !ok || len(parts) == 0 {
		return
	}
	for _, user := range a.env.Catalog.UserOperators(parts[len(parts)-1]) {
		f, ok := a.env.Catalog.FunctionByOID(user.Function)
		if !ok {
			continue
		}
		info := functionInfo{name: f.Name}
		info.add(a, f)
		a.reach(info, int(op.Location))
		if info.volatile {
			setFirst(&a.functions.volatile, &a.functions.volatileP, f.Name, int(op.Location))
			a.functions.writes, a.functions.dirty = true, true
		}
	}
}
