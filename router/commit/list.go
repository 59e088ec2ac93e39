package commit

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/directory"
)

// State is how far a transaction that shards have prepared has come.
type State string

// The states of a prepared transaction.
const (
	Preparing  State = "preparing"  // nothing is decided yet
	Committing State = "committing" // it is decided and not yet committed everywhere
	Aborting   State = "aborting"   // it will be rolled back
	InDoubt    State = "in doubt"   // its last agent cannot be asked, or does not know it any more
)

// Transaction is one that at least one shard has prepared.
type Transaction struct {
	GID   GID
	Age   time.Duration // since a shard prepared it
	State State
	// Prepared are the shards that have it prepared now, in order of their names.
	Prepared []directory.ShardID
}

// List looks at all shards of a database and lists the transactions of routers that are prepared there, the
// oldest first, and the shards that could not be asked. Any goroutine may call it.
func (r *Resolver) List(ctx context.Context, m *directory.Map) (list []Transaction, silent []directory.ShardID) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	maps := map[string]*directory.Map{m.Database: m}
	var group sync.WaitGroup
	var mu sync.Mutex
	var found []doubt
	for _, shard := range m.Shards {
		group.Go(func() {
			var here []doubt
			err := r.at(ctx, maps, place{m.Database, shard.ID}, func(conn *pgx.Conn) (err error) {
				here, err = listPrepared(ctx, conn, shard.ID, maps)
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			found = append(found, here...)
			if err != nil && !noDatabase(err) {
				silent = append(silent, shard.ID)
			}
		})
	}
	group.Wait()
	sortDoubts(found)
	slices.Sort(silent)
	at := make(map[GID]int)
	agents := make(map[directory.ShardID][]int)
	for _, d := range found {
		if d.database != m.Database {
			continue
		}
		i, known := at[d.gid]
		if !known {
			i = len(list)
			at[d.gid] = i
			list = append(list, Transaction{GID: d.gid, Age: d.age, State: InDoubt})
			agents[d.gid.Agent] = append(agents[d.gid.Agent], i)
		}
		list[i].Prepared = append(list[i].Prepared, d.shard)
	}
	for agent, indices := range agents {
		group.Go(func() {
			_ = r.at(ctx, maps, place{m.Database, agent}, func(conn *pgx.Conn) error { // those that are not asked stay in doubt
				for _, i := range indices {
					state, err := stateOf(ctx, conn, list[i].GID)
					if err != nil {
						return err
					}
					list[i].State = state
				}
				return nil
			})
		})
	}
	group.Wait()
	for i := range list {
		slices.Sort(list[i].Prepared)
	}
	return list, silent
}

// stateOf asks the last agent how far a transaction has come.
func stateOf(ctx context.Context, agent *pgx.Conn, gid GID) (State, error) {
	status, err := transactionStatus(ctx, agent, gid.Xid) // before the decision, which it implies
	if err != nil {
		return InDoubt, err
	}
	outcome, err := decision(ctx, agent, gid)
	switch {
	case err != nil:
		return InDoubt, err
	case outcome == Committed:
		return Committing, nil
	case outcome == Aborted, status == "aborted":
		return Aborting, nil
	case status == "in progress":
		return Preparing, nil
	}
	return InDoubt, nil
}

// noDatabase reports whether a shard lacks the database: it holds nothing of it.
func noDatabase(err error) bool {
	var reported *pgconn.PgError
	return errors.As(err, &reported) && reported.Code == "3D000"
}
