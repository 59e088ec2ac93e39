package etcd

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/shardyard/shardyard/directory"
)

const (
	// changeAttempts bounds how often a change is tried anew because others were faster.
	changeAttempts = 100
	// operationsMax is below etcd's default limit of operations in one transaction, 128.
	operationsMax = 120
)

// Apply changes the map of a database: it reads it, applies change and swaps the result in, anew from the
// start whenever others were faster, so no change is lost and each epoch is given once. It returns the map
// that it stored. An error of change itself is returned as it is (wrapped) and nothing is stored;
// ErrConflict after many lost races; ErrUnavailable and perhaps ErrOutcomeUnknown where etcd does not answer.
//
// Apply alone does not fence: a change of who owns rows goes through package fence.
func (s *Store) Apply(ctx context.Context, database string, change directory.Change) (*directory.Map, error) {
	for attempt := range changeAttempts {
		current, err := s.loadStored(ctx, database)
		if err != nil {
			return nil, err
		}
		next, err := change.Apply(current.value)
		if err != nil {
			return nil, fmt.Errorf("change map of database %q: %w", database, err)
		}
		err = s.store(ctx, current, next)
		if !errors.Is(err, ErrConflict) {
			return next, err
		}
		if err := Pause(ctx, backoffOf(attempt)); err != nil {
			return nil, fmt.Errorf("change map of database %q: %w", database, err)
		}
	}
	return nil, fmt.Errorf("change map of database %q: %w", database, ErrConflict)
}

// Swap replaces current by next if current is still the stored map, and is ErrConflict otherwise. It is
// for those who must know the epoch before they store it. next is the result of a Change on current.
func (s *Store) Swap(ctx context.Context, current, next *directory.Map) error {
	stored, err := s.loadStored(ctx, current.Database)
	if err != nil {
		return err
	}
	if stored.value.Epoch != current.Epoch {
		return fmt.Errorf("swap map of database %q at epoch %d: it is at %d: %w",
			current.Database, current.Epoch, stored.value.Epoch, ErrConflict)
	}
	return s.store(ctx, stored, next)
}

// AdvanceEpoch brings the map's epoch to at least epoch and changes nothing else. It heals a shard whose
// floor is above the map, see package fence. It returns the map as it stands then.
func (s *Store) AdvanceEpoch(ctx context.Context, database string, epoch directory.Epoch) (*directory.Map, error) {
	for attempt := range changeAttempts {
		current, err := s.loadStored(ctx, database)
		if err != nil {
			return nil, err
		}
		if current.value.Epoch >= epoch {
			return current.value, nil
		}
		next := withEpoch(current.value, epoch)
		err = s.store(ctx, current, next)
		if !errors.Is(err, ErrConflict) {
			return next, err
		}
		if err := Pause(ctx, backoffOf(attempt)); err != nil {
			return nil, fmt.Errorf("advance epoch of database %q: %w", database, err)
		}
	}
	return nil, fmt.Errorf("advance epoch of database %q: %w", database, ErrConflict)
}

// withEpoch shares everything with m, which is immutable, but the epoch.
func withEpoch(m *directory.Map, epoch directory.Epoch) *directory.Map {
	next := *m
	next.Epoch = epoch
	return &next
}

// store swaps next in for current, which names the revision that it replaces.
func (s *Store) store(ctx context.Context, current *storedMap, next *directory.Map) error {
	if next.Epoch <= current.value.Epoch || next.Database != current.value.Database {
		return fmt.Errorf("store map of database %q: epoch %d of %q does not follow epoch %d",
			current.value.Database, next.Epoch, next.Database, current.value.Epoch)
	}
	return s.write(ctx, writeRequest{
		next: next, replaced: current.manifest, revision: current.revision,
		effects: s.setsChanged(next.Database, current.value.EntrySets(), next.EntrySets()),
	})
}

// writeRequest is one flip of a manifest.
type writeRequest struct {
	next     *directory.Map
	replaced manifest // empty for a new map
	revision int64    // of the manifest that is replaced; 0 for a new map
	// Conditions and effects of the same transaction beside the manifest.
	conditions []clientv3.Cmp
	effects    []clientv3.Op
}

// write stores the pieces, then flips the manifest. It starts over when a piece or the lease vanished
// between the two, which takes a writer as slow as the grace time.
func (s *Store) write(ctx context.Context, request writeRequest) error {
	encoded, err := directory.Encode(request.next)
	if err != nil {
		return fmt.Errorf("encode map of database %q: %w", request.next.Database, err)
	}
	if len(encoded) > encodedMax {
		return fmt.Errorf("encode map of database %q: %d bytes, more than %d", request.next.Database, len(encoded), encodedMax)
	}
	pieces := cut(encoded)
	for range loadAttempts {
		var lease clientv3.LeaseID
		if lease, err = s.leaseForPieces(ctx); err != nil {
			return err
		}
		if err = s.writeOnce(ctx, request, encoded, pieces, lease); !vanished(err) {
			return err
		}
		s.forgetLease(lease)
	}
	return err
}

