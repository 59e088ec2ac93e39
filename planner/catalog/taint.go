package catalog

import (
	"slices"
	"strings"

	"github.com/shardyard/shardyard/directory"
)

// Reach names the user relations that running something may touch besides itself.
type Reach struct {
	// Reaches are all of them: an over-approximation.
	Reaches []directory.TableName
	// Perhaps are those of them that all code on the way names without their schemas: the search path at that time says whether they
	// are meant. Unlikely are those that would be meant only if code changed the search path that its function has.
	Perhaps, Unlikely []directory.TableName
}

// reach is what running something may touch.
type reach struct {
	relations []directory.TableName
	opaque    bool
}

// readers are the built-in functions that take SQL, or a table's name as a value, and read tables.
var readers = map[string]bool{
	"query_to_xml": true, "query_to_xmlschema": true, "query_to_xml_and_xmlschema": true,
	"table_to_xml": true, "table_to_xmlschema": true, "table_to_xml_and_xmlschema": true,
	"schema_to_xml": true, "schema_to_xmlschema": true, "schema_to_xml_and_xmlschema": true,
	"database_to_xml": true, "database_to_xmlschema": true, "database_to_xml_and_xmlschema": true,
	"cursor_to_xml": true, "cursor_to_xmlschema": true,
	"ts_stat": true, "ts_rewrite": true, "currtid2": true,
}

// ReadsTables tells whether the built-in function of that name may read tables that its argument
// names or queries (query_to_xml, ts_stat, …).
func ReadsTables(name string) bool { return readers[name] }

// sqlExtensions have C functions that run SQL or read tables named by an argument.
var sqlExtensions = map[string]bool{
	"dblink": true, "postgres_fdw": true, "file_fdw": true, "tablefunc": true, "xml2": true,
	"refint": true, "autoinc": true, "pgrowlocks": true, "pgstattuple": true, "pageinspect": true,
	"pg_visibility": true, "amcheck": true, "pg_freespacemap": true, "pg_cron": true,
	"pg_partman": true, "timescaledb": true, "citus": true, "postgis_topology": true,
	"dict_xsyn": false,
}

// node is a function or a relation in the graph of what reaches what.
type node struct {
	self   *directory.TableName // a relation's own name
	edges  []int
	bare   map[int]certainty // of edges to relations that are named without their schemas
	reach  map[int]certainty // nodes of the relations reached
	opaque bool
	sets   bool // changes settings of the session
}

// certainty says how sure it is that a relation is reached: as sure as the best way to it.
type certainty uint8

const (
	unlikely certainty = iota + 1 // named without its schema, in code that has a search path of its own, which does not lead there
	perhaps                       // named without its schema: the search path says whether it is meant
	sure
)

type graph struct {
	names     *nameIndex
	nodes     []node
	byName    map[directory.TableName]int
	functionN map[uint32]int // by the function's OID
	ambient   int
}

// taint fills Reaches, Reaches and Opaque: the least fixpoint of "mentions" over the texts of all user
// functions, triggers, policies, checks, defaults and views.
//
// Invariant: an over-approximation. Whatever a call can reach by a name that stands in its text, in
// any schema, is counted.
func (s *Snapshot) taint() {
	g := s.newGraph()
	s.addRelationEdges(g)
	s.addFunctionEdges(g)
	g.solve()
	for _, r := range s.users {
		i := g.byName[r.Name]
		r.Reach, r.Opaque = g.result(i, &r.Name)
		r.Sets = g.nodes[i].sets
	}
	for id, i := range g.functionN {
		f := s.functionsByID[id]
		f.Reach, f.Opaque = g.result(i, nil)
		f.Sets = g.nodes[i].sets
	}
	ambient, opaque := g.result(g.ambient, nil)
	s.ambient.relations, s.ambient.opaque = ambient.Reaches, opaque
	for _, overloads := range s.functions {
		for _, f := range overloads {
			if f.Builtin() && readers[f.Name] && !f.Opaque { // those that several snapshots share are not written
				f.Opaque = true
			}
		}
	}
}

func (s *Snapshot) newGraph() *graph {
	g := &graph{
		names:  s.names,
		byName: make(map[directory.TableName]int), functionN: make(map[uint32]int),
	}
	g.ambient = g.add(nil)
	for _, r := range s.users {
		g.byName[r.Name] = g.add(&r.Name)
	}
	for _, overloads := range s.functions {
		for _, f := range overloads {
			if !f.Builtin() {
				g.functionN[f.OID] = g.add(nil)
			}
		}
	}
	// Casts and domain checks run where no text mentions them.
	for _, cast := range s.casts {
		if i, ok := g.functionN[cast.Function]; ok {
			g.edge(g.ambient, i)
		}
	}
	for _, t := range s.typesByID {
		for _, check := range t.Checks {
			g.mentionExpression(g.ambient, check)
		}
	}
	return g
}

