package exec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/shardyard/shardyard/router/commit"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// SnapshotMode is what a statement on several shards sees of transactions that commit at the same time.
type SnapshotMode uint8

// The modes. docs/snapshots.md says what each gives up.
const (
	// ClusterSnapshot shows every transaction on all shards or on none.
	ClusterSnapshot SnapshotMode = iota
	// ShardSnapshot leaves each shard of a statement its own moment. REPEATABLE READ transactions are as with ClusterSnapshot.
	ShardSnapshot
	// NoSnapshot leaves each shard its own moment in REPEATABLE READ transactions too.
	NoSnapshot
)

// SetSnapshotMode says how the next statements take their snapshots.
func (x *Executor) SetSnapshotMode(mode SnapshotMode) { x.snapshotMode = mode }

// UseGate gives the executor what it takes snapshots of several shards with. Without one each shard has its own.
func (x *Executor) UseGate(gate *commit.Gate) { x.gate = gate }

// A statement's snapshots are to be taken within the first of these bounds, as nothing can be decided meanwhile. A
// shard that does not get that far waits for a lock: the gate is opened, the locks are waited for, and the
// snapshots are taken again, with twice the time.
const (
	firstSnapshotBound = 50 * time.Millisecond
	snapshotAttempts   = 6
	// wholeSnapshotBound is for the snapshots of a transaction: they wait for no lock, and cannot be taken again.
	wholeSnapshotBound = 2 * time.Second
)

// needsGate reports whether a statement on so many shards takes its snapshots under the gate.
func (x *Executor) needsGate(shards int) bool {
	return shards > 1 && x.gate != nil && x.snapshotMode == ClusterSnapshot && !(x.tx.block && x.tx.isolated())
}

// hold takes the gate.
func (x *Executor) hold(ctx context.Context) (*commit.Hold, error) {
	ctx, release := x.Cancellable(ctx)
	defer release()
	return x.gate.Hold(ctx, x.view.Map)
}

// holdFor takes the gate for a statement on so many shards, nil if it needs none.
func (x *Executor) holdFor(ctx context.Context, shards int) (*commit.Hold, error) {
	if !x.needsGate(shards) {
		return nil, nil
	}
	return x.hold(ctx)
}

// awaitBound bounds the time for which a statement that writes keeps the gate. It is long: such a statement cannot be begun again,
// and only a server that is stopped or overloaded comes near it.
const awaitBound = 5 * time.Second

// awaitSnapshots waits until processes that were told to run have taken their snapshots, or wait for locks, as
// statements that write do after that.
func awaitSnapshots(ctx context.Context, hold *commit.Hold, processes []commit.Process) error {
	if hold == nil {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, awaitBound)
	defer cancel()
	err := hold.AwaitSnapshots(bounded, processes)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		return noSnapshot(awaitBound).Because(err)
	}
	return err
}

func noSnapshot(within time.Duration) *pgerr.Error {
	return pgerr.Newf("55P03", "could not take a snapshot of all shards within %s", within).
		WithHint("Shards are busy or tables are locked. Run the statement again, or SET shardyard.snapshot = 'shard' if each shard's own snapshot will do.")
}

// gated runs take, which has shards take their snapshots, while nothing can be decided and all that was is seen. take
// gets the moment until which it may wait, and reports whether all snapshots were taken by then. If not, again is
// called, which waits for what take left under way, and take is tried again.
func (x *Executor) gated(ctx context.Context, bound time.Duration, take func(until time.Time) (taken bool, err error), again func() error) error {
	for attempt := 1; ; attempt++ {
		hold, err := x.hold(ctx)
		if err != nil {
			return err
		}
		taken, err := take(time.Now().Add(bound))
		hold.Release(ctx)
		if err != nil || taken {
			return err
		}
		if attempt == snapshotAttempts {
			return errors.Join(noSnapshot(bound), again())
		}
		if err := again(); err != nil {
			return err
		}
		bound *= 2
	}
}

// drainUntil reads what the links owe, until a moment at the latest; done reports whether that was all. Who is not
// done goes on, and the next Drain reads the rest.
func (x *Executor) drainUntil(ctx context.Context, links []*Link, until time.Time) (done bool, failed error) {
	done = true
	for _, l := range links {
		if len(l.steps) == 0 {
			continue
		}
		err := l.conn.SetReadDeadline(until)
		if err == nil {
			err = x.receive(ctx, l)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			done = false
			if err = l.conn.SetReadDeadline(time.Time{}); err == nil {
				continue
			}
		}
		l.steps = l.steps[:0]
		if !l.conn.Broken() {
			err = errors.Join(err, l.conn.SetReadDeadline(time.Time{}), x.restoreName(ctx, l))
		}
		if l.conn.Broken() {
			x.drop(l)
		}
		if failed == nil {
			failed = err
		}
	}
	return done, failed
}

// drainEach reads everything that the links owe, from all of them though one fails.
func (x *Executor) drainEach(ctx context.Context, links []*Link) (failed error) {
	for _, l := range links {
		if !slices.Contains(x.links, l) {
			continue
		}
		if err := x.Drain(ctx, l); err != nil && failed == nil {
			failed = err
		}
	}
	return failed
}

// takeSnapshots has every shard take its snapshot of a REPEATABLE READ transaction, at one moment: it is about to
// run its first statement, and any shard may be read later.
func (x *Executor) takeSnapshots(ctx context.Context) error {
	if err := x.DrainAll(ctx); err != nil {
		return err
	}
	if err := x.forgetSnapshots(ctx); err != nil {
		return err
	}
	holders := x.view.Map.Holders()
	links := make([]*Link, 0, len(holders))
	var failed error
	for _, shard := range holders {
		l, err := x.linkWithoutFocus(ctx, shard.ID)
		if err == nil {
			err = x.sendOwed(l) // the BEGIN
		}
		if err != nil {
			failed = err
			break
		}
		links = append(links, l)
	}
	if err := x.drainEach(ctx, links); err != nil || failed != nil {
		return errors.Join(failed, err)
	}
	err := x.gated(ctx, wholeSnapshotBound, func(until time.Time) (bool, error) {
		for _, l := range links {
			l.unnamed = 0
			x.queueQuery(l, "SELECT", step{kind: stepQuery, silent: true})
			if err := x.sendOwed(l); err != nil {
				return false, errors.Join(err, x.drainEach(ctx, links))
			}
		}
		taken, err := x.drainUntil(ctx, links, until)
		if err == nil && !taken { // the snapshots of a transaction are taken once only
			err = pgerr.New("40001", "could not take a snapshot of all shards in time").WithHint("Run the transaction again.")
		}
		if err != nil {
			err = errors.Join(err, x.drainEach(ctx, links))
		}
		x.tx.snapshots = err == nil
		return taken, err
	}, func() error { return nil })
	if err != nil && x.tx.block {
		x.tx.status = wire.TxFailed // some may have theirs, so they cannot be taken again
	}
	return err
}

// forgetSnapshots begins the transaction again on connections that have begun it: what was asked of them (a Parse, how a
// setting reads) may have taken their snapshots already, before the gate. No statement of the client has run.
func (x *Executor) forgetSnapshots(ctx context.Context) error {
	for _, l := range slices.Clone(x.links) {
		if !l.begun {
			continue
		}
		if err := x.Command(ctx, l, "ROLLBACK"); err != nil {
			return fmt.Errorf("begin again on shard %s: %w", l.shard, err)
		}
		l.conn.SetSettings(l.saved[0])
		l.begun, l.saved = false, l.saved[:0]
	}
	return nil
}
