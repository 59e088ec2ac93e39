package exec

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/copyrow"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

const (
	// copyFlush is the number of bytes that are collected for a shard.
	copyFlush = 64 << 10
	// copyHeard is how long a shard that takes no data is not listened to.
	copyHeard = 10 * time.Millisecond
	// copyEndTimeout bounds the wait for the other shards of a COPY that has failed, before they are cancelled.
	copyEndTimeout = time.Second
	copyHeader     = 5 // type and length of a CopyData
)

// copyPart is what one shard gets of a COPY.
type copyPart struct {
	c    *copyIn
	link *Link
	step step
	// extended: the shard runs the statement in the implicit transaction of a pipeline.
	extended bool
	ahead    int // ReadyForQuery of earlier statements that are still to come
	started  bool
	response []byte // CopyInResponse

	out    []byte // a CopyData that is being filled
	flying []byte // the one that is on its way
	lines  lineMap

	given   bool // a CopyFail of ours was sent, so a 57014 means nothing
	stopped bool
	done    bool // nothing more is to be read
	failed  *pgerr.Error
	line    int64 // of failed, in the client's data; 0: it has none
	rows    int64
}

// open has a shard start the COPY. Its answer is read later.
func (c *copyIn) open(ctx context.Context, shard directory.ShardID) (*copyPart, error) {
	x := c.x
	l, err := x.linkWithoutFocus(ctx, shard)
	if err != nil {
		return nil, err
	}
	sql, part := c.statement()
	p := &copyPart{c: c, link: l, step: step{kind: stepQuery, shift: c.r.Shift, part: part}, out: make([]byte, copyHeader, copyFlush+copyFlush/4)}
	p.ahead = len(l.steps)
	x.Used(l, false)
	l.unnamed = 0
	l.rows.none()
	if c.r.Dirty {
		x.MarkDirty(shard)
	}
	// In a block a Query ends nothing; in a pipeline it would commit.
	if p.extended = !l.begun; p.extended {
		p.step.kind = stepExecute
		x.queueExtended(l, sql)
	} else {
		x.queueQuery(l, sql, p.step)
	}
	if err := x.sendOwed(l); err != nil {
		return nil, err
	}
	c.parts = append(c.parts, p)
	return p, nil
}

// begin sends what every shard gets first.
func (p *copyPart) begin(ctx context.Context) error {
	if p.c.header != nil {
		return p.add(ctx, p.c.header)
	}
	p.out = append(p.out, p.c.prefix...)
	return nil
}

// add takes a row.
func (p *copyPart) add(ctx context.Context, row *copyrow.Row) error {
	at := len(p.out)
	p.out = append(p.out, row.Raw...)
	if row.Kind == copyrow.Data && p.link.oids != nil && len(p.c.oidAt) > 0 {
		if err := p.translate(row, p.out[at:]); err != nil {
			return err
		}
	}
	lines := int64(1)
	if p.c.r.Copy.Format != "binary" {
		lines = row.Lines(p.c.splitter.Style(), p.lines.shard == 0)
	}
	p.lines.add(lines, row.Line)
	if len(p.out) >= copyFlush {
		return p.flush(ctx)
	}
	return nil
}

// translate rewrites the OIDs in a row of the binary format to the shard's. What is malformed stays: the shard says so.
func (p *copyPart) translate(row *copyrow.Row, copied []byte) error {
	c := p.c
	found := c.reader.Of(row)
	for _, place := range c.oidAt {
		field := found[place]
		if field.Kind != copyrow.Value {
			continue
		}
		value := copied[field.Offset : field.Offset+len(field.Value)]
		err := (translation{c.x.view.Catalog, p.link.oids.ToShard, false}).value(c.rows.Types[c.fields[place]], value, 0)
		var e *pgerr.Error
		if errors.As(err, &e) && e.Code == codeBadBinary {
			copy(value, field.Value)
			continue
		}
		if err != nil {
			c.line = row.Line
			return c.at(pgerr.Of(err), row)
		}
	}
	return nil
}

