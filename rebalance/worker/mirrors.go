package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/mirror"
)

// Config of a Worker.
type Config struct {
	// Lead runs work while this process is the one worker of the cluster, until ctx ends.
	Lead func(ctx context.Context, work func(ctx context.Context)) error
	// Maps gives the newest maps by database.
	Maps func() map[string]*directory.Map
	// Dial reaches the shards as the service role.
	Dial mirror.Dialer
	// Interval between two looks at the outboxes. Defaults to 1s.
	Interval time.Duration
	// Timeout bounds one look at one database. Defaults to 30s.
	Timeout time.Duration
	// Log. Defaults to none.
	Log *slog.Logger

	now func() time.Time // defaults to time.Now; set by tests only
}

func (c *Config) validate() error {
	if c.Lead == nil || c.Maps == nil || c.Dial == nil {
		return errors.New("worker: an election, the maps and a dialer are needed")
	}
	if c.Interval == 0 {
		c.Interval = time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.Interval < 0 || c.Timeout < 0 {
		return errors.New("worker: interval and timeout must be positive")
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Worker does what one process of the cluster has to do. It belongs to the goroutine of Run.
type Worker struct {
	config Config
	// conns are kept open to look at the outboxes, by database.
	conns map[string]*pgx.Conn
	// told is the last trouble logged of each database, so that the log gets each once.
	told map[string]string
	// failed are the mirrors whose outbox could not be emptied, by database and ID.
	failed map[string]map[string]failure
}

// The pauses before an outbox that could not be emptied is tried again: the first, doubled each time, and the longest.
// New changes in it are tried at once.
const (
	minBackoff = time.Second
	maxBackoff = 30 * time.Second
)

// failure is a mirror whose outbox could not be emptied.
type failure struct {
	left  outbox
	pause time.Duration
	until time.Time
	err   error
}

// outbox is what an outbox has of one mirror.
type outbox struct {
	Last  int64
	Count int64
}

// New makes a Worker.
func New(config Config) (*Worker, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	return &Worker{config: config, conns: make(map[string]*pgx.Conn), told: make(map[string]string), failed: make(map[string]map[string]failure)}, nil
}

// Run works whenever this process is elected, until ctx ends.
func (w *Worker) Run(ctx context.Context) error {
	return w.config.Lead(ctx, w.term)
}

// term applies, as long as it is elected, what writers around the routers leave in the outboxes of mirrors.
func (w *Worker) term(ctx context.Context) {
	defer w.closeAll(ctx)
	defer clear(w.failed)
	ticker := time.NewTicker(w.config.Interval)
	defer ticker.Stop()
	for {
		// gofail: var workerBeforeRound struct{}
		for database, m := range w.config.Maps() {
			err := w.look(ctx, m)
			if ctx.Err() != nil {
				return
			}
			w.tell(ctx, database, err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (w *Worker) tell(ctx context.Context, database string, err error) {
	switch {
	case err == nil:
		delete(w.told, database)
	case w.told[database] != err.Error():
		w.told[database] = err.Error()
		w.config.Log.WarnContext(ctx, "mirrors of a database are behind", "database", database, "error", err)
	}
}

// look sweeps the mirrors of a database whose outbox is not empty.
func (w *Worker) look(ctx context.Context, m *directory.Map) error {
	mirrors := mirror.Of(m)
	if len(mirrors) == 0 {
		delete(w.failed, m.Database)
		w.close(ctx, m.Database)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, w.config.Timeout)
	defer cancel()
	left, err := w.left(ctx, m)
	if err != nil {
		w.close(ctx, m.Database)
		return err
	}
	var failed error
	now, tried := w.config.now(), w.failed[m.Database]
	w.failed[m.Database] = make(map[string]failure)
	for _, of := range mirrors {
		has, behind := left[of.ID]
		if !behind {
			continue
		}
		before, again := tried[of.ID]
		if again && before.left == has && now.Before(before.until) {
			w.failed[m.Database][of.ID] = before
			failed = errors.Join(failed, before.err)
			continue
		}
		applied, err := mirror.Sweep(ctx, m, of, w.config.Dial)
		if applied > 0 {
			w.config.Log.InfoContext(ctx, "applied changes of writers around the routers", "database", m.Database, "table", of.Table.String(), "changes", applied)
		}
		if err == nil {
			continue
		}
		pause := min(max(minBackoff, 2*before.pause), maxBackoff)
		has.Count -= int64(applied)
		w.failed[m.Database][of.ID] = failure{left: has, pause: pause, until: now.Add(pause), err: err}
		failed = errors.Join(failed, err)
	}
	return failed
}

// left are the committed changes in the outbox, by mirror.
func (w *Worker) left(ctx context.Context, m *directory.Map) (map[string]outbox, error) {
	conn := w.conns[m.Database]
	if conn == nil {
		home, ok := m.Shard(m.Home)
		if !ok {
			return nil, fmt.Errorf("look at the outbox: home shard %s is not in the map", m.Home)
		}
		var err error
		if conn, err = w.config.Dial(ctx, *home, m.Database); err != nil {
			return nil, fmt.Errorf("connect to home shard %s: %w", m.Home, err)
		}
		w.conns[m.Database] = conn
	}
	rows, err := conn.Query(ctx, "SELECT mirror, pg_catalog.max(sequence), pg_catalog.count(*) FROM shardyard.change GROUP BY mirror")
	if err != nil {
		return nil, fmt.Errorf("look at the outbox: %w", err)
	}
	left := make(map[string]outbox)
	var id string
	var has outbox
	if _, err := pgx.ForEachRow(rows, []any{&id, &has.Last, &has.Count}, func() error { left[id] = has; return nil }); err != nil {
		return nil, fmt.Errorf("look at the outbox: %w", err)
	}
	return left, nil
}

// closeTimeout bounds the goodbye to a server.
const closeTimeout = 2 * time.Second

func (w *Worker) close(ctx context.Context, database string) {
	conn := w.conns[database]
	if conn == nil {
		return
	}
	delete(w.conns, database)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx) // nothing is open on it
}

func (w *Worker) closeAll(ctx context.Context) {
	for database := range w.conns {
		w.close(ctx, database)
	}
}
