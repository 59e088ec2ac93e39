package crash

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// prepare makes the tables, and gives each case rows of its own on as many shards as it writes on.
func prepare(t *testing.T, all []*crash) {
	t.Helper()
	conn, stop := survivor(t, "setup")
	defer stop()
	for _, sql := range []string{
		"CREATE TABLE account (k int PRIMARY KEY, v int NOT NULL)",
		"SHARD TABLE account BY HASH (k) PARTITIONS 16",
		"CREATE TABLE country (k int PRIMARY KEY, v int NOT NULL)",
		"INSERT INTO country VALUES (1, 0)",
		"SHARD TABLE country AS REFERENCE",
		fmt.Sprintf("INSERT INTO account SELECT i, 0 FROM generate_series(1, %d) i", 8*len(all)),
	} {
		run1(t, conn, sql)
	}
	pools := make([][]int, shards)
	onShards(t, func(shard int, conn *pgx.Conn) {
		rows, err := conn.Query(t.Context(), "SELECT k FROM account ORDER BY k")
		must(t, err)
		pools[shard], err = pgx.CollectRows(rows, pgx.RowTo[int])
		must(t, err)
	})
	var first []string
	for i, c := range all {
		for n := range c.writers {
			shard := (i + n) % shards // so that the last agent is another one now and then
			c.keys = append(c.keys, pools[shard][0])
			pools[shard] = pools[shard][1:]
		}
		first = append(first, c.setUp()...)
	}
	run1(t, conn, strings.Join(first, "; "))
	// What becomes of a decision is told by its router's name.
	each(t, fmt.Sprintf(`
		CREATE FUNCTION public.fate() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF NEW.outcome = 'commit' AND NEW.gid LIKE '%%/%s-%%' THEN RAISE EXCEPTION 'refused'; END IF;
			IF NEW.outcome = 'commit' AND NEW.gid LIKE '%%/%s-%%' THEN PERFORM pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid()); END IF;
			RETURN NEW;
		END $$;
		CREATE TRIGGER fate BEFORE INSERT ON shardyard.decision FOR EACH ROW EXECUTE FUNCTION public.fate()`, refused, lost))
}

// TestKilledRouter: routers are killed at every step. Each transaction is on all shards or on none, as its client was
// told, and nothing is left soon after another router has begun; those that recover, and readers that finish
// transactions for others, are killed too.
func TestKilledRouter(t *testing.T) {
	binary := buildRouter(t)
	all := cases()
	held := &crash{failpoint: "beforeDecide", writers: 3, mode: block, want: rolledBack, decision: "stopped", value: len(all) + 1}
	all = append(all, held)
	prepare(t, all)

	// A row of the reference table that is changed around the routers, for the worker.
	onShards(t, func(shard int, conn *pgx.Conn) {
		if shard == 0 {
			run1(t, conn, "UPDATE country SET v = 7 WHERE k = 1")
		}
	})
	killAt(t, binary, "sweeping", "sweepBeforeWrite", "recoveryBeforeRound="+asleep)
	swept := start(t, binary, "sweeping2", "sweepAfterWrite="+asleep, "recoveryBeforeRound="+asleep).killedAt("sweepAfterWrite")
	answer, stopped := stop(t, binary, held)

	t.Run("killed", func(t *testing.T) {
		for _, c := range all {
			if c != held {
				t.Run(c.String(), func(t *testing.T) {
					t.Parallel()
					c.crash(t, binary)
				})
			}
		}
	})
	reading := []string{"gateBeforeDecided", "gateBeforeFinish", "gateAfterFinish"}
	aborting := []string{"recoveryBeforeAbort", "recoveryInAbort", "recoveryAfterAbort"}
	finishing := []string{"recoveryBeforeFinish", "recoveryAfterFinish"}
	if !*full {
		reading, aborting, finishing = reading[2:], aborting[2:], finishing[1:]
	}
	for _, failpoint := range reading {
		readAt(t, binary, failpoint)
	}
	for _, failpoint := range aborting { // they come there when the router that is stopped has been for ten seconds
		killAt(t, binary, failpoint, failpoint, "recoveryFinishesNothing=return()", "workerBeforeRound="+asleep)
	}
	for _, failpoint := range finishing {
		killAt(t, binary, failpoint, failpoint, "workerBeforeRound="+asleep)
	}
	wait(t, "failpoint sweepAfterWrite", func() bool {
		select {
		case <-swept:
			return true
		default:
			return false
		}
	})
	conn, end := survivor(t, "survivor")
	defer end()
	mustBeWhole(t, conn, all)
	began := time.Now()
	wait(t, "nothing is left prepared", func() bool { return count(t, "SELECT count(*) FROM pg_prepared_xacts") == 0 })
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("recovery took %s", took)
	}
	select {
	case err := <-answer:
		t.Fatalf("the router was not stopped: %v", err)
	default:
	}
	must(t, stopped.cmd.Process.Signal(syscall.SIGCONT))
	held.told = <-answer
	var reported *pgconn.PgError
	if !errors.As(held.told, &reported) || reported.Code != "40001" {
		t.Errorf("COMMIT of a router that was stopped: %v", held.told)
	}
	stopped.kill()
	for _, c := range all {
		t.Run("truth/"+c.String(), c.check)
	}
	mustBeCopies(t)
	end()
	pruned(t, binary)
}

