package router

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// The limits of waiting for the client. The router keeps them: a shard's connection rests in a pool while its session
// is idle, and waits for other shards while its transaction is not.
const (
	idleSessionSetting     = "idle_session_timeout"
	idleTransactionSetting = "idle_in_transaction_session_timeout"
)

// idleTimer ends a session whose client has been silent for too long.
type idleTimer struct {
	timer   *time.Timer
	readied bool          // the last request was answered with ReadyForQuery
	round   atomic.Uint64 // counts the requests
	expired atomic.Uint64 // 1 + the number of requests after which the client was silent for too long; 0: it was not
}

// armIdle begins to wait for the client.
func (c *Session) armIdle(ctx context.Context) {
	limit := c.vars.idleSession
	if c.x.Status() != wire.TxIdle {
		limit = c.vars.idleTransaction
	}
	if limit <= 0 || !c.idle.readied {
		return
	}
	round := c.idle.round.Load()
	c.idle.timer = time.AfterFunc(limit, func() {
		c.idle.expired.Store(round + 1)
		c.wake()
	})
}

// disarmIdle ends the wait: the client has sent something.
func (c *Session) disarmIdle() {
	c.idle.readied = false
	c.idle.round.Add(1)
	if c.idle.timer != nil {
		c.idle.timer.Stop()
		c.idle.timer = nil
	}
}

// checkIdle is the error that ends a session whose client has been silent for too long.
func (c *Session) checkIdle() error {
	if c.idle.expired.Load() != c.idle.round.Load()+1 || len(c.request) > 0 {
		return nil
	}
	if c.x.Status() == wire.TxIdle {
		return pgerr.New("57P05", "terminating connection due to idle-session timeout").Fatal()
	}
	return pgerr.New("25P03", "terminating connection due to idle-in-transaction timeout").Fatal()
}

// settingDuration reads a setting of milliseconds as SHOW prints it ("1500ms", "2min"); 0 if it is none.
func settingDuration(text string) time.Duration {
	for _, unit := range []struct {
		name string
		of   time.Duration
	}{{"ms", time.Millisecond}, {"min", time.Minute}, {"s", time.Second}, {"h", time.Hour}, {"d", 24 * time.Hour}} {
		if digits, ok := strings.CutSuffix(text, unit.name); ok {
			n, err := strconv.ParseInt(digits, 10, 32)
			if err != nil {
				return 0
			}
			return time.Duration(n) * unit.of
		}
	}
	return 0
}
