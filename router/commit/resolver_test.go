package commit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/internal/testbed"
)

func TestDecidedIsCommitted(t *testing.T) {
	b := newBed(t)
	agent, gid := b.begin(1)
	must(t, b.decide(agent, gid))
	b.want(1, 1, 2)
	b.resolver().round(t.Context())
	b.want(1, 3, 0)
}

func TestUndecidedIsRolledBack(t *testing.T) {
	b := newBed(t)
	agent, _ := b.begin(1)
	r := b.resolver()
	r.round(t.Context())
	b.want(1, 0, 2) // its router may be about to decide
	b.exec(agent, "ROLLBACK")
	r.round(t.Context())
	b.want(1, 0, 0)
	if n := b.decisions(agent); n != 0 {
		t.Errorf("%d decisions", n)
	}
}

func TestGraceLeavesTheYoungAlone(t *testing.T) {
	b := newBed(t)
	agent, gid := b.begin(1)
	must(t, b.decide(agent, gid))
	b.resolver(func(c *Config) { c.Grace = time.Hour }).round(t.Context())
	b.want(1, 1, 2)
}

// A router that hangs is not waited for; when it goes on it cannot decide any more.
func TestLateDecisionFails(t *testing.T) {
	b := newBed(t)
	agent, gid := b.begin(1)
	r := b.resolver(func(c *Config) { c.Patience = time.Nanosecond })
	r.round(t.Context())
	b.want(1, 0, 0)
	wantCode(t, b.decide(agent, gid), "23505")
	b.exec(agent, "ROLLBACK")
	b.want(1, 0, 0)
	// Something that the router had under way is prepared late.
	late := b.Connect(1)
	b.exec(late, fmt.Sprintf("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION '%s'", gid))
	r.prune(t.Context())
	if n := b.decisions(agent); n != 0 {
		t.Errorf("%d decisions after the end of the transaction", n)
	}
	r.round(t.Context())
	b.want(1, 0, 0)
}

// An abort stays as long as its transaction could come to decide.
func TestAbortIsKept(t *testing.T) {
	b := newBed(t)
	agent, gid := b.begin(1)
	other := b.Connect(0)
	if outcome, err := Settle(t.Context(), other, gid, true); err != nil || outcome != Aborted {
		t.Fatal(outcome, err)
	}
	r := b.resolver()
	r.prune(t.Context())
	if n := b.decisions(other); n != 1 {
		t.Fatalf("%d decisions", n)
	}
	wantCode(t, b.decide(agent, gid), "23505")
	b.exec(agent, "ROLLBACK")
	r.round(t.Context())
	r.prune(t.Context())
	if n := b.decisions(other); n != 0 {
		t.Errorf("%d decisions", n)
	}
}

