package catalogs

// What another session drops meanwhile has no definition any more: NULL. A view that an old snapshot still shows must not be asked for
// it; pg_table_is_visible tells what exists now.
//
// A user relation is one outside Postgres's own schemas.
const notSystem = `n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'`

// extension finds the extension that an object belongs to; %[1]s is replaced by the catalog's name.
func extension(class, oid string) string {
	return `coalesce((SELECT e.extname::text FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
		WHERE d.classid = 'pg_catalog.` + class + `'::pg_catalog.regclass AND d.objid = ` + oid + `
		AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e' LIMIT 1), '')`
}

const schemasQuery = `
SELECT n.nspname::text, pg_catalog.pg_get_userbyid(n.nspowner)::text,
       CASE WHEN NOT pg_catalog.has_schema_privilege('public', n.oid, 'USAGE') THEN
           ARRAY(SELECT r.rolname::text FROM pg_catalog.pg_roles r WHERE pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE'))
       END
FROM pg_catalog.pg_namespace n
WHERE n.nspname !~ '^pg_(toast|temp)'`

var relationsQuery = `
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text,
       pg_catalog.pg_get_userbyid(c.relowner)::text, c.relrowsecurity, c.relforcerowsecurity, c.reltype,
       ` + extension("pg_class", "c.oid") + `,
       coalesce(w.fdwhandler = 0, false),
       CASE WHEN c.relkind IN ('v', 'm') AND pg_catalog.pg_table_is_visible(c.oid) IS NOT NULL THEN coalesce(pg_catalog.pg_get_viewdef(c.oid), '') ELSE '' END,
       coalesce(own.nspname::text, ''), coalesce(own.relname::text, '')
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_foreign_table ft ON ft.ftrelid = c.oid
LEFT JOIN pg_catalog.pg_foreign_server s ON s.oid = ft.ftserver
LEFT JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw
LEFT JOIN LATERAL (
    SELECT tn.nspname, t.relname FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_class t ON t.oid = d.refobjid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
    WHERE c.relkind = 'S' AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
      AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i') LIMIT 1) own ON true
WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p', 'S', 'c') AND ` + notSystem + `
ORDER BY c.oid`

const indexesQuery = `
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, tn.nspname::text, t.relname::text
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
WHERE ` + notSystem + `
ORDER BY c.oid`

const systemRelationsQuery = `
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.reltype
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v') AND n.nspname IN ('pg_catalog', 'information_schema')`

// pg_get_expr locks the table that it is given, so it would wait for a transaction that changes the table; but for
// generated columns an expression of a column needs none.
//
// The columns that PostgreSQL 15 and 17 added to pg_collation and pg_database are read through jsonb, so
// that one query serves all versions.
const columnsQuery = `
SELECT a.attrelid, a.attnum::int4, a.attname::text, a.atttypid, a.atttypmod, a.attnotnull, a.attisdropped,
       a.attgenerated <> '', a.attidentity::text, a.atthasdef,
       coalesce(pg_catalog.pg_get_expr(ad.adbin, CASE WHEN a.attgenerated = '' THEN 0 ELSE ad.adrelid END), ''), a.attcollation,
       coalesce(l.collisdeterministic, true),
       coalesce(CASE WHEN l.oid = 100 THEN db.isc ELSE
           coalesce(pg_catalog.to_jsonb(l)->>'collcollate', pg_catalog.to_jsonb(l)->>'colllocale') IN ('C', 'POSIX')
           AND l.collprovider <> 'i' END, false),
       CASE WHEN a.attisdropped THEN '' ELSE pg_catalog.format_type(a.atttypid, NULL) END,
       CASE WHEN a.attisdropped THEN '' ELSE pg_catalog.format_type(a.atttypid, a.atttypmod) ||
           CASE WHEN l.oid IS NULL OR l.oid = ty.typcollation THEN '' ELSE
               ' COLLATE ' || l.collnamespace::pg_catalog.regnamespace::text || '.' || pg_catalog.quote_ident(l.collname) END END,
       coalesce(seq.schema, ''), coalesce(seq.name, '')
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_type ty ON ty.oid = a.atttypid
LEFT JOIN pg_catalog.pg_attrdef ad ON ad.adrelid = a.attrelid AND ad.adnum = a.attnum
LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
LEFT JOIN LATERAL (
    SELECT sn.nspname::text AS schema, s.relname::text AS name
    FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_class s ON s.relkind = 'S' AND s.oid = CASE WHEN a.attidentity <> '' THEN d.objid ELSE d.refobjid END
    JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace
    WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND (
        a.attidentity <> '' AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.deptype = 'i'
        OR a.attidentity = '' AND d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = ad.oid
            AND pg_catalog.pg_get_expr(ad.adbin, ad.adrelid) ~ '^nextval\(''([^'']|'''')+''::regclass\)$')
    LIMIT 1) seq ON a.attidentity <> '' OR ad.oid IS NOT NULL
CROSS JOIN (
    SELECT CASE coalesce(pg_catalog.to_jsonb(d)->>'datlocprovider', 'c')
           WHEN 'c' THEN d.datcollate IN ('C', 'POSIX')
           WHEN 'b' THEN coalesce(pg_catalog.to_jsonb(d)->>'datlocale', '') = 'C'
           ELSE false END AS isc
    FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) db
WHERE a.attnum > 0 AND c.relkind IN ('r', 'v', 'm', 'f', 'p') AND n.nspname <> 'pg_catalog'
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_(toast|temp)'
ORDER BY a.attrelid, a.attnum`

