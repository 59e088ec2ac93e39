package schema

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
)

// unshard does the work of UNSHARD TABLE for a table without rows: the table goes from every other shard
// and stands on the home shard again. It returns the decision.
func (op *operation) unshard(ctx context.Context, name directory.TableName) (directory.Change, error) {
	if err := op.p.reached("lock"); err != nil {
		return nil, err
	}
	table, ok := op.m.Table(name)
	if !ok {
		return nil, pgerr.Newf("55000", "table %q is not sharded", name.Name)
	}
	if table.Kind == directory.TableReference {
		return op.unshardReference(ctx, table)
	}
	holders := op.m.ShardsOf(table)
	var d *definition
	for _, shard := range holders {
		conn, err := op.begin(ctx, shard)
		if err != nil {
			return nil, err
		}
		if err := op.lock(ctx, conn, name); err != nil {
			return nil, err
		}
		if err := checkEmpty(ctx, conn, name, "unsharded"); err != nil {
			return nil, err
		}
		if d == nil {
			if err := op.p.checkAlone(ctx, conn, name); err != nil {
				return nil, err
			}
			if d, err = describe(ctx, conn, name); err != nil {
				return nil, err
			}
		}
		if shard == op.m.Home {
			continue
		}
		op.wrote = append(op.wrote, shard)
		if err := run(ctx, conn, []string{"DROP TABLE " + name.String()}); err != nil {
			return nil, fmt.Errorf("drop table %s on shard %s: %w", name, shard, err)
		}
	}
	if d == nil {
		return nil, fmt.Errorf("unshard table %s: no shard has it", name)
	}
	if !slices.Contains(holders, op.m.Home) {
		if err := op.bringHome(ctx, d); err != nil {
			return nil, err
		}
	}
	hold := op.decidedHold()
	hold.Drop = true
	return directory.SetHold{Table: name, Hold: hold}, nil
}

// bringHome replaces the placeholder on the home shard by the table.
func (op *operation) bringHome(ctx context.Context, d *definition) error {
	conn, err := op.begin(ctx, op.m.Home)
	if err != nil {
		return err
	}
	op.wrote = append(op.wrote, op.m.Home)
	statements := append([]string{"DROP FOREIGN TABLE " + d.Name.String()}, d.statements()...)
	if err := run(ctx, conn, statements); err != nil {
		return fmt.Errorf("bring table %s to the home shard: %w", d.Name, err)
	}
	return nil
}

// checkAlone refuses a table that others hold foreign keys to, or that has some to others: they would cross
// shards afterwards.
func (p *Performer) checkAlone(ctx context.Context, conn *pgx.Conn, name directory.TableName) error {
	snapshot, err := p.catalogs.LoadOn(ctx, conn)
	if err != nil {
		return err
	}
	rel, ok := snapshot.Relation(name)
	if !ok {
		return errors.New("the table is not on its shard")
	}
	for _, other := range rel.ReferencedBy {
		if other != name {
			return pgerr.Unsupported(fmt.Sprintf("cannot unshard table %q: table %q references it", name.Name, other.String()),
				"Drop the foreign key first.")
		}
	}
	for _, fk := range rel.ForeignKeys {
		if fk.References != name {
			return pgerr.Unsupported(fmt.Sprintf("cannot unshard table %q: foreign key %q references table %q", name.Name, fk.Name, fk.References.String()),
				"Drop the foreign key first.")
		}
	}
	return nil
}
