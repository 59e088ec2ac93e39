package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/directory"
)

// sweepBatch is how many leftovers are applied in one transaction.
const sweepBatch = 500

// The waits of a sweep. They are short: while it waits behind a writer, other writers wait behind it.
const (
	sweepLockTimeout  = "SET LOCAL lock_timeout = '200ms'"
	sweepApplyTimeout = "SET LOCAL lock_timeout = '1s'"
)

// lockQuery is the lock that every writer holds, shared (the function capture), until its transaction has ended. So
// under it no change is under way, and every row of the outbox is one that nobody is going to apply.
const lockQuery = "SELECT pg_catalog.pg_advisory_xact_lock(1936224357, pg_catalog.hashtext($1))"

// Sweep applies the changes of one mirror that writers around the router left in the outbox, oldest first, and
// reports how many those were. A change that a destination refuses (a foreign key holds on it) stays in the
// outbox and is part of the error; others are applied all the same. While writers are busy it does nothing.
// It may be interrupted anywhere and run by several processes at once.
func Sweep(ctx context.Context, m *directory.Map, mirror Mirror, dial Dialer) (applied int, err error) {
	s := &sweep{m: m, mirror: mirror, dial: dial, to: make(map[directory.ShardID]*pgx.Conn)}
	defer s.close(ctx)
	if s.from, err = s.connect(ctx, mirror.Authority); err != nil {
		return 0, err
	}
	var left, truncated bool
	err = s.from.QueryRow(ctx, "SELECT pg_catalog.count(*) > 0, coalesce(pg_catalog.bool_or(truncated), false) FROM shardyard.change WHERE mirror = $1",
		mirror.ID).Scan(&left, &truncated)
	if err != nil || !left {
		return 0, err
	}
	for _, shard := range mirror.Destinations {
		conn, err := s.connect(ctx, shard)
		if err != nil {
			return 0, err
		}
		s.to[shard] = conn
	}
	if truncated {
		return s.again(ctx)
	}
	return s.batches(ctx)
}

// sweep is one run for one mirror.
type sweep struct {
	m      *directory.Map
	mirror Mirror
	dial   Dialer
	from   *pgx.Conn
	to     map[directory.ShardID]*pgx.Conn
}

func (s *sweep) connect(ctx context.Context, id directory.ShardID) (*pgx.Conn, error) {
	shard, ok := s.m.Shard(id)
	if !ok {
		return nil, fmt.Errorf("sweep mirror of %s: shard %s is not in the map", s.mirror.Table, id)
	}
	conn, err := s.dial(ctx, *shard, s.m.Database)
	if err != nil {
		return nil, fmt.Errorf("connect to shard %s: %w", id, err)
	}
	return conn, nil
}

func (s *sweep) close(ctx context.Context) {
	if s.from != nil {
		closeConn(ctx, s.from)
	}
	for _, conn := range s.to {
		closeConn(ctx, conn)
	}
}

// locked runs work in a transaction of the authority under the lock. busy: somebody writes.
func (s *sweep) locked(ctx context.Context, work func(pgx.Tx) error) (busy bool, err error) {
	err = pgx.BeginTxFunc(ctx, s.from, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, sweepLockTimeout); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, lockQuery, s.mirror.ID); err != nil {
			busy = stateOf(err) == "55P03"
			return err
		}
		return work(tx)
	})
	if busy {
		return true, nil
	}
	return false, err
}

// batches applies the outbox in batches; where a batch is refused, its changes one by one.
func (s *sweep) batches(ctx context.Context) (applied int, failed error) {
	after, most := int64(0), sweepBatch
	single := int64(0) // up to here changes are applied one by one
	for {
		last, n, err := s.batch(ctx, after, most)
		switch {
		case errors.Is(err, errTruncated):
			n, err := s.again(ctx)
			return applied + n, err // failed is gone with everything else
		case err == nil && n == 0:
			return applied, failed
		case err == nil:
			applied += n
			after = last
		case !strings.HasPrefix(stateOf(err), "23"):
			return applied, errors.Join(failed, err)
		case n > 1:
			most, single = 1, last
			continue
		default:
			failed = errors.Join(failed, fmt.Errorf("apply change %d of %s: %w", last, s.mirror.Table, err))
			after = last
		}
		if after >= single {
			most = sweepBatch
		}
	}
}

