package backend

import (
	"crypto/tls"
	"errors"
	"net"
	"syscall"

	"github.com/shardyard/shardyard/router/loop"
	"github.com/shardyard/shardyard/router/wire"
)

// peeker looks whether a socket has something to read, without reading and without waiting. It keeps its closure and
// buffer so that a look allocates nothing.
type peeker struct {
	look   func(fd uintptr) bool
	buf    [1]byte
	result peekResult
}

type peekResult uint8

const (
	peekNothing peekResult = iota // the connection is there and quiet
	peekData
	peekClosed
)

func (p *peeker) init() {
	p.look = func(fd uintptr) bool {
		for {
			n, _, err := syscall.Recvfrom(int(fd), p.buf[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			switch {
			case errors.Is(err, syscall.EINTR):
				continue
			case errors.Is(err, syscall.EAGAIN):
				p.result = peekNothing
			case err != nil || n == 0:
				p.result = peekClosed
			default:
				p.result = peekData
			}
			return true // never wait for the socket to become readable
		}
	}
}

// rawConn returns the socket under a connection, nil if there is none to look at.
func rawConn(conn net.Conn) syscall.RawConn {
	if encrypted, ok := conn.(*tls.Conn); ok {
		conn = encrypted.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// usable is alive for who gets the connection. A task that runs on the loop has been told of whatever came before its
// request: the loop tells in the order of arrival. So it need not look.
func (c *Conn) usable(t *loop.Task) bool {
	if t.OnLoop() && c.polled != nil && !c.broken && c.polled.Quiet() && c.reader.Buffered() == 0 {
		return true
	}
	return c.alive()
}

// alive reports whether an idle connection can be given out: the server has not closed it and has said nothing that
// ends it. What a server may say at any time (notices, reported settings) is read.
func (c *Conn) alive() bool {
	if c.broken || c.raw == nil {
		return !c.broken
	}
	for range 16 { // a server that goes on talking to an idle connection is not understood
		if err := c.raw.Read(c.peek.look); err != nil || c.peek.result == peekClosed {
			return false
		}
		if c.peek.result == peekNothing {
			return c.reader.Buffered() == 0
		}
		if c.tls != nil || !c.readIdleFrames() {
			return false
		}
	}
	return false
}

// readIdleFrames reads once, which does not block because there is data, and takes the frames in it.
func (c *Conn) readIdleFrames() bool {
	if c.reader.Fill() != nil {
		return false
	}
	for {
		frame, ok, err := c.reader.Poll()
		if err != nil {
			return false
		}
		if !ok {
			return true
		}
		switch frame.Type {
		case wire.TypeParameterStatus, wire.TypeNotice, wire.TypeNotification:
			c.track(frame)
		default:
			return false
		}
	}
}
