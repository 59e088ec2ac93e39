package router

import (
	"time"

	"github.com/shardyard/shardyard/router/metrics"
	"github.com/shardyard/shardyard/router/wire"
)

// tally measures the requests and transactions of a session. It belongs to the session's goroutine; what it has measured goes into the
// counters of the database.
type tally struct {
	counts *metrics.Stripe // nil: nothing is counted yet
	// request and transaction are when they began, in Unix nanoseconds; 0: none is open.
	request, transaction int64
	received             uint64
	sent                 int64 // position of the output when a request ended last
}

// begin notes a request of that many bytes, or another part of one.
func (t *tally) begin(now int64, size int) {
	if t.request == 0 {
		t.request = now
	}
	if t.transaction == 0 {
		t.transaction = now
	}
	t.received += uint64(size)
}

// countRequest counts the request that ends with this ReadyForQuery, and the transaction if it ends too.
func (c *Session) countRequest() {
	t := &c.tally
	if t.counts == nil || t.request == 0 {
		return
	}
	now := time.Now().UnixNano()
	kind, parses := c.x.TakeRequestUsage()
	t.counts.Requests[kind].Observe(time.Duration(now - t.request))
	if c.x.Status() == wire.TxIdle {
		t.counts.Transactions[c.x.TakeTransactionUsage()].Observe(time.Duration(now - t.transaction))
		t.transaction = 0
	}
	position := c.out.Position()
	t.counts.Received.Add(t.received)
	t.counts.Sent.Add(uint64(position - t.sent))
	if parses > 0 {
		t.counts.ServerParses.Add(parses)
	}
	t.request, t.received, t.sent = 0, 0, position
}
