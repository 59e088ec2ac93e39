package directory_test

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/shardyard/shardyard/directory"
)

// takes is the model of Locate: whether a partition takes a key, by definition.
// It leaves the DEFAULT out.
func takes(g *directory.Group, p *directory.Partition, key, sub []directory.Value) bool {
	within := func(vals []directory.Value) bool {
		h := directory.KeyHash(vals)
		return p.HashFrom <= h && h <= p.HashTo
	}
	var first bool
	switch g.Method {
	case directory.MethodHash:
		return within(key)
	case directory.MethodRange:
		if slices.ContainsFunc(key, directory.Value.IsNull) {
			return false
		}
		at := make([]directory.Bound, len(key))
		for i, v := range key {
			at[i] = directory.Bound{Kind: directory.Finite, Value: v}
		}
		first = compareCut(p.From, at) <= 0 && compareCut(at, p.To) < 0
	case directory.MethodList:
		first = slices.ContainsFunc(p.Values, func(tuple []directory.Value) bool { return compareTuple(tuple, key) == 0 })
		if !first && p.Default {
			first = !slices.ContainsFunc(g.Partitions, func(other directory.Partition) bool {
				return slices.ContainsFunc(other.Values, func(tuple []directory.Value) bool { return compareTuple(tuple, key) == 0 })
			})
		}
	}
	return first && (!g.Composite() || within(sub))
}

func locateByModel(g *directory.Group, key, sub []directory.Value) (int, bool) {
	for i := range g.Partitions {
		if takes(g, &g.Partitions[i], key, sub) {
			return i, true
		}
	}
	return 0, false
}

// Bounds of long texts that begin alike, or have another column behind them, are found as by their definition.
func TestLocateAmongTextsThatBeginAlike(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := func(label string) directory.Value {
			prefix := rapid.SampledFrom([]string{"", "customer-", "customer-", "customer-12345678", "customer-123456"}).Draw(rt, "prefix")
			return mustParse(t, directory.Text, prefix+rapid.StringOfN(rapid.SampledFrom([]rune("\x01ab")), 0, 10, -1).Draw(rt, label))
		}
		columns := rapid.IntRange(1, 2).Draw(rt, "columns")
		types := []directory.KeyType{directory.Text, directory.Int4}[:columns]
		draw := func(label string) []directory.Value {
			number := mustParse(t, directory.Int4, fmt.Sprint(rapid.IntRange(-2, 2).Draw(rt, label)))
			return []directory.Value{text(label), number}[:columns]
		}
		bounds := make([][]directory.Value, rapid.IntRange(1, 12).Draw(rt, "bounds"))
		for i := range bounds {
			bounds[i] = draw("bound")
		}
		slices.SortFunc(bounds, compareTuple)
		bounds = slices.CompactFunc(bounds, func(a, b []directory.Value) bool { return compareTuple(a, b) == 0 })
		finite := func(values []directory.Value) (cut []directory.Bound) {
			for _, v := range values {
				cut = append(cut, directory.Bound{Kind: directory.Finite, Value: v})
			}
			return cut
		}
		least := slices.Repeat([]directory.Bound{{Kind: directory.MinValue}}, columns)
		greatest := slices.Repeat([]directory.Bound{{Kind: directory.MaxValue}}, columns)
		group := directory.Group{ID: "g", Method: directory.MethodRange, Key: types}
		for i := 0; i <= len(bounds); i++ {
			from, to := least, greatest
			if i > 0 {
				from = finite(bounds[i-1])
			}
			if i < len(bounds) {
				to = finite(bounds[i])
			}
			if len(bounds) > 2 && rapid.IntRange(0, 4).Draw(rt, "gap") == 0 {
				continue
			}
			group.Partitions = append(group.Partitions, directory.Partition{Name: fmt.Sprint(i), Shard: "s1", From: from, To: to})
		}
		if len(group.Partitions) == 0 {
			return
		}
		g := oneGroup(t, group)
		for range 20 {
			key := draw("key")
			if i := rapid.IntRange(0, 2*len(bounds)).Draw(rt, "hit"); i < len(bounds) {
				key = bounds[i]
			}
			part, ok := g.Locate(key, nil)
			if want, found := locateByModel(g, key, nil); ok != found || ok && part != want {
				rt.Fatalf("locate %s: %d %v, want %d %v", key[0].Literal(), part, ok, want, found)
			}
		}
	})
}

