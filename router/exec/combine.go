package exec

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/copyrow"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// A query that is combined runs on a connection of its own to the home shard, in a transaction that is rolled back: temporary tables
// in the client's transaction would keep that from being prepared. The pieces are read within the client's transaction, all under one
// snapshot, so its own changes are seen. A row of a portal in binary format is, byte for byte, a tuple of a binary COPY.

// CombineRequest is a query whose pieces are brought to the home shard.
type CombineRequest struct {
	Data *planner.CombineData
	// Pieces are the reads of the pieces, in binary format, each with a portal of its own.
	Pieces []ScatterRequest
	// Bind has the values of the client's parameters and of the clocks, and the formats of the result. Types are the parameters' types.
	Bind  *wire.Bind
	Types []uint32
	// Columns is the body of the RowDescription that the client gets; nil: what the rest has.
	Columns []byte
	Portal  string
}

// Combination is a query that is combined, under way. It belongs to the goroutine of its Executor. Between two calls of Run nothing
// is in flight.
type Combination struct {
	x       *Executor
	r       CombineRequest
	side    *sideLink // nil: not started, or at its end
	started bool
	told    bool // the client has got the description of the rows
}

// NewCombination makes a Combination. Nothing is read before Run.
func (x *Executor) NewCombination(r CombineRequest) *Combination { return &Combination{x: x, r: r} }

// restPortal is the name of the portal on the connection of its own.
const restPortal = "shardyard_rest"

// AppendDescription appends the RowDescription.
func (c *Combination) AppendDescription(dst []byte) []byte {
	c.told = true
	return wire.AppendFrame(dst, wire.TypeRowDescription, c.r.Columns)
}

// Fresh reports whether nothing was read yet.
func (c *Combination) Fresh() bool { return !c.started }

// Run sends the client up to maxRows rows (0: all), with their description in front if describe, and CommandComplete or
// PortalSuspended.
func (c *Combination) Run(ctx context.Context, maxRows int32, describe bool) error {
	if !c.started {
		c.started = true
		if err := c.start(ctx); err != nil {
			return errors.Join(err, c.Close(ctx))
		}
	}
	if describe && !c.told {
		c.told = true
		if err := c.x.out.Append(wire.AppendFrame(nil, wire.TypeRowDescription, c.r.Columns)); err != nil {
			return errors.Join(err, c.Close(ctx))
		}
	}
	if c.side == nil {
		c.x.out.Put(func(dst []byte) []byte { return wire.AppendCommandComplete(dst, "SELECT 0") })
		return nil
	}
	suspended, err := c.side.execute(ctx, c.x.out, maxRows)
	if err != nil || !suspended {
		err = errors.Join(err, c.Close(ctx))
	}
	return err
}

// Close gives the connection of its own back.
func (c *Combination) Close(ctx context.Context) error {
	side := c.side
	c.side = nil
	if side == nil {
		return nil
	}
	return c.x.closeSide(ctx, side)
}

// start reads the pieces, and binds the rest.
func (c *Combination) start(ctx context.Context) error {
	x := c.x
	x.task.Leave()
	if err := x.cancelHeard(); err != nil {
		return err
	}
	pieces, err := x.OpenScatters(ctx, c.r.Pieces)
	if err != nil {
		return err
	}
	if err := c.load(ctx, pieces); err != nil {
		return err
	}
	if err := c.closePieces(ctx, pieces); err != nil {
		return err
	}
	return c.side.bind(&c.r)
}

// load brings the pieces to their tables. After an error no piece is being read.
func (c *Combination) load(ctx context.Context, pieces []*Scatter) error {
	side, err := c.x.openSide(ctx)
	if err != nil {
		return c.abort(ctx, pieces, err)
	}
	c.side = side
	// What the client's session has as defaults must not matter.
	begin := "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
	for i := range c.r.Data.Pieces {
		begin += "; " + c.r.Data.Pieces[i].Create
	}
	if err := side.query(ctx, begin); err != nil {
		return c.abort(ctx, pieces, err)
	}
	for i, piece := range pieces {
		if err := side.copyInto(ctx, c.r.Data.Pieces[i].Table, piece); err != nil {
			return c.abort(ctx, pieces, err)
		}
	}
	return nil
}

// abort ends the reading of all pieces after an error.
func (c *Combination) abort(ctx context.Context, pieces []*Scatter, err error) error {
	for _, piece := range pieces {
		err = piece.fail(ctx, err)
	}
	return err
}

func (c *Combination) closePieces(ctx context.Context, pieces []*Scatter) error {
	for _, piece := range pieces {
		piece.ended = true
		for _, src := range piece.sources {
			c.x.ClosePortal(&src.portal, false)
		}
	}
	return c.x.DrainAll(ctx)
}

// Columns is the body of the RowDescription.
func (c *Combination) Columns() []byte { return c.r.Columns }

// rows implements Rows.
func (c *Combination) rows(ctx context.Context, take func(row []byte) error) error {
	return c.side.each(ctx, take)
}

// end implements Rows.
func (c *Combination) end(ctx context.Context, err error) error {
	return errors.Join(err, c.Close(ctx))
}

