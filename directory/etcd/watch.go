package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// watchPause is the longest wait between two tries to reach etcd.
const watchPause = 2 * time.Second

// errBackwards: etcd shows less than it did, as after a restore from an older backup.
var errBackwards = errors.New("etcd shows an older directory than before")

// Watch calls deliver with the directory as it is now and then with each newer state of it, one call after
// the other, until ctx ends; it returns the cause of that end. States that follow each other quickly may be
// delivered as one; the last one never is left out. It outlives outages of etcd, restarts and compactions.
//
// Invariant: revision and epochs never fall from one call to the next. Should etcd come back with an older
// state (restored from a backup), Watch says so in the log and waits until it is newer again; after such a
// restore routers are restarted.
func (s *Store) Watch(ctx context.Context, deliver func(*Snapshot)) error {
	var last *Snapshot
	for attempt := 0; ; attempt++ {
		before := last
		err := s.watchOnce(ctx, &last, deliver)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if last != before {
			attempt = 0
		}
		if !errors.Is(err, ErrNotFound) {
			s.config.Log.WarnContext(ctx, "watch of the directory interrupted", "error", err)
		}
		if err := Pause(ctx, min(backoffOf(attempt+5), watchPause)); err != nil {
			return err
		}
	}
}

// watchOnce loads, delivers and follows until something breaks.
func (s *Store) watchOnce(ctx context.Context, last **Snapshot, deliver func(*Snapshot)) error {
	if err := s.refresh(ctx, last, deliver); err != nil {
		return err
	}
	// Without a leader the member that we watch could be cut off and silent for ever.
	following, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	// Since the load was linearizable, nothing can fall between it and the watch.
	events := s.client.Watch(following, s.stateKey(), clientv3.WithPrefix(), clientv3.WithRev((*last).Revision+1))
	for response := range events {
		if err := response.Err(); err != nil {
			return fmt.Errorf("watch directory: %w", err)
		}
		newer := false
		for _, event := range response.Events {
			newer = newer || event.Kv.ModRevision > (*last).Revision
		}
		if !newer {
			continue
		}
		if err := s.refresh(ctx, last, deliver); err != nil {
			return err
		}
	}
	return errors.New("watch directory: the stream ended")
}

// refresh loads the directory and delivers it if it differs from the last.
func (s *Store) refresh(ctx context.Context, last **Snapshot, deliver func(*Snapshot)) error {
	snapshot, err := s.Load(ctx)
	if err != nil {
		return err
	}
	previous := *last
	if previous == nil {
		*last = snapshot
		deliver(snapshot)
		return nil
	}
	if err := follows(previous, snapshot); err != nil {
		return err
	}
	*last = snapshot
	if !maps.Equal(previous.modified, snapshot.modified) {
		deliver(snapshot)
	}
	return nil
}

func follows(previous, next *Snapshot) error {
	if next.Revision < previous.Revision {
		return fmt.Errorf("compare revisions %d and %d: %w", previous.Revision, next.Revision, errBackwards)
	}
	for database, m := range next.Maps {
		if old, ok := previous.Maps[database]; ok && m.Epoch < old.Epoch {
			return fmt.Errorf("compare epochs %d and %d of database %q: %w", old.Epoch, m.Epoch, database, errBackwards)
		}
	}
	return nil
}
