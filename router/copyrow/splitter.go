package copyrow

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// Kind says what a Row is.
type Kind uint8

// The kinds of rows.
const (
	// Data is a row.
	Data Kind = iota
	// Header is what stands before the rows: the first line if Options say so, or the header of the binary
	// format (without its extension). Every server must get it first.
	Header
	// Malformed is what no server accepts; nothing comes after it. A server that has seen an earlier line (it
	// knows the style of newlines), and gets no more than this, says the error.
	Malformed
)

// Row is a piece of the data. Its bytes are valid until the next Write.
type Row struct {
	Kind Kind
	// Raw is all of it, with its newline.
	Raw []byte
	// Line is the number of lines that Postgres counts up to here.
	Line int64
	// Newlines and Returns are the numbers of \n and \r within quotes. Postgres counts the ones or the others as lines.
	Newlines, Returns int

	added int // bytes at the beginning of Raw that are not in the data
	body  int // length of Raw without newline and end marker
}

// Body is the row without its newline, and without what Extend has put in front.
func (r *Row) Body() []byte { return r.Raw[r.added:r.body] }

// Extend is the row with further fields in front, written by write as the format asks for, each with the delimiter behind it or, in the
// binary format, with its length. It is valid as long as dst, which it is appended to, and the row.
func (r *Row) Extend(dst []byte, format Format, fields int, write func([]byte) []byte) (Row, []byte) {
	extended, at, rest := *r, len(dst), r.Raw
	if format == Binary {
		count := binary.BigEndian.Uint16(rest)
		dst, rest = binary.BigEndian.AppendUint16(dst, count+uint16(fields)), rest[2:]
	}
	dst = append(write(dst), rest...)
	extended.Raw = dst[at:len(dst):len(dst)]
	extended.added = len(extended.Raw) - len(r.Raw)
	extended.body += extended.added
	return extended, dst
}

// Lines is by how much the row moves the line counter of a server. first: it is the first that the server sees.
func (r *Row) Lines(style Style, first bool) int64 {
	if style == Newline && !first {
		return int64(1 + r.Newlines)
	}
	return int64(1 + r.Returns)
}

// Style is how lines end.
type Style uint8

// The styles of newlines that Postgres tells apart, by the first line.
const (
	Unknown Style = iota
	Newline
	Return
	ReturnNewline
)

// Splitter splits a stream of data into rows. It belongs to one goroutine at a time.
type Splitter struct {
	o     Options
	buf   []byte
	start int // of the row that is being read
	at    int // how far it has been read
	ended bool
	done  bool // nothing more is taken
	style Style
	line  int64

	newline, carriage, backslash, quote, escape finder

	// Of a row of CSV that is being read:
	inQuote, lastWasEscape bool
	newlines, returns      int

	binary binaryState
}

// New returns a Splitter.
func New(o Options) *Splitter {
	o.setDefaults()
	s := &Splitter{o: o}
	s.newline.c, s.carriage.c, s.backslash.c, s.quote.c, s.escape.c = '\n', '\r', '\\', o.Quote, o.Escape
	return s
}

// Write adds data. All rows returned before are invalid afterwards.
func (s *Splitter) Write(data []byte) {
	if s.done {
		return
	}
	if s.start > 0 {
		kept := copy(s.buf, s.buf[s.start:])
		s.buf = s.buf[:kept]
		for _, f := range []*finder{&s.newline, &s.carriage, &s.backslash, &s.quote, &s.escape} {
			f.at = max(f.at-s.start, 0)
		}
		s.at -= s.start
		s.start = 0
	}
	if len(s.buf) == 0 && cap(s.buf) > keptBuffer {
		s.buf = nil
	}
	s.buf = append(s.buf, data...)
}

// keptBuffer is the largest buffer that is kept when it is empty.
const keptBuffer = 1 << 20

// End says that no more data comes.
func (s *Splitter) End() { s.ended = true }

// Done reports whether nothing that is written is looked at any more: after the end marker or something malformed.
func (s *Splitter) Done() bool { return s.done }

// Style is how the lines end, Unknown before the first one has ended.
func (s *Splitter) Style() Style { return s.style }

// Next returns the next row; ok is false when more data is needed, or at the end. The error is a *TooLongError.
func (s *Splitter) Next() (row Row, ok bool, err error) {
	if s.done {
		return Row{}, false, nil
	}
	switch s.o.Format {
	case Binary:
		row, ok = s.nextTuple()
	case CSV:
		row, ok = s.nextLine(s.scanCSV)
	default:
		row, ok = s.nextLine(s.scanText)
	}
	switch {
	case ok && len(row.Raw) > s.o.RowBound:
		return Row{}, false, &TooLongError{Line: row.Line, Bound: s.o.RowBound}
	case !ok && !s.done && len(s.buf)-s.start > s.o.RowBound:
		return Row{}, false, &TooLongError{Line: s.line + 1, Bound: s.o.RowBound}
	}
	return row, ok, nil
}

// verdict is how the reading of a line went on.
type verdict uint8

const (
	needMore  verdict = iota
	lineEnds          // s.at is behind the newline, which has s.width bytes
	marker            // s.at is behind the end marker; body is the row before it
	malformed         // s.at is behind what is wrong
)

