package schema

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
)

// definition is a table as statements that make it anew, every name qualified. Two tables are defined
// alike if and only if their definitions are equal.
type definition struct {
	Name    directory.TableName
	Table   string      // CREATE TABLE
	Columns []columnDef // the same columns, one by one
	Access  []string    // owner, privileges and comments of table and columns: they suit a foreign table too
	Objects []string    // constraints, indexes, triggers, policies, options, in an order in which they can run
}

// columnDef is one column of a definition.
type columnDef struct {
	Number    int // pg_attribute.attnum: tells a renamed column from a dropped and added one, on one shard only
	Name      string
	Type      string // with modifier and collation
	NotNull   bool
	Default   string // expression, or ""
	Generated bool   // Default is a generation expression
	Missing   string // pg_attribute.attmissingval: what rows have that are older than the column
	Identity  bool   // not a part of text: the sequence stays on the home shard
}

// text is the column as CREATE TABLE has it.
func (c columnDef) text() string {
	text := directory.QuoteIdentifier(c.Name) + " " + c.Type
	switch {
	case c.Generated:
		text += " GENERATED ALWAYS AS (" + c.Default + ") STORED"
	case c.Default != "":
		text += " DEFAULT " + c.Default
	}
	if c.NotNull {
		text += " NOT NULL"
	}
	return text
}

// statements are all of them, in order.
func (d *definition) statements() []string {
	return slices.Concat([]string{d.Table}, d.Objects, d.Access)
}

// equal compares what the tables are, not how they came to be.
func (d *definition) equal(other *definition) bool {
	return slices.Equal(d.statements(), other.statements())
}

// firstDifference says where two definitions part, for messages.
func (d *definition) firstDifference(other *definition) string {
	a, b := d.statements(), other.statements()
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a):
			return b[i]
		case i >= len(b):
			return a[i]
		case a[i] != b[i]:
			return a[i] + " / " + b[i]
		}
	}
	return ""
}

// describe reads the definition of a table (or foreign table) in conn's transaction. It sets search_path to
// nothing until the end of the transaction.
func describe(ctx context.Context, conn *pgx.Conn, name directory.TableName) (*definition, error) {
	if _, err := conn.Exec(ctx, "SELECT pg_catalog.set_config('search_path', '', true)"); err != nil {
		return nil, err
	}
	d := &definition{Name: name}
	var oid uint32
	err := conn.QueryRow(ctx, tableQuery, name.Schema, name.Name).Scan(&oid, &d.Table)
	if err != nil {
		return nil, fmt.Errorf("describe table %s: %w", name, err)
	}
	rows, err := conn.Query(ctx, columnsQuery, oid)
	if err != nil {
		return nil, fmt.Errorf("describe columns of %s: %w", name, err)
	}
	if d.Columns, err = pgx.CollectRows(rows, pgx.RowToStructByPos[columnDef]); err != nil {
		return nil, fmt.Errorf("describe columns of %s: %w", name, err)
	}
	columns := make([]string, len(d.Columns))
	for i, column := range d.Columns {
		columns[i] = column.text()
	}
	d.Table = strings.Replace(d.Table, "()", "("+strings.Join(columns, ", ")+")", 1)
	for _, query := range []string{optionsQuery, constraintsQuery, indexesQuery, statisticsQuery, foreignKeysQuery, triggersQuery, policiesQuery, objectCommentsQuery} {
		if d.Objects, err = appendStatements(ctx, conn, d.Objects, query, oid); err != nil {
			return nil, fmt.Errorf("describe table %s: %w", name, err)
		}
	}
	for _, query := range []string{ownerQuery, grantsQuery, commentsQuery} {
		if d.Access, err = appendStatements(ctx, conn, d.Access, query, oid); err != nil {
			return nil, fmt.Errorf("describe table %s: %w", name, err)
		}
	}
	return d, nil
}

func appendStatements(ctx context.Context, conn *pgx.Conn, to []string, query string, arguments ...any) ([]string, error) {
	rows, err := conn.Query(ctx, query, arguments...)
	if err != nil {
		return nil, err
	}
	statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return append(to, statements...), err
}

// tableQuery leaves the place of the columns as ().
const tableQuery = `
SELECT c.oid, pg_catalog.format('CREATE %sTABLE %I.%I () USING %I%s', CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED ' ELSE '' END,
    n.nspname, c.relname, coalesce(am.amname, 'heap'),
    coalesce(' WITH (' || (
        SELECT pg_catalog.string_agg(pg_catalog.format('%s=%L', pg_catalog.split_part(o, '=', 1), pg_catalog.substr(o, pg_catalog.strpos(o, '=') + 1)), ', ' ORDER BY o)
        FROM (SELECT pg_catalog.unnest(c.reloptions) AS o UNION ALL SELECT 'toast.' || pg_catalog.unnest(t.reloptions)) x
        WHERE o NOT LIKE 'pg\_%' AND o NOT LIKE 'toast.pg\_%') || ')', ''))
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam
LEFT JOIN pg_catalog.pg_class t ON t.oid = c.reltoastrelid
WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'f')`

