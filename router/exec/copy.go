package exec

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/pgerr"
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

// CopyOut runs COPY … TO STDOUT on several shards and makes one stream of their data.
func (x *Executor) CopyOut(ctx context.Context, shards []directory.ShardID, sql string, c *planner.CopyData, shift int) error {
	var links []*Link
	for _, shard := range shards {
		l, err := x.Link(ctx, shard)
		if err != nil {
			return err
		}
		links = append(links, l)
	}
	joined := copyJoin{x: x, copy: c, shift: shift}
	for _, l := range links {
		x.Used(l, true)
		l.unnamed = 0
		x.queueQuery(l, sql, step{kind: stepQuery})
	}
	for i, l := range links { // all work at once; their data is taken one after the other
		if err := x.sendOwed(l); err != nil {
			return errors.Join(err, x.cancelRest(ctx, links[:i], nil))
		}
	}
	for i, l := range links {
		if err := joined.shard(ctx, l, i == 0, i == len(links)-1); err != nil {
			return errors.Join(err, x.cancelRest(ctx, links[i+1:], nil))
		}
	}
	x.out.Put(wire.AppendCopyDone)
	x.out.Put(func(dst []byte) []byte {
		return wire.AppendCommandComplete(dst, "COPY "+strconv.FormatInt(joined.rows, 10))
	})
	x.Idle()
	return nil
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

// copyJoin joins the COPY streams of several shards.
type copyJoin struct {
	x     *Executor
	copy  *planner.CopyData
	shift int
	rows  int64
}

// binaryCopyHeader is the length of the fixed part of COPY's binary header; the length of its extension comes last.
const binaryCopyHeader = 19

var binaryCopyTrailer = []byte{0xff, 0xff}

func (j *copyJoin) shard(ctx context.Context, l *Link, first, last bool) error {
	x := j.x
	var failed error
	started := false
	for {
		frame, err := l.conn.Next()
		if err != nil {
			x.drop(l)
			return err
		}
		switch frame.Type {
		case wire.TypeCopyOutResponse:
			if first {
				err = x.out.Append(frame.Raw)
			}
		case wire.TypeCopyData:
			if failed == nil {
				err = j.data(frame, first, last, !started)
				started = true
			}
		case wire.TypeNotice:
			err = x.out.Append(frame.Raw)
		case wire.TypeCommandComplete:
			if tag, err := wire.DecodeCommandComplete(frame.Body); err == nil {
				n, _ := wire.TagRows(tag)
				j.rows += n
			}
		case wire.TypeErrorResponse:
			failed = l.serverError(frame.Body, &step{shift: j.shift})
			if l.conn.Broken() {
				x.drop(l)
				return failed
			}
		case wire.TypeReady:
			l.steps = l.steps[:0]
			return failed
		}
		if err != nil {
			err = x.abandon(ctx, l, err)
			x.drop(l)
			return err
		}
	}
}

// data passes on one message of a shard, without what may come only once: header line, binary header and trailer.
func (j *copyJoin) data(frame wire.Frame, first, last, start bool) error {
	if j.copy.Format != "binary" {
		if start && !first && j.copy.Header {
			return nil
		}
		return j.x.out.Append(frame.Raw)
	}
	body := frame.Body
	if start && !first {
		if len(body) < binaryCopyHeader {
			return pgerr.New(pgerr.InternalError, "a shard's binary COPY begins without its header")
		}
		extension := int(binary.BigEndian.Uint32(body[binaryCopyHeader-4:]))
		if extension > len(body)-binaryCopyHeader {
			return pgerr.New(pgerr.InternalError, "a shard's binary COPY has a header that is too long")
		}
		body = body[binaryCopyHeader+extension:]
	}
	if !last {
		body = bytes.TrimSuffix(body, trailerOf(body, start && first))
	}
	if len(body) == 0 {
		return nil
	}
	j.x.scratch = wire.AppendCopyData(j.x.scratch[:0], body)
	return j.x.out.Append(j.x.scratch)
}

// trailerOf is the trailer if the message is one. A row is a message of its own and begins with the number
// of its columns, so only the trailer is two bytes long, or follows the header of a table without rows.
func trailerOf(body []byte, withHeader bool) []byte {
	if withHeader && len(body) == binaryCopyHeader+len(binaryCopyTrailer) || len(body) == len(binaryCopyTrailer) {
		return binaryCopyTrailer
	}
	return nil
}
