package logins

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/internal/testbed"
	"github.com/shardyard/shardyard/router/auth"
	"github.com/shardyard/shardyard/router/wire"
)

// dial opens a plain connection to the router.
func (d *door) dial() net.Conn {
	d.t.Helper()
	conn, err := net.Dial("tcp", d.Routers[0].Addr().String())
	testbed.Must(d.t, err)
	d.t.Cleanup(func() { _ = conn.Close() })
	testbed.Must(d.t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	return conn
}

func send(t *testing.T, conn net.Conn, bytes []byte) {
	t.Helper()
	_, err := conn.Write(bytes)
	testbed.Must(t, err)
}

// answer reads one byte.
func answer(t *testing.T, conn net.Conn) string {
	t.Helper()
	var b [1]byte
	_, err := conn.Read(b[:])
	testbed.Must(t, err)
	return string(b[:])
}

func gssRequest() []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 8), 1234<<16|5680)
}

func startup(user, database string) []byte {
	return wire.AppendStartup(nil, []wire.Parameter{{Name: "user", Value: user}, {Name: "database", Value: database}})
}

func clientTLS(t *testing.T, protocols ...string) *tls.Config {
	t.Helper()
	text, err := os.ReadFile(pki.root)
	testbed.Must(t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", NextProtos: protocols}
}

// What a client may ask before its start-up packet, and in which order.
func TestRequestsForEncryption(t *testing.T) {
	t.Parallel()
	d := newDoor(t, "host all all all trust\n")
	hello := startup("postgres", d.Name)

	conn := d.dial()
	send(t, conn, gssRequest())
	if got := answer(t, conn); got != "N" {
		t.Fatalf("GSSAPI: got %q", got)
	}
	send(t, conn, wire.AppendSSLRequest(nil))
	if got := answer(t, conn); got != "S" {
		t.Fatalf("TLS: got %q", got)
	}
	encrypted := tls.Client(conn, clientTLS(t))
	send(t, encrypted, hello)
	if got := answer(t, encrypted); got != "R" {
		t.Fatalf("start-up: got %q", got)
	}
	if state := encrypted.ConnectionState(); state.Version < tls.VersionTLS12 {
		t.Fatalf("TLS version %x", state.Version)
	}

	for name, request := range map[string][]byte{"SSL": wire.AppendSSLRequest(nil), "GSSAPI": gssRequest()} {
		conn := d.dial()
		send(t, conn, append(request, hello...))
		got := readAll(t, conn)
		want := "received unencrypted data after " + name + " request"
		if !strings.Contains(got, want) || !strings.Contains(got, "08P01") {
			t.Fatalf("%s: got %q", name, got)
		}
		conn = d.dial()
		send(t, conn, gssRequest())
		answer(t, conn)
		send(t, conn, gssRequest())
		if got := readAll(t, conn); !strings.Contains(got, "too many requests for encryption") {
			t.Fatalf("twice: got %q", got)
		}
	}

	// In TLS one cannot ask for it again.
	conn = d.dial()
	send(t, conn, wire.AppendSSLRequest(nil))
	answer(t, conn)
	encrypted = tls.Client(conn, clientTLS(t))
	send(t, encrypted, wire.AppendSSLRequest(nil))
	if got := readAll(t, encrypted); !strings.Contains(got, "too many requests for encryption") {
		t.Fatalf("TLS in TLS: got %q", got)
	}

	// Garbage in place of a handshake ends the connection, and nobody else's.
	conn = d.dial()
	send(t, conn, wire.AppendSSLRequest(nil))
	answer(t, conn)
	send(t, conn, hello)
	readAll(t, conn)
	d.mustEnter("postgres", "", "sslmode=require")

	old := clientTLS(t)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	conn = d.dial()
	send(t, conn, wire.AppendSSLRequest(nil))
	answer(t, conn)
	if err := tls.Client(conn, old).Handshake(); err == nil {
		t.Fatal("TLS 1.1 was accepted")
	}
}

// TLS from the first byte, as libpq 17 does with sslnegotiation=direct.
func TestDirectTLS(t *testing.T) {
	t.Parallel()
	d := newDoor(t, "hostssl all all all trust\n")
	d.mustEnter("postgres", "", "sslmode=verify-full sslnegotiation=direct sslrootcert="+pki.root)
	d.mustEnter("postgres", "", "") // pgx names the protocol only where it begins directly

	without := tls.Client(d.dial(), clientTLS(t))
	testbed.Must(t, without.Handshake())
	if got := readAll(t, without); !strings.Contains(got, "without ALPN") {
		t.Fatalf("without ALPN: got %q", got)
	}
	if err := tls.Client(d.dial(), clientTLS(t, "h2", "http/1.1")).Handshake(); err == nil {
		t.Fatal("another protocol was accepted")
	}

	plain := newDoor(t, "host all all all trust\n", func(c *node.Config) { c.Router.Auth.TLS = auth.TLS{} })
	if err := tls.Client(plain.dial(), clientTLS(t, "postgresql")).Handshake(); err == nil {
		t.Fatal("TLS where it is switched off")
	}
	conn := plain.dial()
	send(t, conn, wire.AppendSSLRequest(nil))
	if got := answer(t, conn); got != "N" {
		t.Fatalf("TLS where it is switched off: got %q", got)
	}
	send(t, conn, startup("postgres", plain.Name))
	if got := answer(t, conn); got != "R" {
		t.Fatalf("start-up: got %q", got)
	}
}

func TestTLSRequired(t *testing.T) {
	t.Parallel()
	d := newDoor(t, "host all all all trust\n", func(c *node.Config) { c.Router.Auth.TLS.Mode = auth.TLSRequire })
	d.mustFail("postgres", "", "sslmode=disable", "28000", "must be encrypted")
	d.mustEnter("postgres", "", "")
	// A request to cancel comes in the clear from psql before version 17.
	conn := d.dial()
	send(t, conn, wire.AppendCancelRequest(nil, 1, []byte("abcd")))
	if got := readAll(t, conn); got != "" {
		t.Fatalf("cancel: got %q", got)
	}
}

// Sessions over TLS do what others do: large answers, COPY, pipelines, idle waits, cancels, a drain.
func TestSessionsOverTLS(t *testing.T) {
	t.Parallel()
	for name, fresh := range map[string]bool{"goroutine": false, "fresh": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDoor(t, "hostssl all all all trust\n", func(c *node.Config) { c.Router.EventLoop = fresh })
			conn := testbed.Connect(t, d.url("postgres", "", ""))
			ctx := t.Context()
			var length int
			testbed.Must(t, conn.QueryRow(ctx, "SELECT length(string_agg(repeat('x', 1000), '')) FROM generate_series(1, 5000)").Scan(&length))
			rows, err := conn.Query(ctx, "SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
			testbed.Must(t, err)
			texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
			testbed.Must(t, err)
			if length != 5_000_000 || len(texts) != 5000 {
				t.Fatalf("got %d %d", length, len(texts))
			}
			_, err = conn.Exec(ctx, "CREATE TABLE t (a text)")
			testbed.Must(t, err)
			copied, err := conn.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"a"}, pgx.CopyFromSlice(len(texts), func(i int) ([]any, error) { return []any{texts[i]}, nil }))
			testbed.Must(t, err)
			if copied != 5000 {
				t.Fatalf("copied %d", copied)
			}
			batch := &pgx.Batch{}
			for range 200 {
				batch.Queue("SELECT $1::text", strings.Repeat("y", 500))
			}
			testbed.Must(t, conn.SendBatch(ctx, batch).Close())
			d.cancelOverTLS(conn)

			closed := make(chan error, 1)
			idle := testbed.Connect(t, d.url("postgres", "", ""))
			go func() {
				_, err := idle.PgConn().ReceiveMessage(context.WithoutCancel(ctx))
				closed <- err
			}()
			router := d.Routers[0]
			d.Routers = nil
			began := time.Now()
			nodeClose(t, router)
			if took := time.Since(began); took > 15*time.Second {
				t.Fatalf("the drain took %s", took)
			}
			wantError(t, <-closed, "57P01", "")
		})
	}
}