func (s *Snapshot) addRelationEdges(g *graph) {
	for _, r := range s.users {
		i := g.byName[r.Name]
		g.edge(i, g.ambient)
		for _, names := range [][]directory.TableName{r.DependsOn, r.Parents, r.Children, s.cascades(r)} {
			for _, name := range names {
				g.edgeTo(i, name)
			}
		}
		for _, fk := range r.ForeignKeys {
			g.edgeTo(i, fk.References)
		}
		for _, trigger := range r.Triggers {
			if f, ok := g.functionN[trigger.Function]; ok {
				g.edge(i, f)
			}
			g.mentionExpression(i, triggerCondition(trigger.Definition))
		}
		for _, policy := range r.Policies {
			g.mentionExpression(i, policy.Using)
			g.mentionExpression(i, policy.WithCheck)
		}
		for _, check := range r.Checks {
			g.mentionExpression(i, check.Expression)
		}
		for c := range r.Columns {
			g.mentionExpression(i, r.Columns[c].Default)
		}
		g.mentionFunctions(i, r.Definition)
		if len(r.Rules) > 0 {
			g.nodes[i].opaque = true
		}
	}
}

// cascades are the tables that a write of the relation may write through their foreign keys. NO ACTION and
// RESTRICT only look at them.
func (s *Snapshot) cascades(r *Relation) []directory.TableName {
	var names []directory.TableName
	for _, name := range r.ReferencedBy {
		other := s.relations[name]
		if other != nil && slices.ContainsFunc(other.ForeignKeys, func(fk ForeignKey) bool {
			return fk.References == r.Name && (strings.IndexByte("cnd", fk.OnDelete) >= 0 || strings.IndexByte("cnd", fk.OnUpdate) >= 0)
		}) {
			names = append(names, name)
		}
	}
	return names
}

// triggerCondition cuts a trigger's definition down to its WHEN clause: the rest names the table and
// the function, which have edges of their own.
func triggerCondition(definition string) string {
	if at := strings.Index(definition, " WHEN ("); at >= 0 {
		return definition[at:]
	}
	return ""
}

func (s *Snapshot) addFunctionEdges(g *graph) {
	for id, i := range g.functionN {
		f := s.functionsByID[id]
		g.edge(i, g.ambient)
		switch f.Language {
		case "sql", "plpgsql":
			g.mention(i, f.Source, f.Path)
		case "internal":
			// The source is the name of the built-in.
			if readers[f.Source] {
				g.nodes[i].opaque = true
			}
			g.nodes[i].sets = f.Source == "set_config_by_name"
		case "c":
			if f.Extension == "" || sqlExtensions[f.Extension] {
				g.nodes[i].opaque = true
			}
			g.nodes[i].sets = f.Volatility == Volatile && strings.HasPrefix(f.Name, "set_") // set_limit of pg_trgm
		default:
			g.nodes[i].opaque = true
		}
		if f.Kind == 'a' || f.Kind == 'w' && f.Language == "internal" {
			// An aggregate's own language is internal; Source lists its support functions.
			g.mention(i, f.Source, nil)
		}
	}
}

func (g *graph) add(self *directory.TableName) int {
	g.nodes = append(g.nodes, node{self: self})
	return len(g.nodes) - 1
}

func (g *graph) edge(from, to int) {
	if from != to && !slices.Contains(g.nodes[from].edges, to) {
		g.nodes[from].edges = append(g.nodes[from].edges, to)
	}
}

// named is an edge to a relation that a text names.
func (g *graph) named(from, to int, how certainty) {
	n := &g.nodes[from]
	was, weak := n.bare[to]
	switch {
	case how == sure || slices.Contains(n.edges, to) && !weak:
		delete(n.bare, to)
	default:
		if n.bare == nil {
			n.bare = make(map[int]certainty)
		}
		n.bare[to] = max(how, was)
	}
	g.edge(from, to)
}

func (g *graph) edgeTo(from int, name directory.TableName) {
	if to, ok := g.byName[name]; ok {
		g.edge(from, to)
	}
}

// mention adds edges to every relation, function and operator that the text of a function names. path is its own search path, if it has one.
func (g *graph) mention(from int, text string, path []string) {
	if strings.HasPrefix(text, "CREATE OR REPLACE ") { // printed, from SQL standard form: names were resolved when it was created
		g.scan(from, text, true, surely)
		return
	}
	g.scan(from, text, true, func(r *Relation) certainty {
		switch {
		case path == nil || slices.Contains(path, "$user"):
			return perhaps
		case slices.Contains(path, r.Name.Schema):
			return sure
		}
		return unlikely
	})
}

