package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/internal/devcluster"
)

// shardedBed is three shards with a router in front of them. Beside the sharded database each server has one
// that the router does not know, plainDatabase, for what is measured without it: same servers, same disk.
type shardedBed struct {
	*testbed
	router target
	// accounts: createAccounts has made its tables.
	accounts bool
}

const (
	shardCount    = 3
	plainDatabase = "plain"
)

func newShardedBed(ctx context.Context, o options, log *slog.Logger) (*shardedBed, error) {
	servers, err := newTestbed(ctx, devcluster.Config{Shards: shardCount, Etcd: true, Log: log}, o.program)
	if err != nil {
		return nil, err
	}
	bed := &shardedBed{testbed: servers}
	if err := bed.register(ctx); err != nil {
		return nil, bed.failed(err)
	}
	if bed.router, err = bed.startRouter(ctx, targetRouter, poolSize); err != nil {
		return nil, bed.failed(err)
	}
	for shard := range shardCount {
		if err := execute(ctx, bed.shardPort(shard), "postgres", "CREATE DATABASE "+plainDatabase); err != nil {
			return nil, bed.failed(err)
		}
	}
	return bed, nil
}

// connect opens a connection to a server or the router.
func connect(ctx context.Context, port int, database string) (*pgconn.PgConn, error) {
	conn, err := pgconn.Connect(ctx, fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", port, database))
	if err != nil {
		return nil, fmt.Errorf("connect to port %d: %w", port, err)
	}
	return conn, nil
}

// execute runs statements one by one over a connection of its own.
func execute(ctx context.Context, port int, database string, statements ...string) error {
	conn, err := connect(ctx, port, database)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn)
	return query(ctx, conn, statements...)
}

// query runs statements one by one in the simple protocol.
func query(ctx context.Context, conn *pgconn.PgConn, statements ...string) error {
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
			return fmt.Errorf("run %q: %w", sql, err)
		}
	}
	return nil
}

func hangUp(ctx context.Context, conns ...*pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	for _, conn := range conns {
		_ = conn.Close(ctx) // the connection is gone either way
	}
}

// settle gives every run the same start: what earlier ones left to write is written.
func (b *shardedBed) settle(ctx context.Context) error {
	for shard := range shardCount {
		if err := execute(ctx, b.shardPort(shard), "postgres", "CHECKPOINT"); err != nil {
			return err
		}
	}
	return nil
}

var shardedSections = []section[*shardedBed]{
	{sectionScatter, measureScatter},
	{sectionSnapshot, measureSnapshot},
	{sectionCommit, measureCommit},
	{sectionCopy, measureCopy},
}

// runSharded measures the sections that need three shards.
func runSharded(ctx context.Context, o options, log *slog.Logger) ([]result, error) {
	sections := chosen(o, shardedSections)
	if len(sections) == 0 {
		return nil, nil
	}
	bed, err := newShardedBed(ctx, o, log)
	if err != nil {
		return nil, err
	}
	defer bed.close()
	return measureAll(ctx, bed, o, sections)
}
