package schema

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/router/pgerr"
)

// steps runs a statement once to learn the names of its steps.
func steps(t *testing.T, p *Performer, statement func() error) []string {
	t.Helper()
	var names []string
	p.step = func(name string) error { names = append(names, name); return nil }
	defer func() { p.step = nil }()
	if err := statement(); err != nil {
		t.Fatal(explain(err))
	}
	return names
}

// crashAt runs a statement on a router that dies at a step, then lets another router recover.
func (b *bench) crashAt(step string, statement func(p *Performer) error) {
	b.t.Helper()
	victim := b.performer("victim")
	victim.step = func(name string) error {
		if name == step {
			return errCrash
		}
		return nil
	}
	if err := statement(victim); !errors.Is(err, errCrash) {
		b.t.Fatalf("at %s: %v", step, err)
	}
	if err := b.p.Recover(b.t.Context(), b.database); err != nil {
		b.t.Fatalf("recover from %s: %v", step, err)
	}
	b.settled()
}

func TestCrashOfShardTable(t *testing.T) {
	for _, statement := range []string{"SHARD TABLE t BY HASH (id)", "SHARD TABLE t ON s3"} {
		b := newBench(t)
		b.exec(b.home(), "CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE t (id int PRIMARY KEY, m mood)")
		shard := func(p *Performer) error { _, err := b.sharding(p, statement); return err }
		names := steps(t, b.p, func() error { return shard(b.p) })
		if len(names) < 6 {
			t.Fatalf("steps are %v", names)
		}
		b.must("UNSHARD TABLE t")
		for shard := 1; shard < 3; shard++ {
			b.exec(b.connect(shard, b.database), "DROP TYPE IF EXISTS mood")
		}
		for _, step := range names {
			b.crashAt(step, shard)
			decided := step == "commit" || step == "clear"
			if decided != b.load().AnythingSharded() {
				t.Errorf("after a crash at %s of %s: map has %+v", step, statement, b.load().Tables)
			}
			onThird := b.definitionOn(2, "t") != nil
			if onThird != decided {
				t.Errorf("after a crash at %s of %s: shard 2 has the table: %v", step, statement, onThird)
			}
			if decided {
				b.must("UNSHARD TABLE t")
			}
		}
		if err := shard(b.p); err != nil {
			t.Errorf("after all crashes: %s", explain(err))
		}
		b.settled()
	}
}

// TestCrashOfDDL: a router dies at every step of a client's transaction; when what it left prepared is resolved, the
// hold ends as the shards say.
func TestCrashOfDDL(t *testing.T) {
	b := newBench(t)
	b.exec(b.home(), "CREATE TABLE t (id int PRIMARY KEY)")
	b.must("SHARD TABLE t BY HASH (id)")
	victim := func(p *Performer, c *client, i int) error {
		if err := c.run("ALTER TABLE", fmt.Sprintf("ALTER TABLE t ADD COLUMN c%d int", i), "t"); err != nil {
			return err
		}
		if err := c.run("ALTER TABLE", fmt.Sprintf("ALTER TABLE t RENAME TO t%d", i), "t"); err != nil {
			return err
		}
		return c.commit()
	}
	names := steps(t, b.p, func() error { return victim(b.p, b.begin(b.p, "postgres"), 0) })
	b.mustDDL("ALTER TABLE", "ALTER TABLE t0 RENAME TO t", "t0")
	if len(names) < 8 {
		t.Fatalf("steps are %v", names)
	}
	for i, step := range names {
		i++
		before := len(b.alike("t", 0, 1, 2).Columns)
		p := b.performer("victim")
		seen := 0
		p.step = func(name string) error {
			if name == step {
				if seen++; seen > strings.Count(strings.Join(names[:i-1], "|")+"|", step+"|") {
					return errCrash
				}
			}
			return nil
		}
		c := b.begin(p, "postgres")
		if err := victim(p, c, i); !errors.Is(err, errCrash) && step != "conclude" {
			t.Fatalf("at %s: %v", step, err)
		}
		recovered := func() {
			t.Helper()
			if err := b.p.Recover(t.Context(), b.database); err != nil {
				t.Fatalf("recover from %s: %v", step, err)
			}
		}
		recovered()
		committed := strings.HasPrefix(step, "COMMIT") || step == "conclude"
		if strings.HasPrefix(step, "PREPARE") || strings.HasPrefix(step, "COMMIT") && step != names[len(names)-2] {
			if table, ok := b.load().Table(directory.TableName{Schema: "public", Name: "t"}); !ok || table.Hold == nil {
				t.Errorf("the hold ended at %s with a part in doubt", step)
			}
		}
		c.resolve(map[bool]string{true: "COMMIT", false: "ROLLBACK"}[committed])
		recovered()
		b.settled()
		name := "t"
		if committed {
			name = fmt.Sprintf("t%d", i)
		}
		if _, ok := b.load().Table(directory.TableName{Schema: "public", Name: name}); !ok {
			t.Fatalf("after a crash at %s the map has %+v", step, b.load().Tables)
		}
		after := len(b.alike(name, 0, 1, 2).Columns)
		if committed != (after == before+1) {
			t.Errorf("after a crash at %s there are %d columns, before %d", step, after, before)
		}
		if committed {
			b.mustDDL("ALTER TABLE", "ALTER TABLE "+name+" RENAME TO t", name)
		}
	}
}

