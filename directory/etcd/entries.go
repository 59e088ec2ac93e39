package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/shardyard/shardyard/directory"
)

const (
	// entriesAtOnce is how many entries are read or made in one transaction, below etcd's limit of operations.
	entriesAtOnce = 100
	// entrySlots is how many transactions of one router make entries of one group at a time.
	entrySlots = 8
	// entryPage is how many entries are listed or removed at a time.
	entryPage = 5_000
)

// errGroupGone: the set of entries is no longer there, since its group's last table was dropped or an import
// replaced it.
var errGroupGone = fmt.Errorf("the table's entries are gone: %w", ErrConflict)

// NotThereError says that a key has an entry already, on another shard than it was to be assigned to.
type NotThereError struct {
	Key   directory.EntryKey
	Shard directory.ShardID // where it is
}

func (e *NotThereError) Error() string { return fmt.Sprintf("the key is on shard %s already", e.Shard) }

// SQLState is 0A000: entries do not change their shard by being assigned.
func (e *NotThereError) SQLState() string { return "0A000" }

func (s *Store) directoriesPrefix(database string) string {
	return s.root + "directories/" + url.PathEscape(database) + "/"
}
func (s *Store) directoryKey(database, set string) string { return s.directoriesPrefix(database) + set }
func (s *Store) entriesPrefix() string                    { return s.root + "entries/" }
func (s *Store) entryPrefix(set string) string            { return s.entriesPrefix() + set + "/" }
func (s *Store) countsPrefix() string                     { return s.root + "counts/" }
func (s *Store) countPrefix(set string) string            { return s.countsPrefix() + set + "/" }

// setsChanged are the effects of a new map on the sets of entries: a set is made and removed together with the
// group that names it, so that no entry can be made for a group that is gone.
func (s *Store) setsChanged(database string, before, after []string) []clientv3.Op {
	var effects []clientv3.Op
	for _, set := range after {
		if !slices.Contains(before, set) {
			effects = append(effects, clientv3.OpPut(s.directoryKey(database, set), database))
		}
	}
	for _, set := range before {
		if !slices.Contains(after, set) {
			effects = append(effects, clientv3.OpDelete(s.directoryKey(database, set)))
		}
	}
	return effects
}

// EntriesConfig says how a router keeps entries.
type EntriesConfig struct {
	// Writer names the process, for its counts of the entries that it made. Required.
	Writer string
	// CacheSize is the greatest number of entries remembered. Defaults to 1,000,000, which take about 90 MB
	// when they are all there.
	CacheSize int
}

// Entries looks up and makes the entries of DIRECTORY groups. It remembers those that it met, and never that a
// key has none: see docs/decisions/directory-entries.md. It is safe for concurrent use and has no goroutine.
type Entries struct {
	store  *Store
	writer string
	cache  *directory.EntryCache
	known  *directory.Entries

	mu        sync.Mutex
	assigners map[string]*assigner // by set
}

// NewEntries gives the entries of a store.
func NewEntries(store *Store, config EntriesConfig) (*Entries, error) {
	if config.Writer == "" || strings.Contains(config.Writer, "/") {
		return nil, fmt.Errorf("entries: the writer's name %q must not be empty and have no slash", config.Writer)
	}
	if config.CacheSize == 0 {
		config.CacheSize = 1_000_000
	}
	if config.CacheSize < 0 {
		return nil, errors.New("entries: the size of the cache must not be negative")
	}
	cache := directory.NewEntryCache(config.CacheSize)
	return &Entries{
		store: store, writer: config.Writer, cache: cache, known: directory.NewEntries(cache), assigners: map[string]*assigner{},
	}, nil
}

// Known is what the cache knows, to route by. It is shared: learn nothing to it.
func (e *Entries) Known() *directory.Entries { return e.known }

// Cache is what is remembered.
func (e *Entries) Cache() *directory.EntryCache { return e.cache }

// Retain forgets what belongs to groups that are in none of the maps.
func (e *Entries) Retain(maps ...*directory.Map) {
	e.cache.Retain(maps...)
	e.mu.Lock()
	defer e.mu.Unlock()
	for set := range e.assigners {
		if !slices.ContainsFunc(maps, func(m *directory.Map) bool { _, ok := m.GroupOfEntries(set); return ok }) {
			delete(e.assigners, set)
		}
	}
}

