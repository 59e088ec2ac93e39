package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/shardyard/shardyard/directory/etcd"
)

func newMapCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "map",
		Short:   "Back up and restore the partition map",
		Example: "  shardyard map export --output map.json\n  shardyard map import map.json",
	}
	cmd.AddCommand(newMapExportCommand(), newMapImportCommand())
	return cmd
}

func newMapExportCommand() *cobra.Command {
	var where directoryFlags
	var output string
	cmd := &cobra.Command{
		Use:     "export",
		Short:   "Write the whole partition map as one JSON document",
		Example: "  shardyard map export --output map.json\n  shardyard map export | jq .",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return where.withStore(cmd, func(ctx context.Context, store *etcd.Store) error {
				document, err := store.Export(ctx)
				if err != nil {
					return fmt.Errorf("export the map: %w", err)
				}
				if output == "" || output == "-" {
					_, err = cmd.OutOrStdout().Write(document)
				} else {
					err = os.WriteFile(output, document, 0o600)
				}
				if err != nil {
					return fmt.Errorf("write the map: %w", err)
				}
				return nil
			})
		},
	}
	addDirectoryFlags(cmd.Flags(), &where)
	cmd.Flags().StringVarP(&output, "output", "o", "-", "file to write, - for standard output")
	return cmd
}

func newMapImportCommand() *cobra.Command {
	var where directoryFlags
	var force bool
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Restore the partition map from an export",
		Long: `Restore the partition map from an export; FILE may be - for standard input.
An existing map is only replaced with --force: what stands on the shards must fit the
imported map, or rows become unreachable.`,
		Example: "  shardyard map import map.json\n  shardyard map import --force map.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			document, err := readFileOrStdin(cmd.InOrStdin(), args[0])
			if err != nil {
				return fmt.Errorf("read the export: %w", err)
			}
			return where.withStore(cmd, func(ctx context.Context, store *etcd.Store) error {
				if err := store.Import(ctx, document, force); err != nil {
					return fmt.Errorf("import the map: %w", err)
				}
				fmt.Fprintln(cmd.ErrOrStderr(), "imported")
				return nil
			})
		},
	}
	addDirectoryFlags(cmd.Flags(), &where)
	cmd.Flags().BoolVar(&force, "force", false, "replace an existing map")
	return cmd
}

func readFileOrStdin(stdin io.Reader, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(name)
}
