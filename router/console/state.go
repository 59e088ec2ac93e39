package console

import (
	"context"
	"net/netip"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/metrics"
)

// Database is the name of the admin database.
const Database = "shardyard"

// State is what there is to show of a router at one moment.
type State struct {
	Version  string
	Router   string // its name
	Now      time.Time
	Started  time.Time
	Draining bool

	Shards []directory.Shard
	Home   directory.ShardID
	Pools  []backend.PoolStats
	// Connections are those to servers.
	Connections []backend.ConnStats
	Waiting     []backend.Waiter
	Times       []backend.ShardTimes
	// Lifetime is how old a server connection may become.
	Lifetime time.Duration

	Clients []Client
	// LoggingIn is the number of clients that are not authenticated yet.
	LoggingIn  int
	MaxClients int
	Databases  []DatabaseState
	Users      []UserState
	// Errors are what clients were told, by the class of the SQLSTATE.
	Errors map[string]uint64
	// PlansMade and PlansFound count statements that were planned, and those whose plan was in the cache.
	PlansMade, PlansFound uint64
	// Settings are those of the configuration.
	Settings []Setting
	// Limits finds the limits of a pool that may not exist yet.
	Limits func(backend.Identity) backend.Limits
}

// Client is one client session.
type Client struct {
	ID            uint64
	Identity      backend.Identity
	Admin         bool // of the admin database
	Remote, Local netip.AddrPort
	Connected     time.Time
	Requested     time.Time // when its last request began; zero: it has sent none
	PID           uint32    // as it was told
	TLS           string
	Application   string
	Prepared      int
	Closing       bool
}

// DatabaseState is one database.
type DatabaseState struct {
	Name       string
	MaxClients int // 0: no bound of its own
	Clients    int
	Totals     metrics.Totals
	Pools      backend.Counters
	// Before is what was counted a while ago, at Since, for averages.
	Before      metrics.Totals
	BeforePools backend.Counters
	Since       time.Time
}

// UserState is one user.
type UserState struct {
	Name       string
	MaxClients int // 0: no bound of its own
	Clients    int
}

// Setting is one key of the configuration.
type Setting struct {
	Key, Value, Default string
	// Changeable by RELOAD.
	Changeable bool
}

// Actions are what a console asks of the router.
type Actions struct {
	// State takes the present state.
	State func() *State
	// Reload reads the configuration again. nil: there is nothing to read.
	Reload func(ctx context.Context) error
	// Reconnect lets no server connection to a database be used again, to any database if it is "".
	Reconnect func(database string)
	// Kill ends a client; false: there is none of this number.
	Kill func(ctx context.Context, client uint64) bool
}
