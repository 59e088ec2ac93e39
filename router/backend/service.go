package backend

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
)

const (
	// maxIdleServices bounds the kept service connections of one database on one server.
	maxIdleServices = 2
	// maxIdleServicesOfServer bounds those of all databases: they take of the server's max_connections.
	maxIdleServicesOfServer = 6
	// serviceIdleTimeout closes a kept service connection that nobody has used for so long. A connection is dear (the server
	// starts a process and fills its caches), and bookkeeping comes in bursts: a change of a table asks each shard four times.
	serviceIdleTimeout = 10 * time.Second
)

// serviceKey says for what a service connection is, as a connection itself tells it.
type serviceKey struct {
	host           string
	port           uint16
	database, user string
}

// services keeps service connections between their uses.
type services struct {
	mu   sync.Mutex
	idle map[serviceKey][]idleService
}

type idleService struct {
	conn  *pgx.Conn
	since time.Time
}

// Service opens a connection as the service role, outside of the pools, or takes one that was kept. The caller closes it or
// gives it to KeepService.
func (p *Pools) Service(ctx context.Context, shard directory.Shard, database string) (*pgx.Conn, error) {
	return p.ServiceAs(ctx, shard, database, p.cfg.ServiceUser)
}

// ServiceAs is Service for a connection that is authenticated as another user.
func (p *Pools) ServiceAs(ctx context.Context, shard directory.Shard, database, user string) (*pgx.Conn, error) {
	if p.closed() {
		return nil, ErrClosed
	}
	config, err := p.cfg.connectConfig(shard.Primary, Identity{Database: database, User: user})
	if err != nil {
		return nil, fmt.Errorf("connect to shard %s: %w", shard.ID, err)
	}
	for {
		kept := p.services.take(keyOf(config))
		if kept == nil {
			break
		}
		if p.alive(ctx, kept) {
			return kept, nil
		}
		p.closeService(ctx, kept)
	}
	config.MaxProtocolMessageBodyLen = 0
	within, cancel := context.WithTimeout(ctx, p.cfg.ConnectTimeout)
	defer cancel()
	used := p.logIn(config)
	conn, err := pgx.ConnectConfig(within, config)
	if err != nil {
		return nil, p.loginFailed(ctx, shard.ID, config, used, err)
	}
	return conn, nil
}

// alive asks a kept connection: its server may have gone meanwhile.
func (p *Pools) alive(ctx context.Context, kept *pgx.Conn) bool {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.ConnectTimeout)
	defer cancel()
	return kept.Ping(ctx) == nil
}

// KeepService takes back a connection of Service for the next who wants one like it. Its session must be as it was at first:
// settings, locks and temporary tables. One that is broken, in a transaction or too many is closed.
func (p *Pools) KeepService(ctx context.Context, conn *pgx.Conn) {
	if conn.IsClosed() || conn.PgConn().IsBusy() || conn.PgConn().TxStatus() != 'I' {
		p.closeService(ctx, conn)
		return
	}
	if tooMany := p.services.keep(conn); tooMany != nil {
		p.closeService(ctx, tooMany)
	}
	if p.closed() { // Close may have looked before it was kept
		p.closeServices(func(serviceKey, time.Time) bool { return true })
	}
}

// closeServices closes the kept connections that are chosen by what they are for and since when they are idle.
func (p *Pools) closeServices(chosen func(key serviceKey, since time.Time) bool) {
	for _, conn := range p.services.remove(chosen) {
		ctx, cancel := p.cleanContext()
		p.closeService(ctx, conn)
		cancel()
	}
}

// closeService says goodbye; what mattered was committed.
func (p *Pools) closeService(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.cfg.CleanTimeout)
	defer cancel()
	_ = conn.Close(ctx)
}

func keyOf(config *pgx.ConnConfig) serviceKey {
	return serviceKey{host: config.Host, port: config.Port, database: config.Database, user: config.User}
}

func (s *services) take(key serviceKey) *pgx.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.idle[key]
	if len(list) == 0 {
		return nil
	}
	last := list[len(list)-1]
	s.idle[key] = list[:len(list)-1]
	if len(list) == 1 {
		delete(s.idle, key)
	}
	return last.conn
}

// keep returns one that has to be closed instead, if there are too many.
func (s *services) keep(conn *pgx.Conn) (tooMany *pgx.Conn) {
	key := keyOf(conn.Config())
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle[key]) >= maxIdleServices {
		return conn
	}
	if s.idle == nil {
		s.idle = make(map[serviceKey][]idleService)
	}
	s.idle[key] = append(s.idle[key], idleService{conn: conn, since: time.Now()})
	ofServer := 0
	var oldest serviceKey
	for other, list := range s.idle {
		if other.host != key.host || other.port != key.port {
			continue
		}
		if ofServer == 0 || list[0].since.Before(s.idle[oldest][0].since) {
			oldest = other
		}
		ofServer += len(list)
	}
	if ofServer <= maxIdleServicesOfServer {
		return nil
	}
	tooMany = s.idle[oldest][0].conn
	if s.idle[oldest] = s.idle[oldest][1:]; len(s.idle[oldest]) == 0 {
		delete(s.idle, oldest)
	}
	return tooMany
}

func (s *services) remove(chosen func(key serviceKey, since time.Time) bool) []*pgx.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var removed []*pgx.Conn
	for key, list := range s.idle {
		var left []idleService
		for _, idle := range list {
			if chosen(key, idle.since) {
				removed = append(removed, idle.conn)
			} else {
				left = append(left, idle)
			}
		}
		if s.idle[key] = left; len(left) == 0 {
			delete(s.idle, key)
		}
	}
	return removed
}
