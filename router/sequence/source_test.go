package sequence

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/internal/testbed"
	"github.com/shardyard/shardyard/router/pgerr"
)

var seq = directory.TableName{Schema: "public", Name: "S 1"}

// bed is a database with a sequence.
type bed struct {
	*testbed.Database
	t       *testing.T
	catalog uint64
}

func newBed(t *testing.T, options string) *bed {
	t.Helper()
	b := &bed{t: t, Database: cluster.Database(t), catalog: 1}
	b.Exec(0, `CREATE SEQUENCE "S 1" `+options)
	return b
}

// source is a Source that runs until the test ends.
func (b *bed) source(block int) *Source {
	b.t.Helper()
	s, err := NewSource(Config{Dial: b.Dial, Block: block, IdleTimeout: time.Hour})
	testbed.Must(b.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	b.t.Cleanup(func() { cancel(); <-ended })
	return s
}

func (b *bed) request() Request {
	return Request{Map: b.Map(), Catalog: b.catalog, Sequence: seq, Role: "postgres", Granted: true}
}

func (b *bed) draw(s *Source, n int) []int64 {
	b.t.Helper()
	values, err := s.Draw(b.t.Context(), b.request(), n)
	if err != nil {
		b.t.Fatal(err)
	}
	return values
}

func wantValues(t *testing.T, got []int64, want ...int64) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// One source gives the values that Postgres gives, whatever the sizes of the draws.
func TestDrawsInOrder(t *testing.T) {
	b := newBed(t, "")
	s := b.source(4)
	next := int64(1)
	for _, n := range []int{1, 1, 3, 0, 1, 20, 2} {
		for _, v := range b.draw(s, n) {
			if v != next {
				t.Fatalf("got %d, want %d", v, next)
			}
			next++
		}
	}
}

// Several sources, each with several takers: nothing is given twice, and each taker's values ascend.
func TestDrawsOnce(t *testing.T) {
	b := newBed(t, "INCREMENT 3 MINVALUE -5")
	const takers, rounds = 4, 40
	all := make([][]int64, 2*takers)
	var work sync.WaitGroup
	for i, s := range []*Source{b.source(7), b.source(100)} {
		for j := range takers {
			work.Go(func() {
				for round := range rounds {
					r := b.request()
					r.Ahead = []int{0, 500}[round%2]
					values, err := s.Draw(t.Context(), r, 1+round%3)
					if err != nil {
						t.Error(err)
						return
					}
					all[i*takers+j] = append(all[i*takers+j], values...)
				}
			})
		}
	}
	work.Wait()
	seen := make(map[int64]bool)
	for _, values := range all {
		if !slices.IsSorted(values) {
			t.Errorf("a taker's values do not ascend: %v", values)
		}
		for _, v := range values {
			if seen[v] || (v+5)%3 != 0 {
				t.Errorf("%d was given twice, or is none of the sequence", v)
			}
			seen[v] = true
		}
	}
}

// Every value up to the end of a sequence is given, then Postgres's error.
func TestEndOfSequence(t *testing.T) {
	for _, c := range []struct {
		options string
		want    []int64
	}{
		{"MAXVALUE 6", []int64{1, 2, 3, 4, 5, 6}},
		{"INCREMENT -2 MINVALUE -7", []int64{-1, -3, -5, -7}},
		{"MINVALUE 2 MAXVALUE 4 CYCLE", []int64{2, 3, 4, 2, 3, 4, 2}},
	} {
		t.Run(c.options, func(t *testing.T) {
			b := newBed(t, c.options)
			s := b.source(100)
			var got []int64
			for range c.want {
				got = append(got, b.draw(s, 1)...)
			}
			wantValues(t, got, c.want...)
			_, err := s.Draw(t.Context(), b.request(), 1)
			if c.want[len(c.want)-1] != 2 && pgerr.Of(err).Code != "2200H" {
				t.Errorf("behind the end: %v, want 2200H", err)
			}
		})
	}
}

// What changes the sequence makes a source forget what it has in hand, with the next version of the catalog.
func TestForgets(t *testing.T) {
	b := newBed(t, "")
	s, other := b.source(100), b.source(100)
	b.draw(s, 3) // 4 is in hand
	wantValues(t, b.draw(s, 1), 4)
	b.Exec(0, `ALTER SEQUENCE "S 1" RESTART 100`)
	b.catalog++
	wantValues(t, b.draw(s, 1), 100)
	wantValues(t, b.draw(s, 2), 101, 102) // and more in hand

	b.Exec(0, `SELECT setval('"S 1"', 1000)`)
	testbed.Must(t, other.NoteSet(t.Context(), b.Map(), seq))
	b.catalog++
	wantValues(t, b.draw(s, 1), 1001)
	b.draw(s, 2)
	b.Exec(0, `SELECT setval('"S 1"', 2000)`)
	testbed.Must(t, other.NoteSet(t.Context(), b.Map(), directory.TableName{}))
	b.catalog++
	wantValues(t, b.draw(s, 1), 2001)

	b.draw(s, 2)
	b.Exec(0, `SELECT setval('"S 1"', 3000)`)
	s.Drop(b.Name, seq)
	wantValues(t, b.draw(s, 1), 3001)
	b.draw(s, 2)
	b.Exec(0, `SELECT setval('"S 1"', 4000)`)
	s.Drop(b.Name, directory.TableName{})
	wantValues(t, b.draw(s, 1), 4001)

	b.Exec(0, `DROP SEQUENCE "S 1"; CREATE SEQUENCE "S 1" START 7`)
	b.catalog++
	wantValues(t, b.draw(s, 1), 7)
	b.Exec(0, `DROP SEQUENCE "S 1"`)
	b.catalog++
	if _, err := s.Draw(t.Context(), b.request(), 1); pgerr.Of(err).Code != "42P01" {
		t.Errorf("a sequence that is gone: %v, want 42P01", err)
	}
}

// The role must be allowed to draw, unless the sequence is that of an identity column; what it was allowed is asked again after a change.
func TestPrivilege(t *testing.T) {
	b := newBed(t, "")
	b.Exec(0, "DROP ROLE IF EXISTS seq_taker; CREATE ROLE seq_taker")
	t.Cleanup(func() { b.Exec(0, `DROP OWNED BY seq_taker; DROP ROLE seq_taker`) })
	s := b.source(10)
	r := b.request()
	r.Role, r.Granted = "seq_taker", false
	if _, err := s.Draw(t.Context(), r, 1); pgerr.Of(err).Code != "42501" {
		t.Errorf("without privilege: %v, want 42501", err)
	}
	b.Exec(0, `GRANT USAGE ON SEQUENCE "S 1" TO seq_taker`)
	values, err := s.Draw(t.Context(), r, 1)
	testbed.Must(t, err)
	wantValues(t, values, 1)
	b.Exec(0, `REVOKE USAGE ON SEQUENCE "S 1" FROM seq_taker`)
	r.Catalog++
	if _, err := s.Draw(t.Context(), r, 1); pgerr.Of(err).Code != "42501" {
		t.Errorf("after REVOKE: %v, want 42501", err)
	}
}

// A draw that waits for a lock on the sequence ends with its context, and others can draw afterwards.
func TestCancelled(t *testing.T) {
	b := newBed(t, "")
	s := b.source(10)
	b.draw(s, 1)
	blocker := b.Connect(0)
	for _, sql := range []string{"BEGIN", `ALTER SEQUENCE "S 1" INCREMENT 1 RESTART 50`} {
		if _, err := blocker.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := s.Draw(ctx, b.request(), 20)
		failed <- err
	}()
	watch := b.Connect(0)
	testbed.Until(t, "the draw waits for the lock", func() bool {
		var waits bool
		err := watch.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted
			AND relation = '"S 1"'::regclass)`).Scan(&waits)
		return err == nil && waits
	})
	cancel()
	if err := <-failed; err == nil {
		t.Error("a draw that was cancelled gave values")
	}
	if _, err := blocker.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	b.catalog++
	if v := b.draw(s, 1); v[0] < 50 {
		t.Errorf("got %d, want 50 or more", v[0])
	}
}

// A value that was given is not given again after a crash of the server, also one that Postgres had logged ahead.
func TestCrash(t *testing.T) {
	b := newBed(t, "")
	s := b.source(3)
	var last int64
	for range 3 {
		for range 5 {
			values := b.draw(s, 2)
			if values[0] <= last {
				t.Fatalf("%d was given after %d", values[0], last)
			}
			last = values[1]
		}
		testbed.Must(t, cluster.KillShard(0))
		if _, err := s.Draw(t.Context(), b.request(), 100); err == nil {
			t.Error("a draw from a dead server succeeded")
		} else if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
			t.Errorf("the error of a dead server: %v", err)
		}
		testbed.Must(t, cluster.RestartShard(t.Context(), 0))
	}
}

// Connections that are not used are closed, and others are opened when they are needed.
func TestIdleConnections(t *testing.T) {
	b := newBed(t, "")
	s := b.source(2)
	b.draw(s, 1)
	s.closeIdle(t.Context(), time.Nanosecond)
	if l := s.lines[b.Name]; l.conn != nil {
		t.Error("an idle connection was kept")
	}
	wantValues(t, b.draw(s, 2), 2, 3)

	// One that the server has closed is noticed before it is used.
	var pid uint32
	testbed.Must(t, s.onHome(t.Context(), b.Map(), func(conn *pgx.Conn) error { pid = conn.PgConn().PID(); return nil }))
	if _, err := b.Connect(0).Exec(t.Context(), "SELECT pg_terminate_backend($1)", int(pid)); err != nil {
		t.Fatal(err)
	}
	if v := b.draw(s, 10); v[9] < 13 {
		t.Errorf("got %v", v)
	}
}
