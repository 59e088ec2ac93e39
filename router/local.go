package router

import (
	"context"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/planner/shardsql"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/schema"
	"github.com/shardyard/shardyard/router/wire"
)

type directoryShard = directory.ShardID

func quote(s string) string { return exec.Quote(s) }

// result is the answer of a statement that the router itself runs. All columns are of type text.
type result struct {
	columns []string
	rows    [][]string
	tag     string
}

// isLocal reports whether the router itself runs the statement.
func (c *Session) isLocal(plan *planner.Plan) bool {
	switch plan.Kind {
	case planner.Relay:
		return plan.Tag == prepareTag
	case planner.Empty, planner.Begin, planner.Commit, planner.Rollback, planner.Savepoint, planner.Release,
		planner.RollbackTo, planner.SetTransaction, planner.SetConstraints, planner.Set, planner.Reset,
		planner.Discard, planner.Prepare, planner.Execute, planner.Deallocate, planner.Listen, planner.Unlisten,
		planner.Sharding, planner.ShowSharding, planner.Maintenance, planner.Database, planner.Tablespace:
		return true
	case planner.Show:
		switch plan.Name {
		case "application_name", snapshotSetting, idleSessionSetting, idleTransactionSetting:
			return true
		}
	case planner.DDL:
		return !plan.DDL.Temp && (len(plan.DDL.Tables) > 0 || c.changesObjects(plan))
	case planner.Explain:
		return len(plan.Tables) > 0 && plan.Explain.Format == "text"
	}
	return false
}

// localColumns are the columns of the result, nil if there is none; known before the statement runs.
func localColumns(plan *planner.Plan) []string {
	switch plan.Kind {
	case planner.Show:
		return []string{plan.Name}
	case planner.Explain:
		return []string{"QUERY PLAN"}
	case planner.ShowSharding:
		return showColumns(plan.Sharding)
	}
	return nil
}

func (c *Session) simpleLocal(ctx context.Context, st *planner.Statement, plan *planner.Plan) error {
	switch plan.Kind {
	case planner.Empty:
		c.x.Local(wire.AppendEmptyQuery(nil))
		return nil
	case planner.Execute:
		return c.simpleExecute(ctx, st, plan)
	}
	r, err := c.runLocal(ctx, st, plan)
	if err != nil {
		return err
	}
	if r.columns != nil {
		c.out.Put(func(dst []byte) []byte { return wire.AppendRowDescription(dst, textColumns(r.columns)) })
	}
	return c.sendResult(r)
}

// sendResult sends rows and tag.
func (c *Session) sendResult(r result) error {
	return c.sendRows(r, func(dst []byte) []byte { return wire.AppendCommandComplete(dst, r.tag) })
}

func (c *Session) appendRows(r result) error {
	var frame []byte
	for _, row := range r.rows {
		var at int
		frame, at = wire.AppendDataRowStart(frame[:0], len(row))
		for _, value := range row {
			frame = wire.AppendColumn(frame, []byte(value))
		}
		if err := c.out.Append(wire.FinishRow(frame, at)); err != nil {
			return err
		}
	}
	return nil
}

const textOID = 25

func textColumns(names []string) []wire.Column {
	columns := make([]wire.Column, len(names))
	for i, name := range names {
		columns[i] = wire.Column{Name: []byte(name), Type: textOID, TypeSize: -1, Typmod: -1}
	}
	return columns
}

// runLocal runs a statement of a kind that isLocal, but for Empty and Execute.
func (c *Session) runLocal(ctx context.Context, st *planner.Statement, plan *planner.Plan) (result, error) {
	if err := c.x.DrainAll(ctx); err != nil {
		return result{}, err
	}
	r := result{tag: plan.Tag, columns: localColumns(plan)}
	var err error
	switch plan.Kind {
	case planner.Relay:
		r.tag, err = c.prepareTransaction(ctx, st)
	case planner.Begin:
		err = c.begin(ctx, plan.Transaction)
	case planner.Commit, planner.Rollback:
		r.tag, err = c.endBlock(ctx, plan.Kind == planner.Commit, plan.Transaction)
	case planner.Savepoint:
		r.tag, err = "SAVEPOINT", c.savepoint(ctx, plan.Name)
	case planner.Release:
		r.tag, err = "RELEASE", c.releaseSavepoint(ctx, plan.Name)
	case planner.RollbackTo:
		r.tag, err = "ROLLBACK", c.rollbackTo(ctx, plan.Name)
	case planner.SetTransaction:
		r.tag, err = "SET", c.setTransaction(ctx, st, plan.Transaction)
	case planner.SetConstraints:
		r.tag, err = "SET CONSTRAINTS", c.setConstraints(ctx, st)
	case planner.Set:
		r.tag, err = "SET", c.runSet(ctx, st, plan.Set)
	case planner.Reset:
		r.tag, err = "RESET", c.runSet(ctx, st, plan.Set)
	case planner.Show:
		r.rows, r.tag = [][]string{{c.vars.value(plan.Name)}}, "SHOW"
	case planner.Discard:
		r.tag, err = c.discard(ctx, st, plan.Name)
	case planner.Prepare:
		r.tag, err = "PREPARE", c.prepareSQL(ctx, st, plan.Prepare)
	case planner.Deallocate:
		r.tag, err = c.deallocate(plan.Name)
	case planner.Listen, planner.Unlisten:
		err = c.listen(ctx, plan.Kind, plan.Name)
	case planner.ShowSharding, planner.Sharding:
		r, err = c.performSchema(ctx, st, plan)
	case planner.DDL:
		r, err = c.changeSchema(ctx, st, plan)
	case planner.Maintenance:
		r, err = c.maintain(ctx, st, plan)
	case planner.Database:
		r, err = c.changeDatabase(ctx, st, plan)
	case planner.Tablespace:
		r, err = c.changeTablespace(ctx, st, plan)
	case planner.Explain:
		r, err = c.explain(ctx, st, plan)
	default:
		err = pgerr.Newf(pgerr.InternalError, "no way to run a %s", plan.Kind)
	}
	return r, err
}

