package pgerr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

func decode(t *testing.T, raw []byte) pgproto3.ErrorResponse {
	t.Helper()
	var response pgproto3.ErrorResponse
	if err := response.Decode(raw[5:]); err != nil {
		t.Fatal(err)
	}
	return response
}

func TestAppendAllFields(t *testing.T) {
	e := &Error{
		Severity: "ERROR", Code: "23505", Message: "m", Detail: "d", Hint: "h", Position: 7, InternalPosition: 8,
		InternalQuery: "q", Where: "w", Schema: "s", Table: "t", Column: "c", DataType: "dt", Constraint: "n",
		File: "f", Line: "12", Routine: "r",
	}
	got := decode(t, e.Append(nil))
	want := pgproto3.ErrorResponse{
		Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "23505", Message: "m", Detail: "d", Hint: "h", Position: 7,
		InternalPosition: 8, InternalQuery: "q", Where: "w", SchemaName: "s", TableName: "t", ColumnName: "c",
		DataTypeName: "dt", ConstraintName: "n", File: "f", Line: 12, Routine: "r",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
	if notice := e.AppendNotice(nil); notice[0] != 'N' {
		t.Fatalf("a notice of type %c", notice[0])
	}
}

// What a shard said passes byte for byte, unknown fields and localised severities too.
func TestFromShardPassesWhole(t *testing.T) {
	body := []byte("SFEHLER\x00VERROR\x00C42601\x00Mfalsch\x00P5\x00xunknown\x00L9\x00\x00")
	e := FromShard(body)
	if e.Code != "42601" || e.Message != "falsch" || e.Position != 5 || e.IsFatal() || e.Line != "9" {
		t.Fatalf("got %+v", e)
	}
	if raw := e.Append(nil); !bytes.Equal(raw[5:], body) || int(raw[4]) != len(body)+4 {
		t.Fatalf("got %q", raw)
	}
	if got := decode(t, FromShard(body).At(9).Append(nil)); got.Position != 9 || got.Message != "falsch" {
		t.Fatalf("moved position: %+v", got)
	}
}

func TestFromShardFatal(t *testing.T) {
	e := FromShard([]byte("SFATAL\x00VFATAL\x00C57P01\x00Mbye\x00\x00"))
	if !e.IsFatal() || e.AsError().IsFatal() || decode(t, e.AsError().Append(nil)).Severity != "ERROR" {
		t.Fatalf("got %+v", e)
	}
}

func TestFromShardMalformed(t *testing.T) {
	for _, body := range []string{"", "\x00", "C42601", "C42601\x00", "Mno code\x00\x00", "C42601\x00\x00junk"} {
		if e := FromShard([]byte(body)); e.Code != InternalError {
			t.Errorf("%q: got %+v", body, e)
		}
	}
}

func FuzzFromShard(f *testing.F) {
	f.Add([]byte("SERROR\x00C42601\x00Mm\x00P5\x00\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		raw := FromShard(body).Append(nil)
		if len(raw) < 6 || raw[len(raw)-1] != 0 {
			t.Fatalf("%q becomes %q", body, raw)
		}
	})
}

type planError struct{ position int }

func (planError) Error() string    { return "no" }
func (planError) SQLState() string { return "0A000" }
func (planError) Hint() string     { return "hint" }
func (planError) Detail() string   { return "detail" }
func (e planError) Position() int  { return e.position }

func TestOf(t *testing.T) {
	own := New("53300", "full").WithHint("wait")
	for _, tc := range []struct {
		err  error
		code string
	}{
		{own, "53300"},
		{fmt.Errorf("acquire: %w", own), "53300"},
		{&pgconn.PgError{Severity: "FATAL", Code: "28P01", Message: "m", ConstraintName: "c"}, "28P01"},
		{fmt.Errorf("plan: %w", planError{3}), "0A000"},
		{fmt.Errorf("x: %w", context.Canceled), "57014"},
		{context.DeadlineExceeded, "57014"},
		{fmt.Errorf("read: %w", io.ErrUnexpectedEOF), "08006"},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, "08006"},
		{net.ErrClosed, "08006"},
		{errors.New("surprise"), "XX000"},
	} {
		got := Of(tc.err)
		if got.Code != tc.code || got.IsFatal() || got.SQLState() != tc.code {
			t.Errorf("%v: got %+v, want %s", tc.err, got, tc.code)
		}
	}
	if Of(nil) != nil {
		t.Error("an error out of nothing")
	}
	plan := Of(fmt.Errorf("plan: %w", planError{3}))
	if plan.Hint != "hint" || plan.Detail != "detail" || plan.Position != 3 || plan.Message != "no" {
		t.Errorf("got %+v", plan)
	}
	internal := Of(errors.New("surprise"))
	if !strings.Contains(internal.Message, "internal error: surprise") {
		t.Errorf("got %q", internal.Message)
	}
}

func TestZeroBytesCannotEndAField(t *testing.T) {
	got := decode(t, New("XX000", "a\x00b").Append(nil))
	if got.Message != "ab" {
		t.Fatalf("got %q", got.Message)
	}
}
