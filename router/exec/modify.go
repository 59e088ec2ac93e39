package exec

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/commit"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// maxReturned bounds the bytes of RETURNING rows, and of notices, that wait in memory until every shard has
// run its piece to the end. Beyond it rows go to the client before that; where they cannot, because the
// client asked for a part of them only, the statement fails with 54000.
const maxReturned = 16 << 20

// Piece is what one shard runs of a statement that writes on several.
type Piece struct {
	Shard     directory.ShardID
	Statement *Statement
	// Bind holds the values and formats. The formats of the result must be alike in all pieces.
	Bind *wire.Bind
	// Types are the parameters' types (home's OIDs) where known, for the OIDs within binary values.
	Types []uint32
	// Shift is added to error positions, unless Statement.NoPosition.
	Shift int
}

// ModifyRequest is a statement that writes on several shards.
type ModifyRequest struct {
	// Pieces have a shard of their own each.
	Pieces []Piece
	// Meaning is the session's, as for Parse.
	Meaning string
	// Portal is the client's name of the portal; the shards' portals have the same.
	Portal string
	// InOrder runs the pieces one after the other, as they stand, instead of all at once. They are about whole tables, so
	// the notices of the first shard are those of all.
	InOrder bool
	// Order has for each row that the client gave, in its order, the index of the piece that stores it; nil if the
	// statement does not give rows. Rows come back in this order if that is known: EachRow says that every row is returned,
	// else each piece must have returned all of its rows. If it is not known they come back piece by piece.
	Order   []int32
	EachRow bool
	// Blind says that the statement reads nothing but the rows that it writes, as INSERT … VALUES does: it does not matter
	// whether the shards' snapshots are of one moment.
	Blind bool
	// Move, unless nil: the rows may belong to other shards afterwards. Their keys stand at the end of each row returned.
	Move *planner.MoveData
	// Entries are those of DIRECTORY groups that are known; Resolve looks others up, or makes them. For Move.
	Entries *directory.Entries
	Resolve func(ctx context.Context, missing []directory.MissingEntry) (*directory.Entries, error)
}

// Modification is a statement that writes on several shards: bound on each of them by Modify, run by Run.
// It belongs to the goroutine of its Executor. Between two calls nothing is in flight.
type Modification struct {
	x       *Executor
	request ModifyRequest
	parts   []*part
	columns []byte       // body of the client's RowDescription; nil: it returns no rows
	held    atomic.Int64 // bytes of rows and notices that the parts keep
	started bool
	current int     // part that rows are taken from
	order   []int32 // what is left of the request's, if rows are sent in that order
	scratch []byte
}

// Modify binds a statement on all its shards at once and learns the description of its rows. The caller has
// seen to it that the shards commit together: it is in a transaction block, an implicit one (BeginImplicit)
// or a pipeline that Sync ends. After an error the transaction has failed: nothing of the statement may be
// committed. An error of a shard is returned whole.
func (x *Executor) Modify(ctx context.Context, r ModifyRequest) (*Modification, error) {
	x.task.Leave() // its pieces have goroutines of their own
	m := &Modification{x: x, request: r}
	for i := range r.Pieces {
		if _, err := x.linkWithoutFocus(ctx, r.Pieces[i].Shard); err != nil {
			return nil, err // nothing was sent: see linkAll
		}
	}
	var failed error
	for i := range r.Pieces {
		if failed = m.open(ctx, &r.Pieces[i]); failed != nil {
			break
		}
	}
	for _, p := range m.parts { // all of them, so that none owes an answer when one fails
		failed = firstInText(failed, x.Drain(ctx, p.portal.link))
	}
	if failed == nil {
		failed = m.describe()
	}
	if failed != nil {
		return nil, failed
	}
	return m, nil
}

