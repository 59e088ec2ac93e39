package loop

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn is a TCP connection for which the loop waits. It is a net.Conn like any other to goroutines; to a task on the loop
// that owns it, too, but that its waits are those of the task.
type Conn struct {
	loop          *Loop
	fd            int
	local, remote net.Addr
	owner         atomic.Pointer[Task]
	// users counts the calls that use fd; closing is added when it is to be closed by the last of them.
	users atomic.Int32
	gone  atomic.Bool // fd is closed
	// hungUp: the peer ends, or has ended, the connection: reads need not wait.
	hungUp atomic.Bool

	read, write side

	mu     sync.Mutex // guards the sides' waiters and timers
	closed bool
}

const closing = -1 << 30

// side is one direction of a connection.
type side struct {
	// ready: the socket may have something, or room.
	ready   atomic.Bool
	expired atomic.Bool // its deadline has passed
	task    *Task       // waits
	waiting bool        // a goroutine waits
	woken   chan struct{}
	timer   *time.Timer
	round   uint64 // counts the deadlines
}

// Adopt takes a connection over from the runtime's poller. It returns conn itself if it is not a plain TCP connection.
func (l *Loop) Adopt(conn net.Conn) (net.Conn, error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok || l == nil {
		return conn, nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("adopt a connection: %w", err)
	}
	fd, failed := -1, error(nil)
	err = raw.Control(func(own uintptr) { fd, failed = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, failed); err != nil {
		return nil, fmt.Errorf("adopt a connection: %w", err)
	}
	c := &Conn{loop: l, fd: fd, local: conn.LocalAddr(), remote: conn.RemoteAddr()}
	for _, s := range []*side{&c.read, &c.write} {
		s.woken = make(chan struct{}, 1)
		s.ready.Store(true)
	}
	_ = conn.Close() // the socket stays open under its new descriptor
	l.mu.Lock()
	l.conns[int32(fd)] = c
	l.mu.Unlock()
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(fd)}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return nil, errors.Join(fmt.Errorf("adopt a connection: %w", err), c.Close())
	}
	return c, nil
}

// Own says whose waits those of the connection are: a task's, or any goroutine's if it is nil. The task, if it is on the
// loop, is the only one that reads and writes from here on.
func (c *Conn) Own(t *Task) { c.owner.Store(t) }

// Quiet reports whether nothing has come since all of what had come was read, as far as the loop knows.
func (c *Conn) Quiet() bool { return !c.read.ready.Load() && !c.hungUp.Load() }

func (c *Conn) use() bool {
	if c.users.Add(1) > 0 {
		return true
	}
	c.unuse()
	return false
}

func (c *Conn) unuse() {
	if c.users.Add(-1) == closing && c.gone.CompareAndSwap(false, true) {
		_ = unix.Close(c.fd)
	}
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		if c.read.expired.Load() {
			return 0, c.failed("read", os.ErrDeadlineExceeded)
		}
		if !c.read.ready.Load() && !c.hungUp.Load() {
			if !c.wait(&c.read) {
				return 0, c.failed("read", net.ErrClosed)
			}
			continue
		}
		if !c.use() {
			return 0, c.failed("read", net.ErrClosed)
		}
		// Invariant: it is cleared before the read, so what comes after the read sets it. A read that fills its buffer may have
		// left something behind, of which epoll does not tell again.
		c.read.ready.Store(false)
		n, errno := readNow(c.fd, b)
		c.unuse()
		switch {
		case errno == unix.EAGAIN:
			if c.hungUp.Load() && !c.read.ready.Load() && !c.wait(&c.read) {
				return 0, c.failed("read", net.ErrClosed)
			}
			continue
		case errno == unix.EINTR:
			c.read.ready.Store(true)
			continue
		case errno != 0:
			c.read.ready.Store(true)
			return 0, c.failed("read", os.NewSyscallError("read", errno))
		case n == 0:
			c.read.ready.Store(true)
			return 0, io.EOF
		}
		if n == len(b) {
			c.read.ready.Store(true)
		}
		return n, nil
	}
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	written := 0
	for {
		if c.write.expired.Load() {
			return written, c.failed("write", os.ErrDeadlineExceeded)
		}
		if !c.write.ready.Load() {
			if !c.wait(&c.write) {
				return written, c.failed("write", net.ErrClosed)
			}
			continue
		}
		if !c.use() {
			return written, c.failed("write", net.ErrClosed)
		}
		c.write.ready.Store(false)
		n, errno := writeNow(c.fd, b[written:])
		c.unuse()
		if errno == unix.EAGAIN {
			continue
		}
		c.write.ready.Store(true)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return written, c.failed("write", os.NewSyscallError("write", errno))
		}
		if written += n; written == len(b) {
			return written, nil
		}
	}
}

