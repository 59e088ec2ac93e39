package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

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
		Short:   "Write the whole partition map, with the entries of directories, as JSON",
		Example: "  shardyard map export --output map.json\n  shardyard map export | jq .",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return where.withStoreFor(cmd, mapTimeout, func(ctx context.Context, store *etcd.Store) error {
				if output == "" || output == "-" {
					return export(ctx, store, cmd.OutOrStdout())
				}
				return exportToFile(ctx, store, output)
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
			document := cmd.InOrStdin()
			if args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("read the export: %w", err)
				}
				defer func() { _ = file.Close() }() // it was only read
				document = file
			}
			return where.withStoreFor(cmd, mapTimeout, func(ctx context.Context, store *etcd.Store) error {
				if err := store.Import(ctx, bufio.NewReader(document), force); err != nil {
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

// mapTimeout bounds an export or import: there may be millions of entries.
const mapTimeout = 30 * time.Minute

func export(ctx context.Context, store *etcd.Store, out io.Writer) error {
	buffered := bufio.NewWriter(out)
	if err := store.Export(ctx, buffered); err != nil {
		return fmt.Errorf("export the map: %w", err)
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("write the map: %w", err)
	}
	return nil
}

// exportToFile replaces the file only by a whole export.
func exportToFile(ctx context.Context, store *etcd.Store, path string) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new") // mode 0600
	if err != nil {
		return fmt.Errorf("write the map: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	if err := errors.Join(export(ctx, store, file), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return fmt.Errorf("write the map: %w", err)
	}
	return nil
}
