package copyrow

import (
	"bytes"
	"testing"
)

// Whatever the data and however it is cut, nothing panics, no byte of a row is changed, and the cuts make no difference.
func FuzzSplitter(f *testing.F) {
	for _, seed := range []string{"a\tb\n\\.\n", "1,\"x\ny\"\r\n2,3\r\n", Signature + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\xff\xff\xff\xff\x00\x00\x00\x01x" + Trailer, "\\", "\"\\", "\\.\r"} {
		for format := range byte(3) {
			f.Add([]byte(seed), format, byte(3), byte('"'))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, format, cut, escape byte) {
		o := Options{Format: Format(format % 3), Columns: 2, Escape: escape, Header: cut%2 == 1 && format%3 != 2, RowBound: 1 << 12}
		whole, wholeErr := split(o, data, len(data)+1)
		pieces, piecesErr := split(o, data, int(cut)+1)
		if wholeErr == nil && piecesErr == nil && !bytes.Equal(whole, pieces) {
			t.Fatalf("%q cut by %d:\n%q\n%q", data, cut, whole, pieces)
		}
		rows := bytes.ReplaceAll(bytes.TrimSuffix(pieces, []byte{0, 0, 2}), []byte{0, 0, 1}, nil)
		if o.Format != Binary && !bytes.Contains(data, []byte{0, 0}) && !bytes.HasPrefix(data, rows) {
			t.Fatalf("%q: split into %q", data, pieces)
		}
	})
}

// split joins the rows with a mark between them.
func split(o Options, data []byte, chunk int) (joined []byte, err error) {
	s, fields := New(o), NewFields(o, []int{0, 1})
	for {
		row, ok, err := s.Next()
		if err != nil {
			return nil, err
		}
		switch {
		case ok && row.Kind == Malformed: // how much of it is given depends on the cuts
			return append(joined, 0, 0, 2), nil
		case ok:
			joined = append(append(joined, row.Raw...), 0, 0, 1)
			if row.Kind == Data {
				fields.Of(&row)
			}
		case len(data) > 0:
			n := min(chunk, len(data))
			s.Write(data[:n])
			data = data[n:]
		case s.Done():
			return joined, nil
		default:
			s.End()
		}
	}
}
