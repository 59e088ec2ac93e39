package exec

import (
	"context"

	"github.com/shardyard/shardyard/router/wire"
)

// CopyingIn reports whether a COPY waits for data of the client.
func (x *Executor) CopyingIn() bool { return x.copyIn != nil || x.spread != nil }

// CopyData takes a message of COPY data. ended: the COPY ended early, by an error.
func (x *Executor) CopyData(ctx context.Context, frame []byte) (ended bool, err error) {
	if x.spread != nil {
		return x.spread.data(ctx, frame[copyHeader:])
	}
	l := x.copyIn
	if l.out = append(l.out, frame...); len(l.out) < batchBound {
		return false, nil
	}
	return x.CopySend(ctx)
}

// CopySend passes on the data that CopyData took, after what the shard has to say: it may take no more before that is read.
func (x *Executor) CopySend(ctx context.Context) (ended bool, err error) {
	if x.spread != nil {
		return x.spread.work(ctx)
	}
	if len(x.copyIn.out) == 0 {
		return false, nil
	}
	l := x.copyIn
	for sent := false; !sent; {
		if sent, err = l.conn.Sent(copyHeard); err != nil {
			return true, x.copyEnded(ctx, err)
		}
		for l.conn.Readable() || x.copyFailed != nil {
			if over, err := x.copyAnswer(ctx); over {
				l.out = l.out[:0]
				return true, x.copyEnded(ctx, err)
			}
		}
	}
	if err := x.send(l); err != nil {
		return true, x.copyEnded(ctx, err)
	}
	return false, nil
}

// CopyEnd passes on the client's CopyDone or CopyFail and relays how the COPY ended.
func (x *Executor) CopyEnd(ctx context.Context, frame []byte) error {
	if x.spread != nil {
		return x.spread.clientEnd(ctx, frame)
	}
	l := x.copyIn
	ended, err := x.CopySend(ctx)
	if ended {
		return err
	}
	l.out = append(l.out, frame...)
	if l.pipelined { // the server ignores Sync and Flush while it copies, and needs one of them to answer now
		l.out = wire.AppendFlush(l.out)
	}
	if err = x.send(l); err == nil {
		err = x.receiveCopy(ctx)
	}
	if err == nil && x.copyNext { // another COPY of the same text
		x.copyNext = false
		return nil
	}
	return x.copyEnded(ctx, err)
}

func (x *Executor) copyEnded(ctx context.Context, err error) error {
	l := x.copyIn
	x.copyIn, x.copyNext = nil, false
	if l.conn.Broken() {
		x.drop(l)
		return err
	}
	if x.copyStep.hold && err == nil {
		err = x.Settle(ctx)
	}
	if x.copyStep.kind == stepQuery {
		return x.afterQuery(ctx, l, err)
	}
	return err
}

// receiveCopy reads up to the end of the COPY's step, or to the next COPY of it.
func (x *Executor) receiveCopy(ctx context.Context) error {
	for {
		if over, err := x.copyAnswer(ctx); over {
			return err
		}
	}
}

// copyAnswer takes one message of the server; over says that it was the end of the COPY, or the next one's beginning.
func (x *Executor) copyAnswer(ctx context.Context) (over bool, err error) {
	l, s := x.copyIn, &x.copyStep
	frame, err := l.conn.Next()
	if err != nil {
		return true, err
	}
	switch frame.Type {
	case wire.TypeErrorResponse:
		x.copyFailed = l.serverError(frame.Body, s)
		if l.conn.Broken() || s.kind != stepQuery {
			l.skipping = s.kind != stepQuery
			return true, x.takeCopyFailure()
		}
		return false, nil
	case wire.TypeCopyInResponse:
		x.copyNext = true
		return true, x.out.Append(frame.Raw)
	}
	done, err := x.answer(l, s, frame, x.copyFailed != nil)
	if err != nil {
		return true, x.abandon(ctx, l, err)
	}
	if done {
		return true, x.takeCopyFailure()
	}
	return false, nil
}

func (x *Executor) takeCopyFailure() error {
	if x.copyFailed == nil {
		return nil
	}
	failed := x.copyFailed
	x.copyFailed = nil
	return failed
}

// AbortCopy ends a COPY whose client sent something else.
func (x *Executor) AbortCopy(ctx context.Context, reason string) error {
	return x.CopyEnd(ctx, wire.AppendCopyFail(nil, reason))
}

// sendOwed sends what is queued; the answers are read by the caller.
func (x *Executor) sendOwed(l *Link) error {
	err := x.send(l)
	if l.conn.Broken() {
		x.drop(l)
	}
	return err
}

// cancelRest cancels what runs on the links and reads their answers away.
func (x *Executor) cancelRest(ctx context.Context, links []*Link, done func(*Link) bool) error {
	for _, l := range links {
		if len(l.steps) == 0 || l.conn.Broken() || done != nil && done(l) {
			continue
		}
		l.copying = false
		stop := cancelling(ctx, l.conn.Canceller())
		for i := range l.steps {
			l.steps[i].silent = true
		}
		_ = x.run(ctx, l) // 57014, or nothing: the first error is the one to tell
		stop()
	}
	x.Idle()
	return nil
}
