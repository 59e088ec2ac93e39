package schema

import (
	"errors"
	"testing"

	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/router/pgerr"
)

// TestDropDatabaseRecovered: a router dies at each step of DROP DATABASE. Before the decision the database is as it was,
// afterwards it goes.
func TestDropDatabaseRecovered(t *testing.T) {
	for _, c := range []struct {
		step string
		gone bool
	}{{"vacated", false}, {"closed s2", false}, {"decide", false}, {"drop s2", true}, {"drop s3", true}, {"drop s1", true}} {
		t.Run(c.step, func(t *testing.T) {
			b := newBench(t)
			home := b.home()
			b.exec(home, "CREATE TABLE t (id int PRIMARY KEY)")
			b.must("SHARD TABLE t BY HASH (id)")
			_ = home.Close(t.Context())
			dying := b.performer("dying")
			dying.step = func(name string) error {
				if name == c.step {
					return errCrash
				}
				return nil
			}
			if err := dying.DropDatabase(t.Context(), b.database, false); !errors.Is(err, errCrash) {
				t.Fatalf("the router at %s got %v", c.step, err)
			}
			if _, err := b.sharding(b.p, "SHARD TABLE u BY HASH (id)"); err == nil {
				t.Error("a table was sharded meanwhile")
			}
			if err := b.p.Recover(t.Context(), b.database); err != nil {
				t.Fatal(err)
			}
			m, err := b.store.LoadMap(t.Context(), b.database)
			if c.gone {
				if !errors.Is(err, etcd.ErrNotFound) {
					t.Errorf("the map is still there: %v", err)
				}
			} else if err != nil || m.Drop != nil || !m.AnythingSharded() {
				t.Errorf("the map is %+v, %v", m, err)
			}
			for shard, s := range cluster.Shards() {
				exists, err := b.p.hasDatabase(t.Context(), &s, b.database)
				if err != nil || exists == c.gone {
					t.Errorf("on shard %d the database exists: %v, %v", shard, exists, err)
				}
				if exists && b.definitionOn(shard, "t") == nil {
					t.Errorf("shard %d has lost the table", shard)
				}
			}
			if err := b.p.Recover(t.Context(), b.database); err != nil {
				t.Errorf("recovered again: %v", err)
			}
		})
	}
}

// TestDropDatabaseInUse: sessions around the routers and prepared transactions are in the way; the database stays as it was.
func TestDropDatabaseInUse(t *testing.T) {
	b := newBench(t)
	home := b.home()
	b.exec(home, "CREATE TABLE t (id int PRIMARY KEY)")
	b.must("SHARD TABLE t BY HASH (id)")
	if err := b.p.DropDatabase(t.Context(), b.database, false); pgerr.Of(err).Code != "55006" {
		t.Errorf("with a session: %v", err)
	}
	b.exec(home, "BEGIN; CREATE TABLE u (a int); PREPARE TRANSACTION '"+b.database+"'")
	_ = home.Close(t.Context())
	for _, force := range []bool{false, true} {
		if err := b.p.DropDatabase(t.Context(), b.database, force); pgerr.Of(err).Code != "55006" {
			t.Errorf("with a prepared transaction, force %v: %v", force, err)
		}
	}
	b.exec(b.home(), "ROLLBACK PREPARED '"+b.database+"'") // it can be connected to
	if b.load().Drop != nil {
		t.Error("it is still marked")
	}
	if err := b.p.DropDatabase(t.Context(), b.database, true); err != nil { // ends the session
		t.Error(err)
	}
}
