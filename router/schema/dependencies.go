package schema

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/planner/catalog"
	"github.com/shardyard/shardyard/router/pgerr"
)

// objectID names an object of any catalog on one server.
type objectID struct{ class, object uint32 }

// dependency is an object that a table needs, and that a shard must have before the table.
type dependency struct {
	Kind     string // "schema", "extension", "collation", "type", "function"
	Identity string // qualified name; a function's with its argument types
}

// walker collects what a table needs, transitively.
type walker struct {
	conn    *pgx.Conn
	catalog *catalog.Snapshot
	classes map[string]uint32 // OIDs of the system catalogs by name
	edges   map[objectID][]objectID
}

// dependenciesOf lists the user objects that the table with that OID needs, each after those that it needs
// itself: by pg_depend, and for functions by the names in their bodies.
func dependenciesOf(ctx context.Context, conn *pgx.Conn, snapshot *catalog.Snapshot, table uint32) ([]dependency, error) {
	w, err := newWalker(ctx, conn, snapshot)
	if err != nil {
		return nil, err
	}
	start, err := w.parts(ctx, table)
	if err != nil {
		return nil, fmt.Errorf("list parts of table: %w", err)
	}
	return w.dependencies(ctx, start, start)
}

// dependenciesOfNamed is dependenciesOf for functions and types, themselves included.
func dependenciesOfNamed(ctx context.Context, conn *pgx.Conn, snapshot *catalog.Snapshot, functions []*catalog.Function, types []*catalog.Type) ([]dependency, error) {
	w, err := newWalker(ctx, conn, snapshot)
	if err != nil {
		return nil, err
	}
	var start []objectID
	for _, f := range functions {
		if f.Kind == 'f' || f.Kind == 'p' {
			start = append(start, objectID{w.classes["pg_proc"], f.OID})
		}
	}
	for _, t := range types {
		if rel, isTable := snapshot.RelationByOID(t.Relation); !isTable || rel.Kind == catalog.KindComposite {
			start = append(start, objectID{w.classes["pg_type"], t.OID})
		}
	}
	return w.dependencies(ctx, start, nil)
}

// newWalker makes every name be printed qualified until the end of the transaction.
func newWalker(ctx context.Context, conn *pgx.Conn, snapshot *catalog.Snapshot) (*walker, error) {
	if _, err := conn.Exec(ctx, "SELECT pg_catalog.set_config('search_path', '', false)"); err != nil {
		return nil, err
	}
	w := &walker{conn: conn, catalog: snapshot, classes: make(map[string]uint32), edges: make(map[objectID][]objectID)}
	if err := w.loadClasses(ctx); err != nil {
		return nil, fmt.Errorf("list system catalogs: %w", err)
	}
	return w, nil
}

func (w *walker) dependencies(ctx context.Context, start, own []objectID) ([]dependency, error) {
	if err := w.walk(ctx, start); err != nil {
		return nil, fmt.Errorf("list dependencies: %w", err)
	}
	return w.describeAll(ctx, w.order(start), own)
}

func (w *walker) loadClasses(ctx context.Context) error {
	rows, err := w.conn.Query(ctx, `SELECT c.relname::text, c.oid FROM pg_catalog.pg_class c
		WHERE c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace AND c.relkind = 'r'`)
	if err != nil {
		return err
	}
	var name string
	var oid uint32
	_, err = pgx.ForEachRow(rows, []any{&name, &oid}, func() error {
		w.classes[name] = oid
		return nil
	})
	return err
}

const partsQuery = `
SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, $1::oid
UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, indexrelid FROM pg_catalog.pg_index WHERE indrelid = $1
UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, oid FROM pg_catalog.pg_constraint WHERE conrelid = $1
UNION ALL SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, oid FROM pg_catalog.pg_attrdef WHERE adrelid = $1
UNION ALL SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass, oid FROM pg_catalog.pg_trigger t WHERE tgrelid = $1 AND NOT tgisinternal AND ` + notOurs + `
UNION ALL SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass, oid FROM pg_catalog.pg_policy WHERE polrelid = $1
UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, oid FROM pg_catalog.pg_statistic_ext WHERE stxrelid = $1`

func (w *walker) parts(ctx context.Context, table uint32) ([]objectID, error) {
	rows, err := w.conn.Query(ctx, partsQuery, table)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (id objectID, err error) {
		return id, row.Scan(&id.class, &id.object)
	})
}

// edgesQuery lists what objects refer to. What pg_depend lacks: a domain needs its constraints, a composite
// type its columns, which depend on the type's relation. Relations are followed for composite types only:
// other tables are not copied. The last column: by membership in an extension.
const edgesQuery = `
SELECT s.class, s.object, e.class, e.object, e.member
FROM ROWS FROM (pg_catalog.unnest($1::oid[]), pg_catalog.unnest($2::oid[])) s(class, object)
CROSS JOIN LATERAL (
    SELECT d.refclassid, d.refobjid, d.deptype = 'e' FROM pg_catalog.pg_depend d WHERE d.classid = s.class AND d.objid = s.object
    UNION SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, con.oid, false FROM pg_catalog.pg_constraint con
        WHERE s.class = 'pg_catalog.pg_type'::pg_catalog.regclass AND con.contypid = s.object
    UNION SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, t.typrelid, false FROM pg_catalog.pg_type t
        WHERE s.class = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = s.object AND t.typrelid <> 0
) e(class, object, member)
WHERE e.object >= 16384 AND (e.class <> 'pg_catalog.pg_class'::pg_catalog.regclass
    OR EXISTS (SELECT 1 FROM pg_catalog.pg_class c WHERE c.oid = e.object AND c.relkind = 'c'))
ORDER BY 1, 2, 3, 4`

