package backend

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
)

func TestTheMostSpecialRuleWins(t *testing.T) {
	two, none := 2, 0
	table, err := newLimitTable(Limits{Size: 20, Reserve: 1, Min: 3, Mode: TransactionMode}, []LimitRule{
		{Database: "shop", Size: 10, Reserve: &two, Mode: SessionMode},
		{User: "app", Size: 5, Min: &none},
		{Database: "shop", User: "app", Mode: TransactionMode},
		{User: "small", Size: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		id   Identity
		want Limits
	}{
		{Identity{"other", "bob"}, Limits{Size: 20, Reserve: 1, Min: 3, Mode: TransactionMode}},
		{Identity{"shop", "bob"}, Limits{Size: 10, Reserve: 2, Min: 3, Mode: SessionMode}},
		{Identity{"other", "app"}, Limits{Size: 5, Reserve: 1, Min: 0, Mode: TransactionMode}},
		{Identity{"shop", "app"}, Limits{Size: 5, Reserve: 2, Min: 0, Mode: TransactionMode, Lasting: true}},
		{Identity{"other", "small"}, Limits{Size: 1, Reserve: 1, Min: 1, Mode: TransactionMode}},
	} {
		if got := table.find(tc.id); got != tc.want {
			t.Errorf("%+v: got %+v, want %+v", tc.id, got, tc.want)
		}
	}
}

func TestFaultyLimitsAreRefused(t *testing.T) {
	minus := -1
	for _, tc := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.PoolMin = 21 }, "min 21"},
		{func(c *Config) { c.PoolReserve = -1 }, "reserve -1"},
		{func(c *Config) { c.Mode = "statement" }, "neither transaction nor session"},
		{func(c *Config) { c.Rules = []LimitRule{{Size: 3}} }, "neither a database nor a user"},
		{func(c *Config) { c.Rules = []LimitRule{{User: "a", Size: 3}, {User: "a", Size: 4}} }, "another one"},
		{func(c *Config) { c.Rules = []LimitRule{{User: "a", Min: &minus}} }, "min: -1"},
		{func(c *Config) { c.Rules = []LimitRule{{User: "a", Mode: "x"}} }, "mode \"x\""},
	} {
		cfg := Config{RouterName: "r1"}
		tc.change(&cfg)
		p, err := New(context.Background(), cfg)
		if err == nil {
			p.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want it to say %q", err, tc.want)
		}
	}
}

// Each database and user has a bound of its own.
func TestRulesBoundTheirPools(t *testing.T) {
	p := newPools(t, func(c *Config) {
		c.PoolSize, c.AcquireTimeout = 5, 30*time.Millisecond
		c.Rules = []LimitRule{{Database: "postgres", Size: 2}}
	})
	one, two := acquire(t, p, superuser), acquire(t, p, superuser)
	_, err := p.Acquire(testContext(t), shard(), superuser, 1)
	wantState(t, err, "53300")
	if !strings.Contains(pgerr.Of(err).Detail, "All 2 connections") {
		t.Fatalf("got %q", pgerr.Of(err).Detail)
	}
	var others []*Conn
	for range 5 {
		others = append(others, acquire(t, p, Identity{"template1", "postgres"}))
	}
	for _, c := range append(others, one, two) {
		p.Release(c)
	}
}

// Who has waited for long gets a connection beyond the size; it goes when nobody needs it any more.
func TestReserveIsForThoseWhoWait(t *testing.T) {
	p := newPools(t, func(c *Config) { c.PoolSize, c.PoolReserve, c.ReserveTimeout = 1, 1, 20*time.Millisecond })
	first, second := acquire(t, p, superuser), acquire(t, p, superuser)
	if s := stats(t, p, superuser); s.Open != 2 || s.Reserved != 1 || s.Waited != 1 || s.Held != 2 {
		t.Fatalf("got %+v", s)
	}
	third := make(chan *Conn)
	go func() {
		c, err := p.Acquire(testContext(t), shard(), superuser, 1)
		if err != nil {
			t.Error(err)
		}
		third <- c
	}()
	eventually(t, "the reserve is used up and the third waits", func() bool {
		return stats(t, p, superuser).Waiting == 1 && stats(t, p, superuser).Oldest > 3*p.cfg.ReserveTimeout
	})
	if s := stats(t, p, superuser); s.Open != 2 {
		t.Fatalf("got %+v", s)
	}
	p.Release(second)
	if c := <-third; c != second {
		t.Fatal("the third did not get the connection that came back")
	}
	p.Release(second)
	p.Release(first)
	eventually(t, "the pool has its size again", func() bool { return stats(t, p, superuser).Open == 1 })
}

