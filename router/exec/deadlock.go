package exec

import (
	"context"

	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/pgerr"
)

// Running are the connections that the request uses that runs now, and its number for Break. Any goroutine may call it.
func (x *Executor) Running() (request uint64, connections []backend.Canceller) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.request, append(connections, x.running...)
}

// Break cancels what a request does, if it still runs, and has it fail with an error of ours. It returns when
// the servers have been told. Any goroutine may call it.
func (x *Executor) Break(ctx context.Context, request uint64, reason *pgerr.Error) {
	x.mu.Lock()
	if x.request != request || len(x.running) == 0 || x.broken != nil {
		x.mu.Unlock()
		return
	}
	x.broken, x.cancelled = reason, true
	x.breaking.Add(1)
	defer x.breaking.Done()
	running := append([]backend.Canceller(nil), x.running...)
	x.endWaits()
	x.mu.Unlock()
	for _, c := range running {
		_ = c.Cancel(ctx) // who called looks again, and finds the statement still waiting
	}
}

// Broken is the error that the client gets for one of its request: the reason of Break instead of the
// cancellation that came of it.
func (x *Executor) Broken(e *pgerr.Error) *pgerr.Error {
	if e.Code != pgerr.QueryCanceled {
		return e
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.broken != nil {
		return x.broken
	}
	return e
}

// NameMember gives a link its name before a statement that may write runs on it in a pipeline without a BEGIN that
// could carry it.
func (x *Executor) NameMember(l *Link) {
	if x.tx.block || l.begun || l.skipping {
		return
	}
	if name := x.memberName(l); name != "" {
		x.queueExtended(l, "SET LOCAL application_name = "+Quote(name)) // its warning is silent
		l.member = true
	}
}

// memberName is the application_name of a link in a transaction that has another already, "" for its first. It tells the
// deadlock detectors of other routers that the two belong together.
func (x *Executor) memberName(l *Link) string {
	if l.member {
		return ""
	}
	for _, first := range x.links {
		if first != l && !first.member && (first.begun || first.pipelined) {
			return backend.MemberName(x.pools.ApplicationName(), first.shard, first.conn.PID())
		}
	}
	return ""
}
