package router_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// onEach is one id of items for each shard, found by the shard's answer.
func onEach(t *testing.T, conn *pgx.Conn) []int {
	t.Helper()
	var ids []int
	seen := make(map[string]bool)
	for id := range 10 {
		port := mustSimple(t, conn, fmt.Sprintf("SELECT inet_server_port() FROM items WHERE id = %d", id))
		if !seen[port] {
			seen[port] = true
			ids = append(ids, id)
		}
	}
	if len(ids) != 3 {
		t.Fatalf("items are on %d shards", len(ids))
	}
	return ids
}

// another is another id on the same shard.
func another(t *testing.T, conn *pgx.Conn, id int) int {
	t.Helper()
	port := func(id int) string {
		return mustSimple(t, conn, fmt.Sprintf("SELECT inet_server_port() FROM items WHERE id = %d", id))
	}
	for other := range 10 {
		if other != id && port(other) == port(id) {
			return other
		}
	}
	t.Fatalf("%d is alone on its shard", id)
	return 0
}

// lock locks a row.
func lock(id int) string { return fmt.Sprintf("SELECT name FROM items WHERE id = %d FOR UPDATE", id) }

// outcome is what became of a statement that was started.
type outcome struct {
	who int
	err error
	in  time.Duration
}

// start runs a statement that waits, on a goroutine; its outcome goes to ended. It returns when a shard shows it waiting.
func start(t *testing.T, b *bed, conn *pgx.Conn, who int, sql string, ended chan<- outcome) {
	t.Helper()
	before := waiting(t, b)
	go func() {
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_, err := conn.PgConn().Exec(ctx, sql).ReadAll()
		ended <- outcome{who, err, time.Since(began)}
	}()
	// What closes a circle may end before it is seen here.
	within(t, "a statement that waits for a lock", func() bool { return waiting(t, b) > before || len(ended) > 0 })
}

