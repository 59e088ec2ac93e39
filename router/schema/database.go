package schema

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/router/pgerr"
)

// inUseTimeout is how long DROP DATABASE waits for the database's sessions to end, as in Postgres.
const inUseTimeout = 5 * time.Second

// dropTimeout bounds the part of DROP DATABASE that is done even if the client has gone.
const dropTimeout = time.Minute

// MayCreateDatabase tells whether a database of that name can be created on the home shard: 42P04 if another shard has
// one, which could hold anything. A map that a database of this name has left is removed: the database was dropped
// around the routers.
func (p *Performer) MayCreateDatabase(ctx context.Context, name, template string) error {
	m, err := p.emptyMap(ctx, name)
	if err != nil {
		return err
	}
	if template != "" {
		other, err := p.config.Store.LoadMap(ctx, template)
		if err != nil && !errors.Is(err, etcd.ErrNotFound) {
			return err
		}
		if err == nil && other.AnythingSharded() {
			return pgerr.Newf("0A000", "database %q cannot be a template: its tables are on several shards", template).
				WithHint("Create an empty database, and restore a dump of the other one into it.")
		}
	}
	for i := range m.Shards {
		exists, err := p.hasDatabase(ctx, &m.Shards[i], name)
		if err != nil {
			return err
		}
		if exists && m.Shards[i].ID == m.Home {
			return nil // the home shard's error is the answer
		}
		if exists {
			return pgerr.Newf("42P04", "database %q already exists", name).WithDetail("It is on shard " + string(m.Shards[i].ID) + ".").
				WithHint("Nothing of this cluster uses it there: drop it on that server, without the router.")
		}
	}
	if err := p.config.Store.DeleteMap(ctx, name); err != nil && !errors.Is(err, etcd.ErrNotFound) {
		return fmt.Errorf("remove the map of a database that is gone: %w", err)
	}
	return nil
}

// CreatedDatabase brings a database that was created on the home shard to the other shards, and gives it a map.
func (p *Performer) CreatedDatabase(ctx context.Context, name string) (*directory.Map, error) {
	m, err := p.emptyMap(ctx, name)
	if err != nil {
		return nil, err
	}
	home, err := p.dial(ctx, m, m.Home, "shardyard-join")
	if err != nil {
		return nil, err
	}
	defer p.giveBack(ctx, home)
	done := []directory.ShardID{m.Home}
	for _, shard := range m.Shards {
		if err := p.join(ctx, m, home, shard.ID); err != nil {
			return nil, halfCreated(err, done, shard.ID)
		}
		done = appendNew(done, shard.ID)
	}
	if err := p.config.Store.CreateMap(ctx, m); err != nil && !errors.Is(err, etcd.ErrExists) {
		return nil, fmt.Errorf("create map of database %s: %w", name, err)
	}
	return p.config.Store.LoadMap(ctx, name)
}

func halfCreated(err error, done []directory.ShardID, failed directory.ShardID) error {
	e := pgerr.Of(err)
	code := e.Code
	if code == pgerr.InternalError {
		code = "08006"
	}
	return pgerr.Newf(code, "the database was not created on all shards: %s", e.Message).
		WithDetail(fmt.Sprintf("CREATE DATABASE was done on %s, and failed on %s.", listShards(done), failed)).
		WithHint("The database can be used: a shard gets it with the first table that is sharded onto it. Or run DROP DATABASE and begin again.").
		Because(err)
}

func listShards(shards []directory.ShardID) string {
	var names []string
	for _, shard := range shards {
		names = append(names, string(shard))
	}
	return strings.Join(names, ", ")
}

// onServer runs something on a shard's maintenance database.
func (p *Performer) onServer(ctx context.Context, shard *directory.Shard, do func(*pgx.Conn) error) error {
	conn, err := p.config.Dial(ctx, *shard, maintenance)
	if err != nil {
		return fmt.Errorf("connect to shard %s: %w", shard.ID, err)
	}
	defer p.config.GiveBack(ctx, conn)
	return do(conn)
}

func (p *Performer) hasDatabase(ctx context.Context, shard *directory.Shard, name string) (exists bool, err error) {
	err = p.onServer(ctx, shard, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1)", name).Scan(&exists)
	})
	return exists, err
}

// DropDatabase drops a database on all shards, the home shard last, and then its map. The caller has checked that the
// user may. The steps are those of docs/decisions/databases.md. An error means that the database is as it was, but for one that
// says that it is being dropped: then Recover completes it.
func (p *Performer) DropDatabase(ctx context.Context, name string, force bool) error {
	drop := directory.Drop{ID: newID(), Owner: p.config.Router, Force: force}
	m, err := p.vacate(ctx, name, drop)
	if err != nil {
		return err
	}
	defer p.setActive(drop.ID, false)
	for i := range m.Shards {
		if err := p.shutOut(ctx, m, &m.Shards[i], force); err != nil {
			return p.keep(ctx, m, drop, err)
		}
	}
	if err := p.reached("decide"); err != nil {
		return err
	}
	drop.Decided = true
	decided, err := p.config.Store.Apply(ctx, name, directory.SetDrop{Drop: drop})
	if errors.Is(err, etcd.ErrOutcomeUnknown) {
		return pgerr.New(pgerr.OutcomeUnknown, "it is not known whether the database will be dropped").
			WithHint("Connect to it: until that is known it takes no sessions.").Because(err)
	}
	if err != nil {
		return p.keep(ctx, m, drop, err)
	}
	return p.finishDrop(ctx, decided)
}