// OpenCombination makes a Combination whose rows are for other shards, and reads its pieces.
func (x *Executor) OpenCombination(ctx context.Context, r CombineRequest) (*Combination, error) {
	c := x.NewCombination(r)
	c.started = true
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Close(ctx))
	}
	return c, nil
}

// sideLink is a connection to the home shard that is not part of the client's transaction.
type sideLink struct {
	conn *backend.Conn
	out  []byte
}

// openSide takes a connection from a pool of its own: who waits for one holds all others that it needs, and who has one waits for
// no other, so that these waits cannot block each other.
func (x *Executor) openSide(ctx context.Context) (*sideLink, error) {
	home, ok := x.view.Map.Shard(x.view.Map.Home)
	if !ok {
		return nil, fmt.Errorf("acquire shard %s: not in the map of epoch %d", x.view.Map.Home, x.view.Map.Epoch)
	}
	conn, err := x.pools.AcquireFor(ctx, *home, x.identity, x.view.Map.Epoch, backend.Wish{
		Settings: x.settings, Role: x.role, Session: x.session, Holds: true, Side: true, Waiting: x.waiting,
	})
	if err != nil {
		return nil, err
	}
	side := &sideLink{conn: conn}
	err = x.track(conn)
	if err == nil && !conn.HasSettings(x.settings) {
		err = conn.ApplySettings(ctx, x.settings)
	}
	if err != nil {
		x.pools.Release(conn)
		return nil, err
	}
	x.sides = append(x.sides, side)
	return side, nil
}

// closeSide ends the transaction of a side link and gives its connection back.
func (x *Executor) closeSide(ctx context.Context, side *sideLink) error {
	i := slices.Index(x.sides, side)
	if i < 0 {
		return nil // given back with the session's other connections
	}
	x.sides = slices.Delete(x.sides, i, i+1)
	defer x.pools.Release(side.conn)
	if side.conn.Broken() || side.conn.Idle() && side.conn.TxStatus() == wire.TxIdle {
		return nil
	}
	// The client has its answer: what goes wrong here costs no more than the connection.
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), sideTimeout)
	defer cancel()
	if err := side.query(bounded, "ROLLBACK"); err != nil {
		side.conn.MarkBroken()
	}
	return nil
}

// sideTimeout bounds the clean-up of a side link.
const sideTimeout = 5 * time.Second

// releaseSides gives up all side links, whose portals have ended with their transaction.
func (x *Executor) releaseSides() {
	for _, side := range x.sides {
		if !side.conn.Idle() || side.conn.TxStatus() != wire.TxIdle {
			side.conn.MarkDirty() // the pool rolls back
		}
		x.pools.Release(side.conn)
	}
	x.sides = nil
}

// query runs statements of ours that return no rows.
func (s *sideLink) query(ctx context.Context, sql string) error {
	if err := s.conn.Write(wire.AppendQuery(s.out[:0], sql)); err != nil {
		return err
	}
	return s.ready(ctx)
}

// ready reads up to ReadyForQuery. It returns the first error that the server says.
func (s *sideLink) ready(context.Context) (failed error) {
	for {
		frame, err := s.conn.Next()
		if err != nil {
			return err
		}
		switch frame.Type {
		case wire.TypeErrorResponse:
			if failed == nil {
				failed = sideError(frame.Body)
			}
			if s.conn.Broken() {
				return failed
			}
		case wire.TypeReady:
			return failed
		}
	}
}

// sideError is an error of the rest as the client gets it: the server has another text than the client's, so positions mean nothing.
func sideError(body []byte) *pgerr.Error {
	e := pgerr.FromShard(body)
	if e.IsFatal() {
		e = e.AsError()
	}
	return e.At(0)
}

// copyInto brings the rows of a piece into its table.
func (s *sideLink) copyInto(ctx context.Context, table string, piece *Scatter) error {
	if err := s.conn.Write(wire.AppendQuery(s.out[:0], "COPY pg_temp."+table+" FROM STDIN (FORMAT binary)")); err != nil {
		return err
	}
	if err := s.awaitCopy(ctx); err != nil {
		return err
	}
	header := append([]byte(copyrow.Signature), 0, 0, 0, 0, 0, 0, 0, 0)
	s.out = wire.AppendCopyData(s.out[:0], header)
	if err := piece.each(0, s.add); err != nil {
		// The rows that are there go with the transaction.
		broken := s.conn.Write(wire.AppendCopyFail(s.out[:0], "a piece could not be read"))
		if broken == nil {
			_ = s.ready(ctx) // it says what it was told
		}
		return err
	}
	s.out = wire.AppendCopyDone(wire.AppendCopyData(s.out, []byte(copyrow.Trailer)))
	if err := s.conn.Write(s.out); err != nil {
		return err
	}
	s.out = s.out[:0]
	return s.ready(ctx)
}

// add adds a row to the data, and sends it if there is enough.
func (s *sideLink) add(row []byte) error {
	s.out = wire.AppendCopyData(s.out, row)
	if len(s.out) < batchBound {
		return nil
	}
	out := s.out
	if s.out = out[:0]; cap(out) > 4*batchBound {
		s.out = nil
	}
	return s.conn.Write(out)
}