// waiting counts the processes that wait for a lock on any shard.
func waiting(t *testing.T, b *bed) int {
	t.Helper()
	total := 0
	for shard := range cluster.Shards() {
		total += ask(t, shard, b.database, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
	}
	return total
}

// ask runs a query for one number on a shard, around the routers.
func ask(t *testing.T, shard int, database, sql string) (n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, cluster.ConnString(shard, database))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, sql).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// within waits until a condition holds.
func within(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("there is no %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Sessions in a circle over several shards, through one router and through several: the youngest is ended within two seconds
// and the others go on.
func TestDeadlock(t *testing.T) {
	b := newBed(t, 3)
	ids := onEach(t, shop(t, b))
	for _, test := range []struct {
		name    string
		routers []int
	}{
		{"two routers", []int{0, 1}},
		{"one router", []int{0, 0}},
		{"three routers", []int{0, 1, 2}},
		{"two and one", []int{0, 1, 0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := len(test.routers)
			conns := make([]*pgx.Conn, n)
			for i, r := range test.routers {
				conns[i] = b.connect(r)
				mustSimple(t, conns[i], "BEGIN")
				mustSimple(t, conns[i], lock(ids[i])) // begins on the shard, in the order of i
			}
			ended := make(chan outcome, n)
			for i, conn := range conns {
				next := (i + 1) % n
				start(t, b, conn, i, lock(ids[next]), ended)
			}
			// The victim's locks go with its error, so the one that waits for it may end as soon.
			victim, released := <-ended, <-ended
			if victim.who != n-1 {
				victim, released = released, victim
			}
			var e *pgconn.PgError
			if victim.who != n-1 || !errors.As(victim.err, &e) || e.Code != "40P01" || victim.in > 2*time.Second {
				t.Fatalf("session %d ended after %s: %v", victim.who, victim.in, victim.err)
			}
			if e.Message != "deadlock detected" || strings.Count(e.Detail, "waits for ShareLock on transaction ") != n ||
				strings.Count(e.Detail, "\n") != n-1 || !strings.Contains(e.Detail, "of shard s") || e.Hint == "" {
				t.Errorf("%s\n%s\n%s", e.Message, e.Detail, e.Hint)
			}
			expectError(t, conns[n-1], "SELECT 1", "25P02")
			mustSimple(t, conns[n-1], "ROLLBACK")
			for i := n - 2; i >= 0; i-- { // each waits for the one that ended before it
				next := released
				if i < n-2 {
					next = <-ended
				}
				if next.who != i || next.err != nil {
					t.Fatalf("session %d: %v", next.who, next.err)
				}
				mustSimple(t, conns[i], "COMMIT")
			}
		})
	}
}

// Pipelines without a transaction block are transactions too.
func TestDeadlockOfPipelines(t *testing.T) {
	t.Parallel()
	b := newBed(t, 2)
	ids := onEach(t, shop(t, b))
	update := func(id int) []pgproto3.FrontendMessage {
		return extended(fmt.Sprintf("UPDATE items SET name = 'p' WHERE id = %d", id))
	}
	sessions := []*script{b.script(0), b.script(1)}
	for i, s := range sessions {
		for _, m := range batch(update(ids[i]), &pgproto3.Flush{}) {
			s.Send(m)
		}
		if got := s.answers(3); strings.Contains(got, "error") {
			t.Fatal(got)
		}
	}
	ended := make(chan string, len(sessions))
	for i, s := range sessions {
		before := waiting(t, b)
		for _, m := range batch(update(ids[1-i]), sync) {
			s.Send(m)
		}
		go func() { ended <- s.answers(0) }()
		// The circle may be found before it is seen here.
		within(t, "a pipeline that waits for a lock", func() bool { return waiting(t, b) > before || len(ended) > 0 })
	}
	victim, released := <-ended, <-ended
	if !strings.Contains(victim, "error") {
		victim, released = released, victim // its locks go with its error, so the other may end as soon
	}
	if !strings.Contains(victim, "error:40P01") || strings.Contains(released, "error") {
		t.Errorf("%s\n%s", victim, released)
	}
	within(t, "end of the waits", func() bool { return waiting(t, b) == 0 })
}

// A wait that is long but in no circle ends by itself, and so does one for a prepared transaction: nobody is ended for it.
func TestNoDeadlock(t *testing.T) {
	t.Parallel()
	b := newBed(t, 2)
	conn := shop(t, b)
	ids := onEach(t, conn)
	one, two := b.connect(0), b.connect(1)
	mustSimple(t, one, "BEGIN")
	mustSimple(t, one, lock(ids[0]))
	mustSimple(t, two, "BEGIN")
	mustSimple(t, two, lock(ids[1]))
	ended := make(chan outcome, 1)
	start(t, b, two, 2, lock(ids[0]), ended)
	select {
	case o := <-ended:
		t.Fatalf("session %d: %v", o.who, o.err)
	case <-time.After(1500 * time.Millisecond): // the detector has looked some times
	}
	mustSimple(t, one, "COMMIT")
	if o := <-ended; o.err != nil {
		t.Fatal(o.err)
	}
	mustSimple(t, two, "COMMIT")

	// one waits for a prepared transaction that holds what two waits for, on two shards.
	held := []int{another(t, conn, ids[0]), another(t, conn, ids[1])}
	for shard := range cluster.Shards() {
		direct(t, shard, b.database, fmt.Sprintf("BEGIN; SELECT FROM items WHERE id IN (%d, %d) FOR UPDATE; PREPARE TRANSACTION 'held%d'", held[0], held[1], shard))
	}
	mustSimple(t, one, "BEGIN")
	mustSimple(t, one, lock(ids[0]))
	mustSimple(t, two, "BEGIN")
	mustSimple(t, two, lock(ids[1]))
	both := make(chan outcome, 2)
	start(t, b, one, 1, lock(held[1]), both)
	start(t, b, two, 2, lock(held[0]), both)
	select {
	case o := <-both:
		t.Fatalf("session %d: %v", o.who, o.err)
	case <-time.After(1500 * time.Millisecond):
	}
	for shard := range cluster.Shards() {
		direct(t, shard, b.database, fmt.Sprintf("COMMIT PREPARED 'held%d'", shard))
	}
	for range 2 {
		if o := <-both; o.err != nil {
			t.Fatalf("session %d: %v", o.who, o.err)
		}
	}
}

// Transactions that take their locks in one order are never ended for a deadlock, however they wait.
func TestNoFalseVictims(t *testing.T) {
	t.Parallel()
	b := newBed(t, 2)
	shop(t, b)
	seed := rand.Uint64()
	const clients, hold = 8, 120 * time.Millisecond
	ends := make(chan error, clients)
	deadline := time.Now().Add(5 * time.Second)
	for client := range clients {
		conn := b.connect(client % 2)
		random := rand.New(rand.NewPCG(seed, uint64(client)))
		go func() {
			for time.Now().Before(deadline) {
				statements := []string{"BEGIN"}
				for id := range 10 { // in the order of ids, on any shard
					if random.IntN(3) == 0 {
						statements = append(statements, lock(id))
					}
				}
				statements = append(statements, fmt.Sprintf("SELECT pg_sleep(%f)", random.Float64()*hold.Seconds()), "COMMIT")
				for _, sql := range statements {
					if _, err := conn.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
						ends <- fmt.Errorf("seed %d: %s: %w", seed, sql, err)
						return
					}
				}
			}
			ends <- nil
		}()
	}
	for range clients {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
}