var keysQuery = `
SELECT i.indrelid, ic.relname::text,
       ARRAY(SELECT coalesce(a.attname::text, '') FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, pos)
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum > 0
             WHERE k.pos <= i.indnkeyatts ORDER BY k.pos),
       i.indisprimary, i.indisexclusion, con.oid IS NOT NULL, coalesce(con.condeferrable, false), i.indpred IS NOT NULL,
       i.indisvalid,
       ARRAY(SELECT o.oprname::text FROM pg_catalog.unnest(con.conexclop) WITH ORDINALITY x(op, pos)
             JOIN pg_catalog.pg_operator o ON o.oid = x.op ORDER BY x.pos),
       CASE WHEN i.indisexclusion THEN coalesce(
           (SELECT pg_catalog.bool_and(o.oprname = '=' AND o.oprnamespace = 'pg_catalog'::pg_catalog.regnamespace)
            FROM pg_catalog.unnest(con.conexclop) x(op) JOIN pg_catalog.pg_operator o ON o.oid = x.op), false)
       ELSE NOT EXISTS (SELECT 1 FROM pg_catalog.unnest(i.indclass::oid[]) x(class)
            JOIN pg_catalog.pg_opclass oc ON oc.oid = x.class
            WHERE oc.opcnamespace <> 'pg_catalog'::pg_catalog.regnamespace)
       END AND NOT EXISTS (SELECT 1 FROM pg_catalog.unnest(i.indcollation::oid[]) x(coll)
            JOIN pg_catalog.pg_collation l ON l.oid = x.coll WHERE NOT l.collisdeterministic)
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_constraint con ON con.conindid = i.indexrelid AND con.conrelid = i.indrelid AND con.contype IN ('p', 'u', 'x')
WHERE (i.indisunique OR i.indisexclusion) AND ` + notSystem + `
ORDER BY i.indrelid, i.indisprimary DESC, ic.relname`

var foreignKeysQuery = `
SELECT con.conrelid, con.conname::text,
       ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(con.conkey) WITH ORDINALITY k(attnum, pos)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.attnum ORDER BY k.pos),
       fn.nspname::text, f.relname::text,
       ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(con.confkey) WITH ORDINALITY k(attnum, pos)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = con.confrelid AND a.attnum = k.attnum ORDER BY k.pos),
       con.confupdtype::text, con.confdeltype::text, con.confmatchtype::text, con.condeferrable
FROM pg_catalog.pg_constraint con
JOIN pg_catalog.pg_class f ON f.oid = con.confrelid
JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace
JOIN pg_catalog.pg_class c ON c.oid = con.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE con.contype = 'f' AND ` + notSystem + `
ORDER BY con.conrelid, con.conname`

var checksQuery = `
SELECT con.conrelid, con.conname::text, coalesce(pg_catalog.pg_get_constraintdef(con.oid), '')
FROM pg_catalog.pg_constraint con
JOIN pg_catalog.pg_class c ON c.oid = con.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE con.contype = 'c' AND ` + notSystem + `
ORDER BY con.conrelid, con.conname`

var triggersQuery = `
SELECT t.tgrelid, t.tgname::text, t.tgfoid, t.tgtype & 1 <> 0, t.tgtype & 2 <> 0, t.tgtype & 64 <> 0,
       pg_catalog.concat_ws(',', CASE WHEN t.tgtype & 4 <> 0 THEN 'INSERT' END, CASE WHEN t.tgtype & 8 <> 0 THEN 'DELETE' END,
           CASE WHEN t.tgtype & 16 <> 0 THEN 'UPDATE' END, CASE WHEN t.tgtype & 32 <> 0 THEN 'TRUNCATE' END),
       t.tgenabled::text, t.tgconstraint <> 0, coalesce(pg_catalog.pg_get_triggerdef(t.oid), '')
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND t.tgfoid NOT IN (SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.pronamespace = pg_catalog.to_regnamespace('shardyard')) AND ` + notSystem + `
ORDER BY t.tgrelid, t.tgname`