func surely(*Relation) certainty { return sure }

// mentionFunctions is mention for a text whose relations are known exactly.
func (g *graph) mentionFunctions(from int, text string) { g.scan(from, text, false, nil) }

// mentionExpression is mention for an expression as Postgres prints it: a word in it is a relation only
// if there is a subquery (else a column that is named like a table would taint).
func (g *graph) mentionExpression(from int, text string) {
	g.scan(from, text, hasSubquery(text), surely)
}

func hasSubquery(expression string) bool { return strings.Contains(expression, "SELECT") }

// scan adds what a text names. unqualified says how sure it is that a relation is meant which is named without its schema.
func (g *graph) scan(from int, text string, relations bool, unqualified func(*Relation) certainty) {
	if text == "" {
		return
	}
	m := g.names.scan(text)
	if relations {
		for _, r := range m.relations {
			how := sure
			if m.bare[r] {
				how = unqualified(r)
			}
			g.named(from, g.byName[r.Name], how)
		}
	}
	for _, f := range m.functions {
		g.edge(from, g.functionN[f.OID])
	}
	if m.reader || m.dynamic && relations {
		g.nodes[from].opaque = true
	}
	g.nodes[from].sets = g.nodes[from].sets || m.sets
}

// solve propagates along the edges until nothing changes.
func (g *graph) solve() {
	callers := make([][]int, len(g.nodes))
	var work []int
	for i := range g.nodes {
		g.nodes[i].reach = make(map[int]certainty)
		if g.nodes[i].self != nil {
			g.nodes[i].reach[i] = sure
		}
		for _, to := range g.nodes[i].edges {
			callers[to] = append(callers[to], i)
		}
		work = append(work, i)
	}
	for len(work) > 0 {
		i := work[len(work)-1]
		work = work[:len(work)-1]
		for _, caller := range callers[i] {
			if g.merge(caller, i) {
				work = append(work, caller)
			}
		}
	}
}

func (g *graph) merge(into, from int) bool {
	changed := false
	if g.nodes[from].opaque && !g.nodes[into].opaque {
		g.nodes[into].opaque, changed = true, true
	}
	if g.nodes[from].sets && !g.nodes[into].sets {
		g.nodes[into].sets, changed = true, true
	}
	for relation, how := range g.nodes[from].reach {
		if weak, ok := g.nodes[into].bare[from]; ok {
			how = min(how, weak) // what a table leads to is no surer than the table
		}
		if how > g.nodes[into].reach[relation] {
			g.nodes[into].reach[relation], changed = how, true
		}
	}
	return changed
}

// result is what a node reaches besides itself.
func (g *graph) result(i int, self *directory.TableName) (r Reach, opaque bool) {
	for relation, how := range g.nodes[i].reach {
		name := *g.nodes[relation].self
		if self != nil && name == *self {
			continue
		}
		r.Reaches = append(r.Reaches, name)
		switch how {
		case perhaps:
			r.Perhaps = append(r.Perhaps, name)
		case unlikely:
			r.Unlikely = append(r.Unlikely, name)
		}
	}
	for _, list := range [][]directory.TableName{r.Reaches, r.Perhaps, r.Unlikely} {
		slices.SortFunc(list, compareNames)
	}
	return r, g.nodes[i].opaque
}

// TextReach is what running an SQL text may touch: every relation and function that it names, as for a
// function's body, and what those reach.
func (s *Snapshot) TextReach(text string) (relations []directory.TableName, opaque bool) {
	return s.reachOf(text, true)
}

// ExpressionReach is what evaluating an expression may touch, given as Postgres prints it (pg_get_expr,
// pg_get_constraintdef): a default, a CHECK, a policy.
func (s *Snapshot) ExpressionReach(expression string) (relations []directory.TableName, opaque bool) {
	return s.reachOf(expression, hasSubquery(expression))
}

func (s *Snapshot) reachOf(text string, relations bool) ([]directory.TableName, bool) {
	m := s.names.scan(text)
	opaque := s.ambient.opaque || m.reader || m.dynamic && relations
	found := slices.Clone(s.ambient.relations)
	for _, f := range m.functions {
		found = append(found, f.Reaches...)
		opaque = opaque || f.Opaque
	}
	if relations {
		for _, r := range m.relations {
			found = append(found, r.Name)
			found = append(found, r.Reaches...)
			opaque = opaque || r.Opaque
		}
	}
	slices.SortFunc(found, compareNames)
	return slices.Compact(found), opaque
}

// Named returns the user functions and types that a text may name: what its code needs to run.
func (s *Snapshot) Named(text string) ([]*Function, []*Type) {
	m := s.names.scan(text)
	return m.functions, m.types
}
