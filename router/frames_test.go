package router_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// rawClient is a client that compares what it gets byte by byte.
type rawClient struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
	pid  uint32
	// greeting is what it was told before the first ReadyForQuery, sorted.
	greeting []string
}

func dialRaw(t *testing.T, address string, startup []byte) *rawClient {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		t.Fatal(err)
	}
	c := &rawClient{t: t, conn: conn, in: bufio.NewReader(conn)}
	c.send(startup)
	return c
}

// rawStartup is a start-up message.
func rawStartup(minor uint16, parameters ...string) []byte {
	body := binary.BigEndian.AppendUint32(nil, 3<<16|uint32(minor))
	for _, p := range parameters {
		body = append(append(body, p...), 0)
	}
	body = append(body, 0)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
}

// rawFrame is a message: integers are int32, int16 or bytes, texts are written as they are.
func rawFrame(kind byte, parts ...any) []byte {
	body := rawBody(parts...)
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4)), body...)
}

func rawBody(parts ...any) (body []byte) {
	for _, part := range parts {
		switch part := part.(type) {
		case int:
			body = binary.BigEndian.AppendUint32(body, uint32(part))
		case int16:
			body = binary.BigEndian.AppendUint16(body, uint16(part))
		case byte:
			body = append(body, part)
		case string:
			body = append(body, part...)
		case []byte:
			body = append(body, part...)
		}
	}
	return body
}

func (c *rawClient) send(frames ...[]byte) {
	c.t.Helper()
	if _, err := c.conn.Write(slices.Concat(frames...)); err != nil && !strings.Contains(err.Error(), "reset") && !strings.Contains(err.Error(), "broken pipe") {
		c.t.Fatal(err)
	}
}

// next reads a message; it is printed so that two servers can be compared. At the end of the connection it is "EOF".
func (c *rawClient) next() string {
	c.t.Helper()
	var header [5]byte
	if _, err := io.ReadFull(c.in, header[:]); err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			c.t.Fatal("no answer")
		}
		return "EOF"
	}
	body := make([]byte, binary.BigEndian.Uint32(header[1:])-4)
	if _, err := io.ReadFull(c.in, body); err != nil {
		c.t.Fatal(err)
	}
	return c.print(header[0], body)
}

func (c *rawClient) print(kind byte, body []byte) string {
	text := string(body)
	switch kind {
	case 'E', 'N':
		var fields []string
		for _, field := range strings.Split(strings.TrimRight(text, "\x00"), "\x00") {
			if field != "" && !strings.ContainsAny(field[:1], "FLR") { // where in the source it was raised
				fields = append(fields, field)
			}
		}
		slices.Sort(fields)
		return string(kind) + strconv.Quote(strings.Join(fields, "|"))
	case 'K':
		c.pid = binary.BigEndian.Uint32(body)
		return fmt.Sprintf("K %d bytes", len(body))
	case 'A':
		own := "a stranger"
		if binary.BigEndian.Uint32(body) == c.pid {
			own = "itself"
		}
		return "A from " + own + strconv.Quote(text[4:])
	case 'T':
		return "T" + columnsOf(body)
	}
	return string(kind) + strconv.Quote(text)
}

// columnsOf prints a RowDescription; OIDs of a user's objects are not the same everywhere.
func columnsOf(body []byte) string {
	oid := func(b []byte) uint32 { return min(binary.BigEndian.Uint32(b), 16384) }
	var out strings.Builder
	for rest := body[2:]; len(rest) > 0; {
		end := slices.Index(rest, 0)
		name, fixed := rest[:end], rest[end+1:]
		fmt.Fprintf(&out, " %q table %d.%d type %d size %x", name, oid(fixed), fixed[4:6], oid(fixed[6:]), fixed[10:18])
		rest = fixed[18:]
	}
	return out.String()
}

// until reads up to a message that ends as told, or the end of the connection.
func (c *rawClient) until(done func(message string) bool) (messages []string) {
	c.t.Helper()
	for {
		m := c.next()
		messages = append(messages, m)
		if m == "EOF" || done(m) {
			return messages
		}
	}
}

// begin reads up to the first ReadyForQuery, or the end.
func (c *rawClient) begin() *rawClient {
	c.t.Helper()
	c.greeting = c.until(func(m string) bool { return m[0] == 'Z' })
	return c
}

