package catalog

// ObjectKind is what sort of object a statement names besides relations.
type ObjectKind byte

// The kinds of objects.
const (
	FunctionObject  ObjectKind = 'f'
	OperatorObject  ObjectKind = 'o'
	CollationObject ObjectKind = 'c'
	TypeObject      ObjectKind = 't'
)

// String is the noun of Postgres's messages.
func (k ObjectKind) String() string {
	switch k {
	case FunctionObject:
		return "function"
	case OperatorObject:
		return "operator"
	case CollationObject:
		return "collation"
	case TypeObject:
		return "type"
	}
	return "object"
}

// Object is a user-defined function, operator, collation or type.
type Object struct {
	Kind         ObjectKind
	Schema, Name string
}

type objectName struct {
	kind ObjectKind
	name string
}

// AnyHomeOnly reports whether HomeOnly is true of anything.
func (s *Snapshot) AnyHomeOnly() bool { return len(s.homeOnly) > 0 }

// HomeOnly reports whether the home shard has an object of the kind and name, in whatever schema, that some
// other shard lacks: a statement that names it can run on the home shard only.
func (s *Snapshot) HomeOnly(kind ObjectKind, name string) bool {
	_, ok := s.homeOnly[objectName{kind, name}]
	return ok
}
