package auth

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// Config says who may come in. The zero value of every field is usable.
type Config struct {
	// HBAFile is a file in the format of pg_hba.conf with the rules. Defaults to none: Rules count.
	HBAFile string
	// Rules count where there is no HBAFile; the first that matches decides. Defaults to DefaultRules.
	Rules []Rule
	// IdentFile is a file in the format of pg_ident.conf with the maps that the option map of rules names. Defaults to none.
	IdentFile string
	// UserFile is a file in the format of PgBouncer's userlist.txt with verifiers or passwords of roles. A role that is not
	// in it has the verifier that the home shard keeps. Defaults to none.
	UserFile string
	// Query asks for the verifier of the role $1, in QueryDatabase on the home shard as the service role: a row of two
	// columns, name and verifier, or none. Defaults to pg_authid, which only a superuser reads.
	Query string
	// QueryDatabase defaults to "postgres".
	QueryDatabase string
	// TLS says how client connections are encrypted.
	TLS TLS
	// Failures bounds how often somebody may give a wrong password.
	Failures FailureLimits
}

// FailureLimits says how often logins may fail. Failures are counted for each address (of IPv6 each /64) and role, and
// forgotten when a login succeeds or Lockout has passed without one.
type FailureLimits struct {
	// Max is the number of failed logins of an address as one role after which it is turned away with 28000 without being
	// asked; for an address and any roles it is ten times as many. Negative: there is no bound and no delay. Defaults to 10.
	Max int
	// Lockout is how long it is turned away, from its last failure on. Defaults to 1 min.
	Lockout time.Duration
}

// WithDefaults returns c with the values that stand for the zero ones.
func (c Config) WithDefaults() Config {
	if c.Rules == nil {
		c.Rules = DefaultRules()
	}
	if c.QueryDatabase == "" {
		c.QueryDatabase = "postgres"
	}
	if c.TLS.Mode == "" {
		c.TLS.Mode = TLSDisable
		if c.TLS.Cert != "" {
			c.TLS.Mode = TLSAllow
		}
	}
	if c.Failures.Max == 0 {
		c.Failures.Max = 10
	}
	if c.Failures.Lockout == 0 {
		c.Failures.Lockout = time.Minute
	}
	return c
}

func (c *Config) validate() error {
	if c.Failures.Lockout < 0 {
		return fmt.Errorf("lockout: %s must not be negative", c.Failures.Lockout)
	}
	return c.TLS.Validate()
}

// Policy is what the configuration and its files say. It never changes.
type Policy struct {
	config Config
	rules  []Rule
	maps   identMaps
	users  map[string]string
	// TLS is how clients are encrypted; nil: not at all.
	TLS *Encryption
}

// Load reads the files. The error says all that cannot be used, with its file and line.
func Load(config Config) (*Policy, error) {
	p := &Policy{config: config.WithDefaults()}
	if err := p.config.validate(); err != nil {
		return nil, err
	}
	p.rules = p.config.Rules
	var encryptionErr error
	p.TLS, encryptionErr = p.config.TLS.load()
	err := errors.Join(
		readFile("rules", p.config.HBAFile, ParseHBA, &p.rules),
		readFile("name maps", p.config.IdentFile, parseIdent, &p.maps),
		readFile("users", p.config.UserFile, ParseUserList, &p.users),
		encryptionErr,
	)
	if err == nil {
		err = p.check()
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// check finds rules that cannot work with the rest of the policy.
func (p *Policy) check() error {
	for i := range p.rules {
		rule := &p.rules[i]
		if err := rule.validate(); err != nil {
			return fmt.Errorf("rule %s: %w", rule.place(i), err)
		}
		if rule.needsCertificate() && (p.TLS == nil || p.TLS.Config.ClientCAs == nil) {
			return fmt.Errorf("rule %s: client certificates can only be checked where tls.client_ca is set", rule.place(i))
		}
		if _, ok := p.maps[rule.Map]; rule.Map != "" && !ok {
			return fmt.Errorf("rule %s: there is no map %q", rule.place(i), rule.Map)
		}
	}
	return nil
}

// Stored returns what the file of users says of a role.
func (p *Policy) Stored(user string) (string, bool) {
	text, ok := p.users[user]
	return text, ok
}

// Failures returns how often logins may fail.
func (p *Policy) Failures() FailureLimits { return p.config.Failures }

// Query returns the query for verifiers, "" for the default, and the database that it runs in.
func (p *Policy) Query() (query, database string) { return p.config.Query, p.config.QueryDatabase }

// maxFile bounds the files of the configuration.
const maxFile = 64 << 20

// readFile reads a file, if there is one, into what is made of it.
func readFile[T any](what, name string, parse func(text string) (T, error), into *T) error {
	if name == "" {
		return nil
	}
	info, err := os.Stat(name)
	if err == nil && info.Size() > maxFile {
		err = fmt.Errorf("it has %d bytes, and %d are the most", info.Size(), maxFile)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(name)
	}
	var parsed T
	if err == nil {
		parsed, err = parse(string(text))
	}
	if err != nil {
		return fmt.Errorf("read %s %s: %w", what, name, err)
	}
	*into = parsed
	return nil
}
