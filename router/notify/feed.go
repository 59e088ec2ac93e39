package notify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// feed is the connection that hears one shard. The hub's lock guards its fields.
type feed struct {
	hub   *Hub
	shard directory.Shard

	conn     net.Conn            // nil until it is open
	unsent   []byte              // until then
	asked    []*request          // not yet answered, in the order of their messages
	channels map[string]struct{} // that it hears, or will
	ended    bool
	err      error // why, if it was not on purpose
}

// request is a statement that a feed's server has to answer.
type request struct {
	joining []*membership // that begin to hear the feed with its answer
	done    chan struct{}
	err     error // set before done is closed
}

func (r *request) answer(err error) {
	r.err = err
	close(r.done)
}

func (r *request) wait(ctx context.Context) error {
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// writeTimeout bounds the write of a statement; the server reads them at once.
const writeTimeout = 5 * time.Second

// errEnded is the answer to what was asked of a feed that ended on purpose.
var errEnded = errors.New("nobody listens any more")

// ask sends a statement. The caller holds the lock.
func (f *feed) ask(sql string) *request {
	r := &request{done: make(chan struct{})}
	if f.ended {
		r.answer(f.reason())
		return r
	}
	f.asked = append(f.asked, r)
	if f.conn == nil {
		f.unsent = wire.AppendQuery(f.unsent, sql)
		return r
	}
	f.write(wire.AppendQuery(nil, sql))
	return r
}

func (f *feed) write(message []byte) {
	err := f.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil {
		_, err = f.conn.Write(message)
	}
	if err != nil {
		_ = f.conn.Close() // whoever reads from it sees to the rest
	}
}

func (f *feed) reason() error {
	if f.err != nil {
		return f.err
	}
	return errEnded
}

// hear makes a channel heard; everything that was committed before comes before the answer. The caller holds the lock.
func (f *feed) hear(channel string) *request {
	if _, heard := f.channels[channel]; heard {
		return f.ask("")
	}
	f.channels[channel] = struct{}{}
	return f.ask("LISTEN " + directory.QuoteIdentifier(channel))
}

// unhear ends that. The caller holds the lock.
func (f *feed) unhear(channel string) {
	if _, heard := f.channels[channel]; heard {
		delete(f.channels, channel)
		f.ask("UNLISTEN " + directory.QuoteIdentifier(channel))
	}
}

// end closes the connection and fails what was not answered. The caller holds the lock.
func (f *feed) end(err error) {
	f.ended, f.err = true, err
	if f.conn != nil {
		if err == nil {
			f.write(wire.AppendTerminate(nil))
		}
		_ = f.conn.Close()
	}
	for _, r := range f.asked {
		r.answer(f.reason())
	}
	f.asked, f.unsent = nil, nil
}

// run opens the connection and reads from it until it ends.
func (f *feed) run(ctx context.Context) {
	reader, err := f.open(ctx)
	if err == nil {
		err = f.read(reader)
	}
	h := f.hub
	h.mu.Lock()
	if !f.ended {
		h.cfg.Log.Warn("connection for notifications lost", "database", h.cfg.Database, "shard", string(f.shard.ID), "error", err)
	}
	woken := h.endFeed(f, errLost(f.shard.ID, err))
	h.mu.Unlock()
	wakeAll(woken)
}

// open connects and sends what was asked meanwhile.
func (f *feed) open(ctx context.Context) (*wire.Reader, error) {
	h := f.hub
	opened, err := h.cfg.Dial(ctx, f.shard, h.cfg.Database)
	if err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	_, err = opened.Exec(within, "SET client_encoding = 'UTF8'")
	if err == nil {
		err = opened.PgConn().SyncConn(within)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare connection: %w", err), opened.Close(within))
	}
	hijacked, err := opened.PgConn().Hijack()
	if err != nil {
		return nil, fmt.Errorf("take connection over: %w", err)
	}
	if err := hijacked.Conn.SetDeadline(time.Time{}); err != nil {
		return nil, errors.Join(err, hijacked.Conn.Close())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	f.conn = hijacked.Conn
	if f.ended {
		f.write(wire.AppendTerminate(nil))
		return nil, errors.Join(errEnded, f.conn.Close())
	}
	f.write(f.unsent)
	f.unsent = nil
	return wire.NewReader(hijacked.Conn, wire.Backend), nil
}

// read takes what the server says.
func (f *feed) read(reader *wire.Reader) error {
	for {
		frame, err := reader.Next()
		if err != nil {
			return err
		}
		switch frame.Type {
		case wire.TypeNotification:
			n, err := wire.DecodeNotification(frame.Body)
			if err != nil {
				return err
			}
			f.hub.deliver(f, n)
		case wire.TypeErrorResponse:
			return pgerr.FromShard(frame.Body) // nothing that is asked may fail
		case wire.TypeReady:
			f.answered()
			reader.Trim()
		}
	}
}

// answered ends the request that is next.
func (f *feed) answered() {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	if len(f.asked) == 0 {
		return // it has ended
	}
	r := f.asked[0]
	f.asked = f.asked[1:]
	for _, m := range r.joining {
		delete(m.pending, f)
	}
	r.answer(nil)
}
