package crash

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/node"
	"github.com/shardyard/shardyard/router"
	"github.com/shardyard/shardyard/router/backend"
)

var full = flag.Bool("full", false, "run every case, not only some")

const (
	shards   = 4
	database = "postgres"
)

var cluster *devcluster.Cluster

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(devcluster.Main(m, devcluster.Config{
		Shards: shards, Etcd: true, Settings: map[string]string{"fsync": "off"},
	}, &cluster))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// survivor starts a router in this process; stop ends it.
func survivor(t *testing.T, name string) (url string, stop func()) {
	t.Helper()
	running, err := node.Start(t.Context(), node.Config{
		Router:    router.Config{Name: name, Listen: "127.0.0.1:0", CancelPrefix: 1},
		Pools:     backend.Config{ServiceUser: "postgres"},
		Directory: etcd.Config{Endpoints: cluster.Etcd().Endpoints()},
		Bootstrap: cluster.Shards(),
	})
	must(t, err)
	return url4(running.Addr().String()), func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := running.Close(ctx); err != nil {
			t.Errorf("close router %s: %v", name, err)
		}
	}
}

func url4(address string) string {
	return "postgres://postgres@" + address + "/" + database + "?sslmode=disable"
}

// process is a router process with failpoints.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	listen string
	http   string
	ended  bool
}

// start starts a router whose failpoint does something at its nth use, counted from 0.
func start(t *testing.T, binary, name, failpoint string, nth int, action string) *process {
	t.Helper()
	p := &process{t: t, listen: freeAddress(t), http: freeAddress(t)}
	p.cmd = exec.Command(binary, "serve", "--name", name, "--listen", p.listen, "--etcd-endpoints", strings.Join(cluster.Etcd().Endpoints(), ","),
		"--service-user", "postgres", "--auth-method", "trust", "--log-level", "error")
	terms := "1*" + action
	if nth > 0 {
		terms = fmt.Sprintf("%d*off->%s", nth, terms)
	}
	p.cmd.Env = append(os.Environ(), "GOFAIL_HTTP="+p.http, "GOFAIL_FAILPOINTS="+failpoint+"="+terms)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, p.cmd.Start())
	t.Cleanup(p.kill)
	return p
}

// kill kills the router (-9) and waits until it is gone.
func (p *process) kill() {
	if p.ended {
		return
	}
	p.ended = true
	_ = p.cmd.Process.Kill() // it may be gone
	_ = p.cmd.Wait()         // it was killed
}

// reached waits until the failpoint has acted.
func (p *process) reached(failpoint string, nth int) {
	p.t.Helper()
	wait(p.t, "failpoint "+failpoint, func() bool {
		response, err := http.Get("http://" + p.http + "/" + failpoint + "/count")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		count, err := io.ReadAll(response.Body)
		return err == nil && string(bytes.TrimSpace(count)) == fmt.Sprint(nth+1)
	})
}