// awaitCopy reads up to where the server wants data.
func (s *sideLink) awaitCopy(ctx context.Context) error {
	for {
		frame, err := s.conn.Next()
		if err != nil {
			return err
		}
		switch frame.Type {
		case wire.TypeCopyInResponse:
			return nil
		case wire.TypeErrorResponse:
			failed := sideError(frame.Body)
			return errors.Join(failed, s.ready(ctx))
		}
	}
}

// each calls take for each row of the read, from its first to its last; so many of a shard are read at a time (0: all).
func (s *Scatter) each(chunk int32, take func(row []byte) error) error {
	if err := s.start(chunk); err != nil {
		return err
	}
	for !s.cutter.Done() {
		_, row, ok, err := s.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if s.cutter.Take() {
			if err := take(row); err != nil {
				return err
			}
		}
	}
	for _, src := range s.sources { // those that have more than was wanted
		for src.asked {
			if _, _, err := src.read(); err != nil {
				return err
			}
		}
	}
	return nil
}

// bind binds the rest.
func (s *sideLink) bind(r *CombineRequest) error {
	s.out = wire.AppendParse(s.out[:0], "", r.Data.SQL, r.Types)
	s.out = wire.AppendBind(s.out, restPortal, "", r.Bind.Formats, r.Bind.Params, r.Bind.ResultFormats)
	s.out = wire.AppendSync(wire.AppendDescribe(s.out, wire.ObjectPortal, restPortal))
	if err := s.conn.Write(s.out); err != nil {
		return err
	}
	described, failed := s.described()
	if failed != nil {
		return failed
	}
	if r.Columns == nil {
		r.Columns = described
		return nil
	}
	types, err := columnTypes(described)
	if err != nil {
		return err
	}
	columns, err := wire.DecodeRowDescription(nil, r.Columns)
	if err != nil {
		return err
	}
	// Invariant: the rest has the columns of the client's statement.
	if !slices.EqualFunc(columns, types, func(c wire.Column, oid uint32) bool { return c.Type == oid }) {
		return pgerr.New(pgerr.InternalError, "a combined query has other columns than its statement").WithHint("Please report the statement.")
	}
	return nil
}

func columnTypes(description []byte) (types []uint32, err error) {
	columns, err := wire.DecodeRowDescription(nil, description)
	for i := range columns {
		types = append(types, columns[i].Type)
	}
	return types, err
}

// described reads up to ReadyForQuery, and returns the body of the RowDescription.
func (s *sideLink) described() (description []byte, failed error) {
	for {
		frame, err := s.conn.Next()
		if err != nil {
			return nil, err
		}
		switch frame.Type {
		case wire.TypeRowDescription:
			description = slices.Clone(frame.Body)
		case wire.TypeErrorResponse:
			if failed == nil {
				failed = sideError(frame.Body)
			}
			if s.conn.Broken() {
				return nil, failed
			}
		case wire.TypeReady:
			return description, failed
		}
	}
}

// execute sends the client rows of the rest; suspended: there may be more.
func (s *sideLink) execute(ctx context.Context, out *Output, maxRows int32) (suspended bool, failed error) {
	s.out = wire.AppendSync(wire.AppendExecute(s.out[:0], restPortal, maxRows))
	if err := s.conn.Write(s.out); err != nil {
		return false, err
	}
	for {
		frame, err := s.conn.Next()
		if err != nil {
			return false, err
		}
		switch frame.Type {
		case wire.TypeErrorResponse:
			if failed == nil {
				failed = sideError(frame.Body)
			}
			if s.conn.Broken() {
				return false, failed
			}
			continue
		case wire.TypeReady:
			return suspended, failed
		case wire.TypeParameterStatus, wire.TypeNotification:
			continue
		case wire.TypePortalSuspended:
			suspended = true
		}
		if err := out.Append(frame.Raw); err != nil {
			s.giveUp(ctx)
			return false, err
		}
	}
}

// each calls take for each row of the rest.
func (s *sideLink) each(ctx context.Context, take func(row []byte) error) (failed error) {
	s.out = wire.AppendSync(wire.AppendExecute(s.out[:0], restPortal, 0))
	if err := s.conn.Write(s.out); err != nil {
		return err
	}
	for {
		frame, err := s.conn.Next()
		if err != nil {
			return err
		}
		switch frame.Type {
		case wire.TypeDataRow:
			if err := take(frame.Body); err != nil {
				s.giveUp(ctx)
				return err
			}
		case wire.TypeErrorResponse:
			if failed == nil {
				failed = sideError(frame.Body)
			}
			if s.conn.Broken() {
				return failed
			}
		case wire.TypeReady:
			return failed
		}
	}
}

// giveUp ends what runs, as its client is gone.
func (s *sideLink) giveUp(ctx context.Context) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTimeout)
	defer cancel()
	_ = s.conn.Cancel(bounded) // the connection is closed anyway: this only ends the work sooner
	s.conn.MarkBroken()
}