// ending makes sure that whatever was sent before is answered: it ends a COPY, a pipeline, and then fails in a way that is seen.
var ending = slices.Concat(rawFrame('f', "ending\x00"), rawFrame('S'), rawFrame('Q', "sentinel\x00"))

// answers reads what came before the ending was answered.
func (c *rawClient) answers() []string {
	c.t.Helper()
	seen := false
	return c.until(func(m string) bool {
		seen = seen || m[0] == 'E' && strings.Contains(m, `near \"sentinel\"`)
		return seen && m[0] == 'Z'
	})
}

func plainAddress(t *testing.T, database string) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(cluster.ConnString(0, database))
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port)))
}

// bindFrame binds text values.
func bindFrame(portal, statement string, values ...string) []byte {
	parts := []any{portal + "\x00" + statement + "\x00", int16(0), int16(len(values))}
	for _, v := range values {
		parts = append(parts, len(v), v)
	}
	return rawFrame('B', append(parts, int16(0))...)
}

func parseFrame(name, sql string) []byte     { return rawFrame('P', name+"\x00"+sql+"\x00", int16(0)) }
func executeFrame(name string, n int) []byte { return rawFrame('E', name+"\x00", n) }

// callFrame calls a function with binary arguments; nil is NULL.
func callFrame(oid int, args ...[]byte) []byte {
	parts := []any{oid, int16(1), int16(1), int16(len(args))}
	for _, a := range args {
		if a == nil {
			parts = append(parts, -1)
			continue
		}
		parts = append(parts, len(a), a)
	}
	return rawFrame('F', append(parts, int16(1))...)
}

// frameStates are what may have gone before a message.
func frameStates() map[string][]byte {
	run := func(sql string) []byte {
		return slices.Concat(parseFrame("", sql), bindFrame("", ""), executeFrame("", 0))
	}
	return map[string][]byte{
		"idle":                  nil,
		"transaction":           rawFrame('Q', "BEGIN\x00"),
		"failed transaction":    rawFrame('Q', "BEGIN; SELECT 1/0\x00"),
		"pipeline":              run("SELECT 1"),
		"pipeline that wrote":   run("INSERT INTO plain VALUES (900, 1) RETURNING id"),
		"pipeline that failed":  slices.Concat(run("INSERT INTO plain VALUES (901, 1)"), run("SELECT 1/0")),
		"parsed":                parseFrame("", "SELECT name FROM items WHERE id = $1"),
		"parsed in transaction": slices.Concat(rawFrame('Q', "BEGIN\x00"), parseFrame("s", "SELECT id FROM items ORDER BY id"), bindFrame("p", "s"), executeFrame("p", 2)),
		"copy in":               rawFrame('Q', "COPY plain FROM STDIN\x00"),
		"copy in of shards":     rawFrame('Q', "COPY items (id, name) FROM STDIN\x00"),
		"copy in of several":    rawFrame('Q', "SELECT 1; COPY plain FROM STDIN; SELECT 2\x00"),
		"copy in of a pipeline": run("COPY plain FROM STDIN"),
		"copy in, transaction":  slices.Concat(rawFrame('Q', "BEGIN\x00"), rawFrame('Q', "COPY plain FROM STDIN\x00")),
	}
}

