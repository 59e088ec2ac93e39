package router

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/pgerr"
)

func (c *Session) beginImplicit() {
	c.x.BeginImplicit(c.vars.value("default_transaction_isolation"))
	c.vars.begin()
	c.holdTag()
}

// holdTag keeps the tag of the last statement of a Query back until its implicit transaction is committed.
func (c *Session) holdTag() {
	if c.rest.simple && c.rest.next == len(c.rest.statements) {
		c.out.HoldTag()
	}
}

// begin runs BEGIN and START TRANSACTION.
func (c *Session) begin(ctx context.Context, t *planner.Transaction) error {
	if c.x.InBlock() {
		c.notice(warning("25001", "there is already a transaction in progress"))
		return c.setModes(ctx, t)
	}
	if c.x.InImplicitBlock() {
		return c.adoptImplicit(ctx, t)
	}
	if len(c.vars.saved) == 0 { // else the pipeline that this BEGIN adopts has set something
		c.vars.begin()
	}
	c.noteDefaults()
	c.x.Begin(*t, c.vars.value("default_transaction_isolation"))
	return c.x.EnlistAll(ctx)
}

// adoptImplicit turns the implicit block of a Query into the client's transaction.
func (c *Session) adoptImplicit(ctx context.Context, t *planner.Transaction) error {
	c.noteDefaults()
	c.x.AdoptImplicit()
	return c.setModes(ctx, t)
}

// setModes gives the open transaction the modes that a BEGIN names, if it names any.
func (c *Session) setModes(ctx context.Context, t *planner.Transaction) error {
	modes := planner.Transaction{Isolation: t.Isolation, Access: t.Access, Deferrable: t.Deferrable}
	if modes == (planner.Transaction{}) {
		return nil
	}
	return c.x.SetModes(ctx, modes)
}

// commit commits the open block. A failed one is rolled back, which is no error.
func (c *Session) commit(ctx context.Context) error {
	err := c.beforeCommit(ctx)
	if err == nil {
		err = c.beforeListen(ctx)
	}
	if err != nil {
		return errors.Join(err, c.rollback(ctx))
	}
	committed, err := c.x.Commit(ctx)
	return c.ended(ctx, committed, err)
}

func (c *Session) rollback(ctx context.Context) error {
	return c.ended(ctx, false, c.x.Rollback(ctx))
}

// ended brings the session's state behind the end of a transaction.
func (c *Session) ended(ctx context.Context, committed bool, err error) error {
	before := c.vars.current
	if committed {
		c.vars.committed()
	} else {
		c.vars.rolledBackTo(0)
		c.vars.saved = c.vars.saved[:0]
	}
	if c.vars.current != before { // else plans stay good too
		c.settingsChanged()
	}
	c.listened(committed)
	c.forgetPortals()
	c.tempsOld = len(c.temps) > 0 || c.tempsOld
	c.used = c.used[:0]
	c.redefined(committed)
	c.redefaulted(ctx, committed)
	if c.afterCommit(ctx, committed, err) {
		c.announceDDL(ctx)
	}
	return cmp.Or(c.readEnded(ctx, committed), err)
}

// endBlock runs COMMIT and ROLLBACK; the tag says what became of the transaction.
func (c *Session) endBlock(ctx context.Context, commit bool, t *planner.Transaction) (tag string, err error) {
	chain := t != nil && t.Chain
	explicit := c.x.InBlock()
	if !explicit {
		if chain {
			word := "ROLLBACK"
			if commit {
				word = "COMMIT"
			}
			return "", pgerr.New("25P01", word+" AND CHAIN can only be used in transaction blocks")
		}
		c.notice(warning("25P01", "there is no transaction in progress"))
	}
	tag = "ROLLBACK"
	modes := c.x.Modes()
	switch {
	case !commit:
		err = c.endOpen(ctx, explicit, c.rollback, c.rollbackPipeline)
	case c.x.Failed():
		err = c.rollback(ctx)
	default:
		tag = "COMMIT"
		err = c.endOpen(ctx, explicit, c.commit, c.commitPipeline)
	}
	if err == nil && chain {
		if modes.Access == "" {
			modes.Access = readOnlyWords[c.beganReadOnly]
		}
		c.vars.begin()
		c.x.Begin(modes, modes.Isolation)
	}
	return tag, err
}

var readOnlyWords = map[bool]string{true: "read only", false: "read write"}

// noteDefaults notes the defaults that a transaction begins with, for those that are chained to it.
func (c *Session) noteDefaults() {
	c.beganReadOnly = c.vars.value("default_transaction_read_only") == "on"
}