// TestGivenUpTransactionCannotCommit: a router that was taken for dead must not commit what it held.
func TestGivenUpTransactionCannotCommit(t *testing.T) {
	b := newBench(t)
	b.exec(b.home(), "CREATE TABLE t (id int PRIMARY KEY)")
	b.must("SHARD TABLE t BY HASH (id)")
	slow := b.performer("slow")
	c := b.begin(slow, "postgres")
	if err := c.run("ALTER TABLE", "ALTER TABLE t ADD COLUMN c int", "t"); err != nil {
		t.Fatal(explain(err))
	}
	if err := b.p.Recover(t.Context(), b.database); err != nil {
		t.Fatal(err)
	}
	if err := c.commit(); pgerr.Of(err).Code != pgerr.StaleMap {
		t.Errorf("the slow router got %v", err)
	}
	b.settled()
	if len(b.alike("t", 0, 1, 2).Columns) != 1 {
		t.Error("the slow router's change is there")
	}
}

// TestErrorsAreUndone: an error at a step, without a crash, leaves nothing behind and nothing to recover.
func TestErrorsAreUndone(t *testing.T) {
	b := newBench(t)
	b.exec(b.home(), "CREATE TABLE t (id int PRIMARY KEY)")
	b.exec(b.connect(0, "postgres"), "SELECT 1")
	failed := errors.New("failed")
	for _, step := range []string{"lock", "create s2", "prepare s2", "prepare s3", "decide"} {
		b.p.step = func(name string) error {
			if name == step {
				return failed
			}
			return nil
		}
		if _, err := b.sharding(b.p, "SHARD TABLE t BY HASH (id)"); !errors.Is(err, failed) {
			t.Errorf("at %s: %v", step, err)
		}
		b.settled()
		if b.load().AnythingSharded() || b.definitionOn(1, "t") != nil {
			t.Errorf("after an error at %s something is left", step)
		}
	}
	b.p.step = nil
	b.must("SHARD TABLE t BY HASH (id)")
}

// TestSlowOwnerCannotDecide: a router that was taken for dead while it worked must not decide afterwards.
func TestSlowOwnerCannotDecide(t *testing.T) {
	b := newBench(t)
	b.exec(b.home(), "CREATE TABLE t (id int PRIMARY KEY)")
	slow := b.performer("slow")
	slow.step = func(name string) error {
		if name == "decide" {
			return b.p.Recover(t.Context(), b.database)
		}
		return nil
	}
	if _, err := b.sharding(slow, "SHARD TABLE t BY HASH (id)"); !errors.Is(err, directory.ErrNotHeld) {
		t.Errorf("the slow router got %v", err)
	}
	b.settled()
	if b.load().AnythingSharded() || b.definitionOn(1, "t") != nil {
		t.Error("the slow router's change is there")
	}
}