func (w *walker) walk(ctx context.Context, frontier []objectID) error {
	for len(frontier) > 0 {
		classes, objects := make([]uint32, len(frontier)), make([]uint32, len(frontier))
		for i, id := range frontier {
			classes[i], objects[i] = id.class, id.object
			if w.edges[id] == nil {
				w.edges[id] = []objectID{}
			}
		}
		rows, err := w.conn.Query(ctx, edgesQuery, classes, objects)
		if err != nil {
			return err
		}
		var from, to objectID
		var member bool
		members := make(map[objectID]bool)
		_, err = pgx.ForEachRow(rows, []any{&from.class, &from.object, &to.class, &to.object, &member}, func() error {
			switch {
			case member: // of an extension: that brings everything the object needs
				members[from], w.edges[from] = true, []objectID{to}
			case !members[from]:
				w.edges[from] = append(w.edges[from], to)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, id := range frontier {
			if !members[id] {
				w.addNamed(id)
			}
		}
		frontier = w.unseen(frontier)
	}
	return nil
}

// addNamed adds what a function's body names: pg_depend does not know it.
func (w *walker) addNamed(id objectID) {
	if id.class != w.classes["pg_proc"] {
		return
	}
	f, ok := w.catalog.FunctionByOID(id.object)
	if !ok || f.Builtin() {
		return
	}
	functions, types := w.catalog.Named(f.Source)
	for _, named := range functions {
		w.edges[id] = append(w.edges[id], objectID{w.classes["pg_proc"], named.OID})
	}
	for _, named := range types {
		if rel, isTable := w.catalog.RelationByOID(named.Relation); isTable && rel.Kind != catalog.KindComposite {
			continue
		}
		w.edges[id] = append(w.edges[id], objectID{w.classes["pg_type"], named.OID})
	}
}

func (w *walker) unseen(from []objectID) []objectID {
	var next []objectID
	queued := make(map[objectID]bool)
	for _, id := range from {
		for _, to := range w.edges[id] {
			if w.edges[to] == nil && !queued[to] {
				queued[to] = true
				next = append(next, to)
			}
		}
	}
	return next
}

// order lists all objects, each after what it refers to; cycles are cut where they are entered.
func (w *walker) order(start []objectID) []objectID {
	var ordered []objectID
	seen := make(map[objectID]bool)
	var visit func(id objectID)
	visit = func(id objectID) {
		if seen[id] {
			return
		}
		seen[id] = true
		for _, to := range w.edges[id] {
			visit(to)
		}
		ordered = append(ordered, id)
	}
	for _, id := range start {
		visit(id)
	}
	return ordered
}

// identifyQuery names an object; kind "" is an object that comes with another one.
const identifyQuery = `
SELECT x.kind, x.identity FROM (
    SELECT 'schema', pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_namespace n WHERE $1::oid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND n.oid = $2
    UNION ALL SELECT 'extension', e.extname::text FROM pg_catalog.pg_extension e WHERE $1 = 'pg_catalog.pg_extension'::pg_catalog.regclass AND e.oid = $2
    UNION ALL SELECT 'collation', pg_catalog.format('%I.%I', n.nspname, l.collname) FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
        WHERE $1 = 'pg_catalog.pg_collation'::pg_catalog.regclass AND l.oid = $2
    UNION ALL SELECT CASE WHEN t.typtype IN ('m', 'p') OR t.typcategory = 'A' AND t.typelem <> 0 OR coalesce(c.relkind <> 'c', false) THEN '' ELSE 'type' END,
        pg_catalog.format('%I.%I', n.nspname, t.typname)
        FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
        WHERE $1 = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = $2
    UNION ALL SELECT 'function', p.oid::pg_catalog.regprocedure::text FROM pg_catalog.pg_proc p WHERE $1 = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = $2
    UNION ALL SELECT '', '' WHERE $1 IN ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_constraint'::pg_catalog.regclass)
) x(kind, identity)`

func (w *walker) describeAll(ctx context.Context, ordered, parts []objectID) ([]dependency, error) {
	own := make(map[objectID]bool, len(parts))
	for _, id := range parts {
		own[id] = true
	}
	var all []dependency
	for _, id := range ordered {
		if own[id] || w.member(id) {
			continue
		}
		var d dependency
		err := w.conn.QueryRow(ctx, identifyQuery, id.class, id.object).Scan(&d.Kind, &d.Identity)
		if errors.Is(err, pgx.ErrNoRows) {
			var what string
			if err := w.conn.QueryRow(ctx, "SELECT pg_catalog.pg_describe_object($1, $2, 0)", id.class, id.object).Scan(&what); err != nil {
				return nil, err
			}
			return nil, pgerr.Unsupported("the table depends on "+what+", which cannot be created on other shards",
				"Create it in an extension, or do without it.")
		}
		if err != nil {
			return nil, fmt.Errorf("identify dependency: %w", err)
		}
		if d.Kind != "" {
			all = append(all, d)
		}
	}
	return all, nil
}

// member: the object came with an extension, which is its only dependency.
func (w *walker) member(id objectID) bool {
	return len(w.edges[id]) == 1 && w.edges[id][0].class == w.classes["pg_extension"] && id.class != w.classes["pg_extension"]
}
