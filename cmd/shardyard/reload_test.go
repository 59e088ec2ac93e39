package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/internal/testbed"
)

// reloadRules starts a router as serve does, and lets it read its rules again.
func reloadRules(t *testing.T, cluster *devcluster.Cluster) {
	t.Helper()
	rules := filepath.Join(t.TempDir(), "hba.conf")
	write := func(text string) { testbed.Must(t, os.WriteFile(rules, []byte(text), 0o600)) }
	write("host all all all reject\n")
	c := defaultConfig()
	c.Listen, c.Name, c.Etcd.Endpoints, c.Auth.HBAFile = "127.0.0.1:0", "reloaded", cluster.Etcd().Endpoints(), rules
	testbed.Must(t, c.validate())
	running, err := node.Start(t.Context(), c.node())
	testbed.Must(t, err)
	again := &reloader{load: func() (config, error) { return c, nil }, log: slog.New(slog.DiscardHandler), current: c}
	if err := again.reload(t.Context()); err == nil {
		t.Error("a router that has not started is reloaded")
	}
	again.started(running)
	enters := func() bool {
		conn, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://postgres@%s/postgres", running.Addr()))
		if err == nil {
			closeConn(t.Context(), conn)
		}
		return err == nil
	}
	if enters() {
		t.Error("the rules do not count")
	}
	write("host all all all trust\n")
	testbed.Must(t, again.reload(t.Context()))
	if !enters() {
		t.Error("the new rules do not count")
	}
	write("garbage\n")
	if err := again.reload(t.Context()); err == nil || !strings.Contains(err.Error(), rules+": line 1") {
		t.Errorf("got %v", err)
	}
	if !enters() {
		t.Error("rules that cannot be read count")
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), stopTimeout)
	defer cancel()
	testbed.Must(t, running.Close(closing))
}
