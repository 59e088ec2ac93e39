package wire

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Whatever we append, pgproto3 reads as the message meant.
func TestAppendAgainstPgproto3(t *testing.T) {
	columns := []Column{
		{Name: []byte("id"), Table: 16384, Attr: 1, Type: 23, TypeSize: 4, Typmod: -1},
		{Name: []byte("v"), Type: 1043, TypeSize: -1, Typmod: 14, Format: 1},
	}
	fields := []pgproto3.FieldDescription{
		{Name: []byte("id"), TableOID: 16384, TableAttributeNumber: 1, DataTypeOID: 23, DataTypeSize: 4, TypeModifier: -1},
		{Name: []byte("v"), DataTypeOID: 1043, DataTypeSize: -1, TypeModifier: 14, Format: 1},
	}
	values := [][]byte{[]byte("a"), nil, {}}
	key := []byte{1, 2, 3, 4}
	for _, tc := range []struct {
		got  []byte
		want pgproto3.Message
	}{
		{AppendParse(nil, "s", "select $1", []uint32{23, 0}), &pgproto3.Parse{Name: "s", Query: "select $1", ParameterOIDs: []uint32{23, 0}}},
		{AppendBind(nil, "p", "s", []int16{0, 1, 0}, values, []int16{1}), &pgproto3.Bind{
			DestinationPortal: "p", PreparedStatement: "s", ParameterFormatCodes: []int16{0, 1, 0}, Parameters: values, ResultFormatCodes: []int16{1},
		}},
		{AppendDescribe(nil, ObjectPortal, "p"), &pgproto3.Describe{ObjectType: 'P', Name: "p"}},
		{AppendClose(nil, ObjectStatement, "s"), &pgproto3.Close{ObjectType: 'S', Name: "s"}},
		{AppendExecute(nil, "p", 5), &pgproto3.Execute{Portal: "p", MaxRows: 5}},
		{AppendQuery(nil, "select 1"), &pgproto3.Query{String: "select 1"}},
		{AppendSync(nil), &pgproto3.Sync{}},
		{AppendFlush(nil), &pgproto3.Flush{}},
		{AppendTerminate(nil), &pgproto3.Terminate{}},
		{AppendCopyData(nil, []byte("x")), &pgproto3.CopyData{Data: []byte("x")}},
		{AppendCopyDone(nil), &pgproto3.CopyDone{}},
		{AppendCopyFail(nil, "why"), &pgproto3.CopyFail{Message: "why"}},
		{AppendAuthenticationOK(nil), &pgproto3.AuthenticationOk{}},
		{AppendAuthenticationCleartext(nil), &pgproto3.AuthenticationCleartextPassword{}},
		{AppendAuthenticationMD5(nil, [4]byte{1, 2, 3, 4}), &pgproto3.AuthenticationMD5Password{Salt: [4]byte{1, 2, 3, 4}}},
		{AppendAuthenticationSASL(nil, "SCRAM-SHA-256"), &pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256"}}},
		{AppendAuthenticationSASLContinue(nil, []byte("c")), &pgproto3.AuthenticationSASLContinue{Data: []byte("c")}},
		{AppendAuthenticationSASLFinal(nil, []byte("f")), &pgproto3.AuthenticationSASLFinal{Data: []byte("f")}},
		{AppendNegotiateVersion(nil, 0, []string{"_pq_.x"}), &pgproto3.NegotiateProtocolVersion{NewestMinorProtocol: 3 << 16, UnrecognizedOptions: []string{"_pq_.x"}}},
		{AppendBackendKeyData(nil, 9, key), &pgproto3.BackendKeyData{ProcessID: 9, SecretKey: key}},
		{AppendParameterStatus(nil, "TimeZone", "UTC"), &pgproto3.ParameterStatus{Name: "TimeZone", Value: "UTC"}},
		{AppendReady(nil, TxOpen), &pgproto3.ReadyForQuery{TxStatus: 'T'}},
		{AppendCommandComplete(nil, "SELECT 1"), &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}},
		{AppendRowDescription(nil, columns), &pgproto3.RowDescription{Fields: fields}},
		{AppendParameterDescription(nil, []uint32{23, 25}), &pgproto3.ParameterDescription{ParameterOIDs: []uint32{23, 25}}},
		{AppendDataRow(nil, values), &pgproto3.DataRow{Values: values}},
		{AppendParseComplete(nil), &pgproto3.ParseComplete{}},
		{AppendBindComplete(nil), &pgproto3.BindComplete{}},
		{AppendCloseComplete(nil), &pgproto3.CloseComplete{}},
		{AppendNoData(nil), &pgproto3.NoData{}},
		{AppendEmptyQuery(nil), &pgproto3.EmptyQueryResponse{}},
		{AppendPortalSuspended(nil), &pgproto3.PortalSuspended{}},
		{AppendFunctionCallResponse(nil, []byte("r")), &pgproto3.FunctionCallResponse{Result: []byte("r")}},
		{AppendNotification(nil, 3, "c", "p"), &pgproto3.NotificationResponse{PID: 3, Channel: "c", Payload: "p"}},
		{AppendCopyInResponse(nil, true, []int16{1, 1}), &pgproto3.CopyInResponse{OverallFormat: 1, ColumnFormatCodes: []uint16{1, 1}}},
		{AppendCopyOutResponse(nil, false, []int16{0}), &pgproto3.CopyOutResponse{ColumnFormatCodes: []uint16{0}}},
	} {
		encoded, err := tc.want.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(tc.got, encoded) {
			t.Errorf("%T: %q, pgproto3 writes %q", tc.want, tc.got, encoded)
		}
	}
}

