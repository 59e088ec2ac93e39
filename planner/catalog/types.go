package catalog

import (
	"maps"

	"github.com/shardyard/shardyard/directory"
)

// firstInitOID is the first OID that initdb hands out itself (FirstUnpinnedObjectId): types below it
// have the same OID on every server, those above need not.
const firstInitOID = 12000

// firstUserOID is FirstNormalObjectId: objects from there on were made after initdb.
const firstUserOID = 16384

type typeName struct{ schema, name string }

// Type is one entry of pg_type.
type Type struct {
	OID          uint32 // on the home shard
	Schema, Name string
	Kind         byte // 'b' base, 'c' composite, 'd' domain, 'e' enum, 'p' pseudo, 'r' range, 'm' multirange
	Category     byte
	Elem         uint32 // element type of an array type proper, or 0
	Array        uint32 // its array type, or 0
	Base         uint32 // a domain's base type, or 0
	BaseTypmod   int32
	NotNull      bool // a domain's NOT NULL
	Relation     uint32
	Collation    uint32
	Delimiter    byte
	Attributes   []Attribute // of a composite type, dropped ones left out
	Labels       []string    // of an enum, in order
	Subtype      uint32      // of a range
	Extension    string
	Checks       []string // a domain's CHECK constraints as pg_get_constraintdef prints them
}

// Attribute is one attribute of a composite type.
type Attribute struct {
	Name   string
	Type   uint32
	Typmod int32
}

// IsArray: the type is an array type proper.
func (t *Type) IsArray() bool { return t.Elem != 0 && t.Category == 'A' }

// User: the type is not one of Postgres's fixed ones, so that its OID differs between shards.
func (t *Type) User() bool { return t.OID >= firstInitOID }

// TypeByOID finds a type by its OID on the home shard.
func (s *Snapshot) TypeByOID(oid uint32) (*Type, bool) {
	t, ok := s.typesByID[oid]
	return t, ok
}

// BaseType follows domains to the type beneath. An unknown OID is returned as it is.
func (s *Snapshot) BaseType(oid uint32) uint32 {
	for range 100 { // domains over domains end long before
		t, ok := s.typesByID[oid]
		if !ok || t.Kind != 'd' {
			return oid
		}
		oid = t.Base
	}
	return oid
}

// BinaryCarriesOIDs tells whether the binary form of a value of this type holds OIDs that differ
// between shards: arrays and composites (and domains over them) with a user type somewhere inside, and
// the reg* types. An unknown type does.
func (s *Snapshot) BinaryCarriesOIDs(oid uint32) bool { return s.carries(oid, 0) }

func (s *Snapshot) carries(oid uint32, depth int) bool {
	t, ok := s.typesByID[oid]
	if !ok || depth > 32 {
		return true
	}
	switch {
	case IsOIDAlias(oid):
		return true
	case t.Kind == 'd':
		return s.carries(t.Base, depth+1)
	case t.IsArray():
		elem, ok := s.typesByID[t.Elem]
		return !ok || elem.User() || s.carries(t.Elem, depth+1)
	case t.Kind == 'c':
		if len(t.Attributes) == 0 {
			return true
		}
		for _, attribute := range t.Attributes {
			inner, ok := s.typesByID[attribute.Type]
			if !ok || inner.User() || s.carries(attribute.Type, depth+1) {
				return true
			}
		}
		return false
	case t.Kind == 'r', t.Kind == 'm':
		if t.Subtype == 0 { // a multirange: its range's subtype is not known here
			return t.User()
		}
		return s.carries(t.Subtype, depth+1)
	case t.OID == 2249, t.OID == 2287: // record, record[]
		return true
	}
	return false
}

// IsOIDAlias tells whether values of the type are OIDs of catalog objects (regclass, regtype, …; in
// binary a bare OID, which means something else on each shard).
func IsOIDAlias(oid uint32) bool {
	switch oid {
	case 24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191:
		return true
	}
	return false
}

// ShardType is one user type as a shard knows it.
type ShardType struct {
	Schema, Name string
	OID          uint32
}

// OIDMap translates the OIDs of types between the home shard and one other shard. OIDs that are the
// same everywhere translate to themselves. Immutable; a nil map is the identity (the home shard's).
type OIDMap struct {
	toHome, toShard map[uint32]uint32
}

// ToHome translates an OID that the shard sent; false: the home shard has no such type.
func (m *OIDMap) ToHome(oid uint32) (uint32, bool) {
	if m == nil || oid < firstInitOID {
		return oid, true
	}
	home, ok := m.toHome[oid]
	return home, ok
}

// ToShard translates a home OID for the shard; false: the shard has no such type.
func (m *OIDMap) ToShard(oid uint32) (uint32, bool) {
	if m == nil || oid < firstInitOID {
		return oid, true
	}
	there, ok := m.toShard[oid]
	return there, ok
}

// Identical: no translation changes anything.
func (m *OIDMap) Identical() bool { return m == nil || maps.Equal(m.toHome, m.toShard) }

// TypeMap returns the translation for a shard: nil (the identity) for the home shard; for a shard that
// the snapshot knows nothing of, one that knows no user type.
func (s *Snapshot) TypeMap(shard directory.ShardID) *OIDMap {
	if shard == s.Home {
		return nil
	}
	if m := s.shardTypes[shard]; m != nil {
		return m
	}
	return &noTypes
}

var noTypes OIDMap

func buildOIDMaps(d Data) map[directory.ShardID]*OIDMap {
	home := make(map[typeName]uint32)
	for _, t := range d.Types {
		if t.User() {
			home[typeName{t.Schema, t.Name}] = t.OID
		}
	}
	all := make(map[directory.ShardID]*OIDMap, len(d.ShardTypes))
	for shard, types := range d.ShardTypes {
		m := &OIDMap{toHome: make(map[uint32]uint32), toShard: make(map[uint32]uint32)}
		for _, t := range types {
			if oid, ok := home[typeName{t.Schema, t.Name}]; ok {
				m.toHome[t.OID] = oid
				m.toShard[oid] = t.OID
			}
		}
		all[shard] = m
	}
	return all
}
