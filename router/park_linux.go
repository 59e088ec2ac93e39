package router

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
)

// parker waits for idle clients in one event loop, so that they need no goroutine. When a client sends
// something its session runs on a fresh goroutine and is parked again afterwards.
type parker struct {
	server *Server
	epoll  int
	wakeup [2]int // a pipe that ends the wait

	mu     sync.Mutex
	parked map[int32]*Session
}

func newParker(s *Server) (*parker, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	p := &parker{server: s, epoll: epoll, parked: make(map[int32]*Session)}
	if err := syscall.Pipe2(p.wakeup[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK); err != nil {
		return nil, errors.Join(fmt.Errorf("pipe: %w", err), syscall.Close(epoll))
	}
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(p.wakeup[0])}
	if err := syscall.EpollCtl(epoll, syscall.EPOLL_CTL_ADD, p.wakeup[0], &event); err != nil {
		p.close()
		return nil, fmt.Errorf("epoll_ctl: %w", err)
	}
	return p, nil
}

func (p *parker) close() {
	_ = syscall.Close(p.epoll)
	_ = syscall.Close(p.wakeup[0])
	_ = syscall.Close(p.wakeup[1])
}

// run is the event loop; it ends with ctx.
func (p *parker) run(ctx context.Context) {
	defer p.close()
	stop := context.AfterFunc(ctx, func() { _, _ = syscall.Write(p.wakeup[1], []byte{0}) })
	defer stop()
	events := make([]syscall.EpollEvent, 128)
	for ctx.Err() == nil {
		n, err := syscall.EpollWait(p.epoll, events, -1)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			p.server.log.Error("event loop ended", "error", err)
			return
		}
		for i := range max(n, 0) {
			if c := p.take(events[i].Fd); c != nil {
				p.resume(ctx, c)
			}
		}
	}
}

// take takes a session off the parked ones. Whoever gets it goes on with it.
func (p *parker) take(fd int32) *Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.parked[fd]
	delete(p.parked, fd)
	return c
}

func (p *parker) resume(ctx context.Context, c *Session) {
	p.server.work.Add(1)
	go func() {
		defer p.server.work.Done()
		if err := c.reader.Fill(); err != nil {
			c.end(ctx, err)
			return
		}
		c.advanceAndPark(ctx)
	}()
}

// park waits for the session's client. The caller must not touch the session afterwards.
func (p *parker) park(ctx context.Context, c *Session) error {
	raw, err := c.conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return fmt.Errorf("park: %w", err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		p.mu.Lock()
		c.fd = int32(fd)
		p.parked[c.fd] = c
		p.mu.Unlock()
		event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT, Fd: int32(fd)}
		failed = syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_MOD, int(fd), &event)
		if errors.Is(failed, syscall.ENOENT) {
			failed = syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_ADD, int(fd), &event)
		}
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		if p.take(c.fd) == nil {
			return nil
		}
		return fmt.Errorf("park: %w", err)
	}
	return nil
}

// unpark takes the session out of the event loop and runs it with nothing to read, so that it sees a drain.
// It does nothing if the session is not parked.
func (p *parker) unpark(ctx context.Context, c *Session) {
	p.mu.Lock()
	found := p.parked[c.fd] == c
	if found {
		delete(p.parked, c.fd)
	}
	p.mu.Unlock()
	if !found {
		return
	}
	p.server.work.Add(1)
	go func() {
		defer p.server.work.Done()
		c.advanceAndPark(ctx)
	}()
}
