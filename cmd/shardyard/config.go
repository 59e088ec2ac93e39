package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"github.com/shardyard/shardyard/router/loop"
)

// config is everything a router of `shardyard serve` can be told. It is read, later
// sources winning, from the defaults, a YAML file, the environment (SHARDYARD_ and
// the key in capitals, dots as underscores) and the flags.
type config struct {
	// Listen is the address clients connect to. Defaults to 127.0.0.1:6432.
	Listen string `koanf:"listen"`
	// Name tells this router from the others of its cluster; it stands in the
	// application_name of its server connections. Defaults to the host name.
	Name string `koanf:"name"`
	// Etcd is where the partition map lives.
	Etcd etcdConfig `koanf:"etcd"`
	// Service is the role for bookkeeping on the shards: a superuser, or a member
	// of the application's roles.
	Service serviceConfig `koanf:"service"`
	// Users gives the passwords with which the router logs in to the shards for
	// its clients, by role. A role without an entry logs in without a password.
	Users map[string]string `koanf:"users"`
	// Auth says who may come in.
	Auth authConfig `koanf:"auth"`
	// TLS encrypts client connections, ServerTLS those to the shards.
	TLS       tlsConfig       `koanf:"tls"`
	ServerTLS serverTLSConfig `koanf:"server_tls"`
	// Pool bounds the server connections.
	Pool poolConfig `koanf:"pool"`
	// Pools changes size, reserve, min, mode and clients for some databases and users.
	Pools []poolRule `koanf:"pools"`
	// MaxClients bounds the client connections. Defaults to 1000.
	MaxClients int `koanf:"max_clients"`
	// MaxDatabaseClients bounds those of each database, MaxUserClients those of each role. Default to 0: no bound.
	MaxDatabaseClients int `koanf:"max_database_clients"`
	MaxUserClients     int `koanf:"max_user_clients"`
	// AdminUsers may use every command of the admin database. Defaults to the service role.
	AdminUsers []string `koanf:"admin_users"`
	// StatsUsers may use its SHOW commands. Defaults to none.
	StatsUsers []string `koanf:"stats_users"`
	// Metrics says where they are served.
	Metrics metricsConfig `koanf:"metrics"`
	// EntryCache bounds the entries of tables by DIRECTORY that are remembered. Defaults to 1,000,000.
	EntryCache int `koanf:"entry_cache"`
	// EventLoop makes clients wait in an event loop, which needs Linux. Defaults to true there.
	EventLoop bool `koanf:"event_loop"`
	// SequenceBlock bounds how many values of a sequence are drawn before rows need them. Defaults to 100.
	SequenceBlock int `koanf:"sequence_block"`
	// SnapshotFile keeps a copy of the map, from which the router starts while
	// etcd is away. Defaults to none.
	SnapshotFile string `koanf:"snapshot_file"`
	// Log is how the router writes its log, on standard error.
	Log logConfig `koanf:"log"`
}

type etcdConfig struct {
	// Endpoints are the etcd members. Defaults to 127.0.0.1:2379.
	Endpoints []string `koanf:"endpoints"`
	// Prefix is the folder of this cluster in etcd. Defaults to /shardyard/.
	Prefix string `koanf:"prefix"`
	// LeaseTTL is how long a router that went silent counts as living. Defaults to 10s.
	LeaseTTL time.Duration `koanf:"lease_ttl"`
}

type serviceConfig struct {
	// User defaults to postgres.
	User string `koanf:"user"`
	// Password defaults to none.
	Password string `koanf:"password"`
}

