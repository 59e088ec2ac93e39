package backend

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/shardyard/shardyard/router/loop"
)

// Config configures Pools. Durations and sizes that are zero get their defaults.
type Config struct {
	// RouterName names this router; letters, digits, '_', '-' and '.', at most 40. Required without ApplicationName.
	RouterName string
	// ApplicationName is the application_name of every server connection, by which the fence finds those of a router
	// whose lease has expired; etcd.Member.ApplicationPrefix says it. At most 63 bytes, where Postgres cuts it.
	// Defaults to "shardyard/<RouterName>/".
	ApplicationName string
	// ServiceUser is the role for bookkeeping: a superuser or a member of the application's roles. Defaults to "postgres".
	ServiceUser string
	// Passwords maps users to passwords. A user that is absent is looked up in Passfile; a server that trusts us needs none.
	Passwords map[string]string
	// Passfile is a file in the format of ~/.pgpass. Defaults to none.
	Passfile string
	// TLS says how server connections are encrypted. Defaults to mode "prefer".
	TLS TLS
	// PoolSize bounds the server connections of one shard, database and user. Defaults to 20.
	PoolSize int
	// PoolReserve is how many more a pool may open while somebody has waited for ReserveTimeout. Defaults to 0.
	PoolReserve int
	// ReserveTimeout is that wait. A connection beyond the pool's size is closed when nobody has used it for as long.
	// Defaults to 5 s.
	ReserveTimeout time.Duration
	// PoolMin is how many connections a pool keeps open that was used within the last IdleTimeout. Defaults to 0.
	PoolMin int
	// Mode is that of the pools. Defaults to TransactionMode.
	Mode Mode
	// Rules change size, reserve, min and mode for some databases and users. Defaults to none.
	Rules []LimitRule
	// MaxWaiting bounds the queue of one pool; one more is refused at once with 53300. Defaults to 10,000.
	MaxWaiting int
	// AcquireTimeout bounds the wait in the queue; then 53300. Defaults to 30 s.
	AcquireTimeout time.Duration
	// ConnectTimeout bounds opening one server connection, authentication included; then 08006. Defaults to 5 s.
	ConnectTimeout time.Duration
	// CleanTimeout bounds the clean-up of a connection that came back dirty or in a transaction, and the wait for a
	// cancel request. Defaults to 5 s.
	CleanTimeout time.Duration
	// IdleTimeout closes a connection that nobody has used for so long. Defaults to 10 min.
	IdleTimeout time.Duration
	// MaxLifetime closes a connection that is so old, less a random tenth, when it is not in use. Defaults to 1 h.
	MaxLifetime time.Duration
	// PreparedStatements bounds the named statements on one server connection. Defaults to 500.
	PreparedStatements int
	// Loop waits for the connections that are not encrypted. Defaults to none: the runtime does.
	Loop *loop.Loop
	// Log gets what nobody is told otherwise. Defaults to none.
	Log *slog.Logger
}

// TLS is as libpq's parameters of the same names.
type TLS struct {
	// Mode is disable, allow, prefer, require, verify-ca or verify-full. Defaults to "prefer".
	Mode string
	// RootCert, Cert and Key are files in PEM format. Default to none.
	RootCert, Cert, Key string
}

const (
	maxRouterName      = 40
	maxApplicationName = 63
)

func (c Config) withDefaults() Config {
	setString := func(v *string, value string) {
		if *v == "" {
			*v = value
		}
	}
	setInt := func(v *int, value int) {
		if *v == 0 {
			*v = value
		}
	}
	setDuration := func(v *time.Duration, value time.Duration) {
		if *v == 0 {
			*v = value
		}
	}
	if validRouterName(c.RouterName) {
		setString(&c.ApplicationName, "shardyard/"+c.RouterName+"/")
	}
	setString(&c.ServiceUser, "postgres")
	setString(&c.TLS.Mode, "prefer")
	setInt(&c.PoolSize, 20)
	setDuration(&c.ReserveTimeout, 5*time.Second)
	if c.Mode == "" {
		c.Mode = TransactionMode
	}
	setInt(&c.MaxWaiting, 10_000)
	setInt(&c.PreparedStatements, 500)
	setDuration(&c.AcquireTimeout, 30*time.Second)
	setDuration(&c.ConnectTimeout, 5*time.Second)
	setDuration(&c.CleanTimeout, 5*time.Second)
	setDuration(&c.IdleTimeout, 10*time.Minute)
	setDuration(&c.MaxLifetime, time.Hour)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	if c.RouterName != "" && !validRouterName(c.RouterName) || c.ApplicationName == "" {
		return fmt.Errorf("router name %q: want 1 to %d letters, digits, '_', '-' or '.'", c.RouterName, maxRouterName)
	}
	if len(c.ApplicationName) > maxApplicationName || strings.IndexFunc(c.ApplicationName, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
		return fmt.Errorf("application name %q: want at most %d bytes of printable ASCII", c.ApplicationName, maxApplicationName)
	}
	if _, err := newLimitTable(c.limits(), c.Rules); err != nil {
		return err
	}
	for name, n := range map[string]int{
		"max waiting": c.MaxWaiting, "prepared statements": c.PreparedStatements,
	} {
		if n < 1 {
			return fmt.Errorf("%s: want at least 1, got %d", name, n)
		}
	}
	for name, d := range map[string]time.Duration{
		"acquire timeout": c.AcquireTimeout, "connect timeout": c.ConnectTimeout, "clean timeout": c.CleanTimeout,
		"idle timeout": c.IdleTimeout, "max lifetime": c.MaxLifetime, "reserve timeout": c.ReserveTimeout,
	} {
		if d <= 0 {
			return fmt.Errorf("%s: want more than 0, got %s", name, d)
		}
	}
	switch c.TLS.Mode {
	case "disable", "allow", "prefer", "require", "verify-ca", "verify-full":
	default:
		return fmt.Errorf("tls mode %q: want disable, allow, prefer, require, verify-ca or verify-full", c.TLS.Mode)
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		return errors.New("tls: cert and key go together")
	}
	return nil
}

// limits are those of pools that no rule is for.
func (c Config) limits() Limits {
	return Limits{Size: c.PoolSize, Reserve: c.PoolReserve, Min: c.PoolMin, Mode: c.Mode}
}

func validRouterName(name string) bool {
	if name == "" || len(name) > maxRouterName {
		return false
	}
	return strings.IndexFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == '.')
	}) < 0
}
