package router_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// script is a session that speaks the protocol message by message.
type script struct {
	t    *testing.T
	conn net.Conn
	*pgproto3.Frontend
	key *pgproto3.BackendKeyData
}

func (b *bed) script(i int) *script {
	b.t.Helper()
	conn, err := net.Dial("tcp", b.Routers[i].Addr().String())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		b.t.Fatal(err)
	}
	s := &script{t: b.t, conn: conn, Frontend: pgproto3.NewFrontend(conn, conn)}
	s.Send(&pgproto3.StartupMessage{
		ProtocolVersion: pgproto3.ProtocolVersionNumber,
		Parameters:      map[string]string{"user": "postgres", "database": b.database},
	})
	for {
		switch m := s.next().(type) {
		case *pgproto3.BackendKeyData:
			key := *m
			s.key = &key
		case *pgproto3.ReadyForQuery:
			return s
		case *pgproto3.ErrorResponse:
			b.t.Fatalf("start-up: %s", m.Message)
		}
	}
}

func (s *script) next() pgproto3.BackendMessage {
	s.t.Helper()
	if err := s.Flush(); err != nil {
		s.t.Fatal(err)
	}
	m, err := s.Receive()
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// play sends messages and returns the answers up to ReadyForQuery, each as a word.
func (s *script) play(messages ...pgproto3.FrontendMessage) string {
	s.t.Helper()
	for _, m := range messages {
		s.Send(m)
	}
	return s.answers(0)
}

// answers reads n answers, or up to ReadyForQuery.
func (s *script) answers(n int) string {
	s.t.Helper()
	var words []string
	for {
		m := s.next()
		words = append(words, word(m))
		if _, ready := m.(*pgproto3.ReadyForQuery); ready && n == 0 || len(words) == n {
			return strings.Join(words, " ")
		}
	}
}

func word(m pgproto3.BackendMessage) string {
	switch m := m.(type) {
	case *pgproto3.ReadyForQuery:
		return "ready:" + string(m.TxStatus)
	case *pgproto3.DataRow:
		var values []string
		for _, v := range m.Values {
			values = append(values, string(v))
		}
		return "row:" + strings.Join(values, ",")
	case *pgproto3.CommandComplete:
		return "done:" + strings.ReplaceAll(string(m.CommandTag), " ", "_")
	case *pgproto3.ErrorResponse:
		return "error:" + m.Code
	case *pgproto3.NoticeResponse:
		return "notice:" + m.Code
	case *pgproto3.NotificationResponse:
		return "notify:" + m.Channel + ":" + m.Payload
	case *pgproto3.ParameterDescription:
		return fmt.Sprintf("params:%d", len(m.ParameterOIDs))
	case *pgproto3.RowDescription:
		return fmt.Sprintf("columns:%d", len(m.Fields))
	}
	name := fmt.Sprintf("%T", m)
	return strings.ToLower(name[strings.LastIndex(name, ".")+1:])
}

func parse(name, sql string) *pgproto3.Parse { return &pgproto3.Parse{Name: name, Query: sql} }
func query(sql string) *pgproto3.Query       { return &pgproto3.Query{String: sql} }
func execute(portal string, n uint32) *pgproto3.Execute {
	return &pgproto3.Execute{Portal: portal, MaxRows: n}
}
func bind(portal, statement string, values ...string) *pgproto3.Bind {
	b := &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: statement}
	for _, v := range values {
		b.Parameters = append(b.Parameters, []byte(v))
	}
	return b
}
func describe(kind byte, name string) *pgproto3.Describe {
	return &pgproto3.Describe{ObjectType: kind, Name: name}
}

var sync = &pgproto3.Sync{}

func (s *script) want(want string, messages ...pgproto3.FrontendMessage) {
	s.t.Helper()
	if got := s.play(messages...); got != want {
		s.t.Fatalf("\n got %s\nwant %s", got, want)
	}
}

