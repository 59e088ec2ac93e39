package directory

import "fmt"

// Epoch counts the versions of a database's map. It starts at 1 and each change
// adds one.
type Epoch uint64

// Map is the complete description of where one database's rows live. It is
// immutable once [NewMap], [Decode] or a [Change] has given it: read it from any
// goroutine, never write to it or to what it points to.
type Map struct {
	ClusterID      string
	Database       string
	Epoch          Epoch
	CatalogVersion uint64 // raised by DDL: catalogs read under an older one are stale
	Shards         []Shard
	Home           ShardID // where tables live that are not in the map
	Groups         []Group
	Tables         []Table
	Moves          []Move
	Drop           *Drop // the database is being dropped; nil: it is not

	shards map[ShardID]int
	groups map[GroupID]int
	tables map[TableName]int
	// holders are the shards that hold anything, in the order of Shards.
	holders []Shard
}

// NewMap checks the contents and gives an immutable map with its index. It takes
// over what the contents point to: do not write to that afterwards.
func NewMap(contents Map) (*Map, error) {
	if err := Check(&contents); err != nil {
		return nil, fmt.Errorf("check map of database %q: %w", contents.Database, err)
	}
	m := contents
	m.buildIndex(nil)
	return &m, nil
}

// buildIndex fills the maps and the groups' indexes. It copies the slice of
// groups, since it writes into it. Groups of which unchanged is true keep the
// index that they have.
func (m *Map) buildIndex(unchanged func(GroupID) bool) {
	m.shards = make(map[ShardID]int, len(m.Shards))
	for i := range m.Shards {
		m.shards[m.Shards[i].ID] = i
	}
	groups := make([]Group, len(m.Groups))
	copy(groups, m.Groups)
	m.Groups = groups
	m.groups = make(map[GroupID]int, len(m.Groups))
	for i := range m.Groups {
		g := &m.Groups[i]
		m.groups[g.ID] = i
		if g.index == nil || unchanged == nil || !unchanged(g.ID) {
			g.index = newGroupIndex(g)
		}
	}
	m.tables = make(map[TableName]int, len(m.Tables))
	for i := range m.Tables {
		m.tables[m.Tables[i].Name] = i
	}
	holds := map[ShardID]bool{m.Home: true}
	for i := range m.Tables {
		for _, id := range m.ShardsOf(&m.Tables[i]) {
			holds[id] = true
		}
	}
	m.holders = nil
	for _, shard := range m.Shards {
		if holds[shard.ID] {
			m.holders = append(m.holders, shard)
		}
	}
}

// Holders gives the shards that hold anything of the database: the home shard and those of the tables in the map. On
// the others the database need not even exist. The slice belongs to the map: do not change it.
func (m *Map) Holders() []Shard { return m.holders }

// Table gives the table of that name; false when it is not in the map, that is
// when it lives on the home shard and nothing holds it.
func (m *Map) Table(n TableName) (*Table, bool) {
	i, ok := m.tables[n]
	if !ok {
		return nil, false
	}
	return &m.Tables[i], true
}

// Group gives the group with that ID.
func (m *Map) Group(id GroupID) (*Group, bool) {
	i, ok := m.groups[id]
	if !ok {
		return nil, false
	}
	return &m.Groups[i], true
}

// Shard gives the shard with that name.
func (m *Map) Shard(id ShardID) (*Shard, bool) {
	i, ok := m.shards[id]
	if !ok {
		return nil, false
	}
	return &m.Shards[i], true
}

// AnythingSharded reports whether statements of this database must be planned:
// whether a table is sharded, pinned to a shard or held. While it is false
// everything is relayed to the home shard.
func (m *Map) AnythingSharded() bool { return len(m.Tables) > 0 }

// ShardsOf gives the shards that hold the table, without duplicates. The slice
// may belong to the map: do not change it.
func (m *Map) ShardsOf(t *Table) []ShardID {
	switch t.Kind {
	case TablePinned:
		return []ShardID{t.Shard}
	case TableReference:
		all := make([]ShardID, len(m.Shards))
		for i := range m.Shards {
			all[i] = m.Shards[i].ID
		}
		return all
	}
	g, ok := m.Group(t.Group)
	if !ok {
		return nil
	}
	return g.Shards()
}

// TablesOf gives the tables of a group, in the map's order.
func (m *Map) TablesOf(id GroupID) []*Table {
	var tables []*Table
	for i := range m.Tables {
		if t := &m.Tables[i]; t.Kind == TableSharded && t.Group == id {
			tables = append(tables, t)
		}
	}
	return tables
}
