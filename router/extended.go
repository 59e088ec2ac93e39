package router

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/shardyard/shardyard/directory"
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
}

// planKey says what a plan depends on: with the same key it need not be asked for again.
type planKey struct {
	view    *view
	version uint64
}

// portal is a bound statement of the client.
type portal struct {
	name    string
	st      *statement
	plan    *planner.Plan
	view    *view
	target  planner.Target
	bound   exec.Portal // where one shard runs it
	bind    wire.Bind   // views tail
	tail    []byte
	scatter *exec.Scatter
	local   bool
	done    bool // a local statement ran
	result  result
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
	name := string(m.Name)
	if _, taken := c.statements[name]; taken && name != "" {
		return pgerr.Newf("42P05", "prepared statement %q already exists", name)
	}
	if len(c.statements) >= maxStatements {
		return pgerr.New("54000", "too many prepared statements in one session").WithHint("Close those that are not needed.")
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
	st.plan, st.planned = plan, planKey{c.view, c.vars.version}
	st.empty = plan.Kind == planner.Empty
	c.nextID += 2
	st.sent = c.statementFor(c.nextID, name, text, types)
	return st, nil
}

// statementFor is a text as shards get it. The client's named statements are prepared by content.
func (c *Session) statementFor(id uint64, name, text string, types []uint32) exec.Statement {
	st := exec.Statement{ID: id, Text: text, Types: types, Settings: c.vars.current, Meaning: c.meaning()}
	if name != "" {
		st.Key = backend.PreparedKey(text, types, st.Meaning)
	}
	return st
}

// meaning is what a text's meaning depends on besides its parameters' types.
func (c *Session) meaning() string {
	if n := c.database.definitions.Load(); n > 0 {
		return c.vars.meaning + "\x00" + strconv.FormatUint(n, 36)
	}
	return c.vars.meaning
}

// replan brings a statement's plan up to the present view and settings.
func (c *Session) replan(ctx context.Context, st *statement) error {
	c.enter()
	if st.planned == (planKey{c.view, c.vars.version}) && c.held(st.plan) == nil && !c.tempsOld {
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
	_, err = c.x.Parse(ctx, l, sent, true, c.meaning())
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
		retry, err := c.staleMap(ctx, err)
		if !retry {
			return l, sent, err
		}
	}
	return nil, nil, errNewerMap("the shards kept asking for a newer partition map")
}

// bindMessage takes a Bind.
func (c *Session) bindMessage(ctx context.Context, body []byte) error {
	if err := c.bind.Decode(body); err != nil {
		return err
	}
	name := string(c.bind.Portal)
	st, err := c.find(c.bind.Statement)
	if err != nil {
		return err
	}
	if c.pending != nil && c.pending != st {
		if err := c.flushPending(ctx); err != nil {
			return err
		}
	}
	p, err := c.newPortal(name, st)
	if err != nil {
		return err
	}
	p.tail = append(p.tail[:0], c.bind.Tail...)
	c.bind.Portal, c.bind.Statement = nil, nil
	if err := decodeTail(&p.bind, p.tail); err != nil {
		return err
	}
	for range maxRetries {
		retry, err := c.staleMap(ctx, c.bindPortal(ctx, p))
		if !retry {
			if err == nil {
				c.portals[name] = p
			}
			return err
		}
	}
	return errNewerMap("the shards kept asking for a newer partition map")
}

// decodeTail decodes a copy of a Bind's values.
func decodeTail(into *wire.Bind, tail []byte) error {
	body := make([]byte, 0, len(tail)+2)
	body = append(append(body, 0, 0), tail...)
	return into.Decode(body)
}

func (c *Session) newPortal(name string, st *statement) (*portal, error) {
	if old, ok := c.portals[name]; ok {
		if name != "" {
			return nil, pgerr.Newf("42P03", "cursor %q already exists", name)
		}
		delete(c.portals, name)
		if l := old.bound.Link(); l == nil && old.scatter == nil {
			*old = portal{st: st, tail: old.tail, bind: old.bind}
			return old, nil
		}
	}
	return &portal{name: name, st: st}, nil
}

// bindPortal plans the portal's execution and binds it where one shard runs it.
func (c *Session) bindPortal(ctx context.Context, p *portal) error {
	st := p.st
	if err := c.replan(ctx, st); err != nil {
		return err
	}
	if err := c.checkFailed(st.plan, nil); err != nil {
		return err
	}
	p.plan, p.view = st.plan, c.view
	if st.empty || c.isLocal(st.plan) && st.plan.Kind != planner.Execute {
		if n := len(p.bind.Params); n > 0 {
			return errParameterCount(st, n, 0)
		}
		p.local = true
		return c.answerBind(st)
	}
	if st.plan.ParseOnly && c.view.sharded() {
		return c.parseOnly(ctx, &st.parsed)
	}
	target, err := c.targets(p)
	if err != nil {
		return err
	}
	p.target = target
	if err := c.x.MayUse(ctx, target.Shards, st.plan.ReadOnly); err != nil {
		return err
	}
	if !target.Whole || len(target.Shards) > 1 {
		return c.answerBind(st)
	}
	return c.bindOn(ctx, p, target.Shards[0])
}

func errParameterCount(st *statement, have, want int) error {
	return pgerr.New(pgerr.ProtocolViolation, fmt.Sprintf(
		"bind message supplies %d parameters, but prepared statement %q requires %d", have, st.name, want))
}

// answerBind answers Bind, and Parse if that is still owed, for what no single shard runs.
func (c *Session) answerBind(st *statement) error {
	var frames []byte
	if c.takePending(st) {
		frames = wire.AppendParseComplete(frames)
	}
	c.x.Local(wire.AppendBindComplete(frames))
	return nil
}

func (c *Session) targets(p *portal) (planner.Target, error) {
	st := p.st
	types := st.sent.Types
	if st.described.Parameters != nil {
		types = st.described.Parameters
	}
	if c.vars.foreign && c.view.sharded() {
		for _, value := range p.bind.Params {
			if !isASCII(wire.View(value)) {
				return planner.Target{}, errForeignEncoding(c.vars.value("client_encoding"))
			}
		}
	}
	if st.plan.Kind == planner.Execute {
		return c.executeTargets(st)
	}
	return c.targetOf(st.plan, planner.Args{
		Map: c.view.partitions, Statement: &st.parsed, Params: p.bind.Params, Formats: p.bind.Formats, Types: types,
	})
}

// bindOn binds a portal on the only shard that runs it.
func (c *Session) bindOn(ctx context.Context, p *portal, shard directory.ShardID) error {
	st := p.st
	if st.plan.Kind == planner.DDL {
		if err := c.beforeDDL(ctx); err != nil {
			return err
		}
	}
	l, err := c.x.Link(ctx, shard)
	if err != nil {
		return err
	}
	sent := &st.sent
	if st.plan.Kind == planner.Execute {
		if sent, err = c.rewriteExecute(ctx, l, st); err != nil {
			return err
		}
	}
	if l.NeedsParameterTypes(&p.bind) {
		if err := c.describeParameters(ctx, l, st); err != nil {
			return err
		}
	}
	name, err := c.x.Parse(ctx, l, sent, c.takePending(st), c.meaning())
	if err != nil {
		return err
	}
	tail := p.tail
	if l.NeedsParameterTypes(&p.bind) {
		if err := c.x.TranslateParameters(l, &p.bind, st.described.Parameters); err != nil {
			return err
		}
		tail = wire.AppendBind(nil, "", "", p.bind.Formats, p.bind.Params, p.bind.ResultFormats)[7:]
	}
	p.bound.SetReadOnly(st.plan.ReadOnly)
	p.bound.SetNoPosition(sent.NoPosition)
	c.x.Bind(l, &p.bound, p.name, name, tail, true)
	c.x.DescribeRows(&p.bound, &p.bind)
	return nil
}

// describeParameters learns the types of a statement's parameters from a shard.
func (c *Session) describeParameters(ctx context.Context, l *link, st *statement) error {
	if st.described.Parameters != nil {
		return nil
	}
	name, err := c.x.Parse(ctx, l, &st.sent, c.takePending(st), c.meaning())
	if err != nil {
		return err
	}
	c.x.DescribeStatement(l, name, true, &st.described)
	return c.x.Drain(ctx, l)
}

// describeMessage takes a Describe.
func (c *Session) describeMessage(ctx context.Context, body []byte) error {
	o, err := wire.DecodeDescribe(body)
	if err != nil {
		return err
	}
	if o.Kind == wire.ObjectStatement {
		st, err := c.find(o.Name)
		if err != nil {
			return err
		}
		return c.describeStatement(ctx, st)
	}
	p, err := c.findPortal(o.Name)
	if err != nil {
		return err
	}
	if err := c.flushPending(ctx); err != nil {
		return err
	}
	return c.describePortal(ctx, p)
}

func (c *Session) findPortal(name []byte) (*portal, error) {
	if p, ok := c.portals[wire.View(name)]; ok {
		return p, nil
	}
	return nil, pgerr.Newf("34000", "portal %q does not exist", name)
}

func (c *Session) describeStatement(ctx context.Context, st *statement) error {
	if c.pending != st {
		if err := c.flushPending(ctx); err != nil {
			return err
		}
	}
	if err := c.checkFailed(st.plan, nil); err != nil {
		return err
	}
	if st.empty || c.isLocal(st.plan) && st.plan.Kind != planner.Execute {
		c.x.Local(appendDescription(wire.AppendParameterDescription(nil, nil), localColumns(st.plan)))
		return nil
	}
	l, sent, err := c.describer(ctx, st)
	if err != nil {
		return err
	}
	name, err := c.x.Parse(ctx, l, sent, c.takePending(st), c.meaning())
	if err != nil {
		return err
	}
	c.x.DescribeStatement(l, name, false, &st.described)
	return nil
}

func appendDescription(dst []byte, columns []string) []byte {
	if columns == nil {
		return wire.AppendNoData(dst)
	}
	return wire.AppendRowDescription(dst, textColumns(columns))
}

func (c *Session) describePortal(ctx context.Context, p *portal) error {
	switch {
	case p.local:
		c.x.Local(appendDescription(nil, localColumns(p.plan)))
	case p.bound.Link() != nil:
		if err := c.x.Focus(ctx, p.bound.Link()); err != nil {
			return err
		}
		c.x.DescribePortal(&p.bound)
	case p.plan.Kind == planner.Copy:
		c.x.Local(wire.AppendNoData(nil))
	default:
		if err := c.openPortal(ctx, p); err != nil {
			return err
		}
		c.out.Put(func(dst []byte) []byte { return wire.AppendFrame(dst, wire.TypeRowDescription, p.scatter.Columns()) })
	}
	return nil
}

// openPortal opens the scatter of a portal.
func (c *Session) openPortal(ctx context.Context, p *portal) error {
	if p.scatter != nil {
		return nil
	}
	if err := c.x.DrainAll(ctx); err != nil {
		return err
	}
	st := p.st
	sent := &st.sent
	if p.plan.SQL != "" {
		if st.scatter.Text != p.plan.SQL || st.scatter.Meaning != c.meaning() {
			st.scatter = c.statementFor(st.sent.ID+1, st.name, p.plan.SQL, st.sent.Types)
			st.scatter.NoPosition = true
		}
		sent = &st.scatter
	}
	args := planner.Args{
		Map: c.view.partitions, Statement: &st.parsed, Params: p.bind.Params, Formats: p.bind.Formats, Types: st.sent.Types,
	}
	scatter, err := c.openScatter(ctx, p.plan, exec.ScatterRequest{
		Shards: p.target.Shards, Statement: sent, Meaning: c.meaning(), Portal: p.name, Bind: &p.bind,
		Types: st.described.Parameters, Merge: p.plan.Merge, Tag: p.plan.Tag,
	}, args)
	p.scatter = scatter
	return err
}

// executeMessage takes an Execute.
func (c *Session) executeMessage(ctx context.Context, body []byte) error {
	m, err := wire.DecodeExecute(body)
	if err != nil {
		return err
	}
	if err := c.flushPending(ctx); err != nil {
		return err
	}
	p, err := c.findPortal(m.Portal)
	if err != nil {
		return err
	}
	if err := c.checkFailed(p.plan, nil); err != nil {
		return err
	}
	if err := c.recheck(ctx, p); err != nil {
		return err
	}
	switch {
	case p.local:
		return c.executeLocal(ctx, p, m.MaxRows)
	case p.bound.Link() != nil:
		return c.executeOn(ctx, p, m.MaxRows)
	case p.plan.Kind == planner.Copy:
		return c.x.CopyOut(ctx, p.target.Shards, p.st.parsed.Text, p.plan.Copy, 0)
	}
	if err := c.openPortal(ctx, p); err != nil {
		return err
	}
	if err := c.x.DrainAll(ctx); err != nil {
		return err
	}
	return p.scatter.Run(ctx, m.MaxRows)
}

// recheck makes sure that a portal which was bound under an older map would be bound on the same shards now.
func (c *Session) recheck(ctx context.Context, p *portal) error {
	if c.inFlight.Load() == 0 {
		c.enter()
	}
	if p.local || p.view == c.view || p.scatter != nil && !p.scatter.Fresh() {
		return nil
	}
	if err := c.replan(ctx, p.st); err != nil {
		return err
	}
	if p.st.plan.Kind != p.plan.Kind {
		return errNewerMap("the partition map changed since the portal was bound")
	}
	target, err := c.targets(p)
	if err != nil {
		return err
	}
	if !slices.Equal(target.Shards, p.target.Shards) {
		return errNewerMap("the partition map changed since the portal was bound")
	}
	p.view = c.view
	return nil
}

// executeLocal runs a statement of the router itself; its result can be fetched in parts.
func (c *Session) executeLocal(ctx context.Context, p *portal, maxRows int32) error {
	if p.st.empty || p.plan.Kind == planner.Empty {
		c.x.Local(wire.AppendEmptyQuery(nil))
		return nil
	}
	if err := c.x.DrainAll(ctx); err != nil {
		return err
	}
	if !p.done {
		p.done = true
		r, err := c.runLocal(ctx, &p.st.parsed, p.plan)
		if err != nil {
			return err
		}
		p.result = r
	}
	if maxRows > 0 && len(p.result.rows) > int(maxRows) {
		part := result{rows: p.result.rows[:maxRows]}
		p.result.rows = p.result.rows[maxRows:]
		return c.sendRows(part, wire.AppendPortalSuspended)
	}
	r := p.result
	p.result.rows = nil
	return c.sendResult(r)
}

// sendRows sends rows without a tag, then what end appends.
func (c *Session) sendRows(r result, end func([]byte) []byte) error {
	if err := c.appendRows(r); err != nil {
		return err
	}
	c.out.Put(end)
	return nil
}

// executeOn runs a portal on its shard.
func (c *Session) executeOn(ctx context.Context, p *portal, maxRows int32) error {
	l := p.bound.Link()
	if err := c.x.Focus(ctx, l); err != nil {
		return err
	}
	plan := p.plan
	undo := c.prepareEffects(l, plan)
	c.x.Execute(&p.bound, maxRows)
	if plan.Kind == planner.Copy && plan.Copy.From && plan.Copy.Stdio {
		return c.x.Drain(ctx, l)
	}
	if plan.Pins == "" && len(plan.SetConfig) == 0 && plan.Kind != planner.DDL && !(plan.Kind == planner.Relay && len(c.temps) > 0) {
		return nil
	}
	// What it leaves behind must be known before the next statement.
	if err := c.x.Drain(ctx, l); err != nil {
		undo()
		return err
	}
	return c.afterEffects(ctx, l, plan)
}

// closeMessage takes a Close. What does not exist is closed without an error, as in Postgres.
func (c *Session) closeMessage(ctx context.Context, body []byte) error {
	o, err := wire.DecodeClose(body)
	if err != nil {
		return err
	}
	if err := c.flushPending(ctx); err != nil {
		return err
	}
	if o.Kind == wire.ObjectStatement {
		delete(c.statements, string(o.Name))
	} else if p, ok := c.portals[string(o.Name)]; ok {
		delete(c.portals, string(o.Name))
		if err := c.closePortal(ctx, p); err != nil {
			return err
		}
	}
	c.x.Local(wire.AppendCloseComplete(nil))
	return nil
}

func (c *Session) closePortal(ctx context.Context, p *portal) error {
	if p.scatter != nil {
		return p.scatter.Close(ctx)
	}
	if l := p.bound.Link(); l != nil {
		if err := c.x.Focus(ctx, l); err != nil {
			return err
		}
		c.x.ClosePortal(&p.bound, false)
	}
	return nil
}

// syncMessage takes a Sync: the end of the pipeline.
func (c *Session) syncMessage(ctx context.Context) error {
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
	if err := c.x.Sync(ctx, failed); err != nil {
		c.dropUnconfirmed()
		if err := c.fail(err); err != nil {
			return err
		}
	}
	c.unconfirmed = c.unconfirmed[:0]
	if c.x.Status() == wire.TxIdle {
		c.forgetPortals()
		if c.changes.take() {
			c.announceDDL(ctx)
		}
	}
	c.ready()
	return nil
}

// dropUnnamed forgets the unnamed statement and portal, as every Query does.
func (c *Session) dropUnnamed() {
	delete(c.statements, "")
	delete(c.portals, "")
}

// forgetPortals forgets all portals at the end of a transaction.
func (c *Session) forgetPortals() {
	if len(c.portals) == 0 || c.x.InBlock() {
		return
	}
	clear(c.portals)
}
