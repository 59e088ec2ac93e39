package notify

import (
	"sync"
	"sync/atomic"

	"github.com/shardyard/shardyard/router/pgerr"
)

// maxWaiting bounds the notifications that wait for one session, in bytes. One that does not fetch them (it stays in a transaction,
// or its client does not read) is ended.
const maxWaiting = 16 << 20

// Notification is one notification as the client gets it.
type Notification struct {
	Channel string
	Frame   []byte // a NotificationResponse; others may have the same slice
}

// Listener is a session that listens. Its methods are safe for concurrent use.
type Listener struct {
	pid     uint32
	wake    func()
	waiting atomic.Bool

	// channels is the number of those that it listens on; the hub's lock guards it.
	channels int

	mu    sync.Mutex
	queue []Notification
	size  int
	lost  error
}

// NewListener returns a listener. pid is the process id that its client was told. wake is called, from any goroutine, when there is
// something to take.
func NewListener(pid uint32, wake func()) *Listener { return &Listener{pid: pid, wake: wake} }

// Waiting reports whether Take has something to give.
func (l *Listener) Waiting() bool { return l.waiting.Load() }

// Take returns what came since it was called last. The error says that something was lost, and so does every later call.
func (l *Listener) Take() ([]Notification, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting.Store(l.lost != nil)
	queue := l.queue
	l.queue, l.size = nil, 0
	return queue, l.lost
}

// push adds a notification; it reports whether the session must be woken.
func (l *Listener) push(n Notification) (wake bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost != nil {
		return false
	}
	if l.size += len(n.Frame); l.size > maxWaiting {
		l.lost = pgerr.New(programLimitExceeded, "too many notifications wait for the session").
			WithHint("End transactions soon in a session that listens, and read its notifications.")
		l.queue = nil
	} else {
		l.queue = append(l.queue, n)
	}
	return !l.waiting.Swap(true)
}

const programLimitExceeded = "54000"

// lose notes that something may have been lost; it reports whether the session must be woken.
func (l *Listener) lose(err error) (wake bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost == nil {
		l.lost = err
	}
	return !l.waiting.Swap(true)
}

// forgive forgets a loss: nothing was listened for.
func (l *Listener) forgive() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost, l.queue, l.size = nil, nil, 0
	l.waiting.Store(false)
}
