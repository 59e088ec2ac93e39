package directory

// TableName is a table's qualified name.
type TableName struct {
	Schema, Name string
}

// String gives schema.name with each part quoted as Postgres's quote_ident would.
func (n TableName) String() string {
	return QuoteIdentifier(n.Schema) + "." + QuoteIdentifier(n.Name)
}

// TableKind says how a table of the map is distributed. A table that is not in
// the map lives whole on the home shard.
type TableKind string

// The kinds of tables. A reference table has a full copy on every shard.
const (
	TableSharded   TableKind = "sharded"
	TablePinned    TableKind = "pinned"
	TableReference TableKind = "reference"
)

// Table is one table that the map knows of.
type Table struct {
	Name TableName
	Kind TableKind

	// Of a sharded table:
	Group         GroupID
	Key, SubKey   []string  // column names, in the order of the group's key
	KeyTypes      []KeyType // the columns' own types, of the same families as the group's
	SubKeyTypes   []KeyType
	KeyTypmods    []int32  // pg_attribute.atttypmod of the key's columns, -1 for none; nil means none has one
	SubKeyTypmods []int32  // the same for the subpartition key
	UniqueLocal   []string // constraints and indexes declared UNIQUE LOCAL: unique within a shard only

	// Shard is where a pinned table lives: the home shard only while it is held. Of a
	// reference table it is the home shard, which is its authority: where it is written.
	Shard ShardID

	// Of a reference table: Key is the columns of a unique key that tells its rows apart
	// (there are no KeyTypes), and Mirror names its mirror on the shards, for ever.
	Mirror string

	Hold *Hold // set while the table is being changed
}

// KeyTypmod gives the type modifier of key column i, -1 for none; use it with
// KeyTypes[i] for [Coerce].
func (t *Table) KeyTypmod(i int) int32 { return typmodAt(t.KeyTypmods, i) }

// SubKeyTypmod is KeyTypmod for the subpartition key.
func (t *Table) SubKeyTypmod(i int) int32 { return typmodAt(t.SubKeyTypmods, i) }

func typmodAt(typmods []int32, i int) int32 {
	if typmods == nil {
		return -1
	}
	return typmods[i]
}
