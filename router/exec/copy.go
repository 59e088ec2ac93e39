package exec

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/shardyard/shardyard/router/wire"
)

// CopyingIn reports whether a shard waits for COPY data of the client.
func (x *Executor) CopyingIn() bool { return x.copyIn != nil }

// CopyLook is how long CopyData waits for what a shard says during a COPY (an error, notices of triggers);
// it looks every copyLookInterval.
const (
	copyLook         = 200 * time.Microsecond
	copyLookInterval = 5 * time.Millisecond
)

// CopyData passes on COPY data, as the frames came. ended: the shard ended the COPY early, by an error.
func (x *Executor) CopyData(ctx context.Context, frames []byte) (ended bool, err error) {
	l := x.copyIn
	if err := l.conn.Write(frames); err != nil {
		return true, x.copyEnded(ctx, err)
	}
	if time.Since(x.copyLooked) < copyLookInterval {
		return false, nil
	}
	x.copyLooked = time.Now()
	if err := l.conn.SetReadDeadline(time.Now().Add(copyLook)); err != nil {
		return true, x.copyEnded(ctx, err)
	}
	err = x.receiveCopy(ctx)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if err = l.conn.SetReadDeadline(time.Time{}); err == nil {
			return false, nil
		}
	}
	return true, x.copyEnded(ctx, err)
}

// CopyEnd passes on the client's CopyDone or CopyFail and relays how the COPY ended.
func (x *Executor) CopyEnd(ctx context.Context, frame []byte) error {
	l := x.copyIn
	if l.pipelined { // the server ignores Sync and Flush while it copies, and needs one of them to answer now
		frame = wire.AppendFlush(append([]byte(nil), frame...))
	}
	err := l.conn.Write(frame)
	if err == nil {
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
	l, s := x.copyIn, &x.copyStep
	for {
		frame, err := l.conn.Next()
		if err != nil {
			return err
		}
		switch frame.Type {
		case wire.TypeErrorResponse:
			x.copyFailed = l.serverError(frame.Body, s)
			if l.conn.Broken() || s.kind != stepQuery {
				l.skipping = s.kind != stepQuery
				return x.takeCopyFailure()
			}
			continue
		case wire.TypeCopyInResponse:
			x.copyNext = true
			return x.out.Append(frame.Raw)
		}
		done, err := x.answer(l, s, frame, x.copyFailed != nil)
		if err != nil {
			return x.abandon(ctx, l, err)
		}
		if done {
			return x.takeCopyFailure()
		}
	}
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
