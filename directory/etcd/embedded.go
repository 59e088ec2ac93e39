package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// EmbeddedConfig describes an etcd server inside this process, for development and tests.
type EmbeddedConfig struct {
	// Dir holds the data; it is created, or used on from the last time.
	Dir string
	// Port for clients on 127.0.0.1. Defaults to a free one.
	Port uint16
	// NoSync leaves out every fsync, for data that nobody needs after a crash of the machine.
	NoSync bool
	// Log gets etcd's warnings and errors. Defaults to none.
	Log *slog.Logger
}

// Embedded is a running etcd server of one member. It is safe for concurrent use.
type Embedded struct {
	server  *embed.Etcd
	close   sync.Once
	closing atomic.Bool
}

// StartEmbedded starts a server and waits until it answers. It listens on loopback only and compacts
// revisions older than ten minutes. The caller closes it.
func StartEmbedded(ctx context.Context, config EmbeddedConfig) (*Embedded, error) {
	if config.Dir == "" {
		return nil, errors.New("start etcd: a data directory is needed")
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	e := &Embedded{}
	c := embed.NewConfig()
	c.Name = "shardyard"
	c.Dir = config.Dir
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(slogCore{log: config.Log, closing: &e.closing}))
	// The port of the peers is never used, and a free one each time. What is advertised is part of the
	// member's identity in the data directory, so it is a name that stays.
	loopback := func(port uint16) url.URL {
		return url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))}
	}
	c.ListenClientUrls = []url.URL{loopback(config.Port)}
	c.AdvertiseClientUrls = c.ListenClientUrls
	c.ListenPeerUrls = []url.URL{loopback(0)}
	c.AdvertisePeerUrls = []url.URL{loopback(0)}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.EnableGRPCGateway = false
	c.UnsafeNoFsync = config.NoSync
	c.AutoCompactionMode = embed.CompactorModePeriodic
	c.AutoCompactionRetention = "10m"
	server, err := embed.StartEtcd(c)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	e.server = server
	select {
	case <-server.Server.ReadyNotify():
		return e, nil
	case err := <-server.Err():
		e.Close()
		return nil, fmt.Errorf("start etcd: %w", err)
	case <-ctx.Done():
		e.Close()
		return nil, fmt.Errorf("start etcd: %w", context.Cause(ctx))
	}
}

// Endpoints for Config.Endpoints.
func (e *Embedded) Endpoints() []string {
	endpoints := make([]string, 0, len(e.server.Clients))
	for _, listener := range e.server.Clients {
		endpoints = append(endpoints, "http://"+listener.Addr().String())
	}
	return endpoints
}

// Port on which clients are served.
func (e *Embedded) Port() uint16 {
	address, ok := e.server.Clients[0].Addr().(*net.TCPAddr)
	if !ok {
		return 0
	}
	return uint16(address.Port)
}

// Close stops the server and waits for it. The data stays.
func (e *Embedded) Close() {
	e.close.Do(func() {
		e.closing.Store(true)
		e.server.Close()
	})
}
