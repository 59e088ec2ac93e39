package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/shardyard/shardyard/directory"
)

// Config says where the directory is and how it is used.
type Config struct {
	// Endpoints of etcd, host:port or URL. At least one.
	Endpoints []string
	// Prefix of all keys. Defaults to "/shardyard/".
	Prefix string
	// Cluster is the part of the key after Prefix, for several clusters in one etcd. Defaults to none.
	Cluster string
	// LeaseTTL is how long a router that has gone silent counts as live; whole seconds, at least 1s.
	// Defaults to 10s.
	LeaseTTL time.Duration
	// RequestTimeout bounds each request to etcd. Defaults to 3s.
	RequestTimeout time.Duration
	// BlobGrace is how long the pieces of a replaced map stay readable. Defaults to 10m.
	BlobGrace time.Duration
	// TLS of the connections to etcd. Defaults to none.
	TLS *tls.Config
	// Username and Password, where etcd asks for them. Default to none.
	Username, Password string
	// Log. Defaults to none.
	Log *slog.Logger
}

func (c *Config) validate() error {
	if len(c.Endpoints) == 0 {
		return errors.New("etcd endpoints: at least one is needed")
	}
	if c.Prefix == "" {
		c.Prefix = "/shardyard/"
	}
	if !strings.HasSuffix(c.Prefix, "/") {
		c.Prefix += "/"
	}
	if c.LeaseTTL == 0 {
		c.LeaseTTL = 10 * time.Second
	}
	if c.LeaseTTL < time.Second || c.LeaseTTL%time.Second != 0 {
		return fmt.Errorf("etcd lease: %s is not a whole number of seconds, at least one", c.LeaseTTL)
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = 3 * time.Second
	}
	if c.BlobGrace == 0 {
		c.BlobGrace = 10 * time.Minute
	}
	if c.RequestTimeout < 0 || c.BlobGrace < time.Second {
		return errors.New("etcd timeouts: must be positive, the blob grace at least 1s")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Store is the directory of one cluster in etcd. It is safe for concurrent use.
type Store struct {
	config Config
	client *clientv3.Client
	root   string

	mu    sync.Mutex
	maps  map[string]cachedMap // by database: the last map that was read or written
	grace graceLease
}

// cachedMap spares reading and decoding a map that has not changed since.
type cachedMap struct {
	sum   string
	value *directory.Map
}

// Open makes a Store. It does not wait for etcd, so that a router can start without it; only wrong
// settings (and, with a user name, an etcd that refuses it) are errors.
func Open(ctx context.Context, config Config) (*Store, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: config.Endpoints, TLS: config.TLS, Username: config.Username, Password: config.Password,
		// Not ctx: the client outlives the call that opens it, and Close ends it.
		Context:              context.WithoutCancel(ctx),
		DialTimeout:          config.RequestTimeout,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		Logger:               zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			// The default grows to two minutes, during which an etcd that is back would go unnoticed.
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 2 * time.Second,
		})},
	})
	if err != nil {
		return nil, fmt.Errorf("open etcd client: %w", err)
	}
	root := config.Prefix
	if config.Cluster != "" {
		root += url.PathEscape(config.Cluster) + "/"
	}
	return &Store{config: config, client: client, root: root, maps: map[string]cachedMap{}}, nil
}

// Close ends the connections to etcd. Members must be closed before, watches ended.
func (s *Store) Close() error {
	if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close etcd client: %w", err)
	}
	return nil
}

func (s *Store) stateKey() string   { return s.root + "state/" }
func (s *Store) clusterKey() string { return s.root + "state/cluster" }
func (s *Store) manifestPrefix() string {
	return s.root + "state/maps/"
}
func (s *Store) manifestKey(database string) string {
	return s.manifestPrefix() + url.PathEscape(database)
}
func (s *Store) blobKey(database, sum string) string {
	return s.root + "blobs/" + url.PathEscape(database) + "/" + sum
}
func (s *Store) lastEpochKey(database string) string {
	return s.root + "epochs/" + url.PathEscape(database)
}
func (s *Store) routerPrefix() string         { return s.root + "routers/" }
func (s *Store) routerKey(name string) string { return s.routerPrefix() + name }
func (s *Store) seenPrefix() string           { return s.root + "seen/" }
func (s *Store) seenKey(name, instance string) string {
	return s.seenPrefix() + name + "/" + instance
}
