package router

import (
	"context"
	"encoding/binary"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/loop"
	"github.com/shardyard/shardyard/router/wire"
)

// A session that runs in the event loop leaves it for everything but the short path: what one shard answers, on a
// connection that is free. On the short path it waits for nothing but its client and that shard.

// turn runs what the client has sent. It returns the connection on which the session waits for more, nil when the session is over.
func (c *Session) turn(ctx context.Context) *loop.Conn {
	var err error
	if c.rested {
		err = c.fill(ctx)
	}
	for err == nil {
		if err = c.advance(ctx); err != nil {
			break
		}
		c.restIdle()
		if c.rested = c.resting(); c.rested {
			return c.conn.(*loop.Conn)
		}
		if c.x == nil || !c.x.CopyingIn() {
			c.task.Enter()
		}
		err = c.fill(ctx)
	}
	c.task.Leave()
	c.end(ctx, err)
	c.server.work.Done()
	return nil
}

// resting reports whether the session holds nothing on its stack while it waits for its client, and hears from the loop of all that comes: what
// TLS has read ahead the loop cannot see. A COPY goes on where it is.
func (c *Session) resting() bool {
	_, plain := c.conn.(*loop.Conn)
	return plain && (c.x == nil || !c.x.CopyingIn())
}

// runOn says which task runs the session.
func (c *Session) runOn(t *loop.Task) {
	c.task = t
	if c.x != nil {
		c.x.SetTask(t)
	}
	if polled, ok := c.socket.(*loop.Conn); ok {
		polled.Own(t)
	}
}

// leaveFor leaves the loop for a request that is more than statements, or in a session that does more for each of them.
func (c *Session) leaveFor(request []byte) {
	if !c.task.OnLoop() {
		return
	}
	if c.console != nil || c.x.CopyingIn() || c.listens.listener != nil || c.changes.pending || c.tempsOld || c.pins.Load() || !onlyStatements(request) {
		c.task.Leave()
	}
}

// onlyStatements reports whether a request has no other messages than those that run statements.
func onlyStatements(request []byte) bool {
	for len(request) > 0 {
		switch request[0] {
		case wire.TypeQuery, wire.TypeParse, wire.TypeBind, wire.TypeDescribe, wire.TypeExecute, wire.TypeClose, wire.TypeSync, wire.TypeFlush:
		default:
			return false
		}
		request = request[1+int(binary.BigEndian.Uint32(request[1:])):]
	}
	return true
}

// leaveUnlessShort leaves the loop for a plan that needs more than one shard's answer.
func (c *Session) leaveUnlessShort(plan *planner.Plan) {
	if c.task.OnLoop() && !short(plan) {
		c.task.Leave()
	}
}

func short(plan *planner.Plan) bool {
	switch plan.Kind {
	case planner.Empty, planner.Begin, planner.Commit, planner.Rollback:
		return true
	case planner.Relay:
	case planner.Modify, planner.Scatter: // they may turn out to be for one shard
	default:
		return false
	}
	return !plan.ParseOnly && !plan.Dirty && !plan.SetsUnseen && !plan.Mirrors && !plan.Watched && plan.Pins == "" && len(plan.SetConfig) == 0 &&
		plan.Calls == nil && plan.Sequences == nil && plan.Insert == nil && !plan.Restarts && plan.Executes == "" && !plan.Notifies
}
