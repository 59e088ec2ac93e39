package backend

import (
	"encoding/binary"
	"strconv"
	"strings"
	"sync/atomic"
)

// PreparedKey is the content under which a statement is prepared on a server: its text, the types its parameters were
// declared with, and meaning, a string of whatever else changes what the text means (search_path, role, catalog
// version…). It is exact, not a hash; compute it once when a client prepares.
func PreparedKey(sql string, types []uint32, meaning string) string {
	var b strings.Builder
	b.Grow(len(sql) + len(meaning) + 4*len(types) + 12)
	var fixed [8]byte
	binary.BigEndian.PutUint32(fixed[:4], uint32(len(meaning)))
	binary.BigEndian.PutUint32(fixed[4:], uint32(len(types)))
	b.Write(fixed[:])
	b.WriteString(meaning)
	for _, t := range types {
		binary.BigEndian.PutUint32(fixed[:4], t)
		b.Write(fixed[:4])
	}
	b.WriteString(sql)
	return b.String()
}

// registry knows the named statements of one server connection: a map with an LRU list through its entries.
type registry struct {
	limit   int
	entries map[string]*preparedEntry
	head    preparedEntry // sentinel: next is the most, prev the least recently used
	names   uint64        // names are never used twice
	closing []string      // evicted: on the server still, to be closed
	pending int           // entries reserved and not yet confirmed
	count   atomic.Int32  // of entries, for whoever looks
}

type preparedEntry struct {
	key, name  string
	confirmed  bool
	prev, next *preparedEntry
}

func newRegistry(limit int) *registry {
	r := &registry{limit: limit, entries: make(map[string]*preparedEntry)}
	r.head.prev, r.head.next = &r.head, &r.head
	return r
}

func (r *registry) lookup(key string) (string, bool) {
	e, ok := r.entries[key]
	if !ok {
		return "", false
	}
	if r.head.next != e {
		e.unlink()
		r.pushFront(e)
	}
	return e.name, true
}

func (r *registry) reserve(key string) string {
	if name, ok := r.lookup(key); ok {
		return name
	}
	if len(r.entries) >= r.limit {
		r.evict(r.head.prev)
	}
	r.names++
	e := &preparedEntry{key: key, name: "sy_" + strconv.FormatUint(r.names, 10)}
	r.entries[key] = e
	r.pushFront(e)
	r.pending++
	r.count.Store(int32(len(r.entries)))
	return e.name
}

func (r *registry) confirm(key string) {
	if e, ok := r.entries[key]; ok && !e.confirmed {
		e.confirmed = true
		r.pending--
	}
}

func (r *registry) forget(key string) {
	if e, ok := r.entries[key]; ok {
		r.evict(e)
	}
}

// forgetPending drops what was reserved but never confirmed: its Parse failed or was skipped after an error.
func (r *registry) forgetPending() {
	for e := r.head.next; r.pending > 0 && e != &r.head; {
		next := e.next
		if !e.confirmed {
			r.evict(e)
		}
		e = next
	}
}

func (r *registry) forgetAll() {
	for r.head.next != &r.head {
		r.evict(r.head.next)
	}
}

// evict takes the entry out. Its statement is closed later even if it may not exist: Close of an unknown name is no error.
func (r *registry) evict(e *preparedEntry) {
	e.unlink()
	delete(r.entries, e.key)
	r.count.Store(int32(len(r.entries)))
	if !e.confirmed {
		r.pending--
	}
	r.closing = append(r.closing, e.name)
}

// reset is what DEALLOCATE ALL does on the server.
func (r *registry) reset() {
	clear(r.entries)
	r.count.Store(0)
	r.head.prev, r.head.next = &r.head, &r.head
	r.closing, r.pending = r.closing[:0], 0
}

func (r *registry) pushFront(e *preparedEntry) {
	e.prev, e.next = &r.head, r.head.next
	e.next.prev, r.head.next = e, e
}

func (e *preparedEntry) unlink() {
	e.prev.next, e.next.prev = e.next, e.prev
}
