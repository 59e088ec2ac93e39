package router

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/xdg-go/scram"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// SQLSTATEs of a refused login.
const (
	codeInvalidAuthorization = "28000"
	codeInvalidPassword      = "28P01"
	codeUnknownDatabase      = "3D000"
)

// role is what the home shard's pg_authid says of a role.
type role struct {
	exists   bool
	mayLogIn bool
	expired  bool
	verifier string
}

// roleTTL is how long a role is believed to be as it was read. A password that does not fit is checked
// against what the shard says now.
const roleTTL = 5 * time.Second

// maxRoles bounds the cache; when it is full it is emptied.
const maxRoles = 10_000

// roleCache keeps roles for a moment, so that a storm of logins costs the home shard little.
type roleCache struct {
	mu    sync.Mutex
	roles map[string]cachedRole
}

type cachedRole struct {
	role
	read time.Time
}

func (c *roleCache) get(name string, now time.Time) (role, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.roles[name]
	return r.role, ok && now.Sub(r.read) < roleTTL
}

func (c *roleCache) put(name string, r role, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.roles == nil || len(c.roles) >= maxRoles {
		c.roles = make(map[string]cachedRole)
	}
	c.roles[name] = cachedRole{r, now}
}

// lookUpRole reads a role; fresh means not from the cache.
func (s *Server) lookUpRole(ctx context.Context, home directory.Shard, name string, fresh bool) (role, error) {
	if r, ok := s.roles.get(name, time.Now()); ok && !fresh {
		return r, nil
	}
	conn, err := s.pools.Service(ctx, home, "postgres")
	if err != nil {
		return role{}, fmt.Errorf("look up role: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	r := role{exists: true}
	err = conn.QueryRow(ctx, `SELECT rolcanlogin, coalesce(rolvaliduntil < now(), false), coalesce(rolpassword, '')
		FROM pg_catalog.pg_authid WHERE rolname = $1`, name).Scan(&r.mayLogIn, &r.expired, &r.verifier)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		r.exists = false
	case err != nil:
		return role{}, fmt.Errorf("look up role: %w", err)
	}
	s.roles.put(name, r, time.Now())
	return r, nil
}

// authenticate lets the client prove who it is. Its errors are what the client is told.
func (c *Session) authenticate(ctx context.Context, home directory.Shard) error {
	rule := c.server.ruleFor(c.databaseName, c.user, c.address())
	if rule == nil || rule.Method == Reject {
		return pgerr.Newf(codeInvalidAuthorization, "no authentication rule admits host %q, user %q, database %q",
			c.address(), c.user, c.databaseName).Fatal()
	}
	r, err := c.server.lookUpRole(ctx, home, c.user, false)
	if err != nil {
		return err
	}
	if rule.Method == ScramSHA256 {
		if err := c.scram(ctx, home, r); err != nil {
			return err
		}
	} else if !r.exists {
		return pgerr.Newf(codeInvalidAuthorization, "role %q does not exist", c.user).Fatal()
	}
	if !r.mayLogIn {
		return pgerr.Newf(codeInvalidAuthorization, "role %q is not permitted to log in", c.user).Fatal()
	}
	c.out.Put(wire.AppendAuthenticationOK)
	return nil
}

func (s *Server) ruleFor(database, user string, from netip.Addr) *AuthRule {
	for i := range s.config.Auth {
		if s.config.Auth[i].matches(database, user, from) {
			return &s.config.Auth[i]
		}
	}
	return nil
}

const scramMechanism = "SCRAM-SHA-256"

// scram runs a SCRAM-SHA-256 exchange (RFC 5802, 7677) against the verifier that the home shard keeps. An
// unknown role gets a made-up verifier, so that nobody learns which roles exist.
func (c *Session) scram(ctx context.Context, home directory.Shard, r role) error {
	stored, ok := parseVerifier(r.verifier)
	if !ok || r.expired {
		stored = c.server.madeUpVerifier(c.user)
		ok = false
	}
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return stored, nil })
	if err != nil {
		return fmt.Errorf("start scram: %w", err)
	}
	exchange := server.NewConversation()
	c.out.Put(func(dst []byte) []byte { return wire.AppendAuthenticationSASL(dst, scramMechanism) })
	frame, err := c.ask()
	if err != nil {
		return err
	}
	initial, err := wire.DecodeSASLInitial(frame.Body)
	if err != nil {
		return err
	}
	if string(initial.Mechanism) != scramMechanism {
		return pgerr.New(pgerr.ProtocolViolation, "client selected an invalid SASL authentication mechanism").Fatal()
	}
	challenge, err := exchange.Step(string(initial.Data))
	if err != nil {
		return pgerr.New(pgerr.ProtocolViolation, "malformed SCRAM message").WithDetail(err.Error()).Fatal()
	}
	c.out.Put(func(dst []byte) []byte { return wire.AppendAuthenticationSASLContinue(dst, []byte(challenge)) })
	if frame, err = c.ask(); err != nil {
		return err
	}
	final, err := exchange.Step(string(frame.Body))
	if err != nil || !exchange.Valid() || !ok {
		c.server.roles.put(c.user, role{}, time.Time{}) // a password that was just changed works at the next attempt
		return pgerr.Newf(codeInvalidPassword, "password authentication failed for user %q", c.user).Fatal()
	}
	c.out.Put(func(dst []byte) []byte { return wire.AppendAuthenticationSASLFinal(dst, []byte(final)) })
	return nil
}

// ask sends what is collected and reads the client's answer to it.
func (c *Session) ask() (wire.Frame, error) {
	if err := c.out.Flush(); err != nil {
		return wire.Frame{}, err
	}
	return c.reader.Next()
}

// parseVerifier reads pg_authid.rolpassword: SCRAM-SHA-256$iterations:salt$stored key:server key.
func parseVerifier(verifier string) (scram.StoredCredentials, bool) {
	rest, ok := strings.CutPrefix(verifier, "SCRAM-SHA-256$")
	if !ok {
		return scram.StoredCredentials{}, false
	}
	factors, keys, ok := strings.Cut(rest, "$")
	iterations, salt, ok1 := strings.Cut(factors, ":")
	stored, server, ok2 := strings.Cut(keys, ":")
	n, err := strconv.Atoi(iterations)
	if !ok || !ok1 || !ok2 || err != nil || n < 1 {
		return scram.StoredCredentials{}, false
	}
	decoded := make([][]byte, 3)
	for i, text := range []string{salt, stored, server} {
		if decoded[i], err = base64.StdEncoding.DecodeString(text); err != nil {
			return scram.StoredCredentials{}, false
		}
	}
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(decoded[0]), Iters: n},
		StoredKey:  decoded[1], ServerKey: decoded[2],
	}, true
}

// madeUpVerifier is one that no password fits, the same for each attempt of a user.
func (s *Server) madeUpVerifier(user string) scram.StoredCredentials {
	mac := hmac.New(sha256.New, s.mockSecret[:])
	mac.Write([]byte(user))
	salt := mac.Sum(nil)[:16]
	random := make([]byte, 64)
	rand.Read(random) // never fails
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(salt), Iters: 4096}, StoredKey: random[:32], ServerKey: random[32:],
	}
}
