package directory

import "fmt"

// SetHold holds a table, see [Hold]. A table that is not in the map is entered as
// pinned to the home shard, where it lives, until the hold is cleared. A hold of
// the same ID is replaced, for example to note the transactions.
type SetHold struct {
	Table TableName
	Hold  Hold
}

// Apply holds the table; ErrHeld when another change holds it.
func (c SetHold) Apply(m *Map) (*Map, error) {
	return m.edit("hold table "+c.Table.String(), func(d *draft) error {
		if d.Drop != nil {
			return fmt.Errorf("router %s drops the database: %w", d.Drop.Owner, ErrHeld)
		}
		hold := c.Hold
		t, ok := d.table(c.Table)
		if !ok {
			d.Tables = append(d.Tables, Table{Name: c.Table, Kind: TablePinned, Shard: d.Home, Hold: &hold})
			return nil
		}
		if old := t.Hold; old != nil {
			if old.ID != hold.ID {
				return fmt.Errorf("hold %q of %s (%s): %w", old.ID, old.Owner, old.Reason, ErrHeld)
			}
			if old.Decided && !hold.Decided {
				return fmt.Errorf("hold %q is decided and cannot be undecided", old.ID)
			}
		}
		t.Hold = &hold
		return nil
	})
}

// NoteHold replaces a hold by what is known of it now; its ID stays.
type NoteHold struct {
	Table TableName
	Hold  Hold
}

// Apply replaces the hold; ErrNotHeld when it is not there any more, ErrHeld when the table is held by another.
func (c NoteHold) Apply(m *Map) (*Map, error) {
	return m.edit("note change of table "+c.Table.String(), func(d *draft) error {
		t, err := d.held(c.Table, c.Hold.ID)
		if err != nil {
			return err
		}
		if t.Hold.Decided && !c.Hold.Decided {
			return fmt.Errorf("hold %q is decided and cannot be undecided", c.Hold.ID)
		}
		hold := c.Hold
		t.Hold = &hold
		return nil
	})
}

// DecideHold notes that the change will be completed: what its shards have
// prepared must be committed from now on.
type DecideHold struct {
	Table TableName
	ID    string
}

// Apply decides the hold; ErrNotHeld when it is not there, ErrHeld when the table
// is held by another. To decide twice is no error.
func (c DecideHold) Apply(m *Map) (*Map, error) {
	return m.edit("decide change of table "+c.Table.String(), func(d *draft) error {
		t, err := d.held(c.Table, c.ID)
		if err != nil {
			return err
		}
		hold := *t.Hold
		hold.Decided = true
		t.Hold = &hold
		return nil
	})
}

// ClearHold ends a hold. When it was decided, what the hold says of the table
// (Drop, Rename) is done and the catalog version is raised. A table that is on the
// home shard leaves the map.
type ClearHold struct {
	Table TableName
	ID    string
}

// Apply clears the hold; ErrNotHeld when it is not there, ErrHeld when the table
// is held by another.
func (c ClearHold) Apply(m *Map) (*Map, error) {
	return m.edit("end change of table "+c.Table.String(), func(d *draft) error {
		t, err := d.held(c.Table, c.ID)
		if err != nil {
			return err
		}
		hold := t.Hold
		t.Hold = nil
		gone := t.Kind == TablePinned && t.Shard == d.Home
		if hold.Decided {
			d.CatalogVersion++
			gone = gone || hold.Drop
			if hold.Rename != nil {
				t.Name = *hold.Rename
			}
		}
		if gone {
			d.removeTable(t.Name)
		}
		return nil
	})
}

// held gives the table, provided that it is held by that hold.
func (d *draft) held(name TableName, id string) (*Table, error) {
	if id == "" {
		return nil, fmt.Errorf("the hold has no id")
	}
	t, ok := d.table(name)
	if !ok {
		return nil, fmt.Errorf("hold %q: %w", id, ErrNotHeld)
	}
	return d.heldBy(t.Name, id)
}
