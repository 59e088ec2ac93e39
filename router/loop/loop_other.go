//go:build !linux

package loop

import (
	"context"
	"errors"
	"log/slog"
	"net"
)

// Supported reports whether there are event loops on this system.
const Supported = false

// Loop needs epoll.
type Loop struct{}

// New fails.
func New(*slog.Logger) (*Loop, error) { return nil, errors.New("the event loop needs Linux") }

// Run does nothing.
func (l *Loop) Run(context.Context) {}

// Adopt returns conn.
func (l *Loop) Adopt(conn net.Conn) (net.Conn, error) { return conn, nil }

func (l *Loop) post(*Task) {}

// Conn is never made.
type Conn struct{ net.Conn }

// Own does nothing.
func (c *Conn) Own(*Task) {}

// Quiet is false.
func (c *Conn) Quiet() bool { return false }