const columnsQuery = `
SELECT a.attnum::int4, a.attname::text,
    pg_catalog.format_type(a.atttypid, a.atttypmod)
    || CASE WHEN a.attcollation <> 0 AND a.attcollation <> t.typcollation THEN pg_catalog.format(' COLLATE %I.%I', cn.nspname, l.collname) ELSE '' END,
    a.attnotnull, coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid), ''), a.attgenerated <> '', coalesce(a.attmissingval::text, ''),
    a.attidentity <> ''
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = l.collnamespace
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum`

// optionsQuery: storage, compression, statistics targets and options of columns; row security; replica identity.
// Options named pg_… are the server's own notes (pg_attver, from 15.20 on), other on each server; pg_dump leaves
// them out too.
const optionsQuery = `
SELECT pg_catalog.format('ALTER TABLE ONLY %s ALTER COLUMN %I %s', $1::pg_catalog.regclass, a.attname, x.what)
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
CROSS JOIN LATERAL (VALUES
    (1, CASE WHEN a.attstorage <> t.typstorage THEN 'SET STORAGE ' || CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END END),
    (2, CASE pg_catalog.to_jsonb(a)->>'attcompression' WHEN 'p' THEN 'SET COMPRESSION pglz' WHEN 'l' THEN 'SET COMPRESSION lz4' END),
    (3, CASE WHEN a.attstattarget >= 0 THEN 'SET STATISTICS ' || a.attstattarget END),
    (4, (SELECT 'SET (' || pg_catalog.string_agg(o, ', ' ORDER BY o) || ')' FROM pg_catalog.unnest(a.attoptions) o WHERE o NOT LIKE 'pg\_%'))) x(pos, what)
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND x.what IS NOT NULL
UNION ALL
SELECT pg_catalog.format('ALTER TABLE ONLY %s %s', $1::pg_catalog.regclass, x.what) FROM pg_catalog.pg_class c
CROSS JOIN LATERAL (VALUES (CASE WHEN c.relrowsecurity THEN 'ENABLE ROW LEVEL SECURITY' END),
    (CASE WHEN c.relforcerowsecurity THEN 'FORCE ROW LEVEL SECURITY' END),
    (CASE c.relreplident WHEN 'f' THEN 'REPLICA IDENTITY FULL' WHEN 'n' THEN CASE WHEN c.relkind = 'r' THEN 'REPLICA IDENTITY NOTHING' END END)) x(what)
WHERE c.oid = $1 AND x.what IS NOT NULL
ORDER BY 1`

// constraintsQuery: all but foreign keys, which need the keys of other tables.
const constraintsQuery = `
SELECT pg_catalog.format('ALTER TABLE ONLY %s ADD CONSTRAINT %I %s', $1::pg_catalog.regclass, con.conname, pg_catalog.pg_get_constraintdef(con.oid))
FROM pg_catalog.pg_constraint con WHERE con.conrelid = $1 AND con.contype IN ('c', 'p', 'u', 'x')
ORDER BY con.contype, con.conname`

const foreignKeysQuery = `
SELECT pg_catalog.format('ALTER TABLE ONLY %s ADD CONSTRAINT %I %s', $1::pg_catalog.regclass, con.conname, pg_catalog.pg_get_constraintdef(con.oid))
FROM pg_catalog.pg_constraint con WHERE con.conrelid = $1 AND con.contype = 'f'
ORDER BY con.conname`

// indexesQuery: the indexes without a constraint, then the options of all, the index that CLUSTER uses and
// the one that identifies rows to replicas.
const indexesQuery = `
(SELECT pg_catalog.pg_get_indexdef(i.indexrelid)
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = $1 AND i.indisvalid AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_constraint con WHERE con.conindid = i.indexrelid AND con.conrelid = $1 AND con.contype IN ('p', 'u', 'x'))
ORDER BY c.relname)
UNION ALL
(SELECT x.what FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
CROSS JOIN LATERAL (VALUES
    (1, CASE WHEN EXISTS (SELECT 1 FROM pg_catalog.pg_constraint con WHERE con.conindid = i.indexrelid AND con.conrelid = $1 AND con.contype IN ('p', 'u', 'x'))
        THEN pg_catalog.format('ALTER INDEX %s SET (%s)', c.oid::pg_catalog.regclass, pg_catalog.array_to_string(c.reloptions, ', ')) END),
    (2, CASE WHEN i.indisclustered THEN pg_catalog.format('ALTER TABLE ONLY %s CLUSTER ON %I', $1::pg_catalog.regclass, c.relname) END),
    (3, CASE WHEN i.indisreplident THEN pg_catalog.format('ALTER TABLE ONLY %s REPLICA IDENTITY USING INDEX %I', $1::pg_catalog.regclass, c.relname) END)) x(pos, what)
WHERE i.indrelid = $1 AND i.indisvalid AND x.what IS NOT NULL AND (x.pos > 1 OR c.reloptions IS NOT NULL)
ORDER BY c.relname, x.pos)`

const statisticsQuery = `
SELECT pg_catalog.pg_get_statisticsobjdef(s.oid) FROM pg_catalog.pg_statistic_ext s WHERE s.stxrelid = $1 ORDER BY s.stxname`

