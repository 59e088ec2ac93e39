package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/shardyard/shardyard/directory"
)

const (
	documentFormat  = "shardyard-directory"
	documentVersion = 1
	// importStep is how far an import moves the epochs on. The etcd that is lost may have given out epochs
	// after the export; the step is far above what can have been, so that no epoch is given twice.
	importStep directory.Epoch = 1 << 20
)

// document is the JSON form of a Snapshot.
type document struct {
	Format   string                     `json:"format"`
	Version  int                        `json:"version"`
	Revision int64                      `json:"revision"`
	Cluster  Cluster                    `json:"cluster"`
	Maps     map[string]json.RawMessage `json:"maps"`
}

func encodeSnapshot(snapshot *Snapshot) ([]byte, error) {
	d := document{
		Format: documentFormat, Version: documentVersion, Revision: snapshot.Revision,
		Cluster: snapshot.Cluster, Maps: map[string]json.RawMessage{},
	}
	for database, m := range snapshot.Maps {
		encoded, err := directory.Encode(m)
		if err != nil {
			return nil, fmt.Errorf("encode map of database %q: %w", database, err)
		}
		d.Maps[database] = encoded
	}
	encoded, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode directory: %w", err)
	}
	return append(encoded, '\n'), nil
}

func decodeSnapshot(encoded []byte) (*Snapshot, error) {
	var d document
	if err := json.Unmarshal(encoded, &d); err != nil {
		return nil, fmt.Errorf("decode directory: %w: %w", ErrCorrupt, err)
	}
	if d.Format != documentFormat || d.Version != documentVersion {
		return nil, fmt.Errorf("decode directory: format %q version %d is not known, only %q version %d",
			d.Format, d.Version, documentFormat, documentVersion)
	}
	snapshot := &Snapshot{Cluster: d.Cluster, Revision: d.Revision, Maps: map[string]*directory.Map{}}
	for database, encoded := range d.Maps {
		m, err := directory.Decode(encoded)
		if err != nil {
			return nil, fmt.Errorf("decode map of database %q: %w: %w", database, ErrCorrupt, err)
		}
		if m.Database != database {
			return nil, fmt.Errorf("decode map of database %q: %w: it says %q", database, ErrCorrupt, m.Database)
		}
		snapshot.Maps[database] = m
	}
	listed, stored := slices.Sorted(slices.Values(d.Cluster.Databases)), slices.Sorted(maps.Keys(snapshot.Maps))
	if !slices.Equal(listed, stored) {
		return nil, fmt.Errorf("decode directory: %w: databases %q are listed, maps of %q are there", ErrCorrupt, listed, stored)
	}
	return snapshot, nil
}