type poolConfig struct {
	// Size is the most server connections for each shard, database and role. Defaults to 20.
	Size int `koanf:"size"`
	// Reserve is how many more there may be while somebody has waited for ReserveTimeout. Defaults to 0.
	Reserve int `koanf:"reserve"`
	// ReserveTimeout is that wait. Defaults to 5s.
	ReserveTimeout time.Duration `koanf:"reserve_timeout"`
	// Min is how many a pool that is in use keeps open. Defaults to 0.
	Min int `koanf:"min"`
	// Mode is transaction or session. Defaults to transaction.
	Mode string `koanf:"mode"`
	// MaxWaiting bounds the statements that wait for a connection of one pool. Defaults to 10,000.
	MaxWaiting int `koanf:"max_waiting"`
	// AcquireTimeout is how long a statement waits for one. Defaults to 10s.
	AcquireTimeout time.Duration `koanf:"acquire_timeout"`
	// ConnectTimeout is how long opening one may take. Defaults to 5s.
	ConnectTimeout time.Duration `koanf:"connect_timeout"`
	// IdleTimeout is how long one may stand unused. Defaults to 10m.
	IdleTimeout time.Duration `koanf:"idle_timeout"`
	// MaxLifetime is how old one may become. Defaults to 1h.
	MaxLifetime time.Duration `koanf:"max_lifetime"`
}

type metricsConfig struct {
	// Listen is the address of /metrics, host:port. Defaults to none.
	Listen string `koanf:"listen"`
}

type logConfig struct {
	// Level is debug, info, warn or error. Defaults to info.
	Level string `koanf:"level"`
	// Format is text or json. Defaults to text.
	Format string `koanf:"format"`
}

func defaultConfig() config {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "router"
	}
	return config{
		Listen:  "127.0.0.1:6432",
		Name:    routerNameFrom(host),
		Etcd:    etcdConfig{Endpoints: []string{"127.0.0.1:2379"}, Prefix: "/shardyard/", LeaseTTL: 10 * time.Second},
		Service: serviceConfig{User: "postgres"},
		Auth:    defaultAuth(), ServerTLS: serverTLSConfig{Mode: "prefer"},
		Pool: poolConfig{
			Size: 20, ReserveTimeout: 5 * time.Second, Mode: "transaction", MaxWaiting: 10_000, AcquireTimeout: 10 * time.Second, ConnectTimeout: 5 * time.Second, IdleTimeout: 10 * time.Minute, MaxLifetime: time.Hour,
		},
		MaxClients: 1000, EntryCache: 1_000_000, EventLoop: loop.Supported, SequenceBlock: 100,
		Log: logConfig{Level: "info", Format: "text"},
	}
}

var routerName = regexp.MustCompile(`^[a-z0-9_][a-z0-9_.-]{0,30}$`)

// routerNameFrom makes a router's name out of a host's.
func routerNameFrom(host string) string {
	name := regexp.MustCompile(`[^a-z0-9_.-]`).ReplaceAllString(strings.ToLower(host), "-")
	return strings.TrimLeft(name[:min(len(name), 31)], "-.")
}

// addServeFlags declares a flag for each key that is worth one; dots become hyphens.
func addServeFlags(flags *pflag.FlagSet) {
	d := defaultConfig()
	flags.String("config", "", "a YAML file with the keys of docs/configuration.md")
	flags.String("listen", d.Listen, "address for clients")
	flags.String("name", d.Name, "this router's name, unique in the cluster")
	flags.StringSlice("etcd-endpoints", d.Etcd.Endpoints, "etcd members, as host:port")
	flags.String("etcd-prefix", d.Etcd.Prefix, "folder of this cluster in etcd")
	flags.String("service-user", d.Service.User, "role for bookkeeping on the shards")
	flags.String("auth-method", d.Auth.Method, "scram-sha-256 or trust")
	flags.Bool("auth-trust-loopback", d.Auth.TrustLoopback, "let clients on loopback in without a password")
	flags.String("auth-hba-file", "", "rules in the format of pg_hba.conf")
	flags.String("tls-cert", "", "the router's certificate, PEM")
	flags.String("tls-key", "", "its key")
	flags.String("tls-mode", "", "disable, allow or require TLS of clients")
	flags.Int("pool-size", d.Pool.Size, "server connections for each shard, database and role")
	flags.Int("pool-reserve", d.Pool.Reserve, "further ones while somebody has waited for pool.reserve_timeout")
	flags.Int("pool-min", d.Pool.Min, "those that a pool in use keeps open")
	flags.String("pool-mode", d.Pool.Mode, "transaction or session")
	flags.StringSlice("admin-users", nil, "roles that may use the admin database shardyard (default the service role)")
	flags.StringSlice("stats-users", nil, "roles that may only look into it")
	flags.String("metrics-listen", d.Metrics.Listen, "address of /metrics")
	flags.Int("max-clients", d.MaxClients, "client connections")
	flags.Int("entry-cache", d.EntryCache, "entries of DIRECTORY tables that are remembered")
	flags.Int("sequence-block", d.SequenceBlock, "values of a sequence that are drawn before rows need them")
	flags.Bool("event-loop", d.EventLoop, "let clients wait in an event loop, which also runs what one shard answers at once")
	flags.String("snapshot-file", d.SnapshotFile, "copy of the map, to start from while etcd is away")
	flags.String("log-level", d.Log.Level, "debug, info, warn or error")
	flags.String("log-format", d.Log.Format, "text or json")
}

