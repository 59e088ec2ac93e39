package directory

import (
	"errors"
	"reflect"
	"testing"
)

func TestDrop(t *testing.T) {
	m, err := NewMap(Map{ClusterID: "c", Database: "app", Epoch: 7, Home: "s1", Shards: []Shard{{ID: "s1", Primary: Endpoint{Host: "h", Port: 1}, State: ShardActive}}})
	if err != nil {
		t.Fatal(err)
	}
	apply := func(on *Map, c Change) *Map {
		t.Helper()
		next, err := c.Apply(on)
		if err != nil {
			t.Fatal(err)
		}
		encoded, err := Encode(next)
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := Decode(encoded)
		if err != nil || !reflect.DeepEqual(decoded, next) {
			t.Fatalf("decoded %+v of %+v: %v", decoded, next, err)
		}
		return next
	}
	refused := func(on *Map, c Change, want error) {
		t.Helper()
		if _, err := c.Apply(on); err == nil || want != nil && !errors.Is(err, want) {
			t.Fatalf("%+v: %v, want %v", c, err, want)
		}
	}
	mine := Drop{ID: "a", Owner: "r1", Force: true}
	decided := mine
	decided.Decided = true

	refused(m, SetDrop{decided}, ErrNotHeld)
	refused(m, ClearDrop{"a"}, ErrNotHeld)
	refused(m, SetDrop{}, nil)
	marked := apply(m, SetDrop{mine})
	if marked.Epoch != 8 || *marked.Drop != mine || m.Drop != nil {
		t.Fatalf("%+v after %+v", marked, m)
	}
	name := TableName{Schema: "public", Name: "t"}
	hold := SetHold{Table: name, Hold: Hold{ID: "h", Owner: "r2", Shards: []ShardID{"s1"}}}
	refused(marked, hold, ErrHeld)
	refused(apply(m, hold), SetDrop{mine}, ErrHeld)
	refused(marked, SetDrop{Drop{ID: "b", Owner: "r2"}}, ErrHeld)
	refused(marked, ClearDrop{"b"}, ErrNotHeld)
	if apply(marked, ClearDrop{"a"}).Drop != nil {
		t.Fatal("the mark stays")
	}
	final := apply(marked, SetDrop{decided})
	refused(final, ClearDrop{"a"}, nil)
	refused(final, SetDrop{mine}, nil)
	apply(final, SetDrop{decided})
}
