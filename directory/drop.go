package directory

import (
	"errors"
	"fmt"
)

// Drop marks a database that is being dropped (DROP DATABASE): routers take no sessions for it, and acknowledge its
// epochs when they have neither sessions nor connections of it any more. Who finds one whose owner is gone drops the
// database when it is decided, and clears the mark when it is not.
type Drop struct {
	ID      string // unique: names this attempt
	Owner   string // name of the router that does it
	Force   bool   // sessions of the database are ended; else they are in the way
	Decided bool   // the database will be gone, whatever happens to the owner
}

// SetDrop marks the database, or replaces the mark of the same ID.
type SetDrop struct{ Drop Drop }

// Apply sets the mark; ErrHeld while something of the database is being changed or dropped by others.
func (c SetDrop) Apply(m *Map) (*Map, error) {
	return m.edit("drop database "+m.Database, func(d *draft) error {
		switch old := d.Drop; {
		case c.Drop.ID == "":
			return errors.New("the mark has no id")
		case old != nil && old.ID != c.Drop.ID:
			return fmt.Errorf("router %s drops it: %w", old.Owner, ErrHeld)
		case old != nil && old.Decided && !c.Drop.Decided:
			return errors.New("it is decided and cannot be undecided")
		case old == nil && c.Drop.Decided:
			return fmt.Errorf("drop %q: %w", c.Drop.ID, ErrNotHeld)
		}
		for i := range d.Tables {
			if hold := d.Tables[i].Hold; hold != nil {
				return fmt.Errorf("table %s (%s): %w", d.Tables[i].Name, hold.Reason, ErrHeld)
			}
		}
		if len(d.Moves) > 0 {
			return fmt.Errorf("move %q: %w", d.Moves[0].ID, ErrHeld)
		}
		drop := c.Drop
		d.Drop = &drop
		return nil
	})
}

// ClearDrop takes the mark of an undecided drop away.
type ClearDrop struct{ ID string }

// Apply clears the mark; ErrNotHeld when it is not there any more.
func (c ClearDrop) Apply(m *Map) (*Map, error) {
	return m.edit("keep database "+m.Database, func(d *draft) error {
		if d.Drop == nil || d.Drop.ID != c.ID {
			return fmt.Errorf("drop %q: %w", c.ID, ErrNotHeld)
		}
		if d.Drop.Decided {
			return errors.New("it is decided and cannot be undone")
		}
		d.Drop = nil
		return nil
	})
}