func TestLocateAgreesWithItsDefinition(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := oneGroup(t, drawGroup(rt, "g"))
		for range 20 {
			key, sub := drawTuple(rt, g.Key, true), drawTuple(rt, g.SubKey, true)
			part, ok := g.Locate(key, sub)
			want, wantOK := locateByModel(g, key, sub)
			if ok != wantOK || ok && part != want {
				rt.Fatalf("locate %v %v: %d %v, want %d %v in %+v", key, sub, part, ok, want, wantOK, g.Partitions)
			}
		}
	})
}

func drawConstraint(t *rapid.T, typ directory.KeyType) directory.Constraint {
	var c directory.Constraint
	kind := rapid.IntRange(0, 5).Draw(t, "constraint")
	if kind == 1 || kind == 5 {
		c.Values = []directory.Value{}
		for range rapid.IntRange(0, 4).Draw(t, "values") {
			c.Values = append(c.Values, drawTuple(t, []directory.KeyType{sibling(t, typ)}, true)[0])
		}
	}
	if kind == 2 || kind >= 4 {
		c.Lo, c.LoOpen = new(drawValue(t, sibling(t, typ))), rapid.Bool().Draw(t, "open")
	}
	if kind >= 3 {
		c.Hi, c.HiOpen = new(drawValue(t, sibling(t, typ))), rapid.Bool().Draw(t, "open")
	}
	return c
}

// matches is the model of a constraint.
func matches(c directory.Constraint, v directory.Value) bool {
	constrained := c.Values != nil || c.Lo != nil || c.Hi != nil
	if v.IsNull() {
		return !constrained
	}
	if c.Values != nil && !slices.ContainsFunc(c.Values, func(other directory.Value) bool {
		return !other.IsNull() && directory.Compare(v, other) == 0
	}) {
		return false
	}
	if c.Lo != nil {
		if order := directory.Compare(v, *c.Lo); order < 0 || order == 0 && c.LoOpen {
			return false
		}
	}
	if c.Hi != nil {
		if order := directory.Compare(v, *c.Hi); order > 0 || order == 0 && c.HiOpen {
			return false
		}
	}
	return true
}

// domain gives every small value of the type, and NULL.
func domain(t *rapid.T, typ directory.KeyType) []directory.Value {
	values := []directory.Value{directory.Null(typ)}
	for _, text := range smallTexts[typ] {
		v, err := directory.ParseText(typ, text)
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, v)
	}
	return values
}

// everyKey calls visit with each key of the domain that matches the constraints.
func everyKey(t *rapid.T, types []directory.KeyType, constraints []directory.Constraint, visit func([]directory.Value)) {
	if len(types) == 0 {
		visit(nil)
		return
	}
	last := len(types) - 1
	everyKey(t, types[:last], constraints[:last], func(prefix []directory.Value) {
		for _, v := range domain(t, types[last]) {
			if matches(constraints[last], v) {
				visit(append(slices.Clone(prefix), v))
			}
		}
	})
}

func TestPruneIsSound(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := drawGroup(rt, "g")
		if len(g.Key) > 2 {
			return // the domain of three columns is too big to visit
		}
		located := oneGroup(t, g)
		for range 3 {
			checkPrune(rt, located, false)
		}
	})
}

// TestPruneIsExact: of integers, where every partition that Prune gives must have a
// key that shows why; by list and range.
func TestPruneIsExact(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := directory.Group{ID: "g", Method: rapid.SampledFrom([]directory.Method{directory.MethodRange, directory.MethodList}).Draw(rt, "method")}
		g.Key = rapid.SliceOfN(rapid.Just(directory.Int4), 1, 2).Draw(rt, "types")
		if g.Method == directory.MethodRange {
			g.Partitions = drawRanges(rt, g.Key)
		} else {
			g.Partitions = drawLists(rt, g.Key)
		}
		located := oneGroup(t, g)
		for range 20 {
			checkPrune(rt, located, true)
		}
	})
}

