package catalog

import "github.com/shardyard/shardyard/directory"

// RelKind is pg_class.relkind.
type RelKind byte

// The relation kinds of Postgres.
const (
	KindTable            RelKind = 'r'
	KindView             RelKind = 'v'
	KindMaterializedView RelKind = 'm'
	KindForeignTable     RelKind = 'f'
	KindPartitionedTable RelKind = 'p'
	KindSequence         RelKind = 'S'
	KindComposite        RelKind = 'c'
	KindIndex            RelKind = 'i'
	KindPartitionedIndex RelKind = 'I'
	KindToast            RelKind = 't'
)

// Noun is what Postgres's messages call a relation of this kind.
func (k RelKind) Noun() string {
	switch k {
	case KindTable:
		return "table"
	case KindView:
		return "view"
	case KindMaterializedView:
		return "materialized view"
	case KindForeignTable:
		return "foreign table"
	case KindPartitionedTable:
		return "partitioned table"
	case KindSequence:
		return "sequence"
	case KindComposite:
		return "composite type"
	case KindIndex, KindPartitionedIndex:
		return "index"
	case KindToast:
		return "TOAST table"
	}
	return "relation"
}

// Relation is one entry of pg_class. System relations (System is true) carry only their name, kind
// and OID, and indexes besides the table that they are on (OwnedBy); the other fields are those of user
// relations.
type Relation struct {
	OID         uint32 // on the home shard
	Name        directory.TableName
	Kind        RelKind
	Persistence byte // 'p' permanent, 'u' unlogged, 't' temporary
	Owner       string
	System      bool   // of pg_catalog, information_schema or pg_toast
	Extension   string // the extension it belongs to, or ""
	RowType     uint32 // OID of its composite type on the home shard, or 0

	Columns     []Column // in pg_attribute order, dropped ones included: Columns[i].Ordinal == i+1
	Keys        []Key    // primary key, unique constraints and indexes, exclusion constraints
	ForeignKeys []ForeignKey
	Checks      []Check
	Triggers    []Trigger // user triggers only
	Policies    []Policy
	RowSecurity bool
	ForceRLS    bool
	Rules       []string // names of rewrite rules other than a view's own _RETURN

	Definition string                // a view's or materialized view's query as pg_get_viewdef prints it
	DependsOn  []directory.TableName // relations that a view, materialized view or rule reads, transitively
	Parents    []directory.TableName // inheritance and partitioning, direct
	Children   []directory.TableName // the same, downwards
	OwnedBy    directory.TableName   // a sequence's owning table (serial, identity), an index's table, or zero

	// ReferencedBy names the tables with a foreign key to this one. Filled by New.
	ReferencedBy []directory.TableName
	// Placeholder: a foreign table of a wrapper without handler that stands for a table which lives
	// on another shard. Every access to it fails.
	Placeholder bool
	// Publications that contain the table.
	Publications []string

	// Reach is every user relation that a statement on this one may touch besides it: through
	// triggers, rules, policies, CHECKs, defaults, foreign keys, inheritance and a view's query. Filled by New.
	Reach
	// Opaque: something on that way runs code whose reach is unknown. Filled by New.
	Opaque bool
	// Sets: something on that way may change settings of the session. Filled by New.
	Sets bool
}

// Column is one entry of pg_attribute.
type Column struct {
	Name   string
	Type   uint32 // on the home shard
	Typmod int32  // -1: none
	// Declaration is the type with its modifier, and the collation if it is not the type's own, as CREATE TABLE has them; names
	// are qualified.
	Declaration string
	Ordinal     int // attnum; negative for system columns
	NotNull     bool
	Dropped     bool
	Generated   bool   // GENERATED ALWAYS AS (…) STORED
	Identity    byte   // 'a' ALWAYS, 'd' BY DEFAULT, 0 none
	HasDefault  bool   // a default or generation expression exists
	Default     string // that expression as pg_get_expr prints it
	// DefaultIsConst: the default is one constant whose value does not depend on settings;
	// DefaultValue is its text, DefaultIsNull that it is NULL.
	DefaultIsConst bool
	DefaultValue   string
	DefaultIsNull  bool
	// Sequence is what numbers the column: that of an identity column, or s where the default is nextval('s') and
	// nothing else. Zero: none.
	Sequence directory.TableName

	Collation              uint32 // 0: the type has none
	CollationDeterministic bool   // true also where there is no collation
	CollationIsC           bool   // C or POSIX: order is that of the bytes
}

