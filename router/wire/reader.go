package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

const (
	headerSize = 5 // type byte and length

	// MaxStartupPacket is the largest start-up packet accepted, in bytes without its length field.
	MaxStartupPacket = 10_000
	// MaxSmallFrame bounds the length field of frontend messages that carry only names.
	MaxSmallFrame = 10_000
	// MaxAuthFrame bounds the length field of a password or SASL message: Postgres's 1024 bytes of a SASL message, which may
	// stand behind the name of a mechanism.
	MaxAuthFrame = 1024 + 64
	// MaxFrame bounds the length field of every other message: 1 GB - 1, Postgres's largest allocation.
	MaxFrame = 1<<30 - 1

	initialBuffer = 8 << 10
	keepBuffer    = 64 << 10 // a larger buffer is given back once it is empty
)

// ProtocolError says that the peer broke the protocol. The stream cannot be read on: the connection must be closed.
type ProtocolError struct{ Message string }

// Error returns the message.
func (e *ProtocolError) Error() string { return e.Message }

// SQLState returns 08P01, protocol_violation.
func (e *ProtocolError) SQLState() string { return "08P01" }

func malformed(format string, args ...any) error {
	return &ProtocolError{Message: fmt.Sprintf(format, args...)}
}

// Phase says which messages a Reader accepts and how long they may be.
type Phase uint8

const (
	// Authenticating accepts from a client nothing but password messages.
	Authenticating Phase = iota
	// Frontend accepts what an authenticated client sends.
	Frontend
	// Backend accepts what a server sends.
	Backend
)

// limits holds for each phase and message type the largest length field; 0 means that the type is unknown.
var limits = func() (table [3][256]uint32) {
	for _, t := range []byte("p") {
		table[Authenticating][t] = MaxAuthFrame
	}
	for _, t := range []byte("QFBPd") {
		table[Frontend][t] = MaxFrame
	}
	for _, t := range []byte("XCDEHScf") {
		table[Frontend][t] = MaxSmallFrame
	}
	for _, t := range []byte("123ACcDdEGHIKNnRSsTtVvWZ") {
		table[Backend][t] = MaxFrame
	}
	return table
}()

// Frame is one message of the protocol. Body and Raw view the buffer of the Reader.
type Frame struct {
	Type byte
	Body []byte // without type and length
	Raw  []byte // type, length and body: what is written to relay the frame
}

// Reader cuts a byte stream into frames. The zero Reader is not usable; see NewReader.
// It belongs to one goroutine at a time.
type Reader struct {
	src   io.Reader
	buf   []byte
	start int // first unread byte
	end   int // end of the bytes read from src
	phase Phase
	err   error // sticky protocol error
}

// NewReader returns a Reader of src that starts in the phase given.
func NewReader(src io.Reader, phase Phase) *Reader {
	return &Reader{src: src, phase: phase}
}

// SetPhase changes what is accepted from the next frame on.
func (r *Reader) SetPhase(phase Phase) { r.phase = phase }

// SetSource continues with another stream, as after a TLS handshake. Bytes that are already buffered came in the
// clear and must not be taken for encrypted ones: the call fails with a ProtocolError if there are any.
func (r *Reader) SetSource(src io.Reader) error {
	if r.Buffered() > 0 {
		return malformed("received unencrypted data after encryption request")
	}
	r.src = src
	return nil
}

// Buffered returns the number of bytes that were read from the source and not yet returned.
func (r *Reader) Buffered() int { return r.end - r.start }

// Release gives the buffer back when it is empty, so that an idle connection holds no memory. Frames returned
// before are invalid afterwards.
func (r *Reader) Release() {
	if r.start == r.end {
		r.giveBack()
		r.buf, r.start, r.end = nil, 0, 0
	}
}

// spare are buffers of initialBuffer bytes that were given back: a client that is idle between any two requests does not cost
// a new one each time.
var spare = sync.Pool{New: func() any { return new([initialBuffer]byte) }}

