package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

func TestReadStartup(t *testing.T) {
	theirs := &pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "u", "database": "d"}}
	encoded, err := theirs.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewReader(bytes.NewReader(encoded), Authenticating).ReadStartup()
	if err != nil || s.Kind != StartupMessage || s.Major != 3 || s.Minor != 0 || len(s.Parameters) != 2 {
		t.Fatalf("got %+v %v", s, err)
	}
	if user, ok := s.Parameter("user"); !ok || user != "u" {
		t.Fatalf("user is %q", user)
	}
	if _, ok := s.Parameter("absent"); ok {
		t.Fatal("an absent parameter was found")
	}
	ours := AppendStartup(nil, s.Parameters)
	var decoded pgproto3.StartupMessage
	if err := decoded.Decode(ours[4:]); err != nil || decoded.Parameters["database"] != "d" {
		t.Fatalf("pgproto3 reads %+v %v", decoded, err)
	}
	cancel, err := NewReader(bytes.NewReader(AppendCancelRequest(nil, 7, []byte("abcd"))), Authenticating).ReadStartup()
	if err != nil || cancel.Kind != CancelRequest || cancel.CancelPID != 7 || string(cancel.CancelSecret) != "abcd" {
		t.Fatalf("got %+v %v", cancel, err)
	}
}

func TestBeginsTLS(t *testing.T) {
	hello := []byte{0x16, 3, 1, 2, 0, 1}
	r := NewReader(bytes.NewReader(hello), Authenticating)
	read, begins, err := r.BeginsTLS()
	if err != nil || !begins || !bytes.Equal(read, hello) || r.Buffered() != 0 || r.SetSource(bytes.NewReader(nil)) != nil {
		t.Fatalf("got %x %v %v", read, begins, err)
	}
	r = NewReader(bytes.NewReader(AppendSSLRequest(nil)), Authenticating)
	if read, begins, err = r.BeginsTLS(); err != nil || begins || read != nil {
		t.Fatalf("got %x %v %v", read, begins, err)
	}
	if s, err := r.ReadStartup(); err != nil || s.Kind != SSLRequest {
		t.Fatalf("got %+v %v", s, err)
	}
	if _, _, err = NewReader(bytes.NewReader(nil), Authenticating).BeginsTLS(); !errors.Is(err, io.EOF) {
		t.Fatalf("got %v", err)
	}
}

func TestReadStartupRefuses(t *testing.T) {
	packet := func(code uint32, rest string) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(8+len(rest)))
		return append(binary.BigEndian.AppendUint32(b, code), rest...)
	}
	for name, data := range map[string][]byte{
		"too long":             binary.BigEndian.AppendUint32(nil, MaxStartupPacket+5),
		"too short":            {0, 0, 0, 7},
		"huge":                 {0xff, 0xff, 0xff, 0xff},
		"http":                 []byte("GET / HTTP/1.1\r\n\r\n"),
		"no terminator":        packet(3<<16, "user\x00u\x00"),
		"name without value":   packet(3<<16, "user\x00"),
		"open name":            packet(3<<16, "user"),
		"empty":                packet(3<<16, ""),
		"behind terminator":    packet(3<<16, "user\x00u\x00\x00x"),
		"ssl with a body":      packet(sslRequestCode, "x"),
		"cancel short":         packet(cancelRequestCode, "1234"),
		"cancel without bound": packet(cancelRequestCode, string(make([]byte, 1000))),
	} {
		_, err := NewReader(bytes.NewReader(data), Authenticating).ReadStartup()
		var protocol *ProtocolError
		if !errors.As(err, &protocol) {
			t.Errorf("%s: got %v, want a protocol error", name, err)
		}
	}
	if _, err := NewReader(bytes.NewReader([]byte{0, 0, 0}), Authenticating).ReadStartup(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut off: got %v", err)
	}
	old, err := NewReader(bytes.NewReader(packet(2<<16, "whatever")), Authenticating).ReadStartup()
	if err != nil || old.Major != 2 {
		t.Errorf("version 2: got %+v %v", old, err)
	}
}
