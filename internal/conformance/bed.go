package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/router"
	"github.com/shardyard/shardyard/router/backend"
)

// settings are those of the servers on both sides.
var settings = map[string]string{
	"fsync": "off", "full_page_writes": "off", "autovacuum": "on", "max_connections": "300", "shared_buffers": "128MB",
}

// databaseSettings are what pg_regress gives the databases that it creates itself.
var databaseSettings = []string{
	"lc_messages TO 'C'", "lc_monetary TO 'C'", "lc_numeric TO 'C'", "lc_time TO 'C'", "bytea_output TO 'hex'", "timezone_abbreviations TO 'Default'",
}

// plain is a PostgreSQL without anything in front.
type plain struct {
	cluster *devcluster.Cluster
	address net.Addr
}

func startPlain(ctx context.Context, s suite) (_ *plain, err error) {
	cluster, err := devcluster.Start(ctx, devcluster.Config{Shards: 1, Locale: "C", Settings: settings})
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	at := cluster.Shards()[0].Primary
	p := &plain{cluster: cluster, address: &net.TCPAddr{IP: net.ParseIP(at.Host), Port: int(at.Port)}}
	if err := createDatabase(ctx, cluster, s); err != nil {
		return nil, errors.Join(err, cluster.Close())
	}
	return p, nil
}

func (p *plain) close() error { return p.cluster.Close() }

// createDatabase makes the database of a suite on the first shard.
func createDatabase(ctx context.Context, cluster *devcluster.Cluster, s suite) error {
	statements := []string{"CREATE DATABASE " + s.database + " TEMPLATE template0"}
	for _, setting := range databaseSettings {
		statements = append(statements, "ALTER DATABASE "+s.database+" SET "+setting)
	}
	return execute(ctx, cluster.ConnString(0, "postgres"), statements...)
}

func execute(ctx context.Context, url string, statements ...string) (err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("run %s: %w", sql, err)
		}
	}
	return nil
}

// bed is a router in front of some shards; the database has a sharded table.
type bed struct {
	cluster  *devcluster.Cluster
	running  *node.Node
	address  net.Addr
	database string
	planned  uint64 // plans before the suite

	backends net.Listener
	asking   sync.WaitGroup
}

const rowsOfSharded = 1000

func startBed(ctx context.Context, o options, s suite) (_ *bed, err error) {
	b := &bed{database: s.database}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close(ctx))
		}
	}()
	if b.cluster, err = devcluster.Start(ctx, devcluster.Config{Shards: o.shards, Etcd: true, Locale: "C", Settings: settings}); err != nil {
		return b, fmt.Errorf("start the cluster: %w", err)
	}
	if err := createDatabase(ctx, b.cluster, s); err != nil {
		return b, err
	}
	if b.running, err = node.Start(ctx, node.Config{
		Router:    router.Config{Name: "conformance", Listen: "127.0.0.1:0", CancelPrefix: 1},
		Pools:     backend.Config{ServiceUser: "postgres", PoolSize: 40},
		Directory: etcd.Config{Endpoints: b.cluster.Etcd().Endpoints()},
		Bootstrap: b.cluster.Shards(),
	}); err != nil {
		return b, fmt.Errorf("start the router: %w", err)
	}
	b.address = b.running.Addr()
	if err := execute(ctx, b.url(),
		"CREATE SCHEMA sharded", "CREATE TABLE sharded.accounts (id int PRIMARY KEY, balance int)",
		"SHARD TABLE sharded.accounts BY HASH (id) PARTITIONS 8",
		fmt.Sprintf("INSERT INTO sharded.accounts SELECT i, i FROM generate_series(1, %d) i", rowsOfSharded)); err != nil {
		return b, fmt.Errorf("make the sharded table: %w", err)
	}
	b.planned, _ = b.running.Plans()
	if b.backends, err = new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return b, fmt.Errorf("listen for isolationtester: %w", err)
	}
	b.asking.Go(b.answer)
	return b, nil
}

func (b *bed) url() string {
	return fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable", b.address, b.database)
}

// environment is what isolationtester needs to find the backends that sessions wait in.
func (b *bed) environment() []string {
	return []string{fmt.Sprintf("%s=%d", backendsVariable, b.backends.Addr().(*net.TCPAddr).Port)}
}

// answer tells who asks which backends work for a session.
func (b *bed) answer() {
	for {
		conn, err := b.backends.Accept()
		if err != nil {
			return // closed
		}
		b.answerOne(conn)
	}
}

func (b *bed) answerOne(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return
	}
	var backends []string
	if session, err := strconv.ParseUint(strings.TrimSpace(line), 10, 32); err == nil {
		for _, pid := range b.running.Backends(uint32(session)) {
			backends = append(backends, strconv.FormatUint(uint64(pid), 10))
		}
	}
	_, _ = fmt.Fprintf(conn, "{%s}", strings.Join(backends, ","))
}

// usage proves that the router planned and did not only pass bytes on.
type usage struct {
	// Planned counts statements that were planned, Cached those whose plan was in the cache.
	Planned uint64 `json:"planned"`
	Cached  uint64 `json:"cached"`
	// Sharded is the number of rows of the sharded table on each shard, after the suite.
	Sharded []int `json:"sharded"`
}

func (b *bed) usage(ctx context.Context, whole bool) (u usage, err error) {
	planned, cached := b.running.Plans()
	u.Planned, u.Cached = planned-b.planned, cached
	total := 0
	for shard := range b.cluster.Shards() {
		rows, err := count(ctx, b.cluster.ConnString(shard, b.database))
		if err != nil {
			return u, err
		}
		u.Sharded = append(u.Sharded, rows)
		total += rows
	}
	switch {
	case total != rowsOfSharded || slices.Contains(u.Sharded, 0):
		return u, fmt.Errorf("the sharded table has %v rows on its shards, not %d on all of them", u.Sharded, rowsOfSharded)
	case u.Planned == 0 || u.Cached == 0 && whole: // a part may send nothing twice
		return u, fmt.Errorf("the planner was not used: %d plans made, %d taken from the cache", u.Planned, u.Cached)
	}
	// A row by its key, and a statement on all shards, through the router.
	return u, execute(ctx, b.url(), "SELECT balance FROM sharded.accounts WHERE id = 7", "UPDATE sharded.accounts SET balance = balance + 1")
}

func count(ctx context.Context, url string) (rows int, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	err = conn.QueryRow(ctx, "SELECT count(*) FROM sharded.accounts").Scan(&rows)
	return rows, err
}

func (b *bed) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	var errs []error
	if b.backends != nil {
		errs = append(errs, b.backends.Close())
	}
	b.asking.Wait()
	if b.running != nil {
		errs = append(errs, b.running.Close(ctx))
	}
	if b.cluster != nil {
		errs = append(errs, b.cluster.Close())
	}
	return errors.Join(errs...)
}
