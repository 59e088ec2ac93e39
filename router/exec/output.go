package exec

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/shardyard/shardyard/router/wire"
)

// ErrClientGone says that the client cannot be written to any more. The session is over.
var ErrClientGone = errors.New("client is gone")

// DefaultOutputBound is the number of bytes that an Output collects before it writes.
const DefaultOutputBound = 64 << 10

// keptOutput is the largest buffer that an idle Output keeps.
const keptOutput = 16 << 10

// Output collects what a client is sent and writes it at the end of a request, or when its bound is
// reached: the write blocks at the client's pace, which is the back-pressure on the shards. It belongs to
// one goroutine at a time.
type Output struct {
	writer io.Writer
	bound  int
	buffer []byte
	failed bool
	sent   int64
	// holding: a CommandComplete at the end, if it stands behind heldFrom, is not written yet.
	holding  bool
	heldFrom int64
}

// NewOutput returns an Output to writer. A bound of 0 is DefaultOutputBound.
func NewOutput(writer io.Writer, bound int) *Output {
	if bound <= 0 {
		bound = DefaultOutputBound
	}
	return &Output{writer: writer, bound: bound}
}

// Append adds whole frames, and writes if the bound is reached.
func (o *Output) Append(frames []byte) error {
	if len(o.buffer)+len(frames) > o.bound && len(o.buffer) > 0 {
		if err := o.Flush(); err != nil {
			return err
		}
	}
	o.buffer = append(o.buffer, frames...)
	if len(o.buffer) >= o.bound {
		return o.Flush()
	}
	return nil
}

// Put adds frames by a function that appends to the slice it is given. It never writes, so it is for
// small messages; what it adds goes out with the next Append or Flush.
func (o *Output) Put(add func(dst []byte) []byte) { o.buffer = add(o.buffer) }

// Flush writes what was collected. After an error everything is discarded and ErrClientGone returned.
func (o *Output) Flush() error {
	if o.failed {
		o.buffer = o.buffer[:0]
		return ErrClientGone
	}
	if len(o.buffer) == 0 {
		return nil
	}
	end := len(o.buffer)
	if o.holding {
		if end = o.tagStart(); end == 0 {
			return nil
		}
	}
	n, err := o.writer.Write(o.buffer[:end])
	o.sent += int64(n)
	if kept := o.buffer[end:]; cap(o.buffer) > 2*o.bound {
		o.buffer = append([]byte(nil), kept...)
	} else {
		o.buffer = o.buffer[:copy(o.buffer, kept)]
	}
	if err != nil {
		o.buffer = o.buffer[:0]
		o.failed = true
		return errors.Join(ErrClientGone, err)
	}
	return nil
}

// HoldTag keeps back a CommandComplete from here on, as long as nothing follows it, until TakeTag: that of a statement whose transaction
// is yet to be committed.
func (o *Output) HoldTag() { o.holding, o.heldFrom = true, o.Position() }

// TakeTag ends HoldTag. It returns what was kept back, which is not sent; nil: nothing.
func (o *Output) TakeTag() []byte {
	if !o.holding {
		return nil
	}
	at := o.tagStart()
	tag := append([]byte(nil), o.buffer[at:]...)
	o.holding, o.buffer = false, o.buffer[:at]
	return tag
}

// tagStart is where the frame begins that HoldTag keeps back; the buffer's end if there is none. The buffer begins with a frame.
func (o *Output) tagStart() int {
	last := -1
	for at := 0; at < len(o.buffer); {
		if last = at; len(o.buffer)-at < 5 {
			return len(o.buffer)
		}
		at += 1 + int(binary.BigEndian.Uint32(o.buffer[at+1:]))
	}
	if last < 0 || o.buffer[last] != wire.TypeCommandComplete || o.sent+int64(last) < o.heldFrom {
		return len(o.buffer)
	}
	return last
}

// Position is the number of bytes added so far; with it a caller sees whether anything was added since.
func (o *Output) Position() int64 { return o.sent + int64(len(o.buffer)) }

// Rest gives a large buffer back before the session waits for its client.
func (o *Output) Rest() {
	if len(o.buffer) == 0 && cap(o.buffer) > keptOutput {
		o.buffer = nil
	}
}
