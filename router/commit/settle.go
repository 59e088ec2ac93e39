package commit

import (
	"context"
	"errors"
	"fmt"
	"strconv"
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

// errDecisionMissing: the last agent's transaction seems to have committed, and its decision is not there any
// more. What the participants have to do is not certain, so nothing is done.
var errDecisionMissing = errors.New("its last agent has committed a transaction of that number, but the decision is missing")

// Settle asks the last agent, over a service connection to it, what became of the transaction, and aborts it if
// nothing was decided: after Settle has returned nil no other outcome is possible any more. It waits for a decision
// that is being written. An error says nothing about the outcome. old says that a decision could have been pruned
// already, so that its absence proves nothing.
func Settle(ctx context.Context, agent *pgx.Conn, gid GID, old bool) (Outcome, error) {
	if old {
		status, err := transactionStatus(ctx, agent, gid.Xid)
		if err != nil {
			return "", err
		}
		if status == "committed" {
			outcome, err := decision(ctx, agent, gid)
			if err == nil && outcome == "" {
				err = fmt.Errorf("abort transaction %s: %w", gid, errDecisionMissing)
			}
			return outcome, err
		}
	}
	// Invariant: the row stands, committed, before anybody acts on the answer; a later decide fails with 23505.
	err := pgx.BeginFunc(ctx, agent, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL synchronous_commit = 'on'; SET LOCAL lock_timeout = '"+lockTimeout+"'"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO shardyard.decision (gid, participants, outcome) VALUES ($1, '{}', 'abort')
			ON CONFLICT (gid) DO NOTHING`, gid.String())
		// gofail: var recoveryInAbort struct{}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("abort transaction %s: %w", gid, err)
	}
	outcome, err := decision(ctx, agent, gid)
	if err == nil && outcome == "" {
		err = fmt.Errorf("read decision of transaction %s: %w", gid, pgx.ErrNoRows)
	}
	return outcome, err
}

// decision reads the decision of a transaction at its last agent, "" if there is none yet.
func decision(ctx context.Context, agent *pgx.Conn, gid GID) (Outcome, error) {
	var outcome Outcome
	err := agent.QueryRow(ctx, "SELECT outcome FROM shardyard.decision WHERE gid = $1", gid.String()).Scan(&outcome)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read decision of transaction %s: %w", gid, err)
	}
	return outcome, nil
}

// transactionStatus is what Postgres says of a transaction of its own: "in progress", "committed", "aborted",
// or "" where it knows nothing of it: it is too old, or lost. A crash or failover can lose a transaction that had
// written no WAL to disk, and its number is given to another one then. So "committed" proves nothing by itself, but
// "aborted" does: the transaction that is meant has not committed and never will.
func transactionStatus(ctx context.Context, agent *pgx.Conn, xid uint64) (string, error) {
	var status *string
	err := agent.QueryRow(ctx, "SELECT pg_xact_status($1::text::xid8)", strconv.FormatUint(xid, 10)).Scan(&status)
	var e *pgconn.PgError
	switch {
	case errors.As(err, &e) && e.Code == "22023": // the number is in the future
		return "", nil
	case err != nil:
		return "", fmt.Errorf("read status of transaction %d: %w", xid, err)
	case status == nil:
		return "", nil
	}
	return *status, nil
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

// busyPrepared is the SQLSTATE of a prepared transaction that somebody else is finishing.
const busyPrepared = "55000"

// isBusy reports an error of Finish that says that somebody else is finishing the transaction.
func isBusy(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == busyPrepared
}

// closeTimeout bounds the goodbye to a server.
const closeTimeout = time.Second

// Close closes a service connection.
func Close(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx) // its answers have been read
}
