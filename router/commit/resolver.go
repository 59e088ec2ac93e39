package commit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
)

// Config is what a Resolver is told.
type Config struct {
	// Maps gives the current map of each database. Required; any goroutine calls it.
	Maps func() map[string]*directory.Map
	// Dial opens a service connection, as a superuser or a member of all roles of the applications. Required.
	Dial func(ctx context.Context, shard directory.Shard, database string) (*pgx.Conn, error)
	// GiveBack takes back a connection of Dial, in the state that it had. Defaults to closing it.
	GiveBack func(ctx context.Context, conn *pgx.Conn)
	// Database is one that every shard has. Defaults to "postgres".
	Database string
	// Interval is the pause between two looks at the shards. Defaults to 1 s.
	Interval time.Duration
	// Grace is the age below which a prepared transaction is left to its router. Defaults to 1 s.
	Grace time.Duration
	// Patience is the age from which a transaction is aborted that its last agent still has open: its router
	// hangs, or is cut off from the shard. Defaults to 10 s.
	Patience time.Duration
	// PruneInterval is the pause between two looks for decisions that nobody needs any more. Defaults to 30 s.
	PruneInterval time.Duration
	// Keep is how long a decision stays at least; the same on all routers. A participant whose failover loses a commit
	// that is older can find its transaction prepared and the decision gone: such a transaction stays in doubt. Defaults to 5 min.
	Keep time.Duration
	// Log defaults to a logger that discards.
	Log *slog.Logger
}

