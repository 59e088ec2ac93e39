package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/internal/devcluster"
)

// shardedBed is three shards with a router in front of them. Beside the sharded database each server has one
// that the router does not know, plainDatabase, for what is measured without it: same servers, same disk.
type shardedBed struct {
	*testbed
	router target
}

const (
	shardCount    = 3
	plainDatabase = "plain"
)

func newShardedBed(ctx context.Context, o options, log *slog.Logger) (*shardedBed, error) {
	cluster, err := devcluster.Start(ctx, devcluster.Config{Shards: shardCount, Etcd: true, Log: log})
	if err != nil {
		return nil, fmt.Errorf("start the shards: %w", err)
	}
	bed := &shardedBed{testbed: &testbed{cluster: cluster}}
	if bed.router, err = bed.startRouter(ctx, o.program); err != nil {
		return nil, errors.Join(err, bed.close())
	}
	for shard := range shardCount {
		if err := execute(ctx, bed.shardPort(shard), "postgres", "CREATE DATABASE "+plainDatabase); err != nil {
			return nil, errors.Join(err, bed.close())
		}
	}
	return bed, nil
}

func (b *shardedBed) close() error {
	b.stop()
	return b.cluster.Close()
}

func (b *shardedBed) shardPort(i int) int { return int(b.cluster.Shards()[i].Primary.Port) }

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

// section is a part of the report that is measured on three shards.
type section struct {
	name     string
	accounts bool // needs the tables of createAccounts
	measure  func(context.Context, *shardedBed, options) ([]result, error)
}

var shardedSections = []section{
	{name: sectionCommit, accounts: true, measure: measureCommit},
	{name: sectionScatter, accounts: true, measure: measureScatter},
	{name: sectionCopy, measure: measureCopy},
}

// runSharded measures the sections that need three shards.
func runSharded(ctx context.Context, o options, log *slog.Logger, sections []section) (results []result, err error) {
	bed, err := newShardedBed(ctx, o, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bed.close()) }()
	if slices.ContainsFunc(sections, func(s section) bool { return s.accounts }) {
		if err := bed.createAccounts(ctx); err != nil {
			return nil, fmt.Errorf("create the accounts: %w", err)
		}
	}
	for _, s := range sections {
		found, err := s.measure(ctx, bed, o)
		if err != nil {
			return nil, fmt.Errorf("measure %s: %w", s.name, err)
		}
		for i := range found {
			found[i].Section = s.name
		}
		results = append(results, found...)
	}
	return results, nil
}

// interleave runs every way of every workload once a round; nobody always goes first.
func interleave(o options, workloads, ways []string, measure func(workload, way int) (measurement, error)) ([]result, error) {
	var results []result
	for w, workload := range workloads {
		for round := range o.rounds {
			for i := range ways {
				way := (i + round) % len(ways)
				m, err := measure(w, way)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", workload, ways[way], err)
				}
				results = append(results, result{Workload: workload, Target: ways[way], Round: round + 1, measurement: m})
				fmt.Printf("%-24s round %d %-34s %s\n", workload, round+1, ways[way], m)
			}
		}
	}
	return results, nil
}