func (m *Modification) open(ctx context.Context, piece *Piece) error {
	x := m.x
	if slices.ContainsFunc(m.parts, func(p *part) bool { return p.portal.link.shard == piece.Shard }) {
		return pgerr.Newf(pgerr.InternalError, "shard %s has two pieces of a statement", piece.Shard)
	}
	l, err := x.linkWithoutFocus(ctx, piece.Shard)
	if err != nil {
		return err
	}
	bind, err := x.bindFor(l, piece)
	if err != nil {
		return err
	}
	before := len(l.steps)
	name, err := x.Parse(ctx, l, piece.Statement, false, m.request.Meaning)
	if err != nil {
		return err
	}
	p := &part{x: x, held: &m.held, step: step{shift: piece.Shift, noPosition: piece.Statement.NoPosition, part: piece.Statement.Part}}
	p.portal.link, p.portal.name = l, m.request.Portal
	p.quiet = m.request.InOrder && len(m.parts) > 0
	p.portal.noPosition, p.portal.part = piece.Statement.NoPosition, piece.Statement.Part
	l.pipelined = true
	l.out = wire.AppendBind(l.out, p.portal.name, name, bind.Formats, bind.Params, bind.ResultFormats)
	l.steps = append(l.steps, step{kind: stepBind, silent: true, noPosition: p.portal.noPosition, part: p.portal.part})
	x.describePortal(&p.portal, true, &p.seen)
	for i := before; i < len(l.steps); i++ {
		l.steps[i].shift = piece.Shift
	}
	m.parts = append(m.parts, p)
	l.out = wire.AppendFlush(l.out)
	return x.sendOwed(l)
}

// firstInText is the one of two errors that stands first in the client's text, as Postgres would find it first.
func firstInText(a, b error) error {
	if a == nil || b == nil {
		return cmp.Or(a, b)
	}
	var left, right *pgerr.Error
	if errors.As(a, &left) && errors.As(b, &right) && right.Position > 0 && (left.Position == 0 || right.Position < left.Position) {
		return b
	}
	return a
}

// bindFor is the piece's Bind with the OIDs of the link's shard in its binary values.
func (x *Executor) bindFor(l *Link, piece *Piece) (*wire.Bind, error) {
	if !l.NeedsParameterTypes(piece.Bind) {
		return piece.Bind, nil
	}
	copied := *piece.Bind
	copied.Params = make([][]byte, len(piece.Bind.Params))
	for i, p := range piece.Bind.Params {
		if p != nil {
			copied.Params[i] = append([]byte{}, p...)
		}
	}
	return &copied, x.TranslateParameters(l, &copied, piece.Types)
}

func (m *Modification) describe() error {
	if len(m.parts) == 0 {
		return pgerr.New(pgerr.InternalError, "a statement has no piece for any shard")
	}
	first := m.parts[0].seen
	for _, p := range m.parts[1:] {
		if (first.Columns == nil) != (p.seen.Columns == nil) || first.Columns != nil && !sameColumns(first.Columns, p.seen.Columns) {
			return pgerr.New(pgerr.StaleMap, "the shards disagree on the columns of the result").
				WithHint("A table is being changed. Try the statement again.")
		}
	}
	m.columns = first.Columns
	if m.request.Move == nil {
		return nil
	}
	if !m.request.Move.Returning {
		m.columns = nil
		return nil
	}
	columns, err := wire.DecodeRowDescription(nil, first.Columns)
	if err != nil {
		return err
	}
	m.columns = wire.AppendRowDescription(nil, columns[:len(columns)-m.request.Move.Hidden])[5:]
	return nil
}

// AppendDescription appends what the client is told of the rows: RowDescription or NoData.
func (m *Modification) AppendDescription(dst []byte) []byte {
	if m.columns == nil {
		return wire.AppendNoData(dst)
	}
	return wire.AppendFrame(dst, wire.TypeRowDescription, m.columns)
}

