package oracle

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/directory/etcd"
)

// CompareContents reads every table of a schema directly from all the servers, around the
// routers, and insists that the shards together hold exactly the rows of the plain server, each
// once and on the shard that the map says, and that a shard that the map does not name has none.
func (b *Bed) CompareContents(ctx context.Context, database, schema string) error {
	m, err := b.Store.LoadMap(ctx, database)
	if err != nil {
		return fmt.Errorf("load the map: %w", err)
	}
	plain, err := pgx.Connect(ctx, b.Plain.ConnString(0, database))
	if err != nil {
		return fmt.Errorf("connect to the plain postgres: %w", err)
	}
	defer closeConn(ctx, plain)
	var shards []*pgx.Conn
	for i := range b.Shards.Shards() {
		shard, err := pgx.Connect(ctx, b.Shards.ConnString(i, database))
		if err != nil {
			return fmt.Errorf("connect to shard %d: %w", i+1, err)
		}
		defer closeConn(ctx, shard)
		shards = append(shards, shard)
	}
	tables, err := texts(ctx, plain, `SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relkind = 'r' ORDER BY 1`, schema)
	if err != nil {
		return err
	}
	for _, name := range tables {
		c := contents{m: m, name: directory.TableName{Schema: schema, Name: name}, shards: b.Shards.Shards(), conns: shards}
		if c.entries, err = b.entriesOf(ctx, m, c.name); err != nil {
			return fmt.Errorf("entries of %s: %w", c.name, err)
		}
		if err := c.compare(ctx, plain); err != nil {
			return fmt.Errorf("contents of %s: %w", c.name, err)
		}
	}
	return nil
}

// entriesOf reads all entries of a table by DIRECTORY.
func (b *Bed) entriesOf(ctx context.Context, m *directory.Map, name directory.TableName) (*directory.Entries, error) {
	known := directory.NewEntries(nil)
	table, ok := m.Table(name)
	if !ok {
		return known, nil
	}
	group, ok := m.Group(table.Group)
	if !ok || group.Method != directory.MethodDirectory {
		return known, nil
	}
	reader, err := etcd.NewEntries(b.Store, etcd.EntriesConfig{Writer: "oracle", CacheSize: 1})
	if err != nil {
		return nil, err
	}
	entries, err := reader.List(ctx, group, "", math.MaxInt)
	for _, entry := range entries {
		known.Learn(group, entry.Key, entry.Shard)
	}
	return known, err
}

// contents compares one table.
type contents struct {
	m       *directory.Map
	name    directory.TableName
	shards  []directory.Shard
	conns   []*pgx.Conn        // of the shards
	entries *directory.Entries // all, of a table by DIRECTORY
}

func (c *contents) compare(ctx context.Context, plain *pgx.Conn) error {
	want, err := texts(ctx, plain, fmt.Sprintf("SELECT t::text FROM %s t", c.name))
	if err != nil {
		return err
	}
	table, listed := c.m.Table(c.name)
	holders := []directory.ShardID{c.m.Home}
	if listed {
		holders = c.m.ShardsOf(table)
	}
	var have []string
	for i, shard := range c.shards {
		var rows []string
		var err error
		switch {
		case !slices.Contains(holders, shard.ID):
			err = c.mustBeEmpty(ctx, c.conns[i])
		case listed && table.Kind == directory.TableSharded:
			rows, err = c.placed(ctx, c.conns[i], table, shard.ID)
		case listed && table.Kind == directory.TableReference && shard.ID != table.Shard:
			err = c.copied(ctx, c.conns[i], want)
		default:
			rows, err = texts(ctx, c.conns[i], fmt.Sprintf("SELECT t::text FROM %s t", c.name))
		}
		if err != nil {
			return fmt.Errorf("shard %s: %w", shard.ID, err)
		}
		have = append(have, rows...)
	}
	if difference := compareRows(column(want), column(have), false); difference != "" {
		return errors.New(difference)
	}
	return nil
}

// copied insists that a shard has a full copy.
func (c *contents) copied(ctx context.Context, conn *pgx.Conn, want []string) error {
	have, err := texts(ctx, conn, fmt.Sprintf("SELECT t::text FROM %s t", c.name))
	if err != nil {
		return err
	}
	if difference := compareRows(column(want), column(have), false); difference != "" {
		return fmt.Errorf("its copy differs: %s", difference)
	}
	return nil
}

// mustBeEmpty accepts a shard where the table is absent, a placeholder or empty.
func (c *contents) mustBeEmpty(ctx context.Context, conn *pgx.Conn) error {
	kinds, err := texts(ctx, conn, `SELECT c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relname = $2`, c.name.Schema, c.name.Name)
	if err != nil || len(kinds) == 0 || kinds[0] != "r" {
		return err
	}
	rows, err := texts(ctx, conn, fmt.Sprintf("SELECT t::text FROM %s t", c.name))
	if err == nil && len(rows) > 0 {
		err = fmt.Errorf("%d rows on a shard that the map does not name, the first is %s", len(rows), rows[0])
	}
	return err
}

// placed reads the rows of one shard and checks that each belongs there.
func (c *contents) placed(ctx context.Context, conn *pgx.Conn, table *directory.Table, shard directory.ShardID) ([]string, error) {
	group, _ := c.m.Group(table.Group)
	names := slices.Concat(table.Key, table.SubKey)
	keys := make([]string, len(names))
	for i, name := range names {
		keys[i] = fmt.Sprintf("t.%s::text", directory.QuoteIdentifier(name))
	}
	rows, err := conn.Query(ctx, fmt.Sprintf("SELECT t::text, ARRAY[%s] FROM %s t", strings.Join(keys, ", "), c.name))
	if err != nil {
		return nil, err
	}
	var lines []string
	var line string
	var key []*string
	_, err = pgx.ForEachRow(rows, []any{&line, &key}, func() error {
		lines = append(lines, line)
		values := make([]directory.Value, len(key))
		for i, text := range key {
			t := slices.Concat(table.KeyTypes, table.SubKeyTypes)[i]
			values[i] = directory.Null(t)
			if text != nil {
				var err error
				if values[i], err = directory.ParseText(t, *text); err != nil {
					return fmt.Errorf("read key %q: %w", *text, err)
				}
			}
		}
		part, where := c.entries.Locate(group, values[:len(table.Key)], values[len(table.Key):], false)
		switch {
		case where != directory.Placed:
			return fmt.Errorf("row %s belongs to no partition", line)
		case group.Partitions[part].Shard != shard:
			return fmt.Errorf("row %s belongs on %s", line, group.Partitions[part].Shard)
		}
		return nil
	})
	return lines, err
}

func texts(ctx context.Context, conn *pgx.Conn, sql string, args ...any) ([]string, error) {
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

func column(values []string) [][]string {
	rows := make([][]string, len(values))
	for i, value := range values {
		rows[i] = []string{value}
	}
	return rows
}

func closeConn(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx) // nothing was written
}
