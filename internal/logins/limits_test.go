package logins

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/internal/testbed"
	"github.com/shardyard/shardyard/router/wire"
)

func hintOf(err error) string {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return server.Hint
	}
	return ""
}

// Connections that have not logged in are bounded in number; those that have do not count.
func TestUnauthenticatedAreBounded(t *testing.T) {
	t.Parallel()
	d := newDoor(t, "host all all all trust\n", func(c *node.Config) { c.Router.MaxStarting = 3 })
	for range 4 {
		testbed.Connect(t, d.url("postgres", "", "sslmode=disable"))
	}
	var silent []net.Conn
	testbed.Until(t, "no more are let in", func() bool {
		silent = append(silent, d.dial()) // one that comes while others log in may be refused itself
		err := d.enter("postgres", "", "sslmode=disable")
		return err != nil && strings.Contains(err.Error(), "too many clients are logging in")
	})
	d.mustFail("postgres", "", "sslmode=disable", "53300", "")
	for _, conn := range silent {
		testbed.Must(t, conn.Close())
	}
	testbed.Until(t, "there is room", func() bool { return d.enter("postgres", "", "") == nil })
}

// What is not finished in time is ended, without a word before the start-up packet and with one after.
func TestStartupTimeout(t *testing.T) {
	t.Parallel()
	d := newDoor(t, "host all all all scram-sha-256\n", func(c *node.Config) { c.Router.StartupTimeout = time.Second })
	silent, asked, shaking := d.dial(), d.dial(), d.dial()
	send(t, asked, startup("somebody", d.Name))
	send(t, shaking, wire.AppendSSLRequest(nil))
	if got := readAll(t, silent); got != "" {
		t.Fatalf("got %q", got)
	}
	if got := readAll(t, asked); !strings.Contains(got, "SCRAM-SHA-256") || !strings.Contains(got, "canceling authentication due to timeout") {
		t.Fatalf("got %q", got)
	}
	if got := readAll(t, shaking); got != "S" {
		t.Fatalf("got %q", got)
	}
}

// A router ends at once though clients have said nothing yet, or not all.
func TestEndWithSilentClients(t *testing.T) {
	t.Parallel()
	d := newDoor(t, "host all all all scram-sha-256\n")
	silent, asked, shaking := d.dial(), d.dial(), d.dial()
	send(t, asked, startup("somebody", d.Name))
	if got := answer(t, asked); got != "R" {
		t.Fatalf("got %q", got)
	}
	send(t, shaking, wire.AppendSSLRequest(nil))
	answer(t, shaking)
	router := d.Routers[0]
	d.Routers = nil
	began := time.Now()
	nodeClose(t, router)
	if took := time.Since(began); took > 15*time.Second {
		t.Fatalf("it took %s", took)
	}
	if got := readAll(t, asked); !strings.Contains(got, "57P01") {
		t.Fatalf("got %q", got)
	}
	readAll(t, silent)
	readAll(t, shaking)
}

// Messages before the login have the bounds that Postgres has.
func TestBytesBeforeLogin(t *testing.T) {
	t.Parallel()
	d := newDoor(t, "host all all all scram-sha-256\n")
	large := d.dial()
	send(t, large, []byte{0, 1, 0, 0, 0, 3, 0, 0})
	if got := readAll(t, large); !strings.Contains(got, "invalid length of startup packet") {
		t.Fatalf("got %q", got)
	}
	for name, message := range map[string]string{
		"long":    "p\x00\x00\xff\xff",
		"query":   "Q\x00\x00\x00\x0dSELECT 1\x00",
		"no SASL": "p\x00\x00\x00\x0bsecret\x00",
		"empty":   "p\x00\x00\x00\x04",
	} {
		conn := d.dial()
		send(t, conn, startup("somebody", d.Name))
		send(t, conn, []byte(message))
		if got := readAll(t, conn); !strings.Contains(got, "08P01") {
			t.Fatalf("%s: got %q", name, got)
		}
	}
}
