package backend

import (
	"container/list"
	"context"
	"errors"
	"net"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
)

// Keys log in as a role by SCRAM-SHA-256 in place of its password, wherever its verifier has this salt and these iterations.
type Keys struct {
	Client, Server, Salt []byte
	Iterations           int
}

// credential is with what a role logs in whose password the configuration does not say: its keys or its password.
type credential struct {
	user     string
	password string
	keys     *Keys
}

// maxCredentials bounds the roles of which credentials are kept.
const maxCredentials = 10_000

// credentials are kept in memory only. When they are too many the role that was used longest ago is forgotten, until it logs
// in again. The zero value is ready for use.
type credentials struct {
	mu     sync.Mutex
	byUser map[string]*list.Element
	order  list.List // of *credential, used last at the front
}

// LearnKeys keeps the keys that a client of the role has proved to know.
func (p *Pools) LearnKeys(user string, keys Keys) {
	p.credentials.put(&credential{user: user, keys: &keys})
}

// LearnPassword keeps the password that a client of the role has proved to know.
func (p *Pools) LearnPassword(user, password string) {
	p.credentials.put(&credential{user: user, password: password})
}

func (c *credentials) put(learned *credential) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byUser == nil {
		c.byUser = make(map[string]*list.Element)
	}
	if known, ok := c.byUser[learned.user]; ok {
		known.Value = learned
		c.order.MoveToFront(known)
		return
	}
	if len(c.byUser) >= maxCredentials {
		oldest := c.order.Back()
		delete(c.byUser, c.order.Remove(oldest).(*credential).user)
	}
	c.byUser[learned.user] = c.order.PushFront(learned)
}

func (c *credentials) get(user string) *credential {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, ok := c.byUser[user]
	if !ok {
		return nil
	}
	c.order.MoveToFront(known)
	return known.Value.(*credential)
}

// forget drops a credential, unless another one was learned meanwhile.
func (c *credentials) forget(wrong *credential) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.byUser[wrong.user]; ok && known.Value.(*credential) == wrong {
		c.order.Remove(known)
		delete(c.byUser, wrong.user)
	}
}

// logIn gives a connection for which the configuration has no password what a client has proved to know; nil: nothing.
func (p *Pools) logIn(config *pgx.ConnConfig) *credential {
	if config.Password != "" {
		return nil
	}
	known := p.credentials.get(config.User)
	switch {
	case known == nil:
		return nil
	case known.keys == nil:
		config.Password = known.password
	default:
		config.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
			return &keyLogin{Conn: conn, keys: known.keys}, nil
		}
	}
	return known
}

// codeInvalidPassword is the SQLSTATE of a password that a server does not take.
const codeInvalidPassword = "28P01"

// loginFailed is connectFailed for a connection that used a credential, which is forgotten if the shard tried and did not take it.
func (p *Pools) loginFailed(ctx context.Context, shard directory.ShardID, config *pgx.ConnConfig, used *credential, err error) error {
	failed := connectFailed(ctx, shard, err)
	e := pgerr.Of(failed)
	if e.Code != codeInvalidPassword {
		return failed
	}
	hint := "The password is that of the router's configuration."
	switch {
	case used != nil:
		// Keys that are for another verifier were not even tried: they may be right for the other shards.
		if refused := (*pgconn.PgError)(nil); errors.As(err, &refused) {
			p.credentials.forget(used)
		}
		hint = "If the role's password has changed, connect again with the new one. Its verifier must be the same on all shards: " +
			"ALTER ROLE … PASSWORD through the router sees to that."
	case config.Password == "":
		hint = "The router knows no password of the role: no client of it has logged in by scram-sha-256, and the configuration has none."
	}
	return pgerr.New(codeInvalidPassword, e.Message).WithDetail("Shard " + string(shard) + " did not let the router in as this role.").
		WithHint(hint).Because(failed)
}
