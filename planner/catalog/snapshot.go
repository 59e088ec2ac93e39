package catalog

import (
	"cmp"
	"slices"
	"strings"

	"github.com/shardyard/shardyard/directory"
)

// Data is what a loader read; New takes it over.
type Data struct {
	Version       uint64 // the map's CatalogVersion that was current before the first row was read
	Database      string
	Home          directory.ShardID
	ServerVersion int    // server_version_num of the home shard
	Encoding      string // server_encoding
	Schemas       []Schema
	Relations     []*Relation
	Functions     []*Function
	Types         []*Type
	Operators     []Operator
	Casts         []Cast
	// ShardTypes lists the user types of every shard but the home shard.
	ShardTypes map[directory.ShardID][]ShardType
	// HomeOnly lists the user-defined objects of the home shard that some other shard does not have.
	HomeOnly []Object
	// Unread names the shards that could not be asked.
	Unread []directory.ShardID
}

// Snapshot is one database's catalog at one moment. It is immutable: everything that its methods
// return is shared and must not be changed. Safe for concurrent use.
type Snapshot struct {
	Version       uint64
	Database      string
	Home          directory.ShardID
	ServerVersion int
	Encoding      string
	// Unread names the shards whose types are unknown because they could not be asked: load again when
	// they are back.
	Unread []directory.ShardID

	schemas       map[string]*Schema
	relations     map[directory.TableName]*Relation
	relationsByID map[uint32]*Relation
	users         []*Relation // user relations by name
	functions     map[string][]*Function
	functionsByID map[uint32]*Function
	types         map[typeName]*Type
	typesByID     map[uint32]*Type
	operators     map[string][]Operator
	casts         []Cast
	shardTypes    map[directory.ShardID]*OIDMap
	homeOnly      map[Object]struct{}
	names         *nameIndex
	ambient       reach
	settingNames  []string
}

// New builds the snapshot of d and works out what functions and relations reach. d and what it
// points to belong to the snapshot from here on.
func New(d Data) *Snapshot {
	s := &Snapshot{
		Version: d.Version, Database: d.Database, Home: d.Home,
		ServerVersion: d.ServerVersion, Encoding: d.Encoding, Unread: d.Unread,
		schemas:       make(map[string]*Schema, len(d.Schemas)),
		relations:     make(map[directory.TableName]*Relation, len(d.Relations)),
		relationsByID: make(map[uint32]*Relation, len(d.Relations)),
		functions:     make(map[string][]*Function, len(d.Functions)),
		functionsByID: make(map[uint32]*Function, len(d.Functions)),
		types:         make(map[typeName]*Type, len(d.Types)),
		typesByID:     make(map[uint32]*Type, len(d.Types)),
		operators:     make(map[string][]Operator, len(d.Operators)),
		casts:         d.Casts,
		homeOnly:      make(map[Object]struct{}, len(d.HomeOnly)),
	}
	for _, o := range d.HomeOnly {
		s.homeOnly[o] = struct{}{}
	}
	for i := range d.Schemas {
		s.schemas[d.Schemas[i].Name] = &d.Schemas[i]
	}
	for _, r := range d.Relations {
		s.relations[r.Name] = r
		if r.OID != 0 { // an index that only another shard has
			s.relationsByID[r.OID] = r
		}
		if !r.System && r.Kind != KindIndex && r.Kind != KindPartitionedIndex {
			s.users = append(s.users, r)
		}
	}
	slices.SortFunc(s.users, func(a, b *Relation) int { return compareNames(a.Name, b.Name) })
	for _, f := range d.Functions {
		s.functions[f.Name] = append(s.functions[f.Name], f)
		s.functionsByID[f.OID] = f
	}
	for _, t := range d.Types {
		s.types[typeName{t.Schema, t.Name}] = t
		s.typesByID[t.OID] = t
	}
	for _, op := range d.Operators {
		s.operators[op.Name] = append(s.operators[op.Name], op)
	}
	s.linkForeignKeys()
	s.shardTypes = buildOIDMaps(d)
	s.names = s.newNameIndex()
	s.taint()
	s.collectSettingNames()
	return s
}

func (s *Snapshot) linkForeignKeys() {
	for _, r := range s.users {
		for _, fk := range r.ForeignKeys {
			if target, ok := s.relations[fk.References]; ok && !slices.Contains(target.ReferencedBy, r.Name) {
				target.ReferencedBy = append(target.ReferencedBy, r.Name)
			}
		}
	}
}

// Relation finds a relation by its qualified name.
func (s *Snapshot) Relation(name directory.TableName) (*Relation, bool) {
	r, ok := s.relations[name]
	return r, ok
}

// RelationByOID finds a relation by its OID on the home shard.
func (s *Snapshot) RelationByOID(oid uint32) (*Relation, bool) {
	r, ok := s.relationsByID[oid]
	return r, ok
}

// UserRelations returns every relation that is not Postgres's own, by schema and name.
func (s *Snapshot) UserRelations() []*Relation { return s.users }

// FunctionByOID finds a function by its OID on the home shard.
func (s *Snapshot) FunctionByOID(oid uint32) (*Function, bool) {
	f, ok := s.functionsByID[oid]
	return f, ok
}

// SchemaExists tells whether the database has a schema of that name.
func (s *Snapshot) SchemaExists(name string) bool { return s.schemas[name] != nil }

// SchemasNamed returns the schemas, other than Postgres's own, whose names stand in a text.
func (s *Snapshot) SchemasNamed(text string) []string {
	var names []string
	for name := range s.schemas {
		if !isSystemSchema(name) && containsName(text, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// UserCasts returns the casts that are not Postgres's own.
func (s *Snapshot) UserCasts() []Cast { return s.casts }

// UserOperators returns the user-defined operators of that name, in whatever schema. Where there is
// one, an expression with that operator need not mean the built-in one.
func (s *Snapshot) UserOperators(name string) []Operator { return s.operators[name] }

func compareNames(a, b directory.TableName) int {
	return cmp.Or(strings.Compare(a.Schema, b.Schema), strings.Compare(a.Name, b.Name))
}

func isSystemSchema(schema string) bool {
	return schema == "pg_catalog" || schema == "information_schema" || schema == "pg_toast"
}
