package metrics

import (
	"sync/atomic"
	"time"
)

// Kind is what a request or a transaction needed of the shards. Greater is more.
type Kind uint8

// The kinds.
const (
	Router   Kind = iota // the router answered alone
	Single               // one shard
	Several              // several shards, one of them at most was written
	TwoPhase             // it was committed on several shards, in two phases
	Kinds    = int(TwoPhase) + 1
)

// String is the kind's name in labels.
func (k Kind) String() string {
	return [...]string{"router", "single", "scatter", "two_phase"}[k]
}

// stripes is the number of parts that the counters of a database are kept in, so that sessions on several cores seldom
// write to the same cache line.
const stripes = 8

// Database are the counters of one database. It is safe for concurrent use; the zero value is empty.
type Database struct {
	stripes [stripes]Stripe
}

// Stripe is the part of a database's counters that some of its sessions count in.
type Stripe struct {
	// Requests are those from a client's Query or Sync to the router's ReadyForQuery; Transactions reach from the first
	// request of one to the ReadyForQuery that says that none is open.
	Requests, Transactions [Kinds]Histogram
	// Received and Sent count bytes from and to clients, without TLS.
	Received, Sent atomic.Uint64
	// ClientParses are statements that clients prepared by name, ServerParses those prepared on servers for that, Binds
	// the executions that clients bound.
	ClientParses, ServerParses, Binds atomic.Uint64
	// Logins counts sessions.
	Logins atomic.Uint64
	_      [64]byte
}

// Stripe is the one that a session counts in.
func (d *Database) Stripe(session uint64) *Stripe { return &d.stripes[session%stripes] }

// Totals is what a database has counted.
type Totals struct {
	Requests, Transactions                            [Kinds]Durations
	Received, Sent, ClientParses, ServerParses, Binds uint64
	Logins                                            uint64
}

// Totals adds up the stripes. Counters go on while they are read, so they need not fit to each other exactly.
func (d *Database) Totals() Totals {
	var t Totals
	for i := range d.stripes {
		s := &d.stripes[i]
		for kind := range Kinds {
			s.Requests[kind].AddTo(&t.Requests[kind])
			s.Transactions[kind].AddTo(&t.Transactions[kind])
		}
		t.Received += s.Received.Load()
		t.Sent += s.Sent.Load()
		t.ClientParses += s.ClientParses.Load()
		t.ServerParses += s.ServerParses.Load()
		t.Binds += s.Binds.Load()
		t.Logins += s.Logins.Load()
	}
	return t
}

// Add adds another's numbers.
func (t *Totals) Add(other *Totals) {
	for kind := range Kinds {
		t.Requests[kind].Add(&other.Requests[kind])
		t.Transactions[kind].Add(&other.Transactions[kind])
	}
	t.Received += other.Received
	t.Sent += other.Sent
	t.ClientParses += other.ClientParses
	t.ServerParses += other.ServerParses
	t.Binds += other.Binds
	t.Logins += other.Logins
}

// AllRequests are the requests of every kind together.
func (t *Totals) AllRequests() (count uint64, sum time.Duration) { return together(&t.Requests) }

// AllTransactions are the transactions of every kind together.
func (t *Totals) AllTransactions() (count uint64, sum time.Duration) {
	return together(&t.Transactions)
}

func together(kinds *[Kinds]Durations) (count uint64, sum time.Duration) {
	for i := range kinds {
		count += kinds[i].Count()
		sum += kinds[i].Sum
	}
	return count, sum
}
