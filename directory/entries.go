package directory

import (
	"slices"
	"unsafe"
)

// A group by DIRECTORY has one partition for each shard that may hold rows of it, named as the shard. Which
// of them takes a key is said by the key's entry, which is not in the map: there may be millions. Entries are
// kept by package etcd; here is what a router remembers of them.
//
// Invariant: an entry never changes its shard and is never removed while the group keeps its Group.Entries.
// So an entry that is known stays true, in any cache, for as long as the map names it. That there is no entry
// does not: another router may add one at any time.

// Assign is the policy by which a DIRECTORY group places a key that has no entry.
type Assign string

// The policies.
const (
	AssignNone        Assign = ""             // the key is refused: entries are made by ALTER SHARD TABLE … ASSIGN
	AssignRoundRobin  Assign = "round robin"  // each shard in turn
	AssignLeastLoaded Assign = "least loaded" // the shard with the fewest entries
	AssignHash        Assign = "hash"         // by KeyHash
)

func (a Assign) valid() bool {
	switch a {
	case AssignNone, AssignRoundRobin, AssignLeastLoaded, AssignHash:
		return true
	}
	return false
}

// entriesLength is the length of Group.Entries.
const entriesLength = 10

func validEntries(id string) bool {
	for i := range len(id) {
		if (id[i] < 'a' || id[i] > 'z') && (id[i] < '0' || id[i] > '9') {
			return false
		}
	}
	return len(id) == entriesLength
}

// AssignedByHash gives the position of n shards that takes a key by hash: the hash space is cut into n
// intervals. n is at least 1.
func AssignedByHash(key []Value, n int) int {
	return slices.IndexFunc(HashIntervals(n), func(i HashInterval) bool { return KeyHash(key) <= i.To })
}

// Entries is what one execution of a statement knows of entries: what is cached, and what was looked up for
// it. That a key has no entry is known for this execution only, so a value to which anything was [Entries.Learn]ed
// serves one execution. Without that it is safe for concurrent use. A nil *Entries knows nothing.
type Entries struct {
	cache *EntryCache
	found map[string]ShardID // "" where there is no entry
}

// NewEntries gives what the cache knows; nil for nothing.
func NewEntries(cache *EntryCache) *Entries { return &Entries{cache: cache} }

// Learn notes the shard of a key's entry, or "" that it has none.
func (e *Entries) Learn(g *Group, key EntryKey, shard ShardID) {
	if e.found == nil {
		e.found = make(map[string]ShardID)
	}
	e.found[g.Entries+string(key)] = shard
}

// Placement says what is known of where a key's rows are.
type Placement uint8

// The placements.
const (
	Placed  Placement = iota // in a partition
	Nowhere                  // no partition takes the key, and there is no row with it
	Unknown                  // its entry must be looked up, or assigned, first: see MissingEntry
)

// MissingEntry is a key whose entry must be known to go on.
type MissingEntry struct {
	Group GroupID
	Key   EntryKey
	// Store: a row with the key is to be stored, so that an entry is to be made if there is none. It is
	// never set for groups that assign nothing.
	Store bool
}

// Locate finds the partition that takes a key, for groups of every method: use it instead of [Group.Locate].
// stored says that a row with the key is to be stored; then Nowhere is Postgres's 23514. It allocates nothing
// where the answer is known.
//
// Where it gives Unknown, collect a [MissingEntry] (Missing makes it) for each such key, have all of them looked
// up or assigned at once into a new *Entries (Session.resolve in package router, or etcd.Entries.Resolve), and
// ask that one: it will know. Who stores rows in batches (COPY) does so once a batch.
func (e *Entries) Locate(g *Group, key, sub []Value, stored bool) (part int, p Placement) {
	if g.Method != MethodDirectory {
		part, ok := g.Locate(key, sub)
		if !ok {
			return 0, Nowhere
		}
		return part, Placed
	}
	mustMatch(key, g.Key)
	var buffer [128]byte
	encoded := AppendEntryKey(append(buffer[:0], g.Entries...), key)
	if len(encoded) > entriesLength+MaxEntryKey {
		return 0, Nowhere // cannot have an entry
	}
	return e.locate(g, unsafe.String(unsafe.SliceData(encoded), len(encoded)), stored)
}

// locate looks for a key behind its group's Entries. It keeps no reference to it.
func (e *Entries) locate(g *Group, key string, stored bool) (part int, p Placement) {
	if e == nil {
		return 0, Unknown
	}
	shard, known := e.found[key]
	if !known && e.cache != nil {
		shard, known = e.cache.get(key)
	}
	switch {
	case !known:
		return 0, Unknown
	case shard == "" && stored && g.Assign != AssignNone:
		return 0, Unknown
	case shard == "":
		return 0, Nowhere
	}
	part, ok := g.PartitionNamed(string(shard))
	if !ok {
		// Invariant: a shard is taken from a group only when no entry names it. Who broke it must not make
		// rows vanish: asked again, the entry is looked up and found to be wrong.
		return 0, Unknown
	}
	return part, Placed
}

// Missing is what to look up for a key that Locate does not know.
func (g *Group) Missing(key []Value, stored bool) MissingEntry {
	return MissingEntry{Group: g.ID, Key: EntryKeyOf(key), Store: stored && g.Assign != AssignNone}
}

// Prune is [Group.Prune] for groups of every method. Keys of a DIRECTORY group are pruned one by one where the
// constraints leave few, else nothing is; missing are those whose entry is not known: without them the
// partitions are not all.
func (e *Entries) Prune(g *Group, key, sub []Constraint) (parts []int, missing []MissingEntry) {
	if g.Method != MethodDirectory {
		return g.Prune(key, sub), nil
	}
	keys := newKeySet(g.Key, key)
	if keys.empty() {
		return nil, nil
	}
	combinations := keys.combinations()
	if combinations == nil {
		return g.Prune(key, sub), nil
	}
	for _, values := range combinations {
		part, p := e.Locate(g, values, nil, false)
		switch p {
		case Placed:
			parts = append(parts, part)
		case Unknown:
			missing = append(missing, g.Missing(values, false))
		case Nowhere:
		}
	}
	slices.Sort(parts)
	return slices.Compact(parts), missing
}
