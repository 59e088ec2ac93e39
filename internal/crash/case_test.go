package crash

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// outcome is what became of a transaction.
type outcome int

const (
	either outcome = iota
	committed
	rolledBack
	torn
)

func (o outcome) String() string { return [...]string{"either", "committed", "rolled back", "torn"}[o] }

// The modes in which a client's transaction is sent.
const (
	block     = "block"
	query     = "query"     // one Query with several statements
	pipeline  = "pipeline"  // several statements before a Sync
	single    = "single"    // writes on one shard, reads on another
	finished  = "finished"  // another router finishes what is prepared before its own does
	reference = "reference" // one statement writes a reference table, and so all shards
	move      = "move"      // an UPDATE of the shard key
	copying   = "copy"      // COPY FROM STDIN
	failing   = "failing"   // a statement fails on one shard, so the locks on the others are given up
	deadlock  = "deadlock"  // two transactions wait for each other on two shards
	role      = "role"      // a role is made, and given away, on all shards
)

// What becomes of a decision, by the router's name: see the trigger of prepare.
const (
	stands  = "killed"
	refused = "refused" // it fails on its shard, so the transaction is rolled back
	lost    = "lost"    // the connection is lost while it is written
)

// crash is one case: a router is killed at the nth use of a failpoint.
type crash struct {
	failpoint string
	nth       int
	writers   int
	mode      string
	want      outcome
	decision  string

	value int
	keys  []int // of its rows, on as many shards
	told  error // what the client was told
}

func (c *crash) String() string {
	name := fmt.Sprintf("%s %d/%d writers/%s", c.failpoint, c.nth, c.writers, c.mode)
	if c.decision != stands {
		name += "/" + c.decision
	}
	return strings.ReplaceAll(name, " ", "_")
}

// afterSend numbers the messages of a commit: those that ask, that prepare, that decides, that finish.
func afterSend(writers int) (prepare, decide, finish, end int) {
	prepare = writers
	decide = prepare + writers - 1
	finish = decide + 1
	return prepare, decide, finish, finish + writers - 1
}

func cases() []*crash {
	sizes, modes := []int{2}, []string{block}
	if *full {
		sizes, modes = []int{2, 3, 4}, []string{block, query, pipeline}
	}
	var all []*crash
	for _, writers := range sizes {
		for _, mode := range modes {
			all = append(all, commits(writers, mode)...)
		}
	}
	all = append(all, others()...)
	if *full {
		all = append(all, commits(shards, reference)...)
	}
	for i, c := range all {
		c.value = i + 1
	}
	return all
}

// commits are the steps of a commit in two phases.
func commits(writers int, mode string) []*crash {
	all := []*crash{
		{failpoint: "beforePrepare", want: rolledBack, decision: stands},
		{failpoint: "beforeDecide", want: rolledBack, decision: stands},
		{failpoint: "afterDecide", want: committed, decision: stands},
		{failpoint: "afterCommitPrepared", want: committed, decision: stands},
		{failpoint: "beforeRollback", want: rolledBack, decision: refused},
		{failpoint: "afterRollback", want: rolledBack, decision: refused},
	}
	first := 0
	if mode == pipeline { // BEGIN goes before
		first = writers
		all = append(all, &crash{failpoint: "afterAdopt", want: rolledBack, decision: stands})
	}
	_, decide, finish, end := afterSend(writers)
	for nth := range first + end {
		want := rolledBack
		switch {
		case nth == first+decide:
			want = either
		case nth >= first+finish:
			want = committed
		}
		all = append(all, &crash{failpoint: "afterSend", nth: nth, want: want, decision: stands})
	}
	for nth := first + finish; nth < first+finish+writers; nth++ { // ROLLBACK and ROLLBACK PREPARED
		all = append(all, &crash{failpoint: "afterSend", nth: nth, want: rolledBack, decision: refused})
	}
	for _, c := range all {
		c.writers, c.mode = writers, mode
	}
	return all
}

