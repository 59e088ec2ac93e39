package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newRootCommand().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "shardyard: %s\n", describe(err))
		os.Exit(1)
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "shardyard",
		Short: "A sharding router for PostgreSQL",
		Long: `Shardyard stands between applications and many plain Postgres servers, and looks
to the applications like one Postgres.`,
		Example:       "  shardyard dev --shards 3 --sample\n  shardyard serve --config shardyard.yaml",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newServeCommand(), newDevCommand(), newShardCommand(), newTableCommand(), newMapCommand(), newPingCommand())
	return root
}

// describe writes an error as psql does: message, then detail and hint.
func describe(err error) string {
	text := err.Error()
	if reported, ok := serverError(err); ok {
		if reported.Detail != "" {
			text += "\nDETAIL:  " + reported.Detail
		}
		if reported.Hint != "" {
			text += "\nHINT:  " + reported.Hint
		}
	}
	return text
}

// printJSON writes v for machines, indented, with a newline at the end.
func printJSON(out io.Writer, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}