func TestPipelines(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		shop(t, b)
		s := b.script(0)
		s.want("parsecomplete bindcomplete columns:1 row:n7 done:SELECT_1 ready:I",
			parse("", "SELECT name FROM items WHERE id = $1"), bind("", "", "7"), describe('P', ""), execute("", 0), sync)
		s.want("parsecomplete params:1 columns:1 ready:I", parse("a", "SELECT name FROM items WHERE id = $1"), describe('S', "a"), sync)
		for i := range 10 {
			s.want(fmt.Sprintf("bindcomplete row:n%d done:SELECT_1 ready:I", i), bind("", "a", fmt.Sprint(i)), execute("", 0), sync)
		}
		// A pipeline over several shards.
		var messages []pgproto3.FrontendMessage
		want := ""
		for i := range 10 {
			messages = append(messages, bind("", "a", fmt.Sprint(i)), execute("", 0))
			want += fmt.Sprintf("bindcomplete row:n%d done:SELECT_1 ", i)
		}
		s.want(want+"ready:I", append(messages, sync)...)
		s.want("error:42P05 ready:I", parse("a", "SELECT 1"), sync)
		s.want("error:26000 ready:I", bind("", "nix"), execute("", 0), sync)
		s.want("error:34000 ready:I", execute("nix", 0), parse("", "SELECT 1"), sync)
		s.want("error:42P01 ready:I", parse("bad", "SELECT * FROM nix"), sync)
		s.want("parsecomplete ready:I", parse("bad", "SELECT 1"), sync)
		s.want("error:42601 ready:I", parse("", "SELEC 1"), bind("", ""), sync)
		s.want("error:42601 ready:I", parse("", "SELECT 1; SELECT 2"), bind("", ""), sync)
		s.want("closecomplete parsecomplete ready:I", &pgproto3.Close{ObjectType: 'S', Name: "a"}, parse("a", "SELECT 1"), sync)
		s.want("parsecomplete bindcomplete nodata emptyqueryresponse ready:I", parse("", ""), bind("", ""), describe('P', ""), execute("", 0), sync)
		// What stands before an error is undone with it, what stands behind is skipped.
		s.want("parsecomplete bindcomplete done:INSERT_0_1 parsecomplete error:22012 ready:I",
			parse("", "INSERT INTO plain VALUES (500, 1)"), bind("", ""), execute("", 0),
			parse("", "SELECT 1/0"), bind("", ""), execute("", 0), parse("", "SELECT 1"), sync)
		s.want("columns:1 row:0 done:SELECT_1 ready:I", query("SELECT count(*) FROM plain WHERE id = 500"))
		// So is a write on one shard when a statement of the router's own refusal follows.
		s.want("parsecomplete bindcomplete done:INSERT_0_1 error:0A000 ready:I",
			parse("", "INSERT INTO plain VALUES (500, 1)"), bind("", ""), execute("", 0),
			parse("", "UPDATE items SET name = 'all' FROM plain"), bind("", ""), execute("", 0), sync)
		s.want("columns:1 row:0 done:SELECT_1 ready:I", query("SELECT count(*) FROM plain WHERE id = 500"))
		s.want("parsecomplete bindcomplete done:BEGIN parsecomplete bindcomplete row:1 done:SELECT_1 ready:T",
			parse("", "BEGIN"), bind("", ""), execute("", 0), parse("", "SELECT 1"), bind("", ""), execute("", 0), sync)
		s.want("error:42703 ready:E", parse("", "SELECT nix"), bind("", ""), execute("", 0), sync)
		s.want("error:25P02 ready:E", parse("", "SELECT 1"), bind("", ""), execute("", 0), sync)
		s.want("parsecomplete bindcomplete done:ROLLBACK ready:I", parse("", "COMMIT"), bind("", ""), execute("", 0), sync)
		// A SET belongs to the implicit transaction too.
		s.want("parsecomplete bindcomplete done:SET error:42703 ready:I",
			parse("", "SET DateStyle = 'German'"), bind("", ""), execute("", 0), parse("", "SELECT nix"), sync)
		s.want("columns:1 row:ISO, MDY done:SHOW ready:I", query("SHOW DateStyle"))
		s.want("parsecomplete bindcomplete notice:25P01 done:ROLLBACK ready:I", parse("", "ROLLBACK"), bind("", ""), execute("", 0), sync)
	})
}

