package copyrow

// scanCSV looks for the end of a line of CSV, as CopyReadLineText does: quotes are toggles there, wherever they stand.
func (s *Splitter) scanCSV() (verdict, int) {
	if s.at == s.start {
		if v, body, decided := s.firstOfLine(); decided {
			return v, body
		}
	}
	for {
		if s.inQuote || s.lastWasEscape {
			if !s.quoted() {
				return needMore, 0
			}
			continue
		}
		p := min(s.newline.next(s.buf, s.at), s.carriage.next(s.buf, s.at), s.quote.next(s.buf, s.at))
		s.at = p
		if p == len(s.buf) {
			return needMore, 0
		}
		if s.buf[p] != s.o.Quote {
			return s.lineEnd(p)
		}
		s.toggle(s.buf[p])
		s.at = p + 1
	}
}

// firstOfLine looks for an end marker, which must stand at the beginning of a line and alone; decided is false if the line is to
// be read on.
func (s *Splitter) firstOfLine() (v verdict, body int, decided bool) {
	p := s.start
	if p == len(s.buf) {
		return needMore, 0, true
	}
	if s.buf[p] != '\\' || s.o.NoMarkerInCSV {
		return 0, 0, false
	}
	if p+1 == len(s.buf) && !s.ended {
		return needMore, 0, true
	}
	if p+1 < len(s.buf) && s.buf[p+1] == '.' {
		if v, body = s.endMarker(p, false); v != needMore || s.at == p {
			return v, body, true
		}
	}
	s.toggle(s.buf[p])
	s.at = p + 1
	return 0, 0, false
}

// toggle follows the state of quoting over one byte.
func (s *Splitter) toggle(c byte) {
	escapes := s.o.Escape != s.o.Quote && c == s.o.Escape
	if s.inQuote && escapes {
		s.lastWasEscape = !s.lastWasEscape
	}
	if c == s.o.Quote && !s.lastWasEscape {
		s.inQuote = !s.inQuote
	}
	if !escapes {
		s.lastWasEscape = false
	}
}

// quoted goes on within quotes, up to the next byte that may change that; it reports false if more data is needed.
func (s *Splitter) quoted() bool {
	if s.at == len(s.buf) {
		return false
	}
	if !s.lastWasEscape {
		p := s.quote.next(s.buf, s.at)
		if s.o.Escape != s.o.Quote {
			p = min(p, s.escape.next(s.buf, s.at))
		}
		s.count(s.buf[s.at:p])
		s.at = p
		if p == len(s.buf) {
			return false
		}
	}
	c := s.buf[s.at]
	s.toggle(c)
	if s.inQuote {
		s.count(s.buf[s.at : s.at+1])
	}
	s.at++
	return true
}

// count counts the line ends within quotes.
func (s *Splitter) count(quoted []byte) {
	for _, c := range quoted {
		switch c {
		case '\n':
			s.newlines++
		case '\r':
			s.returns++
		}
	}
}
