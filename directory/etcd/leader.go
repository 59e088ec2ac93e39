package etcd

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/client/v3/concurrency"
)

// leadRetry is the pause before the next attempt to be elected, after one that failed.
const leadRetry = time.Second

// Lead stands for election to an office (a name, such as "worker") until ctx ends. While this process holds it, work
// runs; its context ends when the office is lost, which others may learn of before work does: what it does must be safe
// to be done twice. name tells the holder to people who look into etcd. The error is ctx's.
func (s *Store) Lead(ctx context.Context, office, name string, work func(ctx context.Context)) error {
	for ctx.Err() == nil {
		if err := s.lead(ctx, office, name, work); err != nil && ctx.Err() == nil {
			s.config.Log.WarnContext(ctx, "not elected", "office", office, "error", err)
		}
		timer := time.NewTimer(leadRetry)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	return ctx.Err()
}

// lead is one term, and the wait for it.
func (s *Store) lead(ctx context.Context, office, name string, work func(context.Context)) error {
	granting, cancel := context.WithTimeout(ctx, s.config.RequestTimeout)
	lease, err := s.client.Grant(granting, int64(s.config.LeaseTTL/time.Second))
	cancel()
	if err != nil {
		return fmt.Errorf("stand for %s: %w", office, err)
	}
	session, err := concurrency.NewSession(s.client, concurrency.WithContext(ctx), concurrency.WithLease(lease.ID))
	if err != nil {
		return fmt.Errorf("stand for %s: %w", office, err)
	}
	defer s.endTerm(ctx, session)
	term, end := context.WithCancel(ctx)
	defer end()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-session.Done():
			end()
		case <-term.Done():
		}
	}()
	defer func() { end(); <-watched }()
	election := concurrency.NewElection(session, s.root+"leaders/"+office)
	if err := election.Campaign(term, name); err != nil {
		return fmt.Errorf("stand for %s: %w", office, err)
	}
	work(term)
	return nil
}

// endTerm gives the office up at once, not when the lease expires.
func (s *Store) endTerm(ctx context.Context, session *concurrency.Session) {
	session.Orphan()
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.RequestTimeout)
	defer cancel()
	_, _ = s.client.Revoke(leaving, session.Lease()) // else it expires
}
