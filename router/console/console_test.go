package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/backend"
	"github.com/shardyard/shardyard/router/metrics"
	"github.com/shardyard/shardyard/router/pgerr"
	"github.com/shardyard/shardyard/router/wire"
)

func TestCommandsAreRead(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"SHOW POOLS", "1 SHOW"}, {"show  Stats_Totals ", "1 SHOW"}, {"/* hi; */ SHOW -- x\n VERSION", "1 SHOW"},
		{"", "0 "}, {" -- ping", "0 "}, {"RELOAD", "2 RELOAD"}, {"reconnect", "3 RECONNECT"}, {`RECONNECT "My DB"`, "3 RECONNECT My DB"},
		{"RECONNECT Shop", "3 RECONNECT shop"}, {"KILL_CLIENT 7", "4 KILL_CLIENT 7"}, {"BEGIN", "5 BEGIN"}, {"end", "6 COMMIT"},
		{"SET application_name = 'x y'", "7 SET"}, {"SET extra_float_digits=3", "7 SET"}, {"select 1", "8 SELECT 1"},
		{"SHOW", codeSyntax}, {"SHOW SOCKETS", codeSyntax}, {"SHOW POOLS x", codeSyntax}, {"SELECT 2", codeSyntax}, {"DROP TABLE t", codeSyntax},
		{"KILL_CLIENT", codeSyntax}, {"SET pool_size = 4", "0A000"}, {"PAUSE", "0A000"}, {"KILL db", "0A000"}, {"SHUTDOWN", "0A000"},
		{"SHOW \"", codeSyntax}, {"/*", "0 "},
	} {
		c, err := parse(tc.text)
		got := strings.TrimSpace(fmt.Sprint(c.verb, " ", c.tag, " ", c.argument))
		if err != nil {
			if got = pgerr.Of(err).Code; pgerr.Of(err).Hint == "" {
				t.Errorf("%q: no hint", tc.text)
			}
		}
		if got != strings.TrimSpace(tc.want) {
			t.Errorf("%q: got %q, want %q", tc.text, got, tc.want)
		}
	}
	if got := split("a; b 'x;y'; -- c;\n d \"e;\";/*;*/"); !slices.Equal(got, []string{"a", " b 'x;y'", " -- c;\n d \"e;\"", "/*;*/"}) {
		t.Errorf("got %q", got)
	}
}

