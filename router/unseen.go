package router

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/planner/catalog"
	"github.com/shardyard/shardyard/planner/lexer"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
)

// unseen are settings that statements may have changed without saying so (planner.Plan.SetsUnseen). They are read from the connection:
// before the next statement of the transaction, for that, and when it has ended, for what stays.
type unseen struct {
	expected bool            // such a statement is being run
	ran      bool            // one has run in the open transaction
	due      bool            // one ran, and another statement may run in its transaction
	ends     bool            // one of them may have ended transactions: what it set stays though it fails
	names    map[string]bool // custom settings that may have been set; pg_settings does not have them
	local    map[string]bool // those found set within the transaction; they may be LOCAL
}

// maxUnseenNames bounds the names of custom settings that are asked for, and maxSettingName their length.
const (
	maxUnseenNames = 2000
	maxSettingName = 200
)

// expectUnseen notes that a statement is about to run which may change settings unseen, and the names that it knows.
func (c *Session) expectUnseen(plan *planner.Plan, text string, params [][]byte) {
	u := &c.unseen
	if !plan.SetsUnseen && !(plan.Kind == planner.Fetch && c.unseen.ran) && !c.redefinedUnseen(plan) {
		return
	}
	u.expected = true
	u.ends = u.ends || plan.Tag == "CALL" || plan.Tag == "DO" && strings.Contains(strings.ToLower(text), "commit")
	c.unseenNames(catalog.SettingNames(text))
	for _, p := range params {
		if name := string(p[:min(len(p), maxSettingName)]); strings.Contains(name, ".") && isPlainCustom(name) {
			c.unseenNames([]string{strings.ToLower(name)})
		}
	}
}

// redefinedUnseen reports that a statement runs code of which the catalog may know an older version.
func (c *Session) redefinedUnseen(plan *planner.Plan) bool {
	return plan.Dirty && !c.view.sharded() && c.catalogBehind()
}

// catalogBehind reports whether the catalog lacks definitions that this router knows to have changed, where nothing is sharded.
func (c *Session) catalogBehind() bool {
	return c.redefines || c.database.redefined.Load() != c.view.redefined
}

func (c *Session) unseenNames(names []string) {
	u := &c.unseen
	if u.names == nil && len(names) > 0 {
		u.names = make(map[string]bool)
	}
	for _, name := range names {
		if len(u.names) < maxUnseenNames && isCustom(name) {
			u.names[name] = true
		}
	}
}

// noteUnseen follows a statement that has succeeded. whole: it has run to its end.
func (c *Session) noteUnseen(whole bool) {
	u := &c.unseen
	if !u.expected {
		return
	}
	u.expected, u.ran, u.due = false, true, u.due || whole
	c.x.NoteUnread()
}

// failedUnseen follows one of a Query that has failed. What was a transaction of its own is undone, unless it is a procedure, which may
// have committed before.
func (c *Session) failedUnseen(ctx context.Context, err error) error {
	u := &c.unseen
	if !u.expected && !u.ran || errors.Is(err, exec.ErrClientGone) {
		return err
	}
	u.expected, u.ran = false, true
	if c.x.InBlock() || c.x.InImplicitBlock() || c.x.Busy() {
		return err
	}
	return cmp.Or(c.readEnded(ctx, false), err)
}

// readBetween reads what earlier statements of the open transaction have set, before another one runs, unless that ends it.
func (c *Session) readBetween(ctx context.Context, text string) error {
	if !c.unseen.due || c.x.Failed() {
		return nil
	}
	switch lexer.FirstKeyword(text) {
	case "commit", "end", "rollback", "abort":
		return nil
	}
	c.unseen.due = false
	if err := c.x.DrainAll(ctx); err != nil {
		return err
	}
	return c.readUnseen(ctx, false)
}