// frameMessages are those of a frontend, right and wrong.
func frameMessages() map[string][]byte {
	one, two := binary.BigEndian.AppendUint32(nil, 1), binary.BigEndian.AppendUint32(nil, 2)
	return map[string][]byte{
		"query":                 rawFrame('Q', "SELECT name FROM items WHERE id = 3\x00"),
		"query of shards":       rawFrame('Q', "SELECT id FROM items ORDER BY id\x00"),
		"query that fails":      rawFrame('Q', "SELECT 1; SELECT nix; SELECT 2\x00"),
		"empty query":           rawFrame('Q', "\x00"),
		"begin":                 rawFrame('Q', "BEGIN\x00"),
		"commit":                rawFrame('Q', "COMMIT\x00"),
		"set":                   rawFrame('Q', "SET DateStyle = 'German'; SELECT '2020-02-01'::date\x00"),
		"copy out":              rawFrame('Q', "COPY (SELECT id FROM plain WHERE id < 3 ORDER BY id) TO STDOUT\x00"),
		"parse":                 parseFrame("new", "SELECT $1::int + 1"),
		"parse that fails":      parseFrame("", "SELECT nix"),
		"parse twice":           slices.Concat(parseFrame("again", "SELECT 1"), parseFrame("again", "SELECT 1")),
		"parse and describe":    slices.Concat(parseFrame("", "SELECT id, name, feel FROM items WHERE id = $1"), rawFrame('D', "S\x00")),
		"bind unnamed":          slices.Concat(bindFrame("", "", "3"), rawFrame('D', "P\x00"), executeFrame("", 0)),
		"bind of nothing":       bindFrame("", "nix"),
		"bind too few":          slices.Concat(parseFrame("", "SELECT $1::int"), bindFrame("", "")),
		"bind a bad value":      slices.Concat(parseFrame("", "SELECT $1::int"), bindFrame("", "", "x")),
		"execute":               executeFrame("p", 3),
		"execute to the end":    slices.Concat(executeFrame("p", 0), executeFrame("p", 0)),
		"execute of nothing":    executeFrame("nix", 0),
		"describe statement":    rawFrame('D', "Ss\x00"),
		"describe portal":       rawFrame('D', "Pp\x00"),
		"describe of nothing":   rawFrame('D', "Snix\x00"),
		"close":                 slices.Concat(rawFrame('C', "Pp\x00"), rawFrame('C', "Ss\x00")),
		"close of nothing":      rawFrame('C', "Pnix\x00"),
		"close of what":         rawFrame('C', "Xnix\x00"),
		"describe what":         rawFrame('D', "Xnix\x00"),
		"flush":                 rawFrame('H'),
		"sync":                  rawFrame('S'),
		"two syncs":             slices.Concat(rawFrame('S'), rawFrame('S')),
		"function call":         callFrame(177, one, two),
		"function call of NULL": callFrame(177, one, nil),
		"function call, few":    callFrame(177, one),
		"function call of what": callFrame(1, one),
		"function call, format": rawFrame('F', 177, int16(1), int16(7), int16(2), 4, one, 4, two, int16(1)),
		"function call as text": rawFrame('F', 177, int16(0), int16(2), 1, "1", 1, "2", int16(0)),
		"function call, bad":    rawFrame('F', 177, int16(0), int16(2), 1, "x", 1, "2", int16(0)),
		"function call, short":  rawFrame('F', 177, int16(0), int16(2), 1),
		"function call, size":   callFrame(177, one, []byte{1, 2}),
		"aggregate call":        callFrame(2108, one),
		"copy data":             rawFrame('d', "800\t1\n"),
		"copy rows":             slices.Concat(rawFrame('d', "800\t1\n801\t2\n"), rawFrame('c')),
		"copy bad rows":         slices.Concat(rawFrame('d', "800\tx\ty\n"), rawFrame('c')),
		"copy done":             rawFrame('c'),
		"copy done twice":       slices.Concat(rawFrame('c'), rawFrame('c')),
		"copy fail":             rawFrame('f', "for a reason\x00"),
		"copy flush":            slices.Concat(rawFrame('H'), rawFrame('S'), rawFrame('d', "802\t1\n"), rawFrame('c')),
		"password":              rawFrame('p', "x\x00"),
		"terminate":             rawFrame('X'),
		"unknown":               rawFrame('~'),
		"query without zero":    rawFrame('Q', "SELECT 1"),
		"query with more":       rawFrame('Q', "SELECT 1\x00x"),
		"parse cut short":       rawFrame('P', "\x00SELECT 1\x00"),
		"bind cut short":        rawFrame('B', "\x00\x00", int16(1)),
		"execute cut short":     rawFrame('E', "\x00\x00"),
		"sync with more":        rawFrame('S', "x"),
		"not utf8":              rawFrame('Q', "SELECT '\xff'\x00"),
	}
}

