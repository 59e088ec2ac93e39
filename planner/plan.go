package planner

import (
	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/shardsql"
)

// Kind says what the router does with a statement.
type Kind uint8

// The kinds of plans.
const (
	Empty          Kind = iota // nothing but blanks and comments
	Relay                      // one shard runs the client's own text
	Scatter                    // several shards run SQL; the router concatenates or merges
	Begin                      // BEGIN, START TRANSACTION: Plan.Transaction
	Commit                     // COMMIT, END: Plan.Transaction.Chain
	Rollback                   // ROLLBACK, ABORT: Plan.Transaction.Chain
	Savepoint                  // Plan.Name
	Release                    // RELEASE SAVEPOINT: Plan.Name
	RollbackTo                 // ROLLBACK TO SAVEPOINT: Plan.Name
	SetTransaction             // SET TRANSACTION …, for every enlisted shard
	SetConstraints             // SET CONSTRAINTS …, for every enlisted shard
	Set                        // SET name = value, SET SESSION CHARACTERISTICS: Plan.Set
	Reset                      // RESET name, RESET ALL: Plan.Set
	Show                       // SHOW name, SHOW ALL: Plan.Name
	Discard                    // DISCARD: Plan.Name is ALL, PLANS, SEQUENCES or TEMP
	Prepare                    // PREPARE: Plan.Prepare
	Execute                    // EXECUTE: Plan.Execute
	Deallocate                 // DEALLOCATE: Plan.Name, empty for ALL
	DeclareCursor              // DECLARE … CURSOR: Plan.Cursor; routed like its query
	Fetch                      // FETCH and MOVE: Plan.Name is the cursor
	CloseCursor                // CLOSE: Plan.Name, empty for ALL
	Copy                       // COPY: Plan.Copy
	Listen                     // LISTEN: Plan.Name
	Unlisten                   // UNLISTEN: Plan.Name, empty for *
	Notify                     // NOTIFY, runs on the home shard: Plan.Name
	DDL                        // changes the catalog: Plan.DDL
	Sharding                   // a sharding statement that changes the map: Plan.Sharding
	ShowSharding               // SHOW SHARDS, TABLES, PARTITIONS, TRANSACTIONS: Plan.Sharding
	Explain                    // EXPLAIN: Plan.Explain
	Modify                     // several shards run a statement that writes: Plan.Modify
	Maintenance                // runs on one shard after the other, not as one transaction: Plan.Maintenance
	Database                   // makes, drops, renames or alters a whole database: Plan.Database
	Tablespace                 // CREATE and DROP TABLESPACE, from shard to shard: Plan.Tablespace
	Combine                    // pieces are read on the shards, and the rest runs over them on the home shard: Plan.Combine
)

var kindNames = [...]string{
	"empty", "relay", "scatter", "begin", "commit", "rollback", "savepoint", "release", "rollback to",
	"set transaction", "set constraints", "set", "reset", "show", "discard", "prepare", "execute",
	"deallocate", "declare cursor", "fetch", "close cursor", "copy", "listen", "unlisten", "notify",
	"ddl", "sharding", "show sharding", "explain", "modify", "maintenance", "database", "tablespace",
	"combine",
}

