package schema

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/planner/shardsql"
	"github.com/shardyard/shardyard/router/pgerr"
)

// Show answers SHOW SHARDS, SHOW TABLES and SHOW PARTITIONS from a map; of tables by DIRECTORY the number of
// entries comes from store. A table named without a schema is looked for along searchPath (public if that is
// empty) among the tables of the map.
func Show(
	ctx context.Context, m *directory.Map, statement shardsql.Statement, searchPath []string, store *etcd.Store,
) (*Result, error) {
	switch s := statement.(type) {
	case *shardsql.ShowShards:
		return showShards(m), nil
	case *shardsql.ShowTables:
		return showTables(m), nil
	case *shardsql.ShowPartitions:
		return showPartitions(ctx, m, s, searchPath, store)
	}
	return nil, fmt.Errorf("show %T: not a SHOW statement", statement)
}

func showShards(m *directory.Map) *Result {
	r := &Result{Columns: []string{"name", "role", "primary", "replicas", "state"}, Tag: "SHOW"}
	for _, shard := range m.Shards {
		role := ""
		if shard.ID == m.Home {
			role = "home"
		}
		replicas := make([]string, len(shard.Replicas))
		for i, replica := range shard.Replicas {
			replicas[i] = address(replica)
		}
		r.Rows = append(r.Rows, []string{string(shard.ID), role, address(shard.Primary), strings.Join(replicas, ", "), string(shard.State)})
	}
	return r
}

func address(e directory.Endpoint) string { return fmt.Sprintf("%s:%d", e.Host, e.Port) }

func showTables(m *directory.Map) *Result {
	r := &Result{
		Columns: []string{"schema", "name", "kind", "method", "key", "group", "partitions", "shards"}, Tag: "SHOW",
	}
	tables := slices.Clone(m.Tables)
	slices.SortFunc(tables, func(a, b directory.Table) int { return strings.Compare(a.Name.String(), b.Name.String()) })
	for i := range tables {
		t := &tables[i]
		row := []string{t.Name.Schema, t.Name.Name, string(t.Kind), "", "", "", "", shardNames(m.ShardsOf(t))}
		if t.Kind == directory.TableReference {
			row[4] = columnList(t.Key)
		}
		if g, ok := m.Group(t.Group); ok && t.Kind == directory.TableSharded {
			row[3], row[4] = string(g.Method), columnList(t.Key)
			if g.Composite() {
				row[3] += ", " + string(g.SubMethod)
				row[4] += ", " + columnList(t.SubKey)
			}
			if g.Method == directory.MethodDirectory {
				row[3] += ", assign " + cmp.Or(string(g.Assign), "none")
			}
			row[5], row[6] = string(g.ID), strconv.Itoa(len(g.Partitions))
		}
		r.Rows = append(r.Rows, row)
	}
	return r
}

func columnList(columns []string) string {
	quoted := make([]string, len(columns))
	for i, column := range columns {
		quoted[i] = directory.QuoteIdentifier(column)
	}
	return "(" + strings.Join(quoted, ", ") + ")"
}

func shardNames(shards []directory.ShardID) string {
	names := make([]string, len(shards))
	for i, shard := range shards {
		names[i] = string(shard)
	}
	return strings.Join(names, ", ")
}

func showPartitions(
	ctx context.Context, m *directory.Map, s *shardsql.ShowPartitions, searchPath []string, store *etcd.Store,
) (*Result, error) {
	t := findTable(m, s.Table, searchPath)
	if t == nil {
		return nil, pgerr.Newf("42P01", "table %q is not sharded", displayName(s.Table)).At(s.Table.Position).
			WithHint("SHOW TABLES lists the tables that are. Every other table lives on the home shard.")
	}
	r := &Result{Columns: []string{"name", "shard", "bounds", "parent"}, Tag: "SHOW"}
	g, ok := m.Group(t.Group)
	if !ok || t.Kind != directory.TableSharded {
		r.Rows = append(r.Rows, []string{t.Name.Name, string(t.Shard), "", ""})
		return r, nil
	}
	var counts map[directory.ShardID]int
	if g.Method == directory.MethodDirectory {
		var err error
		if counts, err = store.CountEntries(ctx, g); err != nil {
			return nil, err
		}
	}
	for i := range g.Partitions {
		partition := &g.Partitions[i]
		bounds := g.Describe(i)
		if g.Method == directory.MethodDirectory {
			bounds = strconv.Itoa(counts[partition.Shard]) + " entries"
		}
		r.Rows = append(r.Rows, []string{partition.Name, string(partition.Shard), bounds, partition.Parent})
	}
	return r, nil
}

func findTable(m *directory.Map, name shardsql.Name, searchPath []string) *directory.Table {
	schemas := searchPath
	if len(schemas) == 0 {
		schemas = []string{"public"}
	}
	if name.Schema != "" {
		schemas = []string{name.Schema}
	}
	for _, schema := range schemas {
		if t, ok := m.Table(directory.TableName{Schema: schema, Name: name.Name}); ok {
			return t
		}
	}
	return nil
}

func displayName(name shardsql.Name) string {
	if name.Schema == "" {
		return name.Name
	}
	return name.Schema + "." + name.Name
}
