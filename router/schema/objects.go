package schema

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
)

// need is a dependency with the statements that make it, as the home shard defines it.
type need struct {
	dependency
	Statements []string
}

// defineAll reads the definitions of all dependencies.
func defineAll(ctx context.Context, conn *pgx.Conn, all []dependency) ([]need, error) {
	needs := make([]need, 0, len(all))
	for _, d := range all {
		statements, err := define(ctx, conn, d)
		if err != nil {
			return nil, err
		}
		if len(statements) == 0 {
			return nil, pgerr.Unsupported(fmt.Sprintf("the table depends on %s %s, which cannot be created on other shards", d.Kind, d.Identity),
				"Do without it, or put it into an extension.")
		}
		needs = append(needs, need{d, statements})
	}
	return needs, nil
}

// define reads the statements that make an object; none where it does not exist (or is of no kind that can
// be made).
func define(ctx context.Context, conn *pgx.Conn, d dependency) ([]string, error) {
	queries := map[string][]string{
		"schema":    {schemaQuery, schemaGrantsQuery},
		"extension": {extensionQuery},
		"collation": {collationQuery},
		"type":      {typeQuery, typeGrantsQuery},
		"function":  {functionQuery, functionGrantsQuery},
	}[d.Kind]
	var statements []string
	var err error
	for _, query := range queries {
		if statements, err = appendStatements(ctx, conn, statements, query, d.Identity); err != nil {
			return nil, fmt.Errorf("describe %s %s: %w", d.Kind, d.Identity, err)
		}
	}
	return statements, nil
}

// bring makes what is missing on a shard, in conn's transaction. What exists must be defined as on the home
// shard.
func bring(ctx context.Context, conn *pgx.Conn, shard directory.ShardID, needs []need) error {
	for _, n := range needs {
		there, err := define(ctx, conn, n.dependency)
		if err != nil {
			return err
		}
		switch {
		case len(there) == 0:
			if err := run(ctx, conn, n.Statements); err != nil {
				return fmt.Errorf("create %s %s on shard %s: %w", n.Kind, n.Identity, shard, err)
			}
		case n.Kind == "schema": // it may hold more rights there; those of home are granted
			if err := run(ctx, conn, n.Statements[1:]); err != nil {
				return fmt.Errorf("grant schema %s on shard %s: %w", n.Identity, shard, err)
			}
		case !slices.Equal(there, n.Statements):
			return pgerr.Newf("42710", "%s %s exists on shard %q with another definition", n.Kind, n.Identity, shard).
				WithDetail("Home shard: " + n.Statements[0] + "; shard: " + there[0]).
				WithHint("Drop it there if nothing uses it: it is created as on the home shard.")
		}
	}
	return nil
}

