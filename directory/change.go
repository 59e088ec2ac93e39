package directory

import (
	"errors"
	"fmt"
	"slices"
)

// Change is a step from a map to the next. Apply is pure: it leaves m as it is
// and gives a map whose epoch is one higher and which passes [Check]. A change
// whose condition no longer holds (another router was faster) gives an error and
// no map; changes never half apply.
type Change interface {
	Apply(m *Map) (*Map, error)
}

// The errors of changes that callers branch on.
var (
	// ErrHeld: the table is held by another change; wait until it is over.
	ErrHeld = errors.New("table is being changed")
	// ErrNotHeld: the hold to be decided or cleared is no longer there, because
	// somebody else ended it.
	ErrNotHeld = errors.New("table is not held by this change")
	// ErrNoCopy: a reference table would not be on every shard, because shards or reference
	// tables were added meanwhile. Begin again with the newest map.
	ErrNoCopy = errors.New("reference table has no copy on a shard")
	// ErrNoTable: the table to be changed is not in the map.
	ErrNoTable = errors.New("table is not in the map")
)

// Batch performs several changes, one after the other, in one epoch. Each must
// leave a map that passes [Check].
type Batch []Change

// Apply performs the changes.
func (b Batch) Apply(m *Map) (*Map, error) {
	if len(b) == 0 {
		return nil, errors.New("apply batch: there is no change in it")
	}
	next := m
	for _, change := range b {
		applied, err := change.Apply(next)
		if err != nil {
			return nil, err
		}
		next = applied
	}
	last := *next // the index is shared: it does not depend on the epoch
	last.Epoch = m.Epoch + 1
	return &last, nil
}

// BumpCatalog raises the catalog version: what was read from the shards' catalogs
// before is stale.
type BumpCatalog struct{}

// Apply raises the version by one.
func (BumpCatalog) Apply(m *Map) (*Map, error) {
	return m.edit("bump catalog", func(d *draft) error {
		d.CatalogVersion++
		return nil
	})
}

// draft is the next map while a change writes it. Its slices are its own; what
// their elements point to still belongs to the map before and is replaced, never
// written to.
type draft struct {
	Map
	touched map[GroupID]bool // groups whose index must be built anew
}

// edit gives the next map after change has written into a draft of it.
func (m *Map) edit(what string, change func(*draft) error) (*Map, error) {
	d := draft{Map: *m, touched: make(map[GroupID]bool)}
	d.Epoch++
	d.Shards = slices.Clone(m.Shards)
	d.Groups = slices.Clone(m.Groups)
	d.Tables = slices.Clone(m.Tables)
	d.Moves = slices.Clone(m.Moves)
	if err := change(&d); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	next := d.Map
	next.Groups, next.Tables, next.Moves = nilIfEmpty(next.Groups), nilIfEmpty(next.Tables), nilIfEmpty(next.Moves)
	if err := Check(&next); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	next.buildIndex(func(id GroupID) bool { return !d.touched[id] })
	return &next, nil
}

// nilIfEmpty keeps equal maps deeply equal.
func nilIfEmpty[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return s
}

// table gives the draft's own entry of a table, to be written to.
func (d *draft) table(name TableName) (*Table, bool) {
	i := slices.IndexFunc(d.Tables, func(t Table) bool { return t.Name == name })
	if i < 0 {
		return nil, false
	}
	return &d.Tables[i], true
}

func (d *draft) group(id GroupID) (*Group, bool) {
	i := slices.IndexFunc(d.Groups, func(g Group) bool { return g.ID == id })
	if i < 0 {
		return nil, false
	}
	return &d.Groups[i], true
}

func (d *draft) shard(id ShardID) (*Shard, bool) {
	i := slices.IndexFunc(d.Shards, func(s Shard) bool { return s.ID == id })
	if i < 0 {
		return nil, false
	}
	return &d.Shards[i], true
}

// accepts says whether a shard may be given something new.
func (d *draft) accepts(id ShardID) error {
	s, ok := d.shard(id)
	if !ok {
		return fmt.Errorf("there is no shard %q", id)
	}
	if s.State != ShardActive {
		return fmt.Errorf("shard %s is %s: it is given nothing new", id, s.State)
	}
	return nil
}

// removeTable removes a table, and its group when no table is left in it.
func (d *draft) removeTable(name TableName) {
	t, ok := d.table(name)
	if !ok {
		return
	}
	group := t.Group
	d.Tables = slices.DeleteFunc(d.Tables, func(t Table) bool { return t.Name == name })
	if group == "" || slices.ContainsFunc(d.Tables, func(t Table) bool { return t.Group == group }) {
		return
	}
	d.Groups = slices.DeleteFunc(d.Groups, func(g Group) bool { return g.ID == group })
}
