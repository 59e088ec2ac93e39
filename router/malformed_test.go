package router_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	gosync "sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/shardyard/shardyard/internal/node"
)

// busyServers counts the shards on which a connection to the bed's database does something.
func (b *bed) busyServers() int {
	b.t.Helper()
	busy := 0
	for i := range cluster.Shards() {
		s := shardScript(b.t, i, "postgres")
		got := s.play(query("SELECT count(*) FROM pg_stat_activity WHERE datname = '" + b.database + "' AND (state <> 'idle' OR wait_event = 'ClientWrite')"))
		_ = s.conn.Close()
		if !strings.Contains(got, "row:0") {
			busy++
		}
	}
	return busy
}

// states are what a session may be in when it gets something that does not belong there.
func states() map[string][]pgproto3.FrontendMessage {
	return map[string][]pgproto3.FrontendMessage{
		"idle":           nil,
		"transaction":    q("BEGIN; SELECT 1"),
		"failed":         q("BEGIN; SELECT 1/0"),
		"two shards":     q("BEGIN; SELECT id FROM items"),
		"pipeline":       batch(extended("SELECT name FROM items WHERE id = 1"), &pgproto3.Flush{}),
		"scatter":        batch(extended("SELECT name FROM items"), &pgproto3.Flush{}),
		"skipping":       batch(extended("SELECT 1/0"), &pgproto3.Flush{}),
		"portal":         batch(extended("BEGIN"), parse("", "SELECT id FROM items ORDER BY id"), bind("p", ""), execute("p", 2), &pgproto3.Flush{}),
		"copy":           q("COPY plain FROM STDIN"),
		"copy extended":  batch(extended("COPY plain FROM STDIN"), &pgproto3.Flush{}),
		"copy in block":  q("BEGIN; COPY plain FROM STDIN"),
		"running":        q("SELECT pg_sleep(3)"),
		"scatter runs":   q("SELECT pg_sleep(0.5), id FROM items"),
		"big answer":     q("SELECT repeat('x', 1000) FROM generate_series(1, 100000)"),
		"big scatter":    q("SELECT repeat('x', 100000), id FROM items CROSS JOIN generate_series(1, 1000)"),
		"big copy":       q("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT"),
		"lock":           q("SELECT pg_advisory_lock(5)"),
		"temp":           q("CREATE TEMP TABLE tt (a int)"),
		"cursor":         q("BEGIN; DECLARE c CURSOR FOR SELECT * FROM plain; FETCH c"),
		"prepared":       q("PREPARE x AS SELECT 1"),
		"writes":         q("BEGIN; UPDATE plain SET item = 5 WHERE id = 2"),
		"implicit write": batch(extended("UPDATE plain SET item = 5 WHERE id = 2"), &pgproto3.Flush{}),
	}
}

