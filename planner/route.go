package planner

import "github.com/shardyard/shardyard/directory"

// RouteKind says where a statement goes.
type RouteKind uint8

// The kinds of routes.
const (
	RouteNone    RouteKind = iota // no shard at all: the router answers by itself
	RouteHome                     // the home shard
	RouteShard                    // the fixed shard Route.Shard
	RouteFilters                  // the shards that Route.Filters leave
	RouteAny                      // any one shard: only reference tables are read
)

// Route says how the shards of a statement follow from its literals and parameters.
type Route struct {
	Kind  RouteKind
	Shard directory.ShardID
	// Filters has one entry for each reference to a sharded table (equal ones are kept
	// once): the shards are the union of what they leave.
	Filters []Filter
	// Also is a shard that joins the union whatever the values: that of a pinned table. Empty if none.
	Also directory.ShardID

	fixed []directory.ShardID // the only shard of RouteHome and RouteShard
}

// Filter says which rows of one reference to a sharded table can matter.
type Filter struct {
	Table directory.TableName
	Group directory.GroupID
	// Key and Sub are the key columns of the table in the map's order.
	Key, Sub []KeyColumn
	// Any holds alternatives: a row matters if it satisfies one of them. Empty means every row.
	Any []Alternative
	// Stored marks an INSERT: the values are coerced by assignment and every one must have a partition.
	Stored bool
}

// KeyColumn is one column of a table's shard key.
type KeyColumn struct {
	Name   string
	Type   directory.KeyType
	Typmod int32
}

// Alternative is a conjunction: one condition for each key column, then for each column of the subkey.
type Alternative struct {
	Columns []Condition
}

// Condition restricts one key column; the zero Condition does not.
type Condition struct {
	In             []ValueRef // equal to one of these
	Lo, Hi         *ValueRef
	LoOpen, HiOpen bool
}

// RefKind says where a value comes from.
type RefKind uint8

// The sources of values.
const (
	RefConst    RefKind = iota // ValueRef.Const, known when the plan was made
	RefLiteral                 // a literal of the statement's text
	RefParam                   // a parameter of the extended protocol
	RefSupplied                // Args.Supplied[Param]: computed by a shard for this execution
)

// ValueRef names a value that is known only when a statement runs.
type ValueRef struct {
	Kind RefKind
	// Const is the value of RefConst.
	Const directory.Value
	// Literal is the ordinal of the literal in the lexer's list; Negative says that a minus sign
	// stands in front of it.
	Literal  int
	Negative bool
	// Param is the number of the parameter, from 1.
	Param int
	// Type is the type that the text of the literal or the bytes of the parameter are read as.
	Type directory.KeyType
	// Array marks an array of Type: = ANY (…).
	Array bool
	// Null is a literal NULL.
	Null bool
	// Inferred marks a parameter whose type the client left open, and Unsure one of which it is not
	// certain either that Postgres gives it Type (unless Args.Types says so). An Unsure constant is
	// one whose value depends on something that we do not know.
	Inferred, Unsure bool
	// Invalid is a constant that no Postgres accepts: any shard gives the error.
	Invalid bool
}
