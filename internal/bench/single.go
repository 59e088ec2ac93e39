package main

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"strconv"

	"github.com/shardyard/shardyard/internal/devcluster"
)

// singleBed is one shard with everything that pgbench measures in front of it.
type singleBed struct {
	*testbed
	pgbench string
	targets []target
}

var singleSections = []section[*singleBed]{
	{sectionSelect, measurePgbench(selects)},
	{sectionTPCB, measurePgbench(transactions)},
	{sectionReconnect, measurePgbench(reconnects)},
	{sectionIdle, measureIdle},
}

// runSingle measures the sections of one shard.
func runSingle(ctx context.Context, o options, log *slog.Logger) ([]result, error) {
	sections := chosen(o, singleSections)
	if len(sections) == 0 {
		return nil, nil
	}
	servers, err := newTestbed(ctx, devcluster.Config{Shards: 1, Etcd: true, Log: log}, o.program)
	if err != nil {
		return nil, err
	}
	bed := &singleBed{testbed: servers}
	defer bed.close()
	if err := bed.start(ctx, o); err != nil {
		return nil, err
	}
	return measureAll(ctx, bed, o, sections)
}

// start starts the targets and fills pgbench's tables.
func (b *singleBed) start(ctx context.Context, o options) error {
	if err := b.findPgbench(); err != nil {
		return err
	}
	port := b.shardPort(0)
	b.targets = append(b.targets, target{name: targetDirect, port: port})
	pooler, err := b.startPooler(ctx, "transaction", port, "postgres")
	if err != nil {
		return err
	}
	wide, err := b.startPooler(ctx, "session", port, "postgres")
	if err != nil {
		return err
	}
	pooler.widePort, pooler.widePid = wide.port, wide.pid
	b.targets = append(b.targets, pooler)
	if err := b.register(ctx); err != nil {
		return err
	}
	names := []string{targetRouter}
	if o.long {
		names = append(names, targetGoroutines)
	}
	for _, name := range names {
		router, err := b.startRouter(ctx, name, poolSize)
		if err != nil {
			return err
		}
		if wide, err = b.startRouter(ctx, name, widePool); err != nil {
			return err
		}
		router.widePort, router.widePid = wide.port, wide.pid
		b.targets = append(b.targets, router)
	}
	return b.fill(ctx, o.scale)
}

func (b *singleBed) findPgbench() error {
	binaries := b.cluster.Binaries()
	b.pgbench = binaries.Path("pgbench")
	if binaries.Has("pgbench") {
		return nil
	}
	var err error
	if b.pgbench, err = exec.LookPath("pgbench"); err != nil {
		return fmt.Errorf("find pgbench: %w", err)
	}
	return nil
}

// fill makes pgbench's tables, shards the largest while it is empty, and fills it at the shard.
func (b *singleBed) fill(ctx context.Context, scale int) error {
	if err := b.initialize(ctx, scale, "dtp"); err != nil {
		return err
	}
	router := b.targets[2]
	if err := execute(ctx, router.port, "postgres", `SHARD TABLE pgbench_accounts BY HASH (aid) PARTITIONS 16`); err != nil {
		return fmt.Errorf("shard pgbench_accounts: %w", err)
	}
	if err := b.initialize(ctx, scale, "gv"); err != nil {
		return err
	}
	return execute(ctx, b.shardPort(0), "postgres", "CHECKPOINT")
}

func (b *singleBed) initialize(ctx context.Context, scale int, steps string) error {
	out, err := b.command(ctx, b.shardPort(0), false, "-q", "-i", "-s", strconv.Itoa(scale), "-I", steps).CombinedOutput()
	if err != nil {
		return fmt.Errorf("pgbench -I %s: %w\n%s", steps, err, out)
	}
	return nil
}
