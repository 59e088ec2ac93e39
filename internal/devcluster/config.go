package devcluster

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"runtime"
	"time"
)

// superuser is the bootstrap superuser of every server.
const superuser = "postgres"

// loopback is the only address a server listens on.
const loopback = "127.0.0.1"

// maxShards bounds a cluster to what one machine can carry.
const maxShards = 64

// maxReplicas bounds the replicas of one shard.
const maxReplicas = 8

// Config says what cluster Start is to bring up.
type Config struct {
	// Shards is the number of primaries. Defaults to that of an existing Dir, else to 3.
	Shards int
	// Replicas is the number of streaming replicas of each primary. Defaults to that of an existing Dir if Shards
	// is 0 too, else to none.
	Replicas int
	// Dir is the data directory, made if it does not exist; one that Start made earlier is started again with
	// everything still there. Defaults to a temporary directory, removed by Close or at the owner's death.
	Dir string
	// Databases are created on every shard, besides postgres, where they are missing.
	Databases []string
	// Locale is the libc locale of new servers, as initdb's --locale. Defaults to C.UTF-8 on Linux, else to C,
	// which every system has. The encoding is always UTF8.
	Locale string
	// ICULocale, if set, makes ICU the default provider of new servers, with this locale (initdb's --icu-locale).
	ICULocale string
	// Settings are server settings (postgresql.conf) that replace this package's own, for every server.
	Settings map[string]string
	// BurnOIDs makes each new shard use up a different number of OIDs, so that the same user type gets a
	// different OID on each and nothing can mistake one shard's OID for another's.
	BurnOIDs bool
	// Etcd starts an embedded etcd with its data in the directory.
	Etcd bool
	// Bin is the folder of the server binaries. Defaults to what Search finds.
	Bin string
	// Search says where binaries are looked for when Bin is empty. Defaults to SystemSearch().
	Search *Search
	// StartTimeout bounds the start of each server. Defaults to 60 s.
	StartTimeout time.Duration
	// Log hears what is done. Defaults to a logger that discards.
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Locale == "" {
		c.Locale = "C"
		if runtime.GOOS == "linux" {
			c.Locale = "C.UTF-8"
		}
	}
	if c.Search == nil {
		search := SystemSearch()
		c.Search = &search
	}
	if c.Bin != "" {
		search := *c.Search
		search.Bin = c.Bin
		c.Search = &search
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = time.Minute
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// databaseName keeps database names to what needs no quoting anywhere.
var databaseName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

// settingName is what a key of Settings may look like.
var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)

func (c Config) validate() error {
	var problems []error
	if c.Shards < 0 || c.Shards > maxShards {
		problems = append(problems, fmt.Errorf("shards is %d, must be 1 to %d", c.Shards, maxShards))
	}
	if c.Replicas < 0 || c.Replicas > maxReplicas {
		problems = append(problems, fmt.Errorf("replicas is %d, must be 0 to %d", c.Replicas, maxReplicas))
	}
	for _, name := range c.Databases {
		if !databaseName.MatchString(name) {
			problems = append(problems, fmt.Errorf("database name %q must match %s", name, databaseName))
		}
	}
	for name := range c.Settings {
		if !settingName.MatchString(name) {
			problems = append(problems, fmt.Errorf("setting name %q must match %s", name, settingName))
		}
	}
	if c.StartTimeout < 0 {
		problems = append(problems, fmt.Errorf("start timeout is %s, must be positive", c.StartTimeout))
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("validate devcluster configuration: %w", err)
	}
	return nil
}
