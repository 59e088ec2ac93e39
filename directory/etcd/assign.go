package etcd

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/shardyard/shardyard/directory"
)

// Assign gives the shards of keys and makes the entries that are missing, by the policy of the group. Whoever
// is first makes an entry; all others get the same shard. An entry stays, whatever becomes of the rows.
// Where the policy is to refuse, it is Lookup.
func (e *Entries) Assign(
	ctx context.Context, m *directory.Map, g *directory.Group, keys []directory.EntryKey,
) ([]directory.ShardID, error) {
	if g.Assign == directory.AssignNone || len(keys) == 0 {
		return e.Lookup(ctx, m, g, keys)
	}
	eligible := eligibleShards(m, g)
	if len(eligible) == 0 {
		return nil, &noShardError{group: g.ID}
	}
	shards := make([]directory.ShardID, 0, len(keys))
	for chunk := range slices.Chunk(keys, entriesAtOnce) {
		chosen, err := e.choose(ctx, g, eligible, chunk)
		if err != nil {
			return nil, err
		}
		if chosen, err = e.create(ctx, m, g, chunk, chosen, false); err != nil {
			return nil, err
		}
		shards = append(shards, chosen...)
	}
	return shards, nil
}

// AssignTo makes entries on the given shard, all or none: a key whose entry is on another shard is a
// *NotThereError. There may be at most 100 keys, none twice.
func (e *Entries) AssignTo(
	ctx context.Context, m *directory.Map, g *directory.Group, keys []directory.EntryKey, shard directory.ShardID,
) error {
	if len(keys) > entriesAtOnce {
		return fmt.Errorf("assign %d keys at once: more than %d", len(keys), entriesAtOnce)
	}
	_, err := e.create(ctx, m, g, keys, slices.Repeat([]directory.ShardID{shard}, len(keys)), true)
	return err
}

// noShardError: every shard of the group is being drained.
type noShardError struct{ group directory.GroupID }

func (e *noShardError) Error() string {
	return fmt.Sprintf("no shard of group %q takes new keys", e.group)
}
func (e *noShardError) SQLState() string { return "55000" }
func (e *noShardError) Hint() string {
	return "All of its shards are being drained; make one active again."
}

// eligibleShards are those that may be given new keys.
func eligibleShards(m *directory.Map, g *directory.Group) []directory.ShardID {
	var eligible []directory.ShardID
	for i := range g.Partitions {
		if s, ok := m.Shard(g.Partitions[i].Shard); ok && s.State == directory.ShardActive {
			eligible = append(eligible, s.ID)
		}
	}
	return eligible
}

// choose applies the policy, as if none of the keys had an entry.
func (e *Entries) choose(
	ctx context.Context, g *directory.Group, eligible []directory.ShardID, keys []directory.EntryKey,
) ([]directory.ShardID, error) {
	chosen := make([]directory.ShardID, len(keys))
	switch g.Assign {
	case directory.AssignRoundRobin:
		// Each router takes its own turns: all of them together are as even as each is.
		a := e.assigner(g.Entries)
		for i := range keys {
			chosen[i] = eligible[a.turn.Add(1)%uint64(len(eligible))]
		}
	case directory.AssignHash:
		for i, key := range keys {
			values, err := key.Values(g.Key)
			if err != nil {
				return nil, err
			}
			chosen[i] = eligible[directory.AssignedByHash(values, len(eligible))]
		}
	case directory.AssignLeastLoaded:
		counts, err := e.Counts(ctx, g)
		if err != nil {
			return nil, err
		}
		for i := range keys {
			chosen[i] = slices.MinFunc(eligible, func(a, b directory.ShardID) int { return counts[a] - counts[b] })
			counts[chosen[i]]++
		}
	default:
		return nil, fmt.Errorf("assign by %q: unknown policy", g.Assign)
	}
	return chosen, nil
}

