package directory

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
)

// EntryCache remembers entries; of those it has no room for it forgets such as were not asked for lately. It is safe
// for concurrent use and shared by all statements of a router.
//
// It is made so that an entry is found among millions with as few visits to memory as possible, and that the garbage collector has nothing to
// look at: short keys are part of the maps, and shards are numbers. What was asked for is known by one bit for each hash; when half of
// the bits that count are set, all are taken away ("not recently used", Tanenbaum, Modern Operating Systems, 3.4).
type EntryCache struct {
	size    int64
	count   atomic.Int64
	seed    maphash.Seed
	stripes [entryStripes]entryStripe

	naming sync.Mutex // changes names
	names  atomic.Pointer[[]ShardID]
}

const (
	entryStripes = 64
	// maxEntryLooks is how many entries are looked at to find one that was not asked for lately.
	maxEntryLooks = 32
)

// entryStripe has the entries of some hashes.
type entryStripe struct {
	mu    sync.RWMutex
	short map[shortEntry]uint32 // positions in names
	long  map[string]uint32
	asked []atomic.Uint32 // bits, by hash
	marks atomic.Int64    // how many of them are set
	// forgotten is how often room was made.
	forgotten uint64
	_         [64]byte // no two locks in one line of memory
}

// shortEntry is a key of at most 31 bytes and its length.
type shortEntry [32]byte

// isShort reports whether a key fits into a shortEntry.
func isShort(key string) bool { return len(key) < len(shortEntry{}) }

func shortOf(key string) (e shortEntry) {
	copy(e[:], key)
	e[len(e)-1] = byte(len(key))
	return e
}

func (e *shortEntry) bytes() []byte { return e[:e[len(e)-1]] }

// NewEntryCache gives an empty cache of at most size entries. One takes about 60 bytes and, if it is longer than 20 bytes, its key.
func NewEntryCache(size int) *EntryCache {
	c := &EntryCache{size: int64(max(size, 1)), seed: maphash.MakeSeed()}
	words := 1
	for words*32*entryStripes < 2*size {
		words *= 2
	}
	for i := range c.stripes {
		s := &c.stripes[i]
		s.short, s.long = make(map[shortEntry]uint32), make(map[string]uint32)
		s.asked = make([]atomic.Uint32, words)
	}
	c.names.Store(new([]ShardID))
	return c
}

// Put remembers an entry of the group.
func (c *EntryCache) Put(g *Group, key EntryKey, shard ShardID) {
	c.put(g.Entries+string(key), c.numberOf(shard))
}

// numberOf is the position of a shard's name. Shards that were removed keep theirs: there were not many.
func (c *EntryCache) numberOf(shard ShardID) uint32 {
	if i := slices.Index(*c.names.Load(), shard); i >= 0 {
		return uint32(i)
	}
	c.naming.Lock()
	defer c.naming.Unlock()
	names := *c.names.Load()
	i := slices.Index(names, shard)
	if i < 0 {
		i = len(names)
		longer := append(slices.Clone(names), shard)
		c.names.Store(&longer)
	}
	return uint32(i)
}

func (c *EntryCache) put(key string, shard uint32) {
	hash := maphash.String(c.seed, key)
	s := &c.stripes[hash%entryStripes]
	for !s.put(key, shard, c.size, &c.count) {
		// Another stripe may have to make room where this one is empty.
		for at := range uint64(entryStripes) {
			if c.stripes[(hash+at)%entryStripes].forget(c) {
				break
			}
		}
	}
}

// put remembers an entry, unless it is new and there is no room for it.
func (s *entryStripe) put(key string, shard uint32, size int64, count *atomic.Int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if short := shortOf(key); isShort(key) {
		if _, known := s.short[short]; !known && !reserve(size, count) {
			return false
		}
		s.short[short] = shard
		return true
	}
	if _, known := s.long[key]; !known && !reserve(size, count) {
		return false
	}
	s.long[key] = shard
	return true
}

// reserve counts one more entry in, if there is room.
func reserve(size int64, count *atomic.Int64) bool {
	if count.Add(1) <= size {
		return true
	}
	count.Add(-1)
	return false
}

// forget removes an entry of the stripe; false if it has none. Maps are ranged over from a random place.
func (s *entryStripe) forget(c *EntryCache) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.marks.Load() > int64(len(s.short)+len(s.long))/2 {
		s.age()
	}
	looks := 0
	spared := func(hash uint64) bool {
		looks++
		return s.wasAsked(hash) && looks < maxEntryLooks
	}
	// Each kind of key is looked at first as often as there are keys of it (Weyl's sequence).
	s.forgotten += 0x9E3779B97F4A7C15
	longFirst := s.forgotten>>32%uint64(max(len(s.short)+len(s.long), 1)) < uint64(len(s.long))
	for range 2 {
		if longFirst {
			for key := range s.long {
				if !spared(maphash.String(c.seed, key)) {
					delete(s.long, key)
					c.count.Add(-1)
					return true
				}
			}
		} else {
			for key := range s.short {
				if !spared(maphash.Bytes(c.seed, key.bytes())) {
					delete(s.short, key)
					c.count.Add(-1)
					return true
				}
			}
		}
		longFirst = !longFirst
	}
	if looks > 0 { // all of the few that there are had been asked for: not any more
		s.age()
	}
	return looks > 0
}

// age takes all bits away.
func (s *entryStripe) age() {
	for i := range s.asked {
		s.asked[i].Store(0)
	}
	s.marks.Store(0)
}

func (s *entryStripe) wasAsked(hash uint64) bool {
	word, bit := s.bit(hash)
	return word.Load()&bit != 0
}

// ask sets the bit of a hash.
func (s *entryStripe) ask(hash uint64) {
	if word, bit := s.bit(hash); word.Load()&bit == 0 && word.Or(bit)&bit == 0 {
		s.marks.Add(1)
	}
}

func (s *entryStripe) bit(hash uint64) (*atomic.Uint32, uint32) {
	at := hash / entryStripes
	return &s.asked[at/32%uint64(len(s.asked))], 1 << (at % 32)
}

// get finds the shard of an entry. It keeps no reference to the key.
func (c *EntryCache) get(key string) (ShardID, bool) {
	hash := maphash.String(c.seed, key)
	s := &c.stripes[hash%entryStripes]
	var shard uint32
	var known bool
	s.mu.RLock()
	if isShort(key) {
		shard, known = s.short[shortOf(key)]
	} else {
		shard, known = s.long[key]
	}
	s.mu.RUnlock()
	if !known {
		return "", false
	}
	s.ask(hash)
	return (*c.names.Load())[shard], true
}

// Len gives the number of entries remembered.
func (c *EntryCache) Len() int { return int(c.count.Load()) }

// Retain forgets the entries of all groups that are in none of the maps.
func (c *EntryCache) Retain(maps ...*Map) {
	live := make(map[string]bool)
	for _, m := range maps {
		for i := range m.Groups {
			live[m.Groups[i].Entries] = true
		}
	}
	for i := range c.stripes {
		c.stripes[i].retain(live, &c.count)
	}
}

func (s *entryStripe) retain(live map[string]bool, count *atomic.Int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.short {
		if !live[string(key[:entriesLength])] {
			delete(s.short, key)
			count.Add(-1)
		}
	}
	for key := range s.long {
		if !live[key[:entriesLength]] {
			delete(s.long, key)
			count.Add(-1)
		}
	}
}