// A client that vanishes in any state, or sends rubbish in it, leaves nothing behind: no goroutine, no server
// connection in use, no lock, no half of a transaction.
func TestRubbishInEveryState(t *testing.T) {
	rubbish := map[string]func(r *rand.Rand) []byte{
		"nothing":   func(*rand.Rand) []byte { return nil },
		"truncated": func(*rand.Rand) []byte { return []byte{'Q', 0, 0, 1, 0, 'S'} },
		"length":    func(*rand.Rand) []byte { return []byte{'Q', 0xff, 0xff, 0xff, 0xff} },
		"type":      func(*rand.Rand) []byte { return []byte{1, 0, 0, 0, 4} },
		"random": func(r *rand.Rand) []byte {
			b := make([]byte, 1+r.IntN(300))
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			return b
		},
		"frames": func(r *rand.Rand) []byte {
			var out []byte
			for range 1 + r.IntN(8) {
				body := make([]byte, 1+r.IntN(40)) // an empty S would be a Sync, which commits what stands before it
				for i := range body {
					body[i] = []byte{0, 0, 0, 1, 'S', 'P', 'a', 255, 127, byte(r.Uint32())}[r.IntN(10)]
				}
				out = append(out, "PBDECSHQFdcf"[r.IntN(12)])
				out = append(binary.BigEndian.AppendUint32(out, uint32(4+len(body))), body...)
			}
			return out
		},
		"copy data": func(*rand.Rand) []byte { return []byte("d\x00\x00\x00\x09x\ty\nc\x00\x00\x00\x04S\x00\x00\x00\x04") },
		"copy fail": func(*rand.Rand) []byte { return []byte("f\x00\x00\x00\x07no\x00S\x00\x00\x00\x04") },
		"terminate": func(*rand.Rand) []byte { return []byte("X\x00\x00\x00\x04") },
		"fcall":     func(*rand.Rand) []byte { return []byte("F\x00\x00\x00\x0e\x00\x00\x00\x01\x7f\xff\x00\x00\x00\x00") },
		"parameters": func(*rand.Rand) []byte {
			out := append([]byte("P\x00\x00\x00\x00\x00SELECT 1\x00\x7f\xff"), make([]byte, 4*0x7fff)...)
			binary.BigEndian.PutUint32(out[1:], uint32(len(out)-1))
			return out
		},
		"many values": func(*rand.Rand) []byte {
			out := append([]byte("B\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff"), make([]byte, 4*0xffff)...)
			out = append(out, 0, 0)
			binary.BigEndian.PutUint32(out[1:], uint32(len(out)-1))
			return append(out, "S\x00\x00\x00\x04"...)
		},
	}
	seed := rand.Uint64()
	if text := os.Getenv("SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 7))
	eachMode(t, func(t *testing.T, b *bed) {
		shop(t, b)
		warm := b.script(0)
		warm.want("columns:1 row:1 done:SELECT_1 ready:I", query("SELECT 1"))
		before := runtime.NumGoroutine()
		for name, state := range states() {
			var sessions []*script // some at once, but fewer than there are server connections
			var answers [][]byte
			for kind, bytes := range rubbish {
				if name == "implicit write" && strings.HasPrefix(kind, "copy ") {
					continue // is ignored outside of a COPY, as in Postgres, and the Sync behind it commits
				}
				s := b.script(0)
				for _, m := range state {
					s.Send(m)
				}
				if err := s.Flush(); err != nil {
					t.Fatal(err)
				}
				sessions, answers = append(sessions, s), append(answers, bytes(random))
				if len(sessions) == 4 {
					vanish(sessions, answers, len(state) > 0, random)
					sessions, answers = nil, nil
				}
			}
			vanish(sessions, answers, len(state) > 0, random)
		}
		b.await("the server connections to become free", func() bool { return b.busyServers() == 0 })
		b.await("the goroutines to end", func() bool { return runtime.NumGoroutine() <= before+10 })
		expect(t, b.connect(0), "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", "0\nSELECT 1")
		expect(t, b.connect(0), "SELECT item FROM plain WHERE id = 2", "2\nSELECT 1")
	}, func(c *node.Config) { c.Pools.PoolSize = 5 })
}

// vanish sends each session its rubbish and goes away, from some only when they have answered something.
func vanish(sessions []*script, rubbish [][]byte, answers bool, random *rand.Rand) {
	atMost := time.Now().Add(100 * time.Millisecond)
	for _, s := range sessions {
		if random.IntN(2) == 0 && answers {
			_ = s.conn.SetReadDeadline(atMost)
			_, _ = s.conn.Read(make([]byte, 100)) // the state is reached, or it takes long
			_ = s.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		}
	}
	for i, s := range sessions {
		_, _ = s.conn.Write(rubbish[i])
		if random.IntN(2) == 0 {
			_ = s.conn.(*net.TCPConn).SetLinger(0)
		}
		_ = s.conn.Close()
	}
}

// Random messages never end the process, and the session of another client goes on.
func TestRandomMessages(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if text := os.Getenv("SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 9))
	texts := []string{
		"SELECT 1", "SELECT $1::int", "SELECT name FROM items WHERE id = $1", "SELECT id FROM items ORDER BY id LIMIT $1", "BEGIN", "COMMIT",
		"ROLLBACK", "SAVEPOINT a", "ROLLBACK TO a", "INSERT INTO plain VALUES ($1, 1)", "UPDATE items SET name = $2 WHERE id = $1", "SELECT 1/0",
		"SET work_mem = '1MB'", "RESET ALL", "DISCARD ALL", "COPY plain TO STDOUT", "COPY plain FROM STDIN", "COPY items TO STDOUT", "", ";", "SELEC", "DECLARE c CURSOR FOR SELECT id FROM plain",
		"FETCH c", "CLOSE c", "PREPARE p AS SELECT id FROM items WHERE id = $1", "EXECUTE p(1)", "DEALLOCATE p", "SHOW SHARDS", "EXPLAIN SELECT * FROM items",
		"SELECT feel, feels FROM items", "SELECT * FROM items WHERE id IN ($1, $2)", "SELECT pg_notify('a', 'b')", "CREATE TEMP TABLE IF NOT EXISTS t1 (a int)", "SELECT * FROM t1",
	}
	names := []string{"", "a", "b", "c", "p"}
	name := func() string { return names[random.IntN(len(names))] }
	text := func() string { return texts[random.IntN(len(texts))] }
	message := func() pgproto3.FrontendMessage {
		switch random.IntN(13) {
		case 0:
			return query(text())
		case 1, 2, 3:
			return parse(name(), text())
		case 4, 5, 6:
			m := &pgproto3.Bind{DestinationPortal: name(), PreparedStatement: name()}
			for range random.IntN(4) {
				m.Parameters = append(m.Parameters, [][]byte{nil, []byte("1"), []byte("7"), {0, 0, 0, 1}, []byte("x")}[random.IntN(5)])
			}
			for range random.IntN(3) {
				m.ParameterFormatCodes = append(m.ParameterFormatCodes, int16(random.IntN(2)))
				m.ResultFormatCodes = append(m.ResultFormatCodes, int16(random.IntN(2)))
			}
			return m
		case 7:
			return describe("SP"[random.IntN(2)], name())
		case 8, 9:
			return execute(name(), uint32(random.IntN(3)))
		case 10:
			return &pgproto3.Close{ObjectType: "SP"[random.IntN(2)], Name: name()}
		case 11:
			return []pgproto3.FrontendMessage{&pgproto3.Flush{}, &pgproto3.CopyData{Data: []byte("1\t2\n")}, &pgproto3.CopyDone{}, &pgproto3.CopyFail{Message: "no"}}[random.IntN(4)]
		}
		return sync
	}
	eachMode(t, func(t *testing.T, b *bed) {
		shop(t, b)
		other := b.script(0)
		for range 150 {
			s := b.script(0)
			s.t = t
			var log []string
			for range 1 + random.IntN(30) {
				m := message()
				log = append(log, fmt.Sprintf("%T%+v", m, m))
				s.Send(m)
			}
			// Whatever state that led to, these lead out of it.
			s.Send(&pgproto3.CopyFail{Message: "end"})
			s.Send(sync)
			s.Send(query("ROLLBACK"))
			s.Send(query("SELECT 4711"))
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			_ = s.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			for {
				m, err := s.Receive()
				if err != nil {
					t.Fatalf("%v after\n%s", err, strings.Join(log, "\n"))
				}
				if row, ok := m.(*pgproto3.DataRow); ok && string(row.Values[0]) == "4711" {
					break
				}
				if e, ok := m.(*pgproto3.ErrorResponse); ok && e.Severity == "FATAL" && strings.Contains(e.Message, "synchronization was lost") {
					break // a message in the middle of a COPY, as in Postgres
				}
				if e, ok := m.(*pgproto3.ErrorResponse); ok && (e.Code == "XX000" || e.Severity == "FATAL") {
					t.Fatalf("%s %s %s after\n%s", e.Severity, e.Code, e.Message, strings.Join(log, "\n"))
				}
			}
			_ = s.conn.Close()
		}
		other.want("columns:1 row:1 done:SELECT_1 ready:I", query("SELECT 1"))
		b.await("the server connections to become free", func() bool { return b.busyServers() == 0 })
	}, func(c *node.Config) { c.Pools.PoolSize = 3 })
}

// A client that is slow to start does not get more than its time, and one that does not read its answer does
// not keep the router from ending.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		began := time.Now()
		conn, err := net.Dial("tcp", b.Routers[0].Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		var slow gosync.WaitGroup
		defer slow.Wait()
		slow.Go(func() { // a byte at a time
			for _, c := range []byte{0, 0, 0, 40, 0, 3, 0, 0, 'u', 's', 'e', 'r'} {
				if _, err := conn.Write([]byte{c}); err != nil {
					return
				}
				time.Sleep(300 * time.Millisecond)
			}
		})
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.ReadAll(conn); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Fatalf("the start-up took %s", took)
		}
		for _, sql := range []string{"SELECT repeat('x', 1000) FROM generate_series(1, 1000000)", "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO STDOUT"} {
			s := b.script(0)
			s.Send(query(sql))
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			b.await("the answer to fill all buffers", func() bool { return b.busyServers() == 1 })
		}
	}, func(c *node.Config) { c.Router.StartupTimeout = 2 * time.Second })
}
