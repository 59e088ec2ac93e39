package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

// Config is what a Hub needs. All fields are required.
type Config struct {
	Database string
	// Dial opens a connection to the database on a shard.
	Dial func(ctx context.Context, shard directory.Shard, database string) (*pgx.Conn, error)
	Log  *slog.Logger
}

// Hub hears the notifications of one database. Its methods are safe for concurrent use.
type Hub struct {
	cfg  Config
	work sync.WaitGroup // the goroutines of the feeds

	mu        sync.Mutex
	closed    bool
	feeds     map[directory.ShardID]*feed
	listeners map[string]map[*Listener]*membership // by channel
	notifiers map[notifier]uint32                  // process ids that the sessions' clients were told
}

// membership is that of a listener in a channel. Of a feed that is pending it gets nothing yet: what is on its way there may have
// been committed before.
type membership struct{ pending map[*feed]struct{} }

// notifier is a server process that has run a NOTIFY for a session.
type notifier struct {
	shard directory.ShardID
	pid   uint32
}

const (
	// maxNotifiers bounds what is remembered of them; when it is full all is forgotten, and clients are told the servers' process ids.
	maxNotifiers = 4096
	// syncTimeout bounds the wait for notifications that have been sent. After it they come later.
	syncTimeout = 5 * time.Second
)

// NewHub returns a hub that has no connections yet.
func NewHub(cfg Config) *Hub {
	return &Hub{
		cfg: cfg, feeds: make(map[directory.ShardID]*feed), listeners: make(map[string]map[*Listener]*membership),
		notifiers: make(map[notifier]uint32),
	}
}

// Close ends the connections and waits for their goroutines. Who still listens is told.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	var woken []*Listener
	for _, f := range h.feeds {
		woken = append(woken, h.endFeed(f, errClosed())...)
	}
	h.mu.Unlock()
	wakeAll(woken)
	h.work.Wait()
}

func errClosed() error { return pgerr.New(pgerr.AdminShutdown, "the router is shutting down") }

// Listen has l hear the channels, on all shards given and those that are heard already. When it returns, what is committed from
// then on is heard. After an error l hears none of the channels.
func (h *Hub) Listen(ctx context.Context, l *Listener, shards []directory.Shard, channels []string) error {
	asked, err := h.add(ctx, l, shards, channels)
	if err != nil {
		return err
	}
	for _, r := range asked {
		if err = r.wait(ctx); err != nil {
			break
		}
	}
	if err == nil {
		return nil
	}
	h.Unlisten(l, channels)
	return fmt.Errorf("listen: %w", err)
}

func (h *Hub) add(ctx context.Context, l *Listener, shards []directory.Shard, channels []string) ([]*request, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errClosed()
	}
	h.startFeeds(ctx, shards)
	var asked []*request
	for _, channel := range channels {
		set := h.listeners[channel]
		if set == nil {
			set = make(map[*Listener]*membership)
			h.listeners[channel] = set
		}
		if set[l] != nil {
			continue
		}
		m := &membership{pending: make(map[*feed]struct{})}
		set[l] = m
		l.channels++
		for _, f := range h.feeds {
			r := f.hear(channel)
			m.pending[f] = struct{}{}
			r.joining = append(r.joining, m)
			asked = append(asked, r)
		}
	}
	return asked, nil
}

// startFeeds opens connections to the shards that have none, which hear every channel. The caller holds mu.
func (h *Hub) startFeeds(ctx context.Context, shards []directory.Shard) (asked []*request) {
	for _, shard := range shards {
		if _, there := h.feeds[shard.ID]; there {
			continue
		}
		f := &feed{hub: h, shard: shard, channels: make(map[string]struct{})}
		h.feeds[shard.ID] = f
		for channel := range h.listeners {
			asked = append(asked, f.hear(channel))
		}
		h.work.Add(1)
		go func() { defer h.work.Done(); f.run(context.WithoutCancel(ctx)) }()
	}
	return asked
}

// Unlisten ends the hearing of channels. It does not wait.
func (h *Hub) Unlisten(l *Listener, channels []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, channel := range channels {
		set := h.listeners[channel]
		if set[l] == nil {
			continue
		}
		delete(set, l)
		l.channels--
		if len(set) > 0 {
			continue
		}
		delete(h.listeners, channel)
		for _, f := range h.feeds {
			f.unhear(channel)
		}
	}
	if l.channels == 0 {
		l.forgive()
	}
	if len(h.listeners) == 0 {
		for _, f := range h.feeds {
			h.endFeed(f, nil)
		}
	}
}

