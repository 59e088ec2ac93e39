package exec

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// CopyOut runs COPY … TO STDOUT on several shards and makes one stream of their data.
func (x *Executor) CopyOut(ctx context.Context, shards []directory.ShardID, sql string, c *planner.CopyData, shift int) error {
	joined := copyJoin{x: x, copy: c, shift: shift, sql: sql}
	if err := joined.link(ctx, shards); err != nil {
		return err
	}
	start := joined.start
	if x.needsGate(len(shards)) {
		start = joined.startTogether
	}
	if err := start(ctx); err != nil {
		return errors.Join(err, x.cancelRest(ctx, joined.links, nil))
	}
	for i, l := range joined.links {
		if err := joined.shard(ctx, l, i == 0, i == len(joined.links)-1); err != nil {
			return errors.Join(err, x.cancelRest(ctx, joined.links[i+1:], nil))
		}
	}
	if err := joined.atSavepoint(ctx, "RELEASE SAVEPOINT "); err != nil {
		return err
	}
	x.out.Put(wire.AppendCopyDone)
	x.out.Put(func(dst []byte) []byte {
		return wire.AppendCommandComplete(dst, "COPY "+strconv.FormatInt(joined.rows, 10))
	})
	x.Idle()
	return nil
}

// copyJoin joins the COPY streams of several shards.
type copyJoin struct {
	x     *Executor
	copy  *planner.CopyData
	sql   string
	shift int
	links []*Link
	rows  int64
	// response is the CopyOutResponse of the first shard, where it was read before the data.
	response []byte
	// savepoint: the transaction has one to come back to if the shards must begin again.
	savepoint bool
}

// link takes a link to each shard.
func (j *copyJoin) link(ctx context.Context, shards []directory.ShardID) error {
	j.links = j.links[:0]
	for _, shard := range shards {
		l, err := j.x.Link(ctx, shard)
		if err != nil {
			return err
		}
		j.links = append(j.links, l)
	}
	return nil
}

// start has all shards begin at once; their data is taken one after the other.
func (j *copyJoin) start(context.Context) error {
	for _, l := range j.links {
		j.x.Used(l, true)
		l.unnamed = 0
		j.x.queueQuery(l, j.sql, step{kind: stepQuery})
		if err := j.x.sendOwed(l); err != nil {
			return err
		}
	}
	return nil
}

// copySavepoint is the savepoint to which a COPY that has to begin again goes back.
const copySavepoint = "shardyard_copy"

// startTogether has all shards begin while nothing is decided: a COPY takes its snapshot before it answers. A shard that
// does not answer soon waits for a lock on the table; then the COPY is cancelled everywhere as soon as it got that, and begun again.
func (j *copyJoin) startTogether(ctx context.Context) error {
	x := j.x
	if j.savepoint = x.tx.block; j.savepoint {
		if err := j.atSavepoint(ctx, "SAVEPOINT "); err != nil {
			return err
		}
	}
	return x.gated(ctx, firstSnapshotBound, func(until time.Time) (bool, error) {
		if err := j.start(ctx); err != nil {
			return false, err
		}
		return j.await(ctx, until)
	}, func() error {
		if _, err := j.await(ctx, time.Time{}); err != nil {
			return err
		}
		shards := make([]directory.ShardID, len(j.links))
		for i, l := range j.links {
			shards[i] = l.shard
		}
		if err := errors.Join(x.cancelRest(ctx, j.links, nil), j.atSavepoint(ctx, "ROLLBACK TO SAVEPOINT ")); err != nil {
			return err
		}
		return j.link(ctx, shards)
	})
}

// atSavepoint runs SAVEPOINT and its like, if the COPY has one.
func (j *copyJoin) atSavepoint(ctx context.Context, command string) error {
	if !j.savepoint {
		return nil
	}
	errands := make([]errand, len(j.links))
	for i, l := range j.links {
		errands[i] = errand{link: l, sql: command + copySavepoint}
	}
	return j.x.runAll(ctx, errands)
}

// await reads up to each shard's CopyOutResponse, until a moment at the latest.
func (j *copyJoin) await(ctx context.Context, until time.Time) (done bool, failed error) {
	done = true
	for i, l := range j.links {
		err := l.conn.SetReadDeadline(until)
		if err == nil {
			err = j.awaitResponse(ctx, l, i == 0)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			done, err = false, nil
		}
		if !l.conn.Broken() {
			err = errors.Join(err, l.conn.SetReadDeadline(time.Time{}))
		}
		if failed == nil {
			failed = err
		}
	}
	return done, failed
}

func (j *copyJoin) awaitResponse(ctx context.Context, l *Link, first bool) error {
	if len(l.steps) == 0 || l.copying {
		return nil
	}
	for {
		frame, err := l.conn.Next()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err != nil {
			j.x.drop(l)
			return err
		}
		switch frame.Type {
		case wire.TypeCopyOutResponse:
			if l.copying = true; first {
				j.response = slices.Clone(frame.Raw)
			}
			return nil
		case wire.TypeNotice:
			if err := j.x.passNotice(l, frame.Raw); err != nil {
				err = j.x.abandon(ctx, l, err)
				j.x.drop(l)
				return err
			}
		case wire.TypeErrorResponse:
			failed := l.serverError(frame.Body, &step{shift: j.shift})
			if l.conn.Broken() {
				j.x.drop(l)
				return failed
			}
			l.steps[0].silent = true
			return errors.Join(failed, l.conn.SetReadDeadline(time.Time{}), j.x.run(ctx, l)) // its ReadyForQuery
		}
	}
}

// binaryCopyHeader is the length of the fixed part of COPY's binary header; the length of its extension comes last.
const binaryCopyHeader = 19

var binaryCopyTrailer = []byte{0xff, 0xff}

func (j *copyJoin) shard(ctx context.Context, l *Link, first, last bool) error {
	x := j.x
	var failed error
	started := false
	if l.copying && first {
		if err := x.out.Append(j.response); err != nil {
			err = x.abandon(ctx, l, err)
			x.drop(l)
			return err
		}
	}
	l.copying = false
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
			err = x.passNotice(l, frame.Raw)
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
