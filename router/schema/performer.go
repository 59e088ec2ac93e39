package schema

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/directory/fence"
	"github.com/shardyard/shardyard/planner/shardsql"
	"github.com/shardyard/shardyard/router/catalogs"
	"github.com/shardyard/shardyard/router/pgerr"
)

// Config of a Performer.
type Config struct {
	// Store holds the maps.
	Store *etcd.Store
	// Fence publishes their changes.
	Fence *fence.Fence
	// Dial opens connections of the service role, a superuser, to the shards.
	Dial fence.Dialer
	// GiveBack takes back a connection of Dial, in the state that it had. Defaults to closing it.
	GiveBack func(ctx context.Context, conn *pgx.Conn)
	// Router is the name of this router: the owner of the holds that it sets.
	Router string
	// LockTimeout bounds each wait for a lock on a table. Defaults to 3s.
	LockTimeout time.Duration
	// LockAttempts is how often a table's lock is asked for. Defaults to 3.
	LockAttempts int
	// HoldTimeout bounds the wait for the other routers to acknowledge a hold, that is for the statements
	// in flight. Defaults to 30s.
	HoldTimeout time.Duration
	// CleanupTimeout bounds what is done after a failure. Defaults to 10s.
	CleanupTimeout time.Duration
	// Log. Defaults to none.
	Log *slog.Logger
}