// Run runs the statement to its end on all shards at once, the first time it is called, and sends the client up to
// maxRows returned rows (0: all), with their description in front if describe, and CommandComplete or PortalSuspended.
// Nothing is sent before every shard has succeeded, unless the rows exceed a bound (16 MiB); with maxRows above 0 the
// statement fails with 54000 then. If one shard fails, what runs on the others is cancelled and its error returned.
func (m *Modification) Run(ctx context.Context, maxRows int32, describe bool) error {
	if m.columns == nil {
		maxRows = 0
	}
	if !m.started {
		moves := m.request.Move != nil
		err := m.execute(ctx, maxRows > 0 || moves)
		if err == nil && moves {
			err = m.move(ctx)
		}
		if err != nil {
			return m.fail(ctx, err)
		}
	} else if m.columns == nil {
		return pgerr.Newf("55000", "portal %q cannot be run", m.request.Portal)
	}
	if describe && m.columns != nil {
		m.scratch = wire.AppendFrame(m.scratch[:0], wire.TypeRowDescription, m.columns)
		if err := m.x.out.Append(m.scratch); err != nil {
			return m.fail(ctx, err)
		}
	}
	sent := int64(0)
	for maxRows == 0 || sent < int64(maxRows) {
		sentRow, more, err := m.sendNext()
		if err != nil {
			return m.fail(ctx, err)
		}
		if !more {
			m.complete(sent)
			return nil
		}
		if sentRow {
			sent++
		}
	}
	m.x.out.Put(wire.AppendPortalSuspended)
	return nil
}

// RunSilently runs the statement to its end. The client gets nothing but its notices.
func (m *Modification) RunSilently(ctx context.Context) error {
	if err := m.execute(ctx, true); err != nil {
		return m.fail(ctx, err)
	}
	for {
		_, more, err := m.sendNext()
		if err != nil {
			return m.fail(ctx, err)
		}
		if !more {
			return m.Close(ctx)
		}
	}
}

// execute starts all pieces, and waits until each has ended or filled its share of the memory. whole: the rows must
// not exceed it.
func (m *Modification) execute(ctx context.Context, whole bool) error {
	if err := m.x.cancelHeard(); err != nil {
		return err
	}
	m.started = true
	if m.request.InOrder {
		if err := m.oneByOne(ctx); err != nil {
			return err
		}
	} else {
		if err := m.start(ctx); err != nil {
			return err
		}
		if err := m.collect(ctx, m.parts); err != nil {
			return err
		}
	}
	for _, p := range m.parts {
		if p.running && whole {
			return pgerr.Newf("54000", "the rows returned exceed %d MiB, and only a part of them was asked for, or their shard key is changed", maxReturned>>20).
				WithHint("Fetch all rows at once (without a row limit), or change fewer rows in a statement.")
		}
	}
	if m.columns != nil && m.orderKnown() {
		m.order = m.request.Order
	}
	return nil
}