// The reserve is given in the order of arrival too.
func TestReserveIsFair(t *testing.T) {
	const waiting = 5
	p := newPools(t, func(c *Config) { c.PoolSize, c.PoolReserve, c.ReserveTimeout = 1, 1, 300*time.Millisecond })
	held := acquire(t, p, superuser)
	var mu sync.Mutex
	var order []uint64
	var group sync.WaitGroup
	for i := range uint64(waiting) {
		group.Go(func() {
			c, err := p.AcquireFor(testContext(t), shard(), superuser, 1, Wish{Session: i + 1})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			order = append(order, i+1)
			mu.Unlock()
			p.Release(c)
		})
		eventually(t, "the waiter is queued, or was served already", func() bool { return stats(t, p, superuser).Waited+uint64(stats(t, p, superuser).Waiting) > i })
	}
	var last uint64
	for _, w := range p.Waiting() {
		if w.Session <= last || w.Identity != superuser || w.Shard != shard().ID {
			t.Fatalf("%+v waits behind %d", w, last)
		}
		last = w.Session
	}
	group.Wait()
	for i, session := range order {
		if session != uint64(i)+1 {
			t.Fatalf("served in the order %v", order)
		}
	}
	p.Release(held)
}

func TestMinimumIsKeptWhileThePoolIsUsed(t *testing.T) {
	p := newPools(t, func(c *Config) {
		c.PoolMin, c.IdleTimeout, c.ReserveTimeout = 3, time.Hour, 20*time.Millisecond
	})
	p.Release(acquire(t, p, superuser))
	eventually(t, "three are open", func() bool { s := stats(t, p, superuser); return s.Open == 3 && s.Idle == 3 })
	p.ReconnectDatabase("template1")
	if s := stats(t, p, superuser); s.Closed != 0 {
		t.Fatalf("got %+v", s)
	}
	p.ReconnectDatabase("postgres")
	eventually(t, "three others are open", func() bool { s := stats(t, p, superuser); return s.Opened >= 6 && s.Idle == 3 })
	if !p.CloseDatabase("postgres") {
		t.Fatal("connections are left")
	}
	eventually(t, "a sweep after that", sweeps(p))
	if s := stats(t, p, superuser); s.Open != 0 {
		t.Fatalf("a database that is to be dropped gets connections: %+v", s)
	}
}

// sweeps is true when another pool has been swept, after all that were there before.
func sweeps(p *Pools) func() bool {
	id := Identity{Database: "template1", User: "postgres"}
	return func() bool {
		for _, s := range p.Stats() {
			if s.Identity == id && s.Idle == 3 {
				return true
			}
		}
		c, err := p.Acquire(context.Background(), shard(), id, 1)
		if err == nil {
			p.Release(c)
		}
		return false
	}
}

// A pool that nobody uses keeps its minimum only if a rule names it.
func TestMinimumOfAnUnusedPool(t *testing.T) {
	lasting, minimum := Identity{Database: "template1", User: "postgres"}, 2
	p := newPools(t, func(c *Config) {
		c.PoolMin, c.IdleTimeout = 1, 50*time.Millisecond
		c.Rules = []LimitRule{{Database: lasting.Database, User: lasting.User, Min: &minimum}}
	})
	p.Release(acquire(t, p, lasting))
	p.Release(acquire(t, p, superuser))
	eventually(t, "one is forgotten, the other is full", func() bool {
		all := p.Stats()
		return len(all) == 1 && all[0].Identity == lasting && all[0].Idle == 2
	})
	if counted := p.Counted()["postgres"]; counted.Opened < 1 || counted.Acquired != 1 {
		t.Fatalf("what the forgotten pool has counted is lost: %+v", counted)
	}
	p.ForgetDatabase("postgres")
	if _, there := p.Counted()["postgres"]; there {
		t.Fatal("a database that is gone is not forgotten")
	}
}

