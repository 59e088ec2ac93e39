package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/shardyard/shardyard/directory"
)

// RouterInfo is what a router tells of itself.
type RouterInfo struct {
	// Name of the router, unique in the cluster: letters, digits, "-", "_" and ".", at most 36 bytes.
	// It is part of the application_name of its server connections.
	Name string `json:"name"`
	// Address where other routers and people reach it, host:port.
	Address string `json:"address"`
	// CancelPrefix marks the cancel keys that this router gave out.
	CancelPrefix uint16 `json:"cancel_prefix"`
	// Version of the program.
	Version string `json:"version,omitempty"`
}

func (i RouterInfo) validate() error {
	if i.Name == "" || len(i.Name) > 36 {
		return fmt.Errorf("router name %q: must have 1 to 36 bytes", i.Name)
	}
	for _, c := range []byte(i.Name) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return fmt.Errorf("router name %q: only letters, digits, \"-\", \"_\" and \".\"", i.Name)
		}
	}
	return nil
}

// registration is the value of a router's key.
type registration struct {
	RouterInfo
	Instance     string                     `json:"instance"`
	Incarnation  string                     `json:"incarnation"`
	Acknowledged map[string]directory.Epoch `json:"acknowledged"`
	Planning     map[string]directory.Epoch `json:"planning,omitempty"`
}

// RouterState is one instance of a router as etcd knows it.
type RouterState struct {
	// Info is empty but for the name when the instance is not live.
	Info RouterInfo
	// Instance names one call of Register, that is one process.
	Instance string
	// Incarnation names one lease of it: a router whose lease expired comes back as another one.
	Incarnation string
	// Live: it holds its lease. Otherwise it expired: it never said goodbye and may still have
	// connections to shards.
	Live bool
	// Acknowledged epochs by database, of a live one.
	Acknowledged map[string]directory.Epoch
	// Planning are the epochs under which new statements are planned, by database, where they are newer.
	Planning map[string]directory.Epoch
}

// NotAcknowledgedError says which live routers had not acknowledged an epoch when the wait for them ended.
type NotAcknowledgedError struct {
	Database string
	Epoch    directory.Epoch
	// Routers by name, in order. Empty when etcd could not be asked.
	Routers []string
	// Cause is why the wait ended.
	Cause error
}

func (e *NotAcknowledgedError) Error() string {
	who := "etcd to tell which routers are live"
	if len(e.Routers) > 0 {
		who = "routers " + strings.Join(e.Routers, ", ")
	}
	return fmt.Sprintf("wait for epoch %d of database %q: still waiting for %s: %v", e.Epoch, e.Database, who, e.Cause)
}

func (e *NotAcknowledgedError) Unwrap() error { return e.Cause }

// Routers lists all live routers, and the expired instances that have not been forgotten, ordered by name.
// A live instance that took the name of another one appears beside it.
func (s *Store) Routers(ctx context.Context) ([]RouterState, error) {
	routers, _, err := s.routers(ctx)
	return routers, err
}

