package wire

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Random bytes, cut anywhere: frames or an error, never a panic, and no more memory than has arrived.
func FuzzReader(f *testing.F) {
	f.Add(uint8(0), AppendStartup(nil, []Parameter{{"user", "u"}}))
	f.Add(uint8(1), AppendSync(AppendBind(AppendParse(nil, "", "select $1", nil), "", "", nil, [][]byte{nil}, nil)))
	f.Add(uint8(2), AppendReady(AppendDataRow(nil, [][]byte{[]byte("x"), nil}), TxIdle))
	f.Add(uint8(1), header('Q', MaxFrame))
	f.Fuzz(func(t *testing.T, mode uint8, data []byte) {
		r := NewReader(bytes.NewReader(data), Phase(mode%3))
		if Phase(mode%3) == Authenticating && mode > 127 {
			if _, err := r.ReadStartup(); err != nil {
				return
			}
		}
		read := 0
		for {
			frame, err := r.Next()
			if len(r.buf) > 2*len(data)+initialBuffer {
				t.Fatalf("a buffer of %d for %d bytes", len(r.buf), len(data))
			}
			if err != nil {
				var protocol *ProtocolError
				if !errors.As(err, &protocol) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("unexpected error: %v", err)
				}
				return
			}
			if len(frame.Raw) != len(frame.Body)+headerSize || frame.Raw[0] != frame.Type {
				t.Fatalf("inconsistent frame %+v", frame)
			}
			read += len(frame.Raw)
			if read > len(data) {
				t.Fatal("more read than there was")
			}
		}
	})
}

// Every decoder on every body: an error or a value, and where pgproto3 reads a message too, the same.
func FuzzDecode(f *testing.F) {
	for _, raw := range [][]byte{
		AppendParse(nil, "s", "select 1", []uint32{23}),
		AppendBind(nil, "p", "s", []int16{1}, [][]byte{[]byte("x"), nil}, []int16{0}),
		AppendDescribe(nil, 'S', "s"), AppendExecute(nil, "p", 3), AppendQuery(nil, "q"),
		AppendRowDescription(nil, []Column{{Name: []byte("a"), Type: 23}}),
		AppendParameterDescription(nil, []uint32{1, 2}), AppendDataRow(nil, [][]byte{nil, []byte("v")}),
		AppendError(nil, ErrorPart{'C', "42601"}), AppendCopyInResponse(nil, true, []int16{1}),
		AppendNotification(nil, 1, "c", "p"), AppendBackendKeyData(nil, 1, []byte("abcd")),
	} {
		f.Add(raw[headerSize:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		decodeFrontend(t, body)
		decodeBackend(t, body)
		_, _ = decodeStartup(append([]byte{0, 3, 0, 0}, body...))
	})
}

func decodeFrontend(t *testing.T, body []byte) {
	var parse Parse
	if parse.Decode(body) == nil {
		var theirs pgproto3.Parse
		if err := theirs.Decode(body); err != nil || theirs.Query != string(parse.Query) || len(theirs.ParameterOIDs) != len(parse.Types) {
			t.Fatalf("parse: %+v, pgproto3 %+v %v", parse, theirs, err)
		}
		if !bytes.Equal(AppendParse(nil, string(parse.Name), string(parse.Query), parse.Types)[headerSize:], body) {
			t.Fatal("parse does not come back")
		}
	}
	var bind Bind
	if bind.Decode(body) == nil {
		var theirs pgproto3.Bind
		if err := theirs.Decode(body); err != nil || !reflect.DeepEqual(normal(theirs.Parameters), normal(bind.Params)) {
			t.Fatalf("bind: %+v, pgproto3 %+v %v", bind, theirs, err)
		}
		again := AppendBind(nil, string(bind.Portal), string(bind.Statement), bind.Formats, bind.Params, bind.ResultFormats)
		if len(again) != len(body)+headerSize {
			t.Fatal("bind does not come back")
		}
	}
	if o, err := DecodeDescribe(body); err == nil && !bytes.Equal(AppendDescribe(nil, o.Kind, string(o.Name))[headerSize:], body) {
		t.Fatal("describe does not come back")
	}
	if e, err := DecodeExecute(body); err == nil && !bytes.Equal(AppendExecute(nil, string(e.Portal), e.MaxRows)[headerSize:], body) {
		t.Fatal("execute does not come back")
	}
	if q, err := DecodeQuery(body); err == nil && !bytes.Equal(AppendQuery(nil, string(q))[headerSize:], body) {
		t.Fatal("query does not come back")
	}
	_, _ = DecodeClose(body)
	_, _ = DecodeCopyFail(body)
	_, _ = DecodePassword(body)
	_, _ = DecodeSASLInitial(body)
	_ = DecodeEmpty(body)
	var call FunctionCall
	_ = call.Decode(body)
}

func decodeBackend(t *testing.T, body []byte) {
	if columns, err := DecodeRowDescription(nil, body); err == nil {
		if !bytes.Equal(AppendRowDescription(nil, columns)[headerSize:], body) {
			t.Fatal("row description does not come back")
		}
		edited := bytes.Clone(body)
		for i := range columns {
			columns[i].SetType(edited, 1)
		}
	}
	if types, err := DecodeParameterDescription(nil, body); err == nil &&
		!bytes.Equal(AppendParameterDescription(nil, types)[headerSize:], body) {
		t.Fatal("parameter description does not come back")
	}
	row := NewRow(body)
	var values [][]byte
	for v, ok := row.Next(); ok; v, ok = row.Next() {
		values = append(values, v)
	}
	if row.Err() == nil {
		var theirs pgproto3.DataRow
		if err := theirs.Decode(body); err != nil || !reflect.DeepEqual(normal(theirs.Values), normal(values)) {
			t.Fatalf("row: %q, pgproto3 %q %v", values, theirs.Values, err)
		}
		for hidden := range min(len(values), 20) + 1 {
			trimmed, err := AppendDataRowTrimmed(nil, body, hidden)
			if err != nil || !bytes.Equal(trimmed, AppendDataRow(nil, values[:len(values)-hidden])) {
				t.Fatalf("hide %d of %d columns: %v", hidden, len(values), err)
			}
		}
	}
	_, _ = AppendDataRowTrimmed(nil, body, 1)
	fields := NewFields(body)
	for _, _, ok := fields.Next(); ok; _, _, ok = fields.Next() {
	}
	_ = fields.Err()
	_ = ErrorField(body, 'Z')
	var response CopyResponse
	_ = response.Decode(body)
	_, _ = DecodeReady(body)
	if tag, err := DecodeCommandComplete(body); err == nil {
		_, _ = TagRows(tag)
	}
	_, _, _ = DecodeParameterStatus(body)
	_, _, _ = DecodeBackendKeyData(body)
	_, _ = DecodeNotification(body)
}

// normal tells NULL from empty and nothing else.
func normal(values [][]byte) []string {
	out := make([]string, len(values))
	for i, v := range values {
		if v != nil {
			out[i] = "=" + string(v)
		}
	}
	return out
}
