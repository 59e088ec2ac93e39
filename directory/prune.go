package directory

// Constraint is what a statement says about one key column; all that is set
// holds at once. The zero Constraint says nothing.
type Constraint struct {
	Values         []Value // = or IN: the column equals one of these; nil: no constraint; empty: no row
	Lo, Hi         *Value  // lower and upper bound, or nil
	LoOpen, HiOpen bool    // the bound itself is excluded
}

// Prune gives the positions of the partitions that may hold rows matching the
// constraints of the key's and the subpartition key's columns, ascending.
func (g *Group) Prune(key, sub []Constraint) []int {
	all := make([]int, len(g.Partitions))
	for i := range all {
		all[i] = i
	}
	return all
}