// endOpen ends the block, or the implicit transaction of a Query or of a pipeline.
func (c *Session) endOpen(ctx context.Context, explicit bool, endBlock, endPipeline func(context.Context) error) error {
	if explicit || c.x.InImplicitBlock() {
		return endBlock(ctx)
	}
	return endPipeline(ctx)
}

// joinPipeline reads what a pipeline still owes before a Query or a FunctionCall that comes without a Sync. Outside of a transaction
// the two become one.
func (c *Session) joinPipeline(ctx context.Context) error {
	if err := c.flushPending(ctx); err != nil {
		return err
	}
	if err := c.x.DrainAll(ctx); err != nil {
		return err
	}
	if c.x.InBlock() {
		return c.x.EndPipeline(ctx)
	}
	if !c.x.Busy() && len(c.vars.saved) == 0 && len(c.listens.actions) == 0 {
		return nil
	}
	saved := c.vars.saved
	c.beginImplicit()
	if len(saved) > 0 {
		c.vars.saved = saved // of the pipeline's beginning
	}
	return c.x.EnlistAll(ctx)
}

// commitPipeline commits what a pipeline outside of a transaction has done so far.
func (c *Session) commitPipeline(ctx context.Context) error {
	var err error
	if !c.x.InBlock() {
		err = c.beforeListen(ctx)
	}
	if err != nil {
		return errors.Join(err, c.rollbackPipeline(ctx))
	}
	err = c.x.EndPipeline(ctx)
	c.endPipelineVariables(err != nil)
	return cmp.Or(c.readEnded(ctx, err == nil), err)
}

// rollbackPipeline undoes what a pipeline outside of a transaction has done so far.
func (c *Session) rollbackPipeline(ctx context.Context) error {
	err := c.x.RollbackPipeline(ctx)
	c.endPipelineVariables(true)
	c.changes.take()
	return cmp.Or(c.readEnded(ctx, false), err)
}

// showTransactions runs SHOW TRANSACTIONS.
func (c *Session) showTransactions(ctx context.Context, plan *planner.Plan) (result, error) {
	r := result{columns: showColumns(plan.Sharding), tag: "SHOW"}
	if c.server.resolver == nil {
		return result{}, pgerr.Unsupported("this router does not finish transactions", "Use a router that has the directory.")
	}
	ctx, release := c.x.Cancellable(ctx)
	defer release()
	list, silent := c.server.resolver.List(ctx, c.view.partitions)
	for _, shard := range silent {
		c.notice(warning("01000", "shard "+string(shard)+" cannot be asked; what only it has prepared is not listed"))
	}
	for _, t := range list {
		r.rows = append(r.rows, []string{
			t.GID.String(), t.GID.Router, t.Age.Round(time.Millisecond).String(), string(t.State), string(t.GID.Agent), shardNames(t.Prepared),
		})
	}
	return r, nil
}

func shardNames(shards []directoryShard) string {
	names := make([]string, len(shards))
	for i, shard := range shards {
		names[i] = string(shard)
	}
	return strings.Join(names, ", ")
}

func (c *Session) needBlock(statement string) error {
	if c.x.InBlock() {
		return nil
	}
	return pgerr.New("25P01", statement+" can only be used in transaction blocks")
}

func (c *Session) savepoint(ctx context.Context, name string) error {
	if err := c.needBlock("SAVEPOINT"); err != nil {
		return err
	}
	if err := c.x.Savepoint(ctx, name); err != nil {
		return err
	}
	c.vars.savepoint()
	c.listens.savepoint()
	return nil
}

func (c *Session) releaseSavepoint(ctx context.Context, name string) error {
	if err := c.needBlock("RELEASE SAVEPOINT"); err != nil {
		return err
	}
	if err := c.x.ReleaseSavepoint(ctx, name); err != nil {
		return err
	}
	c.vars.released(c.x.Savepoints())
	c.listens.released(c.x.Savepoints())
	c.portalsReleased(c.x.Savepoints())
	c.usedReleased(c.x.Savepoints())
	if c.changes.work != nil {
		c.changes.work.Released(c.x.Savepoints())
	}
	return nil
}

func (c *Session) rollbackTo(ctx context.Context, name string) error {
	if err := c.needBlock("ROLLBACK TO SAVEPOINT"); err != nil {
		return err
	}
	n, err := c.x.RollbackTo(ctx, name)
	if err != nil {
		return err
	}
	c.vars.rolledBackTo(n)
	c.listens.rolledBackTo(n)
	c.settingsChanged()
	c.portalsRolledBack(n)
	c.usedRolledBack(n)
	if c.changes.work != nil {
		c.changes.work.RolledBackTo(ctx, n)
	}
	if c.changes.pending {
		c.changes.note()
	}
	c.tempsOld = len(c.temps) > 0 || c.tempsOld
	return nil
}