// checkPrune compares Prune with all keys of the domain. For exactness bounds and
// constraints at the ends of the domain do not count: what lies beyond is not visited.
func checkPrune(rt *rapid.T, g *directory.Group, exact bool) {
	draw := func(types []directory.KeyType) []directory.Constraint {
		constraints := make([]directory.Constraint, len(types))
		for i, typ := range types {
			constraints[i] = drawConstraint(rt, typ)
		}
		return constraints
	}
	key, sub := draw(g.Key), draw(g.SubKey)
	got := g.Prune(key, sub)
	if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
		rt.Fatalf("prune gives %v: not ascending", got)
	}
	witness := make(map[int]bool)
	everyKey(rt, g.Key, key, func(keyValues []directory.Value) {
		subValues := make([]directory.Value, len(g.SubKey))
		for i := range subValues {
			fit := slices.DeleteFunc(domain(rt, g.SubKey[i]), func(v directory.Value) bool { return !matches(sub[i], v) })
			if len(fit) == 0 {
				return
			}
			subValues[i] = rapid.SampledFrom(fit).Draw(rt, "sub")
		}
		part, ok := g.Locate(keyValues, subValues)
		if !ok {
			return
		}
		witness[part] = true
		if !slices.Contains(got, part) {
			rt.Fatalf("prune %+v %+v gives %v without %d, where %v %v lies (%s)", key, sub, got, part, keyValues, subValues, g.Describe(part))
		}
	})
	if !exact || slices.ContainsFunc(key, atDomainEnd) {
		return
	}
	for _, part := range got {
		if !witness[part] && !beyondDomain(g, part) {
			rt.Fatalf("prune %+v gives %d %s, where no key of the domain lies", key, part, g.Describe(part))
		}
	}
}

func atDomainEnd(c directory.Constraint) bool {
	for _, bound := range []*directory.Value{c.Lo, c.Hi} {
		if bound != nil && (bound.Text() == "-7" || bound.Text() == "17") {
			return true
		}
	}
	return false
}

// beyondDomain reports whether a partition's only keys may lie outside the domain.
func beyondDomain(g *directory.Group, part int) bool {
	p := &g.Partitions[part]
	if p.Default {
		return true
	}
	for _, bounds := range [][]directory.Bound{p.From, p.To} {
		for _, b := range bounds {
			if b.Kind != directory.Finite || b.Value.Text() == "-7" || b.Value.Text() == "17" {
				return true
			}
		}
	}
	return false
}

func TestPruneByHashOfFewValuesIsExact(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := directory.Group{ID: "g", Method: directory.MethodHash, Key: drawTypes(rt, directory.MethodHash, 2)}
		located := oneGroup(t, fillGroup(rt, g))
		constraints := make([]directory.Constraint, len(g.Key))
		for i, typ := range g.Key {
			constraints[i].Values = []directory.Value{drawValue(rt, typ), drawValue(rt, typ), directory.Null(typ)}
		}
		var want []int
		everyKey(rt, g.Key, constraints, func(key []directory.Value) {
			part, _ := located.Locate(key, nil)
			want = append(want, part)
		})
		slices.Sort(want)
		want = slices.Compact(want)
		if got := located.Prune(constraints, nil); !slices.Equal(got, want) {
			rt.Fatalf("prune gives %v, want %v", got, want)
		}
	})
}

func encode(t interface{ Fatal(...any) }, m *directory.Map) []byte {
	data, err := directory.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestDecodeOfEncode(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := drawMap(rt)
		data := encode(rt, m)
		decoded, err := directory.Decode(data)
		if err != nil {
			rt.Fatalf("%s: %v", data, err)
		}
		if !reflect.DeepEqual(m, decoded) {
			rt.Fatalf("%s\nis decoded to\n%s", data, encode(rt, decoded))
		}
	})
}

func drawChange(rt *rapid.T, m *directory.Map, n int) directory.Change {
	name := directory.TableName{Schema: "public", Name: fmt.Sprintf("new%d", n)}
	if len(m.Tables) > 0 && rapid.Bool().Draw(rt, "existing") {
		name = rapid.SampledFrom(m.Tables).Draw(rt, "table").Name
	}
	shard := rapid.SampledFrom([]directory.ShardID{"s1", "s2", "s3", "s4"}).Draw(rt, "shard")
	hold := drawHold(rt)
	switch rapid.IntRange(0, 14).Draw(rt, "change") {
	case 0:
		return directory.AddShard{Shard: directory.Shard{ID: shard, Primary: directory.Endpoint{Host: "h", Port: 1}}}
	case 1:
		return directory.RemoveShard{ID: shard}
	case 2:
		return directory.UpdateShard{Shard: directory.Shard{ID: shard, Primary: directory.Endpoint{Host: "h2", Port: 1}, State: directory.ShardDraining}}
	case 3:
		g := drawGroup(rt, directory.GroupID(fmt.Sprintf("g%d", 10+n)))
		table := drawTable(rt, &g, name.Name)
		table.Name = name
		return directory.AddTable{Group: g, Table: table}
	case 4:
		if len(m.Groups) > 0 {
			table := drawTable(rt, drawnGroup(rt, m), name.Name)
			return directory.ColocateTable{Table: table}
		}
	case 5:
		return directory.PinTable{Table: name, Shard: shard, Hold: hold}
	case 6:
		return directory.DropTable{Table: name, HoldID: rapid.SampledFrom([]string{"", hold.ID}).Draw(rt, "id")}
	case 7:
		return directory.RenameTable{Table: name, To: directory.TableName{Schema: "s", Name: "r"}, HoldID: hold.ID}
	case 8:
		return directory.SetHold{Table: name, Hold: *hold}
	case 9:
		return directory.DecideHold{Table: name, ID: hold.ID}
	case 10:
		return directory.ClearHold{Table: name, ID: hold.ID}
	case 11, 12, 13:
		if len(m.Groups) > 0 {
			return drawPartitionChange(rt, drawnGroup(rt, m), shard)
		}
	}
	return directory.Batch{directory.BumpCatalog{}, directory.ClearHold{Table: name, ID: hold.ID}}
}