func (s *Store) writeOnce(
	ctx context.Context, request writeRequest, encoded []byte, pieces []piece, lease clientv3.LeaseID,
) error {
	database := request.next.Database
	known := map[string]bool{}
	for _, sum := range request.replaced.Pieces {
		known[sum] = true
	}
	all, added, err := s.writePieces(ctx, database, pieces, known, lease)
	if err != nil {
		return err
	}
	tokens := append(slices.Clone(request.replaced.Tokens), rand.Text())
	next := manifest{
		Format: manifestFormat, Epoch: request.next.Epoch, Bytes: len(encoded), Sum: sumOf(encoded),
		Pieces: all, Tokens: tokens[max(0, len(tokens)-tokensKept):],
	}
	value, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("encode manifest of database %q: %w", database, err)
	}
	key := s.manifestKey(database)
	conditions := append(slices.Clone(request.conditions), clientv3.Compare(clientv3.ModRevision(key), "=", request.revision))
	effects := append(slices.Clone(request.effects), clientv3.OpPut(key, string(value)))
	for _, sum := range added {
		effects = append(effects, clientv3.OpPut(s.blobKey(database, sum), "", clientv3.WithIgnoreValue()))
	}
	for _, sum := range all {
		delete(known, sum)
	}
	for sum := range known {
		effects = append(effects, clientv3.OpPut(s.blobKey(database, sum), "", clientv3.WithIgnoreValue(), clientv3.WithLease(lease)))
	}
	if len(effects) > operationsMax {
		return fmt.Errorf("store map of database %q: it changes %d pieces at once, more than %d", database, len(effects), operationsMax)
	}
	if err := s.flip(ctx, request, conditions, effects, tokens[len(tokens)-1]); err != nil {
		return err
	}
	s.remember(next.Sum, request.next)
	return nil
}

// flip commits the transaction and, if the connection breaks meanwhile, finds out whether it counted.
func (s *Store) flip(ctx context.Context, request writeRequest, conditions []clientv3.Cmp, effects []clientv3.Op, token string) error {
	database := request.next.Database
	var response *clientv3.TxnResponse
	err := s.call(ctx, fmt.Sprintf("store map of database %q", database), func(ctx context.Context) (err error) {
		response, err = s.client.Txn(ctx).If(conditions...).Then(effects...).Commit()
		return err
	})
	switch {
	case err == nil && response.Succeeded:
		return nil
	case err == nil:
		return fmt.Errorf("store map of database %q: %w", database, ErrConflict)
	case vanished(err):
		return err
	}
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.RequestTimeout)
	defer cancel()
	kv, askErr := s.getOne(asking, "look for the change", s.manifestKey(database))
	if askErr != nil {
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	}
	if kv != nil {
		stored, decodeErr := decodeManifest(kv.Value)
		if decodeErr != nil {
			return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
		}
		if slices.Contains(stored.Tokens, token) {
			return nil
		}
		if kv.ModRevision != request.revision {
			// Another change took its place, so its comparison has failed or will.
			return fmt.Errorf("store map of database %q: %w", database, ErrConflict)
		}
	}
	// Not there yet. The request may still be on its way to be applied, so this is no certain "no".
	return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
}

// CreateCluster stores what all databases share; ErrExists when there is a cluster already. Its list of
// databases starts empty: CreateMap fills it.
func (s *Store) CreateCluster(ctx context.Context, cluster Cluster) error {
	cluster.Databases = nil
	value, err := json.Marshal(cluster)
	if err != nil {
		return fmt.Errorf("encode cluster: %w", err)
	}
	return s.transact(ctx, "create cluster", ErrExists,
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(s.clusterKey()), "=", 0)},
		[]clientv3.Op{clientv3.OpPut(s.clusterKey(), string(value))})
}

// UpdateCluster changes what all databases share, anew whenever others were faster. The list of databases
// stays what it is.
func (s *Store) UpdateCluster(ctx context.Context, change func(Cluster) (Cluster, error)) error {
	return s.retry(ctx, "update cluster", func() error {
		cluster, revision, err := s.loadCluster(ctx)
		if err != nil {
			return err
		}
		databases := slices.Clone(cluster.Databases)
		next, err := change(cluster)
		if err != nil {
			return fmt.Errorf("update cluster: %w", err)
		}
		next.Databases = databases
		effect, err := s.putCluster(next)
		if err != nil {
			return err
		}
		return s.transact(ctx, "update cluster", ErrConflict, []clientv3.Cmp{s.clusterAt(revision)}, []clientv3.Op{effect})
	})
}