func (s *Store) routers(ctx context.Context) ([]RouterState, int64, error) {
	var response *clientv3.TxnResponse
	err := s.call(ctx, "list routers", func(ctx context.Context) (err error) {
		response, err = s.client.Txn(ctx).Then(
			clientv3.OpGet(s.routerPrefix(), clientv3.WithPrefix()), clientv3.OpGet(s.seenPrefix(), clientv3.WithPrefix()),
		).Commit()
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	var routers []RouterState
	live := map[string]bool{}
	for _, kv := range response.Responses[0].GetResponseRange().Kvs {
		var r registration
		if err := json.Unmarshal(kv.Value, &r); err != nil {
			return nil, 0, fmt.Errorf("decode router %s: %w: %w", kv.Key, ErrCorrupt, err)
		}
		live[r.Name+"/"+r.Instance] = true
		routers = append(routers, RouterState{
			Info: r.RouterInfo, Instance: r.Instance, Incarnation: r.Incarnation, Live: true,
			Acknowledged: r.Acknowledged, Planning: r.Planning,
		})
	}
	for _, kv := range response.Responses[1].GetResponseRange().Kvs {
		id := strings.TrimPrefix(string(kv.Key), s.seenPrefix())
		if live[id] {
			continue
		}
		name, instance, _ := strings.Cut(id, "/")
		routers = append(routers, RouterState{Info: RouterInfo{Name: name}, Instance: instance, Incarnation: string(kv.Value)})
	}
	slices.SortStableFunc(routers, func(a, b RouterState) int { return strings.Compare(a.Info.Name, b.Info.Name) })
	return routers, response.Header.Revision, nil
}

// WaitAcknowledged waits until every live router has acknowledged epoch (or a later one) of the database,
// or is no longer live. It returns the names of the routers that expired and have not said goodbye: their
// server connections have to be terminated. It waits through outages of etcd, until ctx ends: the error
// then is a *NotAcknowledgedError that names the routers it waits for.
func (s *Store) WaitAcknowledged(ctx context.Context, database string, epoch directory.Epoch) (expired []string, err error) {
	return s.waitRouters(ctx, database, epoch, func(r *RouterState) directory.Epoch { return r.Acknowledged[database] })
}

// WaitPlanning waits until every live router plans new statements of the database under epoch (or a later one), or is no
// longer live. It does not wait for statements that run. It waits and ends as WaitAcknowledged does.
func (s *Store) WaitPlanning(ctx context.Context, database string, epoch directory.Epoch) error {
	_, err := s.waitRouters(ctx, database, epoch, func(r *RouterState) directory.Epoch {
		return max(r.Acknowledged[database], r.Planning[database])
	})
	return err
}

// waitRouters waits until every live router has reached an epoch.
func (s *Store) waitRouters(
	ctx context.Context, database string, epoch directory.Epoch, reached func(*RouterState) directory.Epoch,
) (expired []string, err error) {
	missing := &NotAcknowledgedError{Database: database, Epoch: epoch}
	for attempt := 0; ; attempt++ {
		routers, revision, err := s.routers(ctx)
		if err == nil {
			attempt = 0
			missing.Routers = nil
			if expired = waitedFor(routers, missing, reached); len(missing.Routers) == 0 {
				return expired, nil
			}
			s.awaitRouterChange(ctx, revision)
		} else if !errors.Is(err, ErrUnavailable) && ctx.Err() == nil {
			return nil, fmt.Errorf("wait for epoch %d of database %q: %w", epoch, database, err)
		}
		if ctx.Err() == nil {
			_ = Pause(ctx, min(backoffOf(attempt), watchPause)) // its error is that ctx ended, seen next
		}
		if ctx.Err() != nil {
			missing.Cause = context.Cause(ctx)
			return nil, missing
		}
	}
}

// waitedFor adds the routers that have not reached the epoch to missing and returns those that expired.
func waitedFor(routers []RouterState, missing *NotAcknowledgedError, reached func(*RouterState) directory.Epoch) (expired []string) {
	for i := range routers {
		r := &routers[i]
		switch {
		case !r.Live:
			if !slices.Contains(expired, r.Info.Name) {
				expired = append(expired, r.Info.Name)
			}
		case reached(r) < missing.Epoch:
			missing.Routers = append(missing.Routers, r.Info.Name)
		}
	}
	return expired
}

// awaitRouterChange returns when something under routers/ changed after revision, when that cannot be
// watched, or after some seconds in any case.
func (s *Store) awaitRouterChange(ctx context.Context, revision int64) {
	waiting, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), 5*time.Second)
	defer cancel()
	events := s.client.Watch(waiting, s.routerPrefix(), clientv3.WithPrefix(), clientv3.WithRev(revision+1))
	select {
	case <-events:
	case <-waiting.Done():
	}
}

// Forget removes the trace of an expired router, after its server connections were terminated on every
// shard. It does nothing if the router has come back meanwhile.
func (s *Store) Forget(ctx context.Context, router RouterState) error {
	key := s.seenKey(router.Info.Name, router.Instance)
	return s.call(ctx, "forget router "+router.Info.Name, func(ctx context.Context) error {
		// A router that comes back writes its new incarnation in the same transaction that makes it live.
		_, err := s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.Value(key), "=", router.Incarnation)).
			Then(clientv3.OpDelete(key)).Commit()
		return err
	})
}
