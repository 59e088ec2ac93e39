package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/internal/node/nodetest"
	"github.com/shardyard/shardyard/internal/testbed"
)

const (
	poolSize = 16
	// patience is how long a client waits for anything; more is a hang.
	patience = 90 * time.Second
)

// TestClients is described with the package.
func TestClients(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	b := nodetest.New(t, cluster, 1, func(c *node.Config) { c.Pools.PoolSize = poolSize })
	role := b.Name + "_app"
	setUp(t, b, role)
	t.Cleanup(func() { testbed.Exec(t, b.URL(0), "DROP TABLE owned; DROP ROLE "+role) })

	run := &crowd{t: t, url: strings.Replace(b.URL(0), "postgres@", role+"@", 1)}
	ctx, stop := context.WithTimeout(t.Context(), *clientsFor)
	defer stop()
	clients := make([]*tenant, *clientsN)
	var work sync.WaitGroup
	for i := range clients {
		clients[i] = &tenant{crowd: run, id: i, random: rand.New(rand.NewPCG(seed, uint64(i)))}
		work.Add(1)
		go func() { defer work.Done(); clients[i].live(ctx) }()
	}
	restarts := 0
	for ctx.Err() == nil {
		pause := time.NewTimer(*clientsFor / 4)
		select {
		case <-pause.C:
			shard := restarts % 3
			if restarts%2 == 0 {
				testbed.Must(t, cluster.KillShard(shard))
				testbed.Must(t, cluster.StartShard(t.Context(), shard))
			} else {
				testbed.Must(t, cluster.RestartShard(t.Context(), shard))
			}
			restarts++
		case <-ctx.Done():
			pause.Stop()
		}
	}
	work.Wait()

	connections, rows := count(t, b, role)
	if connections > poolSize {
		t.Errorf("%d server connections of a shard, want at most %d", connections, poolSize)
	}
	// What a restart has interrupted between its decision and its end is committed by recovery, within seconds.
	testbed.Until(t, "what was acknowledged is there", func() bool {
		_, rows = count(t, b, role)
		return !slices.ContainsFunc(clients, func(c *tenant) bool { return rows[c.name()] < c.written })
	})
	for _, c := range clients {
		if n := rows[c.name()]; n < c.written || n > c.written+c.unsure {
			t.Errorf("client %d: %d rows, want %d, and %d that it does not know of", c.id, n, c.written, c.unsure)
		}
	}
	t.Logf("%d clients, %d restarts, %d rounds, %d failed by restarts, %d connected again", len(clients), restarts, run.rounds.Load(), run.failed.Load(), run.reconnected.Load())
	if restarts == 0 || run.rounds.Load() < int64(len(clients)) {
		t.Error("nothing was tried")
	}
}

