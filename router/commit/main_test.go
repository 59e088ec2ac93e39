package commit

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/mirror"
	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/testbed"
)

var cluster *testbed.Cluster

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(testbed.Main(m, devcluster.Config{Shards: 3}, &cluster))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bed is a database with the bookkeeping schema and a table on every shard.
type bed struct {
	*testbed.Database
	t      *testing.T
	origin *Origin
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, Database: cluster.Database(t)}
	for i := range cluster.Shards() {
		b.Exec(i, "CREATE TABLE t (k int PRIMARY KEY); GRANT ALL ON t TO PUBLIC")
	}
	var err error
	b.origin, err = NewOrigin("r1", b.Name)
	must(t, err)
	return b
}

func (b *bed) maps() map[string]*directory.Map {
	b.t.Helper()
	var tables []directory.Table
	for _, shard := range cluster.Shards()[1:] { // each holds something
		tables = append(tables, directory.Table{
			Name: directory.TableName{Schema: "public", Name: "on_" + string(shard.ID)}, Kind: directory.TablePinned, Shard: shard.ID,
		})
	}
	return map[string]*directory.Map{b.Name: b.Map(tables...)}
}

func (b *bed) exec(conn *pgx.Conn, sql string) {
	b.t.Helper()
	if _, err := conn.Exec(b.t.Context(), sql); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
}

// resolver is one that does not wait for anything, unless change says so.
func (b *bed) resolver(change ...func(*Config)) *Resolver {
	b.t.Helper()
	cfg := Config{
		Maps: b.maps, Dial: b.Dial, Interval: 20 * time.Millisecond, Grace: time.Nanosecond, Patience: time.Hour, PruneInterval: time.Hour, Keep: time.Nanosecond,
	}
	for _, c := range change {
		c(&cfg)
	}
	r, err := NewResolver(cfg)
	must(b.t, err)
	b.t.Cleanup(func() {
		for _, w := range r.watches {
			w.close(context.Background())
		}
	})
	return r
}

// begin writes k on all shards; the others than the first prepare.
func (b *bed) begin(k int) (agent *pgx.Conn, gid GID) {
	b.t.Helper()
	agent = b.Connect(0)
	b.exec(agent, fmt.Sprintf("BEGIN; INSERT INTO t VALUES (%d)", k))
	var xid uint64
	must(b.t, agent.QueryRow(b.t.Context(), "SELECT pg_current_xact_id()::text::bigint").Scan(&xid))
	gid = b.origin.Next("c", "s1", xid)
	for i := range cluster.Shards() {
		if i > 0 {
			conn := b.Connect(i)
			b.exec(conn, fmt.Sprintf("BEGIN; INSERT INTO t VALUES (%d); PREPARE TRANSACTION '%s'", k, gid))
			must(b.t, conn.Close(b.t.Context()))
		}
	}
	return agent, gid
}

func (b *bed) decide(agent *pgx.Conn, gid GID) error {
	b.t.Helper()
	others := []directory.ShardID{"s2", "s3"}
	_, err := agent.Exec(b.t.Context(), DecideSQL(gid, others, b.seal(agent, gid, others)))
	return err
}

// seal is what a router that commits over the connection proves itself with.
func (b *bed) seal(agent *pgx.Conn, gid GID, participants []directory.ShardID) string {
	b.t.Helper()
	secrets := mirror.NewSecrets(b.Dial)
	secret, err := secrets.Of(b.t.Context(), cluster.Shards()[0], b.Name)
	must(b.t, err)
	return mirror.Seal(secret, agent.PgConn().PID(), DecideMessage(gid, participants))
}

// want checks on how many shards k stands and on how many something is prepared.
func (b *bed) want(k, rows, prepared int) {
	b.t.Helper()
	gotRows, gotPrepared := b.count(k)
	if gotRows != rows || gotPrepared != prepared {
		b.t.Errorf("%d stands on %d shards, want %d; %d prepared, want %d", k, gotRows, rows, gotPrepared, prepared)
	}
}

func (b *bed) count(k int) (rows, prepared int) {
	b.t.Helper()
	for i := range cluster.Shards() {
		conn := b.Connect(i)
		var here, doubt int
		must(b.t, conn.QueryRow(b.t.Context(), `SELECT (SELECT count(*) FROM t WHERE k = $1),
			(SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database())`, k).Scan(&here, &doubt))
		rows, prepared = rows+here, prepared+doubt
		must(b.t, conn.Close(b.t.Context()))
	}
	return rows, prepared
}

func (b *bed) decisions(conn *pgx.Conn) (n int) {
	b.t.Helper()
	must(b.t, conn.QueryRow(b.t.Context(), "SELECT count(*) FROM shardyard.decision").Scan(&n))
	return n
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != code {
		t.Errorf("error is %v, want SQLSTATE %s", err, code)
	}
}
