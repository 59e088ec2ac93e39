package commit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/migrations"
)

const (
	// pruneBatch is the number of decisions that are looked at and deleted at a time.
	pruneBatch = 5000
	// pruneTimeout bounds one place's pruning.
	pruneTimeout = 30 * time.Second
	// orphanAge is the age from which the decision of a participant that is in no map any more is not kept.
	orphanAge = 24 * time.Hour
)

// prune removes the decisions that nobody needs any more, at all last agents.
func (r *Resolver) prune(ctx context.Context) {
	maps := r.cfg.Maps()
	var group sync.WaitGroup
	slots := make(chan struct{}, 8)
	for database, m := range maps {
		for _, shard := range m.Shards {
			group.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				bounded, cancel := context.WithTimeout(ctx, pruneTimeout)
				defer cancel()
				err := r.at(bounded, maps, place{database, shard.ID}, func(conn *pgx.Conn) error {
					return r.pruneAt(bounded, conn, m)
				})
				if err != nil && !noDatabase(err) && ctx.Err() == nil {
					r.cfg.Log.WarnContext(ctx, "old decisions not removed", "shard", shard.ID, "database", database, "error", err)
				}
			})
		}
	}
	group.Wait()
}

func (r *Resolver) pruneAt(ctx context.Context, agent *pgx.Conn, m *directory.Map) error {
	version, err := migrations.Version(ctx, agent)
	if err != nil || version == 0 {
		return err
	}
	latest, err := migrations.Latest()
	if err != nil {
		return err
	}
	if version < latest { // an older release of this router made the schema
		return migrations.Apply(ctx, agent.Config())
	}
	for {
		more, err := r.pruneSome(ctx, agent, m)
		if err != nil || !more {
			return err
		}
	}
}

// pruneSome removes a batch; more says that there may be another.
func (r *Resolver) pruneSome(ctx context.Context, agent *pgx.Conn, m *directory.Map) (more bool, err error) {
	// Invariant: an abort stays as long as its transaction could still come to decide. What is older than every
	// running transaction has ended.
	if _, err := agent.Exec(ctx, "SET lock_timeout = '"+lockTimeout+"'"); err != nil {
		return false, fmt.Errorf("set lock_timeout: %w", err)
	}
	if _, err := agent.Exec(ctx, `DELETE FROM shardyard.decision WHERE outcome = 'abort'
		AND decided_at < clock_timestamp() - make_interval(secs => $1)
		AND split_part(gid, '/', 7)::xid8 < pg_snapshot_xmin(pg_current_snapshot())`, r.cfg.Keep.Seconds()); err != nil {
		return false, fmt.Errorf("remove old aborts: %w", err)
	}
	// gofail: var pruneAfterAborts struct{}
	old, err := oldCommits(ctx, agent, r.cfg.Keep)
	if err != nil || len(old) == 0 {
		return false, err
	}
	// Invariant: a commit stays until every participant was seen without the transaction, after the decision was
	// seen: from then on nobody can find it prepared.
	clear, failed := r.clearOf(ctx, m, agent.Config().Database, old)
	if len(clear) == 0 {
		return false, failed
	}
	// gofail: var pruneBeforeDelete struct{}
	if _, err := agent.Exec(ctx, "DELETE FROM shardyard.decision WHERE outcome = 'commit' AND gid = ANY ($1)", clear); err != nil {
		return false, fmt.Errorf("remove old decisions: %w", err)
	}
	return len(clear) == len(old) && len(old) == pruneBatch, failed
}

// oldCommit is a commit whose time has come.
type oldCommit struct {
	gid          string
	participants []string
	orphan       bool
}

func oldCommits(ctx context.Context, agent *pgx.Conn, keep time.Duration) ([]oldCommit, error) {
	rows, err := agent.Query(ctx, `SELECT gid, participants, decided_at < clock_timestamp() - make_interval(secs => $2)
		FROM shardyard.decision WHERE outcome = 'commit' AND decided_at < clock_timestamp() - make_interval(secs => $1)
		ORDER BY decided_at LIMIT $3`, keep.Seconds(), orphanAge.Seconds(), pruneBatch)
	if err != nil {
		return nil, fmt.Errorf("read old decisions: %w", err)
	}
	old, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (o oldCommit, err error) {
		return o, row.Scan(&o.gid, &o.participants, &o.orphan)
	})
	if err != nil {
		return nil, fmt.Errorf("read old decisions: %w", err)
	}
	return old, nil
}

// clearOf are those of the commits that no participant has prepared any more. The error is of participants that
// could not be asked.
func (r *Resolver) clearOf(ctx context.Context, m *directory.Map, database string, old []oldCommit) (clear []string, failed error) {
	prepared := make(map[directory.ShardID]map[string]bool)
	away := make(map[directory.ShardID]bool)
	for _, o := range old {
		for _, name := range o.participants {
			id := directory.ShardID(name)
			shard, ok := m.Shard(id)
			if prepared[id] != nil || away[id] || !ok {
				continue
			}
			gids, err := r.preparedOn(ctx, *shard, database)
			if err != nil {
				away[id] = true
				failed = errors.Join(failed, err)
				continue
			}
			prepared[id] = gids
		}
	}
	for _, o := range old {
		done := true
		for _, name := range o.participants {
			id := directory.ShardID(name)
			gids, seen := prepared[id]
			done = done && (seen && !gids[o.gid] || !seen && !away[id] && o.orphan)
		}
		if done {
			clear = append(clear, o.gid)
		}
	}
	return clear, failed
}

// preparedOn are all identifiers that are prepared in a database of a shard.
func (r *Resolver) preparedOn(ctx context.Context, shard directory.Shard, database string) (map[string]bool, error) {
	conn, err := r.cfg.Dial(ctx, shard, database)
	if err != nil {
		return nil, err
	}
	defer Close(ctx, conn)
	rows, err := conn.Query(ctx, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
	if err != nil {
		return nil, fmt.Errorf("list prepared transactions of shard %s: %w", shard.ID, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list prepared transactions of shard %s: %w", shard.ID, err)
	}
	gids := make(map[string]bool, len(list))
	for _, gid := range list {
		gids[gid] = true
	}
	return gids, nil
}
