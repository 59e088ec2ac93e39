package etcd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/shardyard/shardyard/directory"
)

// errDisplaced: another process registered under the same name and holds it.
var errDisplaced = errors.New("another process has registered under this router's name")

// Member is a router's registration. It is safe for concurrent use; the goroutine that keeps it alive
// belongs to it and ends with Close.
type Member struct {
	store    *Store
	info     RouterInfo
	instance string

	wake   chan struct{} // holds one token when there is something to write
	cancel context.CancelFunc
	done   chan struct{}

	mu           sync.Mutex
	acknowledged map[string]directory.Epoch
	planning     map[string]directory.Epoch
	changed      bool      // they hold what etcd does not
	heldUntil    time.Time // the lease certainly lives until then
	incarnation  string

	// Only the goroutine of the member uses these.
	lease    clientv3.LeaseID // NoLease: not registered
	revision int64            // of the router's key, as last written
}

// Register makes the router known and keeps it so until Close: it renews the lease and, after an expiry,
// registers again as a new incarnation with the epochs that it acknowledged. A router registers before it
// opens its first server connection, and closes its Member after its last one.
//
// An etcd that cannot be reached is no error: the member goes on trying, and Held is false until then (the
// shards' floors protect what such a router could do wrong). If a live process holds the name, the new one
// takes it: usually that is the same router after a crash. The connections of the old process are then
// those of an expired router.
func (s *Store) Register(ctx context.Context, info RouterInfo) (*Member, error) {
	if err := info.validate(); err != nil {
		return nil, err
	}
	instance := make([]byte, 4)
	if _, err := rand.Read(instance); err != nil {
		return nil, fmt.Errorf("name the instance: %w", err)
	}
	living, cancel := context.WithCancel(context.WithoutCancel(ctx))
	m := &Member{
		store: s, info: info, instance: hex.EncodeToString(instance),
		wake: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{}),
		acknowledged: map[string]directory.Epoch{}, planning: map[string]directory.Epoch{},
	}
	takeover := true
	switch err := m.register(ctx, takeover); {
	case err == nil:
		takeover = false
	case errors.Is(err, ErrUnavailable):
		s.config.Log.WarnContext(ctx, "router is not registered yet, etcd is unavailable", "error", err)
	default:
		cancel()
		return nil, err
	}
	go m.run(living, takeover)
	return m, nil
}

// Info returns what the router registered with.
func (m *Member) Info() RouterInfo { return m.info }

// Instance names this registration's process among all that had the router's name.
func (m *Member) Instance() string { return m.instance }

// Incarnation names the lease; it changes when the router registers again. Empty before the first time.
func (m *Member) Incarnation() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.incarnation
}

// ApplicationPrefix is what the application_name of each server connection must begin with:
// "shardyard/<router>/<instance>.". The fence terminates connections by it. At least 7 of Postgres's 63
// bytes are left for the session.
func (m *Member) ApplicationPrefix() string {
	return "shardyard/" + m.info.Name + "/" + m.instance + "."
}

// Held says whether the router certainly holds its lease now, by its own clock. A router that does not may
// go on serving.
func (m *Member) Held() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Before(m.heldUntil)
}

// Acknowledge says that nothing planned under an epoch of the database older than this one is in flight any
// more or ever will be. It does not wait: it is written soon after, together with what else was acknowledged
// meanwhile, and again until etcd has it. Older epochs than one already acknowledged are ignored.
func (m *Member) Acknowledge(database string, epoch directory.Epoch) {
	m.note(m.acknowledged, database, epoch)
}

// Planning says that statements of the database which begin from now on are planned under this epoch or a newer one, while
// some that began before may still run. It is written as Acknowledge says, which includes it.
func (m *Member) Planning(database string, epoch directory.Epoch) {
	m.note(m.planning, database, epoch)
}

// note remembers an epoch to be written.
func (m *Member) note(epochs map[string]directory.Epoch, database string, epoch directory.Epoch) {
	m.mu.Lock()
	newer := epoch > epochs[database]
	if newer {
		epochs[database] = epoch
		m.changed = true
	}
	m.mu.Unlock()
	if newer {
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
}

// Close says goodbye: nothing of this router is left behind. If etcd cannot be reached within the request
// timeout the registration expires by itself and the error says so.
func (m *Member) Close(ctx context.Context) error {
	m.cancel()
	<-m.done
	s := m.store
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.RequestTimeout)
	defer cancel()
	seen, key := s.seenKey(m.info.Name, m.instance), s.routerKey(m.info.Name)
	err := s.call(leaving, "say goodbye", func(ctx context.Context) error {
		_, err := s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.LeaseValue(key), "=", m.lease), clientv3.Compare(clientv3.CreateRevision(key), "!=", 0)).
			Then(clientv3.OpDelete(key), clientv3.OpDelete(seen)).
			Else(clientv3.OpDelete(seen)).
			Commit()
		return err
	})
	if err != nil {
		return err
	}
	if m.lease == clientv3.NoLease {
		return nil
	}
	return s.call(leaving, "revoke lease", func(ctx context.Context) error {
		if _, err := s.client.Revoke(ctx, m.lease); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return err
		}
		return nil
	})
}

// run keeps the registration alive until ctx ends.
func (m *Member) run(ctx context.Context, takeover bool) {
	defer close(m.done)
	interval := m.store.config.LeaseTTL / 3
	renewal := time.NewTimer(interval)
	defer renewal.Stop()
	for attempt := 0; ctx.Err() == nil; {
		err := m.step(ctx, takeover, renewal.C)
		if err == nil {
			takeover, attempt = false, 0
			renewal.Reset(interval)
			continue
		}
		if ctx.Err() != nil {
			return
		}
		m.store.config.Log.WarnContext(ctx, "registration of the router is not up to date", "error", err)
		_ = Pause(ctx, min(backoffOf(attempt+5), m.store.config.LeaseTTL/4)) // its error is that ctx ended
		attempt++
		renewal.Reset(0)
	}
}