func TestFlush(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		shop(t, b)
		s := b.script(0)
		s.Send(parse("", "SELECT name FROM items WHERE id = $1"))
		s.Send(describe('S', ""))
		s.Send(&pgproto3.Flush{})
		if got := s.answers(3); got != "parsecomplete params:1 columns:1" {
			t.Fatal(got)
		}
		s.Send(bind("", "", "4"))
		s.Send(execute("", 0))
		s.Send(&pgproto3.Flush{})
		if got := s.answers(3); got != "bindcomplete row:n4 done:SELECT_1" {
			t.Fatal(got)
		}
		s.want("ready:I", sync)
	})
}

func TestPortals(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		shop(t, b)
		s := b.script(0)
		s.want("done:BEGIN ready:T", query("BEGIN"))
		// On one shard, and merged from three, with other statements in between.
		for sql, label := range map[string]string{"SELECT id FROM plain ORDER BY id": "p", "SELECT id FROM items ORDER BY id": "q"} {
			s.want("parsecomplete bindcomplete columns:1 row:0 row:1 row:2 portalsuspended ready:T",
				parse("", sql), bind(label, ""), describe('P', label), execute(label, 3), sync)
			s.want("columns:1 row:10 done:SELECT_1 ready:T", query("SELECT count(*) FROM plain"))
			s.want("row:3 row:4 row:5 row:6 row:7 portalsuspended ready:T", execute(label, 5), sync)
			s.want("columns:1 row:n3 done:SELECT_1 ready:T", query("SELECT name FROM items WHERE id = 3"))
			s.want("row:8 row:9 done:SELECT_2 ready:T", execute(label, 0), sync)
			s.want("closecomplete ready:T", &pgproto3.Close{ObjectType: 'P', Name: label}, sync)
			s.want("error:34000 ready:E", execute(label, 0), sync)
			s.want("done:ROLLBACK ready:I", query("ROLLBACK"))
			s.want("done:BEGIN ready:T", query("BEGIN"))
		}
		s.want("done:COMMIT ready:I", query("COMMIT"))
	})
}

func TestCancel(t *testing.T) {
	eachMode(t, func(t *testing.T, b *bed) {
		shop(t, b)
		s := b.script(0)
		for _, sql := range []string{"SELECT pg_sleep(60)", "SELECT id, pg_sleep(60) FROM items"} {
			s.Send(query(sql))
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			b.cancelUntil(s, func() string { return s.answers(0) })
		}
		s.want("done:BEGIN ready:T", query("BEGIN"))
		s.want("columns:1 row:1 done:SELECT_1 ready:T", query("SELECT 1"))
		s.Send(query("SELECT pg_sleep(60)"))
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		b.cancelUntil(s, func() string { return s.answers(0) })
		s.want("done:ROLLBACK ready:I", query("ROLLBACK"))
		s.want("columns:1 row:1 done:SELECT_1 ready:I", query("SELECT 1"))
	})
}

// cancelUntil sends cancel requests until the statement has ended, which must be by 57014.
func (b *bed) cancelUntil(s *script, answers func() string) {
	b.t.Helper()
	done := make(chan string, 1)
	go func() { done <- answers() }()
	for {
		select {
		case got := <-done:
			if !strings.Contains(got, "error:57014") {
				b.t.Fatalf("got %s", got)
			}
			return
		case <-time.After(50 * time.Millisecond):
		}
		conn, err := net.Dial("tcp", b.Routers[0].Addr().String())
		if err != nil {
			b.t.Fatal(err)
		}
		request := binary.BigEndian.AppendUint32(nil, 16)
		request = binary.BigEndian.AppendUint32(request, 80877102)
		request = binary.BigEndian.AppendUint32(request, s.key.ProcessID)
		request = append(request, s.key.SecretKey...)
		if _, err := conn.Write(request); err != nil {
			b.t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			b.t.Fatalf("cancel request: %v", err)
		}
		_ = conn.Close()
	}
}

