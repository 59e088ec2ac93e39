package commit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
)

// preparedQuery lists what is prepared on a shard. Postgres takes a transaction off this list only after new snapshots see it
// (FinishPreparedTransaction in twophase.c).
const preparedQuery = `SELECT gid FROM pg_catalog.pg_prepared_xact()
WHERE dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) AND pg_catalog.starts_with(gid, '` + prefix + `/')`

// The routers that decided usually finish at this very moment, so the gate looks again a few times, after pauses that
// double, before it does it for them; finishBound bounds the whole.
const (
	finishLooks      = 5
	firstFinishPause = time.Millisecond
	finishBound      = 2 * time.Second
)

// pending is a prepared transaction that is decided, on one shard.
type pending struct {
	at  int // place of the shard in the round
	gid GID
}

// finishDecided returns when no transaction is prepared on any shard whose decision to commit stands. All shards are locked.
func (r *round) finishDecided(ctx context.Context) error {
	prepared, err := r.prepared()
	if err != nil || len(prepared) == 0 {
		return err
	}
	// gofail: var gateBeforeDecided struct{}
	decided, err := r.decided(prepared)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(finishBound)
	for look, wait := 1, firstFinishPause; ; look, wait = look+1, 2*wait {
		// Nothing is decided while the shards are locked, so this list only gets shorter.
		rest := make([]pending, 0, len(prepared))
		for _, p := range prepared {
			if decided[p.gid] {
				rest = append(rest, p)
			}
		}
		if len(rest) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return &blockedError{shard: r.shards[rest[0].at].ID, what: "transaction " + rest[0].gid.String() + " is decided and cannot be finished"}
		}
		if look >= finishLooks {
			if err := r.finish(ctx, rest); err != nil {
				return err
			}
		} else if err := sleep(ctx, wait); err != nil {
			return err
		}
		if prepared, err = r.prepared(); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// prepared lists our prepared transactions of all shards.
func (r *round) prepared() ([]pending, error) {
	for _, c := range r.conns {
		c.send(preparedQuery)
	}
	var found []pending
	var failed error
	for i, c := range r.conns { // all of them: each owes an answer
		rows, err := c.receive()
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("list prepared transactions of shard %s: %w", c.shard, err))
		}
		for _, row := range rows {
			if gid, ok := Parse(row[0]); ok {
				found = append(found, pending{at: i, gid: gid})
			}
		}
	}
	return found, failed
}

// decided asks the last agents which transactions are to be committed.
func (r *round) decided(prepared []pending) (map[GID]bool, error) {
	asked := make(map[directory.ShardID]map[string]bool)
	for _, p := range prepared {
		if asked[p.gid.Agent] == nil {
			asked[p.gid.Agent] = make(map[string]bool)
		}
		asked[p.gid.Agent]["'"+p.gid.String()+"'"] = true
	}
	var agents []*gateConn
	for _, c := range r.conns {
		gids, ok := asked[c.shard]
		if !ok {
			continue
		}
		delete(asked, c.shard)
		var list []string
		for gid := range gids {
			list = append(list, gid)
		}
		c.send("SELECT gid FROM shardyard.decision WHERE outcome = '" + string(Committed) + "' AND gid IN (" + strings.Join(list, ",") + ")")
		agents = append(agents, c)
	}
	decided := make(map[GID]bool)
	var failed error
	for _, c := range agents {
		rows, err := c.receive()
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("read decisions of shard %s: %w", c.shard, err))
		}
		for _, row := range rows {
			if gid, ok := Parse(row[0]); ok {
				decided[gid] = true
			}
		}
	}
	for agent := range asked {
		// Its decision cannot be read, so whether it is seen wholly cannot be known.
		failed = errors.Join(failed, pgerr.Newf(pgerr.CannotConnectNow,
			"a transaction is prepared whose last agent %s is not a shard of this cluster", agent).
			WithHint("SHOW TRANSACTIONS lists it."))
	}
	return decided, failed
}

// finish commits prepared transactions for the routers that should have done it. That another one does it at the same
// moment is no error.
func (r *round) finish(ctx context.Context, rest []pending) error {
	byShard := make(map[int][]pending)
	for _, p := range rest {
		byShard[p.at] = append(byShard[p.at], p)
	}
	errs := make([]error, len(r.shards))
	var work sync.WaitGroup
	for at, list := range byShard {
		work.Go(func() { errs[at] = r.finishOn(ctx, r.shards[at], list) })
	}
	work.Wait()
	return errors.Join(errs...)
}

func (r *round) finishOn(ctx context.Context, shard directory.Shard, list []pending) error {
	conn, err := r.gate.cfg.Dial(ctx, shard, r.database)
	if err != nil {
		return err
	}
	defer Close(ctx, conn)
	for _, p := range list {
		// gofail: var gateBeforeFinish struct{}
		if err := Finish(ctx, conn, p.gid, true); err != nil && !isBusy(err) {
			return err
		}
		// gofail: var gateAfterFinish struct{}
	}
	return nil
}
