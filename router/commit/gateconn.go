package commit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
)

// gateTimeout bounds the wait for an answer of a shard: nothing that a gateConn runs waits for long.
const gateTimeout = 5 * time.Second

// gateConn is a service connection of the gate. It sends without waiting for the answer, so that a round asks all
// its shards at once on one goroutine, and the release of a round costs nobody a round trip.
type gateConn struct {
	shard    directory.ShardID
	endpoint directory.Endpoint
	net      net.Conn
	frontend *pgproto3.Frontend
	owed     int // answers that nobody waits for yet
	lost     bool
	cause    error // why it is lost
	reused   bool  // it was used by another round before
	used     time.Time
}

// dialGate opens a connection to a shard.
func dialGate(
	ctx context.Context, dial func(context.Context, directory.Shard, string) (*pgx.Conn, error), shard directory.Shard, database string,
) (*gateConn, error) {
	conn, err := dial(ctx, shard, database)
	if err != nil {
		return nil, err
	}
	server := conn.PgConn()
	if err := server.SyncConn(ctx); err != nil {
		Close(ctx, conn)
		return nil, fmt.Errorf("connect to shard %s: %w", shard.ID, err)
	}
	hijacked, err := server.Hijack()
	if err != nil {
		Close(ctx, conn)
		return nil, fmt.Errorf("connect to shard %s: %w", shard.ID, err)
	}
	return &gateConn{shard: shard.ID, endpoint: shard.Primary, net: hijacked.Conn, frontend: hijacked.Frontend}, nil
}

// send sends a text of the simple protocol. What goes wrong is reported by receive.
func (c *gateConn) send(sql string) {
	if c.lost {
		return
	}
	err := c.net.SetDeadline(time.Now().Add(gateTimeout))
	if err == nil {
		c.frontend.SendQuery(&pgproto3.Query{String: sql})
		err = c.frontend.Flush()
	}
	if err != nil {
		c.fail(err)
	}
}

// owe sends a text whose answer is read away before the next one's.
func (c *gateConn) owe(sql string) {
	c.send(sql)
	c.owed++
}

// receive reads the answer to the last send: the rows of all its statements, or the first error.
func (c *gateConn) receive() (rows [][]string, err error) {
	for ; c.owed > 0; c.owed-- {
		if _, err := c.answer(); err != nil && c.lost {
			return nil, err
		}
	}
	return c.answer()
}

// answer reads up to the next ReadyForQuery.
func (c *gateConn) answer() (rows [][]string, failed error) {
	for {
		if c.lost {
			return nil, c.lostError()
		}
		message, err := c.frontend.Receive()
		if err != nil {
			c.fail(err)
			continue
		}
		switch m := message.(type) {
		case *pgproto3.DataRow:
			row := make([]string, len(m.Values))
			for i, value := range m.Values {
				row[i] = string(value)
			}
			rows = append(rows, row)
		case *pgproto3.ErrorResponse:
			e := pgerr.Newf(m.Code, "%s", m.Message).WithDetail(m.Detail).WithHint(m.Hint)
			if m.SeverityUnlocalized == pgerr.SeverityFatal || m.SeverityUnlocalized == "PANIC" {
				c.fail(e)
			} else if failed == nil {
				failed = e
			}
		case *pgproto3.ReadyForQuery:
			return rows, failed
		}
	}
}

func (c *gateConn) fail(err error) {
	if !c.lost {
		c.lost, c.cause = true, err
		_ = c.net.Close() // it is of no use any more
	}
}

func (c *gateConn) lostError() error {
	return pgerr.Newf(pgerr.ConnectionFailure, "connection to shard %s was lost", c.shard).
		Because(fmt.Errorf("read from shard %s: %w", c.shard, c.cause))
}

// close says goodbye, without waiting.
func (c *gateConn) close() {
	if c.lost {
		return
	}
	c.frontend.Send(&pgproto3.Terminate{})
	err := c.net.SetDeadline(time.Now().Add(closeTimeout))
	if err == nil {
		err = c.frontend.Flush()
	}
	if err == nil {
		err = errors.New("closed")
	}
	c.fail(err)
}
