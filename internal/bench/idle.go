package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// busy are the clients beside the idle ones.
var busy = workload{builtin: "select-only", mode: "simple", clients: 16}

// idleAlone and idleBeside name the workloads of the section: the busy clients alone, and beside the idle ones.
const idleAlone = "busy clients alone"

func idleBeside(idle int) string { return fmt.Sprintf("beside %d idle clients", idle) }

// filesLeft are what a process needs beside its idle clients.
const filesLeft = 500

// settleTimeout bounds how long a process takes to forget the idle clients.
const settleTimeout = 30 * time.Second

// measureIdle measures, in processes that are new in each round, busy clients alone, then beside idle ones, then alone again: what
// the idle ones cost is the growth of the process's resident memory between the first two, and what
// the second loses against the mean of the others.
func measureIdle(ctx context.Context, b *singleBed, o options) ([]result, error) {
	files, err := raiseFileLimit()
	if err != nil {
		return nil, err
	}
	if idle := min(o.idle, files-filesLeft); idle < o.idle {
		fmt.Printf("%d idle clients instead of %d: ulimit -n is %d\n", idle, o.idle, files)
		o.idle = idle
	}
	if o.idle < 1 {
		return nil, fmt.Errorf("no idle client is possible with %d open files", files)
	}
	starts := []struct {
		name  string
		start func() (target, error)
	}{
		{targetPooler, func() (target, error) { return b.startPooler(ctx, "transaction", b.shardPort(0), "postgres") }},
		{targetRouter, func() (target, error) { return b.startRouter(ctx, targetRouter, poolSize) }},
		{targetGoroutines, func() (target, error) { return b.startRouter(ctx, targetGoroutines, poolSize) }},
	}
	if !o.long {
		starts = starts[:2]
	}
	var results []result
	for round := range o.rounds {
		for i := range starts {
			way := starts[(i+round)%len(starts)]
			t, err := way.start()
			if err != nil {
				return nil, err
			}
			alone, beside, err := b.measureBeside(ctx, t, o)
			b.stop(t)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", way.name, err)
			}
			for _, r := range []result{
				{Workload: idleAlone, Target: way.name, Round: round + 1, measurement: alone},
				{Workload: idleBeside(o.idle), Target: way.name, Round: round + 1, measurement: beside},
			} {
				results = append(results, r)
				fmt.Printf("%-28s round %d %-34s %s\n", r.Workload, r.Round, r.Target, r.measurement)
			}
		}
	}
	return results, nil
}

// measureBeside measures one process.
func (b *singleBed) measureBeside(ctx context.Context, t target, o options) (alone, beside measurement, err error) {
	files, err := openFiles(t.pid)
	if err != nil {
		return alone, beside, err
	}
	if alone, err = b.measure(ctx, t, busy, o.length); err != nil {
		return alone, beside, err
	}
	before, err := residentBytes(t.pid)
	if err != nil {
		return alone, beside, err
	}
	clients, err := connectIdle(ctx, t.port, o.idle)
	if err != nil {
		return alone, beside, err
	}
	beside, err = b.measure(ctx, t, busy, o.length)
	var after int64
	if err == nil {
		after, err = residentBytes(t.pid)
	}
	if err = errors.Join(err, clients.leave()); err != nil {
		return alone, beside, err
	}
	beside.IdleBytes = float64(after-before) / float64(o.idle)
	if err := waitForFiles(ctx, t.pid, files+2*poolSize); err != nil {
		return alone, beside, err
	}
	again, err := b.measure(ctx, t, busy, o.length)
	if err != nil {
		return alone, beside, err
	}
	alone.TPS, alone.CPUMicros = (alone.TPS+again.TPS)/2, (alone.CPUMicros+again.CPUMicros)/2
	return alone, beside, nil
}

// waitForFiles waits until a process has no more open files than that.
func waitForFiles(ctx context.Context, pid, most int) error {
	deadline := time.Now().Add(settleTimeout)
	for {
		files, err := openFiles(pid)
		if err != nil || files <= most {
			return err
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("wait until process %d has forgotten its idle clients: it has %d open files", pid, files)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
