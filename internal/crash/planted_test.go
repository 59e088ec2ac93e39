package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/internal/oracle"
)

// TestPlantedMistakes shows that mistakes in the way that plans are carried out are noticed: by the comparison with one
// Postgres, by the contents of the shards, or by a sum that is torn. A router without a mistake passes the same.
func TestPlantedMistakes(t *testing.T) {
	binary := buildRouter(t)
	bed, err := oracle.Start(t.Context(), oracle.Config{Routers: 1})
	must(t, err)
	defer func() { must(t, bed.Close(context.WithoutCancel(t.Context()))) }()
	planted := append([]mistake{{name: none}}, mistakes...)
	if !*full {
		planted = planted[:3]
	}
	for i, m := range planted {
		t.Run(m.name, func(t *testing.T) {
			p := startAt(t, bed.Shards.Etcd().Endpoints(), binary, fmt.Sprintf("planted-%d", i), plantedVariable+"="+m.name)
			defer p.stop()
			must(t, p.connect().Close(t.Context()))
			s := scenario{bed: bed, router: p, schema: fmt.Sprintf("planted_%d", i)}
			noticed := s.run(t)
			switch {
			case m.name == none && noticed != "":
				t.Errorf("without a mistake: %s", noticed)
			case m.name != none && noticed == "":
				t.Error("it was not noticed")
			}
			t.Log(noticed)
		})
	}
}

// none is a router without a mistake.
const none = "no mistake"

// scenario is what a router is asked, and one Postgres too.
type scenario struct {
	bed    *oracle.Bed
	router *process
	schema string
}

// statements are asked one after the other. A single shard is read right behind a commit: nobody finishes it for the reader.
var statements = []string{
	"UPDATE t SET v = v + 1",
	"UPDATE t SET v = v + 1 WHERE k < 30 RETURNING k, v",
	"DELETE FROM t WHERE k > 55 RETURNING k",
	"INSERT INTO t VALUES (2001, 1), (2002, 2), (2003, 3), (2004, 4), (2005, 5), (2006, 6) RETURNING k",
	"BEGIN", "UPDATE t SET v = 300 WHERE k IN (3, 4, 5, 6, 7, 8)", "COMMIT",
	"SELECT v FROM t WHERE k = 3", "SELECT v FROM t WHERE k = 4", "SELECT v FROM t WHERE k = 5",
	"SELECT v FROM t WHERE k = 6", "SELECT v FROM t WHERE k = 7", "SELECT v FROM t WHERE k = 8",
	"BEGIN", "UPDATE t SET v = 100 WHERE k = 1", "SAVEPOINT a", "UPDATE t SET v = 200", "ROLLBACK TO a", "SELECT * FROM t", "COMMIT", "SELECT * FROM t",
	"BEGIN", "SAVEPOINT a", "UPDATE t SET v = 7 WHERE k = 1", "SAVEPOINT b", "UPDATE t SET v = 8 WHERE k < 9", "ROLLBACK TO b", "RELEASE a", "COMMIT", "SELECT * FROM t",
	"BEGIN", "UPDATE t SET v = 9 WHERE k < 9", "ROLLBACK", "SELECT * FROM t",
	"UPDATE t SET v = 1 / (k - 7)", "SELECT * FROM t",
	"UPDATE t SET k = 1001 WHERE k = 1 RETURNING *", "UPDATE t SET k = 1002 WHERE k = 2", "UPDATE t SET k = 1004 WHERE k = 4 RETURNING *", "SELECT * FROM t",
	"INSERT INTO r VALUES (10, 1)", "UPDATE r SET v = v + 1 WHERE k > 2", "DELETE FROM r WHERE k = 1", "SELECT t.k, r.v FROM t JOIN r ON r.k = t.k % 11",
}

