package directory

import "strings"

// Method is a way to partition a key space.
type Method string

// The partitioning methods. The entries of MethodDirectory are not in the map: see [Entries].
const (
	MethodRange     Method = "range"
	MethodList      Method = "list"
	MethodHash      Method = "hash"
	MethodDirectory Method = "directory"
)

// GroupID names a group within a map. It is chosen by whoever adds the group and
// never changes; it is not shown to be parsed.
type GroupID string

// Group is a set of colocated tables: one key space, cut into partitions, which
// move together. A Group of a [Map] is immutable.
type Group struct {
	ID         GroupID
	Method     Method
	Key        []KeyType // types of the key columns; a table's may be others of the same families
	SubMethod  Method    // "" or, after RANGE or LIST, MethodHash (composite)
	SubKey     []KeyType // types of the subpartition key's columns
	Partitions []Partition
	// Of MethodDirectory: the policy for new keys, and the name of the set of entries, ten lower-case letters
	// and digits. No two sets ever have the same name, also of groups that are gone.
	Assign  Assign
	Entries string

	index *groupIndex // built by NewMap
}

// Composite reports whether the group has subpartitions.
func (g *Group) Composite() bool { return g.SubMethod != "" }

// PartitionNamed gives the position of the partition (of a composite group: the
// subpartition) with that name.
func (g *Group) PartitionNamed(name string) (int, bool) {
	i, ok := g.index.names[name]
	return i, ok
}

// Shards gives the shards that hold partitions of the group, without duplicates,
// in the order of their names. The slice belongs to the map: do not change it.
func (g *Group) Shards() []ShardID { return g.index.shards }

// BoundKind says what a bound of a RANGE partition is.
type BoundKind uint8

// The kinds of bounds, in their order.
const (
	MinValue BoundKind = iota // below every value
	Finite                    // a value
	MaxValue                  // above every value
)

// Bound is one column's part of a RANGE partition's bound.
type Bound struct {
	Kind  BoundKind
	Value Value // set when Kind is Finite; never NULL
}

// String gives the bound as Postgres shows it: MINVALUE, MAXVALUE or a literal.
func (b Bound) String() string {
	switch b.Kind {
	case MinValue:
		return "MINVALUE"
	case MaxValue:
		return "MAXVALUE"
	}
	return b.Value.Literal()
}

// Partition is a piece of a group's key space, on one shard. In a composite
// group it is one subpartition and carries the bounds of its first-level
// partition (Parent) too, the same in all subpartitions of that parent.
type Partition struct {
	Name   string
	Parent string // composite: name of the first-level partition; else ""
	Shard  ShardID

	From, To []Bound // RANGE: [From, To), lexicographic over the key columns

	Values  [][]Value // LIST: tuples of key values; NULL is allowed and equals NULL
	Default bool      // LIST: takes what no other partition lists, NULL too

	HashFrom, HashTo uint64 // HASH or second level: inclusive interval of the hash space
}

// Describe gives the bounds of partition i, the first level's and the hash
// interval, as people read them in messages and in SHOW PARTITIONS, for example
// "FROM (MINVALUE) TO ('2026-01-01')" or "IN ('de', 'fr') HASH 0000000000000000-7fffffffffffffff".
func (g *Group) Describe(i int) string {
	p := &g.Partitions[i]
	first := g.describeFirst(p)
	if g.Method == MethodHash || g.SubMethod == MethodHash {
		interval := "HASH " + hex64(p.HashFrom) + "-" + hex64(p.HashTo)
		if first == "" {
			return interval
		}
		return first + " " + interval
	}
	return first
}

func (g *Group) describeFirst(p *Partition) string {
	switch g.Method {
	case MethodRange:
		return "FROM " + boundsText(p.From) + " TO " + boundsText(p.To)
	case MethodDirectory:
		return "DIRECTORY"
	case MethodList:
		if p.Default && len(p.Values) == 0 {
			return "DEFAULT"
		}
		tuples := make([]string, len(p.Values))
		for i, tuple := range p.Values {
			tuples[i] = tupleText(tuple)
		}
		text := "IN (" + strings.Join(tuples, ", ") + ")"
		if p.Default {
			text += " DEFAULT"
		}
		return text
	}
	return ""
}

func boundsText(bounds []Bound) string {
	parts := make([]string, len(bounds))
	for i, b := range bounds {
		parts[i] = b.String()
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

func tupleText(tuple []Value) string {
	if len(tuple) == 1 {
		return tuple[0].Literal()
	}
	parts := make([]string, len(tuple))
	for i, v := range tuple {
		parts[i] = v.Literal()
	}
	return "(" + strings.Join(parts, ", ") + ")"
}