// Follow hears the shards that the database has got since, and takes leave of addresses that it has no more. It waits until
// the new ones are heard, or a while; who listens is told if one cannot be.
func (h *Hub) Follow(ctx context.Context, shards []directory.Shard) {
	h.mu.Lock()
	if len(h.listeners) == 0 || h.closed {
		h.mu.Unlock()
		return
	}
	var woken []*Listener
	for _, shard := range shards {
		if f := h.feeds[shard.ID]; f != nil && f.shard.Primary != shard.Primary {
			woken = append(woken, h.endFeed(f, errLost(shard.ID, errors.New("the shard has another server now")))...)
		}
	}
	asked := h.startFeeds(ctx, shards)
	h.mu.Unlock()
	wakeAll(woken)
	waitAll(ctx, asked)
}

// Heard reports whether anybody listens.
func (h *Hub) Heard() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.listeners) > 0
}

// Sync waits until every notification that was committed before the call on the shards, or on all if none is named, has been given to
// its listeners, but not longer than five seconds.
func (h *Hub) Sync(ctx context.Context, shards ...directory.ShardID) {
	h.mu.Lock()
	asked := make([]*request, 0, len(h.feeds))
	for id, f := range h.feeds {
		if len(shards) == 0 || slices.Contains(shards, id) {
			asked = append(asked, f.ask(""))
		}
	}
	h.mu.Unlock()
	waitAll(ctx, asked)
}

// waitAll waits for the answers, but not for ever. Those who listen are told of what fails.
func waitAll(ctx context.Context, asked []*request) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	for _, r := range asked {
		if r.wait(ctx) != nil && ctx.Err() != nil {
			return
		}
	}
}

// Note says for which session a server process runs what may notify: clients are told the process id of that session. It is
// called before the statement runs. What the process has sent for another session is waited for.
func (h *Hub) Note(ctx context.Context, shard directory.ShardID, server, session uint32) {
	key := notifier{shard, server}
	h.mu.Lock()
	defer h.mu.Unlock()
	if was, known := h.notifiers[key]; known && was == session {
		return
	} else if f := h.feeds[shard]; known && f != nil {
		r := f.ask("")
		h.mu.Unlock()
		waitAll(ctx, []*request{r})
		h.mu.Lock()
	}
	if len(h.notifiers) >= maxNotifiers {
		clear(h.notifiers)
	}
	h.notifiers[key] = session
}

// deliver gives a notification to those who listen.
func (h *Hub) deliver(f *feed, n wire.Notification) {
	channel, payload := string(n.Channel), string(n.Payload)
	h.mu.Lock()
	var set map[*Listener]*membership
	if !f.ended {
		set = h.listeners[channel]
	}
	pid, ours := h.notifiers[notifier{f.shard.ID, n.PID}]
	if !ours {
		pid = n.PID
	}
	var woken []*Listener
	var shared []byte
	for l, m := range set {
		if _, pending := m.pending[f]; pending {
			continue
		}
		frame := shared
		switch {
		case pid == l.pid && !ours:
			frame = wire.AppendNotification(nil, 0, channel, payload) // a stranger's process id that happens to be the client's own
		case frame == nil:
			frame = wire.AppendNotification(nil, pid, channel, payload)
			shared = frame
		}
		if l.push(Notification{Channel: channel, Frame: frame}) {
			woken = append(woken, l)
		}
	}
	h.mu.Unlock()
	wakeAll(woken)
}

func wakeAll(listeners []*Listener) {
	for _, l := range listeners {
		l.wake()
	}
}

// endFeed takes a feed out. err, if any, is what everybody who listens is told; those who must be woken are returned. The
// caller holds mu.
func (h *Hub) endFeed(f *feed, err error) (woken []*Listener) {
	if h.feeds[f.shard.ID] != f {
		return nil
	}
	delete(h.feeds, f.shard.ID)
	f.end(err)
	if err == nil {
		return nil
	}
	told := make(map[*Listener]struct{})
	for _, set := range h.listeners {
		for l := range set {
			if _, again := told[l]; again {
				continue
			}
			told[l] = struct{}{}
			if l.lose(err) {
				woken = append(woken, l)
			}
		}
	}
	return woken
}

func errLost(shard directory.ShardID, cause error) error {
	return pgerr.Newf(pgerr.ConnectionFailure, "the connection that hears the notifications of shard %s was lost", shard).
		WithDetail("Notifications may have been missed.").
		WithHint("Connect and LISTEN again, then look for what has changed.").Because(cause)
}