// Resolve looks up the entries of keys, and makes those that are to be stored and have none, into what one
// execution knows. What it learns was true at some moment after the call: entries made and used before the call
// are seen. The map is the one that the execution is planned under. Errors: ErrUnavailable (57P03) where etcd
// does not answer, ErrConflict (40001) when the group is gone.
func (e *Entries) Resolve(ctx context.Context, m *directory.Map, missing []directory.MissingEntry, into *directory.Entries) error {
	type batch struct{ store, read []directory.EntryKey }
	batches := make(map[directory.GroupID]*batch)
	seen := make(map[directory.MissingEntry]bool, len(missing))
	for _, entry := range missing {
		if seen[entry] {
			continue
		}
		seen[entry] = true
		b := batches[entry.Group]
		if b == nil {
			b = &batch{}
			batches[entry.Group] = b
		}
		if entry.Store {
			b.store = append(b.store, entry.Key)
		} else {
			b.read = append(b.read, entry.Key)
		}
	}
	for id, b := range batches {
		g, ok := m.Group(id)
		if !ok {
			return errGroupGone
		}
		for _, work := range []struct {
			keys []directory.EntryKey
			do   func(context.Context, *directory.Map, *directory.Group, []directory.EntryKey) ([]directory.ShardID, error)
		}{{b.read, e.Lookup}, {b.store, e.Assign}} { // in this order: what was assigned counts
			shards, err := work.do(ctx, m, g, work.keys)
			if err != nil {
				return err
			}
			for i, shard := range shards {
				into.Learn(g, work.keys[i], shard)
			}
		}
	}
	return nil
}

// Lookup reads the entries of keys, linearizably: it gives the shard of each, "" where there is no entry.
func (e *Entries) Lookup(
	ctx context.Context, m *directory.Map, g *directory.Group, keys []directory.EntryKey,
) ([]directory.ShardID, error) {
	shards := make([]directory.ShardID, 0, len(keys))
	for chunk := range slices.Chunk(keys, entriesAtOnce) {
		var response *clientv3.TxnResponse
		err := e.store.call(ctx, "look up entries", func(ctx context.Context) (err error) {
			response, err = e.store.client.Txn(ctx).Then(e.reads(m.Database, g, chunk)...).Commit()
			return err
		})
		if err != nil {
			return nil, err
		}
		found, err := e.readAnswer(g, chunk, response.Responses)
		if err != nil {
			return nil, err
		}
		shards = append(shards, found...)
	}
	return shards, nil
}

// reads are the operations that readAnswer takes the answers of.
func (e *Entries) reads(database string, g *directory.Group, keys []directory.EntryKey) []clientv3.Op {
	operations := make([]clientv3.Op, 0, len(keys)+2)
	operations = append(operations, clientv3.OpGet(e.store.directoryKey(database, g.Entries), clientv3.WithCountOnly()))
	prefix := e.store.entryPrefix(g.Entries)
	for _, key := range keys {
		operations = append(operations, clientv3.OpGet(prefix+string(key)))
	}
	return operations
}

// readAnswer gives the shard of each key, "" where it has no entry, and remembers them.
func (e *Entries) readAnswer(g *directory.Group, keys []directory.EntryKey, answers []*etcdserverpb.ResponseOp) ([]directory.ShardID, error) {
	if answers[0].GetResponseRange().Count == 0 {
		return nil, errGroupGone
	}
	shards := make([]directory.ShardID, len(keys))
	for i := range keys {
		kvs := answers[1+i].GetResponseRange().Kvs
		if len(kvs) == 0 {
			continue
		}
		shards[i] = directory.ShardID(kvs[0].Value)
		if _, ok := g.PartitionNamed(string(shards[i])); !ok {
			return nil, fmt.Errorf("look up entry: it is on shard %q, which the group does not have: %w", shards[i], ErrConflict)
		}
		e.cache.Put(g, keys[i], shards[i])
	}
	return shards, nil
}

// Counts is Store.CountEntries.
func (e *Entries) Counts(ctx context.Context, g *directory.Group) (map[directory.ShardID]int, error) {
	return e.store.CountEntries(ctx, g)
}