// step registers if there is no lease, else waits for something to do and does it.
func (m *Member) step(ctx context.Context, takeover bool, renewal <-chan time.Time) error {
	if m.lease == clientv3.NoLease {
		return m.register(ctx, takeover)
	}
	select {
	case <-ctx.Done():
		return nil
	case <-m.wake:
	case <-renewal:
	}
	if err := m.renew(ctx); err != nil {
		return err
	}
	return m.flush(ctx)
}

// renew prolongs the lease. Where etcd says that it is gone, the member has none from now on.
func (m *Member) renew(ctx context.Context) error {
	asked := time.Now()
	err := m.store.call(ctx, "renew lease", func(ctx context.Context) error {
		response, err := m.store.client.KeepAliveOnce(ctx, m.lease)
		if err == nil && response.TTL <= 0 {
			return rpctypes.ErrLeaseNotFound
		}
		return err
	})
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		m.lost()
	}
	if err == nil {
		m.hold(asked)
	}
	return err
}

// hold notes that the lease lives for its time to live from asked, a moment before etcd was asked.
func (m *Member) hold(asked time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heldUntil = asked.Add(m.store.config.LeaseTTL)
}

func (m *Member) lost() {
	m.lease = clientv3.NoLease
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heldUntil = time.Time{}
}

// flush writes what was acknowledged since the last time, if anything.
func (m *Member) flush(ctx context.Context) error {
	m.mu.Lock()
	if !m.changed {
		m.mu.Unlock()
		return nil
	}
	m.changed = false
	value, err := m.encode(m.incarnation)
	m.mu.Unlock()
	if err == nil {
		err = m.put(ctx, value)
	}
	if err != nil {
		m.mu.Lock()
		m.changed = true
		m.mu.Unlock()
	}
	return err
}

// encode gives the value of the router's key. mu is held.
func (m *Member) encode(incarnation string) (string, error) {
	value, err := json.Marshal(registration{
		RouterInfo: m.info, Instance: m.instance, Incarnation: incarnation,
		Acknowledged: maps.Clone(m.acknowledged), Planning: maps.Clone(m.planning),
	})
	if err != nil {
		return "", fmt.Errorf("encode registration: %w", err)
	}
	return string(value), nil
}

// put replaces the router's own key. If it is not as this member wrote it last, put looks why.
func (m *Member) put(ctx context.Context, value string) error {
	s, key := m.store, m.store.routerKey(m.info.Name)
	var response *clientv3.TxnResponse
	err := s.call(ctx, "acknowledge", func(ctx context.Context) (err error) {
		response, err = s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", m.revision)).
			Then(clientv3.OpPut(key, value, clientv3.WithLease(m.lease))).
			Else(clientv3.OpGet(key)).
			Commit()
		return err
	})
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		m.lost()
	}
	if err != nil {
		return err
	}
	if response.Succeeded {
		m.revision = response.Header.Revision
		return nil
	}
	kvs := response.Responses[0].GetResponseRange().Kvs
	if len(kvs) == 1 && clientv3.LeaseID(kvs[0].Lease) == m.lease {
		// An earlier write of ours counted although its answer was lost.
		m.revision = kvs[0].ModRevision
		return errors.New("acknowledge: the registration was behind, trying again")
	}
	m.lost()
	return fmt.Errorf("acknowledge: %w", errors.New("the registration is gone, registering again"))
}

// register takes a new lease and writes the router's keys under it, as a new incarnation. Without takeover
// it leaves a live registration of another process alone.
func (m *Member) register(ctx context.Context, takeover bool) error {
	s, key := m.store, m.store.routerKey(m.info.Name)
	kv, err := s.getOne(ctx, "look for the router's name", key)
	if err != nil {
		return err
	}
	var revision int64
	if kv != nil {
		var holder registration
		if err := json.Unmarshal(kv.Value, &holder); err != nil {
			return fmt.Errorf("decode router %s: %w: %w", m.info.Name, ErrCorrupt, err)
		}
		if holder.Instance != m.instance && !takeover {
			return errDisplaced
		}
		revision = kv.ModRevision
	}
	asked := time.Now()
	var granted *clientv3.LeaseGrantResponse
	err = s.call(ctx, "grant lease", func(ctx context.Context) (err error) {
		granted, err = s.client.Grant(ctx, int64(s.config.LeaseTTL/time.Second))
		return err
	})
	if err != nil {
		return err
	}
	incarnation := strconv.FormatUint(uint64(granted.ID), 16)
	m.mu.Lock()
	value, err := m.encode(incarnation)
	m.changed = false
	m.mu.Unlock()
	if err != nil {
		return err
	}
	var response *clientv3.TxnResponse
	err = s.call(ctx, "register router "+m.info.Name, func(ctx context.Context) (err error) {
		response, err = s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", revision)).
			Then(clientv3.OpPut(key, value, clientv3.WithLease(granted.ID)), clientv3.OpPut(s.seenKey(m.info.Name, m.instance), incarnation)).
			Commit()
		return err
	})
	if err == nil && !response.Succeeded {
		err = fmt.Errorf("register router %s: %w: the name changed hands meanwhile", m.info.Name, ErrUnavailable)
	}
	if err != nil {
		return err
	}
	m.lease, m.revision = granted.ID, response.Header.Revision
	m.mu.Lock()
	m.incarnation = incarnation
	m.mu.Unlock()
	m.hold(asked)
	return nil
}
