package commit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Outcome is what became of a transaction.
type Outcome string

// The outcomes, as the decision table has them.
const (
	Committed Outcome = "commit"
	Aborted   Outcome = "abort"
)

// lockTimeout bounds waits for locks on the shards, so that recovery never stands in anybody's way for long.
const lockTimeout = "2s"

// Settle asks the last agent, over a service connection to it, what became of the transaction, and aborts it if
// nothing was decided: after Settle has returned nil no other outcome is possible any more. It waits for a decision
// that is being written. An error says nothing about the outcome.
func Settle(ctx context.Context, agent *pgx.Conn, gid GID) (Outcome, error) {
	// Invariant: the row stands, committed, before anybody acts on the answer; a later decide fails with 23505.
	err := pgx.BeginFunc(ctx, agent, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL synchronous_commit = 'on'; SET LOCAL lock_timeout = '"+lockTimeout+"'"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO shardyard.decision (gid, participants, outcome) VALUES ($1, '{}', 'abort')
			ON CONFLICT (gid) DO NOTHING`, gid.String())
		return err
	})
	if err != nil {
		return "", fmt.Errorf("abort transaction %s: %w", gid, err)
	}
	var outcome Outcome
	if err := agent.QueryRow(ctx, "SELECT outcome FROM shardyard.decision WHERE gid = $1", gid.String()).Scan(&outcome); err != nil {
		return "", fmt.Errorf("read decision of transaction %s: %w", gid, err)
	}
	return outcome, nil
}

// Finish commits or rolls back a prepared transaction on the shard and database that a service connection leads
// to. One that is not there any more was finished by somebody else, which is no error.
func Finish(ctx context.Context, conn *pgx.Conn, gid GID, committed bool) error {
	sql := "ROLLBACK PREPARED '"
	if committed {
		sql = "COMMIT PREPARED '"
	}
	_, err := conn.Exec(ctx, sql+gid.String()+"'")
	var e *pgconn.PgError
	if err != nil && !(errors.As(err, &e) && e.Code == "42704") {
		return fmt.Errorf("finish transaction %s: %w", gid, err)
	}
	return nil
}

// closeTimeout bounds the goodbye to a server.
const closeTimeout = time.Second

// Close closes a service connection.
func Close(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx) // its answers have been read
}
