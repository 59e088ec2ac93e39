package router

import (
	"context"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/planner/shardsql"
	"github.com/shardyard/shardyard/router/pgerr"
)

// etcdLook bounds the question whether etcd is there, before a statement that changes the catalog.
const etcdLook = 3 * time.Second

// beforeDDL refuses a statement that changes the catalog while the other routers could not be told, in a
// database where anything is sharded.
func (c *Session) beforeDDL(ctx context.Context) error {
	if !c.view.sharded() {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, etcdLook)
	defer cancel()
	if _, err := c.server.maps.LoadMap(bounded, c.databaseName); err != nil {
		return pgerr.New(pgerr.CannotConnectNow, "the directory cannot be reached, so definitions cannot be changed").
			WithHint("Statements that change definitions wait until etcd is back; everything else goes on.").Because(err)
	}
	return nil
}

// afterDDL makes a change of the catalog known: at once, or when the transaction commits.
func (c *Session) afterDDL(ctx context.Context, plan *planner.Plan) error {
	c.database.noteDefinition(!plan.DDL.Temp)
	if plan.DDL.Temp {
		return nil
	}
	c.noteRoles(plan)
	if !c.x.Busy() && !c.x.InBlock() && !c.x.InImplicitBlock() {
		defer c.redefaulted(ctx, true)
	}
	if !c.view.sharded() {
		c.server.announceLater(c.database) // nothing waits for it: every statement goes home anyway
		c.redefines = c.x.Busy() || c.x.InBlock() || c.x.InImplicitBlock()
		return nil
	}
	c.changes.note()
	if !c.x.Busy() {
		c.changes.take()
		c.announceDDL(ctx)
	}
	return nil
}

// restarted makes known, at once or when the transaction commits, that sequences were restarted. Until then the transaction, which has
// them locked, draws nothing of any.
func (c *Session) restarted(ctx context.Context) {
	c.changes.note()
	if !c.x.Busy() {
		c.changes.take()
		c.announceDDL(ctx)
	}
}

// redefined makes the changes of a transaction known that has ended, where nothing is sharded.
func (c *Session) redefined(committed bool) {
	if c.redefines && committed {
		c.database.noteDefinition(true)
		c.server.announceLater(c.database)
	}
	c.redefines = false
}

// announceDDL raises the catalog's version and waits until all routers plan by the new catalog. The statement has
// succeeded already: what fails here is made up for in the background.
func (c *Session) announceDDL(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, c.server.config.HoldTimeout)
	defer cancel()
	m, err := c.server.maps.Apply(bounded, c.databaseName, directory.BumpCatalog{})
	if err == nil {
		c.server.learnMap(m)
		_, err = c.database.await(bounded, func(v *view) bool { return v.epoch() >= m.Epoch })
	}
	if err == nil {
		c.awaitRouters(bounded, m)
		return
	}
	c.server.log.Warn("catalog change not announced", "session_id", c.id, "database", c.databaseName, "error", err)
	c.server.announceLater(c.database)
}

// awaitRouters waits until all live routers plan new statements by the map.
func (c *Session) awaitRouters(ctx context.Context, m *directory.Map) {
	if err := c.server.maps.WaitPlanning(ctx, c.databaseName, m.Epoch); err != nil {
		c.server.log.Warn("a router has not followed a change of the catalog yet", "session_id", c.id, "database", c.databaseName, "error", err)
	}
}

// announceRetry is the pause between attempts to announce a change of the catalog.
const announceRetry = time.Second

// announce raises the catalog's version as soon as etcd lets it.
func (s *Server) announce(ctx context.Context, d *database) {
	for {
		d.announcing.Store(false)
		m, err := s.maps.Apply(ctx, d.name, directory.BumpCatalog{})
		if err == nil {
			s.learnMap(m)
			return
		}
		if !sleep(ctx, announceRetry) {
			return
		}
	}
}

// awaitDirectory waits until this router works with the directory as it is now.
func (c *Session) awaitDirectory(ctx context.Context) error {
	m, err := c.server.maps.LoadMap(ctx, c.databaseName)
	if err != nil {
		return err
	}
	c.server.learnMap(m)
	bounded, cancel := context.WithTimeout(ctx, c.server.config.HoldTimeout)
	defer cancel()
	_, err = c.database.await(bounded, func(v *view) bool { return v.epoch() >= m.Epoch })
	return err
}

// changesObjects reports DDL on objects other than tables, which all shards must have alike: it runs on all of them.
func (c *Session) changesObjects(plan *planner.Plan) bool {
	return (c.view.sharded() || plan.Everywhere != nil) && plan.DDL.Objects && !plan.DDL.Temp
}

// showColumns are the columns of SHOW SHARDS, TABLES, PARTITIONS, ENTRIES and TRANSACTIONS.
func showColumns(s shardsql.Statement) []string {
	switch s.(type) {
	case *shardsql.ShowShards:
		return []string{"name", "role", "primary", "replicas", "state"}
	case *shardsql.ShowTables:
		return []string{"schema", "name", "kind", "method", "key", "group", "partitions", "shards"}
	case *shardsql.ShowTransactions:
		return []string{"gid", "router", "age", "state", "last_agent", "prepared_on"}
	case *shardsql.ShowPartitions:
		return []string{"name", "shard", "bounds", "parent"}
	case *shardsql.ShowEntries:
		return []string{"key", "shard"}
	}
	return nil
}

// refreshTemps learns the names of the session's temporary relations: they hide others of the same name.
func (c *Session) refreshTemps(ctx context.Context) error {
	c.vars.env.TempNames = c.temps
	if !c.tempsOld || !c.view.sharded() || c.x.Failed() {
		return nil
	}
	c.temps, c.tempsOld = nil, false
	home := c.view.partitions.Home
	if c.x.Holds(home) {
		l, err := c.x.Link(ctx, home)
		if err != nil {
			return err
		}
		rows, err := c.x.Ask(ctx, l, "SELECT relname FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema()")
		if err != nil {
			return err
		}
		for _, row := range rows {
			if len(row) == 1 && row[0] != nil {
				c.temps = append(c.temps, *row[0])
			}
		}
	}
	c.vars.version++
	c.vars.env.TempNames = c.temps
	return nil
}
