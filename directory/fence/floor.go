package fence

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/directory"
)

// Floor reads the floor of the database that conn is connected to: 0 where the bookkeeping schema is absent.
// Any role may. Inside a transaction an absent schema aborts it.
func Floor(ctx context.Context, conn *pgx.Conn) (directory.Epoch, error) {
	var floor int64
	err := conn.QueryRow(ctx, "SELECT floor FROM shardyard.epoch").Scan(&floor)
	var refused *pgconn.PgError
	switch {
	case errors.As(err, &refused) && (refused.Code == "42P01" || refused.Code == "3F000"):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("read floor: %w", err)
	}
	return directory.Epoch(floor), nil
}

// raise brings the floor of the database on each shard to at least epoch and returns the highest floor
// that is there now. It first connects to all, so that an unreachable shard leaves no floor raised.
func (f *Fence) raise(
	ctx context.Context, database string, shards []directory.Shard, epoch directory.Epoch,
) (directory.Epoch, error) {
	connections := make([]*pgx.Conn, len(shards))
	defer func() {
		for _, conn := range connections {
			if conn != nil {
				f.config.GiveBack(ctx, conn)
			}
		}
	}()
	err := eachShard(shards, func(i int, shard directory.Shard) (err error) {
		connections[i], err = f.config.Dial(ctx, shard, database)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("raise floor to %d: connect to %w", epoch, err)
	}
	floors := make([]directory.Epoch, len(shards))
	err = eachShard(shards, func(i int, _ directory.Shard) (err error) {
		floors[i], err = raiseOne(ctx, connections[i], epoch)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("raise floor to %d: %w", epoch, err)
	}
	highest := epoch
	for _, floor := range floors {
		highest = max(highest, floor)
	}
	return highest, nil
}

func raiseOne(ctx context.Context, conn *pgx.Conn, epoch directory.Epoch) (directory.Epoch, error) {
	var floor int64
	// Whatever the role's or database's defaults are: others raise the same row at the same time.
	options := pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}
	err := pgx.BeginTxFunc(ctx, conn, options, func(tx pgx.Tx) error {
		// A floor that a crash of the shard could take back would be none.
		if _, err := tx.Exec(ctx, "SET LOCAL synchronous_commit = on"); err != nil {
			return err
		}
		return tx.QueryRow(ctx, "UPDATE shardyard.epoch SET floor = greatest(floor, $1) RETURNING floor", int64(epoch)).Scan(&floor)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, errors.New("shardyard.epoch has no row: the bookkeeping schema is damaged")
	}
	return directory.Epoch(floor), err
}

// eachShard runs work for all shards at once, waits for all, and joins their errors, each with its shard's name.
func eachShard(shards []directory.Shard, work func(int, directory.Shard) error) error {
	errs := make([]error, len(shards))
	var group sync.WaitGroup
	for i, shard := range shards {
		group.Go(func() {
			if err := work(i, shard); err != nil {
				errs[i] = fmt.Errorf("shard %s: %w", shard.ID, err)
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

func closeConn(ctx context.Context, conn *pgx.Conn) {
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), healTimeout)
	defer cancel()
	_ = conn.Close(closing) // nothing is lost: what mattered was committed
}
