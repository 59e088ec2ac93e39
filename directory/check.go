package directory

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
)

// Check reports the first invariant that the map's contents break, naming what
// breaks it: the table, or the group, its partitions and their bounds. It needs no
// index, so it judges maps that [NewMap] has not taken yet.
func Check(m *Map) error {
	c := checker{m: m, shards: make(map[ShardID]bool), groups: make(map[GroupID]*Group)}
	for _, check := range []func() error{c.head, c.checkShards, c.checkGroups, c.checkTables, c.checkMoves} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

type checker struct {
	m      *Map
	shards map[ShardID]bool
	groups map[GroupID]*Group
}

func (c *checker) head() error {
	// Invariant: a map says which cluster and database it is of, and has an epoch.
	// All names are UTF-8, so that the map's JSON holds them exactly.
	switch {
	case !utf8.ValidString(c.m.ClusterID) || !utf8.ValidString(c.m.Database):
		return fmt.Errorf("the names of cluster %q and database %q are not UTF-8", c.m.ClusterID, c.m.Database)
	case c.m.ClusterID == "":
		return fmt.Errorf("the map names no cluster")
	case c.m.Database == "":
		return fmt.Errorf("the map names no database")
	case c.m.Epoch == 0:
		return fmt.Errorf("the map has epoch 0; epochs start at 1")
	}
	return nil
}

func (c *checker) checkShards() error {
	// Invariant: shards have valid, unique names and endpoints that can be dialled.
	for i := range c.m.Shards {
		s := &c.m.Shards[i]
		if !s.ID.Valid() {
			return fmt.Errorf("shard %q: a shard's name is a lower-case identifier of at most %d bytes", s.ID, maxNameLength)
		}
		if c.shards[s.ID] {
			return fmt.Errorf("shard %s: the name is there twice", s.ID)
		}
		c.shards[s.ID] = true
		if s.State != ShardActive && s.State != ShardDraining {
			return fmt.Errorf("shard %s: unknown state %q", s.ID, s.State)
		}
		for _, e := range append([]Endpoint{s.Primary}, s.Replicas...) {
			if !e.valid() {
				return fmt.Errorf("shard %s: endpoint %q has no host or no port", s.ID, e)
			}
		}
	}
	// Invariant: the home shard exists.
	if !c.shards[c.m.Home] {
		return fmt.Errorf("home shard %q is not among the shards", c.m.Home)
	}
	return nil
}

func (c *checker) checkGroups() error {
	for i := range c.m.Groups {
		g := &c.m.Groups[i]
		// Invariant: groups have unique names.
		if g.ID == "" || !utf8.ValidString(string(g.ID)) {
			return fmt.Errorf("group %q has no valid name", g.ID)
		}
		if c.groups[g.ID] != nil {
			return fmt.Errorf("group %q is there twice", g.ID)
		}
		c.groups[g.ID] = g
		// Invariant: no two groups share entries.
		if g.Entries != "" && slices.ContainsFunc(c.m.Groups[:i], func(o Group) bool { return o.Entries == g.Entries }) {
			return fmt.Errorf("group %q: entries %q are those of another group", g.ID, g.Entries)
		}
		if err := checkGroup(g, c.shards); err != nil {
			return fmt.Errorf("group %q: %w", g.ID, err)
		}
	}
	return nil
}

func checkGroup(g *Group, shards map[ShardID]bool) error {
	if err := checkMethods(g); err != nil {
		return err
	}
	// Invariant: partitions have unique names and lie on known shards.
	names := make(map[string]bool, len(g.Partitions))
	for i := range g.Partitions {
		p := &g.Partitions[i]
		if !validName(p.Name) {
			return fmt.Errorf("partition %q: a name has 1 to %d bytes of UTF-8", p.Name, maxNameLength)
		}
		if names[p.Name] {
			return fmt.Errorf("partition %q is there twice", p.Name)
		}
		names[p.Name] = true
		if !shards[p.Shard] {
			return fmt.Errorf("partition %q is placed on shard %q, which is not among the shards", p.Name, p.Shard)
		}
		if err := checkPartitionForm(g, p); err != nil {
			return fmt.Errorf("partition %q: %w", p.Name, err)
		}
	}
	firsts, err := checkSecondLevel(g)
	if err != nil {
		return err
	}
	switch g.Method {
	case MethodRange:
		return checkRanges(g, firsts)
	case MethodList:
		return checkLists(g, firsts)
	}
	return nil
}

func validName(name string) bool {
	return name != "" && len(name) <= maxNameLength && utf8.ValidString(name)
}

func checkMethods(g *Group) error {
	// Invariant: a group's methods and key types fit each other.
	switch g.Method {
	case MethodRange, MethodList:
		if g.SubMethod != "" && g.SubMethod != MethodHash {
			return fmt.Errorf("subpartitions by %s are not supported; only by hash", g.SubMethod)
		}
	case MethodHash:
		if g.SubMethod != "" {
			return fmt.Errorf("a group by hash has no subpartitions")
		}
	case MethodDirectory:
		if g.SubMethod != "" {
			return fmt.Errorf("a group by directory has no subpartitions")
		}
	default:
		return fmt.Errorf("unknown method %q", g.Method)
	}
	if err := checkEntries(g); err != nil {
		return err
	}
	if len(g.Key) == 0 {
		return fmt.Errorf("the key has no column")
	}
	if (len(g.SubKey) > 0) != g.Composite() {
		return fmt.Errorf("a subpartition key goes with subpartitions and only with them")
	}
	for _, t := range g.Key {
		if !t.Allows(g.Method) {
			return fmt.Errorf("%s does not allow a key of %s", g.Method, t)
		}
	}
	for _, t := range g.SubKey {
		if !t.Allows(g.SubMethod) {
			return fmt.Errorf("%s does not allow a subpartition key of %s", g.SubMethod, t)
		}
	}
	if len(g.Partitions) == 0 {
		return fmt.Errorf("there is no partition")
	}
	return nil
}

func checkEntries(g *Group) error {
	// Invariant: a group by directory, and only such a one, names its entries and may assign new ones.
	if g.Method != MethodDirectory {
		if g.Entries != "" || g.Assign != "" {
			return fmt.Errorf("entries in a group by %s", g.Method)
		}
		return nil
	}
	if !validEntries(g.Entries) {
		return fmt.Errorf("entries %q: the name has %d lower-case letters and digits", g.Entries, entriesLength)
	}
	if !g.Assign.valid() {
		return fmt.Errorf("unknown assignment %q", g.Assign)
	}
	return nil
}

// checkPartitionForm checks that a partition has the bounds of its group's method
// and no others.
func checkPartitionForm(g *Group, p *Partition) error {
	// Invariant: subpartitions, and only they, name their first-level partition.
	if g.Composite() != (p.Parent != "") || (p.Parent != "" && !validName(p.Parent)) {
		return fmt.Errorf("subpartitions, and only they, have a valid parent; this one has %q", p.Parent)
	}
	hashed := g.Method == MethodHash || g.SubMethod == MethodHash
	if !hashed && (p.HashFrom != 0 || p.HashTo != 0) {
		return fmt.Errorf("a hash interval in a group without hash")
	}
	if hashed && p.HashFrom > p.HashTo {
		return fmt.Errorf("hash interval %s-%s is empty", hex64(p.HashFrom), hex64(p.HashTo))
	}
	if g.Method != MethodRange && (len(p.From) > 0 || len(p.To) > 0) {
		return fmt.Errorf("range bounds in a group by %s", g.Method)
	}
	if g.Method != MethodList && (len(p.Values) > 0 || p.Default) {
		return fmt.Errorf("list values in a group by %s", g.Method)
	}
	switch g.Method {
	case MethodDirectory:
		// Invariant: a directory's partition is a shard, and has its name, by which entries name it.
		if p.Name != string(p.Shard) {
			return fmt.Errorf("a directory's partition is named as its shard, %s", p.Shard)
		}
	case MethodRange:
		for _, bounds := range [][]Bound{p.From, p.To} {
			if err := checkBounds(g, bounds); err != nil {
				return err
			}
		}
		// Invariant: a range is not empty.
		if compareBounds(p.From, p.To) >= 0 {
			return fmt.Errorf("range FROM %s TO %s is empty", boundsText(p.From), boundsText(p.To))
		}
	case MethodList:
		return checkTuples(g, p)
	}
	return nil
}

func checkBounds(g *Group, bounds []Bound) error {
	// Invariant: a bound has one part for each key column, none of them NULL, and
	// behind MINVALUE or MAXVALUE only the same.
	if len(bounds) != len(g.Key) {
		return fmt.Errorf("bound %s has %d columns, the key has %d", boundsText(bounds), len(bounds), len(g.Key))
	}
	for i, b := range bounds {
		switch b.Kind {
		case MinValue, MaxValue:
		case Finite:
			if b.Value.IsNull() || b.Value.Type() != g.Key[i] {
				return fmt.Errorf("bound %s: column %d is NULL or not of %s", boundsText(bounds), i+1, g.Key[i])
			}
		default:
			return fmt.Errorf("bound %s: unknown kind %d", boundsText(bounds), b.Kind)
		}
		if i > 0 && bounds[i-1].Kind != Finite && bounds[i-1].Kind != b.Kind {
			return fmt.Errorf("bound %s: behind %s only %s may stand", boundsText(bounds), bounds[i-1], bounds[i-1])
		}
	}
	return nil
}

func checkTuples(g *Group, p *Partition) error {
	// Invariant: a list partition lists something or is the DEFAULT.
	if len(p.Values) == 0 && !p.Default {
		return fmt.Errorf("it lists no value and is not DEFAULT")
	}
	for _, tuple := range p.Values {
		if len(tuple) != len(g.Key) {
			return fmt.Errorf("value %s has %d columns, the key has %d", tupleText(tuple), len(tuple), len(g.Key))
		}
		for i, v := range tuple {
			if v.Type() != g.Key[i] {
				return fmt.Errorf("value %s: column %d is not of %s", tupleText(tuple), i+1, g.Key[i])
			}
		}
	}
	return nil
}

// checkSecondLevel checks the hash intervals and gives one partition of each
// first-level partition, in the order of the partitions.
func checkSecondLevel(g *Group) ([]int, error) {
	var firsts []int
	if g.Method != MethodHash && !g.Composite() {
		for i := range g.Partitions {
			firsts = append(firsts, i)
		}
		return firsts, nil
	}
	members := make(map[string][]int)
	for i := range g.Partitions {
		parent := g.Partitions[i].Parent
		if members[parent] == nil {
			firsts = append(firsts, i)
		}
		members[parent] = append(members[parent], i)
	}
	for _, first := range firsts {
		parts := members[g.Partitions[first].Parent]
		for _, other := range parts[1:] {
			// Invariant: all subpartitions of a parent carry the same first-level bounds.
			if !sameFirstLevel(&g.Partitions[first], &g.Partitions[other]) {
				return nil, fmt.Errorf("subpartitions %s and %s of %q differ in the bounds of their parent",
					named(g, first), named(g, other), g.Partitions[first].Parent)
			}
		}
		if err := checkHashCover(g, parts); err != nil {
			return nil, err
		}
	}
	return firsts, nil
}

// checkHashCover checks that the intervals of parts cover the hash space. It
// sorts parts.
func checkHashCover(g *Group, parts []int) error {
	// Invariant: the intervals of the hash space have no overlap and no gap.
	slices.SortFunc(parts, func(a, b int) int {
		return cmp.Compare(g.Partitions[a].HashFrom, g.Partitions[b].HashFrom)
	})
	if first := &g.Partitions[parts[0]]; first.HashFrom != 0 {
		return fmt.Errorf("no partition takes the hashes %s-%s before %s", hex64(0), hex64(first.HashFrom-1), named(g, parts[0]))
	}
	for i := 1; i < len(parts); i++ {
		before, p := &g.Partitions[parts[i-1]], &g.Partitions[parts[i]]
		if before.HashTo >= p.HashFrom {
			return fmt.Errorf("partitions %s and %s overlap", named(g, parts[i-1]), named(g, parts[i]))
		}
		if before.HashTo+1 != p.HashFrom {
			return fmt.Errorf("no partition takes the hashes %s-%s between %s and %s",
				hex64(before.HashTo+1), hex64(p.HashFrom-1), named(g, parts[i-1]), named(g, parts[i]))
		}
	}
	last := parts[len(parts)-1]
	if end := g.Partitions[last].HashTo; end != math.MaxUint64 {
		return fmt.Errorf("no partition takes the hashes %s-%s after %s", hex64(end+1), hex64(math.MaxUint64), named(g, last))
	}
	return nil
}

// named gives a partition's name with its bounds, for messages.
func named(g *Group, i int) string { return fmt.Sprintf("%q %s", g.Partitions[i].Name, g.Describe(i)) }

func sameFirstLevel(a, b *Partition) bool {
	sameBound := func(x, y Bound) bool {
		return x.Kind == y.Kind && (x.Kind != Finite || Compare(x.Value, y.Value) == 0)
	}
	sameTuple := func(x, y []Value) bool { return compareTuples(x, y) == 0 }
	return a.Default == b.Default &&
		slices.EqualFunc(a.From, b.From, sameBound) &&
		slices.EqualFunc(a.To, b.To, sameBound) &&
		slices.EqualFunc(a.Values, b.Values, sameTuple)
}

func checkRanges(g *Group, firsts []int) error {
	// Invariant: ranges do not overlap. Gaps are allowed: no row goes there.
	slices.SortFunc(firsts, func(a, b int) int {
		return compareBounds(g.Partitions[a].From, g.Partitions[b].From)
	})
	for i := 1; i < len(firsts); i++ {
		if compareBounds(g.Partitions[firsts[i-1]].To, g.Partitions[firsts[i]].From) > 0 {
			return fmt.Errorf("partitions %s and %s overlap", named(g, firsts[i-1]), named(g, firsts[i]))
		}
	}
	return nil
}

func checkLists(g *Group, firsts []int) error {
	// Invariant: a value is listed once, and at most one partition is the DEFAULT.
	type entry struct {
		tuple []Value
		part  int
	}
	var entries []entry
	defaultAt := -1
	for _, i := range firsts {
		p := &g.Partitions[i]
		if p.Default {
			if defaultAt >= 0 {
				return fmt.Errorf("partitions %s and %s are both DEFAULT", named(g, defaultAt), named(g, i))
			}
			defaultAt = i
		}
		for _, tuple := range p.Values {
			entries = append(entries, entry{tuple, i})
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return compareTuples(a.tuple, b.tuple) })
	for i := 1; i < len(entries); i++ {
		if a, b := entries[i-1], entries[i]; compareTuples(a.tuple, b.tuple) == 0 {
			return fmt.Errorf("value %s is listed by both %s and %s", tupleText(b.tuple), named(g, a.part), named(g, b.part))
		}
	}
	return nil
}
