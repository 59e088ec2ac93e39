package backend

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"

	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// keyLogin stands between pgconn and a server until the server has let us in: it answers the server's request for SCRAM-SHA-256
// with keys, which pgconn cannot. pgconn sees a server that trusts it. Everything else passes as it is.
type keyLogin struct {
	net.Conn
	keys   *Keys
	unread []byte // what pgconn gets next
	ended  bool   // authentication is over
}

const (
	authOK           = 0
	authSASL         = 10
	authSASLContinue = 11
	authSASLFinal    = 12

	mechanism      = "SCRAM-SHA-256"
	mechanismBound = "SCRAM-SHA-256-PLUS"

	// maxLoginFrame bounds the messages of a server that has not let us in.
	maxLoginFrame = 64 << 10
)

// Read gives pgconn the server's messages but those of SASL.
func (l *keyLogin) Read(b []byte) (int, error) {
	for len(l.unread) == 0 {
		if l.ended {
			return l.Conn.Read(b)
		}
		if err := l.step(); err != nil {
			return 0, err
		}
	}
	n := copy(b, l.unread)
	l.unread = l.unread[n:]
	return n, nil
}

// step takes one message of the server.
func (l *keyLogin) step() error {
	frame, err := l.receive()
	if err != nil {
		return err
	}
	if frame[0] == wire.TypeErrorResponse {
		l.unread, l.ended = frame, true
		return nil
	}
	code, body, isAuthentication := authentication(frame)
	switch {
	case !isAuthentication:
		l.unread = frame // a notice, or the version
	case code == authOK:
		l.unread, l.ended = frame, true
	case code == authSASL:
		return l.scram(strings.Split(string(body), "\x00"))
	default:
		return pgerr.New(codeInvalidPassword, "a shard asks for a password in a way that needs the password itself").
			WithHint("Let pg_hba.conf of the shard ask for scram-sha-256, or give the router the password: users.<role>.")
	}
	return nil
}

// receive reads one message.
func (l *keyLogin) receive() ([]byte, error) {
	var header [5]byte
	if _, err := io.ReadFull(l.Conn, header[:]); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(header[1:])
	if length < 4 || length > maxLoginFrame {
		return nil, errors.New("server sent a message of impossible length")
	}
	frame := make([]byte, 1+length)
	copy(frame, header[:])
	_, err := io.ReadFull(l.Conn, frame[len(header):])
	return frame, err
}

func authentication(frame []byte) (code uint32, body []byte, ok bool) {
	if frame[0] != wire.TypeAuthentication || len(frame) < 9 {
		return 0, nil, false
	}
	return binary.BigEndian.Uint32(frame[5:]), frame[9:], true
}

// scram runs the client's side of an exchange (RFC 5802, 7677). If the server ends it, pgconn gets the server's error.
func (l *keyLogin) scram(offered []string) error {
	x := exchange{keys: l.keys, header: "n,,", nonce: rand.Text()}
	chosen := mechanism
	if encrypted, ok := l.Conn.(*tls.Conn); ok {
		state := encrypted.ConnectionState()
		if binding, err := scram.NewTLSServerEndpointBinding(&state); err == nil {
			x.header = "y,,"
			if slices.Contains(offered, mechanismBound) {
				chosen, x.header, x.binding = mechanismBound, "p="+string(binding.Type)+",,", binding.Data
			}
		}
	}
	if !slices.Contains(offered, chosen) {
		return fmt.Errorf("server offers no mechanism of SASL that is known: %q", offered)
	}
	first := x.first()
	initial := append([]byte(chosen), 0)
	initial = binary.BigEndian.AppendUint32(initial, uint32(len(first)))
	challenge, err := l.ask(append(initial, first...), authSASLContinue)
	if err != nil || challenge == nil {
		return err
	}
	proof, err := x.proof(string(challenge))
	if err != nil {
		return err
	}
	outcome, err := l.ask([]byte(proof), authSASLFinal)
	if err != nil || outcome == nil {
		return err
	}
	return x.check(string(outcome))
}

// ask sends a response and returns the server's answer to it, nil if that is an error, which pgconn then gets.
func (l *keyLogin) ask(response []byte, want uint32) ([]byte, error) {
	message := binary.BigEndian.AppendUint32([]byte{wire.TypePassword}, uint32(4+len(response)))
	if _, err := l.Write(append(message, response...)); err != nil {
		return nil, err
	}
	frame, err := l.receive()
	if err != nil {
		return nil, err
	}
	if frame[0] == wire.TypeErrorResponse {
		l.unread, l.ended = frame, true
		return nil, nil
	}
	code, body, ok := authentication(frame)
	if !ok || code != want {
		return nil, errors.New("server broke the protocol of SASL")
	}
	return append([]byte{}, body...), nil
}

// exchange is the client's side of SCRAM-SHA-256 with keys in place of the password.
type exchange struct {
	keys          *Keys
	header, nonce string
	binding       []byte
	transcript    string
}

func (x *exchange) first() string { return x.header + x.bare() }

// bare has no name: Postgres takes that of the start-up message.
func (x *exchange) bare() string { return "n=,r=" + x.nonce }

func (x *exchange) proof(challenge string) (string, error) {
	fields := strings.Split(challenge, ",")
	if len(fields) != 3 {
		return "", errors.New("server sent a malformed challenge")
	}
	nonce, ok1 := strings.CutPrefix(fields[0], "r=")
	salt, ok2 := strings.CutPrefix(fields[1], "s=")
	count, ok3 := strings.CutPrefix(fields[2], "i=")
	decoded, err := base64.StdEncoding.DecodeString(salt)
	iterations, err2 := strconv.Atoi(count)
	if !ok1 || !ok2 || !ok3 || err != nil || err2 != nil || len(nonce) <= len(x.nonce) || !strings.HasPrefix(nonce, x.nonce) {
		return "", errors.New("server sent a malformed challenge")
	}
	if string(decoded) != string(x.keys.Salt) || iterations != x.keys.Iterations {
		return "", pgerr.New(codeInvalidPassword, "a shard has another verifier of the role than the one that its client logged in by")
	}
	channel := base64.StdEncoding.EncodeToString(append([]byte(x.header), x.binding...))
	withoutProof := "c=" + channel + ",r=" + nonce
	x.transcript = x.bare() + "," + challenge + "," + withoutProof
	stored := sha256.Sum256(x.keys.Client)
	proof := x.sign(stored[:])
	subtle.XORBytes(proof, proof, x.keys.Client)
	return withoutProof + ",p=" + base64.StdEncoding.EncodeToString(proof), nil
}

// check makes sure that the server knows the verifier too.
func (x *exchange) check(outcome string) error {
	signature, ok := strings.CutPrefix(outcome, "v=")
	decoded, err := base64.StdEncoding.DecodeString(signature)
	if !ok || err != nil || !hmac.Equal(decoded, x.sign(x.keys.Server)) {
		return errors.New("server does not know the role's verifier")
	}
	return nil
}

func (x *exchange) sign(key []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(x.transcript))
	return mac.Sum(nil)
}
