package etcd

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/shardyard/shardyard/directory"
)

// importLease is how long the entries of an import may be on their way until the maps that name them are
// stored: if the importer dies they are swept after that.
const importLease = time.Hour

// entriesPage is one line behind the document: entries of a set, in the order of their keys. The last line has
// End and the number of all entries, so that a document that was cut off shows.
type entriesPage struct {
	Set    string              `json:"entries,omitempty"`
	Keys   [][]byte            `json:"keys,omitempty"` // canonical encodings
	Shards []directory.ShardID `json:"shards,omitempty"`
	End    bool                `json:"end,omitempty"`
	Count  int                 `json:"count,omitempty"`
}

// exportEntries writes the entries of all sets of the snapshot, as they were at its revision.
func (s *Store) exportEntries(ctx context.Context, w io.Writer, snapshot *Snapshot) error {
	encoder := json.NewEncoder(w)
	sets, count := 0, 0
	for _, m := range snapshot.Maps {
		for _, set := range m.EntrySets() {
			sets++
			var after directory.EntryKey
			for {
				entries, err := s.listEntries(ctx, set, after, entryPage, snapshot.Revision)
				if err != nil {
					return err
				}
				if len(entries) == 0 {
					break
				}
				page := entriesPage{Set: set}
				for _, entry := range entries {
					page.Keys, page.Shards = append(page.Keys, []byte(entry.Key)), append(page.Shards, entry.Shard)
				}
				if err := encoder.Encode(page); err != nil {
					return fmt.Errorf("write entries: %w", err)
				}
				count += len(entries)
				after = entries[len(entries)-1].Key
			}
		}
	}
	if sets == 0 {
		return nil
	}
	if err := encoder.Encode(entriesPage{End: true, Count: count}); err != nil {
		return fmt.Errorf("write entries: %w", err)
	}
	return nil
}

// importEntries stores the entries that follow the document, under new names of their sets, so that nothing
// that a router remembers of the old ones counts, and gives the maps with these names. The sets vanish
// unless the maps are stored within importLease.
func (s *Store) importEntries(ctx context.Context, lines *json.Decoder, snapshot *Snapshot) error {
	stores := make(map[string]*entryWriter) // by the set's name in the document
	for database, m := range snapshot.Maps {
		names := make(map[string]string)
		for _, set := range m.EntrySets() {
			name := NewEntriesName()
			names[set] = name
			g, _ := m.GroupOfEntries(set)
			stores[set] = &entryWriter{store: s, database: database, set: name, group: g, counts: make(map[directory.ShardID]int)}
		}
		if len(names) == 0 {
			continue
		}
		renamed, err := directory.RenameEntries{Names: names}.Apply(m)
		if err != nil {
			return fmt.Errorf("rename entries: %w", err)
		}
		snapshot.Maps[database] = withEpoch(renamed, m.Epoch)
	}
	if err := s.announceSets(ctx, stores); err != nil {
		return err
	}
	count := 0
	for {
		var page entriesPage
		err := lines.Decode(&page)
		switch {
		case errors.Is(err, io.EOF) && len(stores) == 0:
			return nil
		case err != nil:
			return fmt.Errorf("read entries: %w: after %d: %w", ErrCorrupt, count, err)
		case page.End && page.Count != count:
			return fmt.Errorf("read entries: %w: there are %d of %d", ErrCorrupt, count, page.Count)
		case page.End:
			return finishSets(ctx, stores)
		}
		target := stores[page.Set]
		if target == nil || len(page.Keys) != len(page.Shards) {
			return fmt.Errorf("read entries: %w: of set %q, which no map has", ErrCorrupt, page.Set)
		}
		for i, key := range page.Keys {
			if err := target.put(ctx, directory.EntryKey(key), page.Shards[i]); err != nil {
				return err
			}
		}
		count += len(page.Keys)
	}
}

// NewEntriesName gives a name for the entries of a new group (directory.Group.Entries).
func NewEntriesName() string {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	var random [10]byte
	_, _ = rand.Read(random[:]) // never fails
	for i := range random {
		random[i] = letters[random[i]%byte(len(letters))]
	}
	return string(random[:])
}

// announceSets makes the directory keys of new sets, to vanish after importLease if no map comes to name them.
func (s *Store) announceSets(ctx context.Context, stores map[string]*entryWriter) error {
	if len(stores) == 0 {
		return nil
	}
	return s.call(ctx, "announce entries", func(ctx context.Context) error {
		granted, err := s.client.Grant(ctx, int64(importLease/time.Second))
		if err != nil {
			return err
		}
		for _, w := range stores {
			if _, err := s.client.Put(ctx, s.directoryKey(w.database, w.set), w.database, clientv3.WithLease(granted.ID)); err != nil {
				return err
			}
		}
		return nil
	})
}

func finishSets(ctx context.Context, stores map[string]*entryWriter) error {
	for _, w := range stores {
		if err := w.finish(ctx); err != nil {
			return err
		}
	}
	return nil
}

// entryWriter puts the entries of one set, many at a time.
type entryWriter struct {
	store         *Store
	database, set string
	group         *directory.Group
	pending       []clientv3.Op
	counts        map[directory.ShardID]int
}

func (w *entryWriter) put(ctx context.Context, key directory.EntryKey, shard directory.ShardID) error {
	if _, err := key.Values(w.group.Key); err != nil {
		return fmt.Errorf("read entries of group %q: %w: %w", w.group.ID, ErrCorrupt, err)
	}
	if _, ok := w.group.PartitionNamed(string(shard)); !ok {
		return fmt.Errorf("read entries of group %q: %w: shard %q is not one of it", w.group.ID, ErrCorrupt, shard)
	}
	w.counts[shard]++
	w.pending = append(w.pending, clientv3.OpPut(w.store.entryPrefix(w.set)+string(key), string(shard)))
	if len(w.pending) < entriesAtOnce {
		return nil
	}
	return w.flush(ctx)
}

func (w *entryWriter) flush(ctx context.Context) error {
	if len(w.pending) == 0 {
		return nil
	}
	pending := w.pending
	w.pending = nil
	return w.store.call(ctx, "store entries", func(ctx context.Context) error {
		_, err := w.store.client.Txn(ctx).Then(pending...).Commit()
		return err
	})
}

func (w *entryWriter) finish(ctx context.Context) error {
	value, err := json.Marshal(w.counts)
	if err != nil {
		return fmt.Errorf("encode counts of entries: %w", err)
	}
	w.pending = append(w.pending, clientv3.OpPut(w.store.countPrefix(w.set)+"import", string(value)))
	return w.flush(ctx)
}