// notOurs leaves out the triggers of mirrored writes, which are not the application's.
const notOurs = `t.tgfoid NOT IN (SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.pronamespace = pg_catalog.to_regnamespace('shardyard'))`

const triggersQuery = `
(SELECT pg_catalog.pg_get_triggerdef(t.oid) FROM pg_catalog.pg_trigger t
WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND ` + notOurs + ` ORDER BY t.tgname)
UNION ALL
(SELECT pg_catalog.format('ALTER TABLE ONLY %s %s TRIGGER %I', $1::pg_catalog.regclass,
    CASE t.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END, t.tgname)
FROM pg_catalog.pg_trigger t
WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgenabled <> 'O' AND ` + notOurs + ` ORDER BY t.tgname)`

const policiesQuery = `
SELECT pg_catalog.format('CREATE POLICY %I ON %s AS %s FOR %s TO %s', p.polname, $1::pg_catalog.regclass,
    CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
    CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
    (SELECT pg_catalog.string_agg(CASE WHEN r.oid = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(r.oid)) END, ', ' ORDER BY pg_catalog.pg_get_userbyid(r.oid))
     FROM pg_catalog.unnest(p.polroles) r(oid)))
    || coalesce(' USING (' || pg_catalog.pg_get_expr(p.polqual, p.polrelid) || ')', '')
    || coalesce(' WITH CHECK (' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) || ')', '')
FROM pg_catalog.pg_policy p WHERE p.polrelid = $1 ORDER BY p.polname`

const objectCommentsQuery = `
SELECT pg_catalog.format('COMMENT ON %s IS %L', x.what, x.comment) FROM (
    SELECT pg_catalog.format('CONSTRAINT %I ON %s', con.conname, $1::pg_catalog.regclass) AS what, pg_catalog.obj_description(con.oid, 'pg_constraint') AS comment
    FROM pg_catalog.pg_constraint con WHERE con.conrelid = $1
    UNION ALL
    SELECT pg_catalog.format('INDEX %s', i.indexrelid::pg_catalog.regclass), pg_catalog.obj_description(i.indexrelid, 'pg_class')
    FROM pg_catalog.pg_index i WHERE i.indrelid = $1
    UNION ALL
    SELECT pg_catalog.format('TRIGGER %I ON %s', t.tgname, $1::pg_catalog.regclass), pg_catalog.obj_description(t.oid, 'pg_trigger')
    FROM pg_catalog.pg_trigger t WHERE t.tgrelid = $1 AND ` + notOurs + `
    UNION ALL
    SELECT pg_catalog.format('POLICY %I ON %s', p.polname, $1::pg_catalog.regclass), pg_catalog.obj_description(p.oid, 'pg_policy')
    FROM pg_catalog.pg_policy p WHERE p.polrelid = $1) x
WHERE x.comment IS NOT NULL ORDER BY x.what`

const ownerQuery = `
SELECT pg_catalog.format('ALTER TABLE %s OWNER TO %I', c.oid::pg_catalog.regclass, pg_catalog.pg_get_userbyid(c.relowner))
FROM pg_catalog.pg_class c WHERE c.oid = $1`

// grantsQuery prints nothing where the privileges are the default ones. Else it takes everything from the
// owner and from PUBLIC first, as their default privileges are not in the list that follows.
const grantsQuery = `
(SELECT pg_catalog.format('REVOKE ALL ON TABLE %s FROM PUBLIC, %I', c.oid::pg_catalog.regclass, pg_catalog.pg_get_userbyid(c.relowner))
FROM pg_catalog.pg_class c WHERE c.oid = $1 AND c.relacl IS NOT NULL)
UNION ALL
(SELECT pg_catalog.format('GRANT %s ON TABLE %s TO %s%s', pg_catalog.string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type), c.oid::pg_catalog.regclass,
    CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END, CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a WHERE c.oid = $1
GROUP BY c.oid, a.grantee, a.is_grantable ORDER BY 1)
UNION ALL
(SELECT pg_catalog.format('GRANT %s (%I) ON TABLE %s TO %s%s', a.privilege_type, t.attname, c.oid::pg_catalog.regclass,
    CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END, CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute t ON t.attrelid = c.oid AND NOT t.attisdropped
CROSS JOIN LATERAL pg_catalog.aclexplode(t.attacl) a WHERE c.oid = $1 ORDER BY 1)`

const commentsQuery = `
(SELECT pg_catalog.format('COMMENT ON %s %s IS %L', CASE c.relkind WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, c.oid::pg_catalog.regclass, pg_catalog.obj_description(c.oid, 'pg_class'))
FROM pg_catalog.pg_class c WHERE c.oid = $1 AND pg_catalog.obj_description(c.oid, 'pg_class') IS NOT NULL)
UNION ALL
(SELECT pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', $1::pg_catalog.regclass, a.attname, pg_catalog.col_description(a.attrelid, a.attnum))
FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
AND pg_catalog.col_description(a.attrelid, a.attnum) IS NOT NULL ORDER BY a.attnum)`
