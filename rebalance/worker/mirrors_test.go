package worker

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/internal/testbed"
)

// TestLeftovers: what was written around the routers comes to the copy, once one of two workers leads; when that one
// stops the other goes on.
func TestLeftovers(t *testing.T) {
	b := newBench(t)
	var leading [2]atomic.Bool
	var stops [2]func()
	for i := range stops {
		s := store(t, cluster.Etcd().Endpoints()...)
		stops[i] = b.run(func(ctx context.Context, work func(context.Context)) error {
			return s.Lead(ctx, "worker", "w", func(ctx context.Context) {
				leading[i].Store(true)
				defer leading[i].Store(false)
				work(ctx)
			})
		}, nil)
	}
	b.exec(b.home, "INSERT INTO r VALUES (1, 'a'), (2, 'b')")
	testbed.Until(t, "the rows are on the copy", func() bool { return b.rows() == "1a 2b" })
	first := 0
	if leading[1].Load() {
		first = 1
	}
	if leading[1-first].Load() {
		t.Error("two workers lead")
	}
	stops[first]()
	b.exec(b.home, "UPDATE r SET v = 'c' WHERE id = 1; DELETE FROM r WHERE id = 2; INSERT INTO r VALUES (3, 'd')")
	testbed.Until(t, "the other worker has taken over", func() bool { return b.rows() == "1c 3d" })
	b.exec(b.home, "TRUNCATE r")
	b.exec(b.home, "INSERT INTO r VALUES (4, 'e')")
	testbed.Until(t, "the truncation is repeated", func() bool { return b.rows() == "4e" })
}

// TestLeaderCutOff: a worker that etcd does not hear from any more ends its term, and the other leads, within the lease.
func TestLeaderCutOff(t *testing.T) {
	b := newBench(t)
	link := newProxy(t, cluster.Etcd().Endpoints()[0])
	var began, ended atomic.Int32
	cutOff := store(t, "http://"+link.address())
	b.run(func(ctx context.Context, work func(context.Context)) error {
		return cutOff.Lead(ctx, "worker", "one", func(ctx context.Context) {
			began.Add(1)
			defer ended.Add(1)
			work(ctx)
		})
	}, nil)
	testbed.Until(t, "the first leads", func() bool { return began.Load() == 1 })
	var other atomic.Int32
	s := store(t, cluster.Etcd().Endpoints()...)
	b.run(func(ctx context.Context, work func(context.Context)) error {
		return s.Lead(ctx, "worker", "two", func(ctx context.Context) {
			other.Add(1)
			work(ctx)
		})
	}, nil)
	link.cut()
	began2 := time.Now()
	testbed.Until(t, "the first has ended and the other leads", func() bool { return ended.Load() == 1 && other.Load() == 1 })
	if took := time.Since(began2); took > 4*lease {
		t.Errorf("the takeover took %s", took)
	}
	b.exec(b.home, "INSERT INTO r VALUES (1, 'a')")
	testbed.Until(t, "the other applies", func() bool { return b.rows() == "1a" })
}

// TestForbiddenLeftover: a change that a foreign key forbids does not block others, is tried again ever more rarely and
// with few connections, and is applied when it can be.
func TestForbiddenLeftover(t *testing.T) {
	b := newBench(t)
	var mu sync.Mutex
	at := time.Unix(0, 0)
	now := func() time.Time { mu.Lock(); defer mu.Unlock(); return at }
	looks := make(chan struct{}, 1000)
	b.exec(b.home, "INSERT INTO r VALUES (1, 'a'), (2, 'b')")
	b.run(alone, func(c *Config) {
		c.now = func() time.Time {
			select {
			case looks <- struct{}{}:
			default:
			}
			return now()
		}
	})
	testbed.Until(t, "the rows are on the copy", func() bool { return b.rows() == "1a 2b" })
	b.exec(b.copy, "INSERT INTO orders VALUES (1)")
	b.exec(b.home, "DELETE FROM r WHERE id = 1")
	testbed.Until(t, "it was tried", func() bool { return b.dials.Load() > 3 })
	waitLooks(looks, 20)
	before := b.dials.Load()
	waitLooks(looks, 50)
	if after := b.dials.Load(); after > before {
		t.Errorf("while no time passed it was tried again: %d connections more", after-before)
	}
	b.exec(b.home, "UPDATE r SET v = 'c' WHERE id = 2")
	testbed.Until(t, "the other change is applied meanwhile", func() bool { return b.rows() == "1a 2c" })
	b.exec(b.copy, "DELETE FROM orders")
	mu.Lock()
	at = at.Add(maxBackoff)
	mu.Unlock()
	testbed.Until(t, "it is applied when nothing refers to the row any more", func() bool { return b.rows() == "2c" })
}

func waitLooks(looks chan struct{}, n int) {
	for len(looks) > 0 {
		<-looks
	}
	for range n {
		<-looks
	}
}

// TestShardAway: while a copy's shard cannot be reached nothing is lost, and the worker lives on.
func TestShardAway(t *testing.T) {
	b := newBench(t)
	var away atomic.Bool
	var refused atomic.Int32
	away.Store(true)
	b.run(alone, func(c *Config) {
		c.Dial = func(ctx context.Context, shard directory.Shard, database string) (*pgx.Conn, error) {
			if shard.ID != b.m.Home && away.Load() {
				refused.Add(1)
				return nil, errors.New("away")
			}
			return b.dial(ctx, shard, database)
		}
	})
	b.exec(b.home, "INSERT INTO r VALUES (1, 'a')")
	testbed.Until(t, "it was tried", func() bool { return refused.Load() > 0 })
	away.Store(false)
	testbed.Until(t, "the row is on the copy", func() bool { return b.rows() == "1a" })
}

// proxy is a connection to etcd that can be cut: nothing comes through any more, and nobody is told.
type proxy struct {
	listener net.Listener
	dead     atomic.Bool
	work     sync.WaitGroup
	mu       sync.Mutex
	open     []net.Conn
}

func newProxy(t *testing.T, endpoint string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{listener: listener}
	_, target, _ := strings.Cut(endpoint, "://")
	p.work.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				_ = client.Close()
				continue
			}
			p.mu.Lock()
			p.open = append(p.open, client, server)
			p.mu.Unlock()
			p.work.Go(func() { p.forward(client, server) })
			p.work.Go(func() { p.forward(server, client) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		p.mu.Lock()
		for _, conn := range p.open {
			_ = conn.Close()
		}
		p.mu.Unlock()
		p.work.Wait()
	})
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) cut() { p.dead.Store(true) }

func (p *proxy) forward(from, to net.Conn) {
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if p.dead.Load() {
			continue
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}
