package directory

import (
	"fmt"
	"slices"
)

// AddTable adds a sharded table with a group of its own. It does not raise the
// catalog version; put it in a [Batch] with [BumpCatalog] where needed.
//
// A table that stands in the map only because a hold keeps it there (see
// [SetHold]), or that is pinned and held, is replaced when Table.Hold has the same
// ID: so the map flips while the hold stays.
type AddTable struct {
	Group Group
	Table Table // Kind defaults to TableSharded, Group to Group.ID
}

// Apply adds group and table.
func (c AddTable) Apply(m *Map) (*Map, error) {
	return m.edit("add table "+c.Table.Name.String(), func(d *draft) error {
		t := c.Table
		if t.Group == "" {
			t.Group = c.Group.ID
		}
		if t.Group != c.Group.ID {
			return fmt.Errorf("its group is %q, not the new group %q", t.Group, c.Group.ID)
		}
		for i := range c.Group.Partitions {
			if err := d.accepts(c.Group.Partitions[i].Shard); err != nil {
				return fmt.Errorf("partition %q: %w", c.Group.Partitions[i].Name, err)
			}
		}
		g := c.Group
		g.index = nil
		d.Groups = append(d.Groups, g)
		d.touched[g.ID] = true
		return d.addSharded(t)
	})
}

// ColocateTable adds a sharded table to the existing group that Table.Group
// names, with the same rule for held tables as [AddTable].
type ColocateTable struct {
	Table Table // Kind defaults to TableSharded
}

// Apply adds the table.
func (c ColocateTable) Apply(m *Map) (*Map, error) {
	return m.edit("add table "+c.Table.Name.String(), func(d *draft) error { return d.addSharded(c.Table) })
}

func (d *draft) addSharded(t Table) error {
	if t.Kind == "" {
		t.Kind = TableSharded
	}
	if t.Kind != TableSharded {
		return fmt.Errorf("its kind is %q", t.Kind)
	}
	return d.putTable(t)
}

// putTable adds a table or replaces one that is pinned and held by the same hold.
func (d *draft) putTable(t Table) error {
	old, ok := d.table(t.Name)
	if !ok {
		d.Tables = append(d.Tables, t)
		return nil
	}
	if old.Kind != TablePinned {
		return fmt.Errorf("the table is %s already", old.Kind)
	}
	if old.Hold == nil {
		return fmt.Errorf("the table is pinned to shard %s already", old.Shard)
	}
	if t.Hold == nil || t.Hold.ID != old.Hold.ID {
		return fmt.Errorf("hold %q of %s (%s): %w", old.Hold.ID, old.Hold.Owner, old.Hold.Reason, ErrHeld)
	}
	if old.Hold.Decided && !t.Hold.Decided {
		return fmt.Errorf("hold %q is decided and cannot be undecided", old.Hold.ID)
	}
	*old = t
	return nil
}

// PinTable puts an unsharded table whole on a shard, with the same rule for held
// tables as [AddTable]. To the home shard it can be pinned only with a hold: the
// table leaves the map when the hold is cleared.
type PinTable struct {
	Table TableName
	Shard ShardID
	Hold  *Hold
}

// Apply adds the table.
func (c PinTable) Apply(m *Map) (*Map, error) {
	return m.edit("pin table "+c.Table.String(), func(d *draft) error {
		if err := d.accepts(c.Shard); err != nil {
			return err
		}
		return d.putTable(Table{Name: c.Table, Kind: TablePinned, Shard: c.Shard, Hold: c.Hold})
	})
}

// AddReference makes a table a reference table, with the same rule for held tables
// as [AddTable]. The copies must stand on all shards.
type AddReference struct {
	Table Table // Kind and Shard default to those of a reference table
	// Copies are the shards that have the table.
	Copies []ShardID
}

// Apply adds the table; ErrNoCopy when a shard lacks it.
func (c AddReference) Apply(m *Map) (*Map, error) {
	return m.edit("add reference table "+c.Table.Name.String(), func(d *draft) error {
		t := c.Table
		if t.Kind == "" {
			t.Kind = TableReference
		}
		if t.Kind != TableReference {
			return fmt.Errorf("its kind is %q", t.Kind)
		}
		if t.Shard == "" {
			t.Shard = d.Home
		}
		for i := range d.Shards {
			if !slices.Contains(c.Copies, d.Shards[i].ID) {
				return fmt.Errorf("shard %s: %w", d.Shards[i].ID, ErrNoCopy)
			}
		}
		return d.putTable(t)
	})
}

// DropTable removes a table from the map, and its group when it was the last
// table of it. What the shards hold of it is not its concern.
type DropTable struct {
	Table  TableName
	HoldID string // the hold under which the table is dropped, "" for none
}

// Apply removes the table; ErrHeld when another change holds it.
func (c DropTable) Apply(m *Map) (*Map, error) {
	return m.edit("drop table "+c.Table.String(), func(d *draft) error {
		if _, err := d.heldBy(c.Table, c.HoldID); err != nil {
			return err
		}
		d.removeTable(c.Table)
		return nil
	})
}

// RenameTable gives a table another name or schema.
type RenameTable struct {
	Table, To TableName
	HoldID    string // the hold under which the table is renamed, "" for none
}

// Apply renames the table; ErrHeld when another change holds it.
func (c RenameTable) Apply(m *Map) (*Map, error) {
	return m.edit("rename table "+c.Table.String(), func(d *draft) error {
		t, err := d.heldBy(c.Table, c.HoldID)
		if err != nil {
			return err
		}
		t.Name = c.To
		return nil
	})
}

// heldBy gives the table, provided that no other hold than the given one holds it.
func (d *draft) heldBy(name TableName, holdID string) (*Table, error) {
	t, ok := d.table(name)
	if !ok {
		return nil, ErrNoTable
	}
	if t.Hold != nil && t.Hold.ID != holdID {
		return nil, fmt.Errorf("hold %q of %s (%s): %w", t.Hold.ID, t.Hold.Owner, t.Hold.Reason, ErrHeld)
	}
	if t.Hold == nil && holdID != "" {
		return nil, fmt.Errorf("hold %q: %w", holdID, ErrNotHeld)
	}
	return t, nil
}
