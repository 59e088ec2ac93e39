package router

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/planner/catalog"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/schema"
)

// schemaChanges is what the open transaction has changed of the catalog.
type schemaChanges struct {
	pending bool
	// stale: own must be made again before the next statement.
	stale bool
	// work is what it does on all shards; nil: nothing yet.
	work *schema.Transaction
	// catalog is the catalog as the transaction sees it, nil: the database's.
	catalog *catalog.Snapshot
	// own is what base becomes with its changes; they are kept so that a view stays the same while nothing changes.
	base, own *view
}

// take forgets the changes and reports whether there were any.
func (c *schemaChanges) take() bool {
	pending := c.pending
	*c = schemaChanges{}
	return pending
}

// note says that a statement of the transaction changed the catalog, or undid a change.
func (c *schemaChanges) note() { c.pending, c.stale = true, true }

// changeSchema runs DDL that concerns more than the home shard, inside of the client's transaction. Outside of
// a block it is an implicit one, which ends with the Query or at Sync.
func (c *Session) changeSchema(ctx context.Context, st *planner.Statement, plan *planner.Plan) (result, error) {
	performer := c.server.schema
	if performer == nil {
		return result{}, errNoDirectory()
	}
	if err := c.beforeDDL(ctx); err != nil {
		return result{}, err
	}
	if !c.x.InBlock() && !c.x.InImplicitBlock() {
		if err := c.adoptPipeline(ctx); err != nil {
			return result{}, err
		}
	}
	if c.changes.work == nil {
		c.changes.work = performer.Begin()
	}
	c.enter()
	if err := c.seeOwnChanges(ctx); err != nil {
		return result{}, err
	}
	// The performer waits for every statement in flight under older maps, so this session must have none.
	c.leaveFlight()
	text, err := c.textOf(ctx, st, plan)
	if err != nil {
		return result{}, err
	}
	request := schema.Request{
		SQL: text.sql, Tag: plan.Tag, Database: c.databaseName, User: c.vars.env.User, SearchPath: c.vars.env.SearchPath,
		Tables: plan.DDL.Tables, Alters: plan.DDL.Alters, Replaces: plan.DDL.Replaces, Others: plan.DDL.Others, Lacking: c.view.sharded() && c.view.catalog.AnyHomeOnly(),
	}
	if e := plan.Everywhere; e != nil {
		request.Everywhere, request.Extension, request.Cascades = true, e.Extension, e.Cascades
	}
	if err := c.changes.work.Run(ctx, c.linksFor(st, text), c.view.partitions, request, c.x.Savepoints()); err != nil {
		return result{}, err
	}
	c.noteRoles(plan)
	c.database.noteDefinition(true)
	if c.view.sharded() {
		c.changes.note()
	}
	return result{tag: plan.Tag}, nil
}

func errNoDirectory() error {
	return pgerr.Unsupported("this router does not change the partition map", "Use a router that has the directory.")
}

// adoptPipeline makes what a pipeline has done so far, if anything, the beginning of an implicit block.
func (c *Session) adoptPipeline(ctx context.Context) error {
	c.x.BeginImplicit(c.vars.value("default_transaction_isolation"))
	c.holdTag()
	if len(c.vars.saved) == 0 { // else the pipeline has set something
		c.vars.begin()
	}
	return c.x.EnlistAll(ctx)
}

// followHold lets new connections be of the newest epoch: a hold that was published meanwhile has raised the
// floors of its shards.
func (c *Session) followHold() {
	if now := c.database.current.Load(); now.epoch() > c.view.epoch() {
		c.x.SetView(exec.View{Map: now.partitions, Catalog: c.view.catalog})
	}
}

// endImplicit ends the implicit block that DDL in a pipeline has begun.
func (c *Session) endImplicit(ctx context.Context, failed bool) error {
	switch {
	case !c.x.InImplicitBlock():
		return nil
	case failed:
		return c.rollback(ctx)
	}
	return c.commit(ctx)
}

// links are the transaction's connections for the schema package.
func (c *Session) links(st *planner.Statement) schema.Links { return c.linksFor(st, shardText{}) }

// linksFor are links that run the text for a statement.
func (c *Session) linksFor(st *planner.Statement, text shardText) schema.Links {
	return schema.Links{
		Cancellable: c.x.Cancellable,
		Lend: func(ctx context.Context, shard directory.ShardID, use func(*pgx.Conn) error) error {
			c.followHold()
			l, err := c.x.Link(ctx, shard)
			if err != nil {
				return err
			}
			c.x.Used(l, false)
			return c.x.Lend(ctx, l, use)
		},
		Run: func(ctx context.Context, shard directory.ShardID, told bool) error {
			c.followHold()
			l, err := c.x.Link(ctx, shard)
			if err != nil {
				return err
			}
			c.x.MarkDirty(shard)
			return c.x.Query(ctx, l, text.sql, exec.QueryOptions{Shift: st.Chars, Part: text.part, Silent: true, Notices: told})
		},
	}
}

