package directory

import (
	"fmt"
	"slices"
	"unicode/utf8"
)

func (c *checker) checkTables() error {
	seen := make(map[TableName]bool, len(c.m.Tables))
	used := make(map[GroupID]bool, len(c.groups))
	for i := range c.m.Tables {
		t := &c.m.Tables[i]
		// Invariant: tables have unique names.
		if !validName(t.Name.Schema) || !validName(t.Name.Name) {
			return fmt.Errorf("table %s: schema and name have 1 to %d bytes of UTF-8", t.Name, maxNameLength)
		}
		if seen[t.Name] {
			return fmt.Errorf("table %s is there twice", t.Name)
		}
		seen[t.Name] = true
		if err := c.checkTable(t); err != nil {
			return fmt.Errorf("table %s: %w", t.Name, err)
		}
		if t.Kind == TableSharded {
			used[t.Group] = true
		}
	}
	// Invariant: a group has a table.
	for i := range c.m.Groups {
		if id := c.m.Groups[i].ID; !used[id] {
			return fmt.Errorf("group %q has no table", id)
		}
	}
	return nil
}

func (c *checker) checkTable(t *Table) error {
	if err := c.checkHold(t); err != nil {
		return err
	}
	for _, name := range t.UniqueLocal {
		if !validName(name) {
			return fmt.Errorf("%q is no name of a constraint", name)
		}
	}
	if t.Kind != TableReference && t.Mirror != "" {
		return fmt.Errorf("only a reference table has a mirror")
	}
	switch t.Kind {
	case TableSharded:
		return c.checkSharded(t)
	case TablePinned:
		return c.checkPinned(t)
	case TableReference:
		return c.checkReference(t)
	}
	return fmt.Errorf("unknown kind %q", t.Kind)
}

func (c *checker) checkSharded(t *Table) error {
	// Invariant: a sharded table belongs to a group, and its key has the lengths and
	// families of the group's.
	if t.Shard != "" {
		return fmt.Errorf("a sharded table is not pinned to a shard, but this one to %q", t.Shard)
	}
	g := c.groups[t.Group]
	if g == nil {
		return fmt.Errorf("its group %q is not in the map", t.Group)
	}
	if err := checkKey("key", g.Method, g.Key, t.Key, t.KeyTypes, t.KeyTypmods); err != nil {
		return err
	}
	return checkKey("subpartition key", g.SubMethod, g.SubKey, t.SubKey, t.SubKeyTypes, t.SubKeyTypmods)
}

func checkKey(what string, method Method, groupTypes []KeyType, columns []string, types []KeyType, typmods []int32) error {
	if len(columns) != len(groupTypes) || len(types) != len(groupTypes) {
		return fmt.Errorf("the %s has %d columns of %d types, its group's has %d", what, len(columns), len(types), len(groupTypes))
	}
	if typmods != nil && len(typmods) != len(columns) {
		return fmt.Errorf("the %s has %d columns but %d type modifiers", what, len(columns), len(typmods))
	}
	for i, column := range columns {
		if !validName(column) {
			return fmt.Errorf("column %q of the %s: a name has 1 to %d bytes of UTF-8", column, what, maxNameLength)
		}
		if slices.Contains(columns[:i], column) {
			return fmt.Errorf("column %q is there twice in the %s", column, what)
		}
		if !types[i].Allows(method) || types[i].Family() != groupTypes[i].Family() {
			return fmt.Errorf("column %q of the %s is of %s, which is not of the family of %s", column, what, types[i], groupTypes[i])
		}
	}
	return nil
}

func (c *checker) checkPinned(t *Table) error {
	// Invariant: a pinned table has a known shard and nothing of a sharded one.
	if !c.shards[t.Shard] {
		return fmt.Errorf("it is pinned to shard %q, which is not among the shards", t.Shard)
	}
	if t.Group != "" || len(t.Key) > 0 || len(t.SubKey) > 0 || len(t.KeyTypes) > 0 || len(t.SubKeyTypes) > 0 ||
		len(t.KeyTypmods) > 0 || len(t.SubKeyTypmods) > 0 {
		return fmt.Errorf("a pinned table has no group and no key")
	}
	// Invariant: a table on the home shard is in the map only while it is held: else
	// it is no different from a table that is not in the map.
	if t.Shard == c.m.Home && t.Hold == nil {
		return fmt.Errorf("it is pinned to the home shard %q without a hold", t.Shard)
	}
	return nil
}

