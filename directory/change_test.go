package directory_test

import (
	"errors"
	"testing"

	"github.com/shardyard/shardyard/directory"
)

func apply(t *testing.T, m *directory.Map, change directory.Change) *directory.Map {
	t.Helper()
	next, err := change.Apply(m)
	if err != nil {
		t.Fatalf("%T: %v", change, err)
	}
	return next
}

func emptyMap(t *testing.T) *directory.Map {
	t.Helper()
	m, err := directory.NewMap(directory.Map{ClusterID: "c", Database: "shop", Epoch: 1, Shards: testShards, Home: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestShardingUnderAHold walks through SHARD TABLE: hold, decide by adding the
// table under the same hold, clear.
func TestShardingUnderAHold(t *testing.T) {
	name := directory.TableName{Schema: "public", Name: "customers"}
	m := emptyMap(t)
	if m.AnythingSharded() {
		t.Error("an empty map has something sharded")
	}
	m = apply(t, m, directory.SetHold{Table: name, Hold: directory.Hold{ID: "h1", Owner: "r1"}})
	if held, ok := m.Table(name); !ok || held.Kind != directory.TablePinned || held.Shard != "s1" || !m.AnythingSharded() {
		t.Fatalf("held as %+v", held)
	}
	if _, err := (directory.SetHold{Table: name, Hold: directory.Hold{ID: "h2", Owner: "r2"}}).Apply(m); !errors.Is(err, directory.ErrHeld) {
		t.Errorf("a second hold: %v", err)
	}
	good := goodMap(t)
	table := good.Tables[0]
	if _, err := (directory.AddTable{Group: good.Groups[0], Table: table}).Apply(m); !errors.Is(err, directory.ErrHeld) {
		t.Errorf("add a held table without the hold: %v", err)
	}
	table.Hold = &directory.Hold{ID: "h1", Owner: "r1", Decided: true, Shards: []directory.ShardID{"s1", "s2"}, GIDs: []string{"a", "b"}}
	m = apply(t, m, directory.AddTable{Group: good.Groups[0], Table: table})
	if _, err := (directory.SetHold{Table: name, Hold: directory.Hold{ID: "h1", Owner: "r1"}}).Apply(m); err == nil {
		t.Error("a decided hold was undecided")
	}
	if _, err := (directory.RemoveShard{ID: "s2"}).Apply(m); err == nil {
		t.Error("a shard with partitions was removed")
	}
	catalog := m.CatalogVersion
	m = apply(t, m, directory.ClearHold{Table: name, ID: "h1"})
	if sharded, ok := m.Table(name); !ok || sharded.Kind != directory.TableSharded || sharded.Hold != nil || m.CatalogVersion != catalog+1 {
		t.Errorf("after the hold: %+v, catalog %d", sharded, m.CatalogVersion)
	}
	if m.Epoch != 4 {
		t.Errorf("epoch %d", m.Epoch)
	}
	if _, err := (directory.ClearHold{Table: name, ID: "h1"}).Apply(m); !errors.Is(err, directory.ErrNotHeld) {
		t.Errorf("cleared twice: %v", err)
	}
}

// TestHoldThatIsGivenUp leaves the map as it was.
func TestHoldThatIsGivenUp(t *testing.T) {
	name := directory.TableName{Schema: "public", Name: "customers"}
	m := apply(t, emptyMap(t), directory.SetHold{Table: name, Hold: directory.Hold{ID: "h1", Owner: "r1", Drop: true}})
	m = apply(t, m, directory.ClearHold{Table: name, ID: "h1"})
	if _, ok := m.Table(name); ok || m.AnythingSharded() || m.CatalogVersion != 0 {
		t.Error("the held table stayed in the map")
	}
}

// TestDecidedHoldActs: the drop or the rename that a hold announces happens when it
// is cleared, and only if it was decided.
func TestDecidedHoldActs(t *testing.T) {
	m, err := directory.NewMap(goodMap(t))
	if err != nil {
		t.Fatal(err)
	}
	users := directory.TableName{Schema: "public", Name: "users"}
	renamed := directory.TableName{Schema: "public", Name: "people"}
	for _, decide := range []bool{false, true} {
		next := apply(t, m, directory.SetHold{Table: users, Hold: directory.Hold{ID: "h", Owner: "r", Rename: &renamed}})
		if decide {
			next = apply(t, next, directory.DecideHold{Table: users, ID: "h"})
		}
		next = apply(t, next, directory.ClearHold{Table: users, ID: "h"})
		if _, ok := next.Table(renamed); ok != decide {
			t.Errorf("decided %v: renamed %v", decide, ok)
		}
		next = apply(t, m, directory.SetHold{Table: users, Hold: directory.Hold{ID: "h", Owner: "r", Drop: true, Decided: decide}})
		next = apply(t, next, directory.ClearHold{Table: users, ID: "h"})
		_, table := next.Table(users)
		_, group := next.Group("users")
		if table == decide || group == decide {
			t.Errorf("decided %v: table there %v, group there %v", decide, table, group)
		}
	}
}

func TestBatchIsOneEpoch(t *testing.T) {
	m, err := directory.NewMap(goodMap(t))
	if err != nil {
		t.Fatal(err)
	}
	audit := directory.TableName{Schema: "public", Name: "audit"}
	next := apply(t, m, directory.Batch{directory.DropTable{Table: audit}, directory.BumpCatalog{},
		directory.PinTable{Table: audit, Shard: "s2"}})
	if next.Epoch != m.Epoch+1 || next.CatalogVersion != m.CatalogVersion+1 {
		t.Errorf("epoch %d, catalog %d", next.Epoch, next.CatalogVersion)
	}
	if _, err := (directory.Batch{directory.BumpCatalog{}, directory.DropTable{Table: directory.TableName{Name: "none"}}}).Apply(m); !errors.Is(err, directory.ErrNoTable) {
		t.Errorf("a batch that fails: %v", err)
	}
}

// TestDrainingShardIsGivenNothing: s3 of the tests drains.
func TestDrainingShardIsGivenNothing(t *testing.T) {
	m, err := directory.NewMap(goodMap(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []directory.Change{
		directory.SetPlacement{Group: "users", Partition: "eu", Shard: "s3"},
		directory.PinTable{Table: directory.TableName{Schema: "public", Name: "x"}, Shard: "s3"},
	} {
		if _, err := change.Apply(m); err == nil {
			t.Errorf("%T gives a draining shard something", change)
		}
	}
	next := apply(t, m, directory.SetPlacement{Group: "users", Partition: "eu", Shard: "s2"})
	g, _ := next.Group("users")
	if len(g.Shards()) != 1 || g.Shards()[0] != "s2" {
		t.Errorf("users is on %v", g.Shards())
	}
	apply(t, m, directory.RemoveShard{ID: "s3"})
}

// TestReorganizeMovesNoRow: a split or a merge that would lose, win or move keys is refused.
func TestReorganizeMovesNoRow(t *testing.T) {
	m, err := directory.NewMap(goodMap(t))
	if err != nil {
		t.Fatal(err)
	}
	day := func(s string) []directory.Bound {
		return []directory.Bound{{Kind: directory.Finite, Value: mustParse(t, directory.Date, s)}}
	}
	low := []directory.Bound{{Kind: directory.MinValue}}
	country := func(s string) [][]directory.Value { return [][]directory.Value{{mustParse(t, directory.Text, s)}} }
	split := func(group directory.GroupID, partition string, into ...directory.Partition) directory.Change {
		return directory.SplitPartition{Group: group, Partition: partition, Into: into}
	}
	cases := map[string]struct {
		change directory.Change
		ok     bool
	}{
		"range": {split("events", "y25", directory.Partition{Name: "a", Shard: "s1", From: low, To: day("2025-07-01")},
			directory.Partition{Name: "b", Shard: "s1", From: day("2025-07-01"), To: day("2026-01-01")}), true},
		"range with a gap": {split("events", "y25", directory.Partition{Name: "a", Shard: "s1", From: low, To: day("2025-07-01")},
			directory.Partition{Name: "b", Shard: "s1", From: day("2025-07-02"), To: day("2026-01-01")}), false},
		"range too short": {split("events", "y25", directory.Partition{Name: "a", Shard: "s1", From: low, To: day("2025-07-01")}), false},
		"range on another shard": {split("events", "y25", directory.Partition{Name: "a", Shard: "s1", From: low, To: day("2025-07-01")},
			directory.Partition{Name: "b", Shard: "s2", From: day("2025-07-01"), To: day("2026-01-01")}), false},
		"list": {split("users", "eu", directory.Partition{Name: "a", Shard: "s1", Values: country("fr")},
			directory.Partition{Name: "b", Shard: "s1", Values: country("de")}), true},
		"list loses":     {split("users", "eu", directory.Partition{Name: "a", Shard: "s1", Values: country("fr")}), false},
		"list of others": {split("users", "eu", directory.Partition{Name: "a", Shard: "s1", Values: append(country("fr"), country("it")...)}), false},
		"default": {split("users", "other", directory.Partition{Name: "us", Shard: "s2", Values: country("us")},
			directory.Partition{Name: "rest", Shard: "s2", Default: true}), true},
		"default lost":      {split("users", "other", directory.Partition{Name: "us", Shard: "s2", Values: country("us")}), false},
		"hash with a gap":   {split("customers", "p0", directory.Partition{Name: "a", Shard: "s1", HashTo: 5}), false},
		"hash":              {split("customers", "p0", directory.Partition{Name: "a", Shard: "s1", HashTo: 5}, directory.Partition{Name: "b", Shard: "s1", HashFrom: 6, HashTo: 1<<63 - 1}), true},
		"merge over shards": {directory.MergePartitions{Group: "customers", Partitions: []string{"p0", "p1"}, Into: directory.Partition{Name: "p", Shard: "s1", HashTo: 1<<64 - 1}}, false},
		"subpartition of another parent": {split("sessions", "eu_0", directory.Partition{Name: "x", Parent: "us", Shard: "s1",
			Values: country("us"), HashTo: 1<<64 - 1}), false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if _, err := c.change.Apply(m); (err == nil) != c.ok {
				t.Errorf("%v, allowed %v", err, c.ok)
			}
		})
	}
}
