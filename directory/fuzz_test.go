package directory_test

import (
	"bytes"
	"testing"

	"github.com/shardyard/shardyard/directory"
)

// FuzzParseText: no text makes it panic, and what it reads is read back from its
// own text as the same value with the same hash.
func FuzzParseText(f *testing.F) {
	for typ, texts := range edges {
		for _, text := range texts {
			f.Add(uint8(typ), text)
		}
	}
	for _, text := range hostile {
		for _, typ := range directory.KeyTypes() {
			f.Add(uint8(typ), text)
		}
	}
	f.Fuzz(func(t *testing.T, typ uint8, text string) {
		v, err := directory.ParseText(directory.KeyType(typ), text)
		if err != nil {
			return
		}
		sameAfterText(t, v)
	})
}

func sameAfterText(t *testing.T, v directory.Value) {
	t.Helper()
	again, err := directory.ParseText(v.Type(), v.Text())
	if err != nil {
		t.Fatalf("%s %q: %v", v.Type(), v.Text(), err)
	}
	if directory.Compare(v, again) != 0 || again.Text() != v.Text() ||
		directory.KeyHash([]directory.Value{v}) != directory.KeyHash([]directory.Value{again}) {
		t.Fatalf("%s %q is read back as %q", v.Type(), v.Text(), again.Text())
	}
	if again.Literal() == "" {
		t.Fatalf("%s %q has no literal", v.Type(), v.Text())
	}
}

// FuzzParseBinary: no bytes make it panic, and the value survives its text; any
// coercion of it ends.
func FuzzParseBinary(f *testing.F) {
	for _, typ := range directory.KeyTypes() {
		for _, wire := range [][]byte{nil, {1}, {0, 1}, {0, 0, 0, 1}, {0, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 16), {0, 1, 0, 0, 0x40, 0, 0, 2, 0, 5}} {
			f.Add(uint8(typ), wire, uint8(directory.Numeric), int32(5<<16|2+4))
		}
	}
	f.Fuzz(func(t *testing.T, typ uint8, wire []byte, to uint8, typmod int32) {
		v, err := directory.ParseBinary(directory.KeyType(typ), wire)
		if err != nil {
			return
		}
		sameAfterText(t, v)
		coerced, err := directory.Coerce(v, directory.KeyType(to), typmod)
		if err != nil {
			return
		}
		sameAfterText(t, coerced)
		again, err := directory.Coerce(coerced, directory.KeyType(to), typmod)
		if err != nil || directory.Compare(coerced, again) != 0 {
			t.Fatalf("%q stored as %q, and that as %q (%v)", v.Text(), coerced.Text(), again.Text(), err)
		}
	})
}

// FuzzDecode: no JSON makes it panic; what it takes is a map that Encode gives back.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"format":1,"cluster":"c","database":"d","epoch":1,"catalog_version":0,"home":"s1",` +
		`"shards":[{"id":"s1","primary":{"host":"h","port":1},"state":"active"}],` +
		`"groups":[{"id":"g","method":"list","key":["int8","text"],"sub_method":"hash","sub_key":["uuid"],"partitions":[` +
		`{"name":"a","parent":"p","shard":"s1","values":[["1",null]],"default":true,"hash_from":"0000000000000000","hash_to":"ffffffffffffffff"}]},` +
		`{"id":"r","method":"range","key":["numeric"],"partitions":[{"name":"a","shard":"s1","from":[{"min":true}],"to":[{"value":"1.50"}]}]}],` +
		`"tables":[{"schema":"public","name":"t","kind":"sharded","group":"g","key":[{"name":"a","type":"int4","typmod":-1},{"name":"b","type":"varchar","typmod":9}],` +
		`"sub_key":[{"name":"u","type":"uuid"}]},{"schema":"public","name":"r","kind":"sharded","group":"r","key":[{"name":"a","type":"numeric"}]}]}`))
	f.Add([]byte(`{"format":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := directory.Decode(data)
		if err != nil {
			return
		}
		encoded := encode(t, m)
		again, err := directory.Decode(encoded)
		if err != nil {
			t.Fatalf("%s: %v", encoded, err)
		}
		if twice := encode(t, again); !bytes.Equal(encoded, twice) {
			t.Fatalf("%s is encoded again as %s", encoded, twice)
		}
	})
}
