package exec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// stepKind is what a step waits for.
type stepKind uint8

const (
	stepQuery     stepKind = iota // everything up to ReadyForQuery; the ReadyForQuery itself is not relayed
	stepParse                     // ParseComplete
	stepBind                      // BindComplete
	stepDescribe                  // RowDescription or NoData
	stepStatement                 // ParameterDescription, then RowDescription or NoData
	stepExecute                   // rows up to CommandComplete, EmptyQueryResponse or PortalSuspended
	stepClose                     // CloseComplete
	stepSync                      // ReadyForQuery, not relayed
	stepLocal                     // nothing from the server: own is sent to the client
)

// step is one answer that a link waits for. The steps of a link and the frames it sent are in the same order.
type step struct {
	kind      stepKind
	silent    bool       // the answer is not for the client
	notices   bool       // but its notices are
	noBlock   bool       // except the warning that it should stand in a block
	key       string     // stepParse: content to confirm; "" for the unnamed statement
	statement *Statement // stepParse: what is parsed
	own       []byte     // stepLocal
	shift     int        // characters in front of the statement in the client's text: added to error positions
	// noPosition: the server got another text than the client sent, so positions mean nothing.
	noPosition bool
	// part, unless nil, is what of the text the client sent: positions elsewhere mean nothing.
	part *Part
	// seen, if set, gets the description that answers stepStatement or stepDescribe, and how the
	// execution ended.
	seen *Description
	// rows is the translation of the portal's rows; nil: the link's own.
	rows *rowTranslation
	// hold keeps the command tag back until Settle.
	hold bool
	// collect gets the rows instead of the client.
	collect *[][]*string
}

// Description is what a shard said of a statement or portal, with the home shard's OIDs.
type Description struct {
	Parameters []uint32
	Columns    []byte // body of the RowDescription; nil: it returns no rows
	Described  bool
	// Suspended says that the last Execute stopped at its row limit.
	Suspended bool
}

// batchBound is the number of bytes sent to a server before its answers are read, so that neither side
// can block the other for ever.
const batchBound = 32 << 10

// abandonTimeout bounds the cancel request for a statement whose client has gone.
const abandonTimeout = 2 * time.Second

// queue adds a message and the step that answers it.
func (x *Executor) queue(l *Link, s step, add func(dst []byte) []byte) {
	l.out = add(l.out)
	l.steps = append(l.steps, s)
}

func (x *Executor) queueQuery(l *Link, sql string, s step) {
	l.out = wire.AppendQuery(l.out, sql)
	l.steps = append(l.steps, s)
}

// Local adds bytes for the client behind the answers that are still to come from the link that works, or sends
// them at once.
func (x *Executor) Local(frames []byte) {
	for _, l := range x.links {
		if len(l.steps) > 0 {
			l.steps = append(l.steps, step{kind: stepLocal, own: append([]byte(nil), frames...)})
			return
		}
	}
	x.out.Put(func(dst []byte) []byte { return append(dst, frames...) })
}

// run sends what is queued on the link and reads all answers. The first error of the server is returned
// as a *pgerr.Error, after everything that the server still says about the batch was read.
func (x *Executor) run(ctx context.Context, l *Link) error {
	err := x.send(l)
	if err == nil {
		err = x.receive(ctx, l)
	}
	l.steps = l.steps[:0]
	if errors.Is(err, backend.ErrStale) {
		l.begun, l.pipelined = false, false // the server has seen nothing of it
	}
	if l.conn.Broken() {
		x.drop(l)
		return err
	}
	return errors.Join(err, x.restoreName(ctx, l))
}

// noteStatus looks at a setting that a client's statement changed without the router's knowledge.
func (l *Link) noteStatus(s *step, frame wire.Frame) {
	if s.silent {
		return
	}
	name, value, err := wire.DecodeParameterStatus(frame.Body)
	if err == nil && wire.View(name) == "application_name" && wire.View(value) == l.conn.ApplicationName() {
		return // the end of a transaction gave the name back
	}
	l.conn.MarkDirty()
	if err != nil || wire.View(name) == "application_name" {
		l.renamed = true
	}
}

