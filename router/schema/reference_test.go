package schema

import (
	"errors"
	"slices"
	"testing"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/migrations"
)

// joining is a server that is not a shard of the bench yet, prepared as node.AddShard does.
func (b *bench) joining() directory.Shard {
	b.t.Helper()
	added := devcluster.ForTest(b.t, devcluster.Config{Shards: 1, Settings: map[string]string{"max_prepared_transactions": "50", "fsync": "off"}})
	shard := directory.Shard{ID: "s9", State: directory.ShardActive, Primary: added.Shards()[0].Primary}
	conn, err := dialAs(b.t.Context(), shard, "postgres", "postgres")
	if err != nil {
		b.t.Fatal(err)
	}
	b.exec(conn, "CREATE DATABASE "+b.database)
	_ = conn.Close(b.t.Context())
	if conn, err = dialAs(b.t.Context(), shard, b.database, "postgres"); err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close(b.t.Context())
	if err := migrations.Apply(b.t.Context(), conn.Config()); err != nil {
		b.t.Fatal(err)
	}
	return shard
}

// count counts the rows of a table on the shard that joined; -1: it is not there.
func (b *bench) count(shard directory.Shard, table string) (n int) {
	b.t.Helper()
	conn, err := dialAs(b.t.Context(), shard, b.database, "postgres")
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close(b.t.Context())
	if err := conn.QueryRow(b.t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil && !isState(err, "42P01") {
		b.t.Fatal(err)
	} else if err != nil {
		return -1
	}
	return n
}

// TestAddShardAgain: the router dies at each step of adding a shard; what it leaves hinders nobody, and the next
// attempt succeeds, with full copies.
func TestAddShardAgain(t *testing.T) {
	b := newBench(t)
	shard := b.joining()
	b.exec(b.home(), `CREATE TABLE r (id int PRIMARY KEY); CREATE TABLE q (id int PRIMARY KEY, r int REFERENCES r);
		INSERT INTO r SELECT generate_series(1, 100); INSERT INTO q SELECT i, i FROM generate_series(1, 50) i`)
	b.must("SHARD TABLE r AS REFERENCE")
	b.must("SHARD TABLE q AS REFERENCE")
	for _, at := range []string{"hold", "decide", "commit"} {
		victim := b.performer("victim")
		victim.step = func(name string) error {
			if name == at {
				return errCrash
			}
			return nil
		}
		if err := victim.AddShard(t.Context(), b.database, shard); !errors.Is(err, errCrash) {
			t.Fatalf("%s: %v", at, err)
		}
		if err := b.p.Recover(t.Context(), b.database); err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		b.settled()
		if _, added := b.load().Shard(shard.ID); added != (at == "commit") {
			t.Errorf("%s: added: %v", at, added)
		}
		b.exec(b.home(), "INSERT INTO r SELECT max(id) + 1 FROM r")
	}
	if r, q := b.count(shard, "r"), b.count(shard, "q"); r != 102 || q != 50 {
		t.Errorf("the copies have %d and %d rows", r, q) // the last row was inserted after it was added, around the router
	}
	shown, err := b.sharding(b.p, "SHOW TABLES")
	if err != nil || len(shown.Rows) != 2 || !slices.Equal(shown.Rows[1], []string{"public", "r", "reference", "", "(id)", "", "", "s1, s2, s3, s9"}) {
		t.Errorf("SHOW TABLES: %v, %v", shown, err)
	}
	// It is not given its copies a second time: they are in use.
	b.exec(b.home(), "TRUNCATE r, q")
	if err := b.p.AddShard(t.Context(), b.database, shard); err == nil {
		t.Error("it can be added twice")
	}
	if n := b.count(shard, "r"); n != 102 {
		t.Errorf("the copy has %d rows", n)
	}
	b.settled()
}

// TestAddShardMeetsReference: while a shard is added another table becomes a reference table, and the other way round.
// Whichever comes first, the table is on all shards.
func TestAddShardMeetsReference(t *testing.T) {
	for _, first := range []string{"the shard", "the table"} {
		t.Run(first, func(t *testing.T) {
			b := newBench(t)
			shard := b.joining()
			b.exec(b.home(), "CREATE TABLE r (id int PRIMARY KEY); CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1), (2)")
			b.must("SHARD TABLE r AS REFERENCE")
			one, two := b.performer("one"), b.performer("two")
			adds := func(p *Performer) error { return p.AddShard(t.Context(), b.database, shard) }
			shards := func(p *Performer) error { _, err := b.sharding(p, "SHARD TABLE late AS REFERENCE"); return err }
			begun, meets := shards, adds
			if first == "the table" {
				begun, meets = adds, shards
			}
			met := false
			one.step = func(name string) error {
				if name != "decide" || met {
					return nil
				}
				met = true
				return meets(two)
			}
			if err := begun(one); err != nil {
				t.Fatal(err)
			}
			m := b.load()
			table, ok := m.Table(directory.TableName{Schema: "public", Name: "late"})
			if _, added := m.Shard(shard.ID); !ok || !added || table.Kind != directory.TableReference || len(m.ShardsOf(table)) != 4 {
				t.Fatalf("the map has %+v, %v", table, added)
			}
			if n := b.count(shard, "late"); n != 2 {
				t.Errorf("the copy on the new shard has %d rows", n)
			}
			b.settled()
		})
	}
}
