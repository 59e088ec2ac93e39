package soak

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/internal/node/nodetest"
	"github.com/shardyard/shardyard/internal/testbed"
)

const (
	wave = 16 // clients that live at the same time
	// fewest waves are lived through however long they take. The first quarter of all waves warms the caches up.
	fewest = 8
)

// What may grow over the whole run, by the fitted line.
const (
	maxGoroutines  = 4.0
	maxConnections = 4.0
	maxHeap        = 2.0 // MiB
)

// sample is what is left when the clients of a wave are gone.
type sample struct{ goroutines, connections, heap float64 }

// TestSoak is described with the package.
func TestSoak(t *testing.T) {
	for name, fresh := range map[string]bool{"goroutine": false, "fresh": true} {
		t.Run(name, func(t *testing.T) { soak(t, fresh) })
	}
}

func soak(t *testing.T, fresh bool) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	b := nodetest.New(t, cluster, 1, func(c *node.Config) { c.Pools.PoolSize = 8; c.Router.EventLoop = fresh })
	conn := b.Session(0)
	for _, sql := range []string{
		"CREATE TABLE items (id int PRIMARY KEY, name text)", "SHARD TABLE items BY HASH (id) PARTITIONS 6",
		"INSERT INTO items SELECT i, repeat('x', 1000) FROM generate_series(1, 2000) i", "CREATE TABLE plain (id int, name text)",
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	testbed.Must(t, conn.Close(t.Context()))
	var watchers []*pgx.Conn
	for shard := range 3 {
		watchers = append(watchers, testbed.Connect(t, cluster.ConnString(shard, b.Name)))
	}
	random := rand.New(rand.NewPCG(seed, 1))
	address := b.Routers[0].Addr().String()
	var samples []sample
	end := time.Now().Add(*soakFor / 2) // of each mode
	for len(samples) < fewest || time.Now().Before(end) {
		var work sync.WaitGroup
		for i := range wave {
			v := &vanisher{t: t, address: address, database: b.Name, way: ways[(len(samples)*wave+i)%len(ways)], random: rand.New(rand.NewPCG(random.Uint64(), 0))}
			work.Add(1)
			go func() { defer work.Done(); v.live() }()
		}
		work.Wait()
		samples = append(samples, settle(t, watchers))
	}
	judge(t, samples[len(samples)/4:])
}

