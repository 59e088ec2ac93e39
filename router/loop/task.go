package loop

import (
	"iter"
	"sync/atomic"
)

// Task is a session's code, on the loop or off it. Its methods are for that code alone. A nil Task is an ordinary goroutine.
type Task struct {
	loop  *Loop
	turn  func(*Task) *Conn
	on    *coroutine // nil while it rests
	rests *Conn      // what the last turn ended with
	state atomic.Uint32
	off   bool
}

// coroutine is a stack on which tasks run, one after the other.
type coroutine struct {
	task  *Task
	next  func() (reason, bool) // runs the task until it gives way; for its driver
	yield func(reason) bool
	stop  func()
}

func newCoroutine() *coroutine {
	co := new(coroutine)
	co.next, co.stop = iter.Pull(func(yield func(reason) bool) {
		co.yield = yield
		for more := true; more; more = yield(resting) {
			co.task.rests = co.task.turn(co.task)
		}
	})
	return co
}

// reason is why a task gives way to its driver.
type reason uint8

const (
	parked  reason = iota // it waits, and keeps its stack
	resting               // its turn has ended
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
	l.Serve(func(t *Task) *Conn { run(t); return nil })
}

// Serve starts a task that has turns. A turn returns the connection for which the task rests: it holds no stack until there is something
// to be read from it, its read deadline has passed or it is closed; then the next turn begins, on the loop. The task ends with the turn that
// returns nil.
func (l *Loop) Serve(turn func(*Task) *Conn) {
	l.post(&Task{loop: l, turn: turn})
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
	t.on.yield(leaving)
}

// Enter brings the task back to the loop. No other goroutine uses its connections any more.
func (t *Task) Enter() {
	if t == nil || !t.off {
		return
	}
	t.off = false
	t.on.yield(entering)
}

// Park waits on the loop until Wake is called, which may have happened already. It also returns for no reason.
func (t *Task) Park() { t.on.yield(parked) }

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