func nodeClose(t *testing.T, router *node.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()
	testbed.Must(t, router.Close(ctx))
}

// cancelOverTLS cancels what a session runs by a request that is encrypted.
func (d *door) cancelOverTLS(conn *pgx.Conn) {
	d.t.Helper()
	failed := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.WithoutCancel(d.t.Context()), "SELECT pg_sleep(1000)")
		failed <- err
	}()
	watch := d.Connect(0)
	testbed.Until(d.t, "the statement runs", func() bool {
		var n int
		testbed.Must(d.t, watch.QueryRow(d.t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND wait_event = 'PgSleep'", d.Name).Scan(&n))
		return n == 1
	})
	raw := d.dial()
	send(d.t, raw, wire.AppendSSLRequest(nil))
	answer(d.t, raw)
	encrypted := tls.Client(raw, clientTLS(d.t))
	send(d.t, encrypted, wire.AppendCancelRequest(nil, conn.PgConn().PID(), conn.PgConn().SecretKey()))
	readAll(d.t, encrypted)
	wantError(d.t, <-failed, "57014", "")
}

// psql 15 over TLS: verify-full, channel binding, and what it does by itself.
func TestPsql(t *testing.T) {
	t.Parallel()
	d := newDoor(t, "hostssl all all all scram-sha-256\n")
	user := d.role("secret")
	for parameters, want := range map[string]string{
		"channel_binding=require": user, "channel_binding=disable": user, "channel_binding=prefer": user,
	} {
		got, err := d.psql(d.url(user, "secret", parameters), "SELECT current_user")
		if err != nil || got != want {
			t.Errorf("%s: got %q %v", parameters, got, err)
		}
	}
	if got, err := d.psql(d.url(user, "wrong", "channel_binding=require"), "SELECT 1"); err == nil || !strings.Contains(got, "password authentication failed for user") {
		t.Errorf("wrong password: got %q", got)
	}
	if got, err := d.psql(d.url(user, "secret", "sslmode=prefer"), "SELECT 1"); err != nil || got != "1" {
		t.Errorf("prefer: got %q", got)
	}
	if got, err := d.psql(d.url(user, "secret", "sslmode=disable"), "SELECT 1"); err == nil || !strings.Contains(got, "no encryption") {
		t.Errorf("disable: got %q", got)
	}
}

// A certificate that is replaced counts for connections from then on; sessions go on under the old one.
func TestCertificateReloaded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := dir+"/cert.pem", dir+"/key.pem"
	install := func(p pair) {
		for from, to := range map[string]string{p.cert: cert, p.key: key} {
			text, err := os.ReadFile(from)
			testbed.Must(t, err)
			testbed.Must(t, os.WriteFile(to, text, 0o600))
		}
	}
	install(pki.server)
	d := newDoor(t, "host all all all trust\n", func(c *node.Config) { c.Router.Auth.TLS = auth.TLS{Cert: cert, Key: key} })
	subject := func() string {
		raw := d.dial()
		send(t, raw, wire.AppendSSLRequest(nil))
		answer(t, raw)
		encrypted := tls.Client(raw, clientTLS(t))
		testbed.Must(t, encrypted.Handshake())
		return encrypted.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	before := testbed.Connect(t, d.url("postgres", "", ""))
	next, err := pki.issue(pki.good, "next", "next")
	testbed.Must(t, err)
	install(next)
	if got := subject(); got != "shardyard" {
		t.Fatalf("without a reload: %s", got)
	}
	d.mustReload()
	if got := subject(); got != "next" {
		t.Fatalf("after a reload: %s", got)
	}
	writeFile(t, key, "garbage")
	if err := d.reload(); err == nil || !strings.Contains(err.Error(), key) {
		t.Fatalf("got %v", err)
	}
	if got := subject(); got != "next" {
		t.Fatalf("after a reload that failed: %s", got)
	}
	_, err = before.Exec(t.Context(), "SELECT 1")
	testbed.Must(t, err)
	if _, ok := before.PgConn().Conn().(*tls.Conn); !ok {
		t.Fatal("not encrypted")
	}
}