// The columns are those of PgBouncer 1.24, in its order, with the shard behind them.
func TestColumnsArePgBouncers(t *testing.T) {
	sockets := "type user database replication state addr port local_addr local_port connect_time request_time wait wait_us close_needed ptr link " +
		"remote_pid tls application_name prepared_statements id shard"
	for name, want := range map[string]string{
		"pools": "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel sv_being_canceled sv_idle " +
			"sv_used sv_tested sv_login maxwait maxwait_us pool_mode load_balance_hosts shard",
		"clients": sockets, "servers": sockets,
		"databases": "name host port database force_user pool_size min_pool_size reserve_pool_size server_lifetime pool_mode load_balance_hosts " +
			"max_connections current_connections max_client_connections current_client_connections paused disabled shard",
		"users": "name pool_size reserve_pool_size pool_mode max_user_connections current_connections max_user_client_connections current_client_connections",
		"stats": "database total_server_assignment_count total_xact_count total_query_count total_received total_sent total_xact_time total_query_time " +
			"total_wait_time total_client_parse_count total_server_parse_count total_bind_count avg_server_assignment_count avg_xact_count avg_query_count " +
			"avg_recv avg_sent avg_xact_time avg_query_time avg_wait_time avg_client_parse_count avg_server_parse_count avg_bind_count",
		"stats_totals": "database server_assignment_count xact_count query_count bytes_received bytes_sent xact_time query_time wait_time " +
			"client_parse_count server_parse_count bind_count",
		"lists": "list items", "config": "key value default changeable", "version": "version", "state": "key value", "totals": "name value",
	} {
		var got []string
		for _, c := range shows[name].columns {
			got = append(got, c.name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("SHOW %s:\n got %s\nwant %s", strings.ToUpper(name), strings.Join(got, " "), want)
		}
	}
}

// example is a state with a bit of everything.
func example() *State {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	app := backend.Identity{Database: "shop", User: "app"}
	limits := backend.Limits{Size: 20, Mode: backend.TransactionMode}
	at := netip.MustParseAddrPort("127.0.0.1:5432")
	s := &State{
		Version: "Shardyard test", Now: now, Home: "s1", Lifetime: time.Hour,
		Shards: []directory.Shard{{ID: "s1", Primary: directory.Endpoint{Host: "h1", Port: 5432}}, {ID: "s2", Primary: directory.Endpoint{Host: "h2", Port: 5433}}},
		Pools: []backend.PoolStats{
			{Shard: "s1", Identity: app, Limits: limits, Open: 2, Held: 1, Idle: 1},
			{Shard: "s2", Identity: app, Limits: limits, Open: 2, Held: 1, Cleaning: 1, Waiting: 1, Oldest: 1500 * time.Millisecond},
		},
		Connections: []backend.ConnStats{
			{Number: 1, Shard: "s1", Identity: app, State: backend.ConnActive, Session: 1, PID: 11, Remote: at, Local: at, Prepared: 2, Opened: now},
			{Number: 2, Shard: "s2", Identity: app, State: backend.ConnActive, Session: 1, PID: 12, Remote: at, Local: at},
			{Number: 3, Shard: "s1", Identity: app, State: backend.ConnIdle, PID: 13, Remote: at, Local: at},
		},
		Waiting: []backend.Waiter{{Shard: "s2", Identity: app, Session: 2, Since: now.Add(-1500 * time.Millisecond)}},
		Limits:  func(backend.Identity) backend.Limits { return limits },
		Users:   []UserState{{Name: "app", MaxClients: 9, Clients: 3}},
	}
	for id := range uint64(3) {
		s.Clients = append(s.Clients, Client{ID: id + 1, Identity: app, Remote: at, Local: at, Application: "psql", Connected: now})
	}
	s.Clients = append(s.Clients, Client{ID: 4, Identity: backend.Identity{Database: Database, User: "root"}, Admin: true, Remote: at, Local: at})
	var d metrics.Database
	stripe := d.Stripe(1)
	for range 60 {
		stripe.Requests[metrics.Single].Observe(2 * time.Millisecond)
	}
	stripe.Transactions[metrics.TwoPhase].Observe(10 * time.Millisecond)
	stripe.Received.Add(6000)
	s.Databases = []DatabaseState{{
		Name: "shop", Clients: 3, MaxClients: 50, Totals: d.Totals(), Since: now.Add(-time.Minute), Pools: backend.Counters{Acquired: 120, WaitTime: time.Second},
	}}
	return s
}

func TestRowsAddUp(t *testing.T) {
	s := example()
	for name, want := range map[string]string{
		// Three clients: one holds a connection of each shard, one waits for s2, one is idle.
		"pools": "shop app 2 0 0 0 1 0 0 1 0 0 0 0 0 transaction <nil> s1\n" + "shop app 1 1 0 0 1 0 0 0 0 1 0 1 500000 transaction <nil> s2",
		"clients": "C app shop none active 127.0.0.1 5432 127.0.0.1 5432 2026-01-02 03:04:05 UTC <nil> 0 0 0 c1 s1 0  psql 0 1 s1,s2\n" +
			"C app shop none waiting 127.0.0.1 5432 127.0.0.1 5432 2026-01-02 03:04:05 UTC <nil> 1 500000 0 c2  0  psql 0 2 s2\n" +
			"C app shop none idle 127.0.0.1 5432 127.0.0.1 5432 2026-01-02 03:04:05 UTC <nil> 0 0 0 c3  0  psql 0 3 \n" +
			"C root shardyard none active 127.0.0.1 5432 127.0.0.1 5432 <nil> <nil> 0 0 0 c4  0   0 4 ",
		"databases": "shop h1 5432 shop <nil> 20 0 0 3600 transaction <nil> 0 2 50 3 0 0 s1\n" +
			"shop h2 5433 shop <nil> 20 0 0 3600 transaction <nil> 0 2 50 3 0 0 s2",
		"users":          "app 20 0 transaction 0 4 9 3",
		"stats_totals":   "shop 120 1 60 6000 0 10000 120000 1000000 0 0 0",
		"stats_averages": "shop 2 0 1 100 0 10000 2000 16666 0 0 0",
		"stats":          "shop 120 1 60 6000 0 10000 120000 1000000 0 0 0 2 0 1 100 0 10000 2000 16666 0 0 0",
		"version":        "Shardyard test",
		"state":          "active yes\npaused no\nsuspended no\ndraining no",
	} {
		if got := plain(shows[name].rows(s)); got != want {
			t.Errorf("SHOW %s:\n got %q\nwant %q", strings.ToUpper(name), got, want)
		}
	}
	for name, show := range shows {
		for _, r := range show.result(func() *State { return s }) {
			if len(r) != len(show.columns) {
				t.Errorf("SHOW %s: %d values, %d columns", name, len(r), len(show.columns))
			}
			for i, value := range r {
				if _, isText := value.(string); value != nil && isText != (show.columns[i].oid == oidText) {
					t.Errorf("SHOW %s: column %s has a %T", name, show.columns[i].name, value)
				}
			}
		}
	}
}

func plain(rows []row) string {
	var list []string
	for _, r := range rows {
		var values []string
		for _, v := range r {
			values = append(values, fmt.Sprint(v))
		}
		list = append(list, strings.Join(values, " "))
	}
	return strings.Join(list, "\n")
}

// client talks to a session.
type client struct {
	t       *testing.T
	session *Session
	out     []byte
	calls   []string
}

func newClient(t *testing.T, admin bool) *client {
	c := &client{t: t}
	c.session = NewSession(Actions{
		State:     example,
		Reload:    func(context.Context) error { c.calls = append(c.calls, "reload"); return errors.New("no file") },
		Reconnect: func(database string) { c.calls = append(c.calls, "reconnect "+database) },
		Kill: func(_ context.Context, id uint64) bool {
			c.calls = append(c.calls, fmt.Sprint("kill ", id))
			return id == 3
		},
	}, admin, func(add func([]byte) []byte) { c.out = add(c.out) })
	return c
}

// send gives the types of the answers and, for errors, their codes, for commands their tags.
func (c *client) send(request []byte) string {
	c.t.Helper()
	if err := c.session.Handle(c.t.Context(), request); err != nil {
		return "end: " + err.Error()
	}
	reader := wire.NewReader(strings.NewReader(string(c.out)), wire.Backend)
	c.out = nil
	var answers []string
	for {
		frame, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return strings.Join(answers, " ")
		}
		if err != nil {
			c.t.Fatal(err)
		}
		answer := string(frame.Type)
		switch frame.Type {
		case wire.TypeErrorResponse:
			answer += ":" + string(wire.ErrorField(frame.Body, wire.FieldCode))
		case wire.TypeCommandComplete, wire.TypeReady:
			answer += ":" + strings.TrimRight(string(frame.Body), "\x00")
		}
		answers = append(answers, answer)
	}
}

