package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// fault breaks something and mends it again.
type fault struct {
	name        string
	strike      func() error
	mend        func(context.Context) error
	least, most time.Duration // how long it stays broken
}

// faults of the shards, and of routers and etcd: two nemeses work side by side, so that faults overlap.
func (b *bed) faults() (ofShards, ofOthers []fault) {
	for i := range shards {
		name := fmt.Sprintf("s%d", i+1)
		ofShards = append(ofShards,
			fault{"kill " + name, func() error { return b.cluster.KillShard(i) },
				func(ctx context.Context) error { return b.cluster.StartShard(ctx, i) }, 100 * time.Millisecond, 3 * time.Second},
			fault{"stop " + name, func() error { return b.cluster.PauseShard(i) },
				func(context.Context) error { return b.cluster.ResumeShard(i) }, 100 * time.Millisecond, 5 * time.Second})
	}
	for i, p := range append([]*process{b.etcd}, b.routers...) {
		longest := 14 * time.Second // past the routers' leases
		if i == 0 {
			longest = 5 * time.Second
		}
		ofOthers = append(ofOthers,
			fault{"kill " + p.name, p.kill, func(context.Context) error { return p.start() }, 100 * time.Millisecond, 4 * time.Second},
			fault{"stop " + p.name, p.pause, func(context.Context) error { return p.resume() }, 100 * time.Millisecond, longest})
	}
	return ofShards, ofOthers
}

// nemesis strikes until the time is over. What it breaks it mends.
func nemesis(t *testing.T, ctx context.Context, random *rand.Rand, began time.Time, faults []fault) {
	for {
		f := faults[random.IntN(len(faults))]
		broken := f.least + time.Duration(random.Int64N(int64(f.most-f.least)))
		if random.IntN(3) > 0 {
			broken = f.least + (broken-f.least)/5 // mostly short
		}
		rest := 300*time.Millisecond + time.Duration(random.Int64N(int64(3*time.Second)))
		t.Logf("%6.2fs %s for %s", time.Since(began).Seconds(), f.name, broken.Round(time.Millisecond))
		if err := f.strike(); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
		pause(ctx, broken)
		if err := f.mend(context.WithoutCancel(ctx)); err != nil {
			t.Errorf("mend %s: %v", f.name, err)
			return
		}
		if pause(ctx, rest); ctx.Err() != nil {
			return
		}
	}
}

// pause waits, less if the context ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// runNemeses lets both work for the time given.
func (b *bed) runNemeses(t *testing.T, random *rand.Rand, d time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	began := time.Now()
	ofShards, ofOthers := b.faults()
	var work sync.WaitGroup
	for _, faults := range [][]fault{ofShards, ofOthers} {
		own := rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		work.Go(func() { nemesis(t, ctx, own, began, faults) })
	}
	work.Wait()
}
