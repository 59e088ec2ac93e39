package router

import (
	"context"
	"errors"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
)

// held is a table of the plan that is being changed, or nil.
func (c *Session) held(plan *planner.Plan) *directory.Table {
	for _, name := range plan.Tables {
		if t, ok := c.view.partitions.Table(name); ok && t.Hold != nil {
			return t
		}
	}
	return nil
}

// heldFrom is a table of the plan that is being changed and for whose change the session has to wait, or nil.
func (c *Session) heldFrom(ctx context.Context, plan *planner.Plan) (*directory.Table, error) {
	if c.held(plan) == nil {
		return nil, nil
	}
	if err := c.x.DrainAll(ctx); err != nil { // what it has used before, it has really used
		return nil, err
	}
	for _, name := range plan.Tables {
		if t, ok := c.view.partitions.Table(name); ok && t.Hold != nil && !c.passes(t) {
			return t, nil
		}
	}
	return nil, nil
}

// setTable tells the executor which tables the statement is about, and which table's OID the columns of the result
// may be given.
func (c *Session) setTable(plan *planner.Plan) {
	view := exec.View{Map: c.view.partitions, Catalog: c.view.catalog, Tables: plan.Tables}
	if len(plan.Tables) == 1 {
		if r, ok := c.view.catalog.Relation(plan.Tables[0]); ok {
			view.Table = r.OID
		}
	}
	c.x.SetView(view)
}

// awaitNewer waits for a newer map than that of the current view. Nothing of the session is in flight
// meanwhile: what a change waits for must not wait for the change.
func (c *Session) awaitNewer(ctx context.Context, why string) error {
	c.task.Leave()
	old := c.view.epoch()
	if err := c.x.DrainAll(ctx); err != nil {
		return err
	}
	c.leaveFlight()
	ctx, release := c.x.Cancellable(ctx)
	defer release()
	bounded, cancel := context.WithTimeout(ctx, c.server.config.HoldTimeout)
	defer cancel()
	_, err := c.database.await(bounded, func(v *view) bool { return v.epoch() > old })
	switch {
	case err == nil:
		return nil
	case ctx.Err() == nil:
		return errNewerMap(why)
	}
	return err
}

// staleMap reports whether the error says that a shard wants a newer map, and waits for one. Within a
// transaction that has done something already the statement fails with 40001.
func (c *Session) staleMap(ctx context.Context, err error) (retry bool, _ error) {
	if err == nil {
		return false, nil
	}
	var floor *backend.FloorError
	if !errors.As(err, &floor) {
		return false, err
	}
	if c.x.KeepsMap() {
		return false, pgerr.New(pgerr.StaleMap, "could not serialize access due to a change of the partition map").
			WithHint("Run the transaction again.").Because(err)
	}
	c.x.Idle()
	c.leaveFlight()
	if c.database.current.Load().epoch() >= floor.Floor {
		return true, nil
	}
	if heal := c.server.heal; heal != nil {
		bounded, cancel := context.WithTimeout(ctx, c.server.config.HoldTimeout)
		m, err := heal(bounded, c.databaseName, floor.Floor)
		cancel()
		if err == nil {
			c.server.learnMap(m)
		}
	}
	ctx, release := c.x.Cancellable(ctx)
	defer release()
	bounded, cancel := context.WithTimeout(ctx, c.server.config.HoldTimeout)
	defer cancel()
	if _, waited := c.database.await(bounded, func(v *view) bool { return v.epoch() >= floor.Floor }); waited != nil {
		if ctx.Err() != nil {
			return false, waited
		}
		return false, err
	}
	return true, nil
}

// withNewestMap runs what may be repeated as a whole, again if a shard wants a newer map.
func (c *Session) withNewestMap(ctx context.Context, try func() error) error {
	for range maxRetries {
		if retry, err := c.staleMap(ctx, try()); !retry {
			return err
		}
	}
	return errNewerMap("the shards kept asking for a newer partition map")
}

// afresh runs what sends a bound portal to several shards, again if a shard wants a newer map: it says so before anything was sent.
func (c *Session) afresh(ctx context.Context, p *portal, try func() error) error {
	for range maxRetries {
		retry, err := c.staleMap(ctx, try())
		if !retry {
			return err
		}
		if err := c.recheck(ctx, p); err != nil {
			return err
		}
	}
	return errNewerMap("the shards kept asking for a newer partition map")
}

// maxRetries bounds how often one statement is planned anew because shards keep asking for newer maps.
const maxRetries = 10