// loadConfig merges the sources and validates the result. environ is the process's
// environment; only this package reads it.
func loadConfig(flags *pflag.FlagSet, environ []string) (config, error) {
	keys := configKeys(reflect.TypeOf(config{}), "")
	k := koanf.New(".")
	path, err := flags.GetString("config")
	if err != nil {
		return config{}, fmt.Errorf("read flag config: %w", err)
	}
	if fromEnv, ok := lookupEnviron(environ, "SHARDYARD_CONFIG"); ok && path == "" {
		path = fromEnv
	}
	if path != "" {
		if err := k.Load(file.Provider(filepath.Clean(path)), yaml.Parser()); err != nil {
			return config{}, fmt.Errorf("read configuration file %s: %w", path, err)
		}
	}
	if err := k.Load(environmentProvider(environ, keys), nil); err != nil {
		return config{}, fmt.Errorf("read environment: %w", err)
	}
	changed := map[string]any{}
	flags.Visit(func(f *pflag.Flag) {
		if key, ok := keyForName(f.Name, "-", keys); ok {
			if list, isList := f.Value.(pflag.SliceValue); isList {
				changed[key] = list.GetSlice()
				return
			}
			changed[key] = f.Value.String()
		}
	})
	if err := k.Load(confmap.Provider(changed, "."), nil); err != nil {
		return config{}, fmt.Errorf("read flags: %w", err)
	}
	if err := errors.Join(refuseUnknownKeys(k.Keys(), keys), refuseUnknownRuleKeys(k.Get("pools"))); err != nil {
		return config{}, err
	}
	c := defaultConfig()
	if err := k.Unmarshal("", &c); err != nil {
		return config{}, fmt.Errorf("read configuration: %w", err)
	}
	return c, c.validate()
}

// environmentProvider reads SHARDYARD_POOL_SIZE as pool.size, and
// SHARDYARD_USERS_<role> as the password of that role.
func environmentProvider(environ, keys []string) *env.Env {
	return env.Provider(".", env.Opt{
		Prefix:      "SHARDYARD_",
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			bare := strings.ToLower(strings.TrimPrefix(name, "SHARDYARD_"))
			if bare == "config" {
				return "", nil
			}
			if role, ok := strings.CutPrefix(bare, "users_"); ok {
				return "users." + role, value
			}
			key, ok := keyForName(bare, "_", keys)
			if !ok {
				return bare, value // refused as an unknown key, by its own name
			}
			switch key {
			case "etcd.endpoints", "admin_users", "stats_users":
				return key, splitList(value)
			}
			return key, value
		},
	})
}

// keyForName finds the key whose dots, written as sep, give name.
func keyForName(name, sep string, keys []string) (string, bool) {
	for _, key := range keys {
		flat := strings.ReplaceAll(key, ".", sep)
		if sep == "-" {
			flat = strings.ReplaceAll(flat, "_", "-")
		}
		if flat == name {
			return key, true
		}
	}
	return "", false
}

