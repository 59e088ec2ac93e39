package fence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
)

const (
	publishAttempts = 100
	// healTimeout bounds the healing after a publish that failed before it took its epoch.
	healTimeout = 5 * time.Second
)

// Dialer opens a connection to a shard's primary as the service role, which may write shardyard.epoch, see
// all of pg_stat_activity and terminate any backend. Its application_name must not look like a router's
// (see etcd.Member.ApplicationPrefix). The caller closes the connection or keeps it for later.
type Dialer func(ctx context.Context, shard directory.Shard, database string) (*pgx.Conn, error)

// Config of a Fence.
type Config struct {
	// Store holds the maps and the routers.
	Store *etcd.Store
	// Dial reaches the shards.
	Dial Dialer
	// GiveBack takes back a connection of Dial, in the state that it had. Defaults to closing it.
	GiveBack func(ctx context.Context, conn *pgx.Conn)
	// HealDelay is how long Heal waits for a publisher that may be only slow. Defaults to 1s.
	HealDelay time.Duration
	// Log. Defaults to none.
	Log *slog.Logger
}

func (c *Config) validate() error {
	if c.Store == nil || c.Dial == nil {
		return errors.New("fence: a store and a dialer are needed")
	}
	if c.GiveBack == nil {
		c.GiveBack = closeConn
	}
	if c.HealDelay == 0 {
		c.HealDelay = time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Fence publishes changes of ownership. It is safe for concurrent use and holds nothing open.
type Fence struct{ config Config }

// New makes a Fence.
func New(config Config) (*Fence, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	return &Fence{config: config}, nil
}

// Publish applies the change to the map of the database and returns the new map once no statement planned
// under an older one can run on the shards concerned any more; see the package's documentation.
//
// If it returns a map together with an error the change is published but not settled: the caller goes on
// with Settle, or leaves that to whoever resumes its work. With a nil map nothing was published, unless the
// error is etcd.ErrOutcomeUnknown. Waits end with ctx; the error then names the routers that it waited for
// (*etcd.NotAcknowledgedError).
func (f *Fence) Publish(
	ctx context.Context, database string, shards []directory.ShardID, change directory.Change,
) (*directory.Map, error) {
	next, concerned, err := f.publish(ctx, database, shards, change)
	if err != nil {
		return nil, err
	}
	return next, f.settle(ctx, next, concerned)
}

// publish performs steps 1 and 2. It returns the shards concerned too, as the change may remove one.
func (f *Fence) publish(
	ctx context.Context, database string, shards []directory.ShardID, change directory.Change,
) (*directory.Map, []directory.Shard, error) {
	for attempt := range publishAttempts {
		current, err := f.config.Store.LoadMap(ctx, database)
		if err != nil {
			return nil, nil, fmt.Errorf("publish: %w", err)
		}
		next, err := change.Apply(current)
		if err != nil {
			return nil, nil, fmt.Errorf("publish: %w", err)
		}
		concerned, err := lookUp(next, current, shards)
		if err != nil {
			return nil, nil, fmt.Errorf("publish: %w", err)
		}
		floor, err := f.raise(ctx, database, concerned, next.Epoch)
		if err == nil && floor <= next.Epoch {
			err = f.config.Store.Swap(ctx, current, next)
		} else if err == nil {
			// etcd is behind the shards, as after a restore: bring it up to them, then begin again.
			if _, err = f.config.Store.AdvanceEpoch(ctx, database, floor); err == nil {
				continue
			}
		}
		switch {
		case err == nil:
			return next, concerned, nil
		case !errors.Is(err, etcd.ErrConflict):
			f.abandon(ctx, database, next.Epoch)
			return nil, nil, fmt.Errorf("publish: %w", err)
		}
		if err := etcd.Pause(ctx, time.Duration(attempt+1)*time.Millisecond); err != nil {
			return nil, nil, fmt.Errorf("publish: %w", err)
		}
	}
	return nil, nil, fmt.Errorf("publish change of database %q: %w", database, etcd.ErrConflict)
}

// abandon takes the epoch to which some floor may have been raised, so that nobody is kept out by it. What
// it cannot do now a router does with Heal when it meets the floor.
func (f *Fence) abandon(ctx context.Context, database string, epoch directory.Epoch) {
	healing, cancel := context.WithTimeout(context.WithoutCancel(ctx), healTimeout)
	defer cancel()
	if _, err := f.config.Store.AdvanceEpoch(healing, database, epoch); err != nil {
		f.config.Log.WarnContext(ctx, "floor left above the epoch, to be healed by who meets it",
			"database", database, "epoch", epoch, "error", err)
	}
}

// Settle performs what is left to do after the change that led to m was published: it raises the floors
// again (a shard may have failed over), waits for the live routers and terminates the connections of all
// others. It may be called any number of times, by anyone.
func (f *Fence) Settle(ctx context.Context, m *directory.Map, shards []directory.ShardID) error {
	concerned, err := lookUp(m, m, shards)
	if err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	return f.settle(ctx, m, concerned)
}

// settle performs steps 3 and 4, and the first one again.
func (f *Fence) settle(ctx context.Context, m *directory.Map, concerned []directory.Shard) error {
	if _, err := f.raise(ctx, m.Database, concerned, m.Epoch); err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	// Invariant: listed once, after the floor was raised. A connection that is not on this list had not
	// compared the floor before, so it is refused if its router is stale; those that come and go later cannot
	// hold this up.
	activity, err := f.activityOf(ctx, m, concerned)
	if err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	for attempt := 0; ; attempt++ {
		if _, err := f.config.Store.WaitAcknowledged(ctx, m.Database, m.Epoch); err != nil {
			return fmt.Errorf("settle: %w", err)
		}
		done, err := f.terminateDead(ctx, m, concerned, activity)
		if err != nil {
			return fmt.Errorf("settle: %w", err)
		}
		if done {
			break
		}
		if err := etcd.Pause(ctx, time.Duration(min(attempt, 50))*time.Millisecond); err != nil {
			return fmt.Errorf("settle: %w", err)
		}
	}
	f.forgetExpired(ctx, m)
	return nil
}

// Heal is for a router that a shard's floor refused although it has the newest map that it knows of. It
// returns a map of at least that floor: a newer one that etcd has, one that a publisher stores within the
// delay, or else the same map under an advanced epoch.
func (f *Fence) Heal(ctx context.Context, database string, floor directory.Epoch) (*directory.Map, error) {
	for deadline := time.Now().Add(f.config.HealDelay); ; {
		m, err := f.config.Store.LoadMap(ctx, database)
		if err != nil {
			return nil, fmt.Errorf("heal floor %d: %w", floor, err)
		}
		if m.Epoch >= floor {
			return m, nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			break
		}
		if err := etcd.Pause(ctx, min(left, 50*time.Millisecond)); err != nil {
			return nil, fmt.Errorf("heal floor %d: %w", floor, err)
		}
	}
	m, err := f.config.Store.AdvanceEpoch(ctx, database, floor)
	if err != nil {
		return nil, fmt.Errorf("heal floor %d: %w", floor, err)
	}
	f.config.Log.InfoContext(ctx, "epoch advanced to an abandoned floor", "database", database, "epoch", m.Epoch)
	return m, nil
}

// lookUp finds the shards in the new map, or in the old one where the change removes them.
func lookUp(next, current *directory.Map, ids []directory.ShardID) ([]directory.Shard, error) {
	shards := make([]directory.Shard, 0, len(ids))
	for _, id := range ids {
		shard, ok := next.Shard(id)
		if !ok {
			shard, ok = current.Shard(id)
		}
		if !ok {
			return nil, fmt.Errorf("look up shard %s of database %q: %w", id, next.Database, etcd.ErrNotFound)
		}
		shards = append(shards, *shard)
	}
	return shards, nil
}
