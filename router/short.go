package router

import (
	"encoding/binary"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/loop"
	"github.com/shardyard/shardyard/router/wire"
)

// A session that runs in the event loop leaves it for everything but the short path: what one shard answers, on a
// connection that is free. On the short path it waits for nothing but its client and that shard.

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

// rejoin goes back to the loop when the session has nothing to do but wait for its client.
func (c *Session) rejoin() {
	if c.x == nil || !c.x.CopyingIn() {
		c.task.Enter()
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
	return !plan.ParseOnly && !plan.Dirty && !plan.Mirrors && !plan.Watched && plan.Pins == "" && len(plan.SetConfig) == 0 &&
		plan.Calls == nil && plan.Sequences == nil && plan.Insert == nil && !plan.Restarts && plan.Executes == "" && !plan.Notifies
}
