package auth

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

func newFailures(limits FailureLimits) *Failures {
	f := NewFailures()
	f.SetLimits(limits)
	return f
}

func TestFailures(t *testing.T) {
	f := newFailures(FailureLimits{Max: 5, Lockout: time.Minute})
	now := time.Unix(1_000_000, 0)
	here, there := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for i, want := range []time.Duration{0, 0, 100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond} {
		if wait := f.Locked(here, "u", now); wait != 0 {
			t.Fatalf("locked for %s after %d failures", wait, i)
		}
		if got := f.Failed(here, "u", now); got != want {
			t.Fatalf("failure %d waits %s, want %s", i+1, got, want)
		}
	}
	if wait := f.Locked(here, "u", now.Add(20*time.Second)); wait != 40*time.Second {
		t.Fatalf("locked for %s", wait)
	}
	if f.Locked(here, "v", now) != 0 || f.Locked(there, "u", now) != 0 {
		t.Fatal("others are locked out")
	}
	if f.Locked(here, "u", now.Add(time.Minute)) != 0 {
		t.Fatal("it stays locked")
	}
	if got := f.Failed(here, "u", now.Add(time.Minute+1)); got != 0 {
		t.Fatalf("old failures count: %s", got)
	}
	f.Failed(there, "u", now)
	f.Failed(there, "u", now)
	f.Succeeded(there, "u")
	if got := f.Failed(there, "u", now); got != 0 {
		t.Fatalf("failures before a success count: %s", got)
	}
	if got := f.Failed(here, "slow", now); got != 0 {
		t.Fatal(got)
	}
	for range 30 {
		if got := f.Failed(here, "slow", now); got > maxDelay {
			t.Fatalf("the delay grows to %s", got)
		}
	}
}

// An address that tries many roles is turned away as any.
func TestFailuresOfManyRoles(t *testing.T) {
	f := newFailures(FailureLimits{Max: 2, Lockout: time.Minute})
	now := time.Unix(1_000_000, 0)
	from := func(host byte) netip.Addr { return netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 15: host}) }
	for i := range 20 {
		if f.Locked(from(1), "u", now) != 0 {
			t.Fatalf("locked after %d", i)
		}
		f.Failed(from(byte(i)), string(rune('a'+i)), now) // other addresses of the same /64
	}
	if f.Locked(from(200), "another", now) == 0 {
		t.Fatal("not locked")
	}
	if f.Locked(netip.MustParseAddr("2001:1::1"), "another", now) != 0 {
		t.Fatal("another network is locked")
	}
	if free := newFailures(FailureLimits{Max: -1}); free.Failed(from(1), "u", now) != 0 || free.Locked(from(1), "u", now) != 0 {
		t.Fatal("counted without a bound")
	}
}

func TestFailuresAreBounded(t *testing.T) {
	f := newFailures(FailureLimits{Max: 2, Lockout: time.Minute})
	now := time.Unix(1_000_000, 0)
	for i := range uint32(2*maxAttempts + 10) {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], i)
		f.Failed(netip.AddrFrom4(a), "u", now)
		if len(f.counts) > maxAttempts {
			t.Fatalf("%d entries", len(f.counts))
		}
		if i == maxAttempts {
			now = now.Add(time.Hour) // all are over
		}
	}
}
