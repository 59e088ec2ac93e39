package loop

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Supported reports whether there are event loops on this system.
const Supported = true

// Loop is the event loop. Its methods are safe for concurrent use.
type Loop struct {
	log    *slog.Logger
	epoll  int
	wakeup int // an eventfd that ends the wait

	// turns is odd while a task runs on the loop.
	//
	// Invariant: whoever makes it even owns the loop afterwards: the goroutine that ran the task, or the watchdog, which
	// starts another.
	turns atomic.Uint64
	work  sync.WaitGroup // the loop's goroutines and those that drive tasks off it

	mu       sync.Mutex
	runnable queue
	sleeping bool // the loop waits, or is about to, and is to be woken
	closed   bool
	conns    map[int32]*Conn
	free     []*coroutine
	unused   int // so many of free were not needed since the last check
}

// New returns a loop that does nothing before Run.
func New(log *slog.Logger) (*Loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	wakeup, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("eventfd: %w", err), unix.Close(epoll))
	}
	l := &Loop{log: log, epoll: epoll, wakeup: wakeup, conns: make(map[int32]*Conn)}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(wakeup)}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wakeup, &event); err != nil {
		return nil, errors.Join(fmt.Errorf("epoll_ctl: %w", err), unix.Close(epoll), unix.Close(wakeup))
	}
	return l, nil
}

// Run runs the loop until ctx ends. Before, all tasks have to be done and all connections closed.
func (l *Loop) Run(ctx context.Context) {
	l.work.Go(l.run)
	ticker := time.NewTicker(patience)
	defer ticker.Stop()
	last := uint64(0)
	for {
		select {
		case <-ticker.C:
			last = l.check(last)
			l.trim()
		case <-ctx.Done():
			l.mu.Lock()
			l.closed = true
			l.mu.Unlock()
			l.interrupt()
			l.work.Wait()
			for _, co := range l.free {
				co.stop()
			}
			_ = unix.Close(l.epoll)
			_ = unix.Close(l.wakeup)
			return
		}
	}
}

// patience is how long a task may hold up the loop before another goroutine takes it over.
const patience = 20 * time.Millisecond

// check takes the loop away from a task that has held it up since the last check.
func (l *Loop) check(last uint64) uint64 {
	now := l.turns.Load()
	if now%2 == 1 && now == last && l.turns.CompareAndSwap(now, now+1) {
		l.log.Debug("a task held up the event loop")
		l.work.Go(l.run)
	}
	return now
}

// run is the loop, until it is taken away or closed.
func (l *Loop) run() {
	events := make([]unix.EpollEvent, 128)
	ready := make([]*Conn, len(events))
	for {
		l.mu.Lock()
		budget := l.runnable.length()
		l.sleeping = budget == 0
		closed := l.closed
		l.mu.Unlock()
		if closed {
			return
		}
		for ; budget > 0; budget-- {
			if t := l.take(); t != nil && !l.drive(t, true) {
				return
			}
		}
		if !l.wait(events, ready) {
			return
		}
	}
}

// wait takes what has happened to connections, and waits for it if nothing is to be run.
func (l *Loop) wait(events []unix.EpollEvent, ready []*Conn) bool {
	l.mu.Lock()
	timeout := -1
	if !l.sleeping {
		timeout = 0
		if l.sleeping = l.runnable.length() == 0; l.sleeping {
			timeout = -1
		}
	}
	l.mu.Unlock()
	n, err := l.poll(events, timeout)
	if err != nil && !errors.Is(err, unix.EINTR) {
		l.log.Error("event loop ended", "error", err)
		return false
	}
	n = max(n, 0)
	l.mu.Lock()
	l.sleeping = false
	for i := range n {
		ready[i] = l.conns[events[i].Fd]
	}
	l.mu.Unlock()
	for i := range n {
		if c := ready[i]; c != nil {
			c.happened(events[i].Events)
		} else if int(events[i].Fd) == l.wakeup {
			var count [8]byte
			_, _ = unix.Read(l.wakeup, count[:])
		}
		ready[i] = nil
	}
	return true
}