func query(text string) []byte { return wire.AppendQuery(nil, text) }

func TestSimpleProtocol(t *testing.T) {
	c := newClient(t, true)
	for _, tc := range []struct{ text, want string }{
		{"SHOW VERSION;", "T D C:SHOW Z:I"}, {"", "I Z:I"}, {";", "I Z:I"}, {"SHOW VERSION; SELECT 1", "T D C:SHOW T D C:SELECT 1 Z:I"},
		{"SHOW VERSION; nonsense; SHOW VERSION", "T D C:SHOW E:42601 Z:I"},
		{"BEGIN", "C:BEGIN Z:T"}, {"SHOW VERSION", "T D C:SHOW Z:T"}, {"ROLLBACK", "C:ROLLBACK Z:I"},
		{"SET client_encoding = 'UTF8'", "C:SET Z:I"}, {"RECONNECT shop", "C:RECONNECT Z:I"}, {"KILL_CLIENT 3", "C:KILL_CLIENT Z:I"},
		{"KILL_CLIENT c3", "C:KILL_CLIENT Z:I"}, {"KILL_CLIENT 9", "E:42704 Z:I"}, {"KILL_CLIENT x", "E:42601 Z:I"}, {"PAUSE", "E:0A000 Z:I"},
		{"RELOAD", "E:XX000 Z:I"},
	} {
		if got := c.send(query(tc.text)); got != tc.want {
			t.Errorf("%q: got %q, want %q", tc.text, got, tc.want)
		}
	}
	if want := []string{"reconnect shop", "kill 3", "kill 3", "kill 9", "reload"}; !slices.Equal(c.calls, want) {
		t.Errorf("got %q, want %q", c.calls, want)
	}
	if got := c.send(wire.AppendTerminate(nil)); got != "end: EOF" {
		t.Errorf("got %q", got)
	}
}

