package schema

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/directory/fence"
	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/testbed"
	"github.com/shardyard/shardyard/planner/shardsql"
	"github.com/shardyard/shardyard/router/pgerr"
)

var cluster *testbed.Cluster

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(testbed.Main(m, devcluster.Config{Shards: 3, BurnOIDs: true, Etcd: true}, &cluster))
}

// bench is a database of its own on the three shards, with performers for it.
type bench struct {
	t        *testing.T
	database string
	store    *etcd.Store
	p        *Performer
}

func newBench(t *testing.T) *bench {
	t.Helper()
	d := cluster.Database(t)
	b := &bench{t: t, database: d.Name, store: d.Store()}
	shards := cluster.Shards()
	testbed.Must(t, b.store.CreateCluster(t.Context(), etcd.Cluster{ID: d.Name, Shards: shards, Home: shards[0].ID}))
	b.p = b.performer("r1")
	return b
}

func (b *bench) performer(router string) *Performer {
	b.t.Helper()
	dial := func(ctx context.Context, shard directory.Shard, database string) (*pgx.Conn, error) {
		return dialAs(ctx, shard, database, "postgres")
	}
	f, err := fence.New(fence.Config{Store: b.store, Dial: dial})
	if err != nil {
		b.t.Fatal(err)
	}
	p, err := New(Config{
		Store: b.store, Fence: f, Dial: dial, Router: router,
		LockTimeout: 300 * time.Millisecond, LockAttempts: 2, HoldTimeout: 5 * time.Second,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

func (b *bench) connect(shard int, database string) *pgx.Conn {
	b.t.Helper()
	return testbed.Connect(b.t, cluster.ConnString(shard, database))
}

func (b *bench) exec(conn *pgx.Conn, sql string) {
	b.t.Helper()
	if _, err := conn.Exec(b.t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
}

// home is a connection to the database on the home shard.
func (b *bench) home() *pgx.Conn { b.t.Helper(); return b.connect(0, b.database) }

// sharding runs a sharding statement.
func (b *bench) sharding(p *Performer, sql string) (*Result, error) {
	b.t.Helper()
	statement, err := shardsql.Parse(sql)
	if err != nil {
		return nil, err
	}
	return p.Perform(b.t.Context(), Request{
		Statement: statement, SQL: sql, Database: b.database, User: "postgres", SearchPath: []string{"$user", "public"},
	})
}

func (b *bench) must(sql string) {
	b.t.Helper()
	if _, err := b.sharding(b.p, sql); err != nil {
		b.t.Fatalf("%s: %s", sql, explain(err))
	}
}

func (b *bench) ddl(tag, sql string, tables ...string) error {
	b.t.Helper()
	return b.ddlOf(b.p, "postgres", tag, sql, tables...)
}

// ddlOf runs a statement as a transaction of a user.
func (b *bench) ddlOf(p *Performer, user, tag, sql string, tables ...string) error {
	b.t.Helper()
	c := b.begin(p, user)
	if err := c.run(tag, sql, tables...); err != nil {
		return err
	}
	return c.commit()
}

func (b *bench) mustDDL(tag, sql string, tables ...string) {
	b.t.Helper()
	if err := b.ddl(tag, sql, tables...); err != nil {
		b.t.Fatalf("%s: %s", sql, explain(err))
	}
}

func (b *bench) load() *directory.Map {
	b.t.Helper()
	m, err := b.store.LoadMap(b.t.Context(), b.database)
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

// definitionOn is the table as the shard has it, nil if it has none.
func (b *bench) definitionOn(shard int, table string) *definition {
	b.t.Helper()
	conn := b.connect(shard, b.database)
	var exists bool
	if err := conn.QueryRow(b.t.Context(), "SELECT to_regclass($1) IS NOT NULL", table).Scan(&exists); err != nil {
		b.t.Fatal(err)
	}
	if !exists {
		return nil
	}
	d, err := describe(b.t.Context(), conn, directory.TableName{Schema: "public", Name: table})
	if err != nil {
		b.t.Fatal(err)
	}
	return d
}

// settled fails if anything is left of an operation: a hold, a prepared transaction, a connection.
func (b *bench) settled() {
	b.t.Helper()
	m := b.load()
	for _, table := range m.Tables {
		if table.Hold != nil {
			b.t.Errorf("table %s is still held: %+v", table.Name, *table.Hold)
		}
	}
	for shard := range cluster.Shards() {
		var gids []string
		err := b.connect(shard, "postgres").QueryRow(b.t.Context(),
			"SELECT coalesce(array_agg(gid), '{}') FROM pg_prepared_xacts WHERE database = $1", b.database).Scan(&gids)
		if err != nil {
			b.t.Fatal(err)
		}
		if len(gids) > 0 {
			b.t.Errorf("prepared transactions on shard %d: %v", shard, gids)
		}
	}
}

func explain(err error) string {
	e := pgerr.Of(err)
	return strings.TrimSpace(fmt.Sprintf("%s %s\nDETAIL: %s\nHINT: %s\nat %d\n(%v)", e.Code, e.Message, e.Detail, e.Hint, e.Position, err))
}

func routerInfo(name string) etcd.RouterInfo {
	return etcd.RouterInfo{Name: name, Address: "127.0.0.1:1", CancelPrefix: 1}
}

func dialAs(ctx context.Context, shard directory.Shard, database, user string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable",
		shard.Primary.Host, shard.Primary.Port, user, database))
}
