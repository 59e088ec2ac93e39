package router

import (
	"context"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/planner/lexer"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// multiQuery is what is left of a Query message. It outlives a request only while a COPY of it waits for data.
type multiQuery struct {
	simple     bool // a Query is being run
	statements []planner.Statement
	next       int
}

// queryMessage runs a Query message.
func (c *Session) queryMessage(ctx context.Context, body []byte) error {
	if err := c.joinPipeline(ctx); err != nil {
		return c.extendedError(ctx, err) // which skips the Query too
	}
	c.dropUnnamed()
	text, err := c.queryText(body)
	c.rest = multiQuery{simple: true}
	switch {
	case err != nil:
	case planner.Single(text):
		c.only[0].Reset(text)
		c.rest.statements = c.only[:]
	default:
		text = strings.Clone(text)
		c.rest.statements, err = c.server.planner.Statements(text)
	}
	if err == nil && len(c.rest.statements) > 1 && !c.vars.env.StandardConformingStrings && strings.Contains(text, `\`) {
		err = pgerr.Unsupported("several statements in one Query, with backslashes, are not supported under standard_conforming_strings = off",
			"Send them one by one: where a string ends cannot be told for sure.")
	}
	if err == nil && len(c.rest.statements) == 0 {
		c.out.Put(wire.AppendEmptyQuery)
	}
	if err == nil && len(c.rest.statements) > 1 {
		var done bool
		if done, err = c.runWhole(ctx, text); done {
			c.rest.next = len(c.rest.statements)
		}
		if c.x.CopyingIn() {
			return nil
		}
	}
	return c.resumeQuery(ctx, err)
}

// resumeQuery runs what is left of the Query, unless an error ended it, and says ready.
func (c *Session) resumeQuery(ctx context.Context, err error) error {
	for err == nil && c.rest.next < len(c.rest.statements) {
		st := &c.rest.statements[c.rest.next]
		c.rest.next++
		if c.x.InImplicitBlock() {
			c.holdTag()
		}
		err = shifted(c.simpleStatement(ctx, st), st)
		if err == nil && c.x.CopyingIn() {
			return nil
		}
	}
	tag := c.out.TakeTag()
	if err == nil && c.x.InImplicitBlock() {
		err = c.commit(ctx)
	}
	if err == nil && tag != nil {
		err = c.out.Append(tag)
	}
	c.rest = multiQuery{}
	if err != nil {
		if c.x.InImplicitBlock() {
			err = errors.Join(err, c.rollback(ctx))
		}
		if err := c.fail(err); err != nil {
			return err
		}
		c.x.Idle()
		c.x.Abandon(ctx)
	}
	c.forgetPortals()
	return c.ready(ctx)
}

func (c *Session) ready(ctx context.Context) error {
	if c.x.Status() == wire.TxIdle {
		if err := c.readEnded(ctx, true); err != nil {
			return err
		}
	}
	if err := c.notifyReady(ctx); err != nil {
		return err
	}
	c.report()
	c.idle.readied = true
	c.out.Put(func(dst []byte) []byte { return wire.AppendReady(dst, c.x.Status()) })
	c.countRequest()
	return nil
}

// simpleStatement runs one statement of a Query, again if a shard wanted a newer map before anything was done.
func (c *Session) simpleStatement(ctx context.Context, st *planner.Statement) error {
	for range maxRetries {
		sent := c.out.Position()
		err := c.readBetween(ctx, st.Text)
		if err == nil {
			err = c.trySimple(ctx, st)
		}
		if err == nil && !c.x.CopyingIn() {
			c.noteUnseen(true)
		} else if err != nil {
			err = c.failedUnseen(ctx, err)
		}
		retry, err := c.staleMap(ctx, c.faultFirst(ctx, st, err))
		if !retry && !(errors.Is(err, backend.ErrStale) && c.out.Position() == sent) {
			return err
		}
	}
	return errNewerMap("the shards kept asking for a newer partition map")
}

// faultFirst replaces a refusal of what Postgres would not run either (a name that does not exist, types that do not fit)
// by what the home shard says of it.
func (c *Session) faultFirst(ctx context.Context, st *planner.Statement, err error) error {
	if err == nil {
		return nil
	}
	var refused *planner.Error
	if !errors.As(err, &refused) || refused.Code != pgerr.FeatureNotSupported || c.x.Failed() || !c.view.sharded() {
		return err
	}
	plan, planErr := c.plan(ctx, st, nil)
	if planErr == nil && plan.Sharding != nil {
		return err
	}
	l, linkErr := c.x.Link(ctx, c.view.partitions.Home)
	if linkErr != nil {
		return err
	}
	c.nextID++
	_, fault := c.x.PrepareNow(ctx, l, &exec.Statement{ID: c.nextID, Text: st.Text, Meaning: c.vars.meaning}, c.vars.meaning)
	c.x.Idle()
	e := pgerr.Of(fault)
	if e == nil || !strings.HasPrefix(e.Code, "42") || e.Code == "42601" && planErr != nil {
		return err
	}
	if e.Position > 0 && st.Chars > 0 {
		return e.At(int(e.Position) + st.Chars)
	}
	return fault
}

func (c *Session) trySimple(ctx context.Context, st *planner.Statement) error {
	plan, err := c.plan(ctx, st, nil)
	if err == nil && c.dumping {
		err = c.dumpable(plan)
	}
	if c.x.Failed() && (err == nil && plan.ParseOnly || !utf8.ValidString(st.Text)) {
		err = c.x.ParseElsewhere(ctx, c.view.partitions.Home, st.Text)
	}
	if err := c.checkFailed(plan, err); err != nil {
		return shifted(err, st)
	}
	if len(c.rest.statements) > 1 && !c.x.InBlock() && !c.x.InImplicitBlock() && !endsTransaction(plan) {
		c.beginImplicit()
	}
	if (c.mirrors(plan) || c.watched(plan)) && !c.x.InBlock() && !c.x.InImplicitBlock() {
		c.beginImplicit()
	}
	if plan.ParseOnly {
		return c.parseOnly(ctx, st)
	}
	c.expectUnseen(plan, st.Text, nil)
	if err := ofRouters(plan); err != nil {
		return err
	}
	if c.isLocal(plan) {
		return c.simpleLocal(ctx, st, plan)
	}
	if plan.Calls != nil {
		given, _, err := c.withValues(ctx, st, plan, nil, nil)
		if err != nil {
			return err
		}
		return behindCalls(c.trySimple(ctx, &given), st, plan)
	}
	args := planner.Args{Map: c.view.partitions, Statement: st}
	if plan.Insert != nil && plan.Insert.Routing > 0 {
		return c.simpleInsert(ctx, st, plan, args)
	}
	target, err := c.targetOf(ctx, plan, args)
	if err != nil {
		return err
	}
	if plan.Insert != nil && !target.Whole {
		return c.simpleInsert(ctx, st, plan, args)
	}
	if err := c.mayUse(ctx, plan, target.Shards); err != nil {
		return err
	}
	if plan.Restarts {
		if err := c.beforeDDL(ctx); err != nil {
			return err
		}
	}
	if c.x.InBlock() || c.x.InImplicitBlock() {
		c.noteUsed(plan)
	}
	switch {
	case plan.Kind == planner.Copy && plan.Copy.Rows != nil:
		if !c.x.InBlock() && !c.x.InImplicitBlock() {
			c.beginImplicit()
		}
		return c.copyIn(ctx, st.Text, plan, target, st.Chars)
	case len(target.Shards) > 1 && plan.Kind == planner.Copy:
		return c.x.CopyOut(ctx, target.Shards, st.Text, plan.Copy, st.Chars)
	case target.Transfer:
		return c.simpleTransfer(ctx, st, plan, args)
	case target.Combine:
		return c.combineWhole(ctx, c.queryInsertion(st, plan, args))
	case !target.Whole && plan.Modify != nil:
		err := c.simpleModify(ctx, st, plan, target)
		if err == nil && plan.Restarts {
			c.restarted(ctx)
		}
		return err
	case !target.Whole:
		return c.simpleScatter(ctx, st, plan, target, args)
	}
	if plan.Executes != "" {
		return c.relayExecuting(ctx, st, plan, target)
	}
	return c.relay(ctx, st.Text, plan, target, exec.QueryOptions{Shift: st.Chars, ReadOnly: c.readOnly(plan)})
}

// copyIn starts a COPY FROM STDIN into a sharded table.
func (c *Session) copyIn(ctx context.Context, text string, plan *planner.Plan, target planner.Target, shift int) error {
	return c.x.CopyIn(ctx, exec.CopyInRequest{
		Shards: target.Shards, SQL: text, Copy: plan.Copy, Shift: shift, Encoding: c.vars.value("client_encoding"),
		RowBound: c.server.config.CopyRowBound, Dirty: plan.Dirty, Draw: c.drawNumber, Entries: c.server.entries.Known(),
		Resolve: c.resolveAll,
	})
}

// targetOf finds the shards of an execution. What only asks a connection (SHOW) goes where the session has one.
func (c *Session) targetOf(ctx context.Context, plan *planner.Plan, args planner.Args) (planner.Target, error) {
	if shard, ok, err := c.cursorShard(plan); ok || err != nil {
		return planner.Target{Shards: []directoryShard{shard}, Whole: true}, err
	}
	target, err := c.locate(ctx, plan, args)
	return c.somewhere(plan, target), err
}

// somewhere chooses the shard of what any may run.
func (c *Session) somewhere(plan *planner.Plan, target planner.Target) planner.Target {
	if len(target.Shards) > 0 || target.Ask {
		return target
	}
	shard, ok := c.x.AnyHeld()
	if !ok || plan.Kind != planner.Show && plan.Route.Kind != planner.RouteAny {
		shard = c.view.partitions.Home
	}
	return planner.Target{Shards: []directoryShard{shard}, Whole: true}
}

// relay sends a text to the only shard of a target.
func (c *Session) relay(ctx context.Context, text string, plan *planner.Plan, target planner.Target, o exec.QueryOptions) error {
	if plan.Kind == planner.DDL {
		if err := c.beforeDDL(ctx); err != nil {
			return err
		}
	}
	if err := c.showListening(ctx, plan); err != nil {
		return err
	}
	shard := target.Shards[0]
	if err := c.cursorTaken(ctx, plan, shard); err != nil {
		return err
	}
	l, err := c.x.Link(ctx, shard)
	if err != nil {
		return err
	}
	if err := c.mayAsk(l, plan, nil); err != nil {
		c.x.Idle()
		return err
	}
	if err := c.watch(ctx, l, plan); err != nil {
		c.x.Idle()
		return err
	}
	c.expectUnseen(plan, text, nil)
	c.x.Keep(l)
	unpin := c.prepareEffects(l, plan)
	c.noteNotifier(ctx, l, plan)
	err = c.x.Query(ctx, l, text, o)
	if err == nil && !c.x.CopyingIn() {
		err = c.afterEffects(ctx, l, plan)
	} else if err != nil {
		unpin()
	}
	c.x.Unkeep(l)
	if !c.x.CopyingIn() {
		c.x.Idle()
	}
	return err
}

// mirrors reports whether a statement, or the one that an EXECUTE names, may write what is mirrored: alone it
// becomes a transaction, as it commits on several shards.
func (c *Session) mirrors(plan *planner.Plan) bool {
	if plan.Kind == planner.Execute {
		st, ok := c.statements[plan.Execute.Name]
		return ok && st.plan.Mirrors
	}
	return plan.Mirrors
}

// prepareEffects notes before a statement runs what it may leave behind. undo takes the pin back.
func (c *Session) prepareEffects(l *link, plan *planner.Plan) (undo func()) {
	if plan.Dirty {
		c.x.MarkDirty(l.Shard())
	}
	if c.unseen.expected {
		c.x.NoteUnread()
	}
	if plan.Mirrors {
		c.x.Captures(l)
	}
	c.noteSequences(l, plan)
	c.noteCursor(plan, l.Shard())
	if plan.Pins == "" || l.Pinned() {
		return func() {}
	}
	c.x.Pin(l.Shard(), plan.Pins)
	return func() { c.x.UnpinLink(l) }
}

// afterEffects does what a statement that succeeded makes necessary.
func (c *Session) afterEffects(ctx context.Context, l *link, plan *planner.Plan) error {
	if plan.Pins != "" || len(c.temps) > 0 && plan.Kind == planner.DDL {
		c.tempsOld = true
	}
	if err := c.trackSetConfig(ctx, l, plan.SetConfig); err != nil {
		return err
	}
	c.sequencesMoved(ctx, plan)
	if plan.Restarts {
		c.restarted(ctx)
	}
	if plan.Kind == planner.DDL {
		return c.afterDDL(ctx, plan)
	}
	return nil
}

func (c *Session) simpleScatter(ctx context.Context, st *planner.Statement, plan *planner.Plan, target planner.Target, args planner.Args) error {
	text, own := scatterText(st, plan)
	c.nextID++
	request := exec.ScatterRequest{
		Shards: target.Shards, Bind: &wire.Bind{}, Merge: plan.Merge, Tag: plan.Tag, Shift: st.Chars,
		Meaning:   c.vars.meaning,
		Statement: &exec.Statement{ID: c.nextID, Text: text, NoPosition: !own, Settings: c.vars.carried, Meaning: c.vars.meaning},
	}
	return c.positioned(ctx, st, plan, target, c.scatterWhole(ctx, plan, request, args))
}

// scatterWhole runs a read of several shards to its end, for a Query.
func (c *Session) scatterWhole(ctx context.Context, plan *planner.Plan, request exec.ScatterRequest, args planner.Args) error {
	scatter, err := c.openScatter(ctx, plan, request, args)
	if err == nil {
		c.out.Put(func(dst []byte) []byte { return wire.AppendFrame(dst, wire.TypeRowDescription, scatter.Columns()) })
		err = scatter.Run(ctx, 0)
	}
	if synced := c.x.Sync(ctx, err != nil); err == nil {
		err = synced
	}
	return err
}

// scatterText is what the shards of a scatter get; own says that it is the client's text.
func scatterText(st *planner.Statement, plan *planner.Plan) (text string, own bool) {
	if plan.SQL == "" {
		return st.Text, true
	}
	return plan.SQL, false
}

// openScatter fills in what the merge needs and opens the scatter.
func (c *Session) openScatter(ctx context.Context, plan *planner.Plan, r exec.ScatterRequest, args planner.Args) (*exec.Scatter, error) {
	r.Limit, r.DateStyle = -1, c.vars.env.DateStyle
	if m := plan.Merge; m != nil {
		if m.Limit != nil {
			n, null, ok := m.Limit.Number(args)
			if !ok || n < 0 && !null {
				return nil, errRowCount("LIMIT")
			}
			if !null {
				r.Limit = n
			}
		}
		if m.Offset != nil {
			n, null, ok := m.Offset.Number(args)
			if !ok || n < 0 && !null {
				return nil, errRowCount("OFFSET")
			}
			if !null {
				r.Offset = n
			}
		}
		if len(m.OrderBy) > 0 && c.vars.foreign {
			return nil, errForeignEncoding(c.vars.value("client_encoding"))
		}
	}
	var err error
	if r.Statement, r.Bind, err = c.fixTime(ctx, plan.Clock, r.Shards, r.Statement, r.Bind); err != nil {
		return nil, err
	}
	return c.x.OpenScatter(ctx, r)
}

func errRowCount(clause string) error {
	if clause == "LIMIT" {
		return pgerr.New("2201W", "LIMIT must not be negative")
	}
	return pgerr.New("2201X", "OFFSET must not be negative")
}

// runWhole sends the text of several statements to one shard as it is, if all of them are plain statements
// for it: then Postgres itself makes them one implicit transaction. done is false if they are not.
func (c *Session) runWhole(ctx context.Context, text string) (done bool, err error) {
	if c.x.Failed() {
		return false, nil
	}
	readOnly := true
	var target planner.Target
	for i := range c.rest.statements {
		st := &c.rest.statements[i]
		plan, err := c.plan(ctx, st, nil)
		if err != nil {
			return false, nil // told when its turn comes: what stands before it is run
		}
		plain := plan.Kind == planner.Relay || plan.Kind == planner.Modify || plan.Kind == planner.Empty || plan.Kind == planner.DDL && !c.view.sharded()
		if !plain || plan.ParseOnly || plan.Mirrors || plan.Watched || plan.Pins != "" || len(plan.SetConfig) > 0 || plan.Calls != nil || plan.Sequences != nil || plan.Restarts || c.isLocal(plan) {
			return false, nil
		}
		if plan.Kind == planner.Empty {
			continue
		}
		at, err := c.locate(ctx, plan, planner.Args{Map: c.view.partitions, Statement: st})
		if err != nil || len(at.Shards) != 1 || !at.Whole || target.Shards != nil && at.Shards[0] != target.Shards[0] {
			return false, nil
		}
		target = at
		readOnly = readOnly && plan.ReadOnly
	}
	if target.Shards == nil {
		return false, nil
	}
	if err := c.x.MayUse(ctx, target.Shards, readOnly); err != nil {
		return true, err
	}
	dirty, redefines := &planner.Plan{Kind: planner.Relay, Dirty: true, SetsUnseen: true}, false
	for i := range c.rest.statements {
		if plan, err := c.plan(ctx, &c.rest.statements[i], nil); err != nil || plan.Dirty {
			return true, c.relay(ctx, text, dirty, target, exec.QueryOptions{ReadOnly: readOnly})
		} else if plan.Kind == planner.DDL {
			redefines = true
			c.database.noteDefinition(true)
		}
	}
	dirty.Dirty, dirty.SetsUnseen = false, false
	err = c.relay(ctx, text, dirty, target, exec.QueryOptions{ReadOnly: readOnly})
	if redefines {
		c.database.noteDefinition(true) // once more: nobody has seen it before
	}
	return true, err
}

// parseOnly asks the home shard to parse what our parser rejects: its error is the answer.
func (c *Session) parseOnly(ctx context.Context, st *planner.Statement) error {
	l, err := c.x.Link(ctx, c.view.partitions.Home)
	if err != nil {
		return err
	}
	if !c.view.sharded() {
		return c.relay(ctx, st.Text, &planner.Plan{Kind: planner.Relay, Dirty: true, SetsUnseen: true},
			planner.Target{Shards: []directoryShard{c.view.partitions.Home}, Whole: true}, exec.QueryOptions{Shift: st.Chars})
	}
	c.nextID++
	_, err = c.x.PrepareNow(ctx, l, &exec.Statement{ID: c.nextID, Text: st.Text, Meaning: c.vars.meaning}, c.vars.meaning)
	c.x.Idle()
	if err == nil && c.rest.simple {
		return c.relayUnread(ctx, st)
	}
	if err != nil && (len(lexer.Split(st.Text)) <= 1 || pgerr.Of(err).Position != 0) {
		return shifted(err, st)
	}
	return pgerr.Unsupported("this statement cannot be read by the router",
		"Where tables are sharded it can be run by the simple protocol, alone in its Query.")
}

// relayUnread runs one statement that only the home shard can read there. Postgres took its text for one statement, and
// none that begins or ends a transaction is unknown to the router.
func (c *Session) relayUnread(ctx context.Context, st *planner.Statement) error {
	if !c.x.InBlock() && !c.x.InImplicitBlock() {
		c.beginImplicit()
	}
	plan := &planner.Plan{Kind: planner.Relay, Dirty: true, SetsUnseen: true, Watched: true, Mirrors: slices.ContainsFunc(c.view.partitions.Tables, isReference)}
	return c.relay(ctx, st.Text, plan, planner.Target{Shards: []directoryShard{c.view.partitions.Home}, Whole: true}, exec.QueryOptions{Shift: st.Chars})
}

// checkFailed refuses everything but the end of a failed transaction.
func (c *Session) checkFailed(plan *planner.Plan, err error) error {
	if !c.x.Failed() || err == nil && endsTransaction(plan) {
		return err
	}
	if err == nil && plan.Kind == planner.Empty {
		return nil
	}
	if e := pgerr.Of(err); e != nil && (e.Code == "42601" || e.Code == "22021") {
		return err
	}
	return pgerr.New("25P02", "current transaction is aborted, commands ignored until end of transaction block")
}

// endsTransaction reports the statements that a failed transaction admits.
func endsTransaction(plan *planner.Plan) bool {
	switch plan.Kind {
	case planner.Relay:
		return plan.Tag == prepareTag
	case planner.Commit, planner.Rollback, planner.RollbackTo:
		return true
	}
	return false
}

// shifted moves an error's position from the statement to the client's whole text. Errors of shards that
// ran the statement have been moved already (exec.QueryOptions.Shift), so only ours are.
func shifted(err error, st *planner.Statement) error {
	if err == nil || st.Chars == 0 {
		return err
	}
	var own *planner.Error
	if !errors.As(err, &own) || own.Position == 0 {
		return err
	}
	return pgerr.Of(err).At(own.Position + st.Chars)
}
