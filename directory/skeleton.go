package directory

type (
	// Batch performs several changes in one epoch.
	Batch []Change
	// AddShard adds a shard.
	AddShard struct{ Shard Shard }
	// UpdateShard replaces the endpoints and the state of a shard.
	UpdateShard struct{ Shard Shard }
	// RemoveShard removes a shard that holds nothing and is not the home shard.
	RemoveShard struct{ ID ShardID }
	// AddTable adds a sharded table with a group of its own.
	AddTable struct {
		Group Group
		Table Table
	}
	// ColocateTable adds a sharded table to the group that Table.Group names.
	ColocateTable struct{ Table Table }
	// PinTable puts an unsharded table on a shard.
	PinTable struct {
		Table       TableName
		Shard       ShardID
		UniqueLocal []string
		Hold        *Hold
	}
	// DropTable removes a table, and its group when it was the last of it.
	DropTable struct{ Table TableName }
	// RenameTable gives a table another name.
	RenameTable struct{ Table, To TableName }
	// SetHold holds a table.
	SetHold struct {
		Table TableName
		Hold  Hold
	}
	// DecideHold decides a hold.
	DecideHold struct {
		Table TableName
		ID    string
	}
	// ClearHold ends a hold.
	ClearHold struct {
		Table TableName
		ID    string
	}
	// BumpCatalog raises the catalog version.
	BumpCatalog struct{}
	// SetPlacement moves the entry of a partition to a shard.
	SetPlacement struct {
		Group     GroupID
		Partition string
		Shard     ShardID
	}
	// SplitPartition replaces one partition by several.
	SplitPartition struct {
		Group     GroupID
		Partition string
		Into      []Partition
	}
	// MergePartitions replaces several partitions by one.
	MergePartitions struct {
		Group      GroupID
		Partitions []string
		Into       Partition
	}
)

func (Batch) Apply(m *Map) (*Map, error)           { return m, nil }
func (AddShard) Apply(m *Map) (*Map, error)        { return m, nil }
func (UpdateShard) Apply(m *Map) (*Map, error)     { return m, nil }
func (RemoveShard) Apply(m *Map) (*Map, error)     { return m, nil }
func (AddTable) Apply(m *Map) (*Map, error)        { return m, nil }
func (ColocateTable) Apply(m *Map) (*Map, error)   { return m, nil }
func (PinTable) Apply(m *Map) (*Map, error)        { return m, nil }
func (DropTable) Apply(m *Map) (*Map, error)       { return m, nil }
func (RenameTable) Apply(m *Map) (*Map, error)     { return m, nil }
func (SetHold) Apply(m *Map) (*Map, error)         { return m, nil }
func (DecideHold) Apply(m *Map) (*Map, error)      { return m, nil }
func (ClearHold) Apply(m *Map) (*Map, error)       { return m, nil }
func (BumpCatalog) Apply(m *Map) (*Map, error)     { return m, nil }
func (SetPlacement) Apply(m *Map) (*Map, error)    { return m, nil }
func (SplitPartition) Apply(m *Map) (*Map, error)  { return m, nil }
func (MergePartitions) Apply(m *Map) (*Map, error) { return m, nil }
