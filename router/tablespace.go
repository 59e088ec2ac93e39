package router

import (
	"context"
	"fmt"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
)

// changeTablespace runs CREATE and DROP TABLESPACE, which Postgres does not run in a transaction, on one server after
// the other, as the client. The home shard comes last: a tablespace exists if that has it. So a statement that
// ended half-way is run again: it goes on where it ended.
func (c *Session) changeTablespace(ctx context.Context, st *planner.Statement, plan *planner.Plan) (result, error) {
	r, data := result{tag: plan.Tag}, plan.Tablespace
	switch {
	case c.server.schema == nil:
		return r, errNoDirectory()
	case c.x.InBlock() || c.x.InImplicitBlock():
		return r, pgerr.Newf("25001", "%s cannot run inside a transaction block", plan.Tag)
	case c.x.Busy():
		return r, pgerr.Newf("25001", "%s cannot be executed within a pipeline", plan.Tag)
	}
	if err := c.readOnlyRefuses(plan.Tag); err != nil {
		return r, err
	}
	c.x.Idle()
	c.leaveFlight()
	m := c.view.partitions
	cancellable, release := c.x.Cancellable(ctx)
	err := c.server.schema.Reach(cancellable, m)
	release()
	if err != nil {
		return r, err
	}
	shards, err := c.tablespaceShards(ctx, data)
	if err != nil {
		return r, err
	}
	var done []directory.ShardID
	for _, shard := range shards {
		l, err := c.x.Link(ctx, shard)
		if err == nil {
			err = c.x.Query(ctx, l, st.Text, exec.QueryOptions{Shift: st.Chars, Silent: true, Notices: shard == m.Home})
			c.x.Idle()
		}
		if err != nil {
			return r, halfway(err, plan, shards, done)
		}
		done = append(done, shard)
	}
	return r, nil
}

// tablespaceShards are the shards that a statement is still to be run on, the home shard last; but those first which may
// refuse to drop it, as it does not seem to be empty. Only the attempt tells: files of dropped tables stay until a checkpoint.
func (c *Session) tablespaceShards(ctx context.Context, data *planner.TablespaceData) ([]directory.ShardID, error) {
	m := c.view.partitions
	home, err := c.tablespaceOn(ctx, m.Home, data.Name)
	if err != nil {
		return nil, err
	}
	if home.exists != data.Drop && !(data.Drop && data.IfExists) || !home.may {
		return []directory.ShardID{m.Home}, nil // its error is the answer
	}
	var shards, perhaps []directory.ShardID
	for i := range m.Shards {
		shard := m.Shards[i].ID
		if shard == m.Home {
			continue
		}
		there, err := c.tablespaceOn(ctx, shard, data.Name)
		if err != nil {
			return nil, err
		}
		switch {
		case !data.Drop && there.exists && !there.standsAt(data.Location):
			return nil, pgerr.Newf("42710", "tablespace %q already exists", data.Name).
				WithDetail(fmt.Sprintf("It is on shard %s, at another place.", shard)).
				WithHint("Nothing of this cluster uses it there: drop it on that server, without the router.")
		case data.Drop && there.used:
			perhaps = append(perhaps, shard)
		case there.exists == data.Drop:
			shards = append(shards, shard)
		}
	}
	if data.Drop && home.used {
		return append(append(perhaps, m.Home), shards...), nil
	}
	return append(append(perhaps, shards...), m.Home), nil
}

// tablespaceState is what a shard says of a tablespace.
type tablespaceState struct {
	exists, used, may bool
	location, inside  string // inside is its location if it is inside of the data directory
}

// standsAt reports whether it is at the place that a CREATE TABLESPACE names.
func (s *tablespaceState) standsAt(location string) bool {
	if location == "" {
		return s.location == s.inside
	}
	return s.location == strings.TrimRight(location, "/")
}

func (c *Session) tablespaceOn(ctx context.Context, shard directory.ShardID, name string) (s tablespaceState, err error) {
	l, err := c.x.Link(ctx, shard)
	if err != nil {
		return s, err
	}
	rows, err := c.x.Ask(ctx, l, `SELECT may, oid IS NOT NULL,
		CASE WHEN may THEN EXISTS (SELECT FROM pg_catalog.pg_tablespace_databases(oid)) ELSE false END,
		coalesce(pg_catalog.pg_tablespace_location(oid), ''), coalesce('pg_tblspc/' || oid, '')
		FROM (SELECT r.rolsuper OR coalesce(pg_catalog.pg_has_role(t.spcowner, 'USAGE'), false) AS may, t.oid
			FROM pg_catalog.pg_roles r LEFT JOIN pg_catalog.pg_tablespace t ON t.spcname = `+quote(name)+` WHERE r.rolname = CURRENT_USER) x`)
	c.x.Idle()
	if err != nil || len(rows) != 1 {
		return s, err
	}
	row := rows[0]
	return tablespaceState{may: *row[0] == "t", exists: *row[1] == "t", used: *row[2] == "t", location: *row[3], inside: *row[4]}, nil
}

// halfway is the error of a shard, with what was done before.
func halfway(err error, plan *planner.Plan, shards, done []directory.ShardID) error {
	e := *pgerr.Of(err)
	detail := fmt.Sprintf("%s failed on shard %s", plan.Tag, shards[len(done)])
	if len(done) > 0 {
		detail += ", was done on " + shardNames(done)
	}
	if left := shards[len(done)+1:]; len(left) > 0 {
		detail += ", and was not tried on " + shardNames(left)
	}
	if len(shards) == 1 {
		return err
	}
	if detail += "."; e.Detail != "" {
		detail = e.Detail + "\n" + detail
	}
	if len(done) == 0 {
		return e.WithDetail(detail).Because(err)
	}
	hint := "When the cause is gone, run the statement again: it goes on where it ended."
	if plan.Tablespace.Drop { // the home shard may have done it already
		hint = "When the cause is gone, run DROP TABLESPACE IF EXISTS: it goes on where the statement ended."
	}
	if e.Hint != "" {
		hint = e.Hint + "\n" + hint
	}
	return e.WithDetail(detail).WithHint(hint).Because(err)
}
