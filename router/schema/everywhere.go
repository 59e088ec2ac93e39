package schema

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
)

// everywhere runs a statement about what all shards have alike on the home shard, whose error is the client's if it
// has one, and then on all others, in the client's own transaction.
func (w *work) everywhere(ctx context.Context) error {
	if err := w.t.p.reached("run " + string(w.m.Home)); err != nil {
		return err
	}
	w.t.shards = appendNew(w.t.shards, w.m.Home)
	if err := w.links.Run(ctx, w.m.Home, true); err != nil || len(w.m.Shards) == 1 {
		return err
	}
	if err := w.t.p.reachAll(ctx, w.m); err != nil {
		return err
	}
	for i := range w.m.Shards {
		shard := w.m.Shards[i].ID
		if shard == w.m.Home {
			continue
		}
		if err := w.t.p.reached("run " + string(shard)); err != nil {
			return err
		}
		if err := w.alsoOn(ctx, shard); err != nil {
			return err
		}
		// gofail: var betweenShards struct{}
	}
	return w.compareExtensions(ctx)
}

// reachAll makes sure that the database is on all shards of its map, with the bookkeeping by which transactions on several
// shards commit: nothing of it may have been sharded yet.
func (p *Performer) reachAll(ctx context.Context, m *directory.Map) error {
	var lacking []directory.ShardID
	for i := range m.Shards {
		ready, err := p.hasBookkeeping(ctx, m, &m.Shards[i])
		if err != nil {
			return err
		}
		if !ready {
			lacking = append(lacking, m.Shards[i].ID)
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	home, err := p.dial(ctx, m, m.Home, "shardyard-join")
	if err != nil {
		return err
	}
	defer p.giveBack(ctx, home)
	for _, shard := range lacking {
		if err := p.join(ctx, m, home, shard); err != nil {
			return fmt.Errorf("join shard %s to database %s: %w", shard, m.Database, err)
		}
	}
	return nil
}

func (p *Performer) hasBookkeeping(ctx context.Context, m *directory.Map, shard *directory.Shard) (ready bool, err error) {
	conn, err := p.config.Dial(ctx, *shard, m.Database)
	if isState(err, "3D000") {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("connect to shard %s: %w", shard.ID, err)
	}
	defer p.config.GiveBack(ctx, conn)
	err = conn.QueryRow(ctx, "SELECT pg_catalog.to_regclass('shardyard.decision') IS NOT NULL").Scan(&ready)
	if err != nil {
		return false, fmt.Errorf("look for the bookkeeping of shard %s: %w", shard.ID, err)
	}
	return ready, nil
}

// alsoOn runs the statement on a shard other than the home shard. A role that it lacks was made around the routers on the
// home shard: it is brought first.
func (w *work) alsoOn(ctx context.Context, shard directory.ShardID) error {
	failed, err := w.attempt(ctx, shard)
	if err == nil && failed != nil && pgerr.Of(failed).Code == "42704" && !w.aboutExtension() {
		if err = w.t.p.syncRoles(ctx, w.m, []directory.ShardID{shard}); err == nil {
			failed, err = w.attempt(ctx, shard)
		}
	}
	switch {
	case err != nil:
		return err
	case failed == nil || w.needless(failed):
		return nil
	}
	return w.onlyThere(failed, shard)
}

func (w *work) aboutExtension() bool { return strings.HasSuffix(w.request.Tag, " EXTENSION") }

// needless tells whether an error says that a shard has nothing to do: another database of the cluster is not there yet, and
// gets what it has at home when it comes; or the shard has the extension already, or does not have what is dropped.
func (w *work) needless(failed error) bool {
	switch pgerr.Of(failed).Code {
	case "3D000":
		return true
	case "42710":
		return w.request.Tag == "CREATE EXTENSION"
	case "42704":
		return w.aboutExtension() || w.request.Tag == "COMMENT"
	}
	return false
}

// onlyThere is the error of a shard for what the home shard has done.
func (w *work) onlyThere(failed error, shard directory.ShardID) error {
	e := *pgerr.Of(failed)
	detail := fmt.Sprintf("Shard %s refused it, the home shard did not. Nothing was changed on any shard.", shard)
	if e.Detail != "" {
		detail = e.Detail + "\n" + detail
	}
	told := e.WithDetail(detail)
	if e.Code == "42710" && w.request.Tag == "CREATE ROLE" {
		told = told.WithHint("That shard has a role of this name which the home shard has not. DROP ROLE IF EXISTS drops it there.")
	}
	return told.Because(failed)
}

// attempt runs the statement on a shard. What failed is undone there, so that the transaction goes on.
func (w *work) attempt(ctx context.Context, shard directory.ShardID) (failed, err error) {
	err = w.links.Lend(ctx, shard, func(conn *pgx.Conn) error {
		return run(ctx, conn, []string{"SAVEPOINT " + objectSavepoint})
	})
	if err != nil {
		return nil, err
	}
	failed = w.run(ctx, shard, false)
	end := []string{"RELEASE " + objectSavepoint}
	if failed != nil {
		end = []string{"ROLLBACK TO " + objectSavepoint, "RELEASE " + objectSavepoint}
	}
	err = w.links.Lend(ctx, shard, func(conn *pgx.Conn) error { return run(ctx, conn, end) })
	if err != nil && failed != nil { // the connection is lost: the first error tells why
		err = failed
	}
	return failed, err
}

// compareExtensions refuses an extension that came out in another version on another shard: its functions could give other
// answers there.
func (w *work) compareExtensions(ctx context.Context) error {
	if w.request.Extension == "" {
		return nil
	}
	home, err := w.extensionsOn(ctx, w.m.Home)
	if err != nil {
		return err
	}
	for i := range w.m.Shards {
		shard := w.m.Shards[i].ID
		if shard == w.m.Home {
			continue
		}
		there, err := w.extensionsOn(ctx, shard)
		if err != nil {
			return err
		}
		for name, version := range there {
			if want, ok := home[name]; ok && want != version && (name == w.request.Extension || w.request.Cascades) {
				return pgerr.Newf("55000", "extension %q is of version %s on the home shard and of version %s on shard %s", name, want, version, shard).
					WithHint("Install the same version on all servers, or name one in the statement that all have.")
			}
		}
	}
	return nil
}

func (w *work) extensionsOn(ctx context.Context, shard directory.ShardID) (versions map[string]string, err error) {
	versions = make(map[string]string)
	err = w.links.Lend(ctx, shard, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, "SELECT extname::text, extversion FROM pg_catalog.pg_extension")
		if err != nil {
			return err
		}
		var name, version string
		_, err = pgx.ForEachRow(rows, []any{&name, &version}, func() error {
			versions[name] = version
			return nil
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list extensions of shard %s: %w", shard, err)
	}
	return versions, nil
}

// Reach makes sure that a database is on all shards of its map.
func (p *Performer) Reach(ctx context.Context, m *directory.Map) error { return p.reachAll(ctx, m) }
