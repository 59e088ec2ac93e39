package merge

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// rows is a Source over a slice.
type rows struct {
	list [][]byte
	err  error
}

func (r *rows) Next() ([]byte, bool, error) {
	if len(r.list) == 0 {
		return nil, false, r.err
	}
	row := r.list[0]
	r.list = r.list[1:]
	return row, true, nil
}

// dataRow is the body of a DataRow; nil is NULL.
func dataRow(values ...[]byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(values)))
	for _, v := range values {
		if v == nil {
			b = append(b, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
	}
	return b
}

func int4(v int32) []byte { return binary.BigEndian.AppendUint32(nil, uint32(v)) }

// pair is a row with its place of origin, to check stability.
type pair struct {
	key    *int32
	second int32
	source int
	index  int
}

func (p pair) row() []byte {
	var key []byte
	if p.key != nil {
		key = int4(*p.key)
	}
	return dataRow(int4(int32(p.source)), key, int4(int32(p.index)), int4(p.second))
}

func comparePairs(first, second Key) func(a, b pair) int {
	nulls := func(a, b *int32) (int, bool) {
		switch {
		case a == nil && b == nil:
			return 0, true
		case a == nil:
			return map[bool]int{true: -1, false: 1}[first.NullsFirst], true
		case b == nil:
			return map[bool]int{true: 1, false: -1}[first.NullsFirst], true
		}
		return 0, false
	}
	direction := func(k Key, a, b int32) int {
		c := 0
		if a < b {
			c = -1
		} else if a > b {
			c = 1
		}
		if k.Desc {
			return -c
		}
		return c
	}
	return func(a, b pair) int {
		c, decided := nulls(a.key, b.key)
		if !decided {
			c = direction(first, *a.key, *b.key)
		}
		if c == 0 {
			c = direction(second, a.second, b.second)
		}
		return c
	}
}

// Any sorted sources merge into what a stable sort of them all gives, rows that tie in the order of sources.
func TestMergeIsAStableSort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := Key{Column: 1, Type: oidInt4, Format: 1, Desc: rapid.Bool().Draw(t, "desc"), NullsFirst: rapid.Bool().Draw(t, "nulls first")}
		second := Key{Column: 3, Type: oidInt4, Format: 1, Desc: rapid.Bool().Draw(t, "desc2")}
		compare := comparePairs(first, second)
		var all []pair
		var sources []Source
		for s := range rapid.IntRange(0, 9).Draw(t, "sources") {
			list := make([]pair, rapid.IntRange(0, 12).Draw(t, "rows"))
			for i := range list {
				if key := rapid.Int32Range(-3, 3).Draw(t, "key"); key != -3 {
					list[i].key = &key
				}
				list[i].second = rapid.Int32Range(0, 2).Draw(t, "second")
				list[i].source = s
			}
			slices.SortStableFunc(list, compare)
			source := &rows{}
			for i := range list {
				list[i].index = i
				source.list = append(source.list, list[i].row())
			}
			sources = append(sources, source)
			all = append(all, list...)
		}
		slices.SortStableFunc(all, compare)
		m, err := New(sources, []Key{first, second})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range all {
			row, ok, err := m.Next()
			if err != nil || !ok || !slices.Equal(row, want.row()) {
				t.Fatalf("row %d: %v %v %v, want %v", i, row, ok, err, want.row())
			}
		}
		for range 2 {
			if row, ok, err := m.Next(); ok || err != nil {
				t.Fatalf("behind the end: %v %v", row, err)
			}
		}
	})
}

