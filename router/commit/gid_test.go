package commit

import (
	"math"
	"strings"
	"testing"

	"github.com/shardyard/shardyard/directory"
)

func TestGID(t *testing.T) {
	longest := GID{
		Cluster: strings.Repeat("c", 24), Router: strings.Repeat("r", 40), Instance: strings.Repeat("i", 16),
		Number: math.MaxUint64, Agent: directory.ShardID(strings.Repeat("s", 63)), Xid: math.MaxUint64,
	}
	origin, err := NewOrigin("r1.a-b_C", "0a1b")
	if err != nil {
		t.Fatal(err)
	}
	for _, gid := range []GID{longest, {Cluster: "c", Router: "r", Instance: "1", Agent: "_"}, origin.Next("any cluster/name", "s1", 77)} {
		text := gid.String()
		if len(text) > MaxLength {
			t.Errorf("%s has %d bytes", text, len(text))
		}
		if again, ok := Parse(text); !ok || again != gid {
			t.Errorf("%s is read as %+v, %t", text, again, ok)
		}
	}
	one, two := origin.Next("c", "s1", 5), origin.Next("c", "s1", 5)
	if one == two {
		t.Errorf("two transactions are called %s", one)
	}
	if _, err := NewOrigin("a/b", "1"); err == nil {
		t.Error("a router named a/b is accepted")
	}
	if a, b := ClusterName("Ä"), ClusterName("Ö"); a == b || !plain(a, maxClusterName) || ClusterName("ABC234") != "ABC234" {
		t.Errorf("cluster names %s, %s", a, b)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		"", "shardyard", "shardyard/c/r/i/1/s1", "shardyard/c/r/i/1/s1/5/6", "other/c/r/i/1/s1/5", "shardyard/c/r/i/01/s1/5",
		"shardyard/c/r/i/1/S1/5", "shardyard/c/r/i/1/s1/+5", "shardyard/c/r/i/1/s1/05", "shardyard//r/i/1/s1/5",
		"shardyard/c/r'/i/1/s1/5", "shardyard/c/r/i/1/s1/99999999999999999999999", "shardyard/c/r/i/A/s1/5",
		"shardyard/" + strings.Repeat("c", 190) + "/r/i/1/s1/5",
	} {
		if gid, ok := Parse(text); ok {
			t.Errorf("%q is read as %+v", text, gid)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("shardyard/c/r1/0a/1z/s1/123")
	f.Add("shardyard/c/r1/0a/1z/s1/18446744073709551615")
	f.Fuzz(func(t *testing.T, text string) {
		gid, ok := Parse(text)
		if ok && gid.String() != text {
			t.Errorf("%q is read as %q", text, gid)
		}
		if ok && strings.ContainsAny(text, `'\" `) {
			t.Errorf("%q cannot stand in a literal", text)
		}
	})
}
