package planner

import (
	"slices"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
	"github.com/shardyard/shardyard/planner/lexer"
)

// place is where a relation lives.
type place uint8

const (
	onHome     place = iota // unsharded, temporary, of the catalog, or unknown
	pinned                  // on a shard of its own that is not the home shard
	sharded                 // spread
	everywhere              // a reference table
)

// reference is one mention of a relation in a statement.
type reference struct {
	entry    int
	name     directory.TableName
	relation *catalog.Relation // nil if the catalog does not have it
	table    *directory.Table  // nil if the map does not have it
	place    place
	context  *context
	position int // byte offset in the text, -1 if unknown
	written  bool
	locked   bool    // FOR UPDATE or FOR SHARE locks its rows
	alias    string  // what the statement calls it
	system   bool    // of the system catalogs
	only     bool    // ONLY: without what inherits from it
	stored   *Filter // of the target of an INSERT: the rows that it stores
	part     *cte    // the query of WITH that changes data and names it; nil: the statement itself
}

// analysis collects what one statement says. It is used once.
type analysis struct {
	env      *Env
	sql      string
	literals []lexer.Literal
	types    []uint32
	path     []string // effective search path

	entries    int
	references []*reference
	tableUses  map[string]int // how often a bare relation name stands in the statement
	deferred   []*cte
	topScope   *scope // of the outermost query

	params     map[int]*paramUse
	valuesUsed bool // the plan depends on the value of a literal
	// timeDefaults are the defaults of columns that read the time, where they stand for DEFAULT.
	timeDefaults map[string]*node
	texts        []int // literals that are certainly not read as dates or times

	inFrom bool // a function of FROM is being looked at
	perRow bool // expressions that are evaluated once for every changed row are being looked at

	target  *reference // of an UPDATE or DELETE at the top
	moved   *movedKey  // the first assignment that may change the target's shard key
	merging *merging   // of a MERGE at the top
	several *Error     // the first reason found against running a modification on several shards

	// What the statement contains, at any level.
	functions functionUse
	locking   bool
	// innerLocking: rows are locked beneath the top level.
	innerLocking bool
	lockPos      int
	writes       bool // a data-modifying WITH
	// parts are the queries of WITH that change data, part is the one being looked at.
	parts []*cte
	part  *cte
	// combines: the statement may be combined; pieces: it is to be. conjuncts are its conditions, for that.
	combines  bool
	pieces    bool
	top       *context // of the outermost query
	conjuncts []conjunct
	// mentions are the places where the rows of such queries are read, as if each were a table.
	mentions  []*reference
	systemCol int // location of a system column, -1 if there is none
	// sortedInner: a subquery of FROM is sorted, which Postgres keeps although it need not.
	sortedInner bool
	outerAgg    bool // an aggregate in a subquery whose arguments are not its own level's
	regCast     int  // location of a cast to a reg* type, -1
	clockText   int  // location of a date/time constant that reads the clock ('now'), -1

	root message
	// native: what currval and lastval tell is known to the shard.
	native bool

	// insertion is the outermost statement, if it is an INSERT.
	insertion *inserting

	// refused is the first reason found against the whole statement.
	refused *Error

	// unseen is why the statement must be watched (Plan.Watched); where it cannot be, it is refused for that reason.
	unseen *Error

	// later is why the statement is refused if it is not about the home shard alone.
	later *Error

	// homeOnly names an object of the statement that only the home shard has, homeOnlyP is where it stands.
	homeOnly  string
	homeOnlyP int
}

// paramUse is how a parameter of undeclared type is used.
type paramUse struct {
	occurrences int
	typed       map[int32]bool // locations of those whose context says the type, all the same
	as          directory.KeyType
	conflict    bool
}

func newAnalysis(st *Statement, types []uint32, env *Env, root message) *analysis {
	a := &analysis{
		env: env, sql: st.Text, literals: st.literals, types: types, root: root, native: st.Native,
		path:      env.Catalog.EffectivePath(env.SearchPath, env.User),
		tableUses: make(map[string]int), params: make(map[int]*paramUse),
		timeDefaults: make(map[string]*node), systemCol: -1, regCast: -1, clockText: -1, lockPos: -1,
	}
	walk(root, func(m message) bool {
		switch m := m.(type) {
		case *rangeVar:
			if m.Schemaname == "" {
				a.tableUses[m.Relname]++
			}
		case *paramRef:
			a.param(int(m.Number)).occurrences++
		default:
			a.noteHomeOnly(m)
		}
		return true
	})
	return a
}

func (a *analysis) param(number int) *paramUse {
	use := a.params[number]
	if use == nil {
		use = &paramUse{typed: make(map[int32]bool)}
		a.params[number] = use
	}
	return use
}

// refuse notes a reason against the statement; the first one counts.
func (a *analysis) refuse(err *Error, offset int) {
	if a.refused == nil {
		a.refused = err.at(a.position(offset))
	}
}

// watch notes that the statement runs code of which it cannot be seen which tables it uses.
func (a *analysis) watch(reason *Error, offset int) {
	if a.unseen == nil {
		a.unseen = reason.at(a.position(offset))
	}
}