// create makes entries of the keys on the shards chosen for them, unless they are there; it gives where they
// are. strict refuses where one is on another shard.
func (e *Entries) create(
	ctx context.Context, m *directory.Map, g *directory.Group, keys []directory.EntryKey, chosen []directory.ShardID, strict bool,
) ([]directory.ShardID, error) {
	a := e.assigner(g.Entries)
	var own *slot
	select {
	case own = <-a.slots:
		defer func() { a.slots <- own }()
	case <-ctx.Done():
		return nil, fmt.Errorf("assign entries: %w", context.Cause(ctx))
	}
	absent := slices.Repeat([]bool{true}, len(keys)) // as far as is known
	for attempt := range changeAttempts {
		done, err := e.tryCreate(ctx, m, g, own, keys, chosen, absent, strict)
		if err != nil {
			own.loaded = false // it may have been done all the same
			return nil, err
		}
		if done {
			for i, key := range keys {
				e.cache.Put(g, key, chosen[i])
			}
			return chosen, nil
		}
		if attempt == 0 {
			continue // the first failure tells what there is
		}
		if err := Pause(ctx, backoffOf(attempt)); err != nil {
			return nil, fmt.Errorf("assign entries: %w", err)
		}
	}
	return nil, fmt.Errorf("assign entries: %w", ErrConflict)
}

// tryCreate makes the entries of the keys that are absent, or learns what is there already: into chosen and absent.
func (e *Entries) tryCreate(
	ctx context.Context, m *directory.Map, g *directory.Group, own *slot,
	keys []directory.EntryKey, chosen []directory.ShardID, absent []bool, strict bool,
) (done bool, err error) {
	if !slices.Contains(absent, true) {
		return true, nil
	}
	directoryKey, prefix := e.store.directoryKey(m.Database, g.Entries), e.store.entryPrefix(g.Entries)
	conditions := []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(directoryKey), "!=", 0)}
	counts := maps.Clone(own.counts)
	if counts == nil {
		counts = make(map[directory.ShardID]int)
	}
	var effects []clientv3.Op
	for i, key := range keys {
		if !absent[i] {
			continue
		}
		conditions = append(conditions, clientv3.Compare(clientv3.CreateRevision(prefix+string(key)), "=", 0))
		effects = append(effects, clientv3.OpPut(prefix+string(key), string(chosen[i])))
		counts[chosen[i]]++
	}
	value, err := json.Marshal(counts)
	if err != nil {
		return false, fmt.Errorf("encode counts of entries: %w", err)
	}
	// Invariant: the counts change in the transaction that makes the entries, so they are exact.
	revision := own.revision
	if !own.loaded {
		revision = -1 // no key has it: the failure tells the counts
	}
	conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(own.key), "=", revision))
	effects = append(effects, clientv3.OpPut(own.key, string(value)))
	var response *clientv3.TxnResponse
	err = e.store.call(ctx, "assign entries", func(ctx context.Context) (err error) {
		response, err = e.store.client.Txn(ctx).If(conditions...).Then(effects...).
			Else(append(e.reads(m.Database, g, keys), clientv3.OpGet(own.key))...).Commit()
		return err
	})
	if err != nil {
		return false, err
	}
	if response.Succeeded {
		own.revision, own.counts = response.Header.Revision, counts
		return true, nil
	}
	there, err := e.readAnswer(g, keys, response.Responses)
	if err != nil {
		return false, err
	}
	own.loaded, own.revision, own.counts = true, 0, nil
	if kvs := response.Responses[len(keys)+1].GetResponseRange().Kvs; len(kvs) > 0 {
		if own.counts, err = decodeCounts(kvs[0].Value); err != nil {
			return false, err
		}
		own.revision = kvs[0].ModRevision
	}
	for i, shard := range there {
		if shard == "" {
			continue
		}
		if strict && shard != chosen[i] {
			return false, &NotThereError{Key: keys[i], Shard: shard}
		}
		chosen[i], absent[i] = shard, false
	}
	return false, nil
}
