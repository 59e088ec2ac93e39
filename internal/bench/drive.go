package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// worker is one client of a run. It is used by one goroutine.
type worker struct {
	// step does the work once and returns the latency that counts.
	step  func(ctx context.Context) (time.Duration, error)
	close func()
}

// drive lets so many clients work for so long, after one step each that does not count. pid is the process whose CPU
// time is measured, 0 for none.
func drive(ctx context.Context, clients int, length time.Duration, pid int, open func(client int) (worker, error)) (measurement, error) {
	workers := make([]worker, 0, clients)
	defer func() {
		for _, w := range workers {
			w.close()
		}
	}()
	for client := range clients {
		w, err := open(client)
		if err != nil {
			return measurement{}, err
		}
		workers = append(workers, w)
		if _, err := w.step(ctx); err != nil {
			return measurement{}, err
		}
	}
	before, err := cpuTime(pid)
	if err != nil {
		return measurement{}, err
	}
	latencies := make([][]time.Duration, clients)
	group, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	for client, w := range workers {
		group.Go(func() error {
			for time.Since(start) < length {
				latency, err := w.step(ctx)
				if err != nil {
					return err
				}
				latencies[client] = append(latencies[client], latency)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return measurement{}, err
	}
	elapsed := time.Since(start)
	after, err := cpuTime(pid)
	if err != nil {
		return measurement{}, err
	}
	all := slices.Concat(latencies...)
	if len(all) == 0 {
		return measurement{}, fmt.Errorf("nothing was done in %s", length)
	}
	slices.Sort(all)
	return measurement{
		TPS:           float64(len(all)) / elapsed.Seconds(),
		CPUMicros:     float64((after - before).Microseconds()) / float64(len(all)),
		LatencyMicros: micros(percentile(all, 50)),
		P99Micros:     micros(percentile(all, 99)),
	}, nil
}

// percentile is by the nearest rank; sorted is not empty.
func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[min(len(sorted)*p/100, len(sorted)-1)]
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