func TestDecodeBindReuses(t *testing.T) {
	body := AppendBind(nil, "p", "s", []int16{1}, [][]byte{[]byte("x"), nil, {}}, nil)[headerSize:]
	var b Bind
	if err := b.Decode(body); err != nil {
		t.Fatal(err)
	}
	if string(b.Portal) != "p" || string(b.Statement) != "s" || b.Format(2) != 1 ||
		string(b.Params[0]) != "x" || b.Params[1] != nil || b.Params[2] == nil {
		t.Fatalf("got %+v", b)
	}
	if got := AppendBindTail(nil, "q", "other", b.Tail); !bytes.Equal(got, AppendBind(nil, "q", "other", b.Formats, b.Params, nil)) {
		t.Fatalf("tail: %q", got)
	}
	if allocs := testing.AllocsPerRun(100, func() { _ = b.Decode(body) }); allocs > 0 {
		t.Fatalf("%v allocations", allocs)
	}
}

func TestEditInPlace(t *testing.T) {
	raw := AppendRowDescription(nil, []Column{{Name: []byte("a"), Table: 5, Type: 16385}, {Name: []byte("bb"), Type: 23}})
	body := raw[headerSize:]
	columns, err := DecodeRowDescription(nil, body)
	if err != nil {
		t.Fatal(err)
	}
	columns[0].SetType(body, 77)
	columns[0].SetTable(body, 88)
	columns[1].SetFormat(body, 1)
	again, err := DecodeRowDescription(nil, body)
	if err != nil || !reflect.DeepEqual(columns, again) || again[0].Type != 77 || again[0].Table != 88 || again[1].Format != 1 {
		t.Fatalf("got %+v %v", again, err)
	}
	params := AppendParameterDescription(nil, []uint32{1, 2, 3})[headerSize:]
	SetParameterType(params, 1, 9)
	types, err := DecodeParameterDescription(nil, params)
	if err != nil || !reflect.DeepEqual(types, []uint32{1, 9, 3}) {
		t.Fatalf("got %v %v", types, err)
	}
	many := make([]uint32, 1<<16) // more than the message can count
	types, err = DecodeParameterDescription(nil, AppendParameterDescription(nil, many)[headerSize:])
	if err != nil || len(types) != len(many) {
		t.Fatalf("got %d types of %d, %v", len(types), len(many), err)
	}
}

func TestTrimmedRow(t *testing.T) {
	row := AppendDataRow(nil, [][]byte{[]byte("a"), nil, []byte("hidden"), nil})[headerSize:]
	got, err := AppendDataRowTrimmed(nil, row, 2)
	if err != nil || !bytes.Equal(got, AppendDataRow(nil, [][]byte{[]byte("a"), nil})) {
		t.Fatalf("got %q %v", got, err)
	}
	if _, err := AppendDataRowTrimmed(nil, row, 5); err == nil {
		t.Fatal("five of four columns were hidden")
	}
}

func TestTagRows(t *testing.T) {
	for tag, want := range map[string]int64{"SELECT 3": 3, "INSERT 0 12": 12, "CREATE TABLE": -1, "BEGIN": -1, "": -1, "5": -1, "MERGE 0": 0} {
		rows, ok := TagRows([]byte(tag))
		if !ok {
			rows = -1
		}
		if rows != want {
			t.Errorf("%q: %d, want %d", tag, rows, want)
		}
	}
}

func TestErrorFields(t *testing.T) {
	raw := AppendError(nil, ErrorPart{FieldSeverity, "ERROR"}, ErrorPart{FieldCode, "42601"}, ErrorPart{FieldHint, ""})
	if code := ErrorField(raw[headerSize:], FieldCode); string(code) != "42601" {
		t.Fatalf("code %q", code)
	}
	if hint := ErrorField(raw[headerSize:], FieldHint); hint != nil {
		t.Fatalf("hint %q", hint)
	}
	var theirs pgproto3.ErrorResponse
	if err := theirs.Decode(raw[headerSize:]); err != nil || theirs.Code != "42601" {
		t.Fatalf("pgproto3 reads %+v %v", theirs, err)
	}
}
