package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/internal/history"
)

const (
	lists       = 2000 // there are so many
	activeLists = 6    // and so many in use at a time
	listLength  = 40   // appends after which the next ones are taken
)

// recorder is what the clients of the lists did and saw.
type recorder struct {
	bed *bed
	errorLog
	home map[int]int // the shard of each list

	mu           sync.Mutex
	next         int // value to append
	transactions []history.Transaction
}

// TestHistories: random transactions append to lists and read them, while everything fails that can; what they
// saw must be what READ COMMITTED and REPEATABLE READ promise.
func TestHistories(t *testing.T) {
	random := seeded(t)
	r := &recorder{bed: newBed(t), errorLog: newErrorLog(t), home: map[int]int{}}
	r.open()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var work sync.WaitGroup
	for i := range clients {
		own := rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		work.Go(func() { r.client(ctx, i, own) })
	}
	r.bed.runNemeses(t, random, *duration/3)
	if err := r.bed.heal(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.bed.calm(t)
	stop()
	work.Wait()
	r.check()
}

func (r *recorder) open() {
	conn := r.bed.connect(r.t, 0)
	for _, sql := range []string{
		"CREATE TABLE lists (k int PRIMARY KEY, v int[] NOT NULL DEFAULT '{}')", "SHARD TABLE lists BY HASH (k) PARTITIONS 24",
		fmt.Sprintf("INSERT INTO lists (k) SELECT i FROM generate_series(0, %d) i", lists-1),
	} {
		if _, err := conn.Exec(r.t.Context(), sql); err != nil {
			r.t.Fatalf("%s: %v", sql, err)
		}
	}
	for shard := range shards {
		for k := range r.contents(shard) {
			r.home[k] = shard
		}
	}
}

// contents are the lists that stand on one shard.
func (r *recorder) contents(shard int) map[int][]int {
	conn, err := pgx.Connect(r.t.Context(), r.bed.cluster.ConnString(shard, "postgres"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close(r.t.Context())
	rows, err := conn.Query(r.t.Context(), "SELECT k, v FROM lists")
	if err != nil {
		r.t.Fatal(err)
	}
	found := map[int][]int{}
	var k int
	var v []int
	if _, err := pgx.ForEachRow(rows, []any{&k, &v}, func() error {
		found[k] = slices.Clone(v)
		return nil
	}); err != nil {
		r.t.Fatal(err)
	}
	return found
}

func (r *recorder) client(ctx context.Context, number int, random *rand.Rand) {
	c := &client{bed: r.bed, errors: &r.errorLog, at: number}
	defer c.close(ctx)
	for ctx.Err() == nil {
		c.with(ctx, func(ctx context.Context, conn *pgx.Conn) error { return r.transaction(ctx, conn, random) })
	}
}

// plan makes up a transaction.
func (r *recorder) plan(random *rand.Rand) history.Transaction {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := history.Transaction{Snapshot: random.IntN(2) == 0, Outcome: history.Aborted}
	first := r.next / (activeLists * listLength) * activeLists % (lists - activeLists)
	written := map[int]bool{}
	for range 1 + random.IntN(5) {
		op := history.Op{Key: first + random.IntN(activeLists)}
		if random.IntN(2) == 0 {
			r.next++
			op.Append = r.next
			written[r.home[op.Key]] = true
		}
		t.Ops = append(t.Ops, op)
	}
	t.Alone = len(written) == 1
	return t
}

func (r *recorder) transaction(ctx context.Context, conn *pgx.Conn, random *rand.Rand) error {
	t := r.plan(random)
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.transactions = append(r.transactions, t)
	}()
	begin := "BEGIN"
	if t.Snapshot {
		begin += " ISOLATION LEVEL REPEATABLE READ"
	}
	if _, err := conn.Exec(ctx, begin); err != nil {
		r.failed(ctx, "BEGIN", err)
		return err
	}
	for i := range t.Ops {
		op := &t.Ops[i]
		var err error
		if op.Append != 0 {
			_, err = conn.Exec(ctx, "UPDATE lists SET v = v || $2::int WHERE k = $1", op.Key, op.Append)
		} else {
			err = conn.QueryRow(ctx, "SELECT v FROM lists WHERE k = $1", op.Key).Scan(&op.List)
		}
		if err != nil {
			r.failed(ctx, "operation", err)
			return err
		}
	}
	f, err := commit(ctx, conn)
	switch f {
	case acknowledged:
		t.Outcome = history.Committed
	case unknown:
		t.Outcome = history.Unknown
	}
	if err != nil {
		r.failed(ctx, "COMMIT", err)
	}
	return err
}

func (r *recorder) check() {
	r.tell()
	r.bed.quiet(r.t)
	final := map[int][]int{}
	for shard := range shards {
		for k, v := range r.contents(shard) {
			if _, twice := final[k]; twice {
				r.t.Errorf("list %d stands on two shards", k)
			}
			final[k] = v
		}
	}
	count := map[history.Outcome]int{}
	several := 0
	for i := range r.transactions {
		count[r.transactions[i].Outcome]++
		if r.transactions[i].Outcome == history.Committed && !r.transactions[i].Alone {
			several++
		}
	}
	r.t.Logf("%d transactions committed (%d of them on several shards or reading only), %d rolled back, %d unknown",
		count[history.Committed], several, count[history.Aborted], count[history.Unknown])
	if least := int(fewest * (*duration / 3).Minutes()); several < least {
		r.t.Errorf("%d are too few", several)
	}
	began := time.Now()
	for i, anomaly := range history.Check(r.transactions, final) {
		if i == 10 {
			break
		}
		r.t.Error(anomaly)
	}
	r.t.Logf("checked in %s", time.Since(began).Round(time.Millisecond))
}
