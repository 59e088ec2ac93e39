package exec

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/router/wire"
)

// Lend lets use work with a link as a connection of pgx, inside the client's transaction. Nothing else may
// use the link meanwhile; use must not close the connection nor keep it.
func (x *Executor) Lend(ctx context.Context, l *Link, use func(*pgx.Conn) error) error {
	if err := x.Drain(ctx, l); err != nil {
		return err
	}
	l.unnamed = 0
	lent := &lentConn{link: l}
	config, err := pgx.ParseConfig("host=lent user=lent sslmode=disable")
	if err != nil {
		return fmt.Errorf("lend connection to shard %s: %w", l.shard, err)
	}
	config.DialFunc = func(context.Context, string, string) (net.Conn, error) { return lent, nil }
	config.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	config.StatementCacheCapacity, config.DescriptionCacheCapacity = 0, 0
	conn, err := pgx.ConnectConfig(ctx, config)
	if err == nil {
		err = use(conn)
	}
	if l.conn.Broken() {
		x.drop(l)
	}
	if err != nil {
		return fmt.Errorf("use connection to shard %s: %w", l.shard, err)
	}
	return nil
}

// lentConn is a link as a net.Conn. It answers the start-up message itself, as the link has long been started.
type lentConn struct {
	link     *Link
	greeted  bool
	buffered []byte
	closed   bool
	deadline time.Time
}

// Write passes on whole messages; pgx writes nothing else.
func (c *lentConn) Write(b []byte) (int, error) {
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case !c.greeted:
		c.greeted = true
		c.greet()
		return len(b), nil
	case len(b) > 0 && b[0] == wire.TypeTerminate:
		return len(b), nil // the link lives on
	}
	if err := c.link.conn.Write(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (c *lentConn) greet() {
	c.buffered = wire.AppendAuthenticationOK(c.buffered)
	for name, value := range c.link.conn.ParameterStatuses {
		c.buffered = wire.AppendParameterStatus(c.buffered, name, value)
	}
	c.buffered = wire.AppendReady(c.buffered, c.link.conn.TxStatus())
}

// Read returns what the server sends, frame by frame.
func (c *lentConn) Read(b []byte) (int, error) {
	if c.closed {
		return 0, net.ErrClosed
	}
	if len(c.buffered) == 0 {
		if !c.deadline.IsZero() && !c.deadline.After(time.Now()) {
			return 0, os.ErrDeadlineExceeded
		}
		frame, err := c.link.conn.Next()
		if err != nil {
			return 0, err
		}
		c.buffered = append(c.buffered, frame.Raw...)
	}
	n := copy(b, c.buffered)
	c.buffered = c.buffered[:copy(c.buffered, c.buffered[n:])]
	return n, nil
}

// Close gives up: pgx closes a connection only after an error, when its state is not known.
func (c *lentConn) Close() error {
	if !c.closed {
		c.closed = true
		c.link.conn.MarkBroken()
	}
	return nil
}

// LocalAddr implements net.Conn.
func (c *lentConn) LocalAddr() net.Addr { return &net.TCPAddr{} }

// RemoteAddr implements net.Conn.
func (c *lentConn) RemoteAddr() net.Addr { return &net.TCPAddr{} }

// SetDeadline implements net.Conn.
func (c *lentConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *lentConn) SetReadDeadline(t time.Time) error {
	c.deadline = t
	return c.link.conn.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn: writes of a link do not wait.
func (c *lentConn) SetWriteDeadline(time.Time) error { return nil }
