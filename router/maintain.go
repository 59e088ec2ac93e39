package router

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
)

// maintain runs a statement on one shard after the other, each by itself, as docs/decisions/maintenance.md says. On a
// success the client hears nothing of it; an error tells where it was done.
func (c *Session) maintain(ctx context.Context, st *planner.Statement, plan *planner.Plan) (result, error) {
	data := plan.Maintenance
	if data.Index != "" {
		if err := c.beforeDDL(ctx); err != nil {
			return result{}, err
		}
	}
	within := c.x.InBlock() || c.x.InImplicitBlock()
	if !within && c.x.Busy() {
		if !data.Block {
			return result{}, pgerr.Newf("25001", "%s cannot be executed within a pipeline", plan.Tag)
		}
		if err := c.adoptPipeline(ctx); err != nil {
			return result{}, err
		}
		within = true
	}
	shards, texts := c.maintained(st, plan)
	if within {
		if err := c.x.MayUse(ctx, shards, false); err != nil {
			return result{}, err
		}
		c.noteUsed(plan)
	} else {
		// It may take hours. Nothing of its plan can become wrong meanwhile: it names its tables, on each shard.
		c.leaveFlight()
	}
	done, err := c.maintainEach(ctx, st, data, shards, texts)
	if data.Index != "" && !within && (len(done) > 0 || !data.Drops) {
		c.database.noteDefinition(true)
		c.leaveFlight()
		c.announceDDL(ctx) // after an error too: an index that is invalid can be dropped then
	}
	if err != nil && !within && len(done) > 0 {
		return result{}, interrupted(err, plan, shards, done)
	}
	return result{tag: plan.Tag}, err
}

func (c *Session) maintainEach(
	ctx context.Context, st *planner.Statement, data *planner.MaintenanceData, shards []directory.ShardID, texts []string,
) (done []directory.ShardID, err error) {
	for i, shard := range shards {
		c.followHold()
		l, err := c.x.Link(ctx, shard)
		if err != nil {
			return done, err
		}
		err = c.x.Query(ctx, l, texts[i], exec.QueryOptions{
			Shift: st.Chars, NoPosition: len(data.Parts) > 0, Silent: true, Notices: i == 0 || data.Verbose,
		})
		if err != nil {
			return done, err
		}
		done = append(done, shard)
	}
	return done, nil
}

// maintained are the shards that a statement is for, in the order in which they are reached, and what each gets.
func (c *Session) maintained(st *planner.Statement, plan *planner.Plan) (shards []directory.ShardID, texts []string) {
	m, data := c.view.partitions, plan.Maintenance
	parts := make(map[directory.ShardID][]string)
	add := func(on []directory.ShardID, text string) {
		for _, shard := range on {
			parts[shard] = append(parts[shard], text)
		}
	}
	holders := func(name directory.TableName) []directory.ShardID {
		if t, ok := m.Table(name); ok {
			return m.ShardsOf(t)
		}
		return []directory.ShardID{m.Home}
	}
	switch {
	case data.Everywhere:
		add([]directory.ShardID{m.Home}, "")
		for i := range m.Tables {
			add(m.ShardsOf(&m.Tables[i]), "")
		}
	case len(data.Parts) > 0:
		for _, part := range data.Parts {
			add(holders(part.Table), part.Text)
		}
	default:
		add(holders(plan.Tables[0]), "")
	}
	for i := range m.Shards {
		if _, ok := parts[m.Shards[i].ID]; ok {
			shards = append(shards, m.Shards[i].ID)
		}
	}
	if at := slices.Index(shards, m.Home); at >= 0 && data.Index != "" {
		shards = slices.Delete(shards, at, at+1)
		if data.Drops {
			shards = append(shards, m.Home)
		} else {
			shards = slices.Insert(shards, 0, m.Home)
		}
	}
	for _, shard := range shards {
		text := st.Text
		if len(data.Parts) > 0 {
			text = data.Prefix + strings.Join(parts[shard], ", ")
		}
		texts = append(texts, text)
	}
	return shards, texts
}

// interrupted is an error of a shard, with what was done before.
func interrupted(err error, plan *planner.Plan, shards, done []directory.ShardID) error {
	e := *pgerr.Of(err)
	names := func(list []directory.ShardID) string {
		var quoted []string
		for _, shard := range list {
			quoted = append(quoted, string(shard))
		}
		return strings.Join(quoted, ", ")
	}
	detail := fmt.Sprintf("%s was done on shard %s, failed on %s", plan.Tag, names(done), shards[len(done)])
	if left := shards[len(done)+1:]; len(left) > 0 {
		detail += ", and was not tried on " + names(left)
	}
	detail += "."
	if e.Detail != "" {
		detail = e.Detail + "\n" + detail
	}
	hint := "When the cause is gone, run the statement again: it is repeated where it was done."
	switch data := plan.Maintenance; {
	case data.Drops:
		hint = "When the cause is gone, run DROP INDEX CONCURRENTLY IF EXISTS " + data.Index + "."
	case data.Index != "":
		hint = "When the cause is gone, run DROP INDEX CONCURRENTLY IF EXISTS " + data.Index + ", then the statement again."
	}
	if e.Hint != "" {
		hint = e.Hint + "\n" + hint
	}
	return e.WithDetail(detail).WithHint(hint).Because(err)
}
