package router

import (
	"context"
	"errors"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
)

// maintenanceDatabase is the one that the routers themselves work in.
const maintenanceDatabase = "postgres"

// changeDatabase runs CREATE, DROP and ALTER DATABASE.
func (c *Session) changeDatabase(ctx context.Context, st *planner.Statement, plan *planner.Plan) (result, error) {
	r, data := result{tag: plan.Tag}, plan.Database
	if c.server.schema == nil {
		return r, errNoDirectory()
	}
	if data.Action == planner.AlterDatabase {
		return r, c.alterDatabase(ctx, st, data)
	}
	switch {
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
	switch data.Action {
	case planner.CreateDatabase:
		return r, c.createDatabase(ctx, st, data)
	case planner.RenameDatabase:
		return r, c.renameDatabase(ctx, st, data)
	}
	return r, c.dropDatabase(ctx, data)
}

// readOnlyRefuses is the error that a statement of its own, outside of a transaction, has where transactions are read-only.
func (c *Session) readOnlyRefuses(tag string) error {
	if c.vars.value("default_transaction_read_only") != "on" {
		return nil
	}
	return pgerr.Newf("25006", "cannot execute %s in a read-only transaction", tag)
}

// runHome runs the client's statement on the home shard.
func (c *Session) runHome(ctx context.Context, st *planner.Statement) error {
	l, err := c.x.Link(ctx, c.view.partitions.Home)
	if err != nil {
		return err
	}
	err = c.x.Query(ctx, l, st.Text, exec.QueryOptions{Shift: st.Chars, Silent: true, Notices: true})
	c.x.Idle()
	return err
}

// alterDatabase alters a database other than the session's.
func (c *Session) alterDatabase(ctx context.Context, st *planner.Statement, data *planner.DatabaseData) error {
	m, err := c.server.maps.LoadMap(ctx, data.Name)
	switch {
	case err == nil && m.AnythingSharded():
		return pgerr.Unsupported("ALTER DATABASE of a database whose tables are on several shards is not supported from another one",
			"Connect to database "+data.Name+" and run it there.")
	case err != nil && !errors.Is(err, etcd.ErrNotFound):
		return err
	}
	return c.runHome(ctx, st)
}

func (c *Session) createDatabase(ctx context.Context, st *planner.Statement, data *planner.DatabaseData) error {
	cancellable, release := c.x.Cancellable(ctx)
	err := c.server.schema.MayCreateDatabase(cancellable, data.Name, data.Other)
	release()
	if err != nil {
		return err
	}
	if data.Other != "" {
		c.server.pools.CloseDatabase(data.Other)
	}
	if err := c.runHome(ctx, st); err != nil {
		return err
	}
	ctx, release = c.x.Cancellable(ctx)
	defer release()
	m, err := c.server.schema.CreatedDatabase(ctx, data.Name)
	if err == nil {
		c.server.learnMap(m)
	}
	return err
}

func (c *Session) renameDatabase(ctx context.Context, st *planner.Statement, data *planner.DatabaseData) error {
	if err := c.mayEnd(ctx, data.Name, false); err != nil {
		return err
	}
	return c.server.schema.RenameDatabase(ctx, data.Name, data.Other, func() error { return c.runHome(ctx, st) })
}

func (c *Session) dropDatabase(ctx context.Context, data *planner.DatabaseData) error {
	err := c.mayEnd(ctx, data.Name, true)
	if data.IfExists && err != nil && pgerr.Of(err).Code == codeUnknownDatabase {
		c.notice(&pgerr.Error{Severity: pgerr.SeverityNotice, Code: "00000", Message: pgerr.Newf("", "database %q does not exist, skipping", data.Name).Message})
		return nil
	}
	if err != nil {
		return err
	}
	ctx, release := c.x.Cancellable(ctx)
	defer release()
	return c.server.schema.DropDatabase(ctx, data.Name, data.Force)
}

// mayEnd gives the errors that Postgres has for who may not drop or rename a database.
func (c *Session) mayEnd(ctx context.Context, name string, drop bool) error {
	l, err := c.x.Link(ctx, c.view.partitions.Home)
	if err != nil {
		return err
	}
	rows, err := c.x.Ask(ctx, l, "SELECT pg_catalog.pg_has_role(d.datdba, 'USAGE'), d.datistemplate FROM pg_catalog.pg_database d WHERE d.datname = "+quote(name))
	c.x.Idle()
	switch {
	case err != nil:
		return err
	case len(rows) == 0:
		return pgerr.Newf(codeUnknownDatabase, "database %q does not exist", name)
	case *rows[0][0] != "t":
		return pgerr.Newf("42501", "must be owner of database %s", name)
	case name == c.databaseName && drop:
		return pgerr.New("55006", "cannot drop the currently open database")
	case name == c.databaseName:
		return pgerr.New("0A000", "current database cannot be renamed")
	case *rows[0][1] == "t" && drop:
		return pgerr.New("42809", "cannot drop a template database")
	case name == maintenanceDatabase:
		return errMaintenance()
	}
	return nil
}

func errMaintenance() error {
	return pgerr.Unsupported("the routers work in database "+maintenanceDatabase, "Leave it as it is.")
}

func errBeingDropped(name string) error {
	return pgerr.Newf(pgerr.CannotConnectNow, "database %q is being dropped", name).
		WithHint("If that does not end, a shard is out of reach; routers go on when it is back.").Fatal()
}

// dropPoll is how often a router looks whether the sessions of a database that is being dropped have ended; forcePoll, how often
// it tells them to.
const (
	dropPoll  = 20 * time.Millisecond
	forcePoll = 250 * time.Millisecond
)

// letGo reports whether this router has nothing of a database any more, neither sessions nor connections.
func (s *Server) letGo(ctx context.Context, d *database, force bool) bool {
	if force {
		s.endSessions(ctx, d)
	}
	d.mu.Lock()
	left := len(d.sessions)
	d.mu.Unlock()
	return left == 0 && s.pools.CloseDatabase(d.name)
}

// endSessions tells the sessions of a database to end.
func (s *Server) endSessions(ctx context.Context, d *database) {
	d.ending.Store(true)
	d.mu.Lock()
	sessions := make([]*Session, 0, len(d.sessions))
	for c := range d.sessions {
		sessions = append(sessions, c)
	}
	d.mu.Unlock()
	for _, c := range sessions {
		c.terminate(ctx)
	}
}

// forgetDropped ends the databases that the directory has had and has no more.
func (s *Server) forgetDropped(snapshot *etcd.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, d := range s.databases {
		if _, there := snapshot.Maps[name]; there {
			d.listed = true
		} else if d.listed {
			// What is remembered of it must not be taken for that of another one of its name.
			s.numbers.Drop(name, directory.TableName{})
			s.secrets.ForgetDatabase(name)
			s.greeting.forget(name)
			s.pools.ForgetDatabase(name)
			delete(s.databases, name)
			close(d.gone)
		}
	}
}

// endDatabase ends what is left of a database that was dropped.
func (s *Server) endDatabase(ctx context.Context, d *database) {
	for !s.letGo(ctx, d, true) {
		if !sleep(ctx, forcePoll) {
			return
		}
	}
}
