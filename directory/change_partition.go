package directory

import (
	"fmt"
	"slices"
)

// SetPlacement gives a partition to another shard. The map says where rows are
// looked for: the rows must have been moved, or there are none.
type SetPlacement struct {
	Group     GroupID
	Partition string
	Shard     ShardID
}

// Apply changes the placement.
func (c SetPlacement) Apply(m *Map) (*Map, error) {
	return m.edit(fmt.Sprintf("place partition %q of group %q", c.Partition, c.Group), func(d *draft) error {
		if err := d.accepts(c.Shard); err != nil {
			return err
		}
		g, parts, err := d.partitions(c.Group, []string{c.Partition})
		if err != nil {
			return err
		}
		if g.Method == MethodDirectory {
			return fmt.Errorf("the entries of a directory say where its rows are")
		}
		g.Partitions = slices.Clone(g.Partitions)
		g.Partitions[parts[0]].Shard = c.Shard
		d.touched[g.ID] = true
		return nil
	})
}

// SplitPartition replaces a partition (of a composite group: a subpartition) by
// several that together take the same rows, on the same shard.
type SplitPartition struct {
	Group     GroupID
	Partition string
	Into      []Partition
}

// Apply splits the partition.
func (c SplitPartition) Apply(m *Map) (*Map, error) {
	return m.edit(fmt.Sprintf("split partition %q of group %q", c.Partition, c.Group), func(d *draft) error {
		return d.reorganize(c.Group, []string{c.Partition}, c.Into)
	})
}

// MergePartitions replaces several partitions (of a composite group:
// subpartitions of one parent), all on one shard, by one that takes the same rows.
type MergePartitions struct {
	Group      GroupID
	Partitions []string
	Into       Partition
}

// Apply merges the partitions.
func (c MergePartitions) Apply(m *Map) (*Map, error) {
	return m.edit(fmt.Sprintf("merge partitions %q of group %q", c.Partitions, c.Group), func(d *draft) error {
		return d.reorganize(c.Group, c.Partitions, []Partition{c.Into})
	})
}

// partitions gives a group and the positions of its partitions with these names.
func (d *draft) partitions(id GroupID, names []string) (*Group, []int, error) {
	g, ok := d.group(id)
	if !ok {
		return nil, nil, fmt.Errorf("there is no such group")
	}
	var parts []int
	for _, name := range names {
		i := slices.IndexFunc(g.Partitions, func(p Partition) bool { return p.Name == name })
		if i < 0 {
			return nil, nil, fmt.Errorf("there is no partition %q", name)
		}
		if slices.Contains(parts, i) {
			return nil, nil, fmt.Errorf("partition %q is named twice", name)
		}
		parts = append(parts, i)
	}
	return g, parts, nil
}

// reorganize replaces partitions by others that take exactly the same rows on the
// same shard, so that no row has to move.
func (d *draft) reorganize(id GroupID, names []string, into []Partition) error {
	g, parts, err := d.partitions(id, names)
	if err != nil {
		return err
	}
	if g.Method == MethodDirectory {
		return fmt.Errorf("the partitions of a directory are its shards")
	}
	if len(parts) == 0 || len(into) == 0 {
		return fmt.Errorf("there is nothing to reorganize")
	}
	before := make([]Partition, len(parts))
	for i, part := range parts {
		before[i] = g.Partitions[part]
	}
	for _, p := range slices.Concat(before, into) {
		if p.Shard != before[0].Shard {
			return fmt.Errorf("partition %q is on shard %s and not on %s: no row may move", p.Name, p.Shard, before[0].Shard)
		}
		if err := checkPartitionForm(g, &p); err != nil {
			return fmt.Errorf("partition %q: %w", p.Name, err)
		}
	}
	if err := sameSpace(g, before, into); err != nil {
		return err
	}
	kept := make([]Partition, 0, len(g.Partitions)-len(before)+len(into))
	at := slices.Min(parts)
	for i, p := range g.Partitions {
		if i == at {
			kept = append(kept, into...)
		}
		if !slices.Contains(parts, i) {
			kept = append(kept, p)
		}
	}
	g.Partitions = kept
	d.touched[g.ID] = true
	return nil
}

// sameSpace checks that two sets of partitions take the same rows, given that the
// map with either of them passes Check.
func sameSpace(g *Group, before, after []Partition) error {
	if g.Composite() {
		// The first level stays; that the second covers the hash space again is for Check.
		for _, p := range slices.Concat(before, after) {
			if p.Parent != before[0].Parent || !sameFirstLevel(&p, &before[0]) {
				return fmt.Errorf("partition %q is not of the first-level partition %q with its bounds", p.Name, before[0].Parent)
			}
		}
		return nil
	}
	switch g.Method {
	case MethodRange:
		a, b := joinRanges(before), joinRanges(after)
		same := slices.EqualFunc(a, b, func(x, y Partition) bool {
			return compareBounds(x.From, y.From) == 0 && compareBounds(x.To, y.To) == 0
		})
		if !same {
			return fmt.Errorf("%s is not the same range as %s", rangesText(a), rangesText(b))
		}
	case MethodList:
		return sameLists(before, after)
	}
	return nil // by hash: that the space is covered again is for Check
}

// joinRanges joins ranges that touch, in their order.
func joinRanges(parts []Partition) []Partition {
	sorted := slices.Clone(parts)
	slices.SortFunc(sorted, func(a, b Partition) int { return compareBounds(a.From, b.From) })
	joined := sorted[:1]
	for _, p := range sorted[1:] {
		if last := &joined[len(joined)-1]; compareBounds(last.To, p.From) == 0 {
			last.To = p.To
		} else {
			joined = append(joined, p)
		}
	}
	return joined
}

func rangesText(parts []Partition) string {
	text := ""
	for i, p := range parts {
		if i > 0 {
			text += " and "
		}
		text += "FROM " + boundsText(p.From) + " TO " + boundsText(p.To)
	}
	return text
}

// sameLists: with the DEFAULT on both sides everything that others do not list is
// taken before and after; else the values must be the same.
func sameLists(before, after []Partition) error {
	a, defaultBefore := listed(before)
	b, defaultAfter := listed(after)
	if defaultBefore != defaultAfter {
		return fmt.Errorf("DEFAULT may be neither lost nor won")
	}
	if defaultBefore {
		return nil
	}
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(b) || i < len(a) && compareTuples(a[i], b[i]) < 0:
			return fmt.Errorf("value %s would be taken by no partition", tupleText(a[i]))
		case i >= len(a) || compareTuples(a[i], b[i]) > 0:
			return fmt.Errorf("value %s was not taken before", tupleText(b[i]))
		}
	}
	return nil
}

// listed gives the values of partitions, sorted, and whether one is the DEFAULT.
func listed(parts []Partition) (tuples [][]Value, hasDefault bool) {
	for _, p := range parts {
		tuples = append(tuples, p.Values...)
		hasDefault = hasDefault || p.Default
	}
	slices.SortFunc(tuples, compareTuples)
	return tuples, hasDefault
}