func (p *process) connect() *pgx.Conn {
	p.t.Helper()
	var conn *pgx.Conn
	wait(p.t, "the router serves", func() (ok bool) {
		var err error
		conn, err = pgx.Connect(p.t.Context(), url4(p.listen))
		return err == nil
	})
	p.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

func wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// rows are keys of the table, one on each shard, in no particular order.
var rows []int

// prepare makes a table with a row on each shard.
func prepare(t *testing.T) {
	t.Helper()
	url, stop := survivor(t, "setup")
	defer stop()
	conn, err := pgx.Connect(t.Context(), url)
	must(t, err)
	defer conn.Close(context.Background())
	exec := func(sql string) string {
		t.Helper()
		var out []string
		results, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		for _, r := range results {
			for _, row := range r.Rows {
				out = append(out, string(row[0]))
			}
		}
		return strings.Join(out, "\n")
	}
	exec("CREATE TABLE account (k int PRIMARY KEY, v int NOT NULL)")
	exec("SHARD TABLE account BY HASH (k) PARTITIONS 16")
	exec("CREATE TABLE country (k int PRIMARY KEY, v int NOT NULL)")
	exec("INSERT INTO country SELECT i, 0 FROM generate_series(1, 3) i")
	exec("SHARD TABLE country AS REFERENCE")
	seen := map[string]bool{}
	for k := 0; len(rows) < shards; k++ {
		exec(fmt.Sprintf("INSERT INTO account VALUES (%d, 0)", k))
		place, _, _ := strings.Cut(exec(fmt.Sprintf("EXPLAIN SELECT * FROM account WHERE k = %d", k)), "\n")
		if !seen[place] {
			seen[place] = true
			rows = append(rows, k)
		}
	}
}

// Expectations of a case.
type outcome int

const (
	either outcome = iota
	committed
	rolledBack
)

func (o outcome) String() string { return [...]string{"either", "committed", "rolled back"}[o] }

// crash is one case.
type crash struct {
	failpoint string
	nth       int
	writers   int
	mode      string // how the client's transaction is sent
	want      outcome
	// fails: the decision fails on its shard, so that the transaction is rolled back.
	fails bool
	// recovery, if not empty, is a failpoint at which a second router is killed, which recovers.
	recovery string
}

func (c crash) String() string {
	name := fmt.Sprintf("%s %d/%d writers/%s", c.failpoint, c.nth, c.writers, c.mode)
	if c.fails {
		name += "/fails"
	}
	if c.recovery != "" {
		name += "/" + c.recovery
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

func cases() []crash {
	var all []crash
	sizes, modes := []int{3}, []string{"block"}
	if *full {
		sizes, modes = []int{2, 3, 4}, []string{"block", "query", "pipeline"}
	}
	for _, n := range sizes {
		prepare, decide, finish, end := afterSend(n)
		for _, mode := range modes {
			all = append(all, crash{"beforePrepare", 0, n, mode, rolledBack, false, ""},
				crash{"beforeDecide", 0, n, mode, rolledBack, false, ""},
				crash{"afterDecide", 0, n, mode, committed, false, ""},
				crash{"afterCommitPrepared", 0, n, mode, committed, false, ""},
				crash{"beforeRollback", 0, n, mode, rolledBack, true, ""})
			for nth := range end {
				want := rolledBack
				switch {
				case nth == decide:
					want = either
				case nth >= finish:
					want = committed
				}
				if *full || nth >= prepare && (nth-prepare)%2 == 0 {
					all = append(all, crash{"afterSend", nth, n, mode, want, false, ""})
				}
			}
			for nth := finish; nth < finish+n+n-1 && *full; nth++ { // ROLLBACK and ROLLBACK PREPARED
				if nth < finish+n {
					all = append(all, crash{"afterSend", nth, n, mode, rolledBack, true, ""})
				}
			}
		}
		if n == sizes[0] {
			all = append(all, referenceCases()...)
		}
		for _, recovery := range []string{"recoveryBeforeFinish", "recoveryAfterFinish"} {
			all = append(all, crash{"afterDecide", 0, n, "block", committed, false, recovery},
				crash{"beforeDecide", 0, n, "block", rolledBack, false, recovery})
		}
	}
	return all
}

// reference is the mode in which one statement writes a reference table, and so all shards.
const reference = "reference"

// referenceCases are those of a statement that writes a reference table: the copies are written before the commit.
func referenceCases() []crash {
	all := []crash{
		{"beforeMirror", 0, shards, reference, rolledBack, false, ""},
		{"afterMirror", 1, shards, reference, rolledBack, false, ""},
		{"beforeDecide", 0, shards, reference, rolledBack, false, ""},
		{"afterDecide", 0, shards, reference, committed, false, ""},
	}
	if !*full {
		return all
	}
	all = append(all,
		crash{"beforePrepare", 0, shards, reference, rolledBack, false, ""},
		crash{"afterMirror", 0, shards, reference, rolledBack, false, ""},
		crash{"afterMirror", 2, shards, reference, rolledBack, false, ""},
		crash{"beforeRollback", 0, shards, reference, rolledBack, true, ""},
		crash{"afterDecide", 0, shards, reference, committed, false, "recoveryBeforeFinish"},
		crash{"afterDecide", 0, shards, reference, committed, false, "recoveryAfterFinish"},
		crash{"beforeDecide", 0, shards, reference, rolledBack, false, "recoveryAfterFinish"})
	_, decide, finish, end := afterSend(shards)
	for nth := range end {
		want := rolledBack
		switch {
		case nth == decide:
			want = either
		case nth >= finish:
			want = committed
		}
		all = append(all, crash{"afterSend", nth, shards, reference, want, false, ""})
	}
	return all
}

// TestKilledRouter: a router is killed at every step. The transaction is on all shards or on none, as the client was
// told, and nothing is left prepared soon after another router has begun.
func TestKilledRouter(t *testing.T) {
	binary := buildRouter(t)
	prepare(t)
	for i, c := range cases() {
		t.Run(c.String(), func(t *testing.T) { c.run(t, binary, i+1) })
	}
	for i, recovery := range []string{"recoveryAfterAbort", "recoveryBeforeAbort", ""} {
		if *full || i == 0 {
			t.Run("stopped/"+recovery, func(t *testing.T) { stopped(t, binary, 1<<20+i, recovery) })
		}
	}
}

func (c crash) run(t *testing.T, binary string, value int) {
	if c.fails {
		each(t, "ALTER FUNCTION shardyard.decide(text, text[]) RENAME TO away")
		defer each(t, "ALTER FUNCTION shardyard.away(text, text[]) RENAME TO decide")
	}
	p := start(t, binary, fmt.Sprintf("killed%d", value), c.failpoint, c.nth, "sleep(600000)")
	answer := c.send(t, p.connect(), value)
	p.reached(c.failpoint, c.nth)
	p.kill()
	told := <-answer
	if c.recovery != "" {
		second := start(t, binary, fmt.Sprintf("recovering%d", value), c.recovery, 0, "sleep(600000)")
		second.reached(c.recovery, 0)
		second.kill()
	}
	_, stop := survivor(t, "survivor")
	defer stop()
	began := time.Now()
	wait(t, "nothing is left prepared", func() bool { return prepared(t) == 0 })
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("recovery took %s", took)
	}
	got := truth(t, c.writers, value)
	mustBeCopies(t)
	if c.want != either && got != c.want {
		t.Errorf("the transaction is %s, want %s", got, c.want)
	}
	var reported *pgconn.PgError
	switch {
	case told == nil && got != committed:
		t.Errorf("the client was told of a commit, but the transaction is %s", got)
	case errors.As(told, &reported) && reported.Code != "08007" && got == committed:
		t.Errorf("the client was told %v, but the transaction is committed", told)
	}
}

// send runs the client's transaction, which writes on some of the shards.
func (c crash) send(t *testing.T, conn *pgx.Conn, value int) (answer chan error) {
	answer = make(chan error, 1)
	var updates []string
	for _, k := range rows[:c.writers] {
		updates = append(updates, fmt.Sprintf("UPDATE account SET v = %d WHERE k = %d", value, k))
	}
	if c.mode == "block" {
		for _, sql := range append([]string{"BEGIN"}, updates...) {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
	}
	go func() {
		ctx := context.Background()
		switch c.mode {
		case "block":
			_, err := conn.PgConn().Exec(ctx, "COMMIT").ReadAll()
			answer <- err
		case reference:
			// A row is updated, one goes, and one comes.
			_, err := conn.PgConn().Exec(ctx, fmt.Sprintf(`WITH gone AS (DELETE FROM country WHERE k > 3), changed AS (UPDATE country SET v = v + 1 WHERE k <= 3)
				INSERT INTO country VALUES (%[1]d, %[1]d)`, 10+value)).ReadAll()
			answer <- err
		case "query":
			_, err := conn.PgConn().Exec(ctx, strings.Join(updates, ";")).ReadAll()
			answer <- err
		case "pipeline":
			batch := &pgconn.Batch{}
			for _, sql := range updates {
				batch.ExecParams(sql, nil, nil, nil, nil)
			}
			_, err := conn.PgConn().ExecBatch(ctx, batch).ReadAll()
			answer <- err
		}
	}()
	return answer
}

// stopped: a router that is stopped (SIGSTOP) before it decides is not waited for, also if the router that recovers is killed
// meanwhile; when it goes on its client learns the truth.
func stopped(t *testing.T, binary string, value int, recovery string) {
	c := crash{failpoint: "beforeDecide", writers: 3, mode: "block"}
	p := start(t, binary, fmt.Sprintf("stopped%d", value), c.failpoint, 0, "sleep(2000)")
	answer := c.send(t, p.connect(), value)
	p.reached(c.failpoint, 0)
	must(t, p.cmd.Process.Signal(syscall.SIGSTOP))
	if recovery != "" {
		second := start(t, binary, fmt.Sprintf("recovering%d", value), recovery, 0, "sleep(600000)")
		second.reached(recovery, 0)
		second.kill()
	}
	_, stop := survivor(t, "survivor")
	defer stop()
	wait(t, "nothing is left prepared", func() bool { return prepared(t) == 0 })
	select {
	case err := <-answer:
		t.Fatalf("the router was not stopped: %v", err)
	default:
	}
	must(t, p.cmd.Process.Signal(syscall.SIGCONT))
	var reported *pgconn.PgError
	if err := <-answer; !errors.As(err, &reported) || reported.Code != "40001" {
		t.Errorf("COMMIT: %v", err)
	}
	if got := truth(t, c.writers, value); got != rolledBack {
		t.Errorf("the transaction is %s", got)
	}
}

// onShard calls do with a connection to each shard.
func onShard(t *testing.T, do func(conn *pgx.Conn)) {
	t.Helper()
	for i := range shards {
		conn, err := pgx.Connect(t.Context(), cluster.ConnString(i, database))
		must(t, err)
		do(conn)
		must(t, conn.Close(context.Background()))
	}
}

func each(t *testing.T, sql string) {
	t.Helper()
	onShard(t, func(conn *pgx.Conn) {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	})
}

// prepared counts what is prepared on all shards.
func prepared(t *testing.T) (n int) {
	t.Helper()
	onShard(t, func(conn *pgx.Conn) {
		var here int
		must(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_prepared_xacts").Scan(&here))
		n += here
	})
	return n
}

// mustBeCopies fails the test unless the reference table is the same on all shards, and nothing of it is left in an outbox.
func mustBeCopies(t *testing.T) {
	t.Helper()
	var first string
	onShard(t, func(conn *pgx.Conn) {
		var here string
		var left int
		must(t, conn.QueryRow(t.Context(), "SELECT (SELECT string_agg(c::text, ' ' ORDER BY k) FROM country c), (SELECT count(*) FROM shardyard.change)").Scan(&here, &left))
		if first == "" {
			first = here
		}
		if here != first || left > 0 {
			t.Errorf("the copies differ: %s and %s, and %d changes are left", first, here, left)
		}
	})
}

// truth asks the shards themselves; a transaction that is on some of its shards only fails the test.
func truth(t *testing.T, writers, value int) outcome {
	t.Helper()
	n := 0
	onShard(t, func(conn *pgx.Conn) {
		var here int
		must(t, conn.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM account WHERE v = $1) + (SELECT count(*) FROM country WHERE v = 10 + $1)", value).Scan(&here))
		n += here
	})
	switch n {
	case writers:
		return committed
	case 0:
		return rolledBack
	}
	t.Errorf("the transaction is on %d of %d shards", n, writers)
	return either
}