func run(ctx context.Context, conn *pgx.Conn, statements []string) error {
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

const schemaQuery = `
SELECT pg_catalog.format('CREATE SCHEMA IF NOT EXISTS %I AUTHORIZATION %I', n.nspname, pg_catalog.pg_get_userbyid(n.nspowner))
FROM pg_catalog.pg_namespace n WHERE pg_catalog.quote_ident(n.nspname) = $1`

const schemaGrantsQuery = `
SELECT pg_catalog.format('GRANT %s ON SCHEMA %I TO %s%s', a.privilege_type, n.nspname,
    CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END, CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM pg_catalog.pg_namespace n CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) a WHERE pg_catalog.quote_ident(n.nspname) = $1 ORDER BY 1`

const extensionQuery = `
SELECT pg_catalog.format('CREATE EXTENSION %I WITH SCHEMA %I VERSION %L', e.extname, n.nspname, e.extversion)
FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = $1`

const collationQuery = `
SELECT pg_catalog.format('CREATE COLLATION %s (PROVIDER = %s, DETERMINISTIC = %s, ', $1::text,
        CASE l.collprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END, l.collisdeterministic)
    || CASE WHEN coalesce(j->>'colliculocale', j->>'colllocale') IS NOT NULL THEN pg_catalog.format('LOCALE = %L', coalesce(j->>'colliculocale', j->>'colllocale'))
        WHEN j->>'collcollate' = j->>'collctype' THEN pg_catalog.format('LOCALE = %L', j->>'collcollate')
        ELSE pg_catalog.format('LC_COLLATE = %L, LC_CTYPE = %L', j->>'collcollate', j->>'collctype') END || ')'
FROM pg_catalog.pg_collation l CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(l) AS j) x
WHERE l.oid = pg_catalog.to_regcollation($1)`

// typeQuery: enums with their order, domains with their constraints, composite types and ranges.
const typeQuery = `
SELECT x.statement FROM pg_catalog.pg_type t CROSS JOIN LATERAL (VALUES
    (1, CASE t.typtype
    WHEN 'e' THEN pg_catalog.format('CREATE TYPE %s AS ENUM (%s)', $1::text,
        (SELECT pg_catalog.string_agg(pg_catalog.quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid))
    WHEN 'd' THEN pg_catalog.format('CREATE DOMAIN %s AS %s', $1, pg_catalog.format_type(t.typbasetype, t.typtypmod))
        || coalesce((SELECT pg_catalog.format(' COLLATE %I.%I', n.nspname, l.collname) FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
            JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype WHERE l.oid = t.typcollation AND t.typcollation <> b.typcollation), '')
        || coalesce(' DEFAULT ' || pg_catalog.pg_get_expr(t.typdefaultbin, 0), '') || CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END
        || coalesce((SELECT pg_catalog.string_agg(pg_catalog.format(' CONSTRAINT %I %s', con.conname, pg_catalog.pg_get_constraintdef(con.oid)), '' ORDER BY con.conname)
            FROM pg_catalog.pg_constraint con WHERE con.contypid = t.oid AND con.contype = 'c'), '')
    WHEN 'c' THEN pg_catalog.format('CREATE TYPE %s AS (%s)', $1, (
        SELECT pg_catalog.string_agg(pg_catalog.format('%I %s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod))
            || coalesce((SELECT pg_catalog.format(' COLLATE %I.%I', n.nspname, l.collname) FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
                JOIN pg_catalog.pg_type b ON b.oid = a.atttypid WHERE l.oid = a.attcollation AND a.attcollation <> b.typcollation), ''), ', ' ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped))
    WHEN 'r' THEN (SELECT CASE WHEN r.rngcanonical <> 0 THEN NULL ELSE
            pg_catalog.format('CREATE TYPE %s AS RANGE (SUBTYPE = %s, SUBTYPE_OPCLASS = %I.%I%s%s%s)', $1, pg_catalog.format_type(r.rngsubtype, NULL), n.nspname, o.opcname,
            coalesce((SELECT pg_catalog.format(', COLLATION = %I.%I', cn.nspname, l.collname) FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace cn ON cn.oid = l.collnamespace WHERE l.oid = r.rngcollation), ''),
            CASE WHEN r.rngsubdiff <> 0 THEN ', SUBTYPE_DIFF = ' || r.rngsubdiff::pg_catalog.regproc ELSE '' END,
            coalesce((SELECT pg_catalog.format(', MULTIRANGE_TYPE_NAME = %I.%I', mn.nspname, m.typname) FROM pg_catalog.pg_type m JOIN pg_catalog.pg_namespace mn ON mn.oid = m.typnamespace
                WHERE m.oid = (pg_catalog.to_jsonb(r)->>'rngmultitypid')::oid), '')) END
        FROM pg_catalog.pg_range r JOIN pg_catalog.pg_opclass o ON o.oid = r.rngsubopc JOIN pg_catalog.pg_namespace n ON n.oid = o.opcnamespace WHERE r.rngtypid = t.oid)
    END),
    (2, CASE WHEN t.typtype IN ('e', 'd', 'c', 'r') THEN pg_catalog.format('ALTER %s %s OWNER TO %I', CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, $1, pg_catalog.pg_get_userbyid(t.typowner)) END)
    ) x(pos, statement)
WHERE t.oid = pg_catalog.to_regtype($1) AND x.statement IS NOT NULL ORDER BY x.pos`

const typeGrantsQuery = `
(SELECT pg_catalog.format('REVOKE ALL ON TYPE %s FROM PUBLIC', $1::text) FROM pg_catalog.pg_type t WHERE t.oid = pg_catalog.to_regtype($1) AND t.typacl IS NOT NULL)
UNION ALL
(SELECT pg_catalog.format('GRANT %s ON TYPE %s TO %s', a.privilege_type, $1::text, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
FROM pg_catalog.pg_type t CROSS JOIN LATERAL pg_catalog.aclexplode(t.typacl) a WHERE t.oid = pg_catalog.to_regtype($1) ORDER BY 1)`

// functionQuery: functions and procedures; aggregates and window functions are not made.
const functionQuery = `
SELECT x.statement FROM pg_catalog.pg_proc p CROSS JOIN LATERAL (VALUES
    (1, pg_catalog.pg_get_functiondef(p.oid)),
    (2, pg_catalog.format('ALTER %s %s OWNER TO %I', CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, $1::text, pg_catalog.pg_get_userbyid(p.proowner)))) x(pos, statement)
WHERE p.oid = pg_catalog.to_regprocedure($1) AND p.prokind IN ('f', 'p') ORDER BY x.pos`

const functionGrantsQuery = `
(SELECT pg_catalog.format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', $1::text) FROM pg_catalog.pg_proc p WHERE p.oid = pg_catalog.to_regprocedure($1) AND p.proacl IS NOT NULL)
UNION ALL
(SELECT pg_catalog.format('GRANT %s ON ROUTINE %s TO %s', a.privilege_type, $1::text, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
FROM pg_catalog.pg_proc p CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) a WHERE p.oid = pg_catalog.to_regprocedure($1) ORDER BY 1)`