// count counts the most server connections of a shard that a role has, and the rows of each client.
func count(t *testing.T, b *nodetest.Bed, role string) (connections int, rows map[string]int) {
	t.Helper()
	rows = make(map[string]int)
	for shard := range 3 {
		conn := testbed.Connect(t, cluster.ConnString(shard, b.Name))
		var n int
		testbed.Must(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE usename = $1", role).Scan(&n))
		connections = max(connections, n)
		found, err := conn.Query(t.Context(), "SELECT tenant, count(*) FROM owned GROUP BY tenant")
		testbed.Must(t, err)
		var name string
		_, err = pgx.ForEachRow(found, []any{&name, &n}, func() error { rows[name] += n; return nil })
		testbed.Must(t, err)
		testbed.Must(t, conn.Close(t.Context()))
	}
	return connections, rows
}

func setUp(t *testing.T, b *nodetest.Bed, role string) {
	t.Helper()
	conn := b.Session(0)
	for _, sql := range []string{
		"CREATE ROLE " + role + " LOGIN",
		"CREATE TABLE owned (id int8 PRIMARY KEY, tenant text NOT NULL, n int)",
		"SHARD TABLE owned BY HASH (id) PARTITIONS 6",
		"GRANT ALL ON owned TO " + role,
		"ALTER TABLE owned ENABLE ROW LEVEL SECURITY",
		"CREATE POLICY own ON owned USING (tenant = current_setting('app.tenant', true))",
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// crowd is all clients.
type crowd struct {
	t                           *testing.T
	url                         string
	rounds, failed, reconnected atomic.Int64
}

// tenant is a client. Everything that it sees must be its own.
type tenant struct {
	*crowd
	id     int
	random *rand.Rand
	conn   *pgx.Conn
	next   int64

	// written are the rows whose commit was acknowledged, unsure those that may be there besides.
	written, unsure int
	pending         int // of the open transaction
}

func (c *tenant) name() string { return fmt.Sprintf("tenant-%d", c.id) }

// live lives until ctx ends.
func (c *tenant) live(ctx context.Context) {
	for ctx.Err() == nil {
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		err := c.round(within)
		hung := within.Err() != nil
		c.rounds.Add(1)
		if err != nil {
			c.unsure += c.pending
			c.recover(within, err, hung)
		}
		c.pending = 0
		cancel()
	}
	if c.conn != nil {
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		_ = c.conn.Close(within)
	}
}

// recover judges an error, which a restart of a shard may cause, and makes the session usable again.
func (c *tenant) recover(ctx context.Context, err error, hung bool) {
	c.failed.Add(1)
	var reported *pgconn.PgError
	switch {
	case hung:
		c.t.Errorf("client %d hung: %v", c.id, err)
	case errors.As(err, &reported):
		switch reported.Code[:2] {
		case "08", "57", "53", "40": // lost, shutting down or starting, no connection, to be tried again
		default:
			c.t.Errorf("client %d: %v", c.id, err)
		}
	case errors.Is(err, errForeign):
		c.t.Errorf("client %d: %v", c.id, err)
	}
	if c.conn == nil {
		return
	}
	if !c.conn.IsClosed() {
		if _, err := c.conn.Exec(ctx, "ROLLBACK"); err == nil {
			return
		}
	}
	_ = c.conn.Close(ctx)
	c.conn = nil
	c.reconnected.Add(1)
}

// errForeign says that a client saw what is not its own.
var errForeign = errors.New("saw what is not its own")

// round does one thing.
func (c *tenant) round(ctx context.Context) error {
	if c.conn == nil {
		if err := c.connect(ctx); err != nil {
			return err
		}
	}
	switch c.random.IntN(6) {
	case 0:
		return c.settings(ctx)
	case 1:
		return c.statements(ctx)
	case 2:
		return c.local(ctx)
	case 3:
		return c.rows(ctx)
	}
	return c.write(ctx)
}

// connect begins a session. One that a restart has kept from what the others rely on is none.
func (c *tenant) connect(ctx context.Context) (err error) {
	if c.conn, err = pgx.Connect(ctx, c.url); err != nil {
		c.conn = nil
		return err
	}
	defer func() {
		if err != nil {
			_ = c.conn.Close(ctx)
			c.conn = nil
		}
	}()
	for _, sql := range []string{
		fmt.Sprintf("SET app.tenant = '%s'", c.name()),
		fmt.Sprintf("SET TIME ZONE INTERVAL '%d' MINUTE", c.id%600),
		fmt.Sprintf("PREPARE mine(int) AS SELECT $1 + %d", c.id), // every client calls its statement by the same name
	} {
		if err := c.exec(ctx, sql); err != nil {
			return err
		}
	}
	_, err = c.conn.PgConn().Prepare(ctx, "own", fmt.Sprintf("SELECT $1::int4 + %d", c.id), nil)
	return err
}

func (c *tenant) exec(ctx context.Context, sql string) error {
	_, err := c.conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// sees compares the only value of a query.
func (c *tenant) sees(ctx context.Context, sql, want string) error {
	results, err := c.conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return err
	}
	last := results[len(results)-1]
	if len(last.Rows) != 1 || string(last.Rows[0][0]) != want {
		return fmt.Errorf("%w: %s gave %q, want %s", errForeign, sql, last.Rows, want)
	}
	return nil
}

func (c *tenant) settings(ctx context.Context) error {
	if err := c.sees(ctx, "SELECT current_setting('app.tenant')", c.name()); err != nil {
		return err
	}
	if err := c.sees(ctx, "SELECT extract(timezone FROM now())::int", fmt.Sprint(c.id%600*60)); err != nil {
		return err
	}
	other := fmt.Sprintf("%dkB", 1024+c.id)
	if err := c.exec(ctx, "SET work_mem = '"+other+"'"); err != nil {
		return err
	}
	return c.sees(ctx, "SELECT setting FROM pg_settings WHERE name = 'work_mem'", fmt.Sprint(1024+c.id))
}

func (c *tenant) statements(ctx context.Context) error {
	if err := c.sees(ctx, "EXECUTE mine(1)", fmt.Sprint(c.id+1)); err != nil {
		return err
	}
	n := c.random.IntN(1000)
	result := c.conn.PgConn().ExecPrepared(ctx, "own", [][]byte{[]byte(fmt.Sprint(n))}, nil, nil).Read()
	if result.Err != nil {
		return result.Err
	}
	if got := string(result.Rows[0][0]); got != fmt.Sprint(c.id+n) {
		return fmt.Errorf("%w: the statement gave %s, want %d", errForeign, got, c.id+n)
	}
	return nil
}

// local sets something for a transaction, which its end takes back.
func (c *tenant) local(ctx context.Context) error {
	if err := c.exec(ctx, "BEGIN; SET LOCAL app.tenant = 'nobody'"); err != nil {
		return err
	}
	results, err := c.conn.PgConn().Exec(ctx, "SELECT tenant FROM owned").ReadAll()
	if err != nil {
		return err
	}
	if rows := results[0].Rows; len(rows) > 0 {
		return fmt.Errorf("%w: a row of %s", errForeign, rows[0][0])
	}
	end := []string{"COMMIT", "ROLLBACK"}[c.random.IntN(2)]
	if err := c.exec(ctx, end); err != nil {
		return err
	}
	return c.sees(ctx, "SELECT current_setting('app.tenant')", c.name())
}

// rows looks at the client's rows, which row-level security picks.
func (c *tenant) rows(ctx context.Context) error {
	results, err := c.conn.PgConn().Exec(ctx, "SELECT tenant FROM owned").ReadAll()
	if err != nil {
		return err
	}
	if n := len(results[0].Rows); n < c.written {
		return fmt.Errorf("%w: %d rows, %d were written", errForeign, n, c.written)
	}
	for _, row := range results[0].Rows {
		if string(row[0]) != c.name() {
			return fmt.Errorf("%w: a row of %s", errForeign, row[0])
		}
	}
	return nil
}

// write writes rows on one or several shards in a transaction.
func (c *tenant) write(ctx context.Context) error {
	if err := c.exec(ctx, "BEGIN"); err != nil {
		return err
	}
	n := 1 + c.random.IntN(3)
	for range n {
		c.next++
		id := int64(c.id)<<32 | c.next
		if _, err := c.conn.Exec(ctx, "INSERT INTO owned VALUES ($1, $2, $3)", id, c.name(), n); err != nil {
			return err
		}
	}
	if c.random.IntN(4) == 0 {
		return c.exec(ctx, "ROLLBACK")
	}
	c.pending = n
	results, err := c.conn.PgConn().Exec(ctx, "COMMIT").ReadAll()
	if err != nil {
		return err
	}
	if results[0].CommandTag.String() == "COMMIT" {
		c.written += n
	}
	c.pending = 0
	return nil
}