// A decision that is being written is waited for, and counts.
func TestSettleWaitsForTheDecision(t *testing.T) {
	b := newBed(t)
	agent, gid := b.begin(1)
	others := []directory.ShardID{"s2", "s3"}
	b.exec(agent, strings.TrimSuffix(DecideSQL(gid, others, b.seal(agent, gid, others)), "; COMMIT"))
	settled := make(chan Outcome)
	other := b.Connect(0)
	go func() {
		outcome, err := Settle(context.Background(), other, gid, true)
		if err != nil {
			t.Error(err)
		}
		settled <- outcome
	}()
	watcher := b.Connect(0)
	testbed.Until(t, "the wait", func() bool {
		var waiting bool
		must(t, watcher.QueryRow(t.Context(), "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&waiting))
		return waiting
	})
	b.exec(agent, "COMMIT")
	if outcome := <-settled; outcome != Committed {
		t.Errorf("settled as %q", outcome)
	}
	b.resolver().round(t.Context())
	b.want(1, 3, 0)
}

func TestDecisionIsKeptForParticipants(t *testing.T) {
	b := newBed(t)
	agent, gid := b.begin(1)
	must(t, b.decide(agent, gid))
	two := b.Connect(1)
	must(t, Finish(t.Context(), two, gid, true))
	must(t, Finish(t.Context(), two, gid, true)) // somebody was faster
	r := b.resolver()
	r.prune(t.Context())
	if n := b.decisions(agent); n != 1 {
		t.Fatalf("%d decisions, and s3 needs it", n)
	}
	r.round(t.Context())
	b.want(1, 3, 0)
	r.prune(t.Context())
	if n := b.decisions(agent); n != 0 {
		t.Errorf("%d decisions", n)
	}
}

// Where the decision is missing though the last agent has committed, nothing is guessed.
func TestMissingDecision(t *testing.T) {
	b := newBed(t)
	agent, gid := b.begin(1)
	must(t, b.decide(agent, gid))
	b.exec(agent, "DELETE FROM shardyard.decision")
	r := b.resolver()
	r.round(t.Context())
	b.want(1, 1, 2)
	if n := b.decisions(agent); n != 0 {
		t.Errorf("%d decisions", n)
	}
	list, silent := r.List(t.Context(), b.maps()[b.Name])
	if len(list) != 1 || list[0].State != InDoubt || len(silent) != 0 {
		t.Errorf("listed %+v, %v", list, silent)
	}
	for i := range 2 {
		must(t, Finish(t.Context(), b.Connect(i+1), gid, true))
	}
}

func TestOthersAreLeftAlone(t *testing.T) {
	b := newBed(t)
	conn := b.Connect(1)
	for i, gid := range []string{"shardyard/other/r1/1/1/s1/5", "shardyard-ddl:x", "shardyard/c/r1/1/1/s1", "mine"} {
		b.exec(conn, fmt.Sprintf("BEGIN; INSERT INTO t VALUES (%d); PREPARE TRANSACTION '%s'", i, gid))
	}
	r := b.resolver(func(c *Config) { c.Patience = time.Nanosecond })
	r.round(t.Context())
	b.want(1, 0, 4)
	for _, gid := range []string{"shardyard/other/r1/1/1/s1/5", "shardyard-ddl:x", "shardyard/c/r1/1/1/s1", "mine"} {
		b.exec(conn, "ROLLBACK PREPARED '"+gid+"'")
	}
}

// While the last agent is away nothing is done; soon after it is back everything is.
func TestLastAgentAway(t *testing.T) {
	b := newBed(t)
	agent, gid := b.begin(1)
	must(t, b.decide(agent, gid))
	_, _ = b.begin(2)
	must(t, cluster.KillShard(0))
	r := b.resolver()
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { r.Run(ctx) })
	lister := b.resolver()
	testbed.Until(t, "in doubt", func() bool {
		list, silent := lister.List(t.Context(), b.maps()[b.Name])
		return len(list) == 2 && list[0].State == InDoubt && len(list[0].Prepared) == 2 && len(silent) == 1 && silent[0] == "s1"
	})
	must(t, cluster.StartShard(t.Context(), 0))
	began := time.Now()
	testbed.Until(t, "resolved", func() bool { _, prepared := b.count(1); return prepared == 0 })
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	cancel()
	work.Wait()
	b.want(1, 3, 0)
	b.want(2, 0, 0)
}

func TestList(t *testing.T) {
	b := newBed(t)
	preparing, first := b.begin(1)
	deciding, second := b.begin(2)
	must(t, b.decide(deciding, second))
	gone, third := b.begin(3)
	b.exec(gone, "ROLLBACK")
	list, silent := b.resolver().List(t.Context(), b.maps()[b.Name])
	want := map[GID]State{first: Preparing, second: Committing, third: Aborting}
	for _, one := range list {
		if one.State != want[one.GID] || len(one.Prepared) != 2 || one.Age <= 0 || one.GID.Router != "r1" {
			t.Errorf("listed %+v, want %s", one, want[one.GID])
		}
	}
	if len(list) != 3 || len(silent) != 0 {
		t.Errorf("listed %+v, %v", list, silent)
	}
	b.exec(preparing, "ROLLBACK")
	b.resolver().round(t.Context())
	b.want(1, 0, 0)
}

// Several resolvers and slow routers at once: each transaction ends in one way everywhere, and as it was decided.
func TestManyResolvers(t *testing.T) {
	b := newBed(t)
	ctx, cancel := context.WithCancel(t.Context())
	var resolvers sync.WaitGroup
	for range 3 {
		r := b.resolver(func(c *Config) {
			c.Patience = 30 * time.Millisecond
			c.PruneInterval = 50 * time.Millisecond
			c.Keep = 20 * time.Millisecond
		})
		resolvers.Go(func() { r.Run(ctx) })
	}
	const n = 40
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	decided := make([]bool, n)
	for k := range n {
		agent, gid := b.begin(k)
		time.Sleep(rand.N(60 * time.Millisecond)) // the work of a router, not a wait for anything
		if random.IntN(4) > 0 {
			if err := b.decide(agent, gid); err == nil {
				decided[k] = true
			} else {
				wantCode(t, err, "23505")
			}
		}
		must(t, agent.Close(t.Context()))
	}
	testbed.Until(t, "nothing prepared", func() bool { _, prepared := b.count(0); return prepared == 0 })
	watcher := b.Connect(0)
	testbed.Until(t, "decisions pruned", func() bool { return b.decisions(watcher) == 0 })
	cancel()
	resolvers.Wait()
	committed := 0
	for k, yes := range decided {
		rows := 0
		if yes {
			rows = 3
			committed++
		}
		b.want(k, rows, 0)
	}
	t.Logf("%d of %d committed", committed, n)
}

// An application can decide for nobody but itself, and the decision is durable whatever it has set.
func TestDecideRights(t *testing.T) {
	b := newBed(t)
	conn := b.Connect(0)
	role := "app_" + b.Name
	b.exec(conn, "CREATE ROLE "+role+"; GRANT ALL ON t TO "+role)
	victim, gid := b.begin(1)
	b.exec(conn, "SET ROLE "+role)
	ctx := t.Context()
	others := []directory.ShardID{"s2", "s3"}
	stolen, own := b.seal(victim, gid, others), b.seal(conn, gid, others)
	for _, sql := range []string{
		"SELECT shardyard.decide('" + gid.String() + "', '{s2,s3}', '" + stolen + "')", // of another connection
		"SELECT shardyard.decide('" + gid.String() + "', '{s2,s3}', '" + own + "')",    // of another transaction
		"SELECT shardyard.decide('x', '{}', '')", "SELECT shardyard.decide(NULL, '{}', NULL)", "SELECT * FROM shardyard.seal",
		"SELECT * FROM shardyard.decision", "INSERT INTO shardyard.decision VALUES ('x', '{}', 'abort')", "DELETE FROM shardyard.decision",
		"LOCK TABLE shardyard.decision IN SHARE MODE",
	} {
		_, err := conn.Exec(ctx, "BEGIN; INSERT INTO t VALUES (9); "+sql)
		wantCode(t, err, "42501")
		b.exec(conn, "ROLLBACK")
	}
	for set, want := range map[string]string{"off": "on", "local": "on", "remote_write": "on", "on": "on", "remote_apply": "remote_apply"} {
		b.exec(conn, "SET synchronous_commit = "+set+"; BEGIN; INSERT INTO t VALUES (9)")
		var xid uint64
		must(t, conn.QueryRow(ctx, "SELECT pg_current_xact_id()::text::bigint").Scan(&xid))
		own := b.origin.Next("c", "s1", xid)
		seal := b.seal(conn, own, others)
		var got string
		for _, wrong := range []struct {
			participants []directory.ShardID
			seal         *string
		}{{nil, &seal}, {others, nil}, {others, new(string)}} {
			_, err := conn.Exec(ctx, "SAVEPOINT s; SELECT")
			must(t, err)
			_, err = conn.Exec(ctx, "SELECT shardyard.decide($1, $2, $3)", own.String(), wrong.participants, wrong.seal)
			wantCode(t, err, "42501")
			b.exec(conn, "ROLLBACK TO s")
		}
		must(t, conn.QueryRow(ctx, "SELECT current_setting('synchronous_commit') FROM shardyard.decide($1, $2, $3)", own.String(), others, seal).Scan(&got))
		must(t, conn.QueryRow(ctx, "SHOW synchronous_commit").Scan(&got))
		if got != want {
			t.Errorf("synchronous_commit %s becomes %s, want %s", set, got, want)
		}
		b.exec(conn, "ROLLBACK")
	}
	must(t, b.decide(victim, gid))
	b.resolver().round(t.Context())
	b.want(1, 3, 0)
}

func TestConfigIsValidated(t *testing.T) {
	for _, cfg := range []Config{{}, {Maps: func() map[string]*directory.Map { return nil }, Dial: (&bed{}).Dial, Grace: -1}} {
		if _, err := NewResolver(cfg); err == nil {
			t.Errorf("accepted %+v", cfg)
		}
	}
}