// flush sends what was collected. It waits while the shard takes no data, and listens to it meanwhile.
func (p *copyPart) flush(ctx context.Context) error {
	if !p.frame() {
		return nil
	}
	if err := p.awaitSent(ctx); err != nil {
		return err
	}
	if err := p.send(); err != nil {
		return err
	}
	return p.c.listen(ctx, p)
}

// frame completes the CopyData in out; it reports false if there is no data.
func (p *copyPart) frame() bool {
	if len(p.out) == copyHeader {
		p.out = p.out[:0]
		return false
	}
	p.out[0] = wire.TypeCopyData
	binary.BigEndian.PutUint32(p.out[1:], uint32(len(p.out)-1))
	return true
}

// send sends out. What was sent before has arrived.
func (p *copyPart) send() error {
	p.out, p.flying = p.flying, p.out
	if err := p.link.conn.Send(p.flying); err != nil {
		return p.lost(err)
	}
	if cap(p.out) < copyHeader || cap(p.out) > 4*copyFlush {
		p.out = make([]byte, copyHeader, copyFlush+copyFlush/4)
	}
	p.out = p.out[:copyHeader]
	return nil
}

// awaitSent waits until the shard has taken what was sent last.
func (p *copyPart) awaitSent(ctx context.Context) error {
	for {
		sent, err := p.link.conn.Sent(copyHeard)
		if err != nil {
			return p.lost(err)
		}
		if sent {
			return nil
		}
		if err := p.c.listen(ctx, p); err != nil {
			return err
		}
	}
}

// stop sends the rest and what ends the data.
func (p *copyPart) stop(ctx context.Context) error {
	if err := p.awaitSent(ctx); err != nil {
		return err
	}
	p.frame()
	p.appendEnd(wire.AppendCopyDone)
	return p.send()
}

func (p *copyPart) appendEnd(end func([]byte) []byte) {
	p.out = end(p.out)
	if p.extended { // the server ignores what asks it to answer while it copies
		p.out = wire.AppendFlush(p.out)
	}
	p.stopped = true
}

// giveUp sends the rest, in which there may be an error yet, and ends the data with a failure; that of a part whose last row
// must be refused ends well.
func (p *copyPart) giveUp(ctx context.Context) error {
	if p.stopped || p.done || p.failed != nil {
		return nil
	}
	for {
		sent, err := p.link.conn.Sent(copyHeard)
		if err != nil {
			return p.lost(err)
		}
		if sent {
			break
		}
		for !p.done && p.link.conn.Readable() {
			if err := p.read(ctx); err != nil {
				return err
			}
		}
		if p.done {
			return nil
		}
	}
	p.frame()
	if p == p.c.doomed {
		p.appendEnd(wire.AppendCopyDone)
	} else {
		p.given = true
		p.appendEnd(func(dst []byte) []byte { return wire.AppendCopyFail(dst, "another shard's part of it failed") })
	}
	return p.send()
}

// lost notes that the connection is gone.
func (p *copyPart) lost(err error) error {
	p.done = true
	p.failed = pgerr.Of(err)
	p.c.x.drop(p.link)
	return errPart
}

// read takes one message of the shard. The error is of the client's connection; an error of the shard is in failed.
func (p *copyPart) read(ctx context.Context) error {
	l, x := p.link, p.c.x
	frame, err := l.conn.Next()
	if err != nil {
		_ = p.lost(err)
		return nil
	}
	switch frame.Type {
	case wire.TypeErrorResponse:
		p.fail(l.serverError(frame.Body, &p.step))
		if l.conn.Broken() {
			p.done = true
			x.drop(l)
		} else if p.extended {
			l.skipping = true
			p.end()
		}
	case wire.TypeNotice:
		if err := x.out.Append(p.notice(frame)); err != nil {
			return x.abandon(ctx, l, err)
		}
	case wire.TypeParameterStatus:
		if p.ahead == 0 { // else it is our own doing: what prepares the link answers first
			l.noteStatus(&p.step, frame)
		}
	case wire.TypeCopyInResponse:
		p.started = true
		p.response = append(p.response[:0], frame.Raw...)
	case wire.TypeCommandComplete:
		if p.ahead > 0 {
			break
		}
		if tag, err := wire.DecodeCommandComplete(frame.Body); err == nil {
			p.rows, _ = wire.TagRows(tag)
		}
		if p.extended {
			p.end()
		}
	case wire.TypeReady:
		if p.ahead > 0 {
			p.ahead--
			break
		}
		p.end()
	}
	return nil
}

