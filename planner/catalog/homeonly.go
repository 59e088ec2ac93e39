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

// AnyHomeOnly reports whether HomeOnly is true of anything.
func (s *Snapshot) AnyHomeOnly() bool { return len(s.homeOnly) > 0 }

// HomeOnly reports whether the name may mean an object that the home shard has and some other shard lacks: a
// statement that names it can run on the home shard only. Without a schema the name is looked for in all of the path.
func (s *Snapshot) HomeOnly(kind ObjectKind, schema, name string, path []string) bool {
	if schema != "" {
		path = []string{schema}
	}
	for _, schema := range path {
		if _, ok := s.homeOnly[Object{kind, schema, name}]; ok {
			return true
		}
	}
	return false
}
