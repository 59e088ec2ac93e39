package schema

import (
	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/shardsql"
)

// Request is one statement to perform.
type Request struct {
	// Statement is the parsed sharding statement (Perform only).
	Statement shardsql.Statement
	// SQL is the statement's own text, without others of the same message, as shards get it.
	SQL string
	// Tag is the command tag, "ALTER TABLE" for example (DDL only).
	Tag string
	// Tables are the sharded and pinned tables that the statement is about (DDL only). Empty when it is
	// about another object (a type, a function): then it runs on every shard that holds a table of the map.
	Tables []directory.TableName
	// Alters (DDL only): it changes or drops an object that any table may rest on. Replaces: any plan, too.
	Alters, Replaces bool
	// Everywhere (DDL only): it is about what all shards of the cluster have alike (a role, the database itself, an
	// extension), so it runs on every shard of the map, whether that holds anything or not.
	Everywhere bool
	// Extension (DDL only) is the one that a CREATE or ALTER EXTENSION is about; Cascades: others may be made with it.
	Extension string
	Cascades  bool
	// Others (DDL only) is what other shards than the home shard run; empty: the client's statement.
	Others string
	// Lacking (DDL only): some shard may lack objects of the home shard that the statement needs.
	Lacking bool
	// Database that the session is connected to.
	Database string
	// User is the session's current role.
	User string
	// SearchPath as written ("$user" included).
	SearchPath []string
	// Settings of the session that change what a statement means (TimeZone, DateStyle, …).
	Settings map[string]string
	// InTransaction: the session is inside a transaction block, where Perform cannot work (25001).
	InTransaction bool

	directory *shardsql.DirectoryTable // what Statement was made of, if it is by DIRECTORY
}

// Result is what the client gets: rows (all columns of type text), a command tag, notices.
type Result struct {
	Columns []string
	Rows    [][]string
	Tag     string
	Notices []string
}
