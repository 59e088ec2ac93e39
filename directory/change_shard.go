package directory

import (
	"fmt"
	"slices"
)

// AddShard adds a shard.
type AddShard struct {
	Shard Shard // State defaults to ShardActive
	// Copies are the reference tables that the shard has.
	Copies []TableName
}

// Apply adds the shard; its name must be new. ErrNoCopy when it lacks a reference table.
func (c AddShard) Apply(m *Map) (*Map, error) {
	return m.edit("add shard "+string(c.Shard.ID), func(d *draft) error {
		s := c.Shard
		if s.State == "" {
			s.State = ShardActive
		}
		for i := range d.Tables {
			if t := &d.Tables[i]; t.Kind == TableReference && !slices.Contains(c.Copies, t.Name) {
				return fmt.Errorf("table %s: %w", t.Name, ErrNoCopy)
			}
		}
		d.Shards = append(d.Shards, s)
		return nil
	})
}

// UpdateShard gives a shard other endpoints or another state, for example after a
// promotion or to drain it.
type UpdateShard struct{ Shard Shard }

// Apply replaces the shard of that name.
func (c UpdateShard) Apply(m *Map) (*Map, error) {
	return m.edit("update shard "+string(c.Shard.ID), func(d *draft) error {
		s, ok := d.shard(c.Shard.ID)
		if !ok {
			return fmt.Errorf("there is no such shard")
		}
		*s = c.Shard
		return nil
	})
}

// RemoveShard removes a shard that holds nothing and is not the home shard.
type RemoveShard struct{ ID ShardID }

// Apply removes the shard.
func (c RemoveShard) Apply(m *Map) (*Map, error) {
	return m.edit("remove shard "+string(c.ID), func(d *draft) error {
		if _, ok := d.shard(c.ID); !ok {
			return fmt.Errorf("there is no such shard")
		}
		if c.ID == d.Home {
			return fmt.Errorf("it is the home shard")
		}
		for i := range d.Groups {
			for j := range d.Groups[i].Partitions {
				if p := &d.Groups[i].Partitions[j]; p.Shard == c.ID {
					return fmt.Errorf("it still holds partition %q of group %q", p.Name, d.Groups[i].ID)
				}
			}
		}
		for i := range d.Tables {
			t := &d.Tables[i]
			if t.Shard == c.ID {
				return fmt.Errorf("it still holds table %s", t.Name)
			}
			if t.Hold != nil && slices.Contains(t.Hold.Shards, c.ID) {
				return fmt.Errorf("it takes part in the change %q of table %s", t.Hold.ID, t.Name)
			}
		}
		d.Shards = slices.DeleteFunc(d.Shards, func(s Shard) bool { return s.ID == c.ID })
		return nil
	})
}
