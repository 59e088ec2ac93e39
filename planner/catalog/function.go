package catalog

// Volatility is pg_proc.provolatile.
type Volatility byte

// The volatilities of Postgres.
const (
	Immutable Volatility = 'i'
	Stable    Volatility = 's'
	Volatile  Volatility = 'v'
)

// Function is one entry of pg_proc. Functions of pg_catalog carry what resolution and volatility
// need, and no source.
type Function struct {
	OID             uint32 // on the home shard
	Schema, Name    string
	Kind            byte // 'f' function, 'a' aggregate, 'w' window function, 'p' procedure
	Language        string
	Volatility      Volatility
	Strict          bool
	ReturnsSet      bool
	SecurityDefiner bool
	ArgTypes        []uint32 // input arguments
	Variadic        uint32   // element type of a VARIADIC last argument, or 0
	Defaults        int      // how many trailing arguments have a default
	ReturnType      uint32
	Extension       string // the extension it belongs to, or ""

	// Source is the body of a user function (pg_get_functiondef for those in SQL standard form).
	Source string
	// Arguments as pg_get_function_identity_arguments prints them; user functions only.
	Arguments string

	// Path is the search path that the function sets for itself (SET search_path), nil if it sets none, or one that is not read.
	Path []string

	// Reach is what a call may touch. Filled by New.
	Reach
	// Opaque: it may reach anything (dynamic SQL, a language that we do not read, a built-in that
	// takes SQL or a table's name as a value). Filled by New.
	Opaque bool
	// Sets: it, or what it may call, may change settings of the session (set_config, SET). Filled by New.
	Sets bool
}

// Builtin: the function is one of Postgres's own.
func (f *Function) Builtin() bool { return isSystemSchema(f.Schema) }

// Operator is one user-defined operator (those of pg_catalog are known by table, see KeyOperator).
type Operator struct {
	Schema, Name string
	Left, Right  uint32 // 0: none
	Function     uint32
}

// Cast is one user-defined cast.
type Cast struct {
	Source, Target uint32
	Function       uint32 // 0: binary coercible or by I/O
	Context        byte   // 'i' implicit, 'a' assignment, 'e' explicit
}

// Schema is one entry of pg_namespace.
type Schema struct {
	Name  string
	Owner string
	// Users names the roles that have USAGE on it; superusers are among them.
	Users []string
}