// CreateMap stores the first map of a database and adds the database to the cluster. Where a database of
// that name was dropped before, the epoch goes on above its last one, so that it never falls. ErrExists:
// there is a map; ErrNotFound: there is no cluster.
func (s *Store) CreateMap(ctx context.Context, m *directory.Map) error {
	if err := directory.Check(m); err != nil {
		return fmt.Errorf("create map of database %q: %w", m.Database, err)
	}
	return s.retry(ctx, "create map", func() error {
		cluster, revision, err := s.loadCluster(ctx)
		if err != nil {
			return err
		}
		if slices.Contains(cluster.Databases, m.Database) {
			return fmt.Errorf("create map of database %q: %w", m.Database, ErrExists)
		}
		last, err := s.lastEpoch(ctx, m.Database)
		if err != nil {
			return err
		}
		cluster.Databases = append(slices.Clone(cluster.Databases), m.Database)
		effect, err := s.putCluster(cluster)
		if err != nil {
			return err
		}
		return s.write(ctx, writeRequest{
			next:       withEpoch(m, max(m.Epoch, last+1)),
			conditions: []clientv3.Cmp{s.clusterAt(revision)}, effects: append(s.setsChanged(m.Database, nil, m.EntrySets()), effect),
		})
	})
}

// DeleteMap removes the map of a database and takes it off the cluster's list. It remembers the last epoch.
func (s *Store) DeleteMap(ctx context.Context, database string) error {
	return s.retry(ctx, "delete map", func() error {
		cluster, revision, err := s.loadCluster(ctx)
		if err != nil {
			return err
		}
		current, err := s.loadStored(ctx, database)
		if err != nil {
			return err
		}
		cluster.Databases = slices.DeleteFunc(slices.Clone(cluster.Databases), func(name string) bool { return name == database })
		effect, err := s.putCluster(cluster)
		if err != nil {
			return err
		}
		return s.transact(ctx, "delete map", ErrConflict,
			[]clientv3.Cmp{s.clusterAt(revision), clientv3.Compare(clientv3.ModRevision(s.manifestKey(database)), "=", current.revision)},
			append(s.dropMap(database, current.value.Epoch), effect))
	})
}

func (s *Store) loadCluster(ctx context.Context) (Cluster, int64, error) {
	var cluster Cluster
	kv, err := s.getOne(ctx, "load cluster", s.clusterKey())
	if err != nil {
		return cluster, 0, err
	}
	if kv == nil {
		return cluster, 0, fmt.Errorf("load cluster: %w", ErrNotFound)
	}
	if err := json.Unmarshal(kv.Value, &cluster); err != nil {
		return cluster, 0, fmt.Errorf("decode cluster: %w: %w", ErrCorrupt, err)
	}
	return cluster, kv.ModRevision, nil
}

func (s *Store) putCluster(cluster Cluster) (clientv3.Op, error) {
	value, err := json.Marshal(cluster)
	if err != nil {
		return clientv3.Op{}, fmt.Errorf("encode cluster: %w", err)
	}
	return clientv3.OpPut(s.clusterKey(), string(value)), nil
}

func (s *Store) clusterAt(revision int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(s.clusterKey()), "=", revision)
}

// lastEpoch gives the last epoch of a dropped database, 0 if there was none.
func (s *Store) lastEpoch(ctx context.Context, database string) (directory.Epoch, error) {
	kv, err := s.getOne(ctx, "load last epoch", s.lastEpochKey(database))
	if err != nil || kv == nil {
		return 0, err
	}
	epoch, err := strconv.ParseUint(string(kv.Value), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("decode last epoch of database %q: %w: %w", database, ErrCorrupt, err)
	}
	return directory.Epoch(epoch), nil
}

// transact commits effects if the conditions hold, else fails with refused.
func (s *Store) transact(ctx context.Context, verb string, refused error, conditions []clientv3.Cmp, effects []clientv3.Op) error {
	return s.call(ctx, verb, func(ctx context.Context) error {
		response, err := s.client.Txn(ctx).If(conditions...).Then(effects...).Commit()
		if err == nil && !response.Succeeded {
			return refused
		}
		return err
	})
}

// retry repeats try while it meets conflicts, a bounded number of times.
func (s *Store) retry(ctx context.Context, verb string, try func() error) error {
	for attempt := range changeAttempts {
		if err := try(); !errors.Is(err, ErrConflict) {
			return err
		}
		if err := Pause(ctx, backoffOf(attempt)); err != nil {
			return fmt.Errorf("%s: %w", verb, err)
		}
	}
	return fmt.Errorf("%s: %w", verb, ErrConflict)
}

// backoffOf gives a random wait that grows with the attempts, 1 ms to 2 s.
func backoffOf(attempt int) time.Duration {
	top := 2 * time.Millisecond << min(attempt, 10)
	return top/2 + mathrand.N(top/2+1)
}

// Pause waits, or returns the cause of the context's end.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
