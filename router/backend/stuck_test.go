package backend

import (
	"errors"
	"testing"
	"time"

	"github.com/shardyard/shardyard/router/pgerr"
)

// Sessions that hold connections and wait for each other's: one gives way, long before its time is over, and the others go on.
func TestWaitersInACircle(t *testing.T) {
	p := newPools(t, func(c *Config) { c.PoolSize, c.AcquireTimeout = 1, time.Minute })
	other := Identity{Database: "template1", User: superuser.User}
	ids := []Identity{superuser, other}
	type outcome struct {
		session int
		conn    *Conn
		err     error
	}
	outcomes := make(chan outcome, 2)
	held := make([]*Conn, 2)
	for i, id := range ids {
		c, err := p.AcquireFor(testContext(t), shard(), id, 1, Wish{Session: uint64(i + 1)})
		if err != nil {
			t.Fatal(err)
		}
		held[i] = c
	}
	// Two who hold nothing wait already; they must not come first.
	late := make(chan *Conn, 2)
	for i, id := range ids {
		go func() {
			c, err := p.AcquireFor(testContext(t), shard(), id, 1, Wish{Session: uint64(i + 10)})
			if err != nil {
				t.Error(err)
			}
			late <- c
		}()
		eventually(t, "the waiter is queued", func() bool { return stats(t, p, id).Waiting == 1 })
	}
	for i := range ids {
		go func() {
			c, err := p.AcquireFor(testContext(t), shard(), ids[1-i], 1, Wish{Session: uint64(i + 1), Holds: true})
			outcomes <- outcome{i, c, err}
		}()
		eventually(t, "the waiter is queued", func() bool { return stats(t, p, ids[1-i]).Waiting == 2 })
	}
	gaveWay := <-outcomes
	var e *pgerr.Error
	if gaveWay.session != 1 || !errors.As(gaveWay.err, &e) || e.Code != pgerr.DeadlockDetected || e.Hint == "" {
		t.Fatalf("session %d: %v", gaveWay.session+1, gaveWay.err)
	}
	p.Release(held[gaveWay.session])
	got := <-outcomes
	if got.err != nil {
		t.Fatal(got.err)
	}
	p.Release(got.conn)
	p.Release(held[got.session])
	for range 2 {
		p.Release(<-late)
	}
}