// String returns the lower-case name of the kind.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Plan says how one statement is run. It is data: it holds no connection, no
// closure and no map, and it is shared by all sessions that sent the same
// normalised statement, so it must never be changed once the planner returned it.
type Plan struct {
	Kind Kind
	// Tag is the command word of the statement ("SELECT", "INSERT", "CREATE TABLE", …), as
	// the first words of Postgres's command tag.
	Tag string
	// Epoch and CatalogVersion are those of the map and the catalog it was planned under.
	Epoch          directory.Epoch
	CatalogVersion uint64
	// ReadOnly is true only where it is proved that the statement writes nothing and
	// assigns no transaction id.
	ReadOnly bool
	// Mirrors: it writes a reference table, or may do so through triggers and functions. It
	// runs on the home shard, and what it wrote goes to all other shards before it commits.
	Mirrors bool
	// Dirty means that the statement may leave session state behind that nobody tracks (DO,
	// CALL, a volatile function that is not built in): the connection is to be cleaned
	// before another session gets it.
	Dirty bool
	// SetsUnseen: it may change settings of the session, in a way that its text does not tell (a function that calls set_config, DO):
	// afterwards the connection is asked for them. It is Dirty then.
	SetsUnseen bool
	// Watched: it runs code of which it cannot be seen which tables it uses. It runs on the home shard, and the executor looks
	// afterwards whether it has used tables that are not on that shard alone; if it has, it fails.
	Watched bool
	// Notifies: it calls pg_notify. Listening: it calls pg_listening_channels.
	Notifies, Listening bool
	// Pins is not empty when the statement leaves behind something that cannot be carried to
	// another connection; it names that thing ("temporary table", "session advisory lock",
	// "cursor with hold"). The session keeps its connection to the shard then.
	Pins string
	// SessionValue names a function whose result depends on what the session did before on the same
	// connection (currval, lastval). Outside of a transaction block another session's value could be
	// the answer unless the session is pinned to its connection.
	SessionValue string
	// Calls are what the session puts values in place of, by WithValues, before the statement is planned and run; the plan tells no more
	// than where it is described.
	Calls []SequenceCall
	// Sequences is what the statement may do to sequences itself, on the home shard; nil: nothing.
	Sequences *SequenceUse
	// Restarts: it restarts sequences that number sharded tables (TRUNCATE … RESTART IDENTITY), when its transaction commits.
	Restarts bool
	// ParseOnly marks what our parser rejects: the home shard is asked to Parse the text, and
	// its error is the answer. If the home shard accepts it, the text is run there, watched.
	ParseOnly bool
	// Tables are the sharded and pinned tables that the statement touches, for holds.
	Tables []directory.TableName
	// Route says how the shards follow from the literals and parameters.
	Route Route
	// SQL is what the shards of a scatter get; empty means the client's own text.
	SQL string
	// Clock says which parameters of SQL stand for the present; nil: none.
	Clock *Clock
	// Merge says how the answers of several shards become one. Only for Kind Scatter.
	Merge *Merge
	// Modify says how several shards run a statement that writes. Only for Kind Modify.
	Modify *ModifyData
	// Refusal is why the statement may not run on several shards; Targets returns it when
	// values turn out to lead to more than one. nil for the Kinds Scatter and Modify.
	Refusal *Error
	// Combinable: where values lead to several shards, Planner.Combine may have a plan that is not refused.
	Combinable bool
	// SetConfig lists calls of set_config with a constant name at the top level of the statement, which the session tracks
	// like SET. Their values may be opaque.
	SetConfig []Setting

	// Executes is the prepared statement that a CREATE TABLE AS EXECUTE or EXPLAIN EXECUTE runs.
	Executes string

	Name        string             // savepoint, cursor, prepared statement, channel, setting: see Kind
	Transaction *Transaction       // Begin, Commit, Rollback, SetTransaction
	Set         *Setting           // Set, Reset
	Prepare     *PrepareData       // Prepare
	Execute     *ExecuteData       // Execute
	Cursor      *CursorData        // DeclareCursor
	Copy        *CopyData          // Copy
	DDL         *DDLData           // DDL
	Sharding    shardsql.Statement // Sharding, ShowSharding
	Explain     *ExplainData       // Explain
	Insert      *InsertData        // Modify: an INSERT
	Transfer    *TransferData      // Modify: an INSERT … SELECT whose rows have to be moved; DDL: see CreateAs
	CreateAs    *CreateAsData      // DDL: a CREATE TABLE AS or SELECT INTO whose rows have to be moved, by Transfer
	Combine     *CombineData       // Combine: see Combinable
	Maintenance *MaintenanceData   // Maintenance
	Database    *DatabaseData      // Database
	Everywhere  *EverywhereData    // DDL: about what all shards have alike; nil: it is not
	Role        *RoleData          // DDL: the passwords that a statement sets
	Tablespace  *TablespaceData    // Tablespace

	// texts are the ordinals of literals that are certainly not read as dates or times.
	texts []int

	// valuesUsed is set when the plan was made from the value of a literal (pushed SQL,
	// for one), so it serves only statements of exactly the same text.
	valuesUsed bool
}

// Transaction holds the options of BEGIN, COMMIT, ROLLBACK and SET TRANSACTION.
type Transaction struct {
	Isolation  string // "", "read uncommitted", "read committed", "repeatable read" or "serializable"
	Access     string // "", "read only" or "read write"
	Deferrable string // "", "deferrable" or "not deferrable"
	Snapshot   bool   // SET TRANSACTION SNAPSHOT
	Chain      bool   // COMMIT/ROLLBACK AND CHAIN
}