func drawPartitionChange(rt *rapid.T, g *directory.Group, shard directory.ShardID) directory.Change {
	p := rapid.SampledFrom(g.Partitions).Draw(rt, "partition")
	other := rapid.SampledFrom(g.Partitions).Draw(rt, "partition")
	switch rapid.IntRange(0, 2).Draw(rt, "partition change") {
	case 0:
		return directory.SetPlacement{Group: g.ID, Partition: p.Name, Shard: shard}
	case 1:
		a, b := p, p
		a.Name, b.Name = p.Name+"a", p.Name+"b"
		switch {
		case len(p.Values) > 1:
			a.Values, b.Values, b.Default = p.Values[:1], p.Values[1:], false
		case len(p.From) > 0 && !g.Composite():
			cut := []directory.Bound{}
			for _, v := range drawTuple(rt, g.Key, false) {
				cut = append(cut, directory.Bound{Kind: directory.Finite, Value: v})
			}
			a.To, b.From = cut, cut
		case p.HashTo > p.HashFrom:
			a.HashTo = p.HashFrom + (p.HashTo-p.HashFrom)/2
			b.HashFrom = a.HashTo + 1
		}
		return directory.SplitPartition{Group: g.ID, Partition: p.Name, Into: []directory.Partition{a, b}}
	}
	merged := p
	merged.Values = append(slices.Clone(p.Values), other.Values...)
	merged.Default = p.Default || other.Default
	merged.To, merged.HashTo = other.To, other.HashTo
	return directory.MergePartitions{Group: g.ID, Partitions: []string{p.Name, other.Name}, Into: merged}
}

// TestChanges: a change leaves the old map alone, and gives a map that passes
// Check, is one epoch on, and answers as a map built from scratch does.
func TestChanges(t *testing.T) {
	var applied, refused int
	rapid.Check(t, func(rt *rapid.T) {
		m := drawMap(rt)
		for n := range 12 {
			before := encode(rt, m)
			change := drawChange(rt, m, n)
			next, err := change.Apply(m)
			if !bytes.Equal(before, encode(rt, m)) {
				rt.Fatalf("%T wrote into the old map", change)
			}
			if err != nil {
				if refused++; next != nil {
					rt.Fatalf("%T: a map and %v", change, err)
				}
				continue
			}
			applied++
			if err := directory.Check(next); err != nil || next.Epoch != m.Epoch+1 {
				rt.Fatalf("%T: epoch %d after %d, %v", change, next.Epoch, m.Epoch, err)
			}
			fresh, err := directory.Decode(encode(rt, next))
			if err != nil || !reflect.DeepEqual(fresh, next) {
				rt.Fatalf("%T: not the same when built anew (%v)", change, err)
			}
			sameRows(rt, m, next, change)
			m = next
		}
	})
	if applied < 200 || refused < 100 {
		t.Errorf("%d changes applied and %d refused: the test does not bite", applied, refused)
	}
}

// sameRows checks that a split or a merge moves no row.
func sameRows(rt *rapid.T, before, after *directory.Map, change directory.Change) {
	var id directory.GroupID
	switch c := change.(type) {
	case directory.SplitPartition:
		id = c.Group
	case directory.MergePartitions:
		id = c.Group
	default:
		return
	}
	old, _ := before.Group(id)
	now, _ := after.Group(id)
	for range 30 {
		key, sub := drawTuple(rt, old.Key, true), drawTuple(rt, old.SubKey, true)
		a, okA := old.Locate(key, sub)
		b, okB := now.Locate(key, sub)
		if okA != okB || okA && old.Partitions[a].Shard != now.Partitions[b].Shard {
			rt.Fatalf("%T moved %v %v", change, key, sub)
		}
	}
}

func drawnGroup(rt *rapid.T, m *directory.Map) *directory.Group {
	return &m.Groups[rapid.IntRange(0, len(m.Groups)-1).Draw(rt, "group")]
}
