package wire

import (
	"bytes"
	"encoding/binary"
)

const (
	cancelRequestCode = 1234<<16 | 5678
	sslRequestCode    = 1234<<16 | 5679
	gssEncRequestCode = 1234<<16 | 5680

	maxCancelSecret = 256 // protocol 3.2; 3.0 has 4 bytes
)

// StartupKind tells the packets that may open a connection apart.
type StartupKind uint8

const (
	// StartupMessage asks for a session.
	StartupMessage StartupKind = iota
	// SSLRequest asks for TLS; it is answered by the single byte S or N.
	SSLRequest
	// GSSENCRequest asks for GSSAPI encryption; it is answered by the single byte G or N.
	GSSENCRequest
	// CancelRequest asks to cancel what another session runs.
	CancelRequest
)

// Parameter is one name and value of a start-up message.
type Parameter struct{ Name, Value string }

// Startup is the first packet of a connection. It owns its memory.
type Startup struct {
	Kind         StartupKind
	Major, Minor uint16      // StartupMessage: the protocol version, usually 3.0
	Parameters   []Parameter // StartupMessage: in the order they were sent, names may repeat
	CancelPID    uint32      // CancelRequest
	CancelSecret []byte      // CancelRequest
}

// Parameter returns the last value of a start-up parameter, as Postgres takes it.
func (s *Startup) Parameter(name string) (string, bool) {
	for i := len(s.Parameters) - 1; i >= 0; i-- {
		if s.Parameters[i].Name == name {
			return s.Parameters[i].Value, true
		}
	}
	return "", false
}

// ReadStartup reads a start-up packet: at most MaxStartupPacket bytes, checked before anything is allocated for it.
// Errors are as for Next.
func (r *Reader) ReadStartup() (*Startup, error) {
	for {
		startup, ok, err := r.PollStartup()
		if ok || err != nil {
			return startup, err
		}
		if err := r.Fill(); err != nil {
			return nil, err
		}
	}
}

// handshakeRecord is the first byte of TLS. That of a start-up packet is zero: it is the highest of a length that is bounded.
const handshakeRecord = 0x16

// BeginsTLS waits for the first byte of a connection and reports whether TLS begins with it instead of a start-up packet. Then it
// returns what was read, which belongs to the handshake, and SetSource may follow.
func (r *Reader) BeginsTLS() (read []byte, begins bool, err error) {
	if r.Buffered() == 0 {
		if err := r.Fill(); err != nil {
			return nil, false, err
		}
	}
	if r.buf[r.start] != handshakeRecord {
		return nil, false, nil
	}
	read = bytes.Clone(r.buf[r.start:r.end])
	r.start = r.end
	return read, true, nil
}

// PollStartup returns the start-up packet if all of it is buffered; it never reads from the source.
func (r *Reader) PollStartup() (*Startup, bool, error) {
	if r.err != nil {
		return nil, false, r.err
	}
	pending := r.buf[r.start:r.end]
	if len(pending) < 4 {
		return nil, false, nil
	}
	length := binary.BigEndian.Uint32(pending)
	if length < 8 || length > MaxStartupPacket+4 {
		r.err = malformed("invalid length of startup packet")
		return nil, false, r.err
	}
	if len(pending) < int(length) {
		return nil, false, nil
	}
	startup, err := decodeStartup(pending[4:length])
	if err != nil {
		r.err = err
		return nil, false, err
	}
	r.start += int(length)
	return startup, true, nil
}

func decodeStartup(body []byte) (*Startup, error) {
	code := binary.BigEndian.Uint32(body)
	rest := body[4:]
	switch code {
	case sslRequestCode, gssEncRequestCode:
		if len(rest) != 0 {
			return nil, malformed("invalid length of startup packet")
		}
		if code == sslRequestCode {
			return &Startup{Kind: SSLRequest}, nil
		}
		return &Startup{Kind: GSSENCRequest}, nil
	case cancelRequestCode:
		if len(rest) < 8 || len(rest) > 4+maxCancelSecret {
			return nil, malformed("invalid length of query cancel packet")
		}
		return &Startup{
			Kind: CancelRequest, CancelPID: binary.BigEndian.Uint32(rest), CancelSecret: bytes.Clone(rest[4:]),
		}, nil
	}
	s := &Startup{Kind: StartupMessage, Major: uint16(code >> 16), Minor: uint16(code)}
	if s.Major != 3 {
		return s, nil // another layout; the caller refuses the version
	}
	for {
		if len(rest) == 0 {
			return nil, malformed("invalid startup packet layout: expected terminator as last byte")
		}
		if rest[0] == 0 {
			break
		}
		var name, value []byte
		var ok bool
		if name, rest, ok = cutString(rest); !ok {
			return nil, malformed("invalid startup packet layout: expected terminator as last byte")
		}
		if value, rest, ok = cutString(rest); !ok {
			return nil, malformed("invalid startup packet layout: expected terminator as last byte")
		}
		s.Parameters = append(s.Parameters, Parameter{Name: string(name), Value: string(value)})
	}
	if len(rest) != 1 {
		return nil, malformed("invalid startup packet layout: expected terminator as last byte")
	}
	return s, nil
}

// AppendStartup appends a start-up message of protocol 3.0.
func AppendStartup(dst []byte, parameters []Parameter) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, 3, 0, 0)
	for _, p := range parameters {
		dst = appendString(dst, p.Name)
		dst = appendString(dst, p.Value)
	}
	dst = append(dst, 0)
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at))
	return dst
}

// AppendSSLRequest appends a request for TLS.
func AppendSSLRequest(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, 8)
	return binary.BigEndian.AppendUint32(dst, sslRequestCode)
}

// AppendCancelRequest appends a request to cancel what the session with this key runs.
func AppendCancelRequest(dst []byte, pid uint32, secret []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(12+len(secret)))
	dst = binary.BigEndian.AppendUint32(dst, cancelRequestCode)
	dst = binary.BigEndian.AppendUint32(dst, pid)
	return append(dst, secret...)
}

// cutString cuts a zero-terminated string off the front of b.
func cutString(b []byte) (value, rest []byte, ok bool) {
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return nil, nil, false
	}
	return b[:i:i], b[i+1:], true
}
