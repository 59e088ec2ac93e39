package backend

import (
	"encoding/binary"

	"github.com/shardyard/shardyard/router/wire"
)

// pending counts the ReadyForQuery messages that the server still owes, from the frames that are written. A connection
// that is given back while one is outstanding would hand its answer to the next session, so this is not left to callers.
// Where it cannot be certain it counts too many, which costs a connection and nothing else.
type pending struct {
	queries, syncs int
	copyIn         bool // the server reads COPY data, and ignores Sync until CopyDone or CopyFail
	header         [5]byte
	headerLen      int // of a frame whose header was written in part
	body           int // bytes of the current frame not yet written
}

// wrote looks at the headers of the frames in b, which may begin and end inside a frame.
func (p *pending) wrote(b []byte) {
	for len(b) > 0 {
		if p.body > 0 {
			n := min(p.body, len(b))
			p.body -= n
			b = b[n:]
			continue
		}
		n := copy(p.header[p.headerLen:], b)
		p.headerLen += n
		b = b[n:]
		if p.headerLen < len(p.header) {
			return
		}
		p.headerLen = 0
		p.body = max(int(binary.BigEndian.Uint32(p.header[1:]))-4, 0)
		p.frame(p.header[0])
	}
}

func (p *pending) frame(kind byte) {
	switch kind {
	case wire.TypeQuery, wire.TypeFunctionCall:
		p.queries++
	case wire.TypeSync:
		if !p.copyIn {
			p.syncs++
		}
	case wire.TypeCopyDone, wire.TypeCopyFail:
		p.copyIn = false
	}
}

// copyStarted notes a CopyInResponse. The Sync behind an Execute that began it is ignored by the server; the client sends
// another one behind its data.
func (p *pending) copyStarted() {
	p.copyIn = true
	if p.queries == 0 {
		p.syncs = 0
	}
}

// failed notes an ErrorResponse, which ends a COPY.
func (p *pending) failed() { p.copyIn = false }

// ready notes a ReadyForQuery and reports whether another one is owed.
func (p *pending) ready() bool {
	p.copyIn = false
	if p.queries > 0 {
		p.queries--
	} else if p.syncs > 0 {
		p.syncs--
	}
	return p.queries+p.syncs > 0
}
