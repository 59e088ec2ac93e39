package schema

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
)

// resolvePause is the wait between two looks at a prepared transaction that another router is ending, or at
// connections that are being terminated.
const resolvePause = 20 * time.Millisecond

// Recover finishes or undoes the changes of a database whose router is gone, and those of this router that no
// statement of it is working on: a decided one is committed, an undecided one is rolled back. It also rolls
// back prepared parts whose hold is gone. Call it when a map shows a hold for longer than a lease lives, and
// at start; it may run on several routers at once.
func (p *Performer) Recover(ctx context.Context, database string) error {
	m, err := p.config.Store.LoadMap(ctx, database)
	if errors.Is(err, etcd.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	alive, err := p.liveRouters(ctx)
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	if m.Drop != nil {
		return p.recoverDrop(ctx, m, alive)
	}
	var failed error
	for _, left := range p.leftovers(m, alive) {
		p.config.Log.InfoContext(ctx, "recovering a change", "hold", left.hold.ID, "decided", left.hold.Decided)
		switch {
		case left.hold.Decided:
			err = p.finish(ctx, m, left.hold, left.tables)
		case len(left.hold.XIDs) > 0:
			err = p.recoverTransaction(ctx, m, left)
		default:
			err = p.undo(ctx, m, left.hold, left.tables)
		}
		failed = errors.Join(failed, err)
	}
	return errors.Join(failed, p.sweep(ctx, m))
}

// recoverTransaction ends the holds of a client's transaction whose commit had begun. Its router's connections are
// terminated, unless that lives; what is prepared is ended by the recovery of two-phase commits.
func (p *Performer) recoverTransaction(ctx context.Context, m *directory.Map, left *leftover) error {
	ctx, cancel := p.cleanup(ctx)
	defer cancel()
	done, err := p.conclude(ctx, m, left.ended)
	if done || err != nil {
		return err
	}
	if err := p.config.Fence.Settle(ctx, m, left.hold.Shards); err != nil {
		return err
	}
	_, err = p.conclude(ctx, m, left.ended) // what is still in doubt is looked at again by the next Recover
	return err
}

type leftover struct {
	hold   directory.Hold
	tables []directory.TableName
	ended  []endedHold
}

// leftovers are the holds that nobody is working on.
func (p *Performer) leftovers(m *directory.Map, alive map[string]bool) []*leftover {
	var all []*leftover
	byID := make(map[string]*leftover)
	for i := range m.Tables {
		t := &m.Tables[i]
		if t.Hold == nil || p.isActive(t.Hold.ID) || t.Hold.Owner != p.config.Router && alive[t.Hold.Owner] {
			continue
		}
		left := byID[t.Hold.ID]
		if left == nil {
			left = &leftover{hold: *t.Hold}
			byID[t.Hold.ID] = left
			all = append(all, left)
		}
		left.tables = append(left.tables, t.Name)
		left.ended = append(left.ended, endedHold{t.Name, *t.Hold})
	}
	return all
}

// liveRouters are the routers that live, and the commands that are running.
func (p *Performer) liveRouters(ctx context.Context) (map[string]bool, error) {
	routers, err := p.config.Store.Routers(ctx)
	if err != nil {
		return nil, err
	}
	alive := make(map[string]bool, len(routers))
	for _, router := range routers {
		if router.Live {
			alive[router.Info.Name] = true
		}
	}
	present, err := p.config.Store.Present(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range present {
		alive[name] = true
	}
	return alive, nil
}

// sweep rolls back the prepared parts whose hold is gone; see the invariant of operation.
func (p *Performer) sweep(ctx context.Context, m *directory.Map) error {
	var failed error
	for _, shard := range m.Shards {
		gids, err := p.preparedParts(ctx, m, shard.ID)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("list prepared transactions on shard %s: %w", shard.ID, err))
			continue
		}
		for _, g := range gids {
			id := holdOf(m.ClusterID, g)
			// Invariant: the map is read after the part was seen, so a hold that is not in it has ended.
			current, err := p.config.Store.LoadMap(ctx, m.Database)
			if err != nil {
				return errors.Join(failed, err)
			}
			if id == "" || heldUnder(current, id) {
				continue
			}
			failed = errors.Join(failed, p.resolve(ctx, m, shard.ID, id, g, "ROLLBACK PREPARED"))
		}
	}
	return failed
}

func (p *Performer) preparedParts(ctx context.Context, m *directory.Map, shard directory.ShardID) ([]string, error) {
	conn, err := p.dial(ctx, m, shard, "shardyard-recover")
	if err != nil {
		return nil, err
	}
	defer p.giveBack(ctx, conn)
	rows, err := conn.Query(ctx, `SELECT gid FROM pg_catalog.pg_prepared_xacts
		WHERE database = pg_catalog.current_database() AND pg_catalog.starts_with(gid, $1)`, gidPrefix+m.ClusterID+":")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// holdOf is the hold's ID in a gid of the cluster, "" if it has none.
func holdOf(cluster, g string) string {
	rest, ok := strings.CutPrefix(g, gidPrefix+cluster+":")
	if !ok {
		return ""
	}
	id, _, _ := strings.Cut(rest, ":")
	return id
}

func heldUnder(m *directory.Map, id string) bool {
	for i := range m.Tables {
		if hold := m.Tables[i].Hold; hold != nil && hold.ID == id {
			return true
		}
	}
	return false
}

// resolve ends a prepared transaction if it is there. Before a rollback the connections of the operation are
// terminated, so that none of them prepares afterwards.
func (p *Performer) resolve(ctx context.Context, m *directory.Map, shard directory.ShardID, id, gid, verb string) error {
	conn, err := p.dial(ctx, m, shard, "shardyard-recover")
	if err != nil {
		return err
	}
	defer p.giveBack(ctx, conn)
	if verb == "ROLLBACK PREPARED" {
		if err := terminate(ctx, conn, applicationName(id)); err != nil {
			return fmt.Errorf("terminate connections on shard %s: %w", shard, err)
		}
	}
	for {
		var exists bool
		err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_prepared_xacts WHERE gid = $1)", gid).Scan(&exists)
		if err != nil || !exists {
			return err
		}
		// 42704: it is gone; 55000: another router is ending it this moment.
		if _, err := conn.Exec(ctx, verb+" "+quoteLiteral(gid)); err != nil && !isState(err, "42704", "55000") {
			return fmt.Errorf("%s on shard %s: %w", verb, shard, err)
		}
		if err := etcd.Pause(ctx, resolvePause); err != nil {
			return err
		}
	}
}

// terminate ends the connections of that name and waits until they are gone.
func terminate(ctx context.Context, conn *pgx.Conn, name string) error {
	for {
		var found int
		err := conn.QueryRow(ctx, `SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity
			WHERE application_name = $1 AND pid <> pg_catalog.pg_backend_pid()`, name).Scan(&found)
		if err != nil || found == 0 {
			return err
		}
		if err := etcd.Pause(ctx, resolvePause); err != nil {
			return err
		}
	}
}
