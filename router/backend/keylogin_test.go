package backend

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/xdg-go/scram"

	"github.com/shardyard/shardyard/router/wire"
)

// keysOf derives the keys of a password as RFC 5802 says, and what a server keeps of it.
func keysOf(t testing.TB, password, salt string) (*Keys, scram.StoredCredentials) {
	t.Helper()
	salted, err := pbkdf2.Key(sha256.New, password, []byte(salt), 4096, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(text string) []byte {
		mac := hmac.New(sha256.New, salted)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
	keys := &Keys{Client: sign("Client Key"), Server: sign("Server Key"), Salt: []byte(salt), Iterations: 4096}
	stored := sha256.Sum256(keys.Client)
	return keys, scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: salt, Iters: 4096}, StoredKey: stored[:], ServerKey: keys.Server,
	}
}

// scripted is a server that is a function: what it says to each message of the client. It is for servers that Postgres is not.
type scripted struct {
	net.Conn
	answer func(message []byte) []byte
	unread bytes.Buffer
}

func (s *scripted) Write(message []byte) (int, error) {
	s.unread.Write(s.answer(message[5:]))
	return len(message), nil
}

func (s *scripted) Read(b []byte) (int, error) { return s.unread.Read(b) }

// login runs a login at a server that begins with the request for SASL, and returns what pgconn would read.
func login(keys *Keys, answer func(message []byte) []byte) (string, error) {
	server := &scripted{answer: answer}
	server.unread.Write(wire.AppendAuthenticationSASL(nil, "SCRAM-SHA-256"))
	text, err := io.ReadAll(&keyLogin{Conn: server, keys: keys})
	return string(text), err
}

func TestKeyLogin(t *testing.T) {
	keys, stored := keysOf(t, "pencil", "a salt of bytes!")
	// honest is a server that knows what it should; change may change what it says.
	honest := func(stored scram.StoredCredentials, change func(step int, text string) []byte) func([]byte) []byte {
		server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return stored, nil })
		if err != nil {
			t.Fatal(err)
		}
		conversation := server.NewConversation()
		step := 0
		return func(message []byte) []byte {
			step++
			if step == 1 {
				initial, err := wire.DecodeSASLInitial(message)
				if err != nil {
					t.Fatal(err)
				}
				message = initial.Data
			}
			text, err := conversation.Step(string(message))
			if err != nil {
				return []byte("E\x00\x00\x00\x05\x00")
			}
			return change(step, text)
		}
	}
	asIs := func(step int, text string) []byte {
		if step == 1 {
			return wire.AppendAuthenticationSASLContinue(nil, []byte(text))
		}
		return wire.AppendAuthenticationOK(wire.AppendAuthenticationSASLFinal(nil, []byte(text)))
	}
	ok := string(wire.AppendAuthenticationOK(nil))
	if got, err := login(keys, honest(stored, asIs)); err != nil || got != ok {
		t.Fatalf("got %q %v", got, err)
	}
	other, otherStored := keysOf(t, "pen", "a salt of bytes!")
	if got, err := login(other, honest(stored, asIs)); err != nil || got[0] != 'E' {
		t.Fatalf("wrong keys: got %q %v", got, err)
	}
	_, salted := keysOf(t, "pencil", "another salt....")
	if _, err := login(keys, honest(salted, asIs)); err == nil || !strings.Contains(err.Error(), "another verifier") {
		t.Fatalf("another salt: got %v", err)
	}
	forged := stored
	forged.ServerKey = otherStored.ServerKey
	for name, server := range map[string]func([]byte) []byte{
		"a server that does not know the verifier": honest(forged, asIs),
		"a server that ends the exchange early":    honest(stored, func(int, string) []byte { return wire.AppendAuthenticationOK(nil) }),
		"a server with a nonce of its own": honest(stored, func(step int, text string) []byte {
			return asIs(step, strings.Replace(text, "r=", "r=x", 1))
		}),
		"a server that adds nothing to the nonce": func(message []byte) []byte {
			_, nonce, _ := strings.Cut(string(message), "r=")
			return wire.AppendAuthenticationSASLContinue(nil, []byte("r="+nonce+",s=YSBzYWx0IG9mIGJ5dGVzIQ==,i=4096"))
		},
	} {
		if got, err := login(keys, server); err == nil {
			t.Errorf("%s: got %q", name, got)
		}
	}
	for code, name := range map[uint32]string{3: "clear text", 5: "md5", 7: "GSSAPI"} {
		server := &scripted{}
		server.unread.Write(binary.BigEndian.AppendUint32([]byte{'R', 0, 0, 0, 8}, code))
		var state interface{ SQLState() string }
		if _, err := io.ReadAll(&keyLogin{Conn: server, keys: keys}); !errors.As(err, &state) || state.SQLState() != "28P01" {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// Whatever a server says, it is not believed to have proved itself, and costs no more than it sends.
func FuzzKeyLogin(f *testing.F) {
	f.Add(wire.AppendAuthenticationSASL(nil, "SCRAM-SHA-256"), []byte("r=?,s=YQ==,i=1"), []byte("v=AAAA"))
	f.Add([]byte("N\x00\x00\x00\x04R\x00\x00\x00\x0c\x00\x00\x00\x05abcd"), []byte{}, []byte{})
	f.Add([]byte("R\xff\xff\xff\xff"), []byte{}, []byte{})
	keys := &Keys{Client: make([]byte, sha256.Size), Server: make([]byte, sha256.Size), Salt: []byte("a"), Iterations: 1}
	f.Fuzz(func(t *testing.T, begin, challenge, outcome []byte) {
		step := 0
		server := &scripted{answer: func(message []byte) []byte {
			step++
			if step == 1 {
				_, nonce, _ := strings.Cut(string(message), "r=")
				return wire.AppendAuthenticationSASLContinue(nil, bytes.ReplaceAll(challenge, []byte("?"), []byte(nonce+"x")))
			}
			return append(wire.AppendAuthenticationSASLFinal(nil, outcome), "proved"...)
		}}
		server.unread.Write(begin)
		text, err := io.ReadAll(&keyLogin{Conn: server, keys: keys})
		if err == nil && step > 1 && bytes.Contains(text, []byte("proved")) {
			t.Fatalf("a server came through with %q", outcome)
		}
	})
}

func TestCredentialsAreBounded(t *testing.T) {
	var c credentials
	for i := range maxCredentials + 10 {
		c.put(&credential{user: strconv.Itoa(i), password: "x"})
		c.get("0")
	}
	if len(c.byUser) != maxCredentials || c.order.Len() != maxCredentials {
		t.Fatalf("%d and %d are kept", len(c.byUser), c.order.Len())
	}
	if c.get("0") == nil || c.get("1") != nil || c.get(strconv.Itoa(maxCredentials+9)) == nil {
		t.Error("not the one that was used longest ago is forgotten")
	}
	wrong := c.get("0")
	c.put(&credential{user: "0", password: "y"})
	c.forget(wrong)
	if known := c.get("0"); known == nil || known.password != "y" {
		t.Error("what was learned meanwhile is forgotten")
	}
	c.forget(c.get("0"))
	if c.get("0") != nil {
		t.Error("it is not forgotten")
	}
}