// Every message in every state is answered byte by byte as a plain Postgres answers it, but for process ids.
func TestFramesAsPlainPostgres(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	shop(t, b)
	plain := plainShop(t)
	for state, before := range frameStates() {
		t.Run(state, func(t *testing.T) {
			var ours, theirs *rawClient
			for name, message := range frameMessages() {
				if state == "copy in of shards" && strings.HasPrefix(name, "copy") {
					continue // the rows are not plain's
				}
				if name == "terminate" && before != nil || (name == "unknown" || name == "password") && strings.HasPrefix(state, "copy") {
					continue // nobody reads the answer; the session ends with another FATAL of the same code
				}
				if ours == nil {
					ours = dialRaw(t, b.Routers[0].Addr().String(), rawStartup(0, "user", "postgres", "database", b.database)).begin()
					theirs = dialRaw(t, plainAddress(t, plain), rawStartup(0, "user", "postgres", "database", plain)).begin()
				}
				ours.send(before, message, ending)
				theirs.send(before, message, ending)
				got, want := ours.answers(), theirs.answers()
				if !slices.Equal(got, want) {
					t.Errorf("%s:\n  router %s\nPostgres %s", name, strings.Join(got, "\n         "), strings.Join(want, "\n         "))
				}
				if got[len(got)-1] == "EOF" || want[len(want)-1] == "EOF" {
					ours, theirs = nil, nil
					continue
				}
				ours.clear()
				theirs.clear()
			}
		})
	}
}

// clear brings a session back to its beginning.
func (c *rawClient) clear() {
	c.t.Helper()
	for _, sql := range []string{"ROLLBACK; DELETE FROM plain WHERE id >= 800", "DISCARD ALL"} {
		c.send(rawFrame('Q', sql+"\x00"))
		c.until(func(m string) bool { return m[0] == 'Z' })
	}
}

// What a client is told of itself and of changes of its settings is what Postgres tells.
func TestStatusAsPlainPostgres(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	shop(t, b)
	plain := plainShop(t)
	for _, c := range []struct {
		name       string
		parameters []string
		steps      []string
	}{
		{"set", nil, []string{"SET application_name = 'x'", "SET application_name = 'x'", "SET DateStyle = 'German'", "SET datestyle = 'ISO'", "RESET DateStyle", "SET TIME ZONE 'Europe/Berlin'",
			"SET work_mem = '1MB'", "RESET ALL", "SET client_encoding = 'latin1'", "SET NAMES 'utf8'", "SET IntervalStyle = 'iso_8601'; SELECT 1/0", "SET default_transaction_read_only = on", "DISCARD ALL"}},
		{"transactions", nil, []string{"BEGIN", "SET DateStyle = 'German'", "ROLLBACK", "BEGIN; SET DateStyle = 'German'; COMMIT", "BEGIN; SET LOCAL DateStyle = 'SQL'", "COMMIT",
			"BEGIN; SET DateStyle = 'ISO'; SAVEPOINT a; SET DateStyle = 'SQL'", "ROLLBACK TO a", "SET LOCAL DateStyle = 'Postgres'; RELEASE a", "SELECT 1/0", "COMMIT", "SET LOCAL DateStyle = 'SQL'", "SET DateStyle = 'Postgres'; SELECT 1/0",
			"SELECT set_config('DateStyle', 'SQL', true)", "BEGIN; SELECT set_config('DateStyle', 'SQL', true)", "SELECT name FROM items WHERE id = 1", "ROLLBACK", "SELECT set_config('DateStyle', 'SQL', false)", "BEGIN; RESET ALL", "ROLLBACK"}},
		{"start-up", []string{"DateStyle", "German", "options", "-c IntervalStyle=iso_8601 -c app.x=1", "application_name", "psql"}, []string{"SHOW app.x", "RESET DateStyle", "SET DateStyle = 'SQL'", "RESET ALL", "SET app.x = 2", "RESET app.x", "SHOW app.x", "SHOW IntervalStyle", "DISCARD ALL", "SHOW DateStyle"}},
		{"role", nil, []string{"CREATE ROLE %", "SET ROLE %", "RESET ROLE", "SET SESSION AUTHORIZATION %", "SET SESSION AUTHORIZATION DEFAULT", "BEGIN; SET SESSION AUTHORIZATION %", "ROLLBACK", "BEGIN; SET LOCAL ROLE %", "COMMIT", "DROP ROLE %"}},
		{"unknown setting", []string{"nix", "1"}, nil},
		{"unknown setting in options", []string{"options", "-c nix=1"}, nil},
		{"bad setting", []string{"DateStyle", "nix"}, nil},
		{"bad encoding", []string{"client_encoding", "nix"}, nil},
		{"bad option", []string{"options", "-c DateStyle"}, nil},
		{"latin1", []string{"client_encoding", "latin1"}, []string{"SHOW client_encoding"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := func(address, database string) *rawClient {
				return dialRaw(t, address, rawStartup(0, append([]string{"user", "postgres", "database", database}, c.parameters...)...)).begin()
			}
			ours, theirs := start(b.Routers[0].Addr().String(), b.database), start(plainAddress(t, plain), plain)
			sorted := func(c *rawClient) string { slices.Sort(c.greeting); return strings.Join(c.greeting, "\n         ") }
			if got, want := sorted(ours), sorted(theirs); got != want {
				t.Errorf("start-up:\n  router %s\nPostgres %s", got, want)
			}
			for _, step := range c.steps {
				play := func(c *rawClient, role string) string {
					c.send(rawFrame('Q', strings.ReplaceAll(step, "%", role)+"\x00"))
					got := strings.Join(c.until(func(m string) bool { return m[0] == 'Z' }), "\n         ")
					return strings.ReplaceAll(got, role, "%")
				}
				got, want := play(ours, b.database+"_a"), play(theirs, plain+"_b")
				if got != want {
					t.Errorf("%s:\n  router %s\nPostgres %s", step, got, want)
				}
			}
		})
	}
}