func TestWhoMayOnlyLook(t *testing.T) {
	c := newClient(t, false)
	for _, text := range []string{"RELOAD", "RECONNECT", "KILL_CLIENT 3"} {
		if got := c.send(query(text)); got != "E:42501 Z:I" {
			t.Errorf("%s: got %q", text, got)
		}
	}
	if got := c.send(query("SHOW STATE")); got != "T D D D D C:SHOW Z:I" || len(c.calls) != 0 {
		t.Errorf("got %q, calls %q", got, c.calls)
	}
}

func TestExtendedProtocol(t *testing.T) {
	c := newClient(t, true)
	frames := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	parse := func(name, text string) []byte { return wire.AppendParse(nil, name, text, nil) }
	bind := func(portal, statement string, formats ...int16) []byte {
		return wire.AppendBind(nil, portal, statement, nil, nil, formats)
	}
	sync := wire.AppendSync(nil)
	for _, tc := range []struct {
		name    string
		request []byte
		want    string
	}{
		{"all at once", frames(parse("", "SHOW STATE"), bind("", ""), wire.AppendDescribe(nil, 'P', ""), wire.AppendExecute(nil, "", 0), sync), "1 2 T D D D D C:SHOW Z:I"},
		{"statement", frames(parse("a", "SHOW STATE;"), wire.AppendDescribe(nil, 'S', "a"), sync), "1 t T Z:I"},
		{"in parts", frames(bind("p", "a"), wire.AppendExecute(nil, "p", 3), wire.AppendExecute(nil, "p", 3), sync), "2 D D D s D C:SHOW Z:I"},
		{"portals end with the transaction", frames(wire.AppendExecute(nil, "p", 0), sync), "E:34000 Z:I"},
		{"an error skips to Sync", frames(parse("b", "nonsense"), bind("", "b"), wire.AppendExecute(nil, "", 0), sync), "E:42601 Z:I"},
		{"twice", frames(parse("a", "SHOW STATE"), sync), "E:42P05 Z:I"},
		{"no rows", frames(parse("", "RECONNECT"), bind("", ""), wire.AppendDescribe(nil, 'P', ""), wire.AppendExecute(nil, "", 0), sync), "1 2 n C:RECONNECT Z:I"},
		{"empty", frames(parse("", ""), bind("", ""), wire.AppendExecute(nil, "", 0), sync), "1 2 I Z:I"},
		{"two commands", frames(parse("", "SHOW STATE; SHOW STATE"), sync), "E:42601 Z:I"},
		{"formats", frames(bind("", "a", 0, 1, 0), sync), "E:08P01 Z:I"},
		{"format", frames(bind("", "a", 2), sync), "E:22023 Z:I"},
		{"close", frames(wire.AppendClose(nil, 'S', "a"), wire.AppendClose(nil, 'P', "p"), sync, bind("", "a"), sync), "3 3 Z:I E:26000 Z:I"},
		{"function call", frames(wire.AppendFrame(nil, wire.TypeFunctionCall, []byte{0, 0, 0, 1})), "E:0A000 Z:I"},
		{"flush", wire.AppendFlush(nil), ""},
	} {
		if got := c.send(tc.request); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

// Drivers ask for numbers in binary.
func TestBinaryNumbers(t *testing.T) {
	for _, tc := range []struct {
		c    column
		want string
	}{{column{"a", oidInt4}, "\x00\x00\x01\x02"}, {column{"a", oidInt8}, "\x00\x00\x00\x00\x00\x00\x01\x02"}} {
		if got := string(encode(tc.c, 1, int64(258))); got != tc.want {
			t.Errorf("%d: got %q", tc.c.oid, got)
		}
	}
	if encode(column{"a", oidText}, 0, nil) != nil || encode(column{"a", oidText}, 0, "") == nil {
		t.Error("NULL and the empty string are mixed up")
	}
}

func FuzzCommand(f *testing.F) {
	for _, seed := range []string{"SHOW POOLS", "RECONNECT \"a", "/* ' */ ; -- \n'", "SET x='", "a'b\"c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, part := range split(text) {
			if c, err := parse(part); err == nil && c.verb == verbShow && c.show == nil {
				t.Fatalf("%q shows nothing", part)
			}
		}
	})
}