// restoreName gives a connection its application_name back, at once: fencing finds connections by it.
func (x *Executor) restoreName(ctx context.Context, l *Link) error {
	if !l.renamed || l.skipping || x.copyIn == l || l.begun && l.conn.TxStatus() != wire.TxOpen {
		return nil // what failed is undone with its transaction
	}
	l.renamed = false
	return x.Command(ctx, l, "RESET application_name")
}

func (x *Executor) send(l *Link) error {
	if len(l.out) == 0 {
		return nil
	}
	out := l.out
	if l.out = out[:0]; cap(out) > batchBound {
		l.out = nil
	}
	return l.conn.Write(out)
}

// receive reads the answers to the steps of the link.
func (x *Executor) receive(ctx context.Context, l *Link) error {
	var failed error
	for i := 0; i < len(l.steps); {
		s := &l.steps[i]
		if s.kind == stepLocal {
			if failed == nil {
				if err := x.out.Append(s.own); err != nil {
					return x.abandon(ctx, l, err)
				}
			}
			i++
			continue
		}
		frame, err := l.conn.Next()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if failed != nil { // what is left of the answer has been sent
				if err := l.conn.SetReadDeadline(time.Time{}); err != nil {
					return err
				}
				continue
			}
			l.steps = append(l.steps[:0], l.steps[i:]...)
		}
		if err != nil {
			return err
		}
		if frame.Type == wire.TypeErrorResponse {
			if failed == nil {
				failed = l.serverError(frame.Body, s)
			}
			if l.conn.Broken() {
				return failed
			}
			if s.kind != stepQuery {
				// The server skips everything up to the next Sync.
				for i < len(l.steps) && l.steps[i].kind != stepSync {
					i++
				}
				l.skipping = i == len(l.steps)
			}
			continue
		}
		done, err := x.answer(l, s, frame, failed != nil)
		if err != nil {
			return x.abandon(ctx, l, err)
		}
		if done {
			i++
		}
		if x.copyIn == l {
			return failed
		}
	}
	return failed
}

// abandon gives a connection up whose answers cannot be read to the end.
func (x *Executor) abandon(ctx context.Context, l *Link, err error) error {
	if errors.Is(err, ErrClientGone) {
		x.task.Leave()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTimeout)
		defer cancel()
		_ = l.conn.Cancel(ctx) // the connection is closed anyway: this only ends the work sooner
	}
	l.conn.MarkBroken()
	return err
}

// answer takes one frame for the step; done says that the step is complete.
func (x *Executor) answer(l *Link, s *step, frame wire.Frame, mute bool) (done bool, err error) {
	silent := s.silent || mute
	switch frame.Type {
	case wire.TypeDataRow:
		if s.collect != nil {
			*s.collect = append(*s.collect, textRow(frame.Body))
			return false, nil
		}
		if silent {
			return false, nil
		}
		return false, x.relayRow(l, s, frame)
	case wire.TypeNotice:
		if !silent || s.notices && !mute && !(s.noBlock && string(wire.ErrorField(frame.Body, wire.FieldCode)) == "25P01") {
			return false, x.relayNotice(l, s, frame)
		}
	case wire.TypeParameterStatus:
		// The session tells its client of settings itself.
		l.noteStatus(s, frame)
	case wire.TypeNotification:
		// Nobody listens on pooled connections.
	case wire.TypeRowDescription:
		return s.kind == stepDescribe || s.kind == stepStatement, x.relayDescription(l, s, frame, silent)
	case wire.TypeNoData:
		if s.seen != nil {
			s.seen.Described, s.seen.Columns = true, nil
		}
		l.translationOf(s).none()
		return s.kind == stepDescribe || s.kind == stepStatement, x.relay(frame.Raw, silent)
	case wire.TypeParameterDescription:
		return false, x.relayParameters(l, s, frame, silent)
	case wire.TypeCommandComplete, wire.TypeEmptyQuery, wire.TypePortalSuspended:
		if s.seen != nil {
			s.seen.Suspended = frame.Type == wire.TypePortalSuspended
		}
		if s.hold && !silent && frame.Type == wire.TypeCommandComplete {
			x.heldTag = append(x.heldTag, frame.Raw...)
			silent = true
		}
		return s.kind == stepExecute, x.relay(frame.Raw, silent)
	case wire.TypeParseComplete:
		if s.key != "" {
			l.conn.ConfirmPrepared(s.key)
		}
		if s.statement != nil && !silent {
			s.statement.Parsed = true
		}
		return s.kind == stepParse, x.relay(frame.Raw, silent)
	case wire.TypeBindComplete:
		return s.kind == stepBind, x.relay(frame.Raw, silent)
	case wire.TypeCloseComplete:
		return s.kind == stepClose, x.relay(frame.Raw, silent)
	case wire.TypeReady:
		if s.kind == stepSync {
			l.pipelined, l.skipping = false, false
		}
		return s.kind == stepSync || s.kind == stepQuery, nil
	case wire.TypeCopyInResponse:
		if silent {
			return false, fmt.Errorf("shard %s wants data for a statement of ours", l.shard)
		}
		x.copyIn, x.copyStep = l, *s
		return true, x.out.Append(frame.Raw)
	default:
		return false, x.relay(frame.Raw, silent) // COPY TO, FunctionCallResponse
	}
	return false, nil
}