const policiesQuery = `
SELECT p.polrelid, p.polname::text, p.polpermissive, coalesce(pg_catalog.pg_get_expr(p.polqual, p.polrelid), ''),
       coalesce(pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid), '')
FROM pg_catalog.pg_policy p
ORDER BY p.polrelid, p.polname`

const rulesQuery = `
SELECT r.ev_class, r.rulename::text
FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE r.rulename <> '_RETURN' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
ORDER BY r.ev_class, r.rulename`

const readsQuery = `
SELECT DISTINCT r.ev_class, d.refobjid
FROM pg_catalog.pg_rewrite r
JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
     AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> r.ev_class
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')`

const inheritsQuery = `SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits ORDER BY inhparent, inhseqno`

const publicationsQuery = `
SELECT c.oid, p.pubname::text
FROM pg_catalog.pg_publication_tables p
JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_publication)
ORDER BY 1, 2`

// prosqlbody exists since PostgreSQL 14; a body in SQL standard form leaves prosrc empty.
var functionsQuery = `
SELECT p.oid, n.nspname::text, p.proname::text, p.prokind::text, l.lanname::text, p.provolatile::text, p.proisstrict,
       p.proretset, p.prosecdef, p.proargtypes::oid[], p.provariadic, p.pronargdefaults::int4, p.prorettype,
       CASE WHEN sys.builtin THEN '' ELSE ` + extension("pg_proc", "p.oid") + ` END,
       coalesce(CASE WHEN sys.builtin THEN ''
            WHEN p.prokind = 'a' THEN (
                SELECT pg_catalog.concat_ws(' ', g.aggtransfn, g.aggfinalfn, g.aggcombinefn, g.aggserialfn, g.aggdeserialfn,
                                            g.aggmtransfn, g.aggminvtransfn, g.aggmfinalfn)
                FROM pg_catalog.pg_aggregate g WHERE g.aggfnoid = p.oid)
            ELSE CASE WHEN l.lanname = 'sql' AND p.prosrc = '' THEN pg_catalog.pg_get_functiondef(p.oid) ELSE p.prosrc END
                 || CASE WHEN p.pronargdefaults > 0 THEN E'\n' || pg_catalog.pg_get_function_arguments(p.oid) ELSE '' END
       END, ''),
       CASE WHEN sys.builtin THEN '' ELSE coalesce(pg_catalog.pg_get_function_identity_arguments(p.oid), '') END,
       (SELECT pg_catalog.substr(c, 13) FROM pg_catalog.unnest(p.proconfig) c WHERE pg_catalog.starts_with(c, 'search_path='))
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
CROSS JOIN LATERAL (SELECT n.nspname = 'pg_catalog' AND p.oid < 16384) sys(builtin)
WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_(toast|temp)' AND `

const (
	builtinFunctions = `sys.builtin ORDER BY p.oid`
	userFunctions    = `(p.oid >= 16384 OR p.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace) ORDER BY p.oid`
)

var typesQuery = `
SELECT t.oid, n.nspname::text, t.typname::text, t.typtype::text, t.typcategory::text,
       CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0 END, t.typarray, t.typbasetype, t.typtypmod, t.typnotnull,
       t.typrelid, t.typcollation, t.typdelim::text,
       CASE WHEN t.typtype = 'e' THEN
           ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder) END,
       coalesce((SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid), 0),
       CASE WHEN t.oid < 16384 THEN '' ELSE ` + extension("pg_type", "t.oid") + ` END
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE n.nspname !~ '^pg_(toast|temp)' AND `

const (
	builtinTypes = `t.oid < 16384 ORDER BY t.oid`
	userTypes    = `t.oid >= 16384 ORDER BY t.oid`
)

const attributesQuery = `
SELECT c.reltype, a.attname::text, a.atttypid, a.atttypmod
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
WHERE c.relkind = 'c' AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum`

const domainChecksQuery = `
SELECT con.contypid, coalesce(pg_catalog.pg_get_constraintdef(con.oid), '')
FROM pg_catalog.pg_constraint con
WHERE con.contypid <> 0 AND con.contype = 'c' AND `

const (
	builtinDomains = `con.contypid < 16384 ORDER BY con.contypid, con.conname`
	userDomains    = `con.contypid >= 16384 ORDER BY con.contypid, con.conname`
)

const operatorsQuery = `
SELECT n.nspname::text, o.oprname::text, o.oprleft, o.oprright, o.oprcode::oid
FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
WHERE n.nspname <> 'pg_catalog' OR o.oid >= 16384
ORDER BY o.oid`

const castsQuery = `
SELECT castsource, casttarget, castfunc, castcontext::text
FROM pg_catalog.pg_cast WHERE oid >= 16384 ORDER BY oid`