// others are steps beside those of a commit in two phases.
func others() []*crash {
	return []*crash{
		{"afterCommitOne", 0, 1, single, committed, stands, 0, nil, nil},
		{"beforeFinishOtherwise", 0, 2, finished, committed, stands, 0, nil, nil},
		{"afterFinishOtherwise", 0, 2, finished, committed, stands, 0, nil, nil},
		{"beforeFinishOtherwise", 0, 2, finished, rolledBack, refused, 0, nil, nil},
		{"beforeInquire", 0, 2, block, rolledBack, lost, 0, nil, nil},
		{"afterInquire", 0, 2, block, rolledBack, lost, 0, nil, nil},
		{"beforeMirror", 0, shards, reference, rolledBack, stands, 0, nil, nil},
		{"afterMirror", 0, shards, reference, rolledBack, stands, 0, nil, nil},
		{"afterMirror", shards - 2, shards, reference, rolledBack, stands, 0, nil, nil},
		{"beforeDecide", 0, shards, reference, rolledBack, stands, 0, nil, nil},
		{"afterDecide", 0, shards, reference, committed, stands, 0, nil, nil},
		{"afterCommitPrepared", 0, shards, reference, committed, stands, 0, nil, nil},
		{"afterTake", 0, 2, move, rolledBack, stands, 0, nil, nil},
		{"afterArrival", 0, 2, move, rolledBack, stands, 0, nil, nil},
		{"beforeDecide", 0, 2, move, rolledBack, stands, 0, nil, nil},
		{"afterDecide", 0, 2, move, committed, stands, 0, nil, nil},
		{"afterCopyEnd", 0, 3, copying, rolledBack, stands, 0, nil, nil},
		{"afterDecide", 0, 3, copying, committed, stands, 0, nil, nil},
		{"beforeAbandon", 0, 2, failing, rolledBack, stands, 0, nil, nil},
		{"afterAbandon", 0, 2, failing, rolledBack, stands, 0, nil, nil},
		{"beforeVictim", 0, 2, deadlock, rolledBack, stands, 0, nil, nil},
		{"betweenShards", 1, shards, role, rolledBack, stands, 0, nil, nil},
		{"beforeDecide", 0, shards, role, rolledBack, stands, 0, nil, nil},
		{"afterCommitPrepared", 0, shards, role, committed, stands, 0, nil, nil},
	}
}

// setUp are statements that make the rows of the case what they are before it; they run in one transaction.
func (c *crash) setUp() []string {
	switch c.mode {
	case reference:
		return []string{fmt.Sprintf("INSERT INTO country VALUES (%d, 0), (%d, 0)", 10*c.value, 10*c.value+1)}
	case move:
		return []string{fmt.Sprintf("DELETE FROM account WHERE k = %d", c.keys[1])}
	case copying:
		return []string{"DELETE FROM account WHERE k IN (" + joined(c.keys) + ")"}
	}
	return nil
}

func joined(keys []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(keys), " ", ", "), "[]")
}

// role is the name of the role that the case makes.
func (c *crash) role() string { return fmt.Sprintf("crashed%d", c.value) }

func (c *crash) update(i int) string {
	return fmt.Sprintf("UPDATE account SET v = %d WHERE k = %d", c.value, c.keys[i])
}

