package loop

import (
	"iter"
	"sync/atomic"
)

// Task is a session's code, on the loop or off it. Its methods are for that code alone. A nil Task is an ordinary goroutine.
type Task struct {
	loop  *Loop
	next  func() (reason, bool) // runs the task until it gives way; for its driver
	yield func(reason) bool
	state atomic.Uint32
	off   bool
}

// reason is why a task gives way to its driver.
type reason uint8

const (
	parked  reason = iota // it waits for a Conn
	leaving               // it is to be driven by a goroutine of its own
	entering
)

// The states of a task. Whoever sets one from stateParked to stateRunning sees to it that it is driven.
const (
	stateRunning uint32 = iota
	stateParked
	stateNotified // it runs, and what it is about to wait for has happened
)

// Go starts a task on the loop. Any goroutine may call it.
func (l *Loop) Go(run func(*Task)) {
	t := &Task{loop: l}
	t.next, _ = iter.Pull(func(yield func(reason) bool) {
		t.yield = yield
		run(t)
	})
	l.post(t)
}

// OnLoop reports whether the task holds up the loop while it runs.
func (t *Task) OnLoop() bool { return t != nil && !t.off }

// Leave takes the task off the loop: from here on it may wait for anything, and be waited for by goroutines that use its
// connections.
func (t *Task) Leave() {
	if !t.OnLoop() {
		return
	}
	t.off = true
	t.yield(leaving)
}

// Enter brings the task back to the loop. No other goroutine uses its connections any more.
func (t *Task) Enter() {
	if t == nil || !t.off {
		return
	}
	t.off = false
	t.yield(entering)
}

// Park waits on the loop until Wake is called, which may have happened already. It also returns for no reason.
func (t *Task) Park() { t.yield(parked) }

// Wake ends Park. Any goroutine may call it.
func (t *Task) Wake() {
	for {
		switch t.state.Load() {
		case stateParked:
			if t.state.CompareAndSwap(stateParked, stateRunning) {
				t.loop.post(t)
				return
			}
		case stateRunning:
			if t.state.CompareAndSwap(stateRunning, stateNotified) {
				return
			}
		default:
			return
		}
	}
}
