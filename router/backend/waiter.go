package backend

import (
	"context"
	"fmt"
	"time"

	"github.com/shardyard/shardyard/router/loop"
)

// waiter is one Acquire in the queue. It is woken with a connection, or with the right to open one.
type waiter struct {
	ready      chan *Conn // of a goroutine, buffered by one; nil: the right to open; closed: the pools are
	given      *Conn      // to a task on the loop, when it is done; nil: the right to open
	done       bool
	closed     bool // it is done because the pools are closed
	session    uint64
	since      time.Time
	holds      bool       // its session holds connections of other pools
	task       *loop.Task // not nil: it waits on the loop
	prev, next *waiter
	queued     bool
}

// keptWaiters is how many of those that wait no more a pool keeps for the next ones.
const keptWaiters = 256

// newWaiter returns one for a wait on the loop. p.mu is held.
func (p *pool) newWaiter() *waiter {
	if w := p.spare.pop(); w != nil {
		return w
	}
	return new(waiter)
}

// keepWaiter keeps one whose wait on the loop has ended. p.mu is held.
func (p *pool) keepWaiter(w *waiter) {
	if w.task != nil && p.spare.length < keptWaiters {
		*w = waiter{}
		p.spare.push(w)
	}
}

// waiters is a list in the order of arrival.
type waiters struct {
	first, last *waiter
	length      int
}

// push adds one at the end of the queue. Those that hold connections come before those that hold none: what others wait for is
// given back soonest so.
func (l *waiters) push(w *waiter) {
	before := l.last
	if w.holds {
		before = nil
		for next := l.first; next != nil && next.holds; next = next.next {
			before = next
		}
	}
	w.prev, w.queued = before, true
	if before == nil {
		w.next, l.first = l.first, w
	} else {
		w.next, before.next = before.next, w
	}
	if w.next == nil {
		l.last = w
	} else {
		w.next.prev = w
	}
	l.length++
}

func (l *waiters) remove(w *waiter) {
	if w.prev == nil {
		l.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next, w.queued = nil, nil, false
	l.length--
}

func (l *waiters) pop() *waiter {
	w := l.first
	if w != nil {
		l.remove(w)
	}
	return w
}

// wait waits for its turn. reserve: the pool has one, which is used when somebody has waited too long.
func (p *pool) wait(ctx context.Context, w *waiter, reserve bool) (*Conn, error) {
	timer := time.NewTimer(p.owner.cfg.AcquireTimeout)
	defer timer.Stop()
	var patience <-chan time.Time
	if reserve {
		short := time.NewTimer(p.owner.cfg.ReserveTimeout)
		defer short.Stop()
		patience = short.C
	}
	var look <-chan time.Time
	if w.holds {
		ticker := time.NewTicker(stuckEvery)
		defer ticker.Stop()
		look = ticker.C
	}
	var err error
	suspected := false
	for err == nil {
		select {
		case c, ok := <-w.ready:
			p.noteWait(w)
			if !ok {
				return nil, ErrClosed
			}
			return c, nil
		case <-patience:
			p.useReserve()
		case <-look:
			before := suspected
			if suspected = p.owner.givesWay(w); suspected && before {
				err = errCircle(p.key.shard)
			}
		case <-ctx.Done():
			err = fmt.Errorf("wait for a connection to shard %s: %w", p.key.shard, context.Cause(ctx))
		case <-timer.C:
			err = p.full(p.size(), fmt.Sprintf("no connection became free within %s", p.owner.cfg.AcquireTimeout))
		}
	}
	return nil, p.gaveUp(w, err)
}

// setAlarm has those who wait on the loop looked at, unless they will be soon anyway. p.mu is held.
func (p *pool) setAlarm(in time.Duration) {
	switch {
	case p.alarmed:
		return
	case p.alarm == nil:
		p.alarm = time.AfterFunc(in, p.wakeLate)
	default:
		p.alarm.Reset(in)
	}
	p.alarmed = true
}

// wakeLate wakes who has waited on the loop for too long.
func (p *pool) wakeLate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.alarmed = false
	now := time.Now()
	for w := p.waiting.first; w != nil; w = w.next {
		if w.task == nil {
			continue
		}
		if left := p.owner.cfg.AcquireTimeout - now.Sub(w.since); left > 0 {
			p.setAlarm(left) // Invariant: of those on the loop, who is nearer to the front came earlier
			return
		}
		w.task.Wake()
	}
}

// waitOnLoop is wait for a task on the loop, in a pool without reserve. It makes no timer and no context: wakeLate, and who stops the
// request, wake the task.
func (p *pool) waitOnLoop(ctx context.Context, w *waiter, stopped func() bool) (*Conn, error) {
	task := w.task
	for {
		if c, done, err := p.taken(w); done {
			return c, err
		}
		if stopped != nil && stopped() {
			return nil, p.gaveUp(w, fmt.Errorf("wait for a connection to shard %s: %w", p.key.shard, context.Canceled))
		}
		if ctx.Err() != nil {
			return nil, p.gaveUp(w, fmt.Errorf("wait for a connection to shard %s: %w", p.key.shard, context.Cause(ctx)))
		}
		if time.Since(w.since) >= p.owner.cfg.AcquireTimeout {
			return nil, p.gaveUp(w, p.full(p.size(), fmt.Sprintf("no connection became free within %s", p.owner.cfg.AcquireTimeout)))
		}
		task.Park()
	}
}

// taken ends the wait of one on the loop, if it is done.
func (p *pool) taken(w *waiter) (c *Conn, done bool, err error) {
	p.mu.Lock()
	if !w.done {
		p.mu.Unlock()
		return nil, false, nil
	}
	if c = w.given; w.closed {
		err = ErrClosed
	}
	waited := p.waited(w)
	p.mu.Unlock()
	p.times.wait.Observe(waited)
	return c, true, err
}

// gaveUp takes one that waits no more out of the queue; it returns err.
func (p *pool) gaveUp(w *waiter, err error) error {
	p.mu.Lock()
	queued := w.queued
	if queued {
		p.waiting.remove(w)
	}
	p.stats.Timeouts++
	p.mu.Unlock()
	if !queued { // its turn came at the same moment: pass it on
		if c, ok := w.turn(); ok && c != nil {
			p.put(c)
		} else if ok {
			p.freeSlot()
		}
	}
	p.noteWait(w)
	return err
}

// give ends the wait: with a connection, or with the right to open one. The pool's mutex is held.
func (w *waiter) give(c *Conn) {
	if w.task == nil {
		w.ready <- c
		return
	}
	w.given, w.done = c, true
	w.task.Wake()
}

// close ends the wait because the pools are closed. The pool's mutex is held.
func (w *waiter) close() {
	if w.task == nil {
		close(w.ready)
		return
	}
	w.done, w.closed = true, true
	w.task.Wake()
}

// turn is what give gave; ok is false if it was close.
func (w *waiter) turn() (c *Conn, ok bool) {
	if w.task == nil {
		c, ok = <-w.ready
		return c, ok
	}
	return w.given, !w.closed
}

// noteWait counts a wait that has ended.
func (p *pool) noteWait(w *waiter) {
	p.mu.Lock()
	waited := p.waited(w)
	p.mu.Unlock()
	p.times.wait.Observe(waited)
}

// waited counts a wait that has ended. p.mu is held.
func (p *pool) waited(w *waiter) time.Duration {
	waited := time.Since(w.since)
	p.stats.Waited++
	p.stats.WaitTime += waited
	p.keepWaiter(w)
	return waited
}
