package devcluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/shardyard/shardyard/directory/etcd"
)

// Etcd returns the embedded etcd; nil if the configuration asked for none, or while it is stopped.
func (c *Cluster) Etcd() *etcd.Embedded {
	c.etcdMu.Lock()
	defer c.etcdMu.Unlock()
	return c.etcd
}

// StopEtcd stops the embedded etcd, whose data stays: an outage for whoever uses it.
func (c *Cluster) StopEtcd() {
	c.etcdMu.Lock()
	defer c.etcdMu.Unlock()
	if c.etcd != nil {
		c.etcd.Close()
		c.etcd = nil
	}
}

// StartEtcd starts the embedded etcd again after StopEtcd, on its port.
func (c *Cluster) StartEtcd(ctx context.Context) error {
	if !c.cfg.Etcd {
		return errors.New("start etcd: the cluster was configured without one")
	}
	return c.startEtcd(ctx, false)
}

// startEtcd starts it on the remembered port; if somebody has taken that and mayMove is set, on another.
func (c *Cluster) startEtcd(ctx context.Context, mayMove bool) error {
	c.etcdMu.Lock()
	defer c.etcdMu.Unlock()
	if c.etcd != nil {
		return nil
	}
	port := c.layout.Etcd
	if port == 0 {
		ports, err := freePorts(1)
		if err != nil {
			return fmt.Errorf("start etcd: %w", err)
		}
		port = ports[0]
	}
	port, err := onPort(ctx, port, mayMove, func(port uint16) (err error) {
		c.etcd, err = etcd.StartEmbedded(ctx, etcd.EmbeddedConfig{Dir: filepath.Join(c.dir, "etcd"), Port: port, NoSync: c.temporary, Log: c.log})
		return err
	})
	if err != nil {
		return err
	}
	c.layout.Etcd = port
	c.log.Info("etcd started", "port", port)
	return nil
}