// A minimum that cannot be reached harms nobody.
func TestMinimumOfADeadServer(t *testing.T) {
	p := newPools(t, func(c *Config) { c.PoolMin, c.ReserveTimeout, c.ConnectTimeout = 2, 20*time.Millisecond, time.Second })
	nowhere := directory.Shard{ID: "nowhere", Primary: directory.Endpoint{Host: "127.0.0.1", Port: 1}}
	_, err := p.Acquire(testContext(t), nowhere, superuser, 1)
	wantState(t, err, "08006")
	eventually(t, "it is tried again", func() bool { return p.Stats()[0].OpenFailed > 2 })
	eventually(t, "no place is lost", func() bool { return p.Stats()[0].Open <= 1 })
}

func TestLimitsChangeUnderWay(t *testing.T) {
	cfg := Config{RouterName: "r1", PoolSize: 1}
	p := newPools(t, func(c *Config) { c.PoolSize = 1 })
	held := acquire(t, p, superuser)
	got := make(chan *Conn)
	for range 2 {
		go func() {
			c, err := p.Acquire(testContext(t), shard(), superuser, 1)
			if err != nil {
				t.Error(err)
			}
			got <- c
		}()
	}
	eventually(t, "two wait", func() bool { return stats(t, p, superuser).Waiting == 2 })
	cfg.PoolSize = 3
	if err := p.SetLimits(cfg); err != nil {
		t.Fatal(err)
	}
	one, two := <-got, <-got
	cfg.PoolSize = 1
	if err := p.SetLimits(cfg); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Conn{held, one, two} {
		p.Release(c)
	}
	if s := stats(t, p, superuser); s.Open != 1 || s.Size != 1 || s.Closed != 2 {
		t.Fatalf("got %+v", s)
	}
	cfg.PoolSize, cfg.PoolReserve = 1, -1
	if err := p.SetLimits(cfg); err == nil || p.Limits(superuser).Reserve != 0 {
		t.Fatalf("a faulty change counts: %v, %+v", err, p.Limits(superuser))
	}
}

// Who holds what is known at each moment.
func TestConnectionsAreListed(t *testing.T) {
	p := newPools(t, nil)
	c, err := p.AcquireFor(testContext(t), shard(), superuser, 1, Wish{Session: 42})
	if err != nil {
		t.Fatal(err)
	}
	idle := acquire(t, p, superuser)
	p.Release(idle)
	c.Prepare("some key")
	list := p.Connections()
	if len(list) != 2 || list[0].State != ConnActive || list[0].Session != 42 || list[0].PID != c.PID() || list[0].Prepared != 1 ||
		list[1].State != ConnIdle || list[1].Session != 0 || list[1].CloseNeeded || list[0].Remote.Port() != shard().Primary.Port {
		t.Fatalf("got %+v", list)
	}
	p.Reconnect(shard().ID)
	if list = p.Connections(); len(list) != 1 || !list[0].CloseNeeded || !c.Retired() {
		t.Fatalf("got %+v", list)
	}
	p.Release(c)
	if list = p.Connections(); len(list) != 0 {
		t.Fatalf("got %+v", list)
	}
	times := p.Times()
	if len(times) != 1 || times[0].Connect.Count() != 2 || times[0].Wait.Count() != 0 {
		t.Fatalf("got %+v", times)
	}
}

func TestLeasingAllocatesNothing(t *testing.T) {
	p := newPools(t, nil)
	p.Release(acquire(t, p, superuser))
	ctx, at := context.Background(), shard()
	if n := testing.AllocsPerRun(200, func() {
		c, err := p.AcquireFor(ctx, at, superuser, 1, Wish{Session: 7})
		if err != nil {
			t.Fatal(err)
		}
		p.Release(c)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