// oneByOne runs the pieces one after the other. They lock whole tables, for which they need no snapshot.
func (m *Modification) oneByOne(ctx context.Context) error {
	for i, p := range m.parts {
		m.x.Used(p.portal.link, false)
		p.portal.link.alone = true
		if err := p.start(); err != nil {
			return err
		}
		if err := m.collect(ctx, m.parts[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// start starts all pieces. Each takes its snapshot when it begins.
func (m *Modification) start(ctx context.Context) error {
	shards := len(m.parts)
	if m.request.Blind && !m.x.tx.isolated() {
		shards = 1
	}
	hold, err := m.x.holdFor(ctx, shards)
	if err != nil {
		return err
	}
	defer hold.Release(ctx)
	processes := make([]commit.Process, len(m.parts))
	for i, p := range m.parts {
		m.x.Used(p.portal.link, false)
		p.portal.link.alone = true
		if err := p.start(); err != nil {
			return err
		}
		processes[i] = commit.Process{Shard: p.portal.link.shard, PID: p.portal.link.conn.PID()}
	}
	return awaitSnapshots(ctx, hold, processes)
}

// orderKnown reports whether it is known which of the client's rows each returned row is.
func (m *Modification) orderKnown() bool {
	if m.request.EachRow {
		return true
	}
	given := make([]int64, len(m.parts))
	for _, i := range m.request.Order {
		given[i]++
	}
	for i, p := range m.parts {
		if n, ok := wire.TagRows([]byte(p.tag)); p.running || !ok || n != given[i] {
			return false
		}
	}
	return true
}

// collect reads the answers of all pieces, each on a goroutine of its own. When one fails the others are cancelled.
func (m *Modification) collect(ctx context.Context, parts []*part) error {
	ended := make(chan *part, len(parts))
	for _, p := range parts {
		go func() {
			p.err = p.fill()
			ended <- p
		}()
	}
	var failed error
	var stops []func()
	reading := make(map[*part]bool, len(parts))
	for _, p := range parts {
		reading[p] = true
	}
	for range parts {
		p := <-ended
		delete(reading, p)
		if p.err == nil || failed != nil {
			continue
		}
		failed = p.err
		for other := range reading {
			other.discard.Store(true)
			stops = append(stops, cancelling(ctx, other.portal.link.conn.Canceller()))
		}
	}
	for _, stop := range stops {
		stop()
	}
	return failed
}

// sendNext sends the next frame of the answer; row says that it was a row, more that there was one.
func (m *Modification) sendNext() (row, more bool, err error) {
	frame, more, err := m.nextFrame()
	if frame == nil || err != nil {
		return false, more, err
	}
	return frame[0] == wire.TypeDataRow, more, m.x.out.Append(frame)
}

// nextFrame is the next frame of the answer, valid until the next call; more is false at its end.
func (m *Modification) nextFrame() (frame []byte, more bool, err error) {
	for len(m.order) > 0 {
		frame, ok, err := m.parts[m.order[0]].next()
		if err != nil {
			return nil, false, err
		}
		if !ok || frame[0] == wire.TypeDataRow {
			m.order = m.order[1:]
		}
		if ok {
			return frame, true, nil
		}
	}
	for ; m.current < len(m.parts); m.current++ {
		frame, ok, err := m.parts[m.current].next()
		if err != nil {
			return nil, false, err
		}
		if !ok {
			continue
		}
		if move := m.request.Move; frame[0] == wire.TypeDataRow && move != nil {
			if m.scratch, err = wire.AppendDataRowTrimmed(m.scratch[:0], frame[5:], move.Hidden); err != nil {
				return nil, false, err
			}
			frame = m.scratch
		}
		return frame, true, nil
	}
	return nil, false, nil
}

// complete sends the command tag. Its count is that of the rows changed or, as in Postgres, of the rows that this call
// returned.
func (m *Modification) complete(sent int64) {
	tag, total := m.parts[0].tag, int64(0)
	counted := false
	for _, p := range m.parts {
		if n, ok := wire.TagRows([]byte(p.tag)); ok {
			total, counted = total+n, true
		}
	}
	if m.columns != nil {
		total = sent
	}
	if counted {
		if i := strings.LastIndexByte(tag, ' '); i >= 0 {
			tag = tag[:i]
		}
		tag += " " + strconv.FormatInt(total, 10)
	}
	m.x.out.Put(func(dst []byte) []byte { return wire.AppendCommandComplete(dst, tag) })
}

// fail ends what still runs after an error, and gives lost connections up.
func (m *Modification) fail(ctx context.Context, err error) error {
	for _, p := range m.parts {
		l := p.portal.link
		if !p.running || l.conn.Broken() {
			continue
		}
		if errors.Is(err, ErrClientGone) {
			err = m.x.abandon(ctx, l, err)
			continue
		}
		p.discard.Store(true)
		stop := cancelling(ctx, l.conn.Canceller())
		_ = p.fill() // 57014, as asked for: the first error is the one to tell
		stop()
	}
	for _, p := range m.parts {
		p.running, p.frames = false, nil
		if p.portal.link.conn.Broken() {
			m.x.drop(p.portal.link)
		}
	}
	m.current = len(m.parts)
	return err
}

// Fresh reports whether the statement was not run yet.
func (m *Modification) Fresh() bool { return !m.started }

// Close closes the portals on the shards.
func (m *Modification) Close(ctx context.Context) error {
	for _, p := range m.parts {
		p.frames = nil
		if !slices.Contains(m.x.links, p.portal.link) {
			continue
		}
		m.x.ClosePortal(&p.portal, false)
		if err := m.x.Drain(ctx, p.portal.link); err != nil {
			return err
		}
	}
	return nil
}

// part is one shard's piece under way.
type part struct {
	x      *Executor
	portal Portal
	seen   Description
	step   step // for positions
	held   *atomic.Int64

	running bool   // an Execute is under way
	frames  []byte // rows and notices for the client, not sent yet
	tag     string
	err     error
	quiet   bool        // its notices are those of another part
	discard atomic.Bool // nobody wants its rows any more
}

// start sends the Execute.
func (p *part) start() error {
	l := p.portal.link
	l.pipelined = true
	l.out = wire.AppendExecute(l.out, p.portal.name, 0)
	l.out = wire.AppendFlush(l.out)
	p.running = true
	return p.x.send(l)
}

// fill keeps what the shard sends until its end, or until all parts together hold too much. It may run beside those of
// other parts.
func (p *part) fill() error {
	for p.running && (p.discard.Load() || p.held.Load() < maxReturned) {
		frame, err := p.read()
		if err != nil {
			return err
		}
		if frame != nil && !p.discard.Load() {
			p.frames = append(p.frames, frame...)
			p.held.Add(int64(len(frame)))
		}
	}
	return nil
}

// next is the next frame for the client; ok is false at the end.
func (p *part) next() (frame []byte, ok bool, err error) {
	for {
		if len(p.frames) > 0 {
			size := frameSize(p.frames)
			frame, p.frames = p.frames[:size:size], p.frames[size:]
			return frame, true, nil
		}
		if !p.running {
			return nil, false, nil
		}
		if frame, err = p.read(); frame != nil || err != nil {
			return frame, err == nil, err
		}
	}
}

// frameSize is the length of the first of some frames.
func frameSize(frames []byte) int { return 1 + int(binary.BigEndian.Uint32(frames[1:])) }

// read takes one frame; nil if it is not for the client.
func (p *part) read() ([]byte, error) {
	l := p.portal.link
	frame, err := l.conn.Next()
	if err != nil {
		p.running = false
		return nil, err
	}
	switch frame.Type {
	case wire.TypeDataRow:
		if rows := &p.portal.rows; rows.active && !p.discard.Load() {
			if err := p.x.translateRow(l, rows, frame.Body); err != nil {
				return nil, err
			}
		}
		return frame.Raw, nil
	case wire.TypeNotice:
		if p.quiet {
			return nil, nil
		}
		if wire.ErrorField(frame.Body, wire.FieldPosition) == nil {
			return frame.Raw, nil
		}
		notice := pgerr.FromShard(frame.Body)
		return notice.At(movedPosition(notice, &p.step)).AppendNotice(nil), nil
	case wire.TypeParameterStatus:
		l.noteStatus(&p.step, frame)
	case wire.TypeErrorResponse:
		p.running = false
		l.skipping = true
		return nil, l.serverError(frame.Body, &p.step)
	case wire.TypeCommandComplete:
		p.running = false
		tag, err := wire.DecodeCommandComplete(frame.Body)
		p.tag = string(tag)
		return nil, err
	case wire.TypeEmptyQuery, wire.TypePortalSuspended:
		p.running = false
	}
	return nil, nil
}
