package exec

import (
	"context"
	"time"

	"github.com/shardyard/shardyard/router/backend"
)

// Waits between the cancel requests for one statement, doubled from the first to the last.
const (
	firstCancelWait = 20 * time.Millisecond
	lastCancelWait  = time.Second
)

// cancelling cancels what runs on a connection, again and again until stop is called: a server forgets a
// request that arrives before it has read the statement. When stop returns none is on its way any more.
func cancelling(ctx context.Context, c backend.Canceller) (stop func()) {
	ctx = context.WithoutCancel(ctx)
	stopped, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for wait := firstCancelWait; ; wait = min(2*wait, lastCancelWait) {
			bounded, cancel := context.WithTimeout(ctx, abandonTimeout)
			_ = c.Cancel(bounded) // if it fails, the next may not; else the answer is read to its end
			cancel()
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-stopped:
				timer.Stop()
				return
			}
		}
	}()
	return func() { close(stopped); <-ended }
}

// cancelHeard is the error of a request that was cancelled already, nil if it was not. It is asked before a
// statement begins: servers forget a cancel request that comes while they are idle.
func (x *Executor) cancelHeard() error {
	if x.isCancelled() {
		return errCancelled()
	}
	return nil
}