// configKeys lists the keys of a config struct, dotted.
func configKeys(t reflect.Type, prefix string) []string {
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
		key := prefix + f.Tag.Get("koanf")
		if f.Type.Kind() == reflect.Struct {
			keys = append(keys, configKeys(f.Type, key+".")...)
			continue
		}
		keys = append(keys, key)
	}
	return keys
}

func refuseUnknownKeys(given, known []string) error {
	var unknown []string
	for _, key := range given {
		if !isKnownKey(key, known) {
			unknown = append(unknown, key)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	sort.Strings(unknown)
	return fmt.Errorf("unknown configuration key %s; the keys are %s", strings.Join(unknown, ", "), strings.Join(known, ", "))
}

func isKnownKey(key string, known []string) bool {
	if strings.HasPrefix(key, "users.") {
		return true
	}
	for _, k := range known {
		if k == key {
			return true
		}
	}
	return false
}

func lookupEnviron(environ []string, name string) (string, bool) {
	for _, pair := range environ {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// validate reports every fault, each with its key.
func (c config) validate() error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		fault("listen", "%q is not host:port", c.Listen)
	}
	if !routerName.MatchString(c.Name) {
		fault("name", "%q must be 1 to 31 of a-z 0-9 _ . - and begin with a letter, digit or underscore", c.Name)
	}
	if len(c.Etcd.Endpoints) == 0 {
		fault("etcd.endpoints", "at least one is needed")
	}
	if !strings.HasPrefix(c.Etcd.Prefix, "/") || !strings.HasSuffix(c.Etcd.Prefix, "/") {
		fault("etcd.prefix", "%q must begin and end with a slash", c.Etcd.Prefix)
	}
	if c.Etcd.LeaseTTL < 2*time.Second {
		fault("etcd.lease_ttl", "%s is too short, at least 2s", c.Etcd.LeaseTTL)
	}
	if c.Service.User == "" {
		fault("service.user", "must not be empty")
	}
	c.Auth.validate(fault)
	c.TLS.validate(fault)
	c.ServerTLS.validate(fault)
	if c.Pool.Size < 1 {
		fault("pool.size", "%d is less than 1", c.Pool.Size)
	}
	c.validatePools(fault)
	if c.Metrics.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Metrics.Listen); err != nil {
			fault("metrics.listen", "%q is not host:port", c.Metrics.Listen)
		}
	}
	for key, d := range map[string]time.Duration{
		"pool.reserve_timeout": c.Pool.ReserveTimeout, "pool.acquire_timeout": c.Pool.AcquireTimeout, "pool.connect_timeout": c.Pool.ConnectTimeout,
		"pool.idle_timeout": c.Pool.IdleTimeout, "pool.max_lifetime": c.Pool.MaxLifetime,
	} {
		if d <= 0 {
			fault(key, "%s is not positive", d)
		}
	}
	if c.SequenceBlock < 1 {
		fault("sequence_block", "%d is less than 1", c.SequenceBlock)
	}
	if c.EntryCache < 1 {
		fault("entry_cache", "%d is less than 1", c.EntryCache)
	}
	if c.MaxClients < 1 {
		fault("max_clients", "%d is less than 1", c.MaxClients)
	}
	if _, err := c.Log.level(); err != nil {
		fault("log.level", "%q is none of debug, info, warn, error", c.Log.Level)
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		fault("log.format", "%q is neither text nor json", c.Log.Format)
	}
	sort.Slice(faults, func(i, j int) bool { return faults[i].Error() < faults[j].Error() })
	return errors.Join(faults...)
}

func (l logConfig) level() (slog.Level, error) {
	var level slog.Level
	err := level.UnmarshalText([]byte(l.Level))
	return level, err
}

func (l logConfig) logger() *slog.Logger {
	level, err := l.level()
	if err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

// splitList reads a,b,c.
func splitList(text string) []string {
	var list []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}