func (c *checker) checkReference(t *Table) error {
	// Invariant: a reference table has its authority on the home shard, a key, a mirror that
	// no other table has, and nothing of a sharded table.
	if t.Shard != c.m.Home {
		return fmt.Errorf("the authority of a reference table is the home shard %q, not %q", c.m.Home, t.Shard)
	}
	if t.Group != "" || len(t.SubKey) > 0 || len(t.KeyTypes) > 0 || len(t.SubKeyTypes) > 0 || len(t.KeyTypmods) > 0 || len(t.SubKeyTypmods) > 0 ||
		len(t.UniqueLocal) > 0 {
		return fmt.Errorf("a reference table has no group and no sharding key")
	}
	if len(t.Key) == 0 || t.Mirror == "" || !utf8.ValidString(t.Mirror) {
		return fmt.Errorf("a reference table has a key and a mirror")
	}
	for i, column := range t.Key {
		if !validName(column) || slices.Contains(t.Key[:i], column) {
			return fmt.Errorf("column %q of the key: a name has 1 to %d bytes of UTF-8 and is there once", column, maxNameLength)
		}
	}
	for i := range c.m.Tables {
		if other := &c.m.Tables[i]; other.Name != t.Name && other.Mirror == t.Mirror {
			return fmt.Errorf("mirror %q is that of table %s too", t.Mirror, other.Name)
		}
	}
	return nil
}

func (c *checker) checkHold(t *Table) error {
	h := t.Hold
	if h == nil {
		return nil
	}
	// Invariant: a hold is named, has an owner and known shards, and enough in it
	// for another router to finish it.
	if h.ID == "" || h.Owner == "" {
		return fmt.Errorf("its hold has no id or no owner")
	}
	for _, text := range append([]string{h.ID, h.Owner, h.Reason}, h.GIDs...) {
		if !utf8.ValidString(text) {
			return fmt.Errorf("hold %q: %q is not UTF-8", h.ID, text)
		}
	}
	for i, id := range h.Shards {
		if !c.shards[id] {
			return fmt.Errorf("hold %q: shard %q is not among the shards", h.ID, id)
		}
		if slices.Contains(h.Shards[:i], id) {
			return fmt.Errorf("hold %q: shard %q is there twice", h.ID, id)
		}
	}
	if len(h.GIDs) > 0 && len(h.GIDs) != len(h.Shards) {
		return fmt.Errorf("hold %q: %d transactions on %d shards", h.ID, len(h.GIDs), len(h.Shards))
	}
	if len(h.XIDs) > 0 && len(h.XIDs) != len(h.Shards) {
		return fmt.Errorf("hold %q: %d transaction ids on %d shards", h.ID, len(h.XIDs), len(h.Shards))
	}
	if h.Drop && h.Rename != nil {
		return fmt.Errorf("hold %q: it both drops and renames", h.ID)
	}
	if h.Rename != nil && (!validName(h.Rename.Schema) || !validName(h.Rename.Name)) {
		return fmt.Errorf("hold %q: the new name %s is no table's name", h.ID, h.Rename)
	}
	return nil
}

func (c *checker) checkMoves() error {
	ids := make(map[string]bool, len(c.m.Moves))
	for _, move := range c.m.Moves {
		// Invariant: a move is named and leads a known partition between two known shards.
		if move.ID == "" || !utf8.ValidString(move.ID) || ids[move.ID] {
			return fmt.Errorf("move %q has no name of its own", move.ID)
		}
		ids[move.ID] = true
		g := c.groups[move.Group]
		if g == nil || !slices.ContainsFunc(g.Partitions, func(p Partition) bool { return p.Name == move.Partition }) {
			return fmt.Errorf("move %q: group %q has no partition %q", move.ID, move.Group, move.Partition)
		}
		if !c.shards[move.From] || !c.shards[move.To] || move.From == move.To {
			return fmt.Errorf("move %q: from shard %q to %q", move.ID, move.From, move.To)
		}
		if !move.Phase.valid() {
			return fmt.Errorf("move %q: unknown phase %q", move.ID, move.Phase)
		}
	}
	return nil
}
