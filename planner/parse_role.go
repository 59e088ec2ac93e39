package planner

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/shardyard/shardyard/planner/lexer"
)

// passwordsOf are the passwords that a CREATE or ALTER ROLE sets, with the role that gets them; none for every other
// statement.
func passwordsOf(m message, sql string) *RoleData {
	role := &RoleData{}
	var options []*node
	switch m := m.(type) {
	case *pg.CreateRoleStmt:
		role.Name, options = m.Role, m.Options
	case *pg.AlterRoleStmt:
		options = m.Options
		switch m.Role.GetRoletype() {
		case pg.RoleSpecType_ROLESPEC_CURRENT_ROLE, pg.RoleSpecType_ROLESPEC_CURRENT_USER:
			role.Current = true
		case pg.RoleSpecType_ROLESPEC_SESSION_USER:
			role.Session = true
		default:
			role.Name = m.Role.GetRolename()
		}
	}
	at := 0
	for _, n := range options {
		option := n.GetDefElem()
		if option.GetDefname() != "password" || option.GetArg().GetString_() == nil {
			continue
		}
		start, end := stringBehind(sql, int(option.Location))
		if end == 0 || start < at {
			continue
		}
		role.Passwords = append(role.Passwords, Password{Start: start, End: end, value: option.Arg.GetString_().Sval})
		at = end
	}
	if len(role.Passwords) == 0 {
		return nil
	}
	return role
}

// stringBehind is the string constant that PASSWORD or ENCRYPTED PASSWORD at a place of the text is followed by, with
// its UESCAPE; end is 0 if there is none.
func stringBehind(sql string, from int) (start, end int) {
	text := sql[from:]
	for lex := lexer.New(text); ; {
		token, ok := lex.Next()
		if !ok {
			return start, end
		}
		isString := false
		switch token.Kind {
		case lexer.String, lexer.EscapeString, lexer.UnicodeString, lexer.DollarString:
			isString = true
		}
		switch {
		case end == 0 && isString:
			start, end = from+token.Start, from+token.End
		case end == 0 && token.Kind == lexer.Ident || token.Kind == lexer.NationalPrefix:
		case end > 0 && token.IsWord(text, "uescape"):
			if token, ok = lex.Next(); ok {
				end = from + token.End
			}
			return start, end
		default:
			return start, end
		}
	}
}

// extensionOf is the extension that a CREATE or ALTER EXTENSION is about; cascades: others may be made with it.
func extensionOf(m message) (name string, cascades bool) {
	switch m := m.(type) {
	case *pg.CreateExtensionStmt:
		return m.Extname, hasOption(m.Options, "cascade")
	case *pg.AlterExtensionStmt:
		return m.Extname, false
	}
	return "", false
}

// tablespaceOf is what a CREATE or DROP TABLESPACE is about; ok is false for every other statement.
func tablespaceOf(m message) (data TablespaceData, ok bool) {
	switch m := m.(type) {
	case *pg.CreateTableSpaceStmt:
		return TablespaceData{Name: m.Tablespacename, Location: m.Location}, true
	case *pg.DropTableSpaceStmt:
		return TablespaceData{Name: m.Tablespacename, Drop: true, IfExists: m.MissingOk}, true
	}
	return TablespaceData{}, false
}

// movesDatabase reports an ALTER DATABASE that Postgres runs outside of transactions only.
func movesDatabase(m message) bool {
	alter, ok := m.(*pg.AlterDatabaseStmt)
	return ok && hasOption(alter.Options, "tablespace")
}
