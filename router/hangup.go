package router

import (
	"errors"
	"net"
	"syscall"
)

// hungUp reports whether the client closed its connection. It neither reads nor waits.
func hungUp(conn net.Conn) bool {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		var buf [1]byte
		n, _, err := syscall.Recvfrom(int(fd), buf[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		retry := errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR)
		gone = err == nil && n == 0 || err != nil && !retry || closed(fd)
	})
	return gone || err != nil
}