// vacate marks a database, and returns when no router has anything of it any more. The mark is active then.
func (p *Performer) vacate(ctx context.Context, name string, drop directory.Drop) (*directory.Map, error) {
	m, err := p.emptyMap(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := p.config.Store.CreateMap(ctx, m); err != nil && !errors.Is(err, etcd.ErrExists) {
		return nil, fmt.Errorf("mark database %s: %w", name, err)
	}
	p.setActive(drop.ID, true)
	waiting, cancel := context.WithTimeout(ctx, inUseTimeout)
	defer cancel()
	// No shards: what keeps others out there is that the databases take no connections.
	marked, err := p.config.Fence.Publish(waiting, name, nil, directory.SetDrop{Drop: drop})
	if err == nil {
		err = p.reached("vacated")
	}
	if err == nil || errors.Is(err, errCrash) {
		return marked, err
	}
	var missing *etcd.NotAcknowledgedError
	switch {
	case errors.Is(err, directory.ErrHeld):
		err = pgerr.Newf("55006", "database %q is being changed by another session", name).WithDetail(err.Error()).
			WithHint("Try again when that has ended.").Because(err)
	case ctx.Err() != nil:
	case errors.As(err, &missing):
		err = pgerr.Newf("55006", "database %q is being accessed by other users", name).
			WithDetail("Routers with sessions of it: " + strings.Join(missing.Routers, ", ") + ".").Because(err)
	}
	return nil, p.keep(ctx, m, drop, err)
}

// keep undoes an undecided drop, because of an error.
func (p *Performer) keep(ctx context.Context, m *directory.Map, drop directory.Drop, cause error) error {
	defer p.setActive(drop.ID, false)
	if errors.Is(cause, errCrash) {
		return cause
	}
	ctx, cancel := p.cleanup(ctx)
	defer cancel()
	if err := p.undoDrop(ctx, m, drop.ID); err != nil {
		p.config.Log.WarnContext(ctx, "database left to recovery", "database", m.Database, "error", err)
	}
	return cause
}

func (p *Performer) undoDrop(ctx context.Context, m *directory.Map, id string) error {
	for i := range m.Shards {
		err := p.onServer(ctx, &m.Shards[i], func(conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "ALTER DATABASE "+pgx.Identifier{m.Database}.Sanitize()+" WITH ALLOW_CONNECTIONS true")
			if isState(err, "3D000") {
				return nil
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("open database %s on shard %s: %w", m.Database, m.Shards[i].ID, err)
		}
	}
	_, err := p.config.Store.Apply(ctx, m.Database, directory.ClearDrop{ID: id})
	if errors.Is(err, directory.ErrNotHeld) {
		return nil
	}
	return err
}

// shutOut lets nobody connect to the database on a shard any more, and waits until nobody is connected. Connections of
// routers that are gone are terminated.
func (p *Performer) shutOut(ctx context.Context, m *directory.Map, shard *directory.Shard, force bool) error {
	return p.onServer(ctx, shard, func(conn *pgx.Conn) error {
		waiting, cancel := context.WithTimeout(ctx, inUseTimeout)
		defer cancel()
		// Those that are prepared are ended by the routers, which connect for it.
		if err := p.awaitNone(waiting, conn, m.Database, "", preparedIn); err != nil {
			return err
		}
		_, err := conn.Exec(ctx, "ALTER DATABASE "+pgx.Identifier{m.Database}.Sanitize()+" WITH ALLOW_CONNECTIONS false")
		if isState(err, "3D000") {
			return nil // never was on this shard
		}
		if err != nil {
			return fmt.Errorf("close database %s on shard %s: %w", m.Database, shard.ID, err)
		}
		if err := p.reached("closed " + string(shard.ID)); err != nil {
			return err
		}
		terminate := "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE datname = $1"
		if !force {
			terminate += " AND application_name LIKE 'shardyard%'"
		}
		return p.awaitNone(waiting, conn, m.Database, terminate, preparedIn+
			" + (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity WHERE datname = $1)")
	})
}

// preparedIn counts the prepared transactions of a database.
const preparedIn = "SELECT (SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_xacts WHERE database = $1)"

// awaitNone waits until a query counts nothing any more. Before each look it runs the statement first, if there is one.
func (p *Performer) awaitNone(ctx context.Context, conn *pgx.Conn, database, first, query string) error {
	var count int
	for {
		err := error(nil)
		if first != "" {
			_, err = conn.Exec(ctx, first, database)
		}
		if err == nil {
			err = conn.QueryRow(ctx, query, database).Scan(&count)
		}
		switch {
		case err == nil && count == 0:
			return nil
		case err != nil && ctx.Err() == nil:
			return fmt.Errorf("look who uses database %s: %w", database, err)
		}
		if etcd.Pause(ctx, resolvePause) == nil {
			continue
		}
		if !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			return context.Cause(ctx)
		}
		return pgerr.Newf("55006", "database %q is being accessed by other users", database).
			WithDetail(fmt.Sprintf("There are %d other sessions or prepared transactions using the database on a shard.", count))
	}
}

// finishDrop drops what a decided drop has left: the database on the other shards, on the home shard, and the map. It may be
// repeated, by anyone.
func (p *Performer) finishDrop(ctx context.Context, m *directory.Map) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropTimeout)
	defer cancel()
	shards := slices.Clone(m.Shards)
	slices.SortStableFunc(shards, func(a, b directory.Shard) int {
		switch m.Home {
		case a.ID:
			return 1
		case b.ID:
			return -1
		}
		return 0
	})
	var done []directory.ShardID
	for i := range shards {
		if err := p.reached("drop " + string(shards[i].ID)); err != nil {
			return err
		}
		err := p.onServer(ctx, &shards[i], func(conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{m.Database}.Sanitize()+" WITH (FORCE)")
			return err
		})
		if err != nil {
			return halfDropped(err, done, shards[i:])
		}
		done = append(done, shards[i].ID)
	}
	if err := p.config.Store.DeleteMap(ctx, m.Database); err != nil && !errors.Is(err, etcd.ErrNotFound) {
		return fmt.Errorf("remove the map of database %s: %w", m.Database, err)
	}
	return nil
}

