package soak

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/internal/node/nodetest"
	"github.com/shardyard/shardyard/internal/testbed"
	"github.com/shardyard/shardyard/router/wire"
)

// A statement whose plan is in the cache and which one shard answers allocates nothing on its way through the router, from the first
// byte that the client sends to the last that it gets. Not parallel: what others allocate would count.
func TestNoAllocation(t *testing.T) {
	for name, loop := range map[string]bool{"goroutine": false, "loop": true} {
		t.Run(name, func(t *testing.T) {
			b := nodetest.New(t, cluster, 1, func(c *node.Config) { c.Router.EventLoop = loop })
			testbed.Exec(t, b.URL(0), "CREATE TABLE items (id int PRIMARY KEY, name text)", "SHARD TABLE items BY HASH (id) PARTITIONS 6",
				"INSERT INTO items VALUES (1, 'one'), (2, 'two'), (3, 'three')")
			session, err := b.Session(0).PgConn().Hijack()
			testbed.Must(t, err)
			conn := session.Conn
			defer conn.Close()
			testbed.Must(t, conn.SetDeadline(time.Now().Add(time.Minute)))
			reader := wire.NewReader(conn, wire.Backend)
			rows := 0
			ask := func(request []byte) {
				if _, err := conn.Write(request); err != nil {
					t.Fatal(err)
				}
				for {
					frame, err := reader.Next()
					if err != nil {
						t.Fatal(err)
					}
					switch frame.Type {
					case wire.TypeErrorResponse:
						t.Fatalf("got %q", frame.Body)
					case wire.TypeDataRow:
						rows++
					case wire.TypeReady:
						return
					}
				}
			}
			ask(wire.AppendSync(wire.AppendParse(nil, "prepared", "SELECT name FROM items WHERE id = $1", nil)))
			var simple, prepared, written, transaction [][]byte
			for i := range 16 { // other values each time
				simple = append(simple, wire.AppendQuery(nil, fmt.Sprintf("SELECT name FROM items WHERE id = %d;", i)))
				bind := wire.AppendBind(nil, "", "prepared", nil, [][]byte{fmt.Append(nil, i)}, nil)
				prepared = append(prepared, wire.AppendSync(wire.AppendExecute(wire.AppendDescribe(bind, wire.ObjectPortal, ""), "", 0)))
				written = append(written, wire.AppendQuery(nil, fmt.Sprintf("UPDATE items SET name = 'x%d' WHERE id = %d", i, i)))
				transaction = append(transaction, wire.AppendQuery(nil, "BEGIN"), simple[i], written[i], wire.AppendQuery(nil, "COMMIT"))
			}
			for _, c := range []struct {
				name     string
				requests [][]byte
			}{{"simple", simple}, {"prepared", prepared}, {"written", written}, {"transaction", transaction}} {
				turn := 0
				one := func() { ask(c.requests[turn%len(c.requests)]); turn++ }
				for range 4 * len(c.requests) {
					one()
				}
				least := math.Inf(1)
				for range 5 { // on a machine that is busy, what the router does by the clock counts for few requests
					if least = min(least, testing.AllocsPerRun(400, one)); least == 0 {
						break
					}
				}
				if least > 0 {
					t.Errorf("%s: %v allocations for each request", c.name, least)
				}
			}
			if rows == 0 {
				t.Error("no statement has found a row")
			}
		})
	}
}
