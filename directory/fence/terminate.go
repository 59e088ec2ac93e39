package fence

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
)

// applicationPrefix begins the application_name of every server connection of a router:
// shardyard/<router>/<session>, where the session begins with the instance and a dot.
const applicationPrefix = "shardyard/"

// goneTimeout bounds the wait for terminated backends of one shard; a backend that does not obey for that
// long (it is stuck in the kernel) is an error.
const goneTimeout = 30 * time.Second

// backend is one server connection of a router, as a shard shows it. A PID alone would be reused.
type backend struct {
	pid         int32
	start       time.Time
	application string
}

// activityOf lists the routers' connections to the map's database on each of the shards.
func (f *Fence) activityOf(ctx context.Context, m *directory.Map, shards []directory.Shard) ([][]backend, error) {
	activity := make([][]backend, len(shards))
	err := eachShard(shards, func(i int, shard directory.Shard) error {
		conn, err := f.config.Dial(ctx, shard, m.Database)
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		defer f.config.GiveBack(ctx, conn)
		activity[i], err = listBackends(ctx, conn, m.Database)
		return err
	})
	return activity, err
}

// judge divides the connections of one shard into those to terminate and those whose router is still behind.
func judge(activity []backend, routers []etcd.RouterState, m *directory.Map) (doomed, waiting []backend) {
	for _, b := range activity {
		switch standing(b.application, routers, m) {
		case dead:
			doomed = append(doomed, b)
		case behind:
			waiting = append(waiting, b)
		case covered:
		}
	}
	return doomed, waiting
}

// terminateDead performs one round of step 4 and leaves in activity the connections whose router is still behind.
func (f *Fence) terminateDead(
	ctx context.Context, m *directory.Map, shards []directory.Shard, activity [][]backend,
) (done bool, err error) {
	// Invariant: the routers are read after the connections were, so the connections of a router that
	// registered before it opened them are never taken for those of a dead one.
	routers, err := f.config.Store.Routers(ctx)
	if errors.Is(err, etcd.ErrUnavailable) {
		return false, nil // the next round waits for etcd
	}
	if err != nil {
		return false, err
	}
	done = true
	doomed := make([][]backend, len(shards))
	for i := range shards {
		doomed[i], activity[i] = judge(activity[i], routers, m)
		done = done && len(activity[i]) == 0
	}
	return done, eachShard(shards, func(i int, shard directory.Shard) error {
		if len(doomed[i]) == 0 {
			return nil
		}
		conn, err := f.config.Dial(ctx, shard, m.Database)
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		defer f.config.GiveBack(ctx, conn)
		f.config.Log.InfoContext(ctx, "terminating server connections of routers that are not live",
			"shard", shard.ID, "epoch", m.Epoch, "connections", len(doomed[i]))
		return terminate(ctx, conn, doomed[i])
	})
}

// verdict on one server connection.
type verdict int

const (
	covered verdict = iota // its router is live and acknowledged the epoch
	behind                 // its router is live and has not yet
	dead                   // it belongs to no live router
)

// standing judges a connection by its application_name.
func standing(application string, routers []etcd.RouterState, m *directory.Map) verdict {
	name, session, ok := strings.Cut(strings.TrimPrefix(application, applicationPrefix), "/")
	if !ok {
		return dead
	}
	var live *etcd.RouterState
	expired := false
	for i, r := range routers {
		if r.Info.Name != name {
			continue
		}
		if r.Live {
			live = &routers[i]
		} else {
			expired = true
		}
	}
	if live == nil {
		return dead
	}
	if !strings.HasPrefix(session, live.Instance+".") {
		// Not certainly a connection of the live process: it names another one, or names none while another
		// process of that name has expired.
		if expired || namesInstance(session) {
			return dead
		}
	}
	if live.Acknowledged[m.Database] < m.Epoch {
		return behind
	}
	return covered
}

// namesInstance says whether a session's name begins with an instance: eight hexadecimal digits and a dot.
func namesInstance(session string) bool {
	const digits = 8
	return len(session) > digits && session[digits] == '.' &&
		strings.Trim(session[:digits], "0123456789abcdef") == ""
}