// seeOwnChanges brings the view to what the open transaction sees, after it changed something of the catalog: a
// function that it has created may read a sharded table, a table may have another name.
func (c *Session) seeOwnChanges(ctx context.Context) error {
	changes := &c.changes
	if !changes.pending || !c.view.sharded() || c.x.Failed() {
		return nil
	}
	if changes.stale {
		shown, err := c.ownCatalog(ctx)
		if err != nil {
			return err
		}
		// Plans made with it must not be taken for those of any catalog that others see.
		shown.Version = ownCatalog | c.server.ownCatalogs.Add(1)
		changes.catalog, changes.stale, changes.base = shown, false, nil
		c.vars.version++
	}
	if changes.base != c.view {
		partitions := c.view.partitions
		if changes.work != nil {
			var err error
			if partitions, err = changes.work.Map(ctx, c.links(nil), partitions); err != nil {
				return err
			}
		}
		changes.base, changes.own = c.view, &view{partitions: partitions, catalog: changes.catalog}
	}
	c.view = changes.own
	c.vars.env.Map, c.vars.env.Catalog = c.view.partitions, c.view.catalog
	c.x.SetView(exec.View{Map: c.view.partitions, Catalog: c.view.catalog})
	return nil
}

// ownCatalog marks the versions of catalogs that only one transaction sees.
const ownCatalog = 1 << 63

func (c *Session) ownCatalog(ctx context.Context) (*catalog.Snapshot, error) {
	var lent []directory.ShardID
	if work := c.changes.work; work != nil {
		lent = work.Shards()
	}
	return c.server.catalogs.LoadWithin(ctx, c.view.partitions, c.server.pools, lent, c.links(nil).Lend)
}

// beforeCommit makes the transaction's change of the catalog known to whoever may have to end it.
func (c *Session) beforeCommit(ctx context.Context) error {
	if c.changes.work == nil || c.x.Failed() {
		return nil
	}
	return c.changes.work.Note(ctx, c.links(nil))
}

// afterCommit ends what the transaction holds of the catalog, by its outcome. changed says that others have to be
// told of a change that was committed.
func (c *Session) afterCommit(ctx context.Context, committed bool, err error) (changed bool) {
	work := c.changes.work
	held := work != nil && work.HoldsAny()
	changed = c.changes.take() && committed
	switch {
	case work == nil:
	case committed:
		c.leaveFlight() // what is waited for must not wait for this session
		work.Committed(ctx)
		if held {
			c.awaitOwnCommit(ctx)
			return false
		}
	case err != nil && pgerr.Of(err).Code == pgerr.OutcomeUnknown:
		work.Left()
	default:
		work.RolledBack(ctx)
	}
	return changed
}

// awaitOwnCommit waits until this router works with the map that the session's own commit has led to.
func (c *Session) awaitOwnCommit(ctx context.Context) {
	if err := c.awaitDirectory(ctx); err != nil {
		c.server.log.Warn("own change of the catalog not seen yet", "session_id", c.id, "database", c.databaseName, "error", err)
	}
}

// usedTable is a table that the open transaction has used, so that it holds its lock on the shards where it did.
type usedTable struct {
	name  directory.TableName
	depth int // savepoints that stood then: going back behind them gives the lock back
}

// noteUsed notes that a statement of the transaction has used its tables.
func (c *Session) noteUsed(plan *planner.Plan) {
	for _, name := range plan.Tables {
		if !slices.ContainsFunc(c.used, func(u usedTable) bool { return u.name == name }) {
			c.used = append(c.used, usedTable{name, c.x.Savepoints()})
		}
	}
}

// usedRolledBack forgets what was used behind a savepoint; n still stand.
func (c *Session) usedRolledBack(n int) {
	c.used = slices.DeleteFunc(c.used, func(u usedTable) bool { return u.depth >= n })
}

func (c *Session) usedReleased(n int) {
	for i := range c.used {
		c.used[i].depth = min(c.used[i].depth, n)
	}
}

// passes reports whether the session may use a table although it is being changed: the change is its own, or
// its transaction has used the table before. Then the change waits for the transaction's lock on a shard, so it
// cannot be committed, and the plan holds, until the transaction has ended; to wait for it would be a deadlock.
func (c *Session) passes(t *directory.Table) bool {
	return c.changes.work != nil && c.changes.work.Holds(t) ||
		slices.ContainsFunc(c.used, func(u usedTable) bool { return u.name == t.Name })
}
