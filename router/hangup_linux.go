package router

import "golang.org/x/sys/unix"

// closed reports whether the peer of a socket has closed it, even if something that it sent before was not
// read yet.
func closed(fd uintptr) bool {
	const gone = unix.POLLRDHUP | unix.POLLHUP | unix.POLLERR
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&gone != 0
}
