package exec

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
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
	x.task.Leave()
	l.unnamed = 0
	lent := newLentConn(l)
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
	lent.end()
	if l.conn.Broken() {
		x.drop(l)
	}
	if err != nil {
		return fmt.Errorf("use connection to shard %s: %w", l.shard, err)
	}
	return nil
}

// lentConn is a link as a net.Conn. It answers the start-up message itself, as the link has long been started.
//
// When a write takes long, pgx reads in the background, and may go on to do so after the last answer. So a read
// waits until an answer is due, and does not touch the link before: what comes later is not pgx's.
type lentConn struct {
	link     *Link
	greeted  bool // the start-up message was written
	deadline time.Time

	// Of the one who reads, which may be pgx's reader in the background.
	welcomed bool
	buffered []byte
	last     byte // type of the last frame in buffered

	mu     sync.Mutex
	change *sync.Cond
	due    int // requests whose ReadyForQuery has not been read
	closed bool
}

func newLentConn(l *Link) *lentConn {
	c := &lentConn{link: l}
	c.change = sync.NewCond(&c.mu)
	return c
}

// Write passes on whole messages; pgx writes nothing else.
func (c *lentConn) Write(b []byte) (int, error) {
	if !c.greeted {
		c.greeted = true
		c.expect(1)
		return len(b), nil
	}
	if c.isClosed() {
		return 0, net.ErrClosed
	}
	if len(b) > 0 && b[0] == wire.TypeTerminate {
		return len(b), nil // the link lives on
	}
	if err := c.link.conn.Write(b); err != nil {
		return 0, err
	}
	requests := 0
	for rest := b; len(rest) >= 5; {
		if rest[0] == wire.TypeQuery || rest[0] == wire.TypeSync {
			requests++
		}
		rest = rest[min(len(rest), 1+int(binary.BigEndian.Uint32(rest[1:]))):]
	}
	c.expect(requests)
	return len(b), nil
}

func (c *lentConn) expect(answers int) {
	c.mu.Lock()
	c.due += answers
	c.mu.Unlock()
	c.change.Broadcast()
}

func (c *lentConn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// end ends a read that waits in the background.
func (c *lentConn) end() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.change.Broadcast()
}

// await waits until an answer is due.
func (c *lentConn) await() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.due == 0 && !c.closed {
		c.change.Wait()
	}
	if c.closed {
		return net.ErrClosed
	}
	return nil
}

// greet buffers the answer to the start-up message.
func (c *lentConn) greet() {
	c.buffered = wire.AppendAuthenticationOK(c.buffered)
	for name, value := range c.link.conn.ParameterStatuses {
		c.buffered = wire.AppendParameterStatus(c.buffered, name, value)
	}
	c.buffered, c.last = wire.AppendReady(c.buffered, c.link.conn.TxStatus()), wire.TypeReady
}

// Read returns what the server sends, frame by frame.
func (c *lentConn) Read(b []byte) (int, error) {
	if len(c.buffered) == 0 {
		if err := c.await(); err != nil {
			return 0, err
		}
		if !c.welcomed {
			c.welcomed = true
			c.greet()
		}
	}
	if len(c.buffered) == 0 {
		if !c.deadline.IsZero() && !c.deadline.After(time.Now()) {
			return 0, os.ErrDeadlineExceeded
		}
		frame, err := c.link.conn.Next()
		if err != nil {
			return 0, err
		}
		c.buffered, c.last = append(c.buffered, frame.Raw...), frame.Type
	}
	n := copy(b, c.buffered)
	ready := n == len(c.buffered) && c.last == wire.TypeReady
	c.buffered = c.buffered[:copy(c.buffered, c.buffered[n:])]
	if ready {
		c.expect(-1)
	}
	return n, nil
}

// Close gives up: pgx closes a connection only after an error, when its state is not known.
func (c *lentConn) Close() error {
	if !c.isClosed() {
		c.end()
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