// Setting is one SET, RESET or call of set_config.
type Setting struct {
	Name    string // lower case; "" means ALL (RESET ALL); "session characteristics" for SET SESSION CHARACTERISTICS
	Value   string // the value as current_setting would take it; lists joined with ", "
	Default bool   // RESET, SET … TO DEFAULT
	Local   bool   // until the end of the transaction
	Opaque  bool   // Value could not be derived (SET TIME ZONE INTERVAL …, FROM CURRENT, a parameter); only the text itself says it
}

// PrepareData is the inside of PREPARE name (types) AS statement.
type PrepareData struct {
	Name   string
	Types  []uint32 // parameter types; 0 where the name is not one of the built-in types
	Named  []string // the types as written, parallel to Types
	Text   string   // the statement after AS
	Offset int      // of Text in the statement, bytes
}

// ExecuteData is the inside of EXECUTE name (arguments).
type ExecuteData struct {
	Name string
	Args []ExecuteArg
	// Clock: an argument reads the time.
	Clock bool
}

// ExecuteArg is one argument of EXECUTE.
type ExecuteArg struct {
	Constant bool   // Text (or Null) holds the value; else only a shard can tell it
	Null     bool   // NULL
	Text     string // the value in text format
	Kind     ArgKind
}

// ArgKind says how a constant is written.
type ArgKind uint8

// The kinds of constants.
const (
	ArgString  ArgKind = iota // of any type that reads the text
	ArgInteger                // an int4, or a bigint or numeric if it is greater
	ArgDecimal                // a numeric
	ArgBool
)

// As reports whether the text of a constant is its value as a parameter of the type, as an assignment would convert it.
func (arg *ExecuteArg) As(oid uint32) bool {
	text := oid == 25 || oid == 1043
	switch {
	case arg.Null || arg.Kind == ArgString:
		return true
	case arg.Kind == ArgInteger:
		return text || isNumber(oid) || oid == 700 || oid == 701
	case arg.Kind == ArgDecimal:
		return text || oid == numericOID || oid == 701
	}
	return text || oid == 16
}

// CursorData is the inside of DECLARE CURSOR. The plan's Route is that of the query.
type CursorData struct {
	Name   string
	Hold   bool
	Scroll bool
	Binary bool
}

// CopyData is the inside of COPY.
type CopyData struct {
	From    bool                // COPY … FROM
	Stdio   bool                // STDIN or STDOUT; else a file or program of the server
	Table   directory.TableName // as resolved; zero for COPY (query)
	Sharded bool                // Table is sharded
	Format  string              // "text", "csv" or "binary"
	Header  bool                // the data begins with a header line: of what shards send only the first may reach the client
	Rows    *CopyRows           // COPY … FROM STDIN into a sharded table, else nil
}

// DDLData says what a statement that changes the catalog touches.
type DDLData struct {
	Command string // "CREATE TABLE", "ALTER TABLE", …
	// Tables are the sharded and pinned tables that the statement changes; empty means that it
	// runs on the home shard alone (and the catalog is to be read again).
	Tables []directory.TableName
	// Objects: it is about a type, a function, a schema, a role or the like, which every shard must have
	// alike, so it is performed on all although Tables is empty.
	Objects bool
	// Alters: it changes or drops such an object, on which tables may rest. Replaces: plans may rest on it, too.
	Alters, Replaces bool
	Temp             bool // creates a temporary object
	// Others is what other shards than the home shard run; empty: the client's text.
	Others string
}

// ExplainData is the inside of EXPLAIN. The plan's Route, SQL, Merge and Refusal are those of the
// explained statement; a relay gets the client's own text (with EXPLAIN), a scatter Prefix + SQL.
type ExplainData struct {
	Analyze bool
	Format  string // "text", "json", "xml" or "yaml"
	Prefix  string // "EXPLAIN (…) ", in front of Plan.SQL
	Inner   *Plan  // the plan of the explained statement
}

// Merge says how the answers of several shards become one answer.
type Merge struct {
	// OrderBy is the order that each shard's rows arrive in and the client's must have; empty
	// means concatenation.
	OrderBy []SortKey
	// Limit and Offset are re-applied by the router; nil where there is none.
	Limit, Offset *ValueRef
	// Hidden is the number of trailing columns that the router removes: sort keys.
	Hidden int
}

// SortKey is one column of the order.
type SortKey struct {
	Column     int    // 0-based, in the rows that the shards send; counted from the end if negative (-1 is the last)
	Type       uint32 // type OID, a built-in type
	Desc       bool
	NullsFirst bool
}
