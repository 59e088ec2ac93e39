package planner

import (
	"strings"

	"github.com/shardyard/shardyard/planner/catalog"
)

// builtinOperators are the operator names of Postgres itself: one of these with built-in types is meant far more
// often than a user's own of the same name.
const builtinOperators = " = <> < <= > >= + - * / % ^ | & # ~ << >> || ! !! @ |/ ||/ ~~ !~~ ~~* !~~* ~* !~ !~* -> ->> #> #>> " +
	"@> <@ ? ?| ?& && -|- &< &> <<| |>> |&> &<| <-> @@ @@@ ~= ## ?- ?-| ?|| @-@ <^ >^ ^@ #- @? <<= >>= "

// noteHomeOnly remembers the first function, operator, collation or type that a shard other than the home shard does
// not have: a statement that names it cannot run there.
func (a *analysis) noteHomeOnly(m message) {
	if a.homeOnly != "" || !a.env.Catalog.AnyHomeOnly() {
		return
	}
	var kind catalog.ObjectKind
	var list []*node
	var at int32
	switch m := m.(type) {
	case *funcCall:
		kind, list, at = catalog.FunctionObject, m.Funcname, m.Location
	case *operation:
		kind, list, at = catalog.OperatorObject, m.Name, m.Location
	case *collateClause:
		kind, list, at = catalog.CollationObject, m.Collname, m.Location
	case *typeNameNode:
		kind, list, at = catalog.TypeObject, m.Names, m.Location
	default:
		return
	}
	parts, ok := names(list)
	if !ok || len(parts) == 0 || len(parts) > 1 && parts[0] == "pg_catalog" {
		return
	}
	schema, name := "", parts[len(parts)-1]
	if len(parts) > 1 {
		schema = parts[len(parts)-2]
	}
	if kind == catalog.OperatorObject && len(parts) == 1 && strings.Contains(builtinOperators, " "+name+" ") {
		return
	}
	if a.env.Catalog.HomeOnly(kind, schema, name, a.path) {
		a.homeOnly, a.homeOnlyP = kind.String()+" "+name, int(at)
	}
}
