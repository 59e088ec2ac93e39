package router

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/auth"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/commit"
	"github.com/shardyard/shardyard/router/console"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/loop"
	"github.com/shardyard/shardyard/router/schema"
)

// Config is what a router is told. The zero value of every field but Name is usable.
type Config struct {
	// Name tells this router from others of the cluster: it is in the application_name of its server
	// connections and in its registration. Required.
	Name string
	// Listen is the address of the listener. Defaults to "127.0.0.1:6432".
	Listen string
	// Auth says who may come in. Defaults to trust from loopback and SCRAM-SHA-256 from everywhere else.
	Auth auth.Config
	// Clients bound the client connections.
	Clients ClientLimits
	// MaxStarting bounds the connections that have not logged in; one more is refused with 53300. Defaults to
	// as many as may be clients.
	MaxStarting int
	// AdminUsers may use every command of the admin database, StatsUsers those that only show something. Default to none.
	AdminUsers, StatsUsers []string
	// StartupTimeout bounds the time from accept to the first ReadyForQuery. Defaults to 60 s.
	StartupTimeout time.Duration
	// HoldTimeout bounds how long a statement waits for a table that is being changed, or for a newer
	// map. Defaults to 30 s.
	HoldTimeout time.Duration
	// DrainTimeout bounds how long a drain waits for open transactions. Defaults to 30 s.
	DrainTimeout time.Duration
	// OutputBound is the number of bytes collected for a client before they are written. Defaults to 64 KiB.
	OutputBound int
	// RequestBound is the number of bytes of a pipeline that are collected before the session starts on
	// them without having seen its Sync. Defaults to 256 KiB.
	RequestBound int
	// CopyRowBound is the largest number of bytes of a row in COPY FROM into a sharded table. Defaults to 64 MiB.
	CopyRowBound int
	// EventLoop makes clients wait in an event loop, in which what one shard answers is run, too; it needs Linux. Defaults
	// to false: a goroutine for each client.
	EventLoop bool
	// EntryCache is the greatest number of entries of tables by DIRECTORY that are remembered, about 90 bytes
	// each. Defaults to 1,000,000.
	EntryCache int
	// SequenceBlock bounds how many values of a sequence are drawn from the home shard before rows need them. They are lost
	// when the router ends. Defaults to 100.
	SequenceBlock int
	// CancelPrefix is put in front of the process ids given to clients, so that those of several routers
	// differ. Only the lower 11 bits count. Defaults to 0.
	CancelPrefix uint16
	// Fault is applied to a copy of each plan: a planted fault, for the tests that must find it. Defaults to none.
	Fault func(planner.Plan) planner.Plan
}

// Dependencies are what a router works with. Planner, Pools and Maps are required.
type Dependencies struct {
	Planner *planner.Planner
	Pools   *backend.Pools
	// Loop is what EventLoop needs; it waits for the connections of Pools, too.
	Loop *loop.Loop
	// Maps is where the partition maps come from.
	Maps *etcd.Store
	// Member takes acknowledged epochs. nil: nobody is told (a router that started from its snapshot file
	// and never reached etcd).
	Member *etcd.Member
	// Schema performs the statements that change the map, and DDL on sharded tables. nil: they are refused.
	Schema *schema.Performer
	// Resolver finishes transactions over several shards; the router only asks it for SHOW TRANSACTIONS. nil: that is refused.
	Resolver *commit.Resolver
	// Heal gets a map that is not older than a shard's floor (fence.Fence.Heal). nil: the router waits for the watch.
	Heal func(ctx context.Context, database string, floor directory.Epoch) (*directory.Map, error)
	// Initial is a directory to begin with, as when etcd is out. Defaults to none.
	Initial *etcd.Snapshot
	// Settings lists the configuration, for SHOW CONFIG. Defaults to none.
	Settings func() []console.Setting
	// Reload reads the configuration again. Defaults to none: RELOAD is refused.
	Reload func(ctx context.Context) error
	// Log defaults to a logger that discards.
	Log *slog.Logger
}

func (c *Config) setDefaults() {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:6432"
	}
	setDefault(&c.StartupTimeout, 60*time.Second)
	setDefault(&c.HoldTimeout, 30*time.Second)
	setDefault(&c.DrainTimeout, 30*time.Second)
	setDefault(&c.EntryCache, 1_000_000)
	setDefault(&c.SequenceBlock, 100)
	setDefault(&c.OutputBound, exec.DefaultOutputBound)
	setDefault(&c.RequestBound, 256<<10)
	setDefault(&c.CopyRowBound, exec.DefaultCopyRow)
}

func setDefault[T ~int | ~int64](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// maxName keeps the application_name of server connections within Postgres's 63 bytes.
const maxName = 32

func (c *Config) validate() error {
	if c.Name == "" || len(c.Name) > maxName || strings.ContainsAny(c.Name, "/ '\"\\") {
		return fmt.Errorf("name: %q must have 1 to %d bytes without slashes, blanks and quotes", c.Name, maxName)
	}
	for name, value := range map[string]int64{
		"max_starting": int64(c.MaxStarting), "startup_timeout": int64(c.StartupTimeout),
		"hold_timeout": int64(c.HoldTimeout), "drain_timeout": int64(c.DrainTimeout),
		"output_bound": int64(c.OutputBound), "request_bound": int64(c.RequestBound),
		"entry_cache":    int64(c.EntryCache),
		"sequence_block": int64(c.SequenceBlock),
		"copy_row_bound": int64(c.CopyRowBound),
	} {
		if value < 0 {
			return fmt.Errorf("%s: %d must not be negative", name, value)
		}
	}
	return nil
}

func (d *Dependencies) validate() error {
	switch {
	case d.Planner == nil:
		return fmt.Errorf("planner is missing")
	case d.Pools == nil:
		return fmt.Errorf("pools are missing")
	case d.Maps == nil:
		return fmt.Errorf("maps are missing")
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}
