package router

import (
	"context"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
)

// cursor is one that the client has declared in SQL.
type cursor struct {
	shard directoryShard
	// writes: its query is not proved to be read-only, and runs when rows are fetched.
	writes bool
	hold   bool
	// watched: its query runs code of which it cannot be seen which tables it uses.
	watched bool
}

// noteCursor remembers where a DECLARE CURSOR runs.
func (c *Session) noteCursor(plan *planner.Plan, shard directoryShard) {
	if plan.Kind != planner.DeclareCursor {
		return
	}
	if c.cursors == nil {
		c.cursors = make(map[string]cursor)
	}
	c.cursors[plan.Cursor.Name] = cursor{shard: shard, writes: !plan.ReadOnly, hold: plan.Cursor.Hold, watched: plan.Watched}
}

// cursorTaken fails if the name of a DECLARE CURSOR is that of a cursor on another shard than its own. That
// shard is asked: a cursor may have ended with its savepoint, or never have been opened.
func (c *Session) cursorTaken(ctx context.Context, plan *planner.Plan, shard directoryShard) error {
	if plan.Kind != planner.DeclareCursor || !plan.Cursor.Hold && !c.x.InBlock() && !c.x.InImplicitBlock() {
		return nil
	}
	at, ok := c.cursors[plan.Cursor.Name]
	if !ok || at.shard == shard || !c.x.Holds(at.shard) {
		return nil
	}
	l, err := c.x.Link(ctx, at.shard)
	if err != nil {
		return err
	}
	rows, err := c.x.Ask(ctx, l, "SELECT 1 FROM pg_catalog.pg_cursors WHERE name OPERATOR(pg_catalog.=) "+quote(plan.Cursor.Name))
	if err != nil || len(rows) == 0 {
		return err
	}
	return pgerr.Newf("42P03", "cursor %q already exists", plan.Cursor.Name)
}

// cursorShard is where a FETCH, MOVE or CLOSE goes; ok is false if no cursor says so.
func (c *Session) cursorShard(plan *planner.Plan) (shard directoryShard, ok bool, err error) {
	switch {
	case plan.Kind != planner.Fetch && plan.Kind != planner.CloseCursor:
		return "", false, nil
	case plan.Name != "":
		at, ok := c.cursors[plan.Name]
		return at.shard, ok, nil
	}
	for _, at := range c.cursors { // CLOSE ALL
		if ok && at.shard != shard {
			return "", false, pgerr.Unsupported("CLOSE ALL with cursors on several shards is not supported",
				"Close them one by one, or end the transaction.")
		}
		shard, ok = at.shard, true
	}
	return shard, ok, nil
}

// readOnly reports whether running the plan now is proved to write nothing.
func (c *Session) readOnly(plan *planner.Plan) bool {
	return plan.ReadOnly && (plan.Kind != planner.Fetch || !c.cursors[plan.Name].writes)
}

// forgetCursors forgets the cursors that end with the transaction.
func (c *Session) forgetCursors() {
	for name, at := range c.cursors {
		if !at.hold {
			delete(c.cursors, name)
		}
	}
}

// portalsRolledBack forgets the portals that were bound behind the n savepoints that stand.
func (c *Session) portalsRolledBack(n int) {
	for name, p := range c.portals {
		if p.savepoints >= n {
			delete(c.portals, name)
		}
	}
}

// portalsReleased gives the portals bound behind the n savepoints that stand to the last of these.
func (c *Session) portalsReleased(n int) {
	for _, p := range c.portals {
		p.savepoints = min(p.savepoints, n)
	}
}

// cursorPortal is a cursor that SQL declared, as a portal of the extended protocol: in Postgres they are one.
func (c *Session) cursorPortal(ctx context.Context, name string) (*portal, error) {
	at, ok := c.cursors[name]
	if !ok || !c.x.Holds(at.shard) {
		return nil, pgerr.Newf("34000", "portal %q does not exist", name)
	}
	if c.inFlight.Load() == 0 {
		c.enter()
	}
	l, err := c.x.Link(ctx, at.shard)
	if err != nil {
		return nil, err
	}
	fetch := &planner.Plan{Kind: planner.Fetch, Name: name, ReadOnly: !at.writes}
	p := &portal{name: name, st: &statement{plan: fetch}, plan: fetch, view: c.view, bound: exec.AdoptPortal(l, name)}
	p.bound.SetReadOnly(fetch.ReadOnly)
	return p, nil
}
