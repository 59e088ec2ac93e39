package copyrow

import (
	"bytes"
	"encoding/binary"
)

// Signature begins the binary format.
const Signature = "PGCOPY\n\xff\r\n\x00"

// Trailer ends the binary format.
const Trailer = "\xff\xff"

const (
	binaryHeader  = len(Signature) + 8 // with flags and length of the extension
	criticalFlags = 0xffff0000
)

// binaryState is how far the binary format has been read.
type binaryState struct {
	header  bool // has been read
	skip    int  // bytes of its extension that are still to come
	trailer bool // has been read
}

// nextTuple reads a row of the binary format.
func (s *Splitter) nextTuple() (Row, bool) {
	if !s.binary.header {
		return s.binaryHeader()
	}
	if s.binary.skip > 0 {
		n := min(s.binary.skip, len(s.buf)-s.start)
		s.start += n
		if s.binary.skip -= n; s.binary.skip > 0 && s.ended {
			// A header that says so and ends there.
			raw := append([]byte(Signature), 0, 0, 0, 0, 0, 0, 0, 1)
			return s.broken(raw, 0), true
		}
		if s.binary.skip > 0 {
			return Row{}, false
		}
		return Row{Kind: Header, Raw: append([]byte(Signature), make([]byte, 8)...)}, true
	}
	rest := s.buf[s.start:]
	if s.binary.trailer {
		if len(rest) > 0 {
			return s.broken(append([]byte(Trailer), rest[0]), s.line+1), true
		}
		s.done = s.ended
		return Row{}, false
	}
	size, v := s.tuple(rest)
	switch {
	case v == malformed:
		return s.broken(rest[:size], s.line+1), true
	case v == needMore && s.ended && len(rest) > 1:
		return s.broken(rest, s.line+1), true
	case v == needMore:
		s.done = s.ended // a single byte is no error
		return Row{}, false
	case v == marker:
		s.binary.trailer = true
		s.start += size
		return s.nextTuple()
	}
	s.start += size
	s.line++
	return Row{Raw: rest[:size:size], Line: s.line, body: size}, true
}

func (s *Splitter) broken(raw []byte, line int64) Row {
	s.done = true
	return Row{Kind: Malformed, Raw: raw, Line: line, body: len(raw)}
}

// binaryHeader reads signature, flags and the length of the extension.
func (s *Splitter) binaryHeader() (Row, bool) {
	head := s.buf[s.start:]
	if len(head) > binaryHeader {
		head = head[:binaryHeader]
	}
	signed := min(len(head), len(Signature))
	if !bytes.Equal(head[:signed], []byte(Signature[:signed])) || len(head) < binaryHeader && s.ended {
		return s.broken(head, 0), true
	}
	if len(head) < binaryHeader {
		return Row{}, false
	}
	flags := binary.BigEndian.Uint32(head[len(Signature):])
	extension := int32(binary.BigEndian.Uint32(head[len(Signature)+4:]))
	if flags&criticalFlags != 0 || extension < 0 {
		return s.broken(head, 0), true
	}
	s.start += binaryHeader
	s.binary.header, s.binary.skip = true, int(extension)
	if extension > 0 {
		return s.nextTuple()
	}
	return Row{Kind: Header, Raw: head}, true
}

// tuple measures the row at the front of rest. Of what is malformed it returns the bytes up to there.
func (s *Splitter) tuple(rest []byte) (size int, v verdict) {
	if len(rest) < 2 {
		return 0, needMore
	}
	count := int16(binary.BigEndian.Uint16(rest))
	switch {
	case count == -1:
		return 2, marker
	case int(count) != s.o.Columns:
		return 2, malformed
	}
	at := 2
	for range count {
		if len(rest) < at+4 {
			return 0, needMore
		}
		n := int32(binary.BigEndian.Uint32(rest[at:]))
		at += 4
		switch {
		case n == -1:
			continue
		case n < 0:
			return at, malformed
		case len(rest)-at < int(n):
			return 0, needMore
		}
		at += int(n)
	}
	return at, lineEnds
}