// readEnded reads what the transaction that has ended has left set.
func (c *Session) readEnded(ctx context.Context, committed bool) error {
	u := &c.unseen
	if !u.ran && !u.expected {
		return nil
	}
	if !committed && !u.ends {
		c.x.ForgetUnread()
	} else if err := c.readUnseen(ctx, true); err != nil {
		e := pgerr.Of(err)
		return pgerr.Newf(e.Code, "the settings of the session are not known any more").
			WithDetail("A function or DO block may have changed them, and the connection cannot be asked: " + e.Message).
			WithHint("Connect again. The transaction has ended as it was told.").Because(err).Fatal()
	}
	c.unseen = unseen{}
	c.x.Idle()
	return nil
}

// readUnseen reads the settings of the connections where they may have changed, and notes them for the session.
func (c *Session) readUnseen(ctx context.Context, ended bool) error {
	links, err := c.x.Unread()
	if len(links) == 0 || err != nil {
		return err
	}
	names, err := c.settingNames(ctx, links[0], ended)
	if err != nil {
		return err
	}
	for _, l := range links {
		before := l.Settings()
		have, superuser, err := c.x.ReadSettings(ctx, l, names, ended)
		if err != nil {
			return err
		}
		if c.noteFound(before, have, ended) {
			c.settingsChanged()
			c.vars.noteSuperuser(superuser)
		}
	}
	return nil
}

// settingNames are the custom settings to ask for.
func (c *Session) settingNames(ctx context.Context, l *link, ended bool) ([]string, error) {
	c.unseenNames(c.vars.customNames())
	if known := c.vars.env.Catalog; known != nil {
		c.unseenNames(known.SettingNames())
	}
	if !c.view.sharded() && c.catalogBehind() {
		rows, _, err := c.x.AskUnread(ctx, l, newCodeQuery, ended)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			if len(row) == 1 && row[0] != nil {
				c.unseenNames(catalog.SettingNames(*row[0]))
			}
		}
	}
	names := make([]string, 0, len(c.unseen.names))
	for name := range c.unseen.names {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// newCodeQuery tells the code of functions that the catalog may not know yet.
const newCodeQuery = `SELECT prosrc FROM pg_catalog.pg_proc WHERE oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
AND pg_catalog.strpos(pg_catalog.lower(prosrc), 'set') OPERATOR(pg_catalog.>) 0 ORDER BY oid DESC LIMIT 1000`

// noteFound compares what a connection has set with what the session has put there, and notes what differs as SET and RESET would.
func (c *Session) noteFound(before, have *backend.Settings, ended bool) (changed bool) {
	u := &c.unseen
	want := before
	note := func(name, value string, set bool) {
		local := !ended && name != idleSessionSetting
		if c.saveForPipeline(); local {
			if u.local == nil {
				u.local = make(map[string]bool)
			}
			u.local[name] = true
		}
		changed = true
		switch {
		case !set:
			c.vars.reset(name, local)
		case name == "application_name":
			c.vars.set(name, cleanASCII(value), local)
		default:
			c.vars.set(name, value, local)
		}
	}
	for name, value := range have.All {
		was, known := want.Get(name)
		if ended && u.local[name] {
			was, known = c.vars.persistent.Get(name)
		}
		if !known || was != value {
			note(name, value, true)
		}
	}
	for name := range before.All {
		if _, there := have.Get(name); there {
			continue
		}
		if ended && u.local[name] {
			if _, known := c.vars.persistent.Get(name); !known {
				continue
			}
		}
		if isCustom(name) { // Postgres lists it, so it is an extension's
			if c.vars.real == nil {
				c.vars.real = make(map[string]bool)
			}
			c.vars.real[name] = true
		}
		note(name, "", false)
	}
	return changed
}

// endedUnseen follows a pipeline that has failed, if that was its transaction.
func (c *Session) endedUnseen(ctx context.Context) error {
	c.unseen.ran, c.unseen.expected = c.unseen.ran || c.unseen.expected, false
	if c.x.InBlock() {
		return nil
	}
	return c.readEnded(ctx, false)
}