func TestMergeReportsASourcesError(t *testing.T) {
	errLost := errors.New("lost")
	m, err := New([]Source{&rows{list: [][]byte{dataRow(int4(1))}}, &rows{list: [][]byte{dataRow(int4(2))}, err: errLost}},
		[]Key{{Type: oidInt4, Format: 1}})
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	for {
		_, ok, err := m.Next()
		if errors.Is(err, errLost) {
			break
		}
		if !ok {
			t.Fatal("the error was swallowed")
		}
		got++
	}
	if _, _, err := m.Next(); !errors.Is(err, errLost) {
		t.Fatalf("the error did not stay: %v", err)
	}
	if got != 2 {
		t.Fatalf("%d rows before the error", got)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, k := range []Key{{Type: 114}, {Type: oidInt4, Format: 2}, {Type: oidInt4, Column: -1}, {Type: 1186}} {
		if _, err := New(nil, []Key{k}); err == nil {
			t.Errorf("%+v was taken", k)
		}
	}
}

func TestMergeable(t *testing.T) {
	for _, oid := range []uint32{oidText, oidVarchar, oidBPChar, oidName} {
		if Mergeable(oid, false) || !Mergeable(oid, true) {
			t.Errorf("type %d: mergeable only under C", oid)
		}
	}
	for _, oid := range []uint32{114, 1186, 1266, 790, 600, 16384, 0} {
		if Mergeable(oid, true) {
			t.Errorf("type %d is not mergeable", oid)
		}
	}
	if !Mergeable(oidNumeric, false) || !Mergeable(oidUUID, false) {
		t.Error("numbers do not depend on a collation")
	}
}

func TestMalformedValues(t *testing.T) {
	for _, tc := range []struct {
		oid    uint32
		format int16
		wire   string
	}{
		{oidBool, 0, "true"}, {oidBool, 1, "\x02"}, {oidInt4, 0, "x"}, {oidInt4, 0, ""}, {oidInt4, 1, "abc"}, {oidOID, 1, "ab"},
		{oidChar, 0, "ab"}, {oidChar, 0, `\999`}, {oidChar, 1, ""}, {oidFloat8, 0, "1.x"}, {oidFloat8, 1, "abc"},
		{oidNumeric, 0, "1e5"}, {oidNumeric, 0, ""}, {oidNumeric, 0, "-"}, {oidNumeric, 1, "short"},
		{oidNumeric, 1, "\x00\x01\x00\x00\x00\x00\x00\x00"}, {oidNumeric, 1, "\x00\x00\x00\x00\x12\x34\x00\x00"},
		{oidDate, 0, "01/02/2024"}, {oidDate, 0, "2024-13-01"}, {oidDate, 1, "abc"}, {oidTime, 0, "12"},
		{oidTimestamp, 0, "Thu Feb 29 12:34:56 2024"}, {oidTimestamp, 0, "2024-02-29 12:34:56+00"},
		{oidTimestamptz, 0, "2024-02-29 12:34:56"}, {oidTimestamptz, 0, "2024-02-29 12:34:56 UTC"},
		{oidUUID, 0, "abc"}, {oidUUID, 1, "abc"}, {oidBytea, 0, `\xzz`}, {oidBytea, 0, `\9`},
	} {
		d, ok := decoderOf(tc.oid, tc.format)
		if !ok {
			t.Fatalf("no decoder for %d", tc.oid)
		}
		if err := d.decode(&value{}, []byte(tc.wire)); err == nil {
			t.Errorf("type %d format %d: %q was taken", tc.oid, tc.format, tc.wire)
		}
	}
}

// Any bytes as a row: an error or a row, never a panic.
func FuzzMerge(f *testing.F) {
	f.Add(uint8(0), dataRow([]byte("1.50"), nil), dataRow([]byte("2")))
	f.Add(uint8(1), dataRow(int4(5)), []byte{0, 1, 0xff, 0xff, 0xff, 0xfe})
	types := []uint32{
		oidBool, oidBytea, oidChar, oidName, oidInt8, oidInt2, oidInt4, oidText, oidOID, oidFloat4, oidFloat8, oidBPChar,
		oidDate, oidTime, oidTimestamp, oidTimestamptz, oidNumeric, oidUUID,
	}
	f.Fuzz(func(t *testing.T, mode uint8, a, b []byte) {
		key := Key{Type: types[int(mode/2)%len(types)], Format: int16(mode % 2)}
		m, err := New([]Source{&rows{list: [][]byte{a}}, &rows{list: [][]byte{b}}}, []Key{key})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			row, ok, err := m.Next()
			if err != nil || !ok {
				return
			}
			_, _ = Strip(slices.Clone(row), int(mode%4))
		}
		t.Fatal("three rows out of two")
	})
}

func TestCutter(t *testing.T) {
	for _, tc := range []struct {
		offset, limit int64
		want          string
	}{{0, -1, "01234"}, {2, -1, "234"}, {0, 2, "01"}, {1, 2, "12"}, {9, 1, ""}, {0, 0, ""}, {4, 9, "4"}, {-1, 1, "0"}} {
		c := NewCutter(tc.offset, tc.limit)
		got := ""
		for _, row := range "01234" {
			if c.Done() {
				break
			}
			if c.Take() {
				got += string(row)
			}
		}
		if got != tc.want {
			t.Errorf("offset %d limit %d: %q, want %q", tc.offset, tc.limit, got, tc.want)
		}
	}
}

func TestStrip(t *testing.T) {
	row := dataRow([]byte("a"), nil, []byte("hidden"), nil)
	got, err := Strip(slices.Clone(row), 2)
	if err != nil || !slices.Equal(got, dataRow([]byte("a"), nil)) {
		t.Fatalf("got %v %v", got, err)
	}
	if got, err := Strip(row, 0); err != nil || !slices.Equal(got, row) {
		t.Fatalf("nothing hidden: %v %v", got, err)
	}
	for _, bad := range [][]byte{nil, {0}, {0, 5, 0, 0, 0, 9}, {0, 2, 0xff, 0xff, 0xff, 0xfe}} {
		if _, err := Strip(bad, 1); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

func TestMergeAllocatesNothingPerRow(t *testing.T) {
	const count = 2000
	list := make([][]byte, count)
	for i := range list {
		list[i] = dataRow([]byte("12345.678"), []byte("2024-02-29 12:34:56.789+05:30"), int4(int32(i)))
	}
	keys := []Key{{Column: 0, Type: oidNumeric}, {Column: 1, Type: oidTimestamptz}, {Column: 2, Type: oidInt4, Format: 1}}
	allocs := testing.AllocsPerRun(5, func() {
		m, err := New([]Source{&rows{list: list}, &rows{list: list}, &rows{list: list}}, keys)
		if err != nil {
			t.Fatal(err)
		}
		for ok := true; ok; {
			if _, ok, err = m.Next(); err != nil {
				t.Fatal(err)
			}
		}
	})
	if allocs > 50 {
		t.Fatalf("%v allocations for %d rows", allocs, 3*count)
	}
}
