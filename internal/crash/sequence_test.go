package crash

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// taker inserts rows that get numbers, over one session.
type taker struct {
	number int
	conn   *pgx.Conn
	ids    []int64 // of INSERT … RETURNING, in the order of the answers
	rows   atomic.Int64
}

// take inserts rows in every way until it fails or is told to stop.
func (k *taker) take(ctx context.Context, stop *atomic.Bool) error {
	for round := 0; !stop.Load(); round++ {
		var err error
		switch round % 4 {
		case 0:
			err = k.returning(ctx, "INSERT INTO numbered (taker) VALUES ($1) RETURNING id", 1)
		case 1:
			err = k.returning(ctx, "INSERT INTO numbered (taker) VALUES ($1), ($1), ($1) RETURNING id", 3)
		case 2:
			err = k.returning(ctx, "INSERT INTO numbered (taker) SELECT $1::int FROM generate_series(1, 5) i ORDER BY i RETURNING id", 5)
		case 3:
			_, err = k.conn.CopyFrom(ctx, pgx.Identifier{"numbered"}, []string{"taker"}, pgx.CopyFromSlice(7, func(int) ([]any, error) {
				return []any{int32(k.number)}, nil
			}))
			if err == nil {
				k.rows.Add(7)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (k *taker) returning(ctx context.Context, sql string, rows int64) error {
	answer, err := k.conn.Query(ctx, sql, k.number)
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(answer, pgx.RowTo[int64])
	if err == nil {
		k.ids = append(k.ids, ids...)
		k.rows.Add(rows)
	}
	return err
}

// TestNumbersOnce: a router is killed while its sessions insert rows that a sequence numbers, and others go on. No number is given
// twice, each session's ascend, and what was acknowledged stands.
func TestNumbersOnce(t *testing.T) {
	binary := buildRouter(t)
	other, stopSurvivor := survivor(t, "numbers")
	defer stopSurvivor()
	for _, sql := range []string{"CREATE TABLE numbered (id bigserial PRIMARY KEY, taker int NOT NULL)", "SHARD TABLE numbered BY HASH (id) PARTITIONS 16"} {
		if _, err := other.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	takers := []*taker{{conn: other}}
	survivorTaker := takers[0]
	for round := range 2 {
		victim := start(t, binary, "victim")
		var here []*taker
		for i := range 3 {
			here = append(here, &taker{number: 1 + 3*round + i, conn: victim.connect()})
		}
		takers = append(takers, here...)
		killWhileTaking(t, victim, here, survivorTaker)
	}
	wait(t, "nothing is prepared", func() bool { return count(t, "SELECT count(*) FROM pg_prepared_xacts") == 0 })
	checkNumbers(t, takers)
}

// killWhileTaking has all takers insert, kills the router of some of them, and lets the other go on for a while.
func killWhileTaking(t *testing.T, victim *process, doomed []*taker, other *taker) {
	t.Helper()
	var stop, never atomic.Bool
	var work sync.WaitGroup
	for _, k := range doomed {
		work.Go(func() {
			err := k.take(t.Context(), &never)
			var refused *pgconn.PgError
			if errors.As(err, &refused) {
				t.Errorf("taker %d: %v", k.number, err)
			}
		})
	}
	work.Go(func() {
		if err := other.take(t.Context(), &stop); err != nil {
			t.Errorf("taker on the other router: %v", err)
		}
	})
	for _, k := range doomed {
		wait(t, "rows are inserted", func() bool { return k.rows.Load() >= 40 })
	}
	victim.kill()
	before := other.rows.Load()
	wait(t, "the other router goes on", func() bool { return other.rows.Load() >= before+40 })
	stop.Store(true)
	work.Wait()
}

// checkNumbers compares what stands on the shards with what the takers were told.
func checkNumbers(t *testing.T, takers []*taker) {
	t.Helper()
	standing := make(map[int64]int)
	perTaker := make(map[int]int64)
	onShards(t, func(_ int, conn *pgx.Conn) {
		rows, err := conn.Query(t.Context(), "SELECT id, taker FROM numbered")
		must(t, err)
		var id int64
		var number int
		_, err = pgx.ForEachRow(rows, []any{&id, &number}, func() error {
			if by, taken := standing[id]; taken {
				t.Errorf("%d was given to takers %d and %d", id, by, number)
			}
			standing[id] = number
			perTaker[number]++
			return nil
		})
		must(t, err)
	})
	for _, k := range takers {
		if !slices.IsSorted(k.ids) {
			t.Errorf("the numbers of taker %d do not ascend: %v", k.number, k.ids)
		}
		for _, id := range k.ids {
			if by, stands := standing[id]; !stands || by != k.number {
				t.Errorf("%d was told to taker %d and does not stand", id, k.number)
			}
		}
		if perTaker[k.number] < k.rows.Load() {
			t.Errorf("taker %d was told of %d rows, %d stand", k.number, k.rows.Load(), perTaker[k.number])
		}
	}
}