func (r *Reader) giveBack() {
	if cap(r.buf) == initialBuffer {
		spare.Put((*[initialBuffer]byte)(r.buf[:initialBuffer]))
	}
}

// Trim gives back an empty buffer that a large frame has made grow.
func (r *Reader) Trim() {
	if len(r.buf) > keepBuffer {
		r.Release()
	}
}

// Next returns the next frame; it is valid until the next call of a method of r. It returns io.EOF when the stream ends
// between two frames, io.ErrUnexpectedEOF when it ends inside one, a *ProtocolError for an unknown type or a length
// out of bounds, and else the source's error. After a source's error that is not final (a deadline) it may be called again.
func (r *Reader) Next() (Frame, error) {
	for {
		frame, ok, err := r.Poll()
		if ok || err != nil {
			return frame, err
		}
		if err := r.Fill(); err != nil {
			return Frame{}, err
		}
	}
}

// Poll returns the next frame if all of it is buffered; it never reads from the source.
func (r *Reader) Poll() (frame Frame, ok bool, err error) {
	size, err := r.frameSize()
	if err != nil || size == 0 || r.end-r.start < size {
		return Frame{}, false, err
	}
	raw := r.buf[r.start : r.start+size : r.start+size]
	r.start += size
	return Frame{Type: raw[0], Body: raw[headerSize:], Raw: raw}, true, nil
}

// Peek returns the next frame like Poll, but leaves it to be returned again.
func (r *Reader) Peek() (frame Frame, ok bool, err error) {
	start := r.start
	frame, ok, err = r.Poll()
	r.start = start
	return frame, ok, err
}

// frameSize returns the size of the frame that begins at start, 0 while its header is not complete.
func (r *Reader) frameSize() (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.end == r.start {
		return 0, nil
	}
	kind := r.buf[r.start]
	limit := limits[r.phase][kind]
	if limit == 0 {
		r.err = r.unknownType(kind)
		return 0, r.err
	}
	if r.end-r.start < headerSize {
		return 0, nil
	}
	length := binary.BigEndian.Uint32(r.buf[r.start+1:])
	if length < 4 || length > limit {
		r.err = malformed("invalid message length")
		return 0, r.err
	}
	return 1 + int(length), nil
}

func (r *Reader) unknownType(kind byte) error {
	switch r.phase {
	case Authenticating:
		return malformed("expected password response, got message type %d", kind)
	case Frontend:
		return malformed("invalid frontend message type %d", kind)
	default:
		return malformed("invalid backend message type %d", kind)
	}
}

// Fill reads once from the source into the buffer. It invalidates the frames returned before.
func (r *Reader) Fill() error {
	r.makeRoom()
	for range 100 { // as bufio: a source that returns nothing and no error is broken
		n, err := r.src.Read(r.buf[r.end:])
		if n < 0 || n > len(r.buf)-r.end {
			return errors.New("read: source returned an impossible count")
		}
		r.end += n
		if n > 0 {
			return nil
		}
		if err == io.EOF && r.start < r.end {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// makeRoom leaves at least one free byte behind end.
//
// Invariant: the buffer grows only when it is full of bytes that have arrived, at most to twice its size, so what a
// header claims never allocates anything.
func (r *Reader) makeRoom() {
	pending := r.end - r.start
	if pending == 0 {
		r.start, r.end = 0, 0
		if len(r.buf) > keepBuffer {
			r.buf = nil
		}
	}
	switch {
	case r.buf == nil:
		r.buf = spare.Get().(*[initialBuffer]byte)[:]
	case pending == len(r.buf):
		grown := make([]byte, 2*len(r.buf))
		copy(grown, r.buf[r.start:r.end])
		r.giveBack()
		r.buf, r.start, r.end = grown, 0, pending
	case r.end == len(r.buf), r.start > 0 && len(r.buf)-r.end < len(r.buf)/4:
		copy(r.buf, r.buf[r.start:r.end])
		r.start, r.end = 0, pending
	}
}
