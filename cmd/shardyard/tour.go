package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A stop of the tour: what it shows, and the SQL that shows it.
type tourStop struct {
	about string
	sql   string
}

var tour = []tourStop{
	{"The shards of this cluster", `SHOW SHARDS`},
	{"The tables, and how each is distributed", `SHOW TABLES`},
	{"One customer: the key names one shard, the statement is relayed there",
		`SELECT id, name, city FROM customers WHERE id = 42`},
	{"The customer's orders: a join of colocated tables, still one shard",
		`SELECT c.name, o.id, o.item, o.amount FROM customers c JOIN orders o ON o.customer_id = c.id WHERE c.id = 42 ORDER BY o.id`},
	{"A total of one customer: Postgres computes it, on that shard",
		`SELECT count(*), sum(amount) FROM orders WHERE customer_id = 42`},
	{"Two customers on any shards: only the shards that can hold them are asked",
		`SELECT id, name FROM customers WHERE id IN (7, 42) ORDER BY id`},
	{"The largest orders of all: every shard sorts, the router merges and cuts",
		`SELECT customer_id, id, amount FROM orders ORDER BY amount DESC, customer_id, id LIMIT 5`},
	{"A range of days: partitions outside it are not asked",
		`SELECT at, id, what FROM events WHERE at BETWEEN '2025-03-01' AND '2025-03-04' ORDER BY at, id`},
	{"A list with a default: 'jp' has no partition of its own",
		`SELECT country, id, email FROM users WHERE country = 'jp' ORDER BY id LIMIT 3`},
	{"Composite: the region by list, then the user by hash",
		`SELECT region, user_id, seen::date FROM sessions WHERE region = 'eu' ORDER BY user_id LIMIT 3`},
	{"An unsharded table stands on the home shard", `SELECT name, value FROM settings ORDER BY name LIMIT 3`},
	{"A table pinned to another shard", `SELECT id, entry FROM audit_log ORDER BY id LIMIT 3`},
	{"What is not proven right is refused, with the reason",
		`SELECT city, count(*) FROM customers GROUP BY city`},
}

// runTour asks each question through the router and writes what was asked, where it
// went and what came back. A refusal is an answer; a lost connection is an error.
func runTour(ctx context.Context, connString string, out io.Writer) error {
	conn, err := pgx.Connect(ctx, connString)
	if err != nil {
		return fmt.Errorf("connect to the router: %w", err)
	}
	defer closeConn(ctx, conn)
	for i, stop := range tour {
		fmt.Fprintf(out, "\n%d. %s\n   %s\n", i+1, stop.about, stop.sql)
		if err := showStop(ctx, conn, stop.sql, out); err != nil {
			return fmt.Errorf("tour stop %d: %w", i+1, err)
		}
	}
	return nil
}

func showStop(ctx context.Context, conn *pgx.Conn, sql string, out io.Writer) error {
	if !strings.HasPrefix(sql, "SHOW") {
		lines, err := routingOf(ctx, conn, sql)
		if err != nil {
			return reportRefusal(err, out)
		}
		if len(lines) == 0 {
			lines = []string{"home shard: nobody sharded the table"}
		}
		for _, line := range lines {
			fmt.Fprintf(out, "   -> %s\n", line)
		}
	}
	header, rows, err := textRows(ctx, conn, sql)
	if err != nil {
		return reportRefusal(err, out)
	}
	writeTable(out, header, rows)
	return nil
}

// reportRefusal prints a server's error as part of the tour; anything else ends it.
func reportRefusal(err error, out io.Writer) error {
	refusal, ok := serverError(err)
	if !ok || refusal.Code != "0A000" {
		return err
	}
	fmt.Fprintf(out, "   refused (%s): %s\n", refusal.Code, refusal.Message)
	if refusal.Hint != "" {
		fmt.Fprintf(out, "   hint: %s\n", refusal.Hint)
	}
	return nil
}

// routingOf returns the lines that EXPLAIN puts above Postgres's own plans.
func routingOf(ctx context.Context, conn *pgx.Conn, sql string) ([]string, error) {
	_, rows, err := textRows(ctx, conn, "EXPLAIN "+sql)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, row := range rows {
		if rest, ok := strings.CutPrefix(row[0], "Shardyard: "); ok {
			lines = append(lines, rest)
		}
	}
	return lines, nil
}

// textRows runs sql in the simple protocol and returns the values as text.
func textRows(ctx context.Context, conn *pgx.Conn, sql string) (header []string, rows [][]string, err error) {
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, nil, err
	}
	for _, result := range results {
		for _, field := range result.FieldDescriptions {
			header = append(header, field.Name)
		}
		for _, values := range result.Rows {
			row := make([]string, len(values))
			for i, value := range values {
				row[i] = string(value)
			}
			rows = append(rows, row)
		}
	}
	return header, rows, nil
}

// writeTable aligns the columns, as psql does.
func writeTable(out io.Writer, header []string, rows [][]string) {
	width := make([]int, len(header))
	for _, row := range append([][]string{header}, rows...) {
		for i, value := range row {
			width[i] = max(width[i], len([]rune(value)))
		}
	}
	line := func(row []string) {
		cells := make([]string, len(row))
		for i, value := range row {
			cells[i] = value + strings.Repeat(" ", width[i]-len([]rune(value)))
		}
		fmt.Fprintf(out, "     %s\n", strings.TrimRight(strings.Join(cells, " | "), " "))
	}
	line(header)
	rule := make([]string, len(width))
	for i, w := range width {
		rule[i] = strings.Repeat("-", w)
	}
	fmt.Fprintf(out, "     %s\n", strings.Join(rule, "-+-"))
	for _, row := range rows {
		line(row)
	}
}
