package exec

import (
	"errors"
	"io"
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
	n, err := o.writer.Write(o.buffer)
	o.sent += int64(n)
	if cap(o.buffer) > 2*o.bound {
		o.buffer = nil
	}
	o.buffer = o.buffer[:0]
	if err != nil {
		o.failed = true
		return errors.Join(ErrClientGone, err)
	}
	return nil
}

// Position is the number of bytes added so far; with it a caller sees whether anything was added since.
func (o *Output) Position() int64 { return o.sent + int64(len(o.buffer)) }

// Rest gives a large buffer back before the session waits for its client.
func (o *Output) Rest() {
	if len(o.buffer) == 0 && cap(o.buffer) > keptOutput {
		o.buffer = nil
	}
}