func TestOpenTransactionIsWaitedForABoundedTime(t *testing.T) {
	b := newBench(t)
	home := b.home()
	b.exec(home, "CREATE TABLE t (id int PRIMARY KEY)")
	b.exec(home, "BEGIN; SELECT * FROM t")
	_, err := b.sharding(b.p, "SHARD TABLE t BY HASH (id)")
	if e := pgerr.Of(err); e.Code != "55P03" || e.Hint == "" {
		t.Errorf("got %v", err)
	}
	b.settled()
	b.exec(home, "COMMIT")
	b.must("SHARD TABLE t BY HASH (id)")
}

// writer stands for a router: it inserts where its map says, waits for holds, and acknowledges an epoch when
// nothing that it planned before is in flight.
type writer struct {
	b    *bench
	mu   sync.RWMutex // held for reading by each statement: the acknowledgement takes it for writing
	m    *directory.Map
	done []int
}

func (w *writer) follow(ctx context.Context, name string) error {
	member, err := w.b.store.Register(ctx, routerInfo(name))
	if err != nil {
		return err
	}
	defer func() { _ = member.Close(context.WithoutCancel(ctx)) }()
	for ctx.Err() == nil {
		m, err := w.b.store.LoadMap(ctx, w.b.database)
		if err == nil {
			w.mu.Lock() // waits for the statements in flight
			w.m = m
			w.mu.Unlock()
			member.Acknowledge(w.b.database, m.Epoch)
		}
		if etcd.Pause(ctx, 5*time.Millisecond) != nil {
			break
		}
	}
	return nil
}