// poll waits without telling the scheduler where that cannot take long.
func (l *Loop) poll(events []unix.EpollEvent, timeout int) (int, error) {
	if timeout != 0 {
		return unix.EpollWait(l.epoll, events, timeout)
	}
	return pollNow(l.epoll, events)
}

// drive runs a task until it waits, ends or goes elsewhere. It reports whether the caller, if it was the loop, still is.
func (l *Loop) drive(t *Task, onLoop bool) bool {
	for {
		if t.on == nil {
			l.lend(t)
		}
		turn := l.turns.Load()
		if onLoop {
			l.turns.Store(turn + 1)
		}
		why, _ := t.on.next()
		if onLoop && !l.turns.CompareAndSwap(turn+1, turn+2) {
			onLoop = false
		}
		switch {
		case why == resting:
			l.giveBack(t)
			if t.rests == nil {
				return onLoop
			}
			if t.off = false; t.rests.await(t) && t.state.CompareAndSwap(stateRunning, stateParked) {
				return onLoop
			}
			t.state.Store(stateRunning)
			l.post(t)
			return onLoop
		case why == parked:
			if t.state.CompareAndSwap(stateRunning, stateParked) {
				return onLoop
			}
			t.state.Store(stateRunning)
		case why == entering:
			l.post(t)
			return onLoop
		case onLoop: // leaving
			l.work.Go(func() { l.drive(t, false) })
			return true
		}
	}
}

// lend gives a task a stack.
func (l *Loop) lend(t *Task) {
	l.mu.Lock()
	if last := len(l.free) - 1; last >= 0 {
		t.on, l.free = l.free[last], l.free[:last]
		l.unused = min(l.unused, last)
	}
	l.mu.Unlock()
	if t.on == nil {
		t.on = newCoroutine()
	}
	t.on.task = t
}

// keptStacks is how many stacks are kept at most for the next tasks, fewStacks how many without being needed.
const (
	keptStacks = 256
	fewStacks  = 4
)

// trim gives up half of the stacks that have not been needed for a while.
func (l *Loop) trim() {
	l.mu.Lock()
	kept := len(l.free)
	if l.unused > fewStacks {
		kept -= l.unused / 2
	}
	gone := slices.Clone(l.free[kept:])
	clear(l.free[kept:])
	l.free = l.free[:kept]
	l.unused = kept
	l.mu.Unlock()
	for _, co := range gone {
		co.stop()
	}
}

func (l *Loop) giveBack(t *Task) {
	co := t.on
	t.on, co.task = nil, nil
	l.mu.Lock()
	kept := len(l.free) < keptStacks
	if kept {
		l.free = append(l.free, co)
	}
	l.mu.Unlock()
	if !kept {
		co.stop()
	}
}

func (l *Loop) take() *Task {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.runnable.pop()
}

// post lets the loop run a task.
func (l *Loop) post(t *Task) {
	l.mu.Lock()
	l.runnable.push(t)
	wake := l.sleeping
	l.sleeping = false
	l.mu.Unlock()
	if wake {
		l.interrupt()
	}
}

func (l *Loop) interrupt() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(l.wakeup, one[:]) // fails only if it would wake the loop anyway
}

// queue is a first-in first-out queue in a slice that is reused.
type queue struct {
	tasks []*Task
	first int
}

func (q *queue) length() int { return len(q.tasks) - q.first }

func (q *queue) push(t *Task) { q.tasks = append(q.tasks, t) }

func (q *queue) pop() *Task {
	if q.first == len(q.tasks) {
		return nil
	}
	t := q.tasks[q.first]
	q.tasks[q.first] = nil
	if q.first++; q.first == len(q.tasks) {
		q.tasks, q.first = q.tasks[:0], 0
	} else if q.first >= 1024 && q.first > len(q.tasks)/2 {
		q.tasks = q.tasks[:copy(q.tasks, q.tasks[q.first:])]
		q.first = 0
	}
	return t
}

// pollNow is epoll_wait that returns at once.
func pollNow(epoll int, events []unix.EpollEvent) (int, error) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(eventsPointer(events)), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