func halfDropped(err error, done []directory.ShardID, left []directory.Shard) error {
	e := pgerr.Of(err)
	detail := "DROP DATABASE failed on " + string(left[0].ID)
	if len(done) > 0 {
		detail = "DROP DATABASE was done on " + listShards(done) + ", and failed on " + string(left[0].ID)
	}
	return pgerr.Newf("08006", "the database is being dropped, but a shard has not done it yet: %s", e.Message).WithDetail(detail + ".").
		WithHint("Routers complete it as soon as the shard lets them. Until then the database takes no sessions.").Because(err)
}

// RenameDatabase gives a database in which nothing is sharded another name. home renames it on the home shard, as the client.
func (p *Performer) RenameDatabase(ctx context.Context, from, to string, home func() error) error {
	current, err := p.config.Store.LoadMap(ctx, from)
	if err == nil && current.AnythingSharded() {
		return pgerr.Newf("0A000", "database %q cannot be renamed: its tables are on several shards", from).
			WithHint("Create a database of the new name, and restore a dump into it.")
	}
	if err != nil && !errors.Is(err, etcd.ErrNotFound) {
		return err
	}
	drop := directory.Drop{ID: newID(), Owner: p.config.Router}
	m, err := p.vacate(ctx, from, drop)
	if err != nil {
		return err
	}
	var renamed []directory.Shard
	for i := range m.Shards {
		if m.Shards[i].ID == m.Home {
			continue
		}
		if err = p.renameOn(ctx, &m.Shards[i], from, to); err != nil {
			break
		}
		renamed = append(renamed, m.Shards[i])
	}
	if err == nil {
		err = home()
	}
	if err != nil {
		undoing, cancel := p.cleanup(ctx)
		defer cancel()
		for i := range renamed {
			if undo := p.renameOn(undoing, &renamed[i], to, from); undo != nil {
				p.config.Log.WarnContext(ctx, "database keeps its new name on a shard", "database", from, "shard", renamed[i].ID, "error", undo)
			}
		}
		return p.keep(ctx, m, drop, err)
	}
	defer p.setActive(drop.ID, false)
	ctx, cancel := p.cleanup(ctx)
	defer cancel()
	if err := p.config.Store.DeleteMap(ctx, from); err != nil && !errors.Is(err, etcd.ErrNotFound) {
		return fmt.Errorf("remove the map of database %s: %w", from, err)
	}
	return nil
}

// renameOn renames a database on a shard other than the home shard, if that has it.
func (p *Performer) renameOn(ctx context.Context, shard *directory.Shard, from, to string) error {
	exists, err := p.hasDatabase(ctx, shard, from)
	if err != nil || !exists {
		return err
	}
	return p.onServer(ctx, shard, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "ALTER DATABASE "+pgx.Identifier{from}.Sanitize()+" RENAME TO "+pgx.Identifier{to}.Sanitize())
		return err
	})
}

// recoverDrop ends what a router that is gone has left of DROP DATABASE.
func (p *Performer) recoverDrop(ctx context.Context, m *directory.Map, alive map[string]bool) error {
	drop := m.Drop
	if drop == nil || p.isActive(drop.ID) || drop.Owner != p.config.Router && alive[drop.Owner] {
		return nil
	}
	p.config.Log.InfoContext(ctx, "recovering a DROP DATABASE", "database", m.Database, "decided", drop.Decided)
	if drop.Decided {
		return p.finishDrop(ctx, m)
	}
	return p.undoDrop(ctx, m, drop.ID)
}