// SystemColumn returns the hidden column of that name which every table has.
func SystemColumn(name string) (Column, bool) {
	col := Column{Name: name, Typmod: -1, NotNull: true, CollationDeterministic: true}
	switch name {
	case "tableoid":
		col.Type, col.Ordinal = 26, -6
	case "cmax":
		col.Type, col.Ordinal = 29, -5
	case "xmax":
		col.Type, col.Ordinal = 28, -4
	case "cmin":
		col.Type, col.Ordinal = 29, -3
	case "xmin":
		col.Type, col.Ordinal = 28, -2
	case "ctid":
		col.Type, col.Ordinal = 27, -1
	default:
		return Column{}, false
	}
	return col, true
}

// Column finds a column by name: a live one, or a system column of a relation that has them.
func (r *Relation) Column(name string) (*Column, bool) {
	for i := range r.Columns {
		if r.Columns[i].Name == name && !r.Columns[i].Dropped {
			return &r.Columns[i], true
		}
	}
	switch r.Kind {
	case KindTable, KindPartitionedTable, KindMaterializedView, KindForeignTable, KindSequence, KindToast:
		if col, ok := SystemColumn(name); ok {
			return &col, true
		}
	}
	return nil, false
}

// Live returns the columns that are not dropped, in order: what * stands for.
func (r *Relation) Live() []*Column {
	live := make([]*Column, 0, len(r.Columns))
	for i := range r.Columns {
		if !r.Columns[i].Dropped {
			live = append(live, &r.Columns[i])
		}
	}
	return live
}

// Key is a primary key, a unique constraint or index, or an exclusion constraint.
type Key struct {
	Name       string
	Columns    []string // plain columns; "" stands for an expression
	Primary    bool
	Exclusion  bool
	Constraint bool // false: only a unique index
	Deferrable bool
	Partial    bool // has a WHERE
	Valid      bool // indisvalid; an invalid unique index promises nothing about the rows there are
	// Operators of an exclusion constraint, one a column, by name.
	Operators []string
	// DefaultOperators: every column is compared by the default equality of its type (the opclass is
	// the default one and, for an exclusion constraint, the operator is that equality).
	DefaultOperators bool
}

// ForeignKey is one FOREIGN KEY constraint.
type ForeignKey struct {
	Name              string
	Columns           []string
	References        directory.TableName
	ReferencedColumns []string
	OnUpdate          byte // 'a' no action, 'r' restrict, 'c' cascade, 'n' set null, 'd' set default
	OnDelete          byte
	Match             byte // 's' simple, 'f' full
	Deferrable        bool
}

// Check is one CHECK constraint.
type Check struct {
	Name       string
	Expression string // as pg_get_constraintdef prints the constraint
}

// Trigger is one user trigger.
type Trigger struct {
	Name       string
	Function   uint32 // OID on the home shard
	Row        bool   // FOR EACH ROW; else statement-level
	Before     bool
	InsteadOf  bool
	Events     string // of "INSERT", "DELETE", "UPDATE", "TRUNCATE", joined by a comma
	Enabled    byte   // 'O' origin, 'D' disabled, 'R' replica, 'A' always
	Constraint bool
	Definition string // as pg_get_triggerdef prints it
}

// Policy is one row security policy; the expressions are as pg_get_expr prints them.
type Policy struct {
	Name       string
	Permissive bool
	Using      string
	WithCheck  string
}
