package directory

import (
	"fmt"
	"slices"
)

// RenameEntries gives DIRECTORY groups other sets of entries, as an import does: what is known of the old
// ones counts no more.
type RenameEntries struct {
	Names map[string]string // from the old Group.Entries to the new one
}

// Apply renames the entries; those that Names does not have keep their name.
func (c RenameEntries) Apply(m *Map) (*Map, error) {
	return m.edit("rename entries", func(d *draft) error {
		renamed := 0
		for i := range d.Groups {
			name, ok := c.Names[d.Groups[i].Entries]
			if !ok {
				continue
			}
			d.Groups[i].Entries = name
			renamed++
		}
		if renamed != len(c.Names) {
			return fmt.Errorf("%d of %d sets of entries are in the map", renamed, len(c.Names))
		}
		return nil
	})
}

// EntrySets gives the Group.Entries of all DIRECTORY groups, sorted.
func (m *Map) EntrySets() []string {
	var names []string
	for i := range m.Groups {
		if m.Groups[i].Entries != "" {
			names = append(names, m.Groups[i].Entries)
		}
	}
	slices.Sort(names)
	return names
}

// GroupOfEntries gives the group whose entries have that name.
func (m *Map) GroupOfEntries(name string) (*Group, bool) {
	i := slices.IndexFunc(m.Groups, func(g Group) bool { return g.Entries == name && name != "" })
	if i < 0 {
		return nil, false
	}
	return &m.Groups[i], true
}
