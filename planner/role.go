package planner

import "strings"

// RoleData is the inside of a statement that sets passwords: CREATE and ALTER ROLE. Such a plan is never cached.
type RoleData struct {
	// Name is the role that gets the passwords; Current and Session: it is the current role, or the session's user.
	Name             string
	Current, Session bool
	// Passwords in the order of the text: a statement with more than one is wrong, which is for a shard to say.
	Passwords []Password
}

// Password is a string constant of a statement, with its quotes: bytes Start to End of the text.
type Password struct {
	Start, End int
	value      string
}

// Value is what the constant says.
func (p Password) Value() string { return p.value }

// String keeps the password out of what is printed.
func (p Password) String() string { return "password" }

// GoString keeps it out, too.
func (p Password) GoString() string { return "password" }

// EverywhereData is the inside of a statement about what all shards have alike even where nothing is sharded: a role, the
// database itself; or an extension.
type EverywhereData struct {
	// Extension is the one that a CREATE or ALTER EXTENSION is about; Cascades: others may be made with it.
	Extension string
	Cascades  bool
	// Defaults: it changes the settings that new sessions start with.
	Defaults bool
}

// everywhereKinds are the statements about what all shards of a cluster have alike, whether anything is sharded or not:
// roles, and the database itself; true: they change objects, too, on which tables and plans may rest.
var everywhereKinds = map[string]bool{
	"CreateRoleStmt": false, "AlterRoleStmt": false, "AlterRoleSetStmt": false, "DropRoleStmt": false, "GrantRoleStmt": false,
	"AlterDatabaseStmt": false, "AlterDatabaseSetStmt": false, "AlterDatabaseRefreshCollStmt": false, "AlterTableSpaceOptionsStmt": false,
	"DropOwnedStmt": true, "ReassignOwnedStmt": true,
}

// everywhereTypes are the sorts of such objects.
const everywhereTypes = " ROLE DATABASE TABLESPACE PARAMETER_ACL "

// planEverywhere plans a statement about what all shards have alike; nil: it is another statement.
func (a *analysis) planEverywhere(m message, plan *Plan) *Plan {
	kind, sharded := kindName(m), a.env.Map.AnythingSharded()
	alters, is := everywhereKinds[kind]
	if f, ok := objectFields[kind]; ok {
		object := strings.TrimPrefix(objectTypeOf(m, f.field), "OBJECT_")
		is = is || strings.Contains(everywhereTypes, " "+object+" ")
		if object == "EXTENSION" && sharded {
			is, alters = true, f.alters
		}
	}
	if kind == "CreateExtensionStmt" || kind == "AlterExtensionStmt" {
		is, alters = sharded, kind == "AlterExtensionStmt"
	}
	if !is || movesDatabase(m) {
		return nil
	}
	plan.Role = passwordsOf(m, a.sql)
	if len(a.env.Map.Shards) == 1 && plan.Role == nil {
		return nil
	}
	plan.DDL.Objects = true
	if alters && sharded {
		plan.DDL.Alters, plan.DDL.Replaces = a.replaces(m)
	}
	if sharded && a.watched() {
		plan.Watched, plan.Mirrors = true, a.anyReferences()
	}
	plan.Everywhere = &EverywhereData{Defaults: kind == "AlterRoleSetStmt" || kind == "AlterDatabaseSetStmt"}
	plan.Everywhere.Extension, plan.Everywhere.Cascades = extensionOf(m)
	return plan
}

// TablespaceData is the inside of CREATE and DROP TABLESPACE.
type TablespaceData struct {
	Name     string
	Location string // on every server; "" is inside of the data directory
	Drop     bool
	IfExists bool
}

// planTablespace plans CREATE and DROP TABLESPACE, which Postgres does not run in a transaction: they go from shard to
// shard.
func (a *analysis) planTablespace(m message) (*Plan, *Error) {
	data, ok := tablespaceOf(m)
	if !ok || len(a.env.Map.Shards) == 1 {
		return a.planDDL(m)
	}
	return &Plan{Kind: Tablespace, Tag: commandTag(m), Tablespace: &data, Route: Route{Kind: RouteHome}}, nil
}