func (p *copyPart) end() {
	p.done = true
	p.link.steps = p.link.steps[:0]
}

// fail notes an error of the shard, with the line of the client's data.
func (p *copyPart) fail(e *pgerr.Error) {
	if p.failed != nil || p.given && e.Code == pgerr.QueryCanceled {
		return
	}
	where, line, named := p.lines.translated(e.Where, p.c.r.Copy.Table.Name)
	if named {
		e = e.Within(p.c.unnumbered(where))
	}
	p.failed, p.line = e, line
}

// notice is a notice as the client gets it.
func (p *copyPart) notice(frame wire.Frame) []byte {
	if wire.ErrorField(frame.Body, wire.FieldWhere) == nil {
		return frame.Raw
	}
	notice := pgerr.FromShard(frame.Body)
	where, _, named := p.lines.translated(notice.Where, p.c.r.Copy.Table.Name)
	if !named {
		return frame.Raw
	}
	return notice.Within(p.c.unnumbered(where)).AppendNotice(nil)
}

// abort ends the COPY on all shards. Of its error and theirs the one is returned that is first in the data, as one Postgres,
// which would have ended there, would have told it. An error of ours without a line goes before all.
func (c *copyIn) abort(ctx context.Context, own error, ownLine int64) error {
	if errors.Is(own, ErrClientGone) {
		c.breakAll()
		return own
	}
	stop := c.cancelLate(ctx)
	var gone error
	for _, end := range []bool{false, true} {
		for _, p := range c.parts {
			if end {
				gone = errors.Join(gone, p.awaitEnd(ctx))
			} else if err := p.giveUp(ctx); !errors.Is(err, errPart) {
				gone = errors.Join(gone, err)
			}
		}
	}
	stop()
	if gone != nil {
		c.breakAll()
		return gone
	}
	if c.doomed != nil && c.doomed.failed == nil && own == nil {
		c.line = c.doomedLine
		own = c.at(pgerr.Unsupported("a shard takes a row in which the router finds no shard key", "Write the key in another form."), nil)
		ownLine = c.doomedLine
	}
	if own != nil && ownLine == 0 {
		return own
	}
	return c.earliest(own, ownLine)
}

func (c *copyIn) earliest(own error, ownLine int64) error {
	for _, p := range c.parts {
		if p.failed != nil && (own == nil || p.line > 0 && (ownLine == 0 || p.line < ownLine)) {
			own, ownLine = p.failed, p.line
		}
	}
	return own
}

// awaitEnd reads what a part still has to say.
func (p *copyPart) awaitEnd(ctx context.Context) error {
	for !p.done {
		if err := p.read(ctx); err != nil {
			return err
		}
	}
	return nil
}

// cancelLate cancels the parts that have not ended after a while: they may wait for a lock.
func (c *copyIn) cancelLate(ctx context.Context) (stop func()) {
	var cancellers []backend.Canceller
	for _, p := range c.parts {
		if !p.done {
			cancellers = append(cancellers, p.link.conn.Canceller())
		}
	}
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		timer := time.NewTimer(copyEndTimeout)
		defer timer.Stop()
		select {
		case <-quit:
			return
		case <-timer.C:
		}
		var stops []func()
		for _, canceller := range cancellers {
			stops = append(stops, cancelling(ctx, canceller))
		}
		<-quit
		for _, stop := range stops {
			stop()
		}
	}()
	return func() { close(quit); <-ended }
}

// breakAll gives up all connections on which the COPY still runs: the client is gone, so all of it is rolled back.
func (c *copyIn) breakAll() {
	for _, p := range c.parts {
		if !p.done {
			p.done = true
			c.x.drop(p.link)
		}
	}
}