// run returns what was noticed, "" if nothing was.
func (s *scenario) run(t *testing.T) string {
	t.Helper()
	ctx := t.Context()
	right, err := s.bed.NewSession(ctx, database)
	must(t, err)
	defer right.Close(ctx)
	must(t, right.EnterSchema(ctx, s.schema))
	for _, sql := range []string{
		"CREATE TABLE t (k int PRIMARY KEY, v int NOT NULL)", "CREATE TABLE r (k int PRIMARY KEY, v int NOT NULL)",
	} {
		must(t, right.Both(ctx, sql))
	}
	must(t, right.Cluster(ctx, "SHARD TABLE t BY HASH (k) PARTITIONS 12"))
	must(t, right.Cluster(ctx, "SHARD TABLE r AS REFERENCE"))
	must(t, right.Both(ctx, "INSERT INTO t SELECT i, 0 FROM generate_series(1, 60) i"))
	must(t, right.Both(ctx, "INSERT INTO r SELECT i, 0 FROM generate_series(1, 5) i"))
	asked, err := s.bed.NewSessionWith(ctx, database, url(s.router.listen))
	must(t, err)
	defer asked.Close(ctx)
	if err := asked.EnterSchema(ctx, s.schema); err != nil {
		return err.Error()
	}
	for _, sql := range statements {
		verdict, err := asked.Ask(ctx, oracle.Statement{SQL: sql, AnyMessage: true}, oracle.Simple)
		if err != nil {
			return fmt.Sprintf("%s: %v", sql, err)
		}
		if verdict.Difference != "" || verdict.Refused != "" {
			return fmt.Sprintf("%s: %s", sql, verdict)
		}
	}
	if noticed := s.copyRows(t); noticed != "" {
		return noticed
	}
	if err := s.bed.CompareContents(ctx, database, s.schema); err != nil {
		return err.Error()
	}
	return s.bank(t)
}

// copyRows copies rows in on both sides.
func (s *scenario) copyRows(t *testing.T) string {
	t.Helper()
	var data strings.Builder
	for k := range 12 {
		fmt.Fprintf(&data, "%d\t0\n", 3001+k)
	}
	for _, server := range []string{s.bed.Plain.ConnString(0, database), url(s.router.listen)} {
		conn, err := pgx.Connect(t.Context(), server)
		must(t, err)
		tag, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader(data.String()), "COPY "+s.schema+".t FROM STDIN")
		must(t, conn.Close(t.Context()))
		if err != nil || tag.RowsAffected() != 12 {
			return fmt.Sprintf("COPY: %s, %v", tag, err)
		}
	}
	return ""
}

// bankTime is how long money is moved at most: in the short form no mistake that only this shows is looked for.
func bankTime() time.Duration {
	if *full {
		return 15 * time.Second
	}
	return time.Second
}

// bank moves money between rows, and reads the sum meanwhile.
func (s *scenario) bank(t *testing.T) string {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), bankTime())
	defer stop()
	var noticed atomic.Pointer[string]
	var work sync.WaitGroup
	notice := func(what string) {
		noticed.CompareAndSwap(nil, &what)
		stop()
	}
	client := func(do func(conn *pgx.Conn) error) {
		work.Go(func() {
			conn, err := pgx.Connect(t.Context(), url(s.router.listen))
			if err != nil {
				notice(err.Error())
				return
			}
			defer conn.Close(context.WithoutCancel(ctx))
			for ctx.Err() == nil {
				if err := do(conn); err != nil && ctx.Err() == nil {
					notice(err.Error())
				}
			}
		})
	}
	for i := range 4 {
		random := rand.New(rand.NewPCG(uint64(i), 0))
		client(func(conn *pgx.Conn) error {
			a, b := random.IntN(12), random.IntN(12)
			if a > b { // in one order, so that there is no deadlock
				a, b = b, a
			}
			_, err := conn.PgConn().Exec(ctx, fmt.Sprintf(`BEGIN; UPDATE %[1]s.t SET v = v - 1 WHERE k = %[2]d; UPDATE %[1]s.t SET v = v + 1 WHERE k = %[3]d; COMMIT`,
				s.schema, 3001+a, 3001+b)).ReadAll()
			return err
		})
	}
	for range 2 {
		client(func(conn *pgx.Conn) error {
			rows, err := conn.Query(ctx, "SELECT v FROM "+s.schema+".t WHERE k BETWEEN 3001 AND 3012")
			if err != nil {
				return err
			}
			v, sum := 0, 0
			_, err = pgx.ForEachRow(rows, []any{&v}, func() error { sum += v; return nil })
			if err == nil && sum != 0 {
				err = fmt.Errorf("the sum is %d", sum)
			}
			return err
		})
	}
	work.Wait()
	if what := noticed.Load(); what != nil {
		return *what
	}
	return ""
}
