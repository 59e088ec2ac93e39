package catalogs

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/planner/catalog"
)

// Loader loads catalogs. It keeps what initdb made in each database, which is most of a catalog and hardly ever changes, from one
// loading to the next. The zero value is ready for use; it is safe for concurrent use.
type Loader struct {
	mu       sync.Mutex
	builtins []*builtins // the one used last is the last
}

// maxBuiltins is how many databases' built-in objects are kept, about a megabyte each.
const maxBuiltins = 8

// builtinsKey says whether a database's built-in objects are those that were read before: who changes one of them leaves a new
// xmin in its row.
type builtinsKey struct {
	database                    uint32
	version                     int32
	functions, types, relations int64
}

// builtins are the built-in objects of a database. Invariant: nobody changes them once they are kept.
type builtins struct {
	key       builtinsKey
	functions []*catalog.Function
	types     []*catalog.Type
	relations []*catalog.Relation
}

const builtinsKeyQuery = `
SELECT d.oid, pg_catalog.current_setting('server_version_num')::int4, f.sum, t.sum, c.sum
FROM pg_catalog.pg_database d,
     (SELECT pg_catalog.count(*) + pg_catalog.sum(xmin::text::int8)::int8 AS sum FROM pg_catalog.pg_proc WHERE oid < 16384) f,
     (SELECT pg_catalog.count(*) + pg_catalog.sum(xmin::text::int8)::int8 AS sum FROM pg_catalog.pg_type WHERE oid < 16384) t,
     (SELECT pg_catalog.count(*) + pg_catalog.sum(xmin::text::int8)::int8 AS sum FROM pg_catalog.pg_class WHERE oid < 16384) c
WHERE d.datname = pg_catalog.current_database()`

func readBuiltinsKey(ctx context.Context, conn *pgx.Conn) (key builtinsKey, err error) {
	row := conn.QueryRow(ctx, builtinsKeyQuery)
	if err := row.Scan(&key.database, &key.version, &key.functions, &key.types, &key.relations); err != nil {
		return key, fmt.Errorf("look for changes of built-in objects: %w", err)
	}
	return key, nil
}

// known are the built-in objects with that key; nil if they are not kept.
func (l *Loader) known(key builtinsKey) *builtins {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := slices.IndexFunc(l.builtins, func(b *builtins) bool { return b.key == key })
	if at < 0 {
		return nil
	}
	found := l.builtins[at]
	l.builtins = append(slices.Delete(l.builtins, at, at+1), found)
	return found
}

// keep keeps the built-in objects of a database in place of older ones.
func (l *Loader) keep(read *builtins) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.builtins = slices.DeleteFunc(l.builtins, func(b *builtins) bool { return b.key.database == read.key.database })
	if len(l.builtins) == maxBuiltins {
		l.builtins = slices.Delete(l.builtins, 0, 1)
	}
	l.builtins = append(l.builtins, read)
}

// queueBuiltins has the batch read the built-in objects.
func (r *reader) queueBuiltins(batch *pgx.Batch) {
	queue(batch, systemRelationsQuery, r.systemRelation)
	queue(batch, functionsQuery+builtinFunctions, r.function)
	queue(batch, typesQuery+builtinTypes, r.typ)
	queue(batch, domainChecksQuery+builtinDomains, r.domainCheck)
}

// takeBuiltins are the built-in objects that were read, before anything else is.
func (r *reader) takeBuiltins(key builtinsKey) *builtins {
	taken := &builtins{
		key: key, functions: slices.Clip(r.data.Functions), types: slices.Clip(r.data.Types), relations: slices.Clip(r.data.Relations),
	}
	for _, f := range taken.functions {
		f.Opaque = catalog.ReadsTables(f.Name) // as catalog.New would say
	}
	return taken
}

// use begins with built-in objects.
func (r *reader) use(b *builtins) {
	r.data.Functions, r.data.Types = b.functions, b.types
	for _, rel := range b.relations {
		r.add(rel)
	}
}