// settle waits until the last wave is forgotten and measures.
func settle(t *testing.T, watchers []*pgx.Conn) sample {
	t.Helper()
	var s sample
	testbed.Until(t, "no client of the wave is left", func() bool {
		var busy int
		err := watchers[0].QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND (state <> 'idle' OR query LIKE 'LISTEN%' OR query = '')`).Scan(&busy)
		testbed.Must(t, err)
		return busy == 0
	})
	for _, watcher := range watchers {
		var n int
		testbed.Must(t, watcher.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()").Scan(&n))
		s.connections += float64(n)
	}
	// What has just ended is ending still.
	last := runtime.NumGoroutine()
	for same := 0; same < 10; same++ {
		time.Sleep(2 * time.Millisecond)
		if now := runtime.NumGoroutine(); now != last {
			last, same = now, 0
		}
	}
	s.goroutines = float64(last)
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.heap = float64(m.HeapAlloc) / (1 << 20)
	return s
}

// judge fits a line through the samples (least squares) and bounds what it grows by over the run.
func judge(t *testing.T, samples []sample) {
	t.Helper()
	for _, c := range []struct {
		what  string
		of    func(sample) float64
		bound float64
	}{
		{"goroutines", func(s sample) float64 { return s.goroutines }, maxGoroutines},
		{"server connections", func(s sample) float64 { return s.connections }, maxConnections},
		{"MiB of heap", func(s sample) float64 { return s.heap }, maxHeap},
	} {
		values := make([]float64, len(samples))
		for i, s := range samples {
			values[i] = c.of(s)
		}
		growth := slope(values) * float64(len(values))
		t.Logf("%s: first %.1f, last %.1f, the line grows by %.2f in %d waves", c.what, values[0], values[len(values)-1], growth, len(values))
		if growth > c.bound {
			t.Errorf("%s grow by %.2f in %d waves of %d clients, want at most %.1f: %.1f", c.what, growth, len(values), wave, c.bound, values)
		}
	}
}

// slope is that of the line through the points (i, values[i]) with the least squares.
func slope(values []float64) float64 {
	n := float64(len(values))
	var sx, sy, sxx, sxy float64
	for i, y := range values {
		x := float64(i)
		sx, sy, sxx, sxy = sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	return (n*sxy - sx*sy) / (n*sxx - sx*sx)
}

func TestSlope(t *testing.T) {
	if got := slope([]float64{3, 5, 7, 9}); got != 2 {
		t.Errorf("got %v, want 2", got)
	}
	if got := slope([]float64{4, 2, 2, 4}); got != 0 {
		t.Errorf("got %v, want 0", got)
	}
}

type way struct {
	name string
	do   func(v *vanisher)
}

// vanisher is a client that does not behave.
type vanisher struct {
	t                 *testing.T
	address, database string
	way               way
	random            *rand.Rand

	conn net.Conn
	f    *pgproto3.Frontend
	key  pgproto3.BackendKeyData
}

// ways are what a client does before it goes.
var ways = []way{
	{"says goodbye", func(v *vanisher) {
		v.run("SELECT name FROM items WHERE id = 7")
		v.f.Send(&pgproto3.Terminate{})
		_ = v.f.Flush()
	}},
	{"in a statement", func(v *vanisher) { v.say(&pgproto3.Query{String: "SELECT pg_sleep(30)"}) }},
	{"in a statement of all shards", func(v *vanisher) { v.say(&pgproto3.Query{String: "SELECT id, pg_sleep(10) FROM items"}) }},
	{"in a transaction", func(v *vanisher) { v.run("BEGIN"); v.run("UPDATE items SET name = 'y' WHERE id < 5") }},
	{"in a message", func(v *vanisher) { _, _ = v.conn.Write([]byte{'Q', 0, 0, 1, 0, 'S', 'E', 'L'}) }},
	{"in a pipeline", func(v *vanisher) {
		v.say(&pgproto3.Parse{Query: "INSERT INTO plain VALUES (1, 'x')"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Flush{})
	}},
	{"in a COPY", func(v *vanisher) {
		v.say(&pgproto3.Query{String: "COPY items FROM STDIN"}, &pgproto3.CopyData{Data: []byte("100000\tx\n")})
	}},
	{"without reading", func(v *vanisher) { v.say(&pgproto3.Query{String: "SELECT i.name FROM items i ORDER BY i.id"}) }},
	{"cancelling", func(v *vanisher) { v.say(&pgproto3.Query{String: "SELECT pg_sleep(30)"}); v.cancel(); v.cancel() }},
	{"listening", func(v *vanisher) { v.run("LISTEN a"); v.run("NOTIFY a, 'x'") }},
	{"with a temporary table", func(v *vanisher) {
		v.run("CREATE TEMP TABLE t (a int)")
		v.run(fmt.Sprintf("SELECT pg_advisory_lock(%d)", v.random.Int64()))
	}},
	{"with prepared statements", func(v *vanisher) {
		n := v.random.IntN(300)
		v.say(&pgproto3.Parse{Name: fmt.Sprint(n), Query: fmt.Sprintf("SELECT %d + id FROM items WHERE id = $1", n)}, &pgproto3.Sync{})
		v.ready()
	}},
	{"with settings", func(v *vanisher) { v.run("SET work_mem = '2MB'"); v.run("SET app.x = 'y'; SELECT 1") }},
	{"failing", func(v *vanisher) { v.run("BEGIN"); v.run("SELECT 1/0") }},
}

func (v *vanisher) live() {
	conn, err := net.Dial("tcp", v.address)
	if err != nil {
		v.t.Errorf("dial: %v", err)
		return
	}
	v.conn, v.f = conn, pgproto3.NewFrontend(conn, conn)
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		v.t.Errorf("set deadline: %v", err)
	}
	switch v.random.IntN(20) {
	case 0: // says nothing at all
	case 1:
		_, _ = conn.Write([]byte{0, 0, 1, 0, 0, 3})
	default:
		v.say(&pgproto3.StartupMessage{ProtocolVersion: 196608, Parameters: map[string]string{"user": "postgres", "database": v.database}})
		if v.random.IntN(20) > 0 && v.ready() {
			v.way.do(v)
		}
	}
	switch v.random.IntN(3) {
	case 0:
		_ = conn.(*net.TCPConn).SetLinger(0) // the end is a reset
	case 1:
		_ = conn.(*net.TCPConn).CloseWrite()
	}
	_ = conn.Close()
}

func (v *vanisher) say(messages ...pgproto3.FrontendMessage) {
	for _, m := range messages {
		v.f.Send(m)
	}
	_ = v.f.Flush()
}

func (v *vanisher) run(sql string) {
	v.say(&pgproto3.Query{String: sql})
	v.ready()
}

// ready reads up to the next ReadyForQuery.
func (v *vanisher) ready() bool {
	for {
		m, err := v.f.Receive()
		switch m := m.(type) {
		case *pgproto3.BackendKeyData:
			v.key = *m
			v.key.SecretKey = append([]byte(nil), m.SecretKey...)
		case *pgproto3.ReadyForQuery:
			return true
		}
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				v.t.Errorf("%s: no answer", v.way.name)
			} else if !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
				v.t.Errorf("%s: %v", v.way.name, err)
			}
			return false
		}
	}
}

// cancel sends a cancel request and leaves without an answer.
func (v *vanisher) cancel() {
	ctx, stop := context.WithTimeout(v.t.Context(), time.Minute)
	defer stop()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", v.address)
	if err != nil {
		v.t.Errorf("dial: %v", err)
		return
	}
	request := binary.BigEndian.AppendUint32(nil, uint32(12+len(v.key.SecretKey)))
	request = binary.BigEndian.AppendUint32(request, 80877102)
	request = binary.BigEndian.AppendUint32(request, v.key.ProcessID)
	_, _ = conn.Write(append(request, v.key.SecretKey...))
	_ = conn.Close()
}
