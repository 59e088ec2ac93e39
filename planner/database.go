package planner

// DatabaseAction is what a statement does with a whole database.
type DatabaseAction string

// The actions.
const (
	CreateDatabase DatabaseAction = "create"
	DropDatabase   DatabaseAction = "drop"
	RenameDatabase DatabaseAction = "rename"
	AlterDatabase  DatabaseAction = "alter"
)

// DatabaseData is the inside of CREATE, DROP and ALTER DATABASE.
type DatabaseData struct {
	Action DatabaseAction
	Name   string
	// Other is the new name, or the template of a new database; "": Postgres's own template.
	Other    string
	IfExists bool
	Force    bool
}

// planDatabase plans what is about a whole database and cannot be in a transaction; nil: it is another statement, or one that
// alters a database as DDL does.
func (a *analysis) planDatabase(m message) *Plan {
	data, ok := databaseStatement(m)
	if !ok || data.Action == AlterDatabase && (data.Name == a.env.Map.Database || !movesDatabase(m)) {
		return nil
	}
	return &Plan{Kind: Database, Tag: commandTag(m), Database: &data, Route: Route{Kind: RouteHome}}
}
