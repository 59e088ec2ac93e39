package router

import (
	"context"
	"errors"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/commit"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
)

const prepareTag = "PREPARE TRANSACTION"

// prepareTransaction runs the application's own PREPARE TRANSACTION: it is possible on the home shard alone.
func (c *Session) prepareTransaction(ctx context.Context, st *planner.Statement) (tag string, err error) {
	home := c.view.partitions.Home
	if c.x.Failed() {
		return "ROLLBACK", c.rollback(ctx)
	}
	if c.x.InImplicitBlock() {
		return "", pgerr.New("25001", "PREPARE TRANSACTION cannot run among other statements of one Query")
	}
	explicit := c.x.InBlock()
	if explicit && (!c.x.OnlyOn(home) || c.changes.work != nil) {
		return "", c.cannotPrepare(ctx, pgerr.Unsupported("PREPARE TRANSACTION of a transaction that is not on the home shard alone, or has changed definitions of sharded tables, is not supported",
			"Use COMMIT: the router commits on several shards by itself."))
	}
	if explicit && len(c.listens.actions) > 0 {
		return "", c.cannotPrepare(ctx, pgerr.New(pgerr.FeatureNotSupported, "cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY"))
	}
	if err := c.x.SettleAll(ctx); err != nil && explicit {
		return "", c.cannotPrepare(ctx, err)
	} else if err != nil {
		return "", err
	}
	l, err := c.x.Link(ctx, home)
	if err != nil {
		return "", err
	}
	tag = prepareTag
	if !explicit {
		tag = "ROLLBACK" // so says Postgres where there is no transaction, besides a warning
	}
	err = c.x.Query(ctx, l, st.Text, exec.QueryOptions{Shift: st.Chars, Silent: true, Notices: true})
	if !explicit {
		return tag, err
	}
	return tag, c.ended(ctx, err == nil, err)
}

// cannotPrepare rolls a transaction back that cannot be prepared: a PREPARE TRANSACTION that fails ends it, as a COMMIT does.
func (c *Session) cannotPrepare(ctx context.Context, why error) error {
	if err := c.rollback(ctx); err != nil {
		return errors.Join(why, err)
	}
	return why
}

// ofRouters refuses COMMIT PREPARED and ROLLBACK PREPARED of a transaction that a router has prepared.
func ofRouters(plan *planner.Plan) error {
	if plan.Tag != "COMMIT PREPARED" && plan.Tag != "ROLLBACK PREPARED" {
		return nil
	}
	if _, ours := commit.Parse(plan.Name); !ours {
		return nil
	}
	return pgerr.Unsupported("the prepared transaction is a router's, which ends it", "See SHOW TRANSACTIONS.")
}
