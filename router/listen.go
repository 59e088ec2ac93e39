package router

import (
	"context"
	"encoding/hex"
	"errors"
	"maps"
	"slices"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/notify"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// listening is what the session listens on. LISTEN and UNLISTEN count when their transaction commits.
type listening struct {
	listener *notify.Listener // nil: it has never listened
	// channels are those of committed transactions.
	channels map[string]bool
	// actions are those of the open transaction, and marks their number at each savepoint.
	actions []listenAction
	marks   []int
	// added are heard already, for the transaction that is being committed.
	added []string
}

// listenAction is a LISTEN or UNLISTEN of the open transaction.
type listenAction struct {
	unlisten bool
	channel  string // "" for UNLISTEN *
}

// wanted are the channels when the open transaction is committed.
func (g *listening) wanted() map[string]bool {
	wanted := maps.Clone(g.channels)
	if wanted == nil {
		wanted = make(map[string]bool)
	}
	for _, a := range g.actions {
		switch {
		case !a.unlisten:
			wanted[a.channel] = true
		case a.channel == "":
			clear(wanted)
		default:
			delete(wanted, a.channel)
		}
	}
	return wanted
}

func (g *listening) savepoint() { g.marks = append(g.marks, len(g.actions)) }

// released forgets the savepoints behind the first n.
func (g *listening) released(n int) { g.marks = g.marks[:min(n, len(g.marks))] }

// rolledBackTo goes back to savepoint n, counted from 1, which stays.
func (g *listening) rolledBackTo(n int) {
	if n >= 1 && n <= len(g.marks) {
		g.actions = g.actions[:g.marks[n-1]]
		g.marks = g.marks[:n]
	}
}

// listen runs LISTEN and UNLISTEN.
func (c *Session) listen(ctx context.Context, kind planner.Kind, channel string) error {
	if c.vars.foreign && !isASCII(channel) {
		return errForeignEncoding(c.vars.value("client_encoding"))
	}
	g := &c.listens
	g.actions = append(g.actions, listenAction{unlisten: kind == planner.Unlisten, channel: channel})
	if !c.rest.simple || c.x.InBlock() || c.x.InImplicitBlock() {
		return nil // until its transaction, or its pipeline, ends
	}
	err := c.beforeListen(ctx)
	c.listened(err == nil)
	return err
}

// beforeListen has what the transaction listens on heard, before it commits: from then on nothing may be missed.
func (c *Session) beforeListen(ctx context.Context) error {
	g := &c.listens
	if len(g.actions) == 0 {
		return nil
	}
	for channel := range g.wanted() {
		if !g.channels[channel] {
			g.added = append(g.added, channel)
		}
	}
	if len(g.added) == 0 {
		return nil
	}
	if g.listener == nil {
		g.listener = notify.NewListener(c.pid, func() { c.wake() })
	}
	within, release := c.x.Cancellable(ctx)
	defer release()
	err := c.database.hub.Listen(within, g.listener, c.database.current.Load().partitions.Holders(), g.added)
	if err != nil {
		g.added = g.added[:0]
	}
	return err
}

// listened brings what the session listens on behind the end of a transaction.
func (c *Session) listened(committed bool) {
	g := &c.listens
	g.marks = g.marks[:0]
	if len(g.actions) == 0 {
		return
	}
	if committed {
		wanted := g.wanted()
		var ended []string
		for channel := range g.channels {
			if !wanted[channel] {
				ended = append(ended, channel)
			}
		}
		if len(ended) > 0 {
			c.database.hub.Unlisten(g.listener, ended)
		}
		g.channels = wanted
	} else if len(g.added) > 0 {
		c.database.hub.Unlisten(g.listener, g.added)
	}
	g.actions, g.added = g.actions[:0], g.added[:0]
}

// unlistenAll ends everything that the session listens on, at once.
func (c *Session) unlistenAll() {
	g := &c.listens
	if len(g.channels)+len(g.added) > 0 {
		c.database.hub.Unlisten(g.listener, append(slices.Collect(maps.Keys(g.channels)), g.added...))
	}
	g.channels, g.actions, g.marks, g.added = nil, nil, nil, nil
}

// noteNotifier tells, before a statement that may notify, for whom its server process works.
func (c *Session) noteNotifier(ctx context.Context, l *link, plan *planner.Plan) {
	if plan.Kind == planner.Notify || plan.Notifies {
		l.MarkNotified()
		c.x.MayNotify(l.Shard())
	} else if !plan.Dirty {
		return
	}
	within, release := c.x.Cancellable(ctx)
	defer release()
	c.database.hub.Note(within, l.Shard(), l.PID(), c.pid)
}

// notifyReady gives the client its notifications before a ReadyForQuery outside of a transaction, its own of just now among them. What
// it has sent itself has reached those who listen through this router then: as from one Postgres they get it with their next answer.
func (c *Session) notifyReady(ctx context.Context) error {
	if c.x.Status() != wire.TxIdle {
		return nil
	}
	shards := c.x.TakeNotifying()
	listens := len(c.listens.channels) > 0
	switch {
	case listens && c.x.TakeWrote():
		c.awaitNotifications(ctx)
	case len(shards) > 0 && c.database.hub.Heard():
		c.awaitNotifications(ctx, shards...)
	}
	if !listens {
		return nil
	}
	_, err := c.sendNotifications(ctx)
	return err
}

// awaitNotifications waits until what the shards have sent has been given to those who listen; without shards: all.
func (c *Session) awaitNotifications(ctx context.Context, shards ...directory.ShardID) {
	within, release := c.x.Cancellable(ctx)
	defer release()
	c.database.hub.Sync(within, shards...)
}

// notifyIdle gives the client its notifications while it does nothing, unless it is in the middle of something.
func (c *Session) notifyIdle(ctx context.Context) error {
	g := &c.listens
	if g.listener == nil || !g.listener.Waiting() || c.x.Status() != wire.TxIdle || c.x.CopyingIn() || c.x.Busy() ||
		len(c.request) > 0 || c.skipping || c.pending != nil || len(g.actions) > 0 || len(c.vars.saved) > 0 {
		return nil
	}
	lost, err := c.sendNotifications(ctx)
	switch {
	case err != nil:
		return err
	case lost != nil:
		return pgerr.Of(lost).Fatal()
	}
	return c.out.Flush()
}

// sendNotifications sends what waits. lost says that there was more, which is lost: the session ends when it is idle, as what it
// does now has its answer.
func (c *Session) sendNotifications(ctx context.Context) (lost, err error) {
	g := &c.listens
	if g.listener == nil || !g.listener.Waiting() {
		return nil, nil
	}
	waiting, lost := g.listener.Take()
	for _, n := range waiting {
		if !g.channels[n.Channel] {
			continue
		}
		frame := n.Frame
		if c.vars.foreign && !isASCII(wire.View(frame[9:])) {
			if frame, err = c.recoded(ctx, frame); err != nil {
				return lost, err
			}
		}
		if err := c.out.Append(frame); err != nil {
			return lost, err
		}
	}
	return lost, nil
}

// recoded is a notification in the client's encoding: the home shard converts it.
func (c *Session) recoded(ctx context.Context, frame []byte) ([]byte, error) {
	n, err := wire.DecodeNotification(frame[5:])
	if err != nil {
		return nil, err
	}
	c.enter()
	defer c.leaveFlight()
	l, err := c.x.Link(ctx, c.view.partitions.Home)
	if err != nil {
		return nil, err
	}
	defer c.x.Idle()
	convert := func(text []byte) string {
		return "pg_catalog.convert_from(pg_catalog.decode('" + hex.EncodeToString(text) + "', 'hex'), 'UTF8')"
	}
	rows, err := c.x.Ask(ctx, l, "SELECT "+convert(n.Channel)+", "+convert(n.Payload))
	if err != nil {
		return nil, pgerr.Of(err).Fatal() // a character that the client's encoding does not have
	}
	if len(rows) != 1 || len(rows[0]) != 2 || rows[0][0] == nil || rows[0][1] == nil {
		return nil, errors.New("convert notification: unexpected answer")
	}
	return wire.AppendNotification(nil, n.PID, *rows[0][0], *rows[0][1]), nil
}

// showListening prepares the home shard's connection for a statement that calls pg_listening_channels: for the time of the
// statement it listens itself.
func (c *Session) showListening(ctx context.Context, plan *planner.Plan) error {
	if !plan.Listening || len(c.listens.channels) == 0 {
		return nil
	}
	if c.x.InBlock() || c.x.InImplicitBlock() || c.x.Busy() {
		return pgerr.Unsupported("pg_listening_channels() is not supported in a transaction of a session that listens",
			"Ask outside of a transaction block.")
	}
	l, err := c.x.Link(ctx, c.view.partitions.Home)
	if err != nil {
		return err
	}
	c.x.MarkDirty(l.Shard())
	sql := ""
	for channel := range c.listens.channels {
		sql += "LISTEN " + directory.QuoteIdentifier(channel) + "; "
	}
	return c.x.Command(ctx, l, sql)
}