// crash runs a case until its router is killed.
func (c *crash) crash(t *testing.T, binary string) {
	terms := []string{alone, at(c.failpoint, c.nth)}
	before, sql := "afterDecide", "COMMIT PREPARED "
	if c.decision == refused {
		before, sql = "beforeRollback", "ROLLBACK PREPARED "
	}
	if c.mode == finished {
		terms = append(terms, before+"=1*sleep(3000)")
	}
	name := fmt.Sprintf("%s-%d", c.decision, c.value)
	p := start(t, binary, name, terms...)
	answer := c.send(t, p)
	if c.mode == finished {
		p.reached(before, 0)
		must(t, p.cmd.Process.Signal(syscall.SIGSTOP))
		onShards(t, func(_ int, conn *pgx.Conn) {
			gid := texts(t, conn, "SELECT gid FROM pg_prepared_xacts WHERE gid LIKE '%/"+name+"/%'")
			if gid == "" {
				return
			}
			// Another router may finish it at the same moment.
			_, err := conn.Exec(t.Context(), sql+"'"+gid+"'")
			if reported := (*pgconn.PgError)(nil); err != nil && (!errors.As(err, &reported) || reported.Code != "42704") {
				t.Fatalf("%s: %v", sql, err)
			}
		})
		must(t, p.cmd.Process.Signal(syscall.SIGCONT))
	}
	p.reached(c.failpoint, c.nth)
	p.kill()
	c.told = <-answer
}

// stop stops (SIGSTOP) a router before it decides: its connections stay.
func stop(t *testing.T, binary string, c *crash) (answer chan error, p *process) {
	t.Helper()
	p = start(t, binary, fmt.Sprintf("%s-%d", c.decision, c.value), alone, c.failpoint+"=1*sleep(2000)")
	answer = c.send(t, p)
	p.reached(c.failpoint, 0)
	must(t, p.cmd.Process.Signal(syscall.SIGSTOP))
	return answer, p
}

// killAt starts a router and kills it when it has come to a failpoint by itself, and wherever it has come there.
func killAt(t *testing.T, binary, name, failpoint string, terms ...string) {
	t.Helper()
	p := start(t, binary, strings.ToLower(name), append(terms, failpoint+"="+asleep)...)
	p.reached(failpoint, 0)
	p.kill()
}

// readAt kills a router whose reader has come to a failpoint of the gate.
func readAt(t *testing.T, binary, failpoint string) {
	t.Helper()
	p := start(t, binary, strings.ToLower(failpoint), alone, failpoint+"="+asleep)
	conn := p.connect()
	answer := make(chan error, 1)
	go func() {
		_, err := conn.PgConn().Exec(context.Background(), "SELECT * FROM account").ReadAll()
		answer <- err
	}()
	p.reached(failpoint, 0)
	p.kill()
	if err := <-answer; err == nil {
		t.Errorf("a reader that was killed at %s had an answer", failpoint)
	}
}

// mustBeWhole reads all rows through a router, while much is in doubt: no transaction is seen on some of its shards only.
func mustBeWhole(t *testing.T, conn *pgx.Conn, all []*crash) {
	t.Helper()
	rows, err := conn.Query(t.Context(), "SELECT k, v FROM account")
	must(t, err)
	seen := map[int]int{}
	var k, v int
	_, err = pgx.ForEachRow(rows, []any{&k, &v}, func() error { seen[k] = v; return nil })
	must(t, err)
	for _, c := range all {
		n := 0
		for _, k := range c.keys {
			if v, there := seen[k]; there && v == c.value {
				n++
			}
		}
		if whole := n == 0 || n == len(c.keys) || c.mode == move && n == 1; !whole {
			t.Errorf("%s: seen on %d of %d shards", c, n, len(c.keys))
		}
	}
}

// check compares what the client was told with the truth.
func (c *crash) check(t *testing.T) {
	got := c.truth(t)
	if c.want != either && got != c.want {
		t.Errorf("the transaction is %s, want %s", got, c.want)
	}
	var reported *pgconn.PgError
	switch {
	case c.told == nil && got != committed:
		t.Errorf("the client was told of a commit, but the transaction is %s", got)
	case errors.As(c.told, &reported) && reported.Code != "08007" && got == committed:
		t.Errorf("the client was told %v, but the transaction is committed", c.told)
	}
}

// mustBeCopies waits until nothing is left in an outbox, and fails the test unless the reference table is the same on
// all shards then.
func mustBeCopies(t *testing.T) {
	t.Helper()
	wait(t, "the outboxes are empty", func() bool { return count(t, "SELECT count(*) FROM shardyard.change") == 0 })
	var first string
	onShards(t, func(shard int, conn *pgx.Conn) {
		here := texts(t, conn, "SELECT c::text FROM country c ORDER BY k")
		if shard == 0 {
			first = here
		}
		if here != first || !strings.HasPrefix(here, "(1,7)") {
			t.Errorf("the copies differ: %s and %s", first, here)
		}
	})
}

// pruned: decisions that are old are removed by and by, whoever is killed at it.
func pruned(t *testing.T, binary string) {
	t.Helper()
	each(t, "UPDATE shardyard.decision SET decided_at = decided_at - interval '1 day'")
	for _, failpoint := range []string{"pruneAfterAborts", "pruneBeforeDelete"} {
		if *full || failpoint == "pruneBeforeDelete" {
			killAt(t, binary, failpoint, failpoint, "workerBeforeRound="+asleep)
		}
	}
	p := start(t, binary, "pruning")
	defer p.kill()
	wait(t, "old decisions are removed", func() bool { return count(t, "SELECT count(*) FROM shardyard.decision") == 0 })
}