// Versions and options of the protocol are negotiated; with 3.2 the key is longer, and cancels.
func TestProtocolVersions(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	address := b.Routers[0].Addr().String()
	for minor, want := range map[uint16][]string{
		0: {"K 8 bytes"}, 1: {"K 8 bytes"}, 2: {"K 36 bytes"},
		3:    {`v"\x00\x03\x00\x02\x00\x00\x00\x00"`, "K 36 bytes"},
		9999: {`v"\x00\x03\x00\x02\x00\x00\x00\x00"`, "K 36 bytes"},
	} {
		c := dialRaw(t, address, rawStartup(minor, "user", "postgres", "database", b.database)).begin()
		got := slices.DeleteFunc(c.greeting, func(m string) bool { return m[0] != 'v' && m[0] != 'K' })
		if !slices.Equal(got, want) {
			t.Errorf("protocol 3.%d: got %q, want %q", minor, got, want)
		}
	}
	c := dialRaw(t, address, rawStartup(2, "user", "postgres", "database", b.database, "_pq_.nix", "1", "_pq_.more", "x")).begin()
	if want := `v"\x00\x03\x00\x02\x00\x00\x00\x02_pq_.nix\x00_pq_.more\x00"`; c.greeting[0] != want {
		t.Errorf("options: got %s, want %s", c.greeting[0], want)
	}
	// The version that Postgres 15 answers itself is compared as it is.
	plain := plainShop(t)
	theirs := dialRaw(t, plainAddress(t, plain), rawStartup(0, "user", "postgres", "database", plain, "_pq_.nix", "1")).begin()
	ours := dialRaw(t, address, rawStartup(0, "user", "postgres", "database", b.database, "_pq_.nix", "1")).begin()
	if ours.greeting[0] != theirs.greeting[0] {
		t.Errorf("an option under 3.0: got %s, want %s", ours.greeting[0], theirs.greeting[0])
	}
}

// A key of 32 bytes cancels, and another does not.
func TestCancelWithLongKey(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	address := b.Routers[0].Addr().String()
	config, err := pgx.ParseConfig(b.url(0) + "&max_protocol_version=3.2")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if n := len(conn.PgConn().SecretKey()); n != 32 {
		t.Fatalf("the key has %d bytes", n)
	}
	wrong := rawBody(80877102, int(conn.PgConn().PID()), slices.Repeat([]byte{1}, 32))
	cancelled := make(chan error, 1)
	go func() { _, err := conn.Exec(t.Context(), "SELECT pg_sleep(60)"); cancelled <- err }()
	for {
		c := dialRaw(t, address, append(rawBody(len(wrong)+4), wrong...))
		if got := c.next(); got != "EOF" {
			t.Fatal(got)
		}
		select {
		case err := <-cancelled:
			if code(err) != "57014" {
				t.Fatal(err)
			}
			return
		case <-time.After(20 * time.Millisecond):
		}
		if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