// send begins the client's transaction and sends what ends it; the answer to that comes later.
func (c *crash) send(t *testing.T, p *process) (answer chan error) {
	t.Helper()
	conn := p.connect()
	answer = make(chan error, 2)
	ctx, stop := context.WithCancel(context.Background())
	var asking sync.WaitGroup
	later := func(ask func() error) { asking.Go(func() { answer <- ask() }) }
	ask := func(conn *pgx.Conn, sql string) {
		later(func() error {
			_, err := conn.PgConn().Exec(ctx, sql).ReadAll()
			return err
		})
	}
	defer t.Cleanup(func() { stop(); asking.Wait() }) // before the connections are closed
	var updates []string
	for i := range c.writers {
		updates = append(updates, c.update(i))
	}
	switch c.mode {
	case block:
		run1(t, conn, "BEGIN")
		for _, sql := range updates {
			run1(t, conn, sql)
		}
		ask(conn, "COMMIT")
	case single:
		run1(t, conn, "BEGIN; "+updates[0])
		run1(t, conn, fmt.Sprintf("SELECT v FROM account WHERE k <> %d", c.keys[0]))
		ask(conn, "COMMIT")
	case query, finished:
		ask(conn, strings.Join(updates, ";"))
	case pipeline:
		batch := &pgconn.Batch{}
		for _, sql := range updates {
			batch.ExecParams(sql, nil, nil, nil, nil)
		}
		later(func() error {
			_, err := conn.PgConn().ExecBatch(ctx, batch).ReadAll()
			return err
		})
	case reference: // a row goes, one is updated, and one comes
		ask(conn, fmt.Sprintf(`WITH gone AS (DELETE FROM country WHERE k = %[1]d), changed AS (UPDATE country SET v = 1 WHERE k = %[1]d + 1)
			INSERT INTO country VALUES (%[1]d + 2, 2)`, 10*c.value))
	case move:
		ask(conn, fmt.Sprintf("UPDATE account SET k = %d, v = %d WHERE k = %d", c.keys[1], c.value, c.keys[0]))
	case copying:
		var data strings.Builder
		for _, k := range c.keys {
			fmt.Fprintf(&data, "%d\t%d\n", k, c.value)
		}
		later(func() error {
			_, err := conn.PgConn().CopyFrom(ctx, strings.NewReader(data.String()), "COPY account FROM STDIN")
			return err
		})
	case failing:
		run1(t, conn, "BEGIN; "+updates[0])
		ask(conn, fmt.Sprintf("UPDATE account SET v = %d / (v - v) WHERE k = %d", c.value, c.keys[1]))
	case role:
		ask(conn, fmt.Sprintf("CREATE ROLE %[1]s LOGIN PASSWORD 'secret'; GRANT pg_monitor TO %[1]s", c.role()))
	case deadlock:
		other := p.connect()
		run1(t, conn, "BEGIN; "+updates[0])
		run1(t, other, "BEGIN; "+updates[1])
		ask(conn, updates[1])
		ask(other, updates[0])
	}
	return answer
}

// truth asks the shards themselves.
func (c *crash) truth(t *testing.T) outcome {
	t.Helper()
	was, is, all := 0, 0, len(c.keys)
	switch c.mode {
	case role:
		all = shards
		is = count(t, "SELECT count(*) FROM pg_auth_members WHERE member::regrole::text = $1", c.role())
		was = all - count(t, "SELECT count(*) FROM pg_roles WHERE rolname = $1", c.role())
	case reference:
		all = shards
		const state = "SELECT coalesce(string_agg(k %% 10 || ':' || v, ' ' ORDER BY k), '') FROM country WHERE k / 10 = %d"
		onShards(t, func(_ int, conn *pgx.Conn) {
			switch texts(t, conn, fmt.Sprintf(state, c.value)) {
			case "0:0 1:0":
				was++
			case "1:1 2:2":
				is++
			}
		})
	default:
		is = count(t, "SELECT count(*) FROM account WHERE v = $1 AND k = ANY ($2)", c.value, c.keys)
		was = count(t, "SELECT count(*) FROM account WHERE v = 0 AND k = ANY ($1)", c.keys)
		switch c.mode {
		case move: // one row, here or there
			all = 1
		case copying: // there were none
			was = all - is
			if is > 0 {
				was = 0
			}
		}
	}
	switch {
	case is == all && was == 0:
		return committed
	case was == all && is == 0:
		return rolledBack
	}
	t.Errorf("on %d of %d places is what was before, on %d what comes after", was, all, is)
	return torn
}
