package directory_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/shardyard/shardyard/directory"
)

// cacheCase is a cache and keys of its group, short ones and long ones.
type cacheCase struct {
	group *directory.Group
	cache *directory.EntryCache
}

func newCacheCase(t *testing.T, size int) cacheCase {
	m := directoryMap(t, directory.AssignHash, directory.Text)
	g, _ := m.Group("g")
	return cacheCase{g, directory.NewEntryCache(size)}
}

func (c cacheCase) key(t *testing.T, n int) []directory.Value {
	text := fmt.Sprint(n)
	if n%2 == 1 {
		text = strings.Repeat("long key ", 5) + text
	}
	return []directory.Value{mustParse(t, directory.Text, text)}
}

func (c cacheCase) shard(n int) directory.ShardID { return c.group.Shards()[n%len(c.group.Shards())] }

func (c cacheCase) put(t *testing.T, n int) {
	c.cache.Put(c.group, directory.EntryKeyOf(c.key(t, n)), c.shard(n))
}

// known reports whether the key is known, and fails if it is known wrongly.
func (c cacheCase) known(t *testing.T, n int) bool {
	part, p := directory.NewEntries(c.cache).Locate(c.group, c.key(t, n), nil, false)
	if p == directory.Placed && c.group.Partitions[part].Shard != c.shard(n) {
		t.Errorf("key %d is thought to be on %s", n, c.group.Partitions[part].Shard)
	}
	return p == directory.Placed
}

// The cache never has more entries than it may have; it forgets those that nobody asks for, and never mistakes one for another.
func TestEntryCacheForgetsWhatIsNotAskedFor(t *testing.T) {
	const size, asked, others = 5000, 500, 30_000
	c := newCacheCase(t, size)
	for n := range asked {
		c.put(t, n)
	}
	lost := 0
	for n := asked; n < asked+others; n++ {
		c.put(t, n)
		if again := n % asked; !c.known(t, again) {
			lost++
			c.put(t, again)
		}
		if c.cache.Len() > size {
			t.Fatalf("%d entries in a cache of %d", c.cache.Len(), size)
		}
	}
	if c.cache.Len() != size {
		t.Errorf("%d entries in a cache of %d", c.cache.Len(), size)
	}
	t.Logf("%d times an entry was forgotten that is asked for", lost)
	if lost > others/20 {
		t.Errorf("%d times an entry was forgotten that is asked for", lost)
	}
}

func TestSmallEntryCaches(t *testing.T) {
	for size := 1; size < 5; size++ {
		c := newCacheCase(t, size)
		for n := range 300 {
			c.put(t, n)
			c.put(t, n)
			if !c.known(t, n) {
				t.Fatalf("size %d: key %d was forgotten at once", size, n)
			}
			if c.cache.Len() > size {
				t.Fatalf("%d entries in a cache of %d", c.cache.Len(), size)
			}
		}
	}
}

// Many use one cache at once.
func TestEntryCacheIsSafe(t *testing.T) {
	const size, keys = 500, 1000
	c := newCacheCase(t, size)
	other := directoryMap(t, directory.AssignHash, directory.Text)
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for i := range 5000 {
				n := (i*7 + worker*13) % keys
				if !c.known(t, n) {
					c.put(t, n)
				}
				if i%1000 == 999 {
					c.cache.Retain(other)
				}
			}
		})
	}
	group.Wait()
	if c.cache.Len() > size {
		t.Errorf("%d entries in a cache of %d", c.cache.Len(), size)
	}
	c.cache.Retain()
	if c.cache.Len() != 0 {
		t.Errorf("%d entries are left", c.cache.Len())
	}
}
