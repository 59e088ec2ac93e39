package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
)

// exactSettings make every value's text come back as the same value, whatever the settings of roles and
// databases: those of the functions in 0003_mirror.up.sql.
var exactSettings = []string{
	"SET LOCAL search_path = pg_catalog, pg_temp", "SET LOCAL DateStyle = 'ISO, YMD'", "SET LOCAL IntervalStyle = 'postgres'",
	"SET LOCAL TimeZone = 'UTC'", "SET LOCAL extra_float_digits = 3", "SET LOCAL bytea_output = 'hex'",
	"SET LOCAL lc_monetary = 'C'", "SET LOCAL xmloption = 'content'",
}

const columnsQuery = `SELECT coalesce(pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum), '')
	FROM pg_catalog.pg_attribute a
	WHERE a.attrelid = $1::text::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''`

// CopyRows streams all rows of a table from one shard to another, in the open transactions of two connections of
// the service role. It leaves the settings of both transactions exact, and no trigger of the application fires on the
// destination for the rest of the transaction. Memory is bounded.
func CopyRows(ctx context.Context, from, to *pgx.Conn, table directory.TableName) error {
	var columns string
	if err := from.QueryRow(ctx, columnsQuery, table.String()).Scan(&columns); err != nil {
		return fmt.Errorf("list columns of %s: %w", table, err)
	}
	for _, conn := range []*pgx.Conn{from, to} {
		for _, setting := range append([]string{"SET LOCAL client_encoding = 'UTF8'"}, exactSettings...) {
			if _, err := conn.Exec(ctx, setting); err != nil {
				return fmt.Errorf("%s: %w", setting, err)
			}
		}
	}
	if _, err := to.Exec(ctx, "SET LOCAL session_replication_role = 'replica'"); err != nil {
		return fmt.Errorf("switch triggers off: %w", err)
	}
	if columns == "" {
		return fmt.Errorf("copy rows of %s: it has no columns to copy", table)
	}
	reader, writer := io.Pipe()
	read := make(chan error, 1)
	go func() {
		_, err := from.PgConn().CopyTo(ctx, writer, fmt.Sprintf("COPY (SELECT %s FROM ONLY %s) TO STDOUT", columns, table))
		_ = writer.CloseWithError(err) // never fails
		read <- err
	}()
	_, err := to.PgConn().CopyFrom(ctx, reader, fmt.Sprintf("COPY %s (%s) FROM STDIN", table, columns))
	_ = reader.CloseWithError(errors.New("the destination has ended the copy")) // never fails
	if readErr := <-read; err == nil {
		err = readErr
	}
	if err != nil {
		return fmt.Errorf("copy rows of %s: %w", table, err)
	}
	return nil
}
