package metrics

import (
	"maps"
	"sync"
	"testing"
	"time"
)

func TestBucketsIncludeTheirBounds(t *testing.T) {
	var h Histogram
	for _, d := range []time.Duration{-time.Second, 0, 50 * time.Microsecond, 50*time.Microsecond + 1, time.Second, time.Minute, time.Hour} {
		h.Observe(d)
	}
	var got Durations
	h.AddTo(&got)
	want := Durations{Sum: 100*time.Microsecond + 1 + time.Second + time.Minute + time.Hour}
	want.Counts[0], want.Counts[1], want.Counts[13] = 3, 1, 1
	want.Counts[len(Bounds)-1], want.Counts[len(Bounds)] = 1, 1
	if got != want || got.Count() != 7 {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}

func TestStripesAddUp(t *testing.T) {
	var d Database
	var group sync.WaitGroup
	for session := range uint64(20) {
		group.Go(func() {
			s := d.Stripe(session)
			for range 100 {
				s.Requests[Single].Observe(time.Millisecond)
				s.Transactions[TwoPhase].Observe(time.Second)
				s.Received.Add(3)
			}
		})
	}
	group.Wait()
	totals := d.Totals()
	if n, sum := totals.AllRequests(); n != 2000 || sum != 2*time.Second {
		t.Fatalf("%d requests in %s", n, sum)
	}
	if n, sum := totals.AllTransactions(); n != 2000 || sum != 2000*time.Second || totals.Transactions[TwoPhase].Count() != 2000 {
		t.Fatalf("%d transactions in %s", n, sum)
	}
	if totals.Received != 6000 {
		t.Fatalf("%d bytes", totals.Received)
	}
}

// Codes that applications make up must not make labels.
func TestClassesOfErrorsAreBounded(t *testing.T) {
	var e Errors
	for _, code := range []string{"23505", "23503", "0A000", "ZZ001", "QQ001", "", "5"} {
		e.Count(code)
	}
	got := maps.Collect(e.Each)
	if want := map[string]uint64{"23": 2, "0A": 1, OtherClass: 4}; !maps.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	var d Database
	s := d.Stripe(1)
	if n := testing.AllocsPerRun(100, func() {
		s.Requests[Single].Observe(time.Millisecond)
		s.Sent.Add(1)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	var d Database
	s := d.Stripe(1)
	b.ReportAllocs()
	for b.Loop() {
		s.Requests[Single].Observe(300 * time.Microsecond)
	}
}