// errTruncated: one of the next changes is a truncation.
var errTruncated = errors.New("the table was truncated")

// batch applies the next changes behind one. With an error too it tells how many they were and the last.
func (s *sweep) batch(ctx context.Context, after int64, most int) (last int64, n int, err error) {
	_, err = s.locked(ctx, func(tx pgx.Tx) error {
		var sequences []int64
		var keys []string
		var truncated bool
		err := tx.QueryRow(ctx, `WITH next AS (SELECT * FROM shardyard.change WHERE mirror = $1 AND sequence > $2 ORDER BY sequence LIMIT $3)
			SELECT coalesce(pg_catalog.array_agg(DISTINCT x.sequence), '{}'),
			       coalesce(pg_catalog.array_agg(DISTINCT k.key::text) FILTER (WHERE k.key IS NOT NULL), '{}'),
			       coalesce(pg_catalog.bool_or(x.truncated), false)
			FROM next x CROSS JOIN LATERAL (VALUES (x.old), (x.new)) k(key)`, s.mirror.ID, after, most).Scan(&sequences, &keys, &truncated)
		if err != nil || len(sequences) == 0 {
			return err
		}
		if truncated {
			return errTruncated
		}
		n, last = len(sequences), sequences[len(sequences)-1]
		if _, err := tx.Exec(ctx, "DELETE FROM shardyard.change WHERE sequence = ANY ($1)", sequences); err != nil {
			return err
		}
		var payload *string
		if err := tx.QueryRow(ctx, "SELECT shardyard.mirror_state($1, $2, false)", s.mirror.ID, keys).Scan(&payload); err != nil || payload == nil {
			return err
		}
		return s.write(ctx, func(conn pgx.Tx, _ directory.ShardID) error {
			_, err := conn.Exec(ctx, "SELECT shardyard.mirror_write($1)", *payload)
			return err
		})
	})
	return last, n, err
}

// write does work on every destination, each in a transaction of its own. Those that are committed when another
// fails are right already.
func (s *sweep) write(ctx context.Context, work func(pgx.Tx, directory.ShardID) error) error {
	for _, shard := range s.mirror.Destinations {
		err := pgx.BeginTxFunc(ctx, s.to[shard], pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, sweepApplyTimeout); err != nil {
				return err
			}
			// gofail: var sweepBeforeWrite struct{}
			return work(tx, shard)
		})
		if err != nil {
			return fmt.Errorf("write mirror on shard %s: %w", shard, err)
		}
		// gofail: var sweepAfterWrite struct{}
	}
	return nil
}

// again makes the mirrors anew after somebody truncated the table around the router: what has been inserted since
// then, and mirrored, would go with the truncation if that were just repeated.
func (s *sweep) again(ctx context.Context) (applied int, err error) {
	_, err = s.locked(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "DELETE FROM shardyard.change WHERE mirror = $1", s.mirror.ID)
		if err != nil {
			return err
		}
		applied = int(tag.RowsAffected())
		return s.write(ctx, func(to pgx.Tx, shard directory.ShardID) error {
			// Deleted and not truncated: foreign keys to the table hold, and rows that come back are seen in time.
			for _, statement := range []string{
				fmt.Sprintf("SELECT shardyard.mirror_enforce('%s'::pg_catalog.regclass)", strings.ReplaceAll(s.mirror.Table.String(), "'", "''")),
				"SET LOCAL session_replication_role = 'replica'",
				"SET CONSTRAINTS ALL DEFERRED",
				"DELETE FROM ONLY " + s.mirror.Table.String(),
			} {
				if _, err := to.Exec(ctx, statement); err != nil {
					return err
				}
			}
			return CopyRows(ctx, s.from, s.to[shard], s.mirror.Table)
		})
	})
	if err != nil {
		return 0, err
	}
	return applied, nil
}

func stateOf(err error) string {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return server.Code
	}
	return ""
}