func (c *Config) setDefaults() {
	c.Database = cmp.Or(c.Database, "postgres")
	c.Interval = cmp.Or(c.Interval, time.Second)
	c.Grace = cmp.Or(c.Grace, time.Second)
	c.Patience = cmp.Or(c.Patience, 10*time.Second)
	c.PruneInterval = cmp.Or(c.PruneInterval, 30*time.Second)
	c.Keep = cmp.Or(c.Keep, 5*time.Minute)
	if c.GiveBack == nil {
		c.GiveBack = Close
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

func (c *Config) validate() error {
	if c.Maps == nil || c.Dial == nil {
		return errors.New("configure recovery: maps and dial are required")
	}
	for name, d := range map[string]time.Duration{
		"interval": c.Interval, "grace": c.Grace, "patience": c.Patience, "prune interval": c.PruneInterval, "keep": c.Keep,
	} {
		if d <= 0 {
			return fmt.Errorf("configure recovery: %s: want more than 0, got %s", name, d)
		}
	}
	return nil
}

// Resolver finishes the transactions over several shards that their routers have not finished, and removes
// decisions that nobody needs any more. Any number of them may run at the same time, on any number of routers.
type Resolver struct {
	cfg Config

	// Only the goroutine of Run uses these.
	watches map[directory.ShardID]*watch
	pruned  time.Time

	mu         sync.Mutex
	complained map[place]time.Time // when the log was last told that a place could not be worked on
}

// watch is a standing connection to a shard, over which its prepared transactions are listed.
type watch struct {
	shard directory.Shard
	conn  *pgx.Conn // nil: to be opened
	told  bool      // the log knows that the shard cannot be reached
	found []doubt
	err   error
}

// doubt is a transaction that is prepared on a shard.
type doubt struct {
	gid      GID
	shard    directory.ShardID
	database string
	age      time.Duration
}

// NewResolver returns a Resolver; Run does its work.
func NewResolver(cfg Config) (*Resolver, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Resolver{cfg: cfg, watches: make(map[directory.ShardID]*watch), complained: make(map[place]time.Time)}, nil
}

// lookTimeout bounds everything that recovery asks of one shard at a time.
const lookTimeout = 5 * time.Second

// Run works until ctx ends.
func (r *Resolver) Run(ctx context.Context) {
	defer func() {
		for _, w := range r.watches {
			w.close(ctx)
		}
	}()
	ticker := time.NewTicker(r.cfg.Interval)
	defer ticker.Stop()
	for {
		// gofail: var recoveryBeforeRound struct{}
		r.round(ctx)
		if now := time.Now(); now.Sub(r.pruned) >= r.cfg.PruneInterval {
			r.pruned = now
			r.prune(ctx)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// round looks at all shards and finishes what can be finished.
func (r *Resolver) round(ctx context.Context) {
	maps := r.cfg.Maps()
	r.look(ctx, maps)
	var found []doubt
	for _, w := range r.watches {
		for _, d := range w.found {
			if d.age >= r.cfg.Grace {
				found = append(found, d)
			}
		}
	}
	if len(found) > 0 {
		r.resolve(ctx, maps, found)
	}
}

// look lists the prepared transactions of all shards of the maps.
func (r *Resolver) look(ctx context.Context, maps map[string]*directory.Map) {
	shards := make(map[directory.ShardID]directory.Shard)
	for _, m := range maps {
		for _, s := range m.Shards {
			shards[s.ID] = s
		}
	}
	for id, w := range r.watches {
		if s, ok := shards[id]; !ok || s.Primary != w.shard.Primary {
			w.close(ctx)
			delete(r.watches, id)
		}
	}
	for id, s := range shards {
		if r.watches[id] == nil {
			r.watches[id] = &watch{shard: s}
		}
	}
	var group sync.WaitGroup
	for _, w := range r.watches {
		group.Go(func() { r.lookAt(ctx, w, maps) })
	}
	group.Wait()
}

func (r *Resolver) lookAt(ctx context.Context, w *watch, maps map[string]*directory.Map) {
	bounded, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	w.found = nil
	if w.conn == nil {
		if w.conn, w.err = r.open(bounded, w.shard); w.err != nil {
			w.conn = nil
		}
	}
	if w.conn != nil {
		if w.found, w.err = listPrepared(bounded, w.conn, w.shard.ID, maps); w.err != nil {
			w.close(ctx)
		}
	}
	if told := w.err != nil; told != w.told && ctx.Err() == nil {
		w.told = told
		if told {
			r.cfg.Log.WarnContext(ctx, "recovery cannot look at a shard", "shard", w.shard.ID, "error", w.err)
		}
	}
}

// open opens the standing connection and looks whether the shard can take part at all.
func (r *Resolver) open(ctx context.Context, shard directory.Shard) (*pgx.Conn, error) {
	conn, err := r.cfg.Dial(ctx, shard, r.cfg.Database)
	if err != nil {
		return nil, err
	}
	var most int
	if err := conn.QueryRow(ctx, "SELECT current_setting('max_prepared_transactions')::int").Scan(&most); err != nil {
		Close(ctx, conn)
		return nil, fmt.Errorf("ask shard %s for max_prepared_transactions: %w", shard.ID, err)
	}
	if most == 0 {
		r.cfg.Log.WarnContext(ctx, "max_prepared_transactions is 0, so no transaction can write on this shard and another one; "+
			"set it to at least max_connections and restart the server", "shard", shard.ID)
	}
	return conn, nil
}

func (w *watch) close(ctx context.Context) {
	if w.conn != nil {
		Close(ctx, w.conn)
		w.conn = nil
	}
}

// listPrepared lists the transactions of ours that a server has prepared, in the databases of the maps.
func listPrepared(ctx context.Context, conn *pgx.Conn, shard directory.ShardID, maps map[string]*directory.Map) ([]doubt, error) {
	rows, err := conn.Query(ctx, `SELECT gid, database, extract(epoch FROM clock_timestamp() - prepared)::float8
		FROM pg_prepared_xacts WHERE starts_with(gid, 'shardyard/')`)
	if err != nil {
		return nil, fmt.Errorf("list prepared transactions of shard %s: %w", shard, err)
	}
	var found []doubt
	var text, database string
	var seconds float64
	_, err = pgx.ForEachRow(rows, []any{&text, &database, &seconds}, func() error {
		gid, ok := Parse(text)
		if m := maps[database]; ok && m != nil && gid.Cluster == ClusterName(m.ClusterID) {
			found = append(found, doubt{gid: gid, shard: shard, database: database, age: time.Duration(seconds * float64(time.Second))})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list prepared transactions of shard %s: %w", shard, err)
	}
	return found, nil
}

// place is a database on a shard.
type place struct {
	database string
	shard    directory.ShardID
}

// resolve finds the outcome of each transaction at its last agent and carries it out.
func (r *Resolver) resolve(ctx context.Context, maps map[string]*directory.Map, found []doubt) {
	agents := make(map[place][]doubt)
	for _, d := range found {
		at := place{d.database, d.gid.Agent}
		agents[at] = append(agents[at], d)
	}
	var mu sync.Mutex
	outcomes := make(map[GID]Outcome)
	r.eachPlace(ctx, maps, agents, func(ctx context.Context, conn *pgx.Conn, doubts []doubt) error {
		for _, d := range doubts {
			mu.Lock()
			_, known := outcomes[d.gid]
			mu.Unlock()
			if known {
				continue
			}
			outcome, err := r.outcome(ctx, conn, d)
			if err != nil {
				return err
			}
			mu.Lock()
			outcomes[d.gid] = outcome
			mu.Unlock()
		}
		return nil
	})
	// gofail: var recoveryFinishesNothing struct{}
	// return
	decided := make(map[place][]doubt)
	for _, d := range found {
		if outcomes[d.gid] != "" {
			at := place{d.database, d.shard}
			decided[at] = append(decided[at], d)
		}
	}
	// gofail: var recoveryBeforeFinish struct{}
	r.eachPlace(ctx, maps, decided, func(ctx context.Context, conn *pgx.Conn, doubts []doubt) error {
		for _, d := range doubts {
			if err := Finish(ctx, conn, d.gid, outcomes[d.gid] == Committed); isBusy(err) {
				continue
			} else if err != nil {
				return err
			}
			// gofail: var recoveryAfterFinish struct{}
			r.cfg.Log.InfoContext(ctx, "finished a transaction that was left prepared",
				"shard", d.shard, "database", d.database, "gid", d.gid.String(), "outcome", string(outcomes[d.gid]))
		}
		return nil
	})
}

// eachPlace does the work of each place over a connection to it, all places at the same time.
func (r *Resolver) eachPlace(ctx context.Context, maps map[string]*directory.Map, work map[place][]doubt,
	do func(context.Context, *pgx.Conn, []doubt) error,
) {
	var group sync.WaitGroup
	for at, doubts := range work {
		group.Go(func() {
			bounded, cancel := context.WithTimeout(ctx, lookTimeout)
			defer cancel()
			err := r.at(bounded, maps, at, func(conn *pgx.Conn) error { return do(bounded, conn, doubts) })
			if r.complain(at, err) && ctx.Err() == nil {
				r.cfg.Log.WarnContext(ctx, "transactions left prepared cannot be finished yet",
					"shard", at.shard, "database", at.database, "gid", doubts[0].gid.String(), "error", err)
			}
		})
	}
	group.Wait()
}

// complainInterval is how often the log is told of the same place.
const complainInterval = time.Minute

// complain says whether the log is to be told of an error.
func (r *Resolver) complain(at place, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		delete(r.complained, at)
		return false
	}
	now := time.Now()
	if now.Sub(r.complained[at]) < complainInterval {
		return false
	}
	r.complained[at] = now
	return true
}

// at calls do with a connection to a place.
func (r *Resolver) at(ctx context.Context, maps map[string]*directory.Map, at place, do func(*pgx.Conn) error) error {
	shard, ok := maps[at.database].Shard(at.shard)
	if !ok {
		return fmt.Errorf("connect to shard %s: it is not in the map of database %s", at.shard, at.database)
	}
	conn, err := r.cfg.Dial(ctx, *shard, at.database)
	if err != nil {
		return err
	}
	defer r.cfg.GiveBack(ctx, conn)
	return do(conn)
}

// outcome is what is to be done with a transaction, "" if it is to be left alone for now.
func (r *Resolver) outcome(ctx context.Context, agent *pgx.Conn, d doubt) (Outcome, error) {
	outcome, err := decision(ctx, agent, d.gid)
	if err != nil || outcome != "" {
		return outcome, err
	}
	status, err := transactionStatus(ctx, agent, d.gid.Xid)
	switch {
	case err != nil:
		return "", err
	case status == "aborted":
		return Aborted, nil // for ever: only that transaction could have decided
	case status == "in progress" && d.age < r.cfg.Patience:
		return "", nil
	}
	// gofail: var recoveryBeforeAbort struct{}
	outcome, err = Settle(ctx, agent, d.gid, d.age >= r.cfg.Keep/2)
	// gofail: var recoveryAfterAbort struct{}
	return outcome, err
}

// sortDoubts brings transactions into an order that does not change from one look to the next: the oldest first.
func sortDoubts(found []doubt) {
	slices.SortFunc(found, func(a, b doubt) int {
		return cmp.Or(cmp.Compare(b.age, a.age), cmp.Compare(a.gid.String(), b.gid.String()), cmp.Compare(a.shard, b.shard))
	})
}
