package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/shardyard/shardyard/directory"
)

// loadAttempts bounds how often a reader starts over because the manifest it followed was replaced
// longer ago than the grace time.
const loadAttempts = 5

// Cluster is what all databases share.
type Cluster struct {
	ID     string            `json:"id"`
	Shards []directory.Shard `json:"shards"`
	Home   directory.ShardID `json:"home"`
	// Databases that have a map, in the order of their creation. CreateMap and DeleteMap keep it.
	Databases []string `json:"databases"`
}

// Snapshot is the directory as it stood at one revision of etcd. It is immutable.
type Snapshot struct {
	Cluster Cluster
	// Maps by database.
	Maps map[string]*directory.Map
	// Revision of etcd at which it was read; only comparable within one etcd cluster.
	Revision int64

	// modified says which revisions of which keys this was made of.
	modified map[string]int64
}

// Load reads the whole directory, linearizably and at one revision. ErrNotFound means that there is no
// cluster yet. Maps that have not changed since an earlier Load are shared with it.
func (s *Store) Load(ctx context.Context) (*Snapshot, error) {
	var err error
	for range loadAttempts {
		var snapshot *Snapshot
		snapshot, err = s.loadOnce(ctx)
		if !errors.Is(err, errPieceMissing) {
			return snapshot, err
		}
	}
	return nil, err
}

func (s *Store) loadOnce(ctx context.Context) (*Snapshot, error) {
	response, err := s.get(ctx, "load directory", s.stateKey(), clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	snapshot := &Snapshot{
		Maps: map[string]*directory.Map{}, Revision: response.Header.Revision, modified: map[string]int64{},
	}
	found := false
	for _, kv := range response.Kvs {
		key := string(kv.Key)
		snapshot.modified[key] = kv.ModRevision
		switch {
		case key == s.clusterKey():
			found = true
			if err := json.Unmarshal(kv.Value, &snapshot.Cluster); err != nil {
				return nil, fmt.Errorf("decode cluster: %w: %w", ErrCorrupt, err)
			}
		case strings.HasPrefix(key, s.manifestPrefix()):
			database, m, err := s.mapOf(ctx, kv)
			if err != nil {
				return nil, err
			}
			snapshot.Maps[database] = m
		}
	}
	if !found {
		return nil, fmt.Errorf("load cluster: %w", ErrNotFound)
	}
	s.forgetOthers(snapshot.Maps)
	return snapshot, nil
}

// LoadMap reads the map of one database, linearizably. ErrNotFound: there is none.
func (s *Store) LoadMap(ctx context.Context, database string) (*directory.Map, error) {
	stored, err := s.loadStored(ctx, database)
	if err != nil {
		return nil, err
	}
	return stored.value, nil
}

// storedMap is a map together with what a compare-and-swap needs to know of it.
type storedMap struct {
	value    *directory.Map
	manifest manifest
	revision int64 // of the manifest's key
}

func (s *Store) loadStored(ctx context.Context, database string) (*storedMap, error) {
	var err error
	for range loadAttempts {
		var kv *mvccpb.KeyValue
		if kv, err = s.getOne(ctx, "load map", s.manifestKey(database)); err != nil {
			return nil, err
		}
		if kv == nil {
			return nil, fmt.Errorf("load map of database %q: %w", database, ErrNotFound)
		}
		var m *directory.Map
		if _, m, err = s.mapOf(ctx, kv); errors.Is(err, errPieceMissing) {
			continue
		}
		if err != nil {
			return nil, err
		}
		stored := &storedMap{value: m, revision: kv.ModRevision}
		stored.manifest, err = decodeManifest(kv.Value)
		return stored, err
	}
	return nil, err
}

// mapOf follows the manifest in kv to the map, through the cache.
func (s *Store) mapOf(ctx context.Context, kv *mvccpb.KeyValue) (string, *directory.Map, error) {
	database, err := url.PathUnescape(strings.TrimPrefix(string(kv.Key), s.manifestPrefix()))
	if err != nil {
		return "", nil, fmt.Errorf("decode key of a map: %w: %w", ErrCorrupt, err)
	}
	parts, err := decodeManifest(kv.Value)
	if err != nil {
		return "", nil, err
	}
	s.mu.Lock()
	cached, ok := s.maps[database]
	s.mu.Unlock()
	if ok && cached.sum == parts.Sum {
		return database, cached.value, nil
	}
	encoded, err := s.readPieces(ctx, database, parts)
	if err != nil {
		return "", nil, fmt.Errorf("read map of database %q: %w", database, err)
	}
	m, err := directory.Decode(encoded)
	if err != nil {
		return "", nil, fmt.Errorf("decode map of database %q: %w: %w", database, ErrCorrupt, err)
	}
	if m.Epoch != parts.Epoch || m.Database != database {
		return "", nil, fmt.Errorf("decode map of database %q: %w: it says database %q, epoch %d, its manifest epoch %d",
			database, ErrCorrupt, m.Database, m.Epoch, parts.Epoch)
	}
	s.remember(parts.Sum, m)
	return database, m, nil
}

func (s *Store) remember(sum string, m *directory.Map) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maps[m.Database] = cachedMap{sum: sum, value: m}
}

// forgetOthers keeps the cache as small as the directory.
func (s *Store) forgetOthers(known map[string]*directory.Map) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for database := range s.maps {
		if _, ok := known[database]; !ok {
			delete(s.maps, database)
		}
	}
}

func (s *Store) get(ctx context.Context, verb, key string, options ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	var response *clientv3.GetResponse
	err := s.call(ctx, verb, func(ctx context.Context) (err error) {
		response, err = s.client.Get(ctx, key, options...)
		return err
	})
	return response, err
}

// getOne returns nil where there is no such key.
func (s *Store) getOne(ctx context.Context, verb, key string) (*mvccpb.KeyValue, error) {
	response, err := s.get(ctx, verb, key)
	if err != nil || len(response.Kvs) == 0 {
		return nil, err
	}
	return response.Kvs[0], nil
}
