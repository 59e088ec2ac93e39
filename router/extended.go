package router

import (
	"context"
	"strconv"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// statement is a prepared statement of the client.
type statement struct {
	name      string
	parsed    planner.Statement
	sent      exec.Statement // the client's text, for shards
	scatter   exec.Statement // the text of a scatter, if it is another
	plan      *planner.Plan
	planned   planKey
	empty     bool
	described exec.Description // what a shard said of it
	// describing: a shard was asked to describe it.
	describing bool
	seen       definitionsSeen // when described was true
}

// planKey says what a plan depends on: with the same key it need not be asked for again.
type planKey struct {
	view    *view
	version uint64
}

const maxStatements = 100_000 // of one session

// parseMessage takes a Parse. The shards hear of it when it is bound or described, or at the latest at the
// end of the request.
func (c *Session) parseMessage(ctx context.Context, body []byte) error {
	if err := c.flushPending(ctx); err != nil {
		return err
	}
	var m wire.Parse
	if err := m.Decode(body); err != nil {
		return err
	}
	if err := c.readBetween(ctx, string(m.Query)); err != nil {
		return err
	}
	name := string(m.Name)
	if _, taken := c.statements[name]; taken && name != "" {
		return pgerr.Newf("42P05", "prepared statement %q already exists", name)
	}
	if len(c.statements) >= maxStatements {
		return pgerr.New("54000", "too many prepared statements in one session").WithHint("Close those that are not needed.")
	}
	if name != "" {
		c.tally.counts.ClientParses.Add(1)
	}
	st, err := c.newStatement(ctx, name, string(m.Query), m.Types)
	if err != nil {
		return err
	}
	c.statements[name] = st
	if st.empty || c.isLocal(st.plan) && st.plan.Kind != planner.Execute {
		c.x.Local(wire.AppendParseComplete(nil))
		return nil
	}
	c.pending = st
	return nil
}

// newStatement plans a text for the extended protocol.
func (c *Session) newStatement(ctx context.Context, name, text string, types []uint32) (*statement, error) {
	list, err := c.server.planner.Statements(text)
	if err != nil {
		return nil, err
	}
	st := &statement{name: name}
	switch len(list) {
	case 0:
		st.empty = true
		st.plan = &planner.Plan{Kind: planner.Empty}
		return st, nil
	case 1:
		st.parsed = list[0]
	default:
		return nil, pgerr.New("42601", "cannot insert multiple commands into a prepared statement")
	}
	plan, err := c.plan(ctx, &st.parsed, types)
	if err := c.checkFailed(plan, err); err != nil {
		return nil, err
	}
	st.plan, st.planned, st.seen = plan, planKey{c.view, c.vars.version}, c.definitionsNow()
	st.empty = plan.Kind == planner.Empty
	c.nextID += 2
	if plan.Kind != planner.Relay && plan.Kind != planner.Scatter && plan.Kind != planner.Modify && plan.Kind != planner.Combine {
		// What FETCH, EXECUTE and other utility statements give back depends on the session. Postgres fixes
		// it when it parses them; describing a FETCH kept from before, whose cursor is gone, even crashes it.
		name = ""
	}
	st.sent = c.statementFor(c.nextID, name, text, types)
	return st, nil
}

// statementFor is a text as shards get it. The client's named statements are prepared by content.
func (c *Session) statementFor(id uint64, name, text string, types []uint32) exec.Statement {
	st := exec.Statement{ID: id, Text: text, Types: types, Settings: c.vars.carried, Meaning: c.meaning()}
	if name != "" {
		st.Key = backend.PreparedKey(text, types, st.Meaning)
	}
	return st
}

// meaning is what a text's meaning depends on besides its parameters' types: the settings, and the catalog, so
// that a statement prepared before a change of it is not taken for one prepared after.
func (c *Session) meaning() string {
	definitions, version := c.database.definitions.Load(), uint64(0)
	if c.view != nil {
		version = c.view.partitions.CatalogVersion
	}
	if definitions == 0 && version == 0 {
		return c.vars.meaning
	}
	if m := &c.meant; m.settings != c.vars.meaning || m.definitions != definitions || m.version != version {
		*m = meant{c.vars.meaning, definitions, version,
			c.vars.meaning + "\x00" + strconv.FormatUint(definitions, 36) + "\x00" + strconv.FormatUint(version, 36)}
	}
	return c.meant.text
}

// meant is the last meaning, and what it was made of.
type meant struct {
	settings             string
	definitions, version uint64
	text                 string
}

// replan brings a statement's plan up to the present view and settings.
func (c *Session) replan(ctx context.Context, st *statement) error {
	c.enter()
	c.leaveUnlessShort(st.plan)
	if st.planned == (planKey{c.view, c.vars.version}) && c.held(st.plan) == nil && !c.tempsOld && !c.changes.stale {
		c.setTable(st.plan)
		return nil
	}
	if st.empty {
		return nil
	}
	plan, err := c.plan(ctx, &st.parsed, st.sent.Types)
	if err != nil {
		return err
	}
	st.plan, st.planned = plan, planKey{c.view, c.vars.version}
	return nil
}

// find looks a statement up by name.
func (c *Session) find(name []byte) (*statement, error) {
	if st, ok := c.statements[wire.View(name)]; ok {
		return st, nil
	}
	if len(name) == 0 {
		return nil, pgerr.New("26000", "unnamed prepared statement does not exist")
	}
	return nil, pgerr.Newf("26000", "prepared statement %q does not exist", name)
}

// takePending reports whether the client waits for this statement's ParseComplete, which the caller sees to.
func (c *Session) takePending(st *statement) bool {
	if c.pending != st {
		return false
	}
	c.pending = nil
	c.unconfirmed = append(c.unconfirmed, st)
	return true
}

// flushPending has a shard parse what no shard has seen yet, so that the client gets its errors.
func (c *Session) flushPending(ctx context.Context) error {
	st := c.pending
	if st == nil {
		return nil
	}
	l, sent, err := c.describer(ctx, st)
	if err != nil {
		return err
	}
	c.takePending(st)
	name, err := c.x.Parse(ctx, l, sent, true, c.meaning())
	if err == nil && st.plan.Kind != planner.Execute {
		c.learnShape(l, st, name)
	}
	return err
}

// describer is a link to a shard that can parse and describe the statement before its values are known, and what it gets.
func (c *Session) describer(ctx context.Context, st *statement) (*link, *exec.Statement, error) {
	for range maxRetries {
		if err := c.replan(ctx, st); err != nil {
			return nil, nil, err
		}
		shard := st.plan.Describer(c.view.partitions)
		sent := &st.sent
		if st.plan.ParseOnly {
			shard = c.view.partitions.Home
		}
		l, err := c.x.Link(ctx, shard)
		if err == nil && st.plan.Kind == planner.Execute {
			sent, err = c.rewriteExecute(ctx, l, st)
		}
		if err == nil && st.plan.Executes != "" {
			sent, err = c.rewriteExecuting(ctx, l, st)
		}
		retry, err := c.staleMap(ctx, err)
		if !retry {
			return l, sent, err
		}
	}
	return nil, nil, errNewerMap("the shards kept asking for a newer partition map")
}

// syncMessage takes a Sync: the end of the pipeline.
func (c *Session) syncMessage(ctx context.Context, body []byte) error {
	if err := wire.DecodeEmpty(body); err != nil {
		if err := c.malformedSync(ctx, err); err != nil {
			return err
		}
	}
	failed := c.skipping
	if !failed {
		if err := c.flushPending(ctx); err != nil {
			if err := c.extendedError(ctx, err); err != nil {
				return err
			}
			failed = true
		}
	}
	c.pending, c.skipping = nil, false
	if !failed && !c.x.InBlock() {
		if err := c.beforeListen(ctx); err != nil {
			failed = true
			if err := c.fail(err); err != nil {
				return err
			}
		}
	}
	// After an error that was told, others of the same pipeline (of another shard) are not.
	if err := c.x.Sync(ctx, failed); err != nil && !failed {
		failed = true
		c.dropUnconfirmed()
		if err := c.fail(err); err != nil {
			return err
		}
	}
	c.unconfirmed = c.unconfirmed[:0]
	if err := c.endImplicit(ctx, failed); err != nil {
		failed = true
		if err := c.fail(err); err != nil {
			return err
		}
	}
	c.endPipelineVariables(failed)
	if failed {
		if err := c.endedUnseen(ctx); err != nil {
			return err
		}
		c.x.Abandon(ctx)
	}
	if c.x.Status() == wire.TxIdle {
		c.used = c.used[:0]
		c.redefined(!failed)
		c.redefaulted(ctx, !failed)
		c.forgetPortals()
		if c.changes.take() {
			c.announceDDL(ctx)
		}
	}
	return c.ready(ctx)
}

// malformedSync tells of a Sync that has a body: its pipeline fails, but it is a Sync all the same.
func (c *Session) malformedSync(ctx context.Context, err error) error {
	earlier := c.flushPending(ctx)
	if earlier == nil {
		earlier = c.x.DrainAll(ctx)
	}
	if err := c.extendedError(ctx, earlier); err != nil {
		return err
	}
	c.skipping = true
	return c.fail(err)
}

// dropUnnamed forgets the unnamed statement and portal, as every Query does.
func (c *Session) dropUnnamed() {
	delete(c.statements, "")
	delete(c.portals, "")
}

// forgetPortals forgets all portals at the end of a transaction.
func (c *Session) forgetPortals() {
	if c.x.InBlock() {
		return
	}
	c.sparePortal()
	clear(c.portals)
	c.forgetCursors()
}