func (c *Config) validate() error {
	if c.Store == nil || c.Fence == nil || c.Dial == nil || c.Router == "" {
		return errors.New("schema: a store, a fence, a dialer and a router's name are needed")
	}
	if c.GiveBack == nil {
		c.GiveBack = func(ctx context.Context, conn *pgx.Conn) { _ = conn.Close(ctx) }
	}
	for _, d := range []struct {
		value *time.Duration
		byDef time.Duration
	}{{&c.LockTimeout, 3 * time.Second}, {&c.HoldTimeout, 30 * time.Second}, {&c.CleanupTimeout, 10 * time.Second}} {
		if *d.value == 0 {
			*d.value = d.byDef
		}
		if *d.value < time.Millisecond {
			return errors.New("schema: timeouts must be positive")
		}
	}
	if c.LockAttempts == 0 {
		c.LockAttempts = 3
	}
	if c.LockAttempts < 0 {
		return errors.New("schema: lock attempts must be positive")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Performer changes what lives where. It is safe for concurrent use; several routers may each have one.
type Performer struct {
	config   Config
	entries  *etcd.Entries
	catalogs catalogs.Loader

	mu     sync.Mutex
	active map[string]bool // IDs of the holds that this process is working on

	// step is called with the name of each step before it is taken; an error stops there as a crash would.
	// Set by tests only.
	step func(name string) error
}

// New makes a Performer.
func New(config Config) (*Performer, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	// It asks and makes few entries: what it remembers of them is of no use.
	entries, err := etcd.NewEntries(config.Store, etcd.EntriesConfig{Writer: config.Router + ".schema", CacheSize: 1})
	if err != nil {
		return nil, err
	}
	return &Performer{config: config, entries: entries, active: make(map[string]bool)}, nil
}

// Perform runs a sharding statement. It returns when every live router works with the new map. An error
// means that nothing was changed, except that 08007 (outcome unknown) and a hold that could not be cleared
// are left to Recover.
func (p *Performer) Perform(ctx context.Context, r Request) (*Result, error) {
	switch statement := r.Statement.(type) {
	case *shardsql.ShowShards, *shardsql.ShowTables, *shardsql.ShowPartitions:
		m, err := p.config.Store.LoadMap(ctx, r.Database)
		if errors.Is(err, etcd.ErrNotFound) {
			m, err = p.emptyMap(ctx, r.Database)
		}
		if err != nil {
			return nil, err
		}
		return Show(ctx, m, statement, r.SearchPath, p.config.Store)
	case *shardsql.ShowEntries:
		result, err := p.showEntries(ctx, r, statement)
		return result, withoutPosition(err)
	case *shardsql.AssignEntries:
		if r.InTransaction {
			return nil, inTransaction(tagOf(statement))
		}
		result, err := p.assign(ctx, r, statement)
		return result, withoutPosition(err)
	case *shardsql.DirectoryTable:
		r.directory, r.Statement = statement, asShardTable(statement)
		return p.Perform(ctx, r)
	case *shardsql.AlterShardTable:
		return nil, pgerr.Unsupported("moving and reorganizing partitions is not supported yet",
			"Choose the placement when the table is sharded.")
	case *shardsql.ShardFunction:
		return nil, pgerr.Unsupported("SHARD FUNCTION is not supported yet", "Run the statements of the function from the client.")
	case *shardsql.ShardTable, *shardsql.PinTable, *shardsql.ReferenceTable, *shardsql.UnshardTable:
		if r.InTransaction {
			return nil, inTransaction(tagOf(statement))
		}
		result, err := p.change(ctx, r)
		for attempt := 1; (isState(err, "40P01") || errors.Is(err, directory.ErrNoCopy)) && attempt < p.config.LockAttempts; attempt++ {
			result, err = p.change(ctx, r) // it ended in favour of another change: nothing is left of it
		}
		return result, withoutPosition(err)
	}
	return nil, fmt.Errorf("perform %T: not a sharding statement", r.Statement)
}

func tagOf(statement shardsql.Statement) string {
	switch statement.(type) {
	case *shardsql.UnshardTable:
		return "UNSHARD TABLE"
	case *shardsql.AlterShardTable, *shardsql.AssignEntries:
		return "ALTER SHARD TABLE"
	}
	return "SHARD TABLE"
}

func inTransaction(what string) error {
	return pgerr.Newf("25001", "%s cannot run inside a transaction block", what).
		WithHint("It commits on several shards and in the partition map; run it on its own.")
}

// withoutPosition takes the position from the error of a statement of ours: the client does not know its text.
func withoutPosition(err error) error {
	var own *pgerr.Error
	var server *pgconn.PgError
	if err == nil || errors.As(err, &own) || !errors.As(err, &server) {
		return err
	}
	return pgerr.Of(err).At(0)
}

// reached is called before each step; see Performer.step.
func (p *Performer) reached(name string) error {
	if p.step == nil {
		return nil
	}
	return p.step(name)
}

func (p *Performer) setActive(id string, active bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if active {
		p.active[id] = true
	} else {
		delete(p.active, id)
	}
}

func (p *Performer) isActive(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.active[id]
}

// dial connects to a shard; name is shown as application_name, by which Recover finds connections.
func (p *Performer) dial(ctx context.Context, m *directory.Map, id directory.ShardID, name string) (*pgx.Conn, error) {
	shard, ok := m.Shard(id)
	if !ok {
		return nil, fmt.Errorf("connect to shard %s: not in the map", id)
	}
	conn, err := p.config.Dial(ctx, *shard, m.Database)
	if err != nil {
		return nil, fmt.Errorf("connect to shard %s: %w", id, err)
	}
	return p.named(ctx, conn, id, name)
}

func (p *Performer) named(ctx context.Context, conn *pgx.Conn, id directory.ShardID, name string) (*pgx.Conn, error) {
	if _, err := conn.Exec(ctx, "SELECT pg_catalog.set_config('application_name', $1, false)", name); err != nil {
		p.close(ctx, conn)
		return nil, fmt.Errorf("set up connection to shard %s: %w", id, err)
	}
	return conn, nil
}

func (p *Performer) close(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := p.cleanup(ctx)
	defer cancel()
	_ = conn.Close(ctx)
}

// giveBack takes back a connection of dial whose settings nobody has changed, for whoever asks next.
func (p *Performer) giveBack(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := p.cleanup(ctx)
	defer cancel()
	if _, err := conn.Exec(ctx, "RESET application_name"); err != nil {
		p.close(ctx, conn)
		return
	}
	p.config.GiveBack(ctx, conn)
}

// cleanup is a context for what must be done although ctx may have ended.
func (p *Performer) cleanup(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), p.config.CleanupTimeout)
}
