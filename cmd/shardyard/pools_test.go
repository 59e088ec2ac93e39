package main

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/shardyard/shardyard/router/backend"
)

const poolsYAML = `
pool: {size: 8, reserve: 2, reserve_timeout: 3s, min: 1, mode: session, max_waiting: 50}
pools:
  - {database: shop, size: 30}
  - {user: report, size: 4, reserve: 0, mode: transaction, clients: 10}
  - {database: shop, user: app, min: 5, clients: 0}
max_clients: 500
max_database_clients: 200
max_user_clients: 100
admin_users: [root, dba]
metrics: {listen: "127.0.0.1:9127"}
service: {password: geheim}
users: {app: geheim}
`

func TestPoolsAreConfigured(t *testing.T) {
	c, err := load(t, poolsYAML, []string{"SHARDYARD_STATS_USERS=monitor, grafana"})
	if err != nil {
		t.Fatal(err)
	}
	parts := c.node()
	if r := parts.Pools.Rules[1]; *r.Reserve != 0 || r.Min != nil || r.Size != 4 || r.Mode != backend.TransactionMode || r.User != "report" {
		t.Errorf("got %+v", r)
	}
	p := parts.Pools
	if p.PoolSize != 8 || p.PoolReserve != 2 || p.ReserveTimeout != 3*time.Second || p.PoolMin != 1 || p.Mode != backend.SessionMode || p.MaxWaiting != 50 || len(p.Rules) != 3 {
		t.Errorf("got %+v", p)
	}
	clients := parts.Router.Clients
	if clients.Total != 500 || clients.Database != 200 || clients.User != 100 || len(clients.Rules) != 2 || clients.Rules[0].Clients != 10 || clients.Rules[1].Clients != 0 {
		t.Errorf("got %+v", clients)
	}
	if strings.Join(parts.Router.AdminUsers, " ") != "root dba" || strings.Join(parts.Router.StatsUsers, " ") != "monitor grafana" || parts.Metrics != "127.0.0.1:9127" {
		t.Errorf("got %q, %q, %q", parts.Router.AdminUsers, parts.Router.StatsUsers, parts.Metrics)
	}
	if c, err = load(t, "", nil); err != nil || strings.Join(c.node().Router.AdminUsers, " ") != "postgres" {
		t.Errorf("without admin_users: %q, %v", c.node().Router.AdminUsers, err)
	}
}

func TestFaultyPoolsNameTheirKeys(t *testing.T) {
	for _, tc := range []struct{ yaml, want string }{
		{"pool: {mode: statement}", "pool.mode:"},
		{"pool: {min: 30}", "pool.min:"},
		{"pool: {reserve: -1}", "pool.reserve:"},
		{"pool: {reserve_timeout: 0s}", "pool.reserve_timeout:"},
		{"pool: {max_waiting: 0}", "pool.max_waiting:"},
		{"pools: [{size: 3}]", "pools[0]: it names neither"},
		{"pools: [{user: a}, {user: a}]", "pools[1]: there is another one"},
		{"pools: [{user: a, reserve: -1}]", "pools[0].reserve:"},
		{"pools: [{user: a, mode: x}]", "pools[0].mode:"},
		{"pools: [{user: a, sice: 3}]", "unknown configuration key pools[0].sice"},
		{"pools: [{user: a, size: many}]", "pools[0].size"},
		{"pools: 7", "pools"},
		{"max_user_clients: -1", "max_user_clients:"},
		{"max_database_clients: -1", "max_database_clients:"},
		{"metrics: {listen: here}", "metrics.listen:"},
	} {
		if _, err := load(t, tc.yaml, nil); err == nil || !strings.Contains(strings.ToLower(err.Error()), tc.want) {
			t.Errorf("%s: got error %v, want it to name %q", tc.yaml, err, tc.want)
		}
	}
}

// SHOW CONFIG has every key, and no secret.
func TestSettingsAreShown(t *testing.T) {
	c, err := load(t, poolsYAML, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, s := range c.settings() {
		if strings.Contains(s.Value+s.Default, "geheim") {
			t.Errorf("%s shows a secret", s.Key)
		}
		got[s.Key] = s.Value
		if s.Key == "pool.size" && (s.Default != "20" || !s.Changeable) || s.Key == "listen" && s.Changeable {
			t.Errorf("got %+v", s)
		}
	}
	for key, want := range map[string]string{
		"pool.size": "8", "pool.reserve_timeout": "3s", "users": "***", "service.password": "***", "admin_users": "root,dba", "log.level": "info",
		"pools": "{database=shop size=30},{user=report size=4 reserve=0 mode=transaction clients=10},{database=shop user=app min=5 clients=0}",
	} {
		if got[key] != want {
			t.Errorf("%s: got %q, want %q", key, got[key], want)
		}
	}
}

func TestNothingIsReloadedBeforeTheStart(t *testing.T) {
	r := &reloader{load: func() (config, error) { return defaultConfig(), nil }, log: slog.New(slog.DiscardHandler), current: defaultConfig()}
	if err := r.reload(t.Context()); err == nil || len(r.settings()) == 0 {
		t.Fatalf("got %v", err)
	}
}