func (c *Session) setTransaction(ctx context.Context, st *planner.Statement, t *planner.Transaction) error {
	if t.Snapshot {
		return pgerr.Unsupported("SET TRANSACTION SNAPSHOT is not supported", "Connect to a shard itself for it.")
	}
	if !c.x.InBlock() && !c.x.InImplicitBlock() {
		c.notice(warning("25P01", "SET TRANSACTION can only be used in transaction blocks"))
		return nil
	}
	return c.x.SetModes(ctx, *t)
}

func (c *Session) setConstraints(ctx context.Context, st *planner.Statement) error {
	if !c.x.InBlock() && !c.x.InImplicitBlock() {
		c.notice(warning("25P01", "SET CONSTRAINTS can only be used in transaction blocks"))
		return nil
	}
	c.x.AddBegin(st.Text)
	return c.x.OnAll(ctx, st.Text)
}

// discard runs DISCARD.
func (c *Session) discard(ctx context.Context, st *planner.Statement, what string) (string, error) {
	what = strings.ToUpper(what)
	tag := "DISCARD " + what
	if what == "SEQUENCES" {
		c.values = sequenceValues{}
	}
	switch what {
	case "ALL":
		if c.x.InBlock() || c.x.InImplicitBlock() {
			return "", pgerr.New("25001", "DISCARD ALL cannot run inside a transaction block")
		}
		c.unlistenAll()
		if err := c.x.DiscardAll(ctx); err != nil {
			return "", err
		}
		c.x.Idle()
		c.temps, c.tempsOld = nil, false
		c.values = sequenceValues{}
		if err := c.learnReal(ctx, c.vars.customNames()...); err != nil {
			return "", err
		}
		c.vars.resetAll()
		c.settingsChanged()
		clear(c.statements)
		clear(c.cursors)
		c.forgetPortals()
	case "TEMP", "TEMPORARY":
		c.tempsOld = len(c.temps) > 0
		return tag, c.x.OnPinned(ctx, st.Text)
	}
	return tag, nil
}

// performSchema runs the statements that change what lives where, and those that show it.
func (c *Session) performSchema(ctx context.Context, st *planner.Statement, plan *planner.Plan) (result, error) {
	if _, ok := plan.Sharding.(*shardsql.ShowTransactions); ok {
		return c.showTransactions(ctx, plan)
	}
	_, entries := plan.Sharding.(*shardsql.ShowEntries)
	if plan.Kind == planner.ShowSharding && !entries {
		ctx, release := c.x.Cancellable(ctx)
		defer release()
		shown, err := schema.Show(ctx, c.view.partitions, plan.Sharding, c.resolvedPath(), c.server.maps)
		if err != nil {
			return result{}, err
		}
		return result{columns: shown.Columns, rows: shown.Rows, tag: shown.Tag}, nil
	}
	performer := c.server.schema
	if performer == nil {
		return result{}, errNoDirectory()
	}
	if !entries {
		// The performer waits for every statement in flight under older maps, so this session must have none.
		c.leaveFlight()
		c.x.Idle()
	}
	ctx, release := c.x.Cancellable(ctx)
	defer release()
	request := schema.Request{
		Statement: plan.Sharding, SQL: st.Text, Tag: plan.Tag, Database: c.databaseName, User: c.vars.env.User,
		SearchPath: c.vars.env.SearchPath, Settings: c.schemaSettings(),
		InTransaction: c.x.InBlock() || c.x.InImplicitBlock() || c.x.Busy(),
	}
	performed, err := performer.Perform(ctx, request)
	if err != nil {
		return result{}, err
	}
	for _, text := range performed.Notices {
		c.notice(&pgerr.Error{Severity: pgerr.SeverityNotice, Code: "00000", Message: text})
	}
	if !entries {
		c.database.noteDefinition(true)
		if err := c.awaitDirectory(ctx); err != nil {
			return result{}, err
		}
	}
	return result{columns: performed.Columns, rows: performed.Rows, tag: performed.Tag}, nil
}

// schemaSettings are the settings that DDL runs under on every shard.
func (c *Session) schemaSettings() map[string]string {
	settings := make(map[string]string)
	for name, value := range c.vars.carried.All {
		switch name {
		case "application_name", "role", "session_authorization", "search_path":
		default:
			settings[name] = value
		}
	}
	return settings
}

func (c *Session) resolvedPath() []string {
	path := make([]string, 0, len(c.vars.env.SearchPath))
	for _, name := range c.vars.env.SearchPath {
		if name == "$user" {
			name = c.vars.env.User
		}
		path = append(path, name)
	}
	return path
}
