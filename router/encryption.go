package router

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/shardyard/shardyard/router/auth"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// entry is what a session needs until its client has logged in: one policy, though a reload may come between.
type entry struct {
	policy *auth.Policy
	// tls is the connection's encryption; nil: none.
	tls *tls.ConnectionState
}

// binding is what an exchange over this connection is bound to; nil: it cannot be.
func (e *entry) binding() []byte {
	if e.tls == nil {
		return nil
	}
	return e.policy.TLS.Binding
}

// readStartup reads the start-up packet, and encrypts the connection before if the client asks for it. Each kind of
// encryption may be asked for once, as in Postgres.
func (c *Session) readStartup(ctx context.Context) (*wire.Startup, error) {
	begun, direct, err := c.reader.BeginsTLS()
	if err != nil {
		return nil, err
	}
	if direct {
		if err := c.encryptDirectly(ctx, begun); err != nil {
			return nil, err
		}
	}
	askedTLS, askedGSS := direct, false
	for {
		packet, err := c.reader.ReadStartup()
		if err != nil {
			return nil, err
		}
		switch {
		case packet.Kind == wire.SSLRequest && !askedTLS:
			askedTLS = true
			err = c.answerSSLRequest(ctx)
		case packet.Kind == wire.GSSENCRequest && !askedGSS:
			askedGSS = true
			err = c.refuseEncryption("GSSAPI")
		case packet.Kind == wire.SSLRequest, packet.Kind == wire.GSSENCRequest:
			err = pgerr.New(pgerr.ProtocolViolation, "too many requests for encryption").Fatal()
		case packet.Kind == wire.StartupMessage && !c.encrypted:
			return packet, c.entry.policy.CheckPlain()
		default:
			return packet, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (c *Session) answerSSLRequest(ctx context.Context) error {
	if c.entry.policy.TLS == nil {
		return c.refuseEncryption("SSL")
	}
	if err := c.checkNothingFollows("SSL"); err != nil {
		return err
	}
	if _, err := c.conn.Write([]byte{'S'}); err != nil {
		return errors.Join(exec.ErrClientGone, err)
	}
	return c.encrypt(ctx, c.socket)
}

func (c *Session) refuseEncryption(kind string) error {
	if err := c.checkNothingFollows(kind); err != nil {
		return err
	}
	if _, err := c.conn.Write([]byte{'N'}); err != nil {
		return errors.Join(exec.ErrClientGone, err)
	}
	return nil
}

// checkNothingFollows refuses what was sent behind a request for encryption: it would be taken for encrypted, and anybody on
// the way could have put it there (CVE-2021-23214).
func (c *Session) checkNothingFollows(kind string) error {
	if c.reader.Buffered() == 0 {
		return nil
	}
	return pgerr.Newf(pgerr.ProtocolViolation, "received unencrypted data after %s request", kind).
		WithDetail("This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.").Fatal()
}

// encryptDirectly begins TLS where the client has begun with it, as libpq does with sslnegotiation=direct.
func (c *Session) encryptDirectly(ctx context.Context, begun []byte) error {
	if c.entry.policy.TLS == nil {
		return errors.Join(exec.ErrClientGone, errors.New("client began with tls, which is switched off"))
	}
	if err := c.encrypt(ctx, &replay{Conn: c.socket, first: begun}); err != nil {
		return err
	}
	return auth.CheckDirect(*c.entry.tls)
}

// encrypt shakes hands and continues the session over TLS.
func (c *Session) encrypt(ctx context.Context, over net.Conn) error {
	encrypted := tls.Server(over, c.entry.policy.TLS.Config)
	if err := encrypted.HandshakeContext(ctx); err != nil {
		c.server.log.Info("tls handshake failed", "session_id", c.id, "address", c.address().String(), "error", err)
		return errors.Join(exec.ErrClientGone, err) // nothing that is not TLS may be said any more
	}
	if err := c.reader.SetSource(encrypted); err != nil {
		return err
	}
	state := encrypted.ConnectionState()
	c.conn, c.encrypted, c.entry.tls = encrypted, true, &state
	c.out = exec.NewOutput(encrypted, c.server.config.OutputBound)
	return nil
}

// replay is a connection of which the first bytes were read already.
type replay struct {
	net.Conn
	first []byte
}

func (r *replay) Read(b []byte) (int, error) {
	if len(r.first) == 0 {
		return r.Conn.Read(b)
	}
	n := copy(b, r.first)
	r.first = r.first[n:]
	return n, nil
}

// startupFailed is what a client is told that did not log in. packet is nil before its start-up packet came.
func (c *Session) startupFailed(ctx context.Context, err error, packet *wire.Startup) error {
	deadline, _ := ctx.Deadline()
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case c.server.isClosed():
		return pgerr.New(pgerr.AdminShutdown, "the router is shutting down").Because(err).Fatal()
	case time.Now().Before(deadline):
		return err // of a shard
	case packet == nil:
		return errors.Join(exec.ErrClientGone, err)
	}
	return pgerr.New(pgerr.QueryCanceled, "canceling authentication due to timeout").Because(fmt.Errorf("log in: %w", err)).Fatal()
}
