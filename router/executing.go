package router

import (
	"context"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/planner/lexer"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
)

// executing is the plan of a CREATE TABLE AS EXECUTE or EXPLAIN EXECUTE with what the prepared statement adds to it.
func (c *Session) executing(ctx context.Context, plan *planner.Plan) (*planner.Plan, error) {
	st := c.statements[plan.Executes]
	if err := c.replan(ctx, st); err != nil {
		return nil, err
	}
	inner := st.plan
	if home := inner.Route.Kind == planner.RouteHome || inner.Route.Kind == planner.RouteAny; !home || inner.Kind != planner.Relay || inner.Calls != nil {
		return nil, pgerr.Unsupported(plan.Tag+" of a prepared statement on tables that are not on the home shard alone is not supported",
			"Write the statement itself.")
	}
	merged := *plan
	merged.ReadOnly = plan.ReadOnly && inner.ReadOnly
	merged.Watched = plan.Watched || inner.Watched
	merged.Dirty = plan.Dirty || inner.Dirty
	merged.SetsUnseen = plan.SetsUnseen || inner.SetsUnseen
	merged.Mirrors = plan.Mirrors || inner.Mirrors
	merged.Sequences = inner.Sequences
	if merged.Pins == "" {
		merged.Pins = inner.Pins
	}
	return &merged, nil
}

// relayExecuting runs such a statement: in its text the prepared statement gets the name that it has on the connection.
func (c *Session) relayExecuting(ctx context.Context, st *planner.Statement, plan *planner.Plan, target planner.Target) error {
	options := exec.QueryOptions{Shift: st.Chars, ReadOnly: c.readOnly(plan)}
	prepared, ok := c.statements[plan.Executes]
	if !ok {
		return pgerr.Newf("26000", "prepared statement %q does not exist", plan.Executes)
	}
	l, err := c.x.Link(ctx, target.Shards[0])
	if err != nil {
		return err
	}
	name, err := c.x.PrepareNow(ctx, l, &prepared.sent, c.meaning())
	if err != nil {
		return err
	}
	options.NoPosition = true
	return c.relay(ctx, renamedExecute(st.Text, name), plan, target, options)
}

// rewriteExecuting is such a statement of the extended protocol as a link gets it.
func (c *Session) rewriteExecuting(ctx context.Context, l *link, outer *statement) (*exec.Statement, error) {
	prepared, err := c.find([]byte(outer.plan.Executes))
	if err != nil {
		return nil, err
	}
	name, err := c.x.PrepareNow(ctx, l, &prepared.sent, c.meaning())
	if err != nil {
		return nil, err
	}
	c.nextID += 2
	sent := c.statementFor(c.nextID, "", renamedExecute(outer.parsed.Text, name), nil)
	sent.NoPosition = true
	outer.sent.Parsed = true
	return &sent, nil
}

// renamedExecute is a text whose EXECUTE names another prepared statement.
func renamedExecute(text, name string) string {
	lex := lexer.New(text)
	for {
		token, ok := lex.Next()
		if !ok {
			return text
		}
		if token.IsWord(text, "execute") {
			if named, ok := lex.Next(); ok {
				return text[:named.Start] + directory.QuoteIdentifier(name) + text[named.End:]
			}
		}
	}
}
