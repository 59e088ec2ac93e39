package auth

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/shardyard/shardyard/router/pgerr"
)

// TLSMode says whether clients are encrypted.
type TLSMode string

// The modes of TLS.
const (
	// TLSDisable refuses TLS.
	TLSDisable TLSMode = "disable"
	// TLSAllow leaves it to the client.
	TLSAllow TLSMode = "allow"
	// TLSRequire turns away clients without. Requests to cancel may come in the clear, as psql sends them before version 17.
	TLSRequire TLSMode = "require"
)

// TLS is how client connections are encrypted.
type TLS struct {
	// Mode defaults to TLSAllow where there is a certificate, else to TLSDisable.
	Mode TLSMode
	// Cert and Key are files in PEM format: the certificate with what stands between it and the root, and its key.
	Cert, Key string
	// ClientCA is a file of certificates in PEM format that sign those of clients. Defaults to none: clients are not asked.
	ClientCA string
}

// Validate reports what does not go together. It reads no file.
func (t TLS) Validate() error {
	if (t.Cert == "") != (t.Key == "") {
		return errors.New("tls.cert and tls.key go together")
	}
	switch t.Mode {
	case TLSDisable:
	case TLSAllow, TLSRequire:
		if t.Cert == "" || t.Key == "" {
			return fmt.Errorf("tls.mode %s needs tls.cert and tls.key", t.Mode)
		}
	default:
		return fmt.Errorf("tls.mode: %q is none of disable, allow and require", t.Mode)
	}
	return nil
}

// Encryption is TLS as it was read from the files.
type Encryption struct {
	Config *tls.Config
	// Binding is the tls-server-end-point of the certificate (RFC 5929), nil where clients do not agree on one.
	Binding []byte
	// Required: clients without TLS are turned away.
	Required bool
}

// protocol is the name of Postgres's protocol in ALPN.
const protocol = "postgresql"

func (t *TLS) load() (*Encryption, error) {
	if t.Mode == TLSDisable {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fmt.Errorf("read certificate %s and key %s: %w", t.Cert, t.Key, err)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{protocol},
		SessionTicketsDisabled: true, // each handshake looks at the client's certificate, under the authorities of now
	}
	if t.ClientCA != "" {
		text, err := os.ReadFile(t.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("read authorities of clients: %w", err)
		}
		config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.VerifyClientCertIfGiven
		if !config.ClientCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("read authorities of clients %s: there is no certificate in it", t.ClientCA)
		}
	}
	return &Encryption{Config: config, Binding: endPoint(pair.Leaf), Required: t.Mode == TLSRequire}, nil
}

// endPoint is the hash of a certificate that its signature uses, SHA-256 in place of weaker ones. Where a signature does not
// name one hash (Ed25519), or clients differ in which (RSA-PSS), there is none.
func endPoint(cert *x509.Certificate) []byte {
	var hash crypto.Hash
	switch cert.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.SHA256WithRSA, x509.ECDSAWithSHA256:
		hash = crypto.SHA256
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384:
		hash = crypto.SHA384
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512:
		hash = crypto.SHA512
	default:
		return nil
	}
	h := hash.New()
	h.Write(cert.Raw)
	return h.Sum(nil)
}

// CheckDirect refuses a client that began with TLS and did not name Postgres's protocol: it may speak another one.
func CheckDirect(state tls.ConnectionState) error {
	if state.NegotiatedProtocol == protocol {
		return nil
	}
	return pgerr.New(pgerr.ProtocolViolation, "received direct SSL connection request without ALPN protocol negotiation extension").Fatal()
}

// CheckPlain refuses a client without TLS where that is required.
func (p *Policy) CheckPlain() error {
	if p.TLS == nil || !p.TLS.Required {
		return nil
	}
	return pgerr.New(codeInvalidAuthorization, "the connection must be encrypted").
		WithHint("Connect with sslmode=require, or better verify-full.").Fatal()
}

// CheckCertificate checks what the rule demands of the client's certificate before the role's password, if there is one:
// that it exists. That it is valid was part of the handshake.
func (r *Rule) CheckCertificate(state *tls.ConnectionState) error {
	if !r.needsCertificate() || state != nil && len(state.VerifiedChains) > 0 {
		return nil
	}
	return pgerr.New(codeInvalidAuthorization, "connection requires a valid client certificate").Fatal()
}

// ErrCertificate says that the certificate's holder may not be the role.
var ErrCertificate = errors.New("the certificate is not the role's")

// CheckName checks that the certificate's holder may be the role, where the rule demands it: ErrCertificate if not.
func (p *Policy) CheckName(r *Rule, state *tls.ConnectionState, user string) error {
	if r.Method != Certificate && r.ClientCert != VerifyFull {
		return nil
	}
	if err := r.CheckCertificate(state); err != nil {
		return err
	}
	if name := state.VerifiedChains[0][0].Subject.CommonName; name == "" || !p.maps.admits(name, r.Map, user) {
		return ErrCertificate
	}
	return nil
}