// CountEntries gives the number of entries on each shard of the group, exactly as it was at one moment.
func (s *Store) CountEntries(ctx context.Context, g *directory.Group) (map[directory.ShardID]int, error) {
	response, err := s.get(ctx, "count entries", s.countPrefix(g.Entries), clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	total := make(map[directory.ShardID]int)
	for _, kv := range response.Kvs {
		counts, err := decodeCounts(kv.Value)
		if err != nil {
			return nil, err
		}
		for shard, n := range counts {
			total[shard] += n
		}
	}
	return total, nil
}

func decodeCounts(value []byte) (map[directory.ShardID]int, error) {
	counts := make(map[directory.ShardID]int)
	if err := json.Unmarshal(value, &counts); err != nil {
		return nil, fmt.Errorf("decode counts of entries: %w: %w", ErrCorrupt, err)
	}
	return counts, nil
}

// Entry is a key and its shard.
type Entry struct {
	Key   directory.EntryKey
	Shard directory.ShardID
}

// List gives entries of the group in the order of their keys, those behind the key after (from the first where
// it is empty), at most limit of them.
func (e *Entries) List(ctx context.Context, g *directory.Group, after directory.EntryKey, limit int) ([]Entry, error) {
	return e.store.listEntries(ctx, g.Entries, after, limit, 0)
}

// listEntries lists as of a revision, or as of now where it is 0.
func (s *Store) listEntries(ctx context.Context, set string, after directory.EntryKey, limit int, revision int64) ([]Entry, error) {
	prefix := s.entryPrefix(set)
	var entries []Entry
	for limit > 0 {
		from := prefix
		if after != "" {
			from = prefix + string(after) + "\x00"
		}
		response, err := s.get(ctx, "list entries", from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)),
			clientv3.WithLimit(int64(min(limit, entryPage))), clientv3.WithRev(revision))
		if err != nil {
			return nil, err
		}
		for _, kv := range response.Kvs {
			after = directory.EntryKey(strings.TrimPrefix(string(kv.Key), prefix))
			entries = append(entries, Entry{Key: after, Shard: directory.ShardID(kv.Value)})
		}
		limit -= len(response.Kvs)
		if !response.More {
			break
		}
	}
	return entries, nil
}

// SweepEntries removes the sets of entries whose group is gone. Any router may, at any time: it takes long
// where there are many, and goes on where it was when it is called again.
func (s *Store) SweepEntries(ctx context.Context) error {
	response, err := s.get(ctx, "sweep entries", s.root+"directories/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return err
	}
	live := make(map[string]bool)
	for _, kv := range response.Kvs {
		live[string(kv.Key[strings.LastIndexByte(string(kv.Key), '/')+1:])] = true
	}
	for _, prefix := range []string{s.entriesPrefix(), s.countsPrefix()} {
		if err := s.sweep(ctx, prefix, live); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) sweep(ctx context.Context, prefix string, live map[string]bool) error {
	end := clientv3.GetPrefixRangeEnd(prefix)
	for from := prefix; ; {
		response, err := s.get(ctx, "sweep entries", from, clientv3.WithRange(end), clientv3.WithLimit(1), clientv3.WithKeysOnly())
		if err != nil || len(response.Kvs) == 0 {
			return err
		}
		set, _, _ := strings.Cut(strings.TrimPrefix(string(response.Kvs[0].Key), prefix), "/")
		// Invariant: nothing is put into a set before its directory key is there, and the key of a set that
		// once was is never put again. So a set that has something and, asked after that, no such key, is dead.
		if !live[set] {
			if live[set], err = s.isLive(ctx, set); err != nil {
				return err
			}
		}
		if !live[set] {
			if err := s.removeAll(ctx, prefix+set+"/"); err != nil {
				return err
			}
		}
		from = clientv3.GetPrefixRangeEnd(prefix + set + "/")
	}
}

func (s *Store) isLive(ctx context.Context, set string) (bool, error) {
	response, err := s.get(ctx, "sweep entries", s.root+"directories/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return false, err
	}
	for _, kv := range response.Kvs {
		if strings.HasSuffix(string(kv.Key), "/"+set) {
			return true, nil
		}
	}
	return false, nil
}

// removeAll removes keys in pieces that etcd takes in its stride.
func (s *Store) removeAll(ctx context.Context, prefix string) error {
	for {
		response, err := s.get(ctx, "sweep entries", prefix, clientv3.WithPrefix(), clientv3.WithLimit(entryPage), clientv3.WithKeysOnly())
		if err != nil || len(response.Kvs) == 0 {
			return err
		}
		last := string(response.Kvs[len(response.Kvs)-1].Key) + "\x00"
		if err := s.call(ctx, "sweep entries", func(ctx context.Context) error {
			_, err := s.client.Delete(ctx, prefix, clientv3.WithRange(last))
			return err
		}); err != nil {
			return err
		}
	}
}

// assigner makes entries of one group.
type assigner struct {
	slots chan *slot
	turn  atomic.Uint64 // of ROUND ROBIN
}

// slot is the right to run one transaction: it has the count of the entries that it made, a key in etcd that
// nobody else writes while the process lives.
type slot struct {
	key      string
	loaded   bool // revision and counts are those of etcd
	revision int64
	counts   map[directory.ShardID]int
}

func (e *Entries) assigner(set string) *assigner {
	e.mu.Lock()
	defer e.mu.Unlock()
	a, ok := e.assigners[set]
	if !ok {
		a = &assigner{slots: make(chan *slot, entrySlots)}
		a.turn.Store(uint64(rand.Uint32())) // several routers do not begin with the same shard
		for i := range entrySlots {
			a.slots <- &slot{key: fmt.Sprintf("%s%s.%d", e.store.countPrefix(set), e.writer, i)}
		}
		e.assigners[set] = a
	}
	return a
}