// wait waits until the side is ready or its deadline has passed, or returns for no reason; false: the connection is closed.
func (c *Conn) wait(s *side) bool {
	t := c.owner.Load()
	onLoop := t.OnLoop()
	c.mu.Lock()
	if c.closed || s.ready.Load() || s.expired.Load() {
		open := !c.closed
		c.mu.Unlock()
		return open
	}
	if onLoop {
		s.task = t
	} else {
		s.waiting = true
	}
	c.mu.Unlock()
	if onLoop {
		t.Park()
	} else {
		<-s.woken
	}
	return true
}

// await has the task woken when a read need not wait; false: it need not wait now.
func (c *Conn) await(t *Task) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.hungUp.Load() || c.read.ready.Load() || c.read.expired.Load() {
		return false
	}
	c.read.task = t
	return true
}

// happened takes what epoll says.
func (c *Conn) happened(events uint32) {
	const ended = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	if events&ended != 0 {
		c.hungUp.Store(true)
	}
	if events&(unix.EPOLLIN|ended) != 0 {
		c.wake(&c.read, true)
	}
	if events&(unix.EPOLLOUT|ended) != 0 && !c.write.ready.Load() {
		c.wake(&c.write, true)
	}
}

func (c *Conn) wake(s *side, ready bool) {
	c.mu.Lock()
	if ready {
		s.ready.Store(true)
	}
	t, waiting := s.task, s.waiting
	s.task, s.waiting = nil, false
	c.mu.Unlock()
	if t != nil {
		t.Wake()
	}
	if waiting {
		s.woken <- struct{}{}
	}
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return c.failed("close", net.ErrClosed)
	}
	c.closed = true
	for _, s := range []*side{&c.read, &c.write} {
		if s.timer != nil {
			s.timer.Stop()
		}
	}
	c.mu.Unlock()
	c.loop.mu.Lock()
	delete(c.loop.conns, int32(c.fd))
	c.loop.mu.Unlock()
	c.users.Add(closing + 1)
	c.unuse()
	c.wake(&c.read, false)
	c.wake(&c.write, false)
	return nil
}

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.read, t) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.write, t) }

func (c *Conn) setDeadline(s *side, t time.Time) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return c.failed("set deadline", net.ErrClosed)
	}
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	s.round++
	left := time.Until(t)
	passed := !t.IsZero() && left <= 0
	s.expired.Store(passed)
	if !t.IsZero() && !passed {
		round := s.round
		s.timer = time.AfterFunc(left, func() { c.expire(s, round) })
	}
	c.mu.Unlock()
	if passed {
		c.wake(s, false)
	}
	return nil
}

func (c *Conn) expire(s *side, round uint64) {
	c.mu.Lock()
	current := s.round == round && !c.closed
	if current {
		s.expired.Store(true)
	}
	c.mu.Unlock()
	if current {
		c.wake(s, false)
	}
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

func (c *Conn) failed(doing string, err error) error {
	return &net.OpError{Op: doing, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// SyscallConn implements syscall.Conn. What it is given must not wait.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return (*rawConn)(c), nil }

type rawConn Conn

// Control implements syscall.RawConn.
func (r *rawConn) Control(look func(fd uintptr)) error {
	c := (*Conn)(r)
	if !c.use() {
		return c.failed("use", net.ErrClosed)
	}
	defer c.unuse()
	look(uintptr(c.fd))
	return nil
}

// Read implements syscall.RawConn.
func (r *rawConn) Read(try func(fd uintptr) bool) error {
	return r.Control(func(fd uintptr) { try(fd) })
}

// Write implements syscall.RawConn.
func (r *rawConn) Write(try func(fd uintptr) bool) error { return r.Read(try) }

// readNow and writeNow do not tell the scheduler: the socket does not block. The kernel's way from recv and send to a socket is shorter than
// that from read and write.
func readNow(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0, 0, 0)
	return int(n), errno
}

func writeNow(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

func eventsPointer(events []unix.EpollEvent) unsafe.Pointer {
	return unsafe.Pointer(unsafe.SliceData(events))
}
