package schema

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
)

// placeholders is the name of the foreign-data wrapper without handler, and of its server, whose foreign
// tables stand on the home shard for tables that live elsewhere. Every access to one fails (55000).
const placeholders = "shardyard_elsewhere"

// createWrapper makes the wrapper and its server on the home shard; it may be repeated.
func createWrapper(ctx context.Context, conn *pgx.Conn) error {
	for _, statement := range []string{
		"CREATE FOREIGN DATA WRAPPER " + placeholders + " NO HANDLER NO VALIDATOR",
		"CREATE SERVER " + placeholders + " FOREIGN DATA WRAPPER " + placeholders,
	} {
		if _, err := conn.Exec(ctx, statement); err != nil && !isState(err, "42710", "23505") {
			return fmt.Errorf("create placeholder wrapper: %w", err)
		}
	}
	return nil
}

// placeholder is the definition as statements that make the stand-in: columns, owner, privileges, comments.
func (d *definition) placeholder() []string {
	columns := make([]string, len(d.Columns))
	for i, column := range d.Columns {
		columns[i] = column.text()
	}
	statements := []string{fmt.Sprintf("CREATE FOREIGN TABLE %s (%s) SERVER %s", d.Name, strings.Join(columns, ", "), placeholders)}
	return append(statements, d.foreignAccess()...)
}

func (d *definition) foreignAccess() []string {
	statements := make([]string, len(d.Access))
	for i, statement := range d.Access {
		statements[i] = strings.Replace(statement, "COMMENT ON TABLE ", "COMMENT ON FOREIGN TABLE ", 1)
	}
	return statements
}

// follow is what brings a placeholder from the definition before to the one after; both are of the real
// table on one shard. after is nil if the table was dropped.
func follow(before, after *definition) []string {
	if after == nil {
		return []string{"DROP FOREIGN TABLE " + before.Name.String()}
	}
	var statements []string
	name := before.Name
	if after.Name.Schema != name.Schema {
		statements = append(statements, fmt.Sprintf("ALTER FOREIGN TABLE %s SET SCHEMA %s", name, directory.QuoteIdentifier(after.Name.Schema)))
		name.Schema = after.Name.Schema
	}
	if after.Name.Name != name.Name {
		statements = append(statements, fmt.Sprintf("ALTER FOREIGN TABLE %s RENAME TO %s", name, directory.QuoteIdentifier(after.Name.Name)))
		name = after.Name
	}
	alter := func(format string, arguments ...any) {
		statements = append(statements, "ALTER FOREIGN TABLE "+name.String()+" "+fmt.Sprintf(format, arguments...))
	}
	remaining := make(map[int]columnDef, len(after.Columns))
	for _, column := range after.Columns {
		remaining[column.Number] = column
	}
	for _, old := range before.Columns {
		column, ok := remaining[old.Number]
		if !ok {
			alter("DROP COLUMN %s", directory.QuoteIdentifier(old.Name))
			continue
		}
		delete(remaining, old.Number)
		followColumn(alter, old, column)
	}
	for _, column := range after.Columns {
		if _, added := remaining[column.Number]; added {
			alter("ADD COLUMN %s", column.text())
		}
	}
	statements = append(statements, revokeAll(name)...)
	return append(statements, after.foreignAccess()...)
}

func followColumn(alter func(string, ...any), old, column columnDef) {
	quoted := directory.QuoteIdentifier(column.Name)
	if old.Name != column.Name {
		alter("RENAME COLUMN %s TO %s", directory.QuoteIdentifier(old.Name), quoted)
	}
	if old.Generated != column.Generated || old.Generated && old.Default != column.Default {
		// Its expression cannot be changed in place before PostgreSQL 17: a placeholder holds nothing.
		if old.Generated {
			alter("ALTER COLUMN %s DROP EXPRESSION", quoted)
			old.Generated, old.Default = false, ""
		}
	}
	if old.Type != column.Type {
		if old.Default != "" && !old.Generated {
			alter("ALTER COLUMN %s DROP DEFAULT", quoted)
			old.Default = ""
		}
		alter("ALTER COLUMN %s TYPE %s", quoted, column.Type)
	}
	if old.NotNull != column.NotNull {
		alter("ALTER COLUMN %s %s NOT NULL", quoted, map[bool]string{true: "SET", false: "DROP"}[column.NotNull])
	}
	if old.Default == column.Default || column.Generated {
		return
	}
	if column.Default == "" {
		alter("ALTER COLUMN %s DROP DEFAULT", quoted)
	} else {
		alter("ALTER COLUMN %s SET DEFAULT %s", quoted, column.Default)
	}
}

// revokeAll clears the privileges of everyone that has any, so that the list that follows is the whole.
func revokeAll(name directory.TableName) []string {
	return []string{fmt.Sprintf(`DO $shardyard$ DECLARE grantee text; BEGIN
		FOR grantee IN SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END
			FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a WHERE c.oid = %[1]s::pg_catalog.regclass
		LOOP EXECUTE 'REVOKE ALL ON TABLE %[2]s FROM ' || grantee; END LOOP; END $shardyard$`,
		quoteLiteral(name.String()), strings.ReplaceAll(name.String(), "'", "''"))}
}

// quoteLiteral quotes as Postgres's quote_literal does.
func quoteLiteral(text string) string {
	quoted := "'" + strings.ReplaceAll(text, "'", "''") + "'"
	if strings.Contains(text, `\`) {
		return " E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}
