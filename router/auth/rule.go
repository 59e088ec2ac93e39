package auth

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/shardyard/shardyard/router/pgerr"
)

// Method is how a client proves who it is.
type Method string

// The methods of authentication.
const (
	// Trust believes the client.
	Trust Method = "trust"
	// Reject turns it away.
	Reject Method = "reject"
	// ScramSHA256 asks for the password by SCRAM-SHA-256, over TLS with channel binding if the client can.
	ScramSHA256 Method = "scram-sha-256"
	// MD5 asks by md5 a role whose verifier is of that kind, and every other as ScramSHA256 does.
	MD5 Method = "md5"
	// Certificate takes the name in the client's certificate.
	Certificate Method = "cert"
)

// Transport says which connections a rule is for.
type Transport uint8

const (
	// AnyTransport is for all connections: host in pg_hba.conf.
	AnyTransport Transport = iota
	// OnlyTLS is hostssl.
	OnlyTLS
	// OnlyPlain is hostnossl.
	OnlyPlain
)

// CertCheck says what a rule demands of a client's certificate besides its method.
type CertCheck string

const (
	// NoCert demands none.
	NoCert CertCheck = ""
	// VerifyCA demands one that tls.client_ca has signed.
	VerifyCA CertCheck = "verify-ca"
	// VerifyFull demands besides that its name is, or is mapped to, the role.
	VerifyFull CertCheck = "verify-full"
)

// Rule says how the clients that it matches prove who they are, like a line of pg_hba.conf.
type Rule struct {
	Transport Transport
	// Databases and Users are names. Both that and SameUser empty means all.
	Databases, Users []string
	// SameUser matches the database that has the role's name, besides Databases.
	SameUser bool
	// Networks are the addresses of clients; empty means all.
	Networks []netip.Prefix
	Method   Method
	// ClientCert is the option clientcert.
	ClientCert CertCheck
	// Map is the option map: the map of pg_ident.conf from names of certificates to roles. Defaults to none: they are equal.
	Map string

	line int // in the file; 0: from no file
}

// DefaultRules trust loopback and ask everybody else for SCRAM-SHA-256.
func DefaultRules() []Rule {
	return []Rule{{Networks: Loopback(), Method: Trust}, {Method: ScramSHA256}}
}

// Loopback are the addresses of the machine itself.
func Loopback() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

// Client is what rules look at.
type Client struct {
	Database, User string
	Address        netip.Addr
	// TLS: the connection is encrypted.
	TLS bool
}

func (r *Rule) matches(c Client) bool {
	switch {
	case r.Transport == OnlyTLS && !c.TLS, r.Transport == OnlyPlain && c.TLS:
		return false
	case (len(r.Databases) > 0 || r.SameUser) && !(r.SameUser && c.Database == c.User) && !slices.Contains(r.Databases, c.Database):
		return false
	case len(r.Users) > 0 && !slices.Contains(r.Users, c.User):
		return false
	}
	return len(r.Networks) == 0 ||
		slices.ContainsFunc(r.Networks, func(p netip.Prefix) bool { return p.Contains(c.Address) })
}

func (r *Rule) needsCertificate() bool { return r.Method == Certificate || r.ClientCert != NoCert }

// place names the rule in an error.
func (r *Rule) place(at int) string {
	if r.line > 0 {
		return fmt.Sprintf("in line %d", r.line)
	}
	return fmt.Sprintf("%d", at+1)
}

func (m Method) validate() error {
	switch m {
	case Trust, Reject, ScramSHA256, MD5, Certificate:
		return nil
	}
	return fmt.Errorf("method %q is none of trust, reject, scram-sha-256, md5 and cert", m)
}

func (r *Rule) validate() error {
	if err := r.Method.validate(); err != nil {
		return err
	}
	switch r.ClientCert {
	case NoCert, VerifyCA, VerifyFull:
	default:
		return fmt.Errorf("clientcert %q is neither verify-ca nor verify-full", r.ClientCert)
	}
	switch {
	case r.Method == Certificate && r.Transport != OnlyTLS:
		return errors.New("cert authentication is only for hostssl")
	case r.ClientCert != NoCert && r.Transport != OnlyTLS:
		return errors.New("clientcert is only for hostssl")
	case r.Method == Certificate && r.ClientCert == VerifyCA:
		return errors.New("cert authentication checks the name too: clientcert can only be verify-full")
	case r.Map != "" && r.Method != Certificate:
		return errors.New("map is only for cert authentication")
	}
	return nil
}

// SQLSTATEs of a refused login.
const (
	codeInvalidAuthorization = "28000"
	codeInvalidPassword      = "28P01"
)

// Rule returns the rule for a client. The error, 28000, is what a client sees that none admits.
func (p *Policy) Rule(c Client) (*Rule, error) {
	c.Address = c.Address.Unmap().WithZone("")
	for i := range p.rules {
		rule := &p.rules[i]
		if !rule.matches(c) {
			continue
		}
		if rule.Method == Reject {
			return nil, refused("a rule of authentication rejects connection for", c)
		}
		return rule, nil
	}
	return nil, refused("no rule of authentication for", c)
}

func refused(what string, c Client) error {
	encryption := "no encryption"
	if c.TLS {
		encryption = "SSL encryption"
	}
	return pgerr.Newf(codeInvalidAuthorization, "%s host %q, user %q, database %q, %s", what, c.Address, c.User, c.Database, encryption).Fatal()
}