func (w *writer) insert(ctx context.Context, id int, conns []*pgx.Conn) error {
	for {
		w.mu.RLock()
		table, ok := w.m.Table(directory.TableName{Schema: "public", Name: "t"})
		if !ok || table.Hold == nil {
			break
		}
		w.mu.RUnlock()
		if err := etcd.Pause(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
	defer w.mu.RUnlock()
	shard := 0
	if table, ok := w.m.Table(directory.TableName{Schema: "public", Name: "t"}); ok {
		key, err := directory.IntValue(directory.Int4, int64(id))
		if err != nil {
			return err
		}
		group, _ := w.m.Group(table.Group)
		part, _ := group.Locate([]directory.Value{key}, nil)
		for i := range w.m.Shards {
			if w.m.Shards[i].ID == group.Partitions[part].Shard {
				shard = i
			}
		}
	}
	if _, err := conns[shard].Exec(ctx, "INSERT INTO t (id) VALUES ($1)", id); err != nil {
		return err
	}
	w.done = append(w.done, id)
	return nil
}

// TestStatementsInFlightAreWaitedFor: a statement that a router planned before the hold reaches the home shard
// late. The table must not be looked at before.
func TestStatementsInFlightAreWaitedFor(t *testing.T) {
	b := newBench(t)
	home := b.home()
	b.exec(home, "CREATE TABLE t (id int PRIMARY KEY)")
	b.must0()
	ctx, stop := context.WithCancel(t.Context())
	w := &writer{b: b, m: b.load()}
	var group sync.WaitGroup
	group.Go(func() {
		if err := w.follow(ctx, "late"); err != nil && ctx.Err() == nil {
			t.Errorf("follow: %v", err)
		}
	})
	defer func() { stop(); group.Wait() }()
	for deadline := time.Now().Add(10 * time.Second); ; { // until the router is registered
		if routers, err := b.store.Routers(ctx); err == nil && len(routers) == 1 && len(routers[0].Acknowledged) == 1 {
			break
		}
		if etcd.Pause(ctx, 10*time.Millisecond) != nil || time.Now().After(deadline) {
			t.Fatal("the router did not register")
		}
	}
	w.mu.RLock() // planned: on the home shard
	looked := make(chan struct{})
	b.p.step = func(name string) error {
		if name == "lock" {
			close(looked)
		}
		return nil
	}
	outcome := make(chan error, 1)
	group.Go(func() { _, err := b.sharding(b.p, "SHARD TABLE t BY HASH (id)"); outcome <- err })
	select {
	case <-looked:
		t.Error("a statement was in flight when the table was looked at")
	case err := <-outcome:
		t.Errorf("ended early: %v", err)
	case <-time.After(700 * time.Millisecond):
	}
	b.exec(home, "INSERT INTO t VALUES (1)")
	w.mu.RUnlock()
	if err := <-outcome; err == nil || !strings.Contains(err.Error(), "has rows") {
		t.Errorf("the late row was overlooked: %v", err)
	}
	b.settled()
}

// TestConcurrentWriters: two routers insert and truncate nothing; a third one shards the table, which is
// empty at that moment, and adds a column. Every acknowledged row is where the map says.
func TestConcurrentWriters(t *testing.T) {
	b := newBench(t)
	b.exec(b.home(), "CREATE TABLE t (id int PRIMARY KEY)")
	b.must0()
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	writers := []*writer{{b: b, m: b.load()}, {b: b, m: b.load()}}
	sharded := make(chan struct{})
	for i, w := range writers {
		conns := []*pgx.Conn{b.home()}
		for shard := 1; shard < 3; shard++ {
			conns = append(conns, b.connect(shard, b.database))
		}
		group.Go(func() {
			if err := w.follow(ctx, fmt.Sprintf("writer%d", i)); err != nil && ctx.Err() == nil {
				t.Errorf("follow: %v", err)
			}
		})
		group.Go(func() {
			for id := i; ctx.Err() == nil; id += 2 {
				if err := w.insert(ctx, id, conns); err != nil && ctx.Err() == nil {
					t.Errorf("insert %d: %v", id, err)
					return
				}
				select {
				case <-sharded:
				default: // until the table is sharded it is to be empty again and again
					_, _ = conns[0].Exec(ctx, "DELETE FROM t WHERE id = $1", id)
					w.done = w.done[:0]
				}
			}
		})
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		_, err := b.sharding(b.p, "SHARD TABLE t BY HASH (id) PARTITIONS 8")
		if err == nil {
			break
		}
		if e := pgerr.Of(err); !strings.Contains(e.Message, "has rows") || time.Now().After(deadline) {
			t.Fatal(explain(err))
		}
	}
	close(sharded)
	b.mustDDL("ALTER TABLE", "ALTER TABLE t ADD COLUMN note text DEFAULT 'x'", "t")
	for want := len(b.rows()) + 200; len(b.rows()) < want && time.Now().Before(deadline) && !t.Failed(); {
		_ = etcd.Pause(ctx, 20*time.Millisecond)
	}
	stop()
	group.Wait()
	rows := b.rows()
	g := b.load().Groups[0]
	for _, w := range writers {
		for _, id := range w.done {
			key, _ := directory.IntValue(directory.Int4, int64(id))
			part, _ := g.Locate([]directory.Value{key}, nil)
			if got := rows[id]; got != g.Partitions[part].Shard {
				t.Errorf("row %d is on shard %q, not %q", id, got, g.Partitions[part].Shard)
			}
		}
	}
	b.settled()
}

// rows are the shards of all rows of t.
func (b *bench) rows() map[int]directory.ShardID {
	b.t.Helper()
	all := make(map[int]directory.ShardID)
	for i, shard := range cluster.Shards() {
		rows, err := b.connect(i, b.database).Query(b.t.Context(), "SELECT id FROM t")
		if err != nil {
			b.t.Fatal(err)
		}
		var id int
		if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { all[id] = shard.ID; return nil }); err != nil {
			b.t.Fatal(err)
		}
	}
	return all
}