// A client that goes away has its statement cancelled.
func TestVanishedClient(t *testing.T) {
	eachMode(t, func(t *testing.T, b *bed) {
		s := b.script(0)
		s.Send(query("SELECT pg_sleep(61)"))
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		watcher := b.connect(0)
		b.await("the statement to run", func() bool {
			return mustSimple(t, watcher, "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(61)' AND state = 'active'") == "1\nSELECT 1"
		})
		_ = s.conn.Close()
		b.await("the statement to end", func() bool {
			return mustSimple(t, watcher, "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(61)' AND state = 'active'") == "0\nSELECT 1"
		})
	})
}

func (b *bed) await(what string, satisfied func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !satisfied() {
		if time.Now().After(deadline) {
			b.t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestMalformedMessages(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bed) {
		shop(t, b)
		frame := func(kind byte, length uint32, body string) []byte {
			return append(binary.BigEndian.AppendUint32([]byte{kind}, length), body...)
		}
		for name, bytes := range map[string][]byte{
			"oversized query":        frame('Q', 0x7fffffff, "SELECT 1"),
			"negative length":        frame('Q', 0xffffffff, ""),
			"length too short":       frame('Q', 3, ""),
			"oversized sync":         frame('S', 1<<20, ""),
			"unknown type":           frame('~', 4, ""),
			"truncated":              frame('Q', 100, "SELECT"),
			"bind without end":       frame('B', 8, "a\x00b\x00"),
			"bind count":             frame('B', 14, "\x00\x00\x00\x00\x7f\xff\x00\x00\x00\x00"),
			"parse without end":      frame('P', 7, "abc"),
			"describe of nothing":    frame('D', 6, "Z\x00"),
			"query without zero":     frame('Q', 8, "SELE"),
			"copy data out of place": append(frame('d', 8, "data"), frame('c', 4, "")...),
		} {
			t.Run(name, func(t *testing.T) {
				s := b.script(0)
				if _, err := s.conn.Write(bytes); err != nil {
					t.Fatal(err)
				}
				_ = s.conn.(*net.TCPConn).CloseWrite()
				if _, err := io.ReadAll(s.conn); err != nil && !strings.Contains(err.Error(), "reset") {
					t.Fatal(err)
				}
			})
		}
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 1))
		for range 200 {
			s := b.script(0)
			bytes := make([]byte, random.IntN(200)+1)
			for i := range bytes {
				bytes[i] = byte(random.Uint32())
			}
			if random.IntN(2) == 0 { // a valid type and a plausible length
				bytes = append(frame("PBDECSHQFXdcf"[random.IntN(13)], uint32(len(bytes)+4), ""), bytes...)
			}
			if _, err := s.conn.Write(bytes); err != nil {
				t.Fatal(err)
			}
			_ = s.conn.(*net.TCPConn).CloseWrite()
			_, _ = io.ReadAll(s.conn)
		}
		expect(t, b.connect(0), "SELECT 1", "1\nSELECT 1")
	})
}

func TestStartup(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	for name, bytes := range map[string][]byte{
		"garbage":    []byte("GET / HTTP/1.1\r\n\r\n"),
		"oversized":  {0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0},
		"short":      {0, 0, 0, 3},
		"protocol 2": {0, 0, 0, 8, 0, 2, 0, 0},
		"nothing":    {},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", b.Routers[0].Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = conn.Write(bytes)
			_ = conn.(*net.TCPConn).CloseWrite()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.ReadAll(conn); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Fatal(err)
			}
		})
	}
}
