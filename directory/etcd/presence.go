package etcd

import (
	"context"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// Attend makes a process known that changes the map without being a router, a command for example, so that routers do
// not take what it is doing for the remains of one that died. It counts as present until leave is called, or for a
// lease after it was last heard of. The name must be its own. leave gives the name up at once, as far as etcd answers.
func (s *Store) Attend(ctx context.Context, name string) (leave func(), err error) {
	if name == "" || strings.Contains(name, "/") {
		return nil, fmt.Errorf("attend as %q: not a name", name)
	}
	granting, cancel := context.WithTimeout(ctx, s.config.RequestTimeout)
	defer cancel()
	lease, err := s.client.Grant(granting, int64(s.config.LeaseTTL/time.Second))
	if err != nil {
		return nil, fmt.Errorf("attend as %s: %w", name, err)
	}
	living := context.WithoutCancel(ctx) // until leave
	session, err := concurrency.NewSession(s.client, concurrency.WithContext(living), concurrency.WithLease(lease.ID))
	if err != nil {
		return nil, fmt.Errorf("attend as %s: %w", name, err)
	}
	if _, err := s.client.Put(granting, s.root+"present/"+name, "", clientv3.WithLease(lease.ID)); err != nil {
		s.endTerm(living, session)
		return nil, fmt.Errorf("attend as %s: %w", name, err)
	}
	return func() { s.endTerm(living, session) }, nil
}

// Present names the processes that attend.
func (s *Store) Present(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.RequestTimeout)
	defer cancel()
	prefix := s.root + "present/"
	found, err := s.client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, fmt.Errorf("list who is present: %w", err)
	}
	names := make([]string, len(found.Kvs))
	for i, kv := range found.Kvs {
		names[i] = strings.TrimPrefix(string(kv.Key), prefix)
	}
	return names, nil
}
