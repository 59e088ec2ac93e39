package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
	"github.com/shardyard/shardyard/planner/shardsql"
	"github.com/shardyard/shardyard/router/schema"
)

func newTableCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "table",
		Short:   "Show how tables are distributed",
		Example: "  shardyard table list\n  shardyard table show public.orders",
	}
	cmd.AddCommand(newTableListCommand(), newTableShowCommand())
	return cmd
}

// mapFlags picks one database's map of the directory.
type mapFlags struct {
	directoryFlags
	database string
	asJSON   bool
}

func addMapFlags(cmd *cobra.Command, m *mapFlags) {
	addDirectoryFlags(cmd.Flags(), &m.directoryFlags)
	cmd.Flags().StringVarP(&m.database, "database", "d", "postgres", "database")
	cmd.Flags().BoolVar(&m.asJSON, "json", false, "print JSON")
}

// show prints what statement, one of the SHOW statements, says of the map.
func (f mapFlags) show(cmd *cobra.Command, statement shardsql.Statement) error {
	return f.withStore(cmd, func(ctx context.Context, store *etcd.Store) error {
		m, err := store.LoadMap(ctx, f.database)
		if err != nil {
			return fmt.Errorf("load the map of database %s: %w", f.database, err)
		}
		result, err := schema.Show(ctx, m, statement, nil, store)
		if err != nil {
			return err
		}
		return printResult(cmd, result, f.asJSON)
	})
}

func newTableListCommand() *cobra.Command {
	var flags mapFlags
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the tables that are sharded or pinned",
		Example: "  shardyard table list --database shop --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return flags.show(cmd, &shardsql.ShowTables{})
		},
	}
	addMapFlags(cmd, &flags)
	return cmd
}

func newTableShowCommand() *cobra.Command {
	var flags mapFlags
	cmd := &cobra.Command{
		Use:     "show TABLE",
		Short:   "Show the partitions of a table and where they stand",
		Example: "  shardyard table show public.orders",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := tableNameFrom(args[0])
			return flags.show(cmd, &shardsql.ShowPartitions{Table: shardsql.Name{Schema: name.Schema, Name: name.Name}})
		},
	}
	addMapFlags(cmd, &flags)
	return cmd
}

// tableNameFrom reads schema.table; the schema defaults to public.
func tableNameFrom(text string) directory.TableName {
	if schemaName, name, ok := strings.Cut(text, "."); ok {
		return directory.TableName{Schema: schemaName, Name: name}
	}
	return directory.TableName{Schema: "public", Name: text}
}

// printResult writes a result as an aligned table, or as a JSON list of objects.
func printResult(cmd *cobra.Command, result *schema.Result, asJSON bool) error {
	if !asJSON {
		writeTable(cmd.OutOrStdout(), result.Columns, result.Rows)
		return nil
	}
	objects := make([]map[string]string, 0, len(result.Rows))
	for _, row := range result.Rows {
		object := make(map[string]string, len(row))
		for i, value := range row {
			object[result.Columns[i]] = value
		}
		objects = append(objects, object)
	}
	return printJSON(cmd.OutOrStdout(), objects)
}
