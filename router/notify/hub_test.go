package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/testbed"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

var cluster *testbed.Cluster

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(testbed.Main(m, devcluster.Config{Shards: 2}, &cluster))
}

// hearing is a hub of a database on the shards.
type hearing struct {
	*Hub
	t      *testing.T
	d      *testbed.Database
	shards []directory.Shard
}

func newHearing(t *testing.T) *hearing {
	t.Helper()
	d := cluster.Database(t)
	h := &hearing{NewHub(Config{Database: d.Name, Dial: d.Dial, Log: slog.New(slog.DiscardHandler)}), t, d, cluster.Shards()}
	t.Cleanup(h.Close)
	return h
}

func (h *hearing) listen(l *Listener, channels ...string) {
	h.t.Helper()
	testbed.Must(h.t, h.Listen(h.t.Context(), l, h.shards, channels))
}

// takes expects what a listener has got, as "channel payload" separated by commas, once all that was committed has arrived.
func (h *hearing) takes(l *Listener, want string) {
	h.t.Helper()
	h.Sync(h.t.Context())
	waiting, err := l.Take()
	testbed.Must(h.t, err)
	var got []string
	for _, n := range waiting {
		decoded, err := wire.DecodeNotification(n.Frame[5:])
		testbed.Must(h.t, err)
		got = append(got, fmt.Sprintf("%s %s", n.Channel, decoded.Payload))
	}
	if all := strings.Join(got, ","); all != want {
		h.t.Errorf("got %q, want %q", all, want)
	}
}

// Who listens gets what is committed on any shard from then on, until it listens no more; connections are open as long as
// somebody listens.
func TestHub(t *testing.T) {
	h := newHearing(t)
	var woken atomic.Int32
	one, two := NewListener(1, func() { woken.Add(1) }), NewListener(2, func() {})
	h.d.Exec(0, "NOTIFY a, 'before'")
	h.listen(one, "a", `odd "name"`)
	h.listen(two, "a")
	h.d.Exec(0, "NOTIFY a, 'x'", `NOTIFY "odd ""name""", 'y'`, "NOTIFY other, 'z'")
	h.d.Exec(1, "NOTIFY a, 'from the other shard'")
	h.Sync(t.Context())
	if n := woken.Load(); n != 1 {
		t.Errorf("woken %d times for what was not taken yet", n)
	}
	waiting, err := one.Take()
	testbed.Must(t, err)
	if len(waiting) != 3 {
		t.Errorf("got %d notifications, want 3", len(waiting))
	}
	h.Unlisten(one, []string{"a"})
	_, err = two.Take()
	testbed.Must(t, err)
	h.d.Exec(0, "NOTIFY a, 'again'", `NOTIFY "odd ""name""", 'again'`)
	h.takes(one, `odd "name" again`)
	h.takes(two, "a again")
	h.Unlisten(one, []string{`odd "name"`})
	h.Unlisten(two, []string{"a"})
	testbed.Until(t, "the connections are closed", func() bool { return h.connections(0)+h.connections(1) == 0 })
	h.listen(two, "b")
	h.d.Exec(1, "NOTIFY b, 'x'")
	h.takes(two, "b x")
}

// A connection that is lost is told to everybody who listens; who listens again later hears again.
func TestLostConnection(t *testing.T) {
	h := newHearing(t)
	l := NewListener(1, func() {})
	h.listen(l, "a")
	h.d.Exec(0, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%LISTEN%'")
	testbed.Until(t, "the loss is told", l.Waiting)
	if _, err := l.Take(); err == nil || pgerr.Of(err).Code != pgerr.ConnectionFailure {
		t.Errorf("got %v", err)
	}
	if !l.Waiting() {
		t.Error("the loss is forgotten")
	}
	h.Unlisten(l, []string{"a"})
	h.listen(l, "a")
	h.d.Exec(0, "NOTIFY a, 'x'")
	h.takes(l, "a x")
}

// Where a shard cannot be heard nobody listens.
func TestShardIsAway(t *testing.T) {
	h := newHearing(t)
	h.cfg.Dial = func(ctx context.Context, shard directory.Shard, database string) (*pgx.Conn, error) {
		if shard.ID == h.shards[1].ID {
			return nil, errors.New("it is away")
		}
		return h.d.Dial(ctx, shard, database)
	}
	l := NewListener(1, func() {})
	if err := h.Listen(t.Context(), l, h.shards, []string{"a"}); err == nil {
		t.Fatal("a shard that is not there is heard")
	}
	testbed.Until(t, "no connection is left", func() bool { return h.connections(0) == 0 })
}

// connections counts those of the hub on a shard.
func (h *hearing) connections(shard int) (n int) {
	h.t.Helper()
	conn, err := pgx.Connect(h.t.Context(), cluster.ConnString(shard, h.d.Name))
	testbed.Must(h.t, err)
	defer func() { _ = conn.Close(context.WithoutCancel(h.t.Context())) }()
	testbed.Must(h.t, conn.QueryRow(h.t.Context(),
		"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE '%LISTEN%' AND pid <> pg_backend_pid()").Scan(&n))
	return n
}
