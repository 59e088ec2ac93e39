package catalogs

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/planner/catalog"
)

// objectsQuery lists what statements name besides relations. Row types and array types come with others.
const objectsQuery = `
SELECT 'f', n.nspname::text, p.proname::text
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE p.oid >= 16384 AND n.nspname NOT IN ('shardyard', 'pg_catalog')
UNION SELECT 'o', n.nspname::text, o.oprname::text
FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace WHERE o.oid >= 16384
UNION SELECT 'c', n.nspname::text, c.collname::text
FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
WHERE c.oid >= 16384 AND n.nspname <> 'pg_catalog'
UNION SELECT 't', n.nspname::text, t.typname::text
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_class r ON r.oid = t.typrelid
WHERE t.oid >= 16384 AND n.nspname NOT IN ('shardyard', 'pg_catalog') AND n.nspname !~ '^pg_(toast|temp)'
    AND t.typcategory <> 'A' AND coalesce(r.relkind, 'c') = 'c'`

func readObjects(ctx context.Context, conn *pgx.Conn) ([]catalog.Object, error) {
	rows, err := conn.Query(ctx, objectsQuery)
	if err != nil {
		return nil, fmt.Errorf("read objects: %w", err)
	}
	objects, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (catalog.Object, error) {
		var kind string
		var o catalog.Object
		err := row.Scan(&kind, &o.Schema, &o.Name)
		if err == nil {
			o.Kind = catalog.ObjectKind(kind[0])
		}
		return o, err
	})
	if err != nil {
		return nil, fmt.Errorf("read objects: %w", err)
	}
	return objects, nil
}

// lacking are the objects that some shard which holds a table of the map does not have, or may not have.
func (s *shardAnswers) lacking(m *directory.Map, home []catalog.Object) []catalog.Object {
	used := make(map[directory.ShardID]bool)
	for i := range m.Tables {
		for _, shard := range m.ShardsOf(&m.Tables[i]) {
			used[shard] = true
		}
	}
	var lacking []catalog.Object
	for _, o := range home {
		for shard, has := range s.objects {
			if used[shard] && !has[o] {
				lacking = append(lacking, o)
				break
			}
		}
	}
	return lacking
}