// Export writes the whole directory, as it stands at one revision, for Import: a JSON document, and behind it,
// where there are groups by DIRECTORY, lines of JSON with their entries.
func (s *Store) Export(ctx context.Context, w io.Writer) error {
	snapshot, err := s.Load(ctx)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	encoded, err := encodeSnapshot(snapshot)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if _, err := w.Write(encoded); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if err := s.exportEntries(ctx, w, snapshot); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

// Import stores what Export wrote. Where there is anything already it is ErrExists, unless force says to
// replace it; databases that are not in the document are then dropped from the directory. All epochs move
// on, above those of the document and of what is replaced. Import only restores the directory: whether rows are where the document
// says is for the one who imports to know. An Import that fails half-way is run again with force.
// Entries are stored before the maps that name them, under new names: routers forget what they knew.
func (s *Store) Import(ctx context.Context, r io.Reader, force bool) error {
	lines := json.NewDecoder(r)
	var encoded json.RawMessage
	if err := lines.Decode(&encoded); err != nil {
		return fmt.Errorf("import: decode directory: %w: %w", ErrCorrupt, err)
	}
	snapshot, err := decodeSnapshot(encoded)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	present, err := s.get(ctx, "import", s.stateKey(), clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return err
	}
	if len(present.Kvs) > 0 && !force {
		return fmt.Errorf("import: %w", ErrExists)
	}
	if err := s.importEntries(ctx, lines, snapshot); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	for _, database := range snapshot.Cluster.Databases {
		if err := s.importMap(ctx, snapshot.Maps[database]); err != nil {
			return fmt.Errorf("import: %w", err)
		}
	}
	return s.importCluster(ctx, snapshot.Cluster)
}

func (s *Store) importMap(ctx context.Context, m *directory.Map) error {
	return s.retry(ctx, "import map", func() error {
		request := writeRequest{}
		last, err := s.lastEpoch(ctx, m.Database)
		if err != nil {
			return err
		}
		// What is replaced need not be readable: an import is how a damaged directory is repaired.
		kv, err := s.getOne(ctx, "import map", s.manifestKey(m.Database))
		if err != nil {
			return err
		}
		if kv != nil {
			request.revision = kv.ModRevision
			if request.replaced, err = decodeManifest(kv.Value); err != nil {
				return err
			}
		}
		request.next = withEpoch(m, max(m.Epoch, last, request.replaced.Epoch)+importStep)
		if err := s.importSets(ctx, &request); err != nil {
			return err
		}
		return s.write(ctx, request)
	})
}

// importSets makes the map's sets of entries stay, and the database's others go, together with the map. That
// the sets are still there is a condition: if the import took too long they are not.
func (s *Store) importSets(ctx context.Context, request *writeRequest) error {
	database := request.next.Database
	kept := request.next.EntrySets()
	for _, set := range kept {
		key := s.directoryKey(database, set)
		request.conditions = append(request.conditions, clientv3.Compare(clientv3.CreateRevision(key), "!=", 0))
		request.effects = append(request.effects, clientv3.OpPut(key, database)) // without the lease
	}
	prefix := s.directoriesPrefix(database)
	present, err := s.get(ctx, "import map", prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return err
	}
	for _, kv := range present.Kvs {
		if set := strings.TrimPrefix(string(kv.Key), prefix); !slices.Contains(kept, set) {
			request.effects = append(request.effects, clientv3.OpDelete(string(kv.Key)))
		}
	}
	return nil
}

// importCluster stores the cluster last, so that a first import becomes visible as a whole, and drops the
// databases that it does not list.
func (s *Store) importCluster(ctx context.Context, cluster Cluster) error {
	return s.retry(ctx, "import cluster", func() error {
		old, revision, err := s.loadCluster(ctx)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		effect, err := s.putCluster(cluster)
		if err != nil {
			return err
		}
		conditions, effects := []clientv3.Cmp{s.clusterAt(revision)}, []clientv3.Op{effect}
		for _, database := range old.Databases {
			if slices.Contains(cluster.Databases, database) {
				continue
			}
			kv, err := s.getOne(ctx, "import cluster", s.manifestKey(database))
			if err != nil {
				return err
			}
			if kv == nil {
				continue
			}
			dropped, err := decodeManifest(kv.Value)
			if err != nil {
				return err
			}
			conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(s.manifestKey(database)), "=", kv.ModRevision))
			effects = append(effects, s.dropMap(database, dropped.Epoch)...)
		}
		if len(effects) > operationsMax {
			return fmt.Errorf("import cluster: more than %d databases would be dropped at once", operationsMax/4)
		}
		return s.transact(ctx, "import cluster", ErrConflict, conditions, effects)
	})
}

// dropMap removes what there is of a database and keeps its last epoch.
func (s *Store) dropMap(database string, last directory.Epoch) []clientv3.Op {
	return []clientv3.Op{
		clientv3.OpDelete(s.manifestKey(database)),
		clientv3.OpPut(s.lastEpochKey(database), strconv.FormatUint(uint64(last), 10)),
		clientv3.OpDelete(s.blobKey(database, ""), clientv3.WithPrefix()),
		clientv3.OpDelete(s.directoriesPrefix(database), clientv3.WithPrefix()),
	}
}
