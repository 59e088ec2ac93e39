package router

import (
	"context"
	"errors"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// firstUserOID is the first OID that a server gives to a user's object.
const firstUserOID = 16384

// setConfigOID is the OID of set_config.
const setConfigOID = 2078

// functionCall relays a FunctionCall message: functions of Postgres itself (large objects, mostly) on the home shard.
func (c *Session) functionCall(ctx context.Context, frame wire.Frame) error {
	if err := c.joinPipeline(ctx); err != nil {
		return c.extendedError(ctx, err)
	}
	err := c.runFunctionCall(ctx, frame)
	if c.x.InImplicitBlock() {
		if err == nil {
			err = c.commit(ctx)
		} else {
			err = errors.Join(err, c.rollback(ctx))
		}
	}
	if err != nil {
		if err := c.fail(err); err != nil {
			return err
		}
	}
	return c.ready(ctx)
}

func (c *Session) runFunctionCall(ctx context.Context, frame wire.Frame) error {
	c.enter()
	if c.x.Failed() {
		return c.checkFailed(nil, pgerr.New("25P02", "failed"))
	}
	var call wire.FunctionCall
	if err := call.Decode(frame.Body); err != nil {
		return err
	}
	if err := c.readBetween(ctx, ""); err != nil {
		return err
	}
	if call.Function >= firstUserOID && c.view.sharded() {
		return pgerr.Unsupported("FunctionCall of a user's function is not supported where tables are sharded",
			"Call it with SELECT.")
	}
	home := c.view.partitions.Home
	if err := c.x.MayUse(ctx, []directoryShard{home}, false); err != nil {
		return err
	}
	l, err := c.x.Link(ctx, home)
	if err != nil {
		return err
	}
	if call.Function == setConfigOID || call.Function >= firstUserOID {
		plan := &planner.Plan{Kind: planner.Relay, Dirty: true, SetsUnseen: true}
		c.expectUnseen(plan, "", call.Arguments)
		c.prepareEffects(l, plan)
		c.noteNotifier(ctx, l, plan)
	}
	if err = c.x.FunctionCall(ctx, l, frame.Raw); err != nil {
		return c.failedUnseen(ctx, err)
	}
	c.noteUnseen(true)
	return nil
}