func (x *Executor) relay(raw []byte, silent bool) error {
	if silent {
		return nil
	}
	return x.out.Append(raw)
}

func (x *Executor) relayNotice(l *Link, s *step, frame wire.Frame) error {
	if s.shift == 0 && !s.noPosition && s.part == nil || wire.ErrorField(frame.Body, wire.FieldPosition) == nil {
		return x.passNotice(l, frame.Raw)
	}
	notice := pgerr.FromShard(frame.Body)
	x.out.Put(notice.At(movedPosition(notice, s)).AppendNotice)
	return x.passNotice(l, nil)
}

// passNotice lets the client hear a notice at once, as Postgres does, while its statement goes on.
func (x *Executor) passNotice(l *Link, raw []byte) error {
	if err := x.out.Append(raw); err != nil || l.conn.Buffered() > 0 {
		return err
	}
	return x.out.Flush()
}

// serverError is the server's error as the client gets it.
func (l *Link) serverError(body []byte, s *step) *pgerr.Error {
	e := pgerr.FromShard(body)
	if e.IsFatal() && e.Code != "25P03" && e.Code != "25P04" { // those end the session, which was idle for too long
		e = e.AsError()
	}
	if e.Position != 0 && (s.shift != 0 || s.noPosition || s.part != nil) {
		e = e.At(movedPosition(e, s))
	}
	return e
}

func movedPosition(e *pgerr.Error, s *step) int {
	if s.noPosition || e.Position == 0 {
		return 0
	}
	if s.part != nil {
		return s.part.moved(int(e.Position))
	}
	return int(e.Position) + s.shift
}

// Part is a part of a text for a shard that the client sent, and Next further ones; all in characters.
type Part struct {
	Start, Length int // in the shard's text; Start from 0
	Client        int // its start in the client's text, from 0
	Next          *Part
}

// moved is a position in the shard's text as one in the client's, 0 if it is in none of the parts.
func (p *Part) moved(position int) int {
	for ; p != nil; p = p.Next {
		if at := position - p.Start; at >= 1 && at <= p.Length {
			return p.Client + at
		}
	}
	return 0
}

// Drain reads everything that the link still owes. Without a Sync: the implicit transaction stays open.
func (x *Executor) Drain(ctx context.Context, l *Link) error {
	if len(l.steps) == 0 && len(l.out) == 0 {
		return nil
	}
	if l.pipelined && !l.endsWithReady() {
		l.out = wire.AppendFlush(l.out)
	}
	return x.run(ctx, l)
}

func (l *Link) endsWithReady() bool {
	for i := len(l.steps) - 1; i >= 0; i-- {
		switch l.steps[i].kind {
		case stepLocal:
		case stepQuery, stepSync:
			return true
		default:
			return false
		}
	}
	return false
}

// DrainAll reads everything that any link still owes.
func (x *Executor) DrainAll(ctx context.Context) error {
	for i := 0; i < len(x.links); i++ {
		l := x.links[i]
		if len(l.steps) == 0 && len(l.out) == 0 {
			continue
		}
		if err := x.Drain(ctx, l); err != nil {
			return err
		}
	}
	return nil
}
