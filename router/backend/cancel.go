package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/shardyard/shardyard/router/wire"
)

// Canceller cancels what a connection runs for its present holder. It is a small value, safe for concurrent use, and does
// nothing once the connection was released, so it can never hit another session's statement.
type Canceller struct {
	conn  *Conn
	lease uint64
}

// Canceller returns the canceller of the present holder.
func (c *Conn) Canceller() Canceller {
	c.lease.mu.Lock()
	defer c.lease.mu.Unlock()
	return Canceller{conn: c, lease: c.lease.number}
}

// PID is the process id of the server's backend; ok is false if the holder has given the connection back.
func (k Canceller) PID() (pid uint32, ok bool) {
	if k.conn == nil {
		return 0, false
	}
	l := &k.conn.lease
	l.mu.Lock()
	defer l.mu.Unlock()
	return k.conn.pid, l.held && l.number == k.lease
}

// Cancel asks the server to cancel what c runs and returns when the server has signalled the backend. The statement
// then fails with 57014, unless it was done before.
func (c *Conn) Cancel(ctx context.Context) error { return c.Canceller().Cancel(ctx) }

// Cancel is Conn.Cancel for the holder that it was made for.
func (k Canceller) Cancel(ctx context.Context) error {
	c := k.conn
	if c == nil || !c.lease.beginCancel(k.lease) {
		return nil
	}
	defer c.lease.endCancel()
	if err := c.sendCancel(ctx); err != nil {
		return fmt.Errorf("cancel on shard %s: %w", c.Shard(), err)
	}
	return nil
}

func (l *lease) begin() {
	l.mu.Lock()
	l.number++
	l.held = true
	l.mu.Unlock()
}

// end takes the connection from its holder. It returns a channel that closes when the cancel requests on
// their way have arrived, nil if there are none.
func (l *lease) end() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = false
	if l.cancels == 0 {
		return nil
	}
	l.idle = make(chan struct{})
	return l.idle
}

func (l *lease) beginCancel(number uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held || l.number != number {
		return false
	}
	l.cancels++
	return true
}

func (l *lease) endCancel() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancels--
	if l.cancels == 0 && l.idle != nil {
		close(l.idle)
		l.idle = nil
	}
}

// sendCancel connects to the very server that c is connected to, encrypted if c is (as libpq 17 does: the key is a
// secret), and waits until that server closes, which it does after it has signalled the backend.
func (c *Conn) sendCancel(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.pool.owner.cfg.CleanTimeout)
	defer cancel()
	address := c.net.RemoteAddr()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, address.Network(), address.String())
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return fmt.Errorf("set deadline: %w", err)
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if c.tls != nil {
		if conn, err = startTLS(conn, c.tls); err != nil {
			return contextError(ctx, err)
		}
	}
	if _, err := conn.Write(wire.AppendCancelRequest(nil, c.pid, c.secret)); err != nil {
		return contextError(ctx, fmt.Errorf("write: %w", err))
	}
	var rest [1]byte
	if _, err := conn.Read(rest[:]); err != nil && !errors.Is(err, io.EOF) && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil // a reset instead of an end is as good: the server has read the request
}

func startTLS(conn net.Conn, config *tls.Config) (net.Conn, error) {
	if _, err := conn.Write(wire.AppendSSLRequest(nil)); err != nil {
		return conn, fmt.Errorf("request tls: %w", err)
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return conn, fmt.Errorf("request tls: %w", err)
	}
	if answer[0] != 'S' {
		return conn, errors.New("server refused tls for a cancel request")
	}
	return tls.Client(conn, config), nil
}
