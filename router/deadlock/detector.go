package deadlock

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
)

// Statement is one that a client of this router waits for.
type Statement struct {
	// SessionID is the session's number, for the log.
	SessionID uint64
	// Backends are the server processes that the session holds.
	Backends []Backend
	// Cancel ends the statement with an error, if it is still the one that runs.
	Cancel func(ctx context.Context, reason *pgerr.Error)
}

// Config configures a Detector. All functions are required.
type Config struct {
	// Running are the statements that run for longer than this already.
	Running func(longer time.Duration) []Statement
	// Shards are those that may take part.
	Shards func() []directory.Shard
	// Dial opens a connection as the service role.
	Dial func(ctx context.Context, shard directory.Shard, database string) (*pgx.Conn, error)
	// Patience is how long a statement runs before anything is asked of a shard. Defaults to 500 ms.
	Patience time.Duration
	// Interval is the time between two looks. Defaults to 250 ms.
	Interval time.Duration
	// Log defaults to none.
	Log *slog.Logger
}

const (
	defaultPatience = 500 * time.Millisecond
	defaultInterval = 250 * time.Millisecond
	// lookTimeout bounds one look at one shard.
	lookTimeout = 5 * time.Second
	// idleTimeout closes connections that were not needed for so long.
	idleTimeout = 30 * time.Second
	// reluctance is how long a circle stands before the next younger transaction is ended, because nobody ended the youngest:
	// its router hangs, or it belongs to no router.
	reluctance = 3 * time.Second
	// maintenance is the database that the detector connects to: what it reads is about all databases of a server.
	maintenance = "postgres"
)

// Detector looks for deadlocks while a statement of this router waits. It belongs to the goroutine of Run.
type Detector struct {
	cfg      Config
	conns    map[directory.ShardID]*pgx.Conn
	lastUsed time.Time
	seen     map[string]time.Time // circles of the last look, and when they were first seen
}

// New returns a Detector that does nothing before Run.
func New(cfg Config) (*Detector, error) {
	if cfg.Running == nil || cfg.Shards == nil || cfg.Dial == nil {
		return nil, errors.New("configure the deadlock detector: Running, Shards and Dial are required")
	}
	if cfg.Patience <= 0 {
		cfg.Patience = defaultPatience
	}
	if cfg.Interval <= 0 {
		cfg.Interval = defaultInterval
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Detector{cfg: cfg, conns: make(map[directory.ShardID]*pgx.Conn)}, nil
}

// Run looks until ctx ends.
func (d *Detector) Run(ctx context.Context) {
	defer d.closeAll(ctx)
	ticker := time.NewTicker(d.cfg.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			if err := d.look(ctx, now); err != nil && ctx.Err() == nil {
				d.cfg.Log.WarnContext(ctx, "deadlocks could not be looked for", "error", err)
			}
		}
	}
}

// look asks the shards on which statements of this router run for long, and all others only if one of those waits.
func (d *Detector) look(ctx context.Context, now time.Time) error {
	running := d.cfg.Running(d.cfg.Patience)
	if len(running) == 0 {
		d.seen = nil
		if len(d.conns) > 0 && now.Sub(d.lastUsed) > idleTimeout {
			d.closeAll(ctx)
		}
		return nil
	}
	d.lastUsed = now
	ours := make(map[Backend]*Statement)
	joined := make([][]Backend, 0, len(running))
	for i := range running {
		for _, b := range running[i].Backends {
			ours[b] = &running[i]
		}
		joined = append(joined, running[i].Backends)
	}
	var near, far []directory.Shard
	for _, shard := range d.cfg.Shards() {
		uses := func(s Statement) bool {
			return slices.ContainsFunc(s.Backends, func(b Backend) bool { return b.Shard == shard.ID })
		}
		if slices.ContainsFunc(running, uses) {
			near = append(near, shard)
		} else {
			far = append(far, shard)
		}
	}
	waits, failed := d.loadAll(ctx, near)
	if !slices.ContainsFunc(waits, func(w Wait) bool { return ours[w.Waiter.Backend] != nil }) {
		d.seen = nil
		return failed
	}
	others, err := d.loadAll(ctx, far)
	d.act(ctx, now, Circles(append(waits, others...), joined), ours)
	return errors.Join(failed, err)
}

// loadAll asks shards, all at once. One that does not answer takes part in no circle that can be seen.
func (d *Detector) loadAll(ctx context.Context, shards []directory.Shard) ([]Wait, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	type answer struct {
		conn  *pgx.Conn
		waits []Wait
		err   error
	}
	answers := make([]answer, len(shards))
	var work sync.WaitGroup
	for i, shard := range shards {
		a, conn := &answers[i], d.conns[shard.ID]
		work.Go(func() {
			if conn == nil || conn.IsClosed() {
				if conn, a.err = d.cfg.Dial(ctx, shard, maintenance); a.err != nil {
					return
				}
			}
			a.conn = conn
			a.waits, a.err = load(ctx, conn, shard.ID)
		})
	}
	work.Wait()
	var waits []Wait
	var failed error
	for i, shard := range shards {
		if answers[i].conn != nil {
			d.conns[shard.ID] = answers[i].conn
		}
		waits = append(waits, answers[i].waits...)
		failed = errors.Join(failed, answers[i].err)
	}
	return waits, failed
}

// act ends, of each circle that stood already at the last look, the youngest transaction if it is ours.
func (d *Detector) act(ctx context.Context, now time.Time, circles []Circle, ours map[Backend]*Statement) {
	seen := make(map[string]time.Time, len(circles))
	for _, c := range circles {
		signature := c.Signature()
		since, stood := d.seen[signature]
		if !stood {
			seen[signature] = now
			continue
		}
		seen[signature] = since
		order := c.ByAge()
		victim := order[int(now.Sub(since)/reluctance)%len(order)]
		st := ours[c[victim].Waiter.Backend]
		if st == nil {
			continue
		}
		detail := c.Detail(victim)
		d.cfg.Log.WarnContext(ctx, "deadlock over several shards", "session_id", st.SessionID, "circle", detail)
		// gofail: var beforeVictim struct{}
		bounded, cancel := context.WithTimeout(ctx, lookTimeout)
		st.Cancel(bounded, pgerr.New(pgerr.DeadlockDetected, "deadlock detected").WithDetail(detail).
			WithHint("See the router's log for the session."))
		cancel()
	}
	d.seen = seen
}

func (d *Detector) closeAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	for id, conn := range d.conns {
		_ = conn.Close(ctx) // nothing is owed to it
		delete(d.conns, id)
	}
}
