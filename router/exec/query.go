package exec

import (
	"context"
	"errors"

	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// QueryOptions say how a text of the simple protocol is relayed.
type QueryOptions struct {
	// Shift is the number of characters in front of the text in what the client sent.
	Shift int
	// NoPosition: the text is not what the client sent.
	NoPosition bool
	// Part, unless nil, is all of the text that the client sent.
	Part     *Part
	ReadOnly bool
	// Silent keeps the answer from the client, but for notices if Notices is set.
	Silent, Notices bool
}

// Query relays a text of the simple protocol to one shard, and its answer up to ReadyForQuery. An error of
// the shard is returned, not sent. It may end in the middle, waiting for COPY data: see CopyingIn.
func (x *Executor) Query(ctx context.Context, l *Link, sql string, o QueryOptions) error {
	if err := x.cancelHeard(); err != nil {
		x.Idle()
		return err
	}
	x.Used(l, o.ReadOnly)
	l.alone = true
	l.rows.none()
	l.unnamed = 0
	x.queueQuery(l, sql, step{kind: stepQuery, shift: o.Shift, noPosition: o.NoPosition, part: o.Part, silent: o.Silent, notices: o.Notices, hold: l.holds()})
	hold := l.holds()
	x.heldTag = x.heldTag[:0]
	err := x.run(ctx, l)
	if hold && err == nil && x.copyIn == nil {
		err = x.Settle(ctx)
	}
	if x.copyIn == nil {
		err = x.afterQuery(ctx, l, err)
	}
	return err
}

// afterQuery gives the connection back if nothing holds it.
func (x *Executor) afterQuery(ctx context.Context, l *Link, err error) error {
	l.pipelined = false
	if l.begun && !l.conn.Broken() && l.conn.TxStatus() == wire.TxIdle {
		// The statement itself ended the transaction: PREPARE TRANSACTION, or a COMMIT that failed.
		l.begun = false
		return errors.Join(err, x.Rollback(ctx))
	}
	x.Idle()
	return err
}

// Idle gives back what no transaction and no pipeline holds. It is called behind each statement.
func (x *Executor) Idle() {
	if x.tx.block || x.pipelining() {
		return
	}
	x.tx.present = ""
	for _, l := range x.links {
		l.endTransaction()
	}
	x.releaseSides()
	x.releaseIdle()
}

// FunctionCall relays a FunctionCall message, as it came.
func (x *Executor) FunctionCall(ctx context.Context, l *Link, frame []byte) error {
	x.Used(l, false)
	l.out = append(l.out, frame...)
	l.steps = append(l.steps, step{kind: stepQuery})
	return x.afterQuery(ctx, l, x.run(ctx, l))
}

func isServerError(err error) bool {
	var e *pgerr.Error
	return errors.As(err, &e) && e.Code != pgerr.ConnectionFailure
}
