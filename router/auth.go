package router

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/auth"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// SQLSTATEs of a refused login.
const (
	codeInvalidAuthorization = "28000"
	codeInvalidPassword      = "28P01"
	codeUnknownDatabase      = "3D000"
)

// SetPolicy changes who may come in, for connections from now on.
func (s *Server) SetPolicy(policy *auth.Policy) {
	s.failures.SetLimits(policy.Failures())
	s.policy.Store(policy)
	s.roles.clear()
}

// authenticate lets the client prove who it is. Its errors are what the client is told.
func (c *Session) authenticate(ctx context.Context, home directory.Shard) error {
	policy, state := c.entry.policy, c.entry.tls
	rule, err := policy.Rule(auth.Client{Database: c.databaseName, User: c.user, Address: c.address(), TLS: c.encrypted})
	if err != nil {
		return c.refuse(err)
	}
	if err := rule.CheckCertificate(state); err != nil {
		return c.refuse(err)
	}
	if rule.Method != auth.Trust {
		if err := c.checkFailures(); err != nil {
			return c.refuse(err)
		}
	}
	r, err := c.server.lookUpRole(ctx, home, policy, c.user)
	if err != nil {
		return err
	}
	switch {
	case rule.Method == auth.MD5 && r.verifier.AsksMD5() && !r.expired:
		err = c.md5(r)
	case rule.Method == auth.MD5, rule.Method == auth.ScramSHA256:
		err = c.scram(r)
	}
	if err == nil {
		err = policy.CheckName(rule, state, c.user)
	}
	if err != nil {
		return c.loginFailed(ctx, err)
	}
	if rule.Method != auth.Trust {
		c.server.failures.Succeeded(c.address(), c.user)
	}
	if !r.exists {
		return c.refuse(pgerr.Newf(codeInvalidAuthorization, "role %q does not exist", c.user).Fatal())
	}
	if !r.mayLogIn {
		return c.refuse(pgerr.Newf(codeInvalidAuthorization, "role %q is not permitted to log in", c.user).Fatal())
	}
	c.role = r.oid
	c.out.Put(wire.AppendAuthenticationOK)
	return nil
}

// refuse tells the log of a client that was turned away.
func (c *Session) refuse(err error) error {
	e := pgerr.Of(err)
	c.server.log.Info("client turned away", "session_id", c.id, "address", c.address().String(), "user", c.user,
		"database", c.databaseName, "sqlstate", e.Code, "error", e.Message)
	return err
}

// checkFailures turns an address away that has failed too often.
func (c *Session) checkFailures() error {
	wait := c.server.failures.Locked(c.address(), c.user, time.Now())
	if wait <= 0 {
		return nil
	}
	return pgerr.Newf(codeInvalidAuthorization, "too many failed logins as user %q from host %q", c.user, c.address()).
		WithHint(fmt.Sprintf("The next attempt counts in %s.", wait.Round(time.Second))).Fatal()
}

// loginFailed counts a proof that failed, and lets its client wait.
func (c *Session) loginFailed(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, auth.ErrPassword):
		err = pgerr.Newf(codeInvalidPassword, "password authentication failed for user %q", c.user).Fatal()
	case errors.Is(err, auth.ErrCertificate):
		err = pgerr.Newf(codeInvalidAuthorization, "certificate authentication failed for user %q", c.user).Fatal()
	default:
		return err
	}
	c.server.roles.forget(c.user) // a password that was just changed works at the next attempt
	sleep(ctx, c.server.failures.Failed(c.address(), c.user, time.Now()))
	return c.refuse(err)
}

// scram runs a SCRAM-SHA-256 exchange.
func (c *Session) scram(r role) error {
	verifier := r.verifier
	if r.expired {
		verifier = auth.Verifier{}
	}
	exchange, err := auth.NewSCRAM(verifier, c.user, c.server.mockSecret, c.entry.binding())
	if err != nil {
		return err
	}
	c.out.Put(func(dst []byte) []byte { return wire.AppendAuthenticationSASL(dst, exchange.Mechanisms()...) })
	frame, err := c.ask()
	if err != nil {
		return err
	}
	initial, err := wire.DecodeSASLInitial(frame.Body)
	if err != nil {
		return err
	}
	challenge, err := exchange.Begin(string(initial.Mechanism), initial.Data)
	if err != nil {
		return err
	}
	c.out.Put(func(dst []byte) []byte { return wire.AppendAuthenticationSASLContinue(dst, challenge) })
	if frame, err = c.ask(); err != nil {
		return err
	}
	if err := c.checkFailures(); err != nil { // attempts at the same time count too
		return c.refuse(err)
	}
	final, keys, err := exchange.Finish(frame.Body)
	if err != nil {
		return err
	}
	if password, ok := verifier.Password(); ok {
		c.server.pools.LearnPassword(c.user, password)
	} else {
		c.server.pools.LearnKeys(c.user, backend.Keys{Client: keys.Client, Server: keys.Server, Salt: keys.Salt, Iterations: keys.Iterations})
	}
	c.out.Put(func(dst []byte) []byte { return wire.AppendAuthenticationSASLFinal(dst, final) })
	return nil
}

// md5 asks for the password by md5.
func (c *Session) md5(r role) error {
	var salt [4]byte
	rand.Read(salt[:]) // never fails
	c.out.Put(func(dst []byte) []byte { return wire.AppendAuthenticationMD5(dst, salt) })
	frame, err := c.ask()
	if err != nil {
		return err
	}
	if err := c.checkFailures(); err != nil {
		return c.refuse(err)
	}
	if !r.verifier.CheckMD5(salt, frame.Body) {
		return auth.ErrPassword
	}
	return nil
}

// ask sends what is collected and reads the client's answer to it.
func (c *Session) ask() (wire.Frame, error) {
	if err := c.out.Flush(); err != nil {
		return wire.Frame{}, err
	}
	return c.reader.Next()
}
