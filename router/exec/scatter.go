package exec

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/merge"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// ScatterRequest is a read of several shards.
type ScatterRequest struct {
	Shards    []directory.ShardID
	Statement *Statement // with the text for the shards
	Meaning   string
	// Portal is the client's name of the portal; the shards' portals have the same.
	Portal string
	// Bind holds the values and formats.
	Bind *wire.Bind
	// Types are the parameters' types (home's OIDs) where known.
	Types []uint32
	Merge *planner.Merge
	// Offset and Limit are the values of Merge's; a Limit below 0 is none.
	Offset, Limit int64
	Tag           string
	// Shift is added to error positions, unless Statement.NoPosition.
	Shift int
	// DateStyle of the session: text dates can be merged only if it is ISO.
	DateStyle string
}

// Scatter is a read of several shards under way: a portal on each of them. Between two calls nothing is in
// flight: each shard has answered up to its row limit.
type Scatter struct {
	x       *Executor
	request ScatterRequest
	sources []*source
	merger  *merge.Merger
	cutter  merge.Cutter
	columns []byte // body of the client's RowDescription
	hidden  int
	started bool
	ended   bool
	current int // source that is read, without a merge
}

// OpenScatter binds the statement on all shards and learns the description of its rows.
func (x *Executor) OpenScatter(ctx context.Context, r ScatterRequest) (*Scatter, error) {
	list, err := x.OpenScatters(ctx, []ScatterRequest{r})
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// OpenScatters opens several reads that see the same: parts of one statement.
func (x *Executor) OpenScatters(ctx context.Context, requests []ScatterRequest) ([]*Scatter, error) {
	list := make([]*Scatter, len(requests))
	for i := range requests {
		r := &requests[i]
		s := &Scatter{x: x, request: *r, cutter: merge.NewCutter(r.Offset, r.Limit)}
		if r.Merge != nil {
			s.hidden = r.Merge.Hidden
		}
		s.extendFormats()
		list[i] = s
	}
	if err := x.bindScatters(ctx, list); err != nil {
		return nil, err
	}
	for _, s := range list {
		if err := s.describe(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// extendFormats gives the hidden columns a format where the client gave one for each column.
func (s *Scatter) extendFormats() {
	bind := *s.request.Bind
	if len(bind.ResultFormats) > 1 {
		bind.ResultFormats = append([]int16(nil), bind.ResultFormats...)
		for range s.hidden {
			bind.ResultFormats = append(bind.ResultFormats, 1)
		}
	}
	s.request.Bind = &bind
}

// bindScatters binds the portals: that is when they take their snapshots.
func (x *Executor) bindScatters(ctx context.Context, list []*Scatter) error {
	shards := shardsOf(list)
	gated := x.needsGate(len(shards))
	if err := x.linkAll(ctx, shards); err != nil {
		return err
	}
	links, failed := x.openSources(ctx, list, gated)
	bind := func() error {
		for _, s := range list {
			if err := s.bind(); err != nil {
				return err
			}
		}
		return nil
	}
	switch {
	case failed != nil:
	case !gated:
		failed = bind()
	default:
		failed = x.gated(ctx, firstSnapshotBound, func(until time.Time) (bool, error) {
			if err := bind(); err != nil {
				return false, err
			}
			return x.drainUntil(ctx, links, until)
		}, func() error {
			if err := x.drainEach(ctx, links); err != nil {
				return err
			}
			for _, s := range list {
				for _, src := range s.sources {
					x.ClosePortal(&src.portal, false)
				}
			}
			return nil
		})
	}
	if err := x.drainEach(ctx, links); err != nil && failed == nil { // so that none owes an answer when one fails
		failed = err
	}
	return failed
}

// shardsOf are the shards of some reads, each once, in the order in which connections are taken.
func shardsOf(list []*Scatter) []directory.ShardID {
	if len(list) == 1 {
		return list[0].request.Shards
	}
	var shards []directory.ShardID
	for _, s := range list {
		shards = append(shards, s.request.Shards...)
	}
	slices.Sort(shards)
	return slices.Compact(shards)
}

// openSources opens the sources of some reads, and returns their links, each once.
func (x *Executor) openSources(ctx context.Context, list []*Scatter, atOnce bool) (links []*Link, err error) {
	for _, s := range list {
		for _, shard := range s.request.Shards {
			if err := s.open(ctx, shard, atOnce); err != nil {
				return links, err
			}
			if l := s.sources[len(s.sources)-1].portal.link; !slices.Contains(links, l) {
				links = append(links, l)
			}
		}
	}
	return links, nil
}

// open takes a link to a shard and has the statement parsed there; at once: the link is sent what it gets for that.
func (s *Scatter) open(ctx context.Context, shard directory.ShardID, atOnce bool) error {
	x, r := s.x, &s.request
	l, err := x.linkWithoutFocus(ctx, shard)
	if err != nil {
		return err
	}
	src := &source{x: x, shift: r.Shift, bind: r.Bind}
	if l.NeedsParameterTypes(r.Bind) {
		copied := *r.Bind
		copied.Params = make([][]byte, len(r.Bind.Params))
		for i, p := range r.Bind.Params {
			if p != nil {
				copied.Params[i] = append([]byte{}, p...)
			}
		}
		if err := x.TranslateParameters(l, &copied, r.Types); err != nil {
			return err
		}
		src.bind = &copied
	}
	before := len(l.steps)
	if src.statement, err = x.Parse(ctx, l, r.Statement, false, r.Meaning); err != nil {
		return err
	}
	for i := before; i < len(l.steps); i++ {
		l.steps[i].shift = r.Shift
	}
	src.portal.noPosition, src.portal.readOnly = r.Statement.NoPosition, true
	src.portal.link, src.portal.name = l, r.Portal
	s.sources = append(s.sources, src)
	if atOnce && len(l.out) > 0 {
		l.pipelined = true
		l.out = wire.AppendFlush(l.out)
		return x.sendOwed(l)
	}
	return nil
}

// bind sends what binds the portals and describes their rows.
func (s *Scatter) bind() error {
	x, r := s.x, &s.request
	for _, src := range s.sources {
		l := src.portal.link
		before := len(l.steps)
		l.pipelined = true
		l.out = wire.AppendBind(l.out, r.Portal, src.statement, src.bind.Formats, src.bind.Params, src.bind.ResultFormats)
		l.steps = append(l.steps, step{kind: stepBind, silent: true, noPosition: r.Statement.NoPosition})
		x.describePortal(&src.portal, true, &src.seen)
		for i := before; i < len(l.steps); i++ {
			l.steps[i].shift = r.Shift
		}
		l.out = wire.AppendFlush(l.out)
		if err := x.sendOwed(l); err != nil {
			return err
		}
	}
	return nil
}

// describe works out what the client is told of the rows, and how they are merged.
func (s *Scatter) describe() error {
	first := s.sources[0].seen
	for _, src := range s.sources[1:] {
		if !sameColumns(first.Columns, src.seen.Columns) {
			return pgerr.New(pgerr.StaleMap, "the shards disagree on the columns of the result").
				WithHint("A table is being changed. Try the statement again.")
		}
	}
	columns, err := wire.DecodeRowDescription(nil, first.Columns)
	if err != nil {
		return err
	}
	if s.hidden > len(columns) {
		return pgerr.New(pgerr.InternalError, "a plan hides more columns than there are")
	}
	s.columns = wire.AppendRowDescription(nil, columns[:len(columns)-s.hidden])[5:]
	if s.request.Merge == nil || len(s.request.Merge.OrderBy) == 0 {
		return nil
	}
	var keys []merge.Key
	for _, k := range s.request.Merge.OrderBy {
		at := k.Column
		if at < 0 {
			at += len(columns)
		}
		if at < 0 || at >= len(columns) {
			return pgerr.New(pgerr.InternalError, "a plan orders by a column that does not exist")
		}
		if err := s.comparable(k.Type, columns[at].Format); err != nil {
			return err
		}
		keys = append(keys, merge.Key{
			Column: at, Type: k.Type, Format: columns[at].Format, Desc: k.Desc, NullsFirst: k.NullsFirst,
		})
	}
	sources := make([]merge.Source, len(s.sources))
	for i, src := range s.sources {
		sources[i] = src
	}
	s.merger, err = merge.New(sources, keys)
	return err
}

// The OIDs of date, timestamp and timestamptz.
const (
	dateOID        = 1082
	timestampOID   = 1114
	timestamptzOID = 1184
)

// comparable refuses text values that cannot be compared under the session's settings.
func (s *Scatter) comparable(typeOID uint32, format int16) error {
	switch typeOID {
	case dateOID, timestampOID, timestamptzOID:
		if format == 0 && !strings.HasPrefix(s.request.DateStyle, "ISO") {
			return pgerr.Unsupported("rows of several shards cannot be ordered by a date or time under DateStyle "+s.request.DateStyle,
				"Use SET DateStyle = 'ISO', or ask for the result in binary format.")
		}
	}
	return nil
}

func sameColumns(a, b []byte) bool {
	left, err := wire.DecodeRowDescription(nil, a)
	if err != nil {
		return false
	}
	right, err := wire.DecodeRowDescription(nil, b)
	if err != nil || len(left) != len(right) {
		return false
	}
	for i := range left {
		if string(left[i].Name) != string(right[i].Name) || left[i].Type != right[i].Type || left[i].Typmod != right[i].Typmod {
			return false
		}
	}
	return true
}

// Columns is the body of the RowDescription that the client gets.
func (s *Scatter) Columns() []byte { return s.columns }

// Run sends the client up to maxRows rows (0: all) and CommandComplete or PortalSuspended.
func (s *Scatter) Run(ctx context.Context, maxRows int32) error {
	if s.ended {
		s.complete(0)
		return nil
	}
	if err := s.start(maxRows); err != nil {
		return s.fail(ctx, err)
	}
	sent := int64(0)
	for {
		if maxRows > 0 && sent == int64(maxRows) {
			s.x.out.Put(wire.AppendPortalSuspended)
			return nil
		}
		if s.cutter.Done() {
			break
		}
		src, row, ok, err := s.next()
		if err != nil {
			return s.fail(ctx, err)
		}
		if !ok {
			break
		}
		if !s.cutter.Take() {
			continue
		}
		if err := s.send(src, row); err != nil {
			return s.fail(ctx, err)
		}
		sent++
	}
	s.ended = true
	if err := s.finish(ctx); err != nil {
		return err
	}
	s.complete(sent)
	return nil
}

func (s *Scatter) complete(rows int64) {
	s.x.out.Put(func(dst []byte) []byte {
		return wire.AppendCommandComplete(dst, s.request.Tag+" "+strconv.FormatInt(rows, 10))
	})
}

// start asks every shard for its first rows.
func (s *Scatter) start(maxRows int32) error {
	for _, src := range s.sources {
		if s.started || src.done {
			continue
		}
		src.chunk = min(max(maxRows, 0), maxChunk)
		s.x.Used(src.portal.link, true)
		if src.chunk > 0 {
			continue
		}
		if err := src.ask(); err != nil {
			return err
		}
	}
	s.started = true
	return s.x.cancelHeard()
}

// next is the next row of the whole; the source that it came from holds its frame, without a merge.
func (s *Scatter) next() (src *source, row []byte, ok bool, err error) {
	if s.merger != nil {
		row, ok, err = s.merger.Next()
		return nil, row, ok, err
	}
	for ; s.current < len(s.sources); s.current++ {
		src = s.sources[s.current]
		if row, ok, err = src.Next(); ok || err != nil {
			return src, row, ok, err
		}
	}
	return nil, nil, false, nil
}

func (s *Scatter) send(src *source, row []byte) error {
	x := s.x
	if src != nil && s.hidden == 0 {
		return x.out.Append(src.raw)
	}
	if s.hidden == 0 {
		x.scratch = wire.AppendFrame(x.scratch[:0], wire.TypeDataRow, row)
		return x.out.Append(x.scratch)
	}
	var err error
	if x.scratch, err = wire.AppendDataRowTrimmed(x.scratch[:0], row, s.hidden); err != nil {
		return err
	}
	return x.out.Append(x.scratch)
}

// finish reads away what the shards still send, and closes portals that have more.
func (s *Scatter) finish(ctx context.Context) error {
	for _, src := range s.sources {
		for src.asked {
			if _, _, err := src.read(); err != nil {
				return s.fail(ctx, err)
			}
		}
		src.done = true
	}
	return nil
}

// fail cancels what still runs after an error of one shard.
func (s *Scatter) fail(ctx context.Context, err error) error {
	s.ended = true
	if errors.Is(err, ErrClientGone) {
		for _, src := range s.sources {
			if src.asked {
				err = s.x.abandon(ctx, src.portal.link, err)
				s.x.drop(src.portal.link)
				src.asked = false
			}
		}
		return err
	}
	for _, src := range s.sources {
		if !src.asked || src.portal.link.conn.Broken() {
			continue
		}
		stop := cancelling(ctx, src.portal.link.conn.Canceller())
		for src.asked {
			if _, _, another := src.read(); another != nil {
				break // 57014, as asked for: the first error is the one to tell
			}
		}
		stop()
	}
	for _, src := range s.sources {
		if src.portal.link.conn.Broken() {
			s.x.drop(src.portal.link)
		}
	}
	return err
}

// Fresh reports whether no row was asked for yet.
func (s *Scatter) Fresh() bool { return !s.started }

// Close closes the portals on the shards.
func (s *Scatter) Close(ctx context.Context) error {
	if s.ended {
		return nil
	}
	s.ended = true
	for _, src := range s.sources {
		s.x.ClosePortal(&src.portal, false)
		if err := s.x.Drain(ctx, src.portal.link); err != nil {
			return err
		}
	}
	return nil
}

// rows implements Rows: chunks are read to their end before the first row of one is taken.
func (s *Scatter) rows(_ context.Context, take func(row []byte) error) error {
	return s.each(maxChunk, take)
}

// end implements Rows.
func (s *Scatter) end(ctx context.Context, err error) error {
	if err != nil {
		return s.fail(ctx, err)
	}
	for _, src := range s.sources {
		s.x.ClosePortal(&src.portal, false)
		if err := s.x.Drain(ctx, src.portal.link); err != nil {
			return err
		}
	}
	return nil
}