// listBackends gives the routers' connections to the database; empty: to any database of the shard.
func listBackends(ctx context.Context, conn *pgx.Conn, database string) ([]backend, error) {
	rows, err := conn.Query(ctx, `SELECT pid, backend_start, application_name FROM pg_stat_activity
		WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
		  AND starts_with(application_name, $1) AND ($2 = '' OR datname = $2)`, applicationPrefix, database)
	if err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	backends, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (b backend, err error) {
		return b, row.Scan(&b.pid, &b.start, &b.application)
	})
	if err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	return backends, nil
}

// terminate ends the backends and waits until they are gone, their transactions rolled back.
func terminate(ctx context.Context, conn *pgx.Conn, backends []backend) error {
	waiting, cancel := context.WithTimeoutCause(ctx, goneTimeout, errors.New("they do not end"))
	defer cancel()
	pids, starts := make([]int32, len(backends)), make([]time.Time, len(backends))
	for i, b := range backends {
		pids[i], starts[i] = b.pid, b.start
	}
	const which = ` FROM pg_stat_activity JOIN unnest($1::int4[], $2::timestamptz[]) AS doomed (pid, start)
		ON doomed.pid = pg_stat_activity.pid AND doomed.start = pg_stat_activity.backend_start`
	for attempt := 1; ; attempt++ {
		// Signalled anew each time: a backend could have missed it while it started.
		var left int
		if err := conn.QueryRow(waiting, "SELECT count(pg_terminate_backend(doomed.pid))"+which, pids, starts).Scan(&left); err != nil {
			return fmt.Errorf("terminate connections: %w", err)
		}
		if left == 0 {
			return nil
		}
		if err := etcd.Pause(waiting, time.Duration(min(attempt, 20))*5*time.Millisecond); err != nil {
			return fmt.Errorf("wait for %d terminated connections: %w", left, err)
		}
	}
}

// forgetExpired removes the traces of expired routers, once their connections to every shard of the map
// and to all its databases are gone. A shard that cannot be reached keeps the traces for the next time: they
// only inform, since termination goes by what the shards show.
func (f *Fence) forgetExpired(ctx context.Context, m *directory.Map) {
	routers, err := f.config.Store.Routers(ctx)
	if err != nil {
		return // an outage of etcd; the next settlement comes by here again
	}
	expired := slices.DeleteFunc(routers, func(r etcd.RouterState) bool { return r.Live })
	if len(expired) == 0 {
		return
	}
	cleaning, cancel := context.WithTimeout(ctx, healTimeout)
	defer cancel()
	err = eachShard(m.Shards, func(_ int, shard directory.Shard) error { return f.clear(cleaning, shard, m.Database, expired) })
	if err != nil {
		f.config.Log.InfoContext(ctx, "expired routers are kept in mind", "error", err)
		return
	}
	for _, r := range expired {
		if err := f.config.Store.Forget(cleaning, r); err != nil {
			f.config.Log.InfoContext(ctx, "expired routers are kept in mind", "error", err)
			return
		}
	}
}

// clear terminates the connections of expired routers to any database of the shard.
func (f *Fence) clear(ctx context.Context, shard directory.Shard, database string, expired []etcd.RouterState) error {
	conn, err := f.config.Dial(ctx, shard, database)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer f.config.GiveBack(ctx, conn)
	backends, err := listBackends(ctx, conn, "")
	if err != nil {
		return err
	}
	// Read after the connections, as in terminateDead: a router may have come back.
	routers, err := f.config.Store.Routers(ctx)
	if err != nil {
		return err
	}
	// At epoch 0 nobody is behind: only who is dead matters here.
	none := &directory.Map{}
	doomed := slices.DeleteFunc(backends, func(b backend) bool {
		ofExpired := slices.ContainsFunc(expired, func(r etcd.RouterState) bool {
			return strings.HasPrefix(b.application, applicationPrefix+r.Info.Name+"/")
		})
		return !ofExpired || standing(b.application, routers, none) != dead
	})
	return terminate(ctx, conn, doomed)
}
