package main

import (
	"errors"
	"time"

	"github.com/shardyard/shardyard/router/auth"
	"github.com/shardyard/shardyard/router/backend"
)

// authConfig says who may come in; docs/authentication.md tells more.
type authConfig struct {
	// Method is scram-sha-256, or trust, which lets every role in from
	// everywhere and is meant for tests. It counts where there is no HBAFile.
	// Defaults to scram-sha-256.
	Method string `koanf:"method"`
	// TrustLoopback lets clients on loopback in without a password, where there
	// is no HBAFile. Defaults to false.
	TrustLoopback bool `koanf:"trust_loopback"`
	// HBAFile has rules in the format of pg_hba.conf. Defaults to none.
	HBAFile string `koanf:"hba_file"`
	// IdentFile has name maps in the format of pg_ident.conf. Defaults to none.
	IdentFile string `koanf:"ident_file"`
	// UserFile has verifiers of roles in the format of PgBouncer's userlist.txt. Defaults to none.
	UserFile string `koanf:"user_file"`
	// Query asks for the verifier of the role $1. Defaults to a read of pg_authid.
	Query string `koanf:"query"`
	// QueryDatabase is where Query runs. Defaults to postgres.
	QueryDatabase string `koanf:"query_database"`
	// Timeout bounds the time that a client has to log in. Defaults to 60s.
	Timeout time.Duration `koanf:"timeout"`
	// MaxStarting bounds the connections that have not logged in. Defaults to 0: as many as max_clients.
	MaxStarting int `koanf:"max_starting"`
	// MaxFailures is how often an address may fail as one role before it is
	// turned away; -1: as often as it likes. Defaults to 10.
	MaxFailures int `koanf:"max_failures"`
	// Lockout is how long it is turned away. Defaults to 1m.
	Lockout time.Duration `koanf:"lockout"`
}

// tlsConfig encrypts client connections.
type tlsConfig struct {
	// Mode is disable, allow or require. Defaults to allow where there is a certificate, else to disable.
	Mode string `koanf:"mode"`
	// Cert and Key are PEM files of the router's certificate. Default to none.
	Cert string `koanf:"cert"`
	Key  string `koanf:"key"`
	// ClientCA is a PEM file of the authorities that sign clients' certificates. Defaults to none.
	ClientCA string `koanf:"client_ca"`
}

// serverTLSConfig encrypts connections to the shards, as libpq's parameters of similar names.
type serverTLSConfig struct {
	// Mode is disable, allow, prefer, require, verify-ca or verify-full. Defaults to prefer.
	Mode string `koanf:"mode"`
	// RootCert is a PEM file of the authorities that sign the shards' certificates. Defaults to none.
	RootCert string `koanf:"root_cert"`
	// Cert and Key are PEM files of the router's certificate as a client. Default to none.
	Cert string `koanf:"cert"`
	Key  string `koanf:"key"`
}

func defaultAuth() authConfig {
	return authConfig{
		Method: "scram-sha-256", QueryDatabase: "postgres", Timeout: time.Minute, MaxFailures: 10, Lockout: time.Minute,
	}
}

// validate calls fault with the keys whose values cannot be used.
func (a authConfig) validate(fault func(key, format string, args ...any)) {
	if a.Method != "trust" && a.Method != "scram-sha-256" {
		fault("auth.method", "%q is neither scram-sha-256 nor trust", a.Method)
	}
	if a.HBAFile != "" && (a.TrustLoopback || a.Method == "trust") {
		fault("auth.hba_file", "the file has all rules; auth.method and auth.trust_loopback count only without it")
	}
	if a.Timeout <= 0 {
		fault("auth.timeout", "%s is not positive", a.Timeout)
	}
	if a.Lockout <= 0 {
		fault("auth.lockout", "%s is not positive", a.Lockout)
	}
	if a.MaxStarting < 0 {
		fault("auth.max_starting", "%d is negative", a.MaxStarting)
	}
	if a.MaxFailures < 1 && a.MaxFailures != -1 {
		fault("auth.max_failures", "%d is neither positive nor -1", a.MaxFailures)
	}
}

func (t tlsConfig) validate(fault func(key, format string, args ...any)) {
	if err := t.forClients().Validate(); err != nil {
		fault("tls", "%v", err)
	}
}

func (t serverTLSConfig) validate(fault func(key, format string, args ...any)) {
	switch t.Mode {
	case "disable", "allow", "prefer", "require", "verify-ca", "verify-full":
	default:
		fault("server_tls.mode", "%q is none of disable, allow, prefer, require, verify-ca and verify-full", t.Mode)
	}
	if (t.Cert == "") != (t.Key == "") {
		fault("server_tls", "%v", errors.New("cert and key go together"))
	}
}

func (t tlsConfig) forClients() auth.TLS {
	c := auth.Config{TLS: auth.TLS{Mode: auth.TLSMode(t.Mode), Cert: t.Cert, Key: t.Key, ClientCA: t.ClientCA}}
	return c.WithDefaults().TLS
}

func (t serverTLSConfig) forShards() backend.TLS {
	return backend.TLS{Mode: t.Mode, RootCert: t.RootCert, Cert: t.Cert, Key: t.Key}
}

// admission translates the keys of authentication.
func (c config) admission() auth.Config {
	return auth.Config{
		HBAFile: c.Auth.HBAFile, Rules: c.Auth.rules(), IdentFile: c.Auth.IdentFile, UserFile: c.Auth.UserFile,
		Query: c.Auth.Query, QueryDatabase: c.Auth.QueryDatabase, TLS: c.TLS.forClients(),
		Failures: auth.FailureLimits{Max: c.Auth.MaxFailures, Lockout: c.Auth.Lockout},
	}
}

// rules turns the two settings into rules of which the first that matches counts.
func (a authConfig) rules() []auth.Rule {
	var rules []auth.Rule
	if a.TrustLoopback {
		rules = append(rules, auth.Rule{Networks: auth.Loopback(), Method: auth.Trust})
	}
	return append(rules, auth.Rule{Method: auth.Method(a.Method)})
}