// nextLine reads a line of text or CSV. scan goes on from s.at; it returns the length of the line's body.
func (s *Splitter) nextLine(scan func() (verdict, int)) (Row, bool) {
	v, body := scan()
	if v == needMore {
		if !s.ended || s.start == len(s.buf) && !s.headerOwed() {
			s.done = s.ended
			return Row{}, false
		}
		s.at, body = len(s.buf), len(s.buf)-s.start
		s.done = true
	}
	if v == malformed && s.buf[s.at-1] >= 0x80 {
		// The first byte of a character, where nothing of the kind may stand: a whole one keeps the rest valid.
		s.buf[s.at-1] = 'x'
	}
	if v == malformed && s.style == Return && s.at == s.start+1 && s.buf[s.start] == '\n' {
		// A server whose first line came just before would take the two for one newline.
		s.buf = slices.Insert(s.buf, s.start, 'x')
		s.at++
	}
	row := Row{Raw: s.buf[s.start:s.at:s.at], Newlines: s.newlines, Returns: s.returns, body: body}
	known := s.style
	if v == lineEnds {
		s.learnStyle(row.Raw[body:])
	}
	switch {
	case v == malformed:
		row.Kind, s.done = Malformed, true
	case s.headerOwed():
		row.Kind = Header
	}
	if v == marker {
		s.done = true
		if body == 0 && row.Kind == Data {
			return Row{}, false
		}
	}
	s.line += row.Lines(known, false)
	row.Line = s.line
	s.start = s.at
	s.newlines, s.returns, s.inQuote, s.lastWasEscape = 0, 0, false, false
	return row, true
}

func (s *Splitter) headerOwed() bool { return s.o.Header && s.line == 0 }

func (s *Splitter) learnStyle(newline []byte) {
	switch {
	case len(newline) == 2:
		s.style = ReturnNewline
	case newline[0] == '\r':
		s.style = Return
	default:
		s.style = Newline
	}
}

// scanText looks for the end of a line of text.
func (s *Splitter) scanText() (verdict, int) {
	for {
		newline, carriage := s.newline.next(s.buf, s.at), s.carriage.next(s.buf, s.at)
		p := min(newline, carriage, s.backslash.next(s.buf, s.at))
		if p == len(s.buf) {
			s.at = p
			return needMore, 0
		}
		s.at = p
		if s.buf[p] != '\\' {
			return s.lineEnd(p)
		}
		if p+1 == len(s.buf) {
			return needMore, 0
		}
		if s.buf[p+1] == '.' {
			return s.endMarker(p, true)
		}
		s.at = p + 2 // whatever it is, it is data
	}
}

// lineEnd takes the newline or carriage return at p, which ends the line if it is of the right style.
func (s *Splitter) lineEnd(p int) (verdict, int) {
	end := p + 1
	if s.buf[p] == '\n' {
		s.at = end
		if s.style == Return || s.style == ReturnNewline {
			return malformed, 0
		}
		return lineEnds, p - s.start
	}
	switch s.style {
	case Unknown, ReturnNewline:
		if end == len(s.buf) && !s.ended {
			return needMore, 0
		}
		if end < len(s.buf) && s.buf[end] == '\n' {
			end++
		} else if s.style == ReturnNewline {
			s.at = end
			return malformed, 0
		}
	case Newline:
		s.at = end
		return malformed, 0
	case Return:
	}
	s.at = end
	return lineEnds, p - s.start
}

// endMarker looks at the backslash and point at p. strict: if it is no end marker it is malformed; else it is data
// (needMore with s.at behind p means that it is data).
func (s *Splitter) endMarker(p int, strict bool) (v verdict, body int) {
	next := p + 2
	peek := func() (byte, bool) {
		if next < len(s.buf) {
			return s.buf[next], true
		}
		return 0, s.ended
	}
	broken := func() (verdict, int) {
		if !strict {
			s.at = p + 1
			return needMore, 0
		}
		s.at = min(next+1, len(s.buf))
		return malformed, 0
	}
	if s.style == ReturnNewline {
		c, ok := peek()
		switch {
		case !ok:
			return needMore, 0
		case c != '\r':
			return broken()
		}
		next++
	}
	c, ok := peek()
	switch {
	case !ok:
		return needMore, 0
	case c != '\r' && c != '\n':
		return broken()
	}
	s.at = next + 1
	if s.style == Return && c != '\r' || (s.style == Newline || s.style == ReturnNewline) && c != '\n' {
		return malformed, 0
	}
	return marker, p - s.start
}

// finder remembers where a byte stands next, so that a byte which is rare is looked for once in a buffer and not in
// each row.
type finder struct {
	c  byte
	at int // the first occurrence at or behind the place that was last asked for; how far was looked if there is none
}

// next is the first occurrence at or behind from, len(buf) if there is none.
func (f *finder) next(buf []byte, from int) int {
	if f.at >= from && f.at < len(buf) && buf[f.at] == f.c {
		return f.at
	}
	from = max(from, f.at)
	if from < len(buf) {
		if i := bytes.IndexByte(buf[from:], f.c); i >= 0 {
			f.at = from + i
			return f.at
		}
	}
	f.at = len(buf)
	return f.at
}
