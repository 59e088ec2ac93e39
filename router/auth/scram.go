package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/xdg-go/scram"

	"github.com/shardyard/shardyard/router/pgerr"
)

// The mechanisms of SASL.
const (
	mechanism      = "SCRAM-SHA-256"
	mechanismBound = "SCRAM-SHA-256-PLUS"
	bindingType    = "tls-server-end-point"
)

// MaxSASLMessage bounds the messages of an exchange, as in Postgres.
const MaxSASLMessage = 1024

// ErrPassword says that the client does not know the password, or that the role has none.
var ErrPassword = errors.New("the password does not fit")

// Keys are what a client that proved itself by SCRAM has shown to know, and what proves a server: with them one can log in as
// the role wherever its verifier has the same salt and iterations.
type Keys struct {
	Client, Server, Salt []byte
	Iterations           int
}

// SCRAM is the server's side of one exchange (RFC 5802, 7677).
type SCRAM struct {
	conversation *scram.ServerConversation
	stored       scram.StoredCredentials
	genuine      bool
	binding      []byte
	first        string // client-first-message-bare
	challenge    string
}

// NewSCRAM begins an exchange. binding is the channel's tls-server-end-point; with it the client may, and one that can must,
// bind the exchange to the channel. nil: there is none.
func NewSCRAM(v Verifier, user string, secret Secret, binding []byte) (*SCRAM, error) {
	x := &SCRAM{binding: binding}
	x.stored, x.genuine = v.forSCRAM(user, secret)
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return x.stored, nil })
	if err != nil {
		return nil, fmt.Errorf("start scram: %w", err)
	}
	x.conversation = server.NewConversation()
	if binding != nil {
		x.conversation = server.NewConversationWithChannelBinding(scram.ChannelBinding{Type: bindingType, Data: binding})
	}
	return x, nil
}

// Mechanisms are those to be offered, the preferred one first.
func (x *SCRAM) Mechanisms() []string {
	if x.binding == nil {
		return []string{mechanism}
	}
	return []string{mechanismBound, mechanism}
}

// Begin takes the client's choice of mechanism and its first message, and returns the challenge. Its errors are what the
// client is told.
func (x *SCRAM) Begin(chosen string, message []byte) (challenge []byte, err error) {
	if chosen != mechanism && (chosen != mechanismBound || x.binding == nil) {
		return nil, pgerr.New(pgerr.ProtocolViolation, "client selected an invalid SASL authentication mechanism").Fatal()
	}
	text, err := checkMessage(message)
	if err != nil {
		return nil, err
	}
	flag, rest, _ := strings.Cut(text, ",")
	authorization, bare, _ := strings.Cut(rest, ",")
	if err := x.checkBinding(chosen, flag); err != nil {
		return nil, err
	}
	if authorization != "" {
		return nil, pgerr.New(pgerr.FeatureNotSupported, "client uses authorization identity, but it is not supported").Fatal()
	}
	x.first = bare
	if x.challenge, err = x.conversation.Step(text); err != nil {
		return nil, malformed(err.Error())
	}
	return []byte(x.challenge), nil
}

// checkBinding compares the flag of the first message with the mechanism.
func (x *SCRAM) checkBinding(chosen, flag string) error {
	kind, bound := strings.CutPrefix(flag, "p=")
	switch {
	case chosen == mechanismBound && !bound:
		return malformed("The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.")
	case chosen == mechanism && bound:
		return malformed("The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.")
	case bound && kind != bindingType:
		return pgerr.Newf(pgerr.ProtocolViolation, "unsupported SCRAM channel-binding type %q", kind).Fatal()
	case flag == "y" && x.binding != nil:
		// Somebody between us took the offer of channel binding out.
		return pgerr.New(codeInvalidAuthorization, "SCRAM channel binding negotiation error").
			WithDetail("The client supports SCRAM channel binding but thinks the server does not. However, this server does support channel binding.").Fatal()
	}
	return nil
}

// Finish takes the client's proof. It returns the server's and the keys, ErrPassword if the proof is wrong, else what the
// client is told.
func (x *SCRAM) Finish(message []byte) (answer []byte, keys *Keys, err error) {
	text, err := checkMessage(message)
	if err != nil {
		return nil, nil, err
	}
	reply, err := x.conversation.Step(text)
	switch {
	case err == nil && x.conversation.Valid() && x.genuine:
		keys, err := x.keys(text)
		return []byte(reply), keys, err
	case err == nil, reply == scram.ErrInvalidProof:
		return nil, nil, ErrPassword
	case reply == scram.ErrChannelBindingsDontMatch && x.binding != nil:
		return nil, nil, pgerr.New(codeInvalidAuthorization, "SCRAM channel binding check failed").Fatal()
	}
	return nil, nil, malformed("The client's last message cannot be read.")
}

// keys takes the client's key out of its proof, which is that key XOR a signature that we can compute.
func (x *SCRAM) keys(final string) (*Keys, error) {
	at := strings.LastIndex(final, ",p=")
	if at < 0 {
		return nil, malformed("The proof is missing.")
	}
	key, err := base64.StdEncoding.DecodeString(final[at+len(",p="):])
	if err != nil || len(key) != keySize {
		return nil, malformed("The proof is malformed.")
	}
	mac := hmac.New(sha256.New, x.stored.StoredKey)
	mac.Write([]byte(x.first + "," + x.challenge + "," + final[:at]))
	subtle.XORBytes(key, key, mac.Sum(nil))
	if sum := sha256.Sum256(key); !hmac.Equal(sum[:], x.stored.StoredKey) {
		return nil, ErrPassword
	}
	return &Keys{Client: key, Server: x.stored.ServerKey, Salt: []byte(x.stored.Salt), Iterations: x.stored.Iters}, nil
}

func checkMessage(message []byte) (string, error) {
	switch {
	case len(message) == 0:
		return "", malformed("The message is empty.")
	case len(message) > MaxSASLMessage:
		return "", malformed("The message is too long.")
	case strings.IndexByte(string(message), 0) >= 0:
		return "", malformed("Message length does not match input length.")
	}
	return string(message), nil
}

func malformed(detail string) error {
	return pgerr.New(pgerr.ProtocolViolation, "malformed SCRAM message").WithDetail(detail).Fatal()
}
