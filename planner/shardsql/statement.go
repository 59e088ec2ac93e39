package shardsql

// Statement is one sharding statement: *ShardTable, *PinTable,
// *ReferenceTable, *DirectoryTable, *AlterShardTable, *UnshardTable,
// *ShardFunction, *AssignEntries, *ShowShards, *ShowTables, *ShowPartitions,
// *ShowEntries or *ShowTransactions.
type Statement interface{ statement() }

// Name is a name as the user wrote it, folded as Postgres folds it.
type Name struct {
	Schema   string // "" when not given: resolve by the search path
	Name     string
	Position int // 1-based character in the statement's text
}

// Method is how a key is mapped to partitions.
type Method string

// The methods of BY. DIRECTORY has a statement of its own.
const (
	MethodRange Method = "range"
	MethodList  Method = "list"
	MethodHash  Method = "hash"
)

// LiteralKind tells how a literal was written; its type is the column's.
type LiteralKind uint8

// The kinds of literal in a partition's bounds.
const (
	LiteralNumber   LiteralKind = iota + 1 // Text has the sign, and is as written otherwise
	LiteralString                          // Text is the decoded value
	LiteralNull                            // NULL
	LiteralBool                            // Text is true or false
	LiteralMaxValue                        // MAXVALUE, in LessThan only
)

// Literal is one value of a partition's bounds, not yet typed.
type Literal struct {
	Kind     LiteralKind
	Text     string
	Position int // 1-based character in the statement's text
}

// Column is a key column.
type Column struct {
	Name     string
	Position int
}

// PartitionDef is one partition of RANGE or LIST.
type PartitionDef struct {
	Name              string
	Position          int
	LessThan          []Literal   // RANGE: one for each key column
	In                [][]Literal // LIST: one tuple for each value, each as long as the key
	Default           bool        // LIST: takes every value that no other partition takes
	Placement         string      // shard; "" when not given
	PlacementPosition int
	Subpartitions     []SubpartitionDef // named subpartitions, in order; nil when not given
}

// SubpartitionDef is one named hash subpartition of a partition.
type SubpartitionDef struct {
	Name              string
	Position          int
	Placement         string
	PlacementPosition int
}

// ShardTable is SHARD TABLE t BY ….
type ShardTable struct {
	Table         Name
	Method        Method
	Key           []Column
	SubMethod     Method // "" or MethodHash
	SubKey        []Column
	Partitions    int // number of partitions: PARTITIONS n or the length of Defs; 0 when neither is given
	Subpartitions int // of each partition: SUBPARTITIONS n or those named; 0 when neither is given
	// Defs are the partitions of RANGE and LIST, in order, and as many as
	// Partitions says. Nil for HASH, and with Colocate.
	Defs        []PartitionDef
	Colocate    *Name // COLOCATE WITH
	UniqueLocal bool  // UNIQUE LOCAL
}

// PinTable is SHARD TABLE t ON shard.
type PinTable struct {
	Table         Name
	Shard         string
	ShardPosition int
}

// ReferenceTable is SHARD TABLE t AS REFERENCE.
type ReferenceTable struct{ Table Name }

// Assign says who places a key that a directory does not know.
type Assign string

// The ways to assign.
const (
	AssignNone        Assign = ""
	AssignRoundRobin  Assign = "round robin"
	AssignLeastLoaded Assign = "least loaded"
	AssignHash        Assign = "hash"
)

// DirectoryTable is SHARD TABLE t BY DIRECTORY (…).
type DirectoryTable struct {
	Table          Name
	Key            []Column
	Assign         Assign
	AssignPosition int      // of ASSIGN; 0 when it is not given
	Shards         []Column // ON (shard, …): those that may hold keys; nil when not given
	Colocate       *Name
	UniqueLocal    bool
}

// AssignEntries is ALTER SHARD TABLE t ASSIGN (value, …), … TO shard.
type AssignEntries struct {
	Table         Name
	Keys          [][]Literal // at most 100
	Shard         string
	ShardPosition int
}

// ShowEntries is SHOW ENTRIES FROM t, with FOR (value, …): of one key; or with AFTER (value, …): those behind a key.
type ShowEntries struct {
	Table      Name
	For, After []Literal // nil when not given
	Limit      int       // LIMIT n; DefaultEntries when not given
}

// AlterShardTable is ALTER SHARD TABLE t …: either PARTITION p PLACEMENT
// POLICY = shard (a move; Into is nil) or REORGANIZE PARTITION p, … INTO (…)
// (a split or a merge). The method of the table is not known here: Into may
// hold RANGE bounds and LIST values, each as many as the user wrote.
type AlterShardTable struct {
	Table             Name
	Partitions        []Column // the partitions named, one for a placement
	Placement         string
	PlacementPosition int
	Into              []PartitionDef
}

// UnshardTable is UNSHARD TABLE t.
type UnshardTable struct{ Table Name }

// ShardFunction is SHARD FUNCTION f BY (arg, …) COLOCATE WITH t.
type ShardFunction struct {
	Function  Name
	Arguments []Column
	Colocate  Name
}

// ShowShards is SHOW SHARDS.
type ShowShards struct{}

// ShowTables is SHOW TABLES.
type ShowTables struct{}

// ShowTransactions is SHOW TRANSACTIONS.
type ShowTransactions struct{}

// ShowPartitions is SHOW PARTITIONS FROM t.
type ShowPartitions struct{ Table Name }

func (*ShardTable) statement()       {}
func (*PinTable) statement()         {}
func (*ReferenceTable) statement()   {}
func (*DirectoryTable) statement()   {}
func (*AlterShardTable) statement()  {}
func (*UnshardTable) statement()     {}
func (*ShardFunction) statement()    {}
func (*ShowShards) statement()       {}
func (*ShowTables) statement()       {}
func (*ShowPartitions) statement()   {}
func (*ShowTransactions) statement() {}
func (*ShowEntries) statement()      {}
func (*AssignEntries) statement()    {}
