package metrics

import (
	"sync/atomic"
	"time"
)

// Bounds are the upper bounds of a histogram's buckets. What is longer than the last is in one bucket more.
var Bounds = [...]time.Duration{
	50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	1 * time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
	25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	1 * time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second, 60 * time.Second,
}

// Histogram counts durations in buckets. It is safe for concurrent use; the zero value is empty.
type Histogram struct {
	counts [len(Bounds) + 1]atomic.Uint64
	sum    atomic.Uint64 // in nanoseconds
}

// Observe counts one duration; a negative one (a clock was set back) counts as none.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	i := 0
	for i < len(Bounds) && d > Bounds[i] { // most are short: the first few comparisons do
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(uint64(d))
}

// AddTo adds what was counted to a snapshot.
func (h *Histogram) AddTo(s *Durations) {
	for i := range h.counts {
		s.Counts[i] += h.counts[i].Load()
	}
	s.Sum += time.Duration(h.sum.Load())
}

// Durations is what a histogram has counted. Each bucket has its own count, not that of the shorter ones too.
type Durations struct {
	Counts [len(Bounds) + 1]uint64
	Sum    time.Duration
}

// Count is the number of durations.
func (d *Durations) Count() uint64 {
	var n uint64
	for _, count := range d.Counts {
		n += count
	}
	return n
}

// Add adds another's counts.
func (d *Durations) Add(other *Durations) {
	for i := range d.Counts {
		d.Counts[i] += other.Counts[i]
	}
	d.Sum += other.Sum
}