// watched reports whether the statement must be watched.
func (a *analysis) watched() bool { return a.unseen != nil && a.env.Map.AnythingSharded() }

// position converts a byte offset to a 1-based character; 0 if offset is negative.
func (a *analysis) position(offset int) int {
	if offset < 0 || offset > len(a.sql) {
		return 0
	}
	n := 1
	for i := range a.sql {
		if i >= offset {
			break
		}
		n++
	}
	return n
}

func (a *analysis) newEntry() int {
	a.entries++
	return a.entries
}

// relation resolves a name of the FROM clause or a target and notes the reference.
func (a *analysis) relation(rv *rangeVar, ctx *context) *reference {
	r := &reference{entry: a.newEntry(), context: ctx, position: int(rv.Location), only: !rv.Inh, part: a.part}
	r.name = directory.TableName{Schema: rv.Schemaname, Name: rv.Relname}
	a.references = append(a.references, r)
	if a.temporary(rv) {
		return r
	}
	rel, ok := a.env.Catalog.ResolveTable(rv.Schemaname, rv.Relname, a.path)
	if !ok {
		if t, found := a.env.Map.Table(r.name); found && rv.Schemaname != "" {
			a.place(r, t)
		}
		return r
	}
	r.relation, r.name, r.system = rel, rel.Name, rel.System
	if t, found := a.env.Map.Table(rel.Name); found {
		a.place(r, t)
	}
	return r
}

func (a *analysis) place(r *reference, t *directory.Table) {
	r.table = t
	switch {
	case t.Kind == directory.TableSharded:
		r.place = sharded
	case t.Kind == directory.TablePinned && t.Shard == a.env.Map.Home:
		r.place = onHome
	case t.Kind == directory.TablePinned:
		r.place = pinned
	case t.Kind == directory.TableReference:
		r.place = everywhere
	default:
		a.refuse(refuse("Wait for a release that supports it.", "table %s is distributed in a way that is not supported yet", t.Name), r.position)
	}
}

// temporary reports whether the name stands for a temporary relation of the session.
func (a *analysis) temporary(rv *rangeVar) bool {
	if rv.Schemaname == "pg_temp" {
		return true
	}
	if rv.Schemaname != "" || !slices.Contains(a.env.TempNames, rv.Relname) {
		return false
	}
	for _, schema := range a.path {
		// pg_temp comes first unless the path names it.
		if schema == "pg_temp" {
			return true
		}
		if !slices.Contains(a.path, "pg_temp") {
			return true
		}
		if _, hides := a.env.Catalog.ResolveTable(schema, rv.Relname, a.path); hides {
			return false
		}
	}
	return true
}

// columnsOf are the live columns of a reference.
func (r *reference) columnsOf() (columns []column, open bool) {
	if r.relation == nil || r.relation.System {
		return nil, true
	}
	for _, c := range r.relation.Live() {
		columns = append(columns, column{name: c.Name, id: columnID{r.entry, c.Name}, cat: c})
	}
	return columns, false
}

// spread are the references to sharded tables, elsewhere those to tables pinned away from home, and
// home the others, those to reference tables that must be run there among them.
func (a *analysis) sorted() (spread, elsewhere, home []*reference) {
	for _, r := range a.references {
		switch r.place {
		case sharded:
			spread = append(spread, r)
		case pinned:
			elsewhere = append(elsewhere, r)
		case everywhere:
			if r.atAuthority() {
				home = append(home, r)
			}
		default:
			home = append(home, r)
		}
	}
	return spread, elsewhere, home
}

// mapTables are the tables of the map that the statement touches, without duplicates.
func (a *analysis) mapTables() []directory.TableName {
	var tables []directory.TableName
	for _, r := range a.references {
		if r.table != nil && !slices.Contains(tables, r.name) {
			tables = append(tables, r.name)
		}
	}
	return tables
}

// leadsAway is away for what code names. perhaps: only without a schema, and the schemas of all such tables are not in the search path, so
// they are meant only if the code runs under another one.
func (a *analysis) leadsAway(r catalog.Reach) (name directory.TableName, perhaps, ok bool) {
	for _, candidate := range r.Reaches {
		if _, elsewhere := a.away([]directory.TableName{candidate}); !elsewhere {
			continue
		}
		unsure := slices.Contains(r.Unlikely, candidate) || slices.Contains(r.Perhaps, candidate) && !slices.Contains(a.path, candidate.Schema)
		if !unsure {
			return candidate, false, true
		}
		name, perhaps, ok = candidate, true, true
	}
	return name, perhaps, ok
}

// away reports whether any of the names is a table of which the home shard does not have all rows.
func (a *analysis) away(list []directory.TableName) (directory.TableName, bool) {
	for _, name := range list {
		t, ok := a.env.Map.Table(name)
		if ok && t.Kind != directory.TableReference && (t.Kind != directory.TablePinned || t.Shard != a.env.Map.Home) {
			return name, true
		}
	}
	return directory.TableName{}, false
}
