package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A stop of the tour: what it shows, and the SQL that shows it, statement by statement. Where it writes,
// it sets values that do not depend on earlier tours, so that each tour shows the same.
type tourStop struct {
	about string
	sql   []string
	// sum names a column of whole numbers that is added up below the answers; "" for none.
	sum string
}

func stop(about string, sql ...string) tourStop { return tourStop{about: about, sql: sql} }

func (s tourStop) adding(column string) tourStop {
	s.sum = column
	return s
}

var tour = []tourStop{
	stop("The shards of this cluster", `SHOW SHARDS`),
	stop("The tables, and how each is distributed", `SHOW TABLES`),
	stop("One customer: the key names one shard, the statement is relayed there",
		`SELECT id, name, city FROM customers WHERE id = 42`),
	stop("The customer's orders: a join of colocated tables, still one shard",
		`SELECT c.name, o.id, o.item, o.amount FROM customers c JOIN orders o ON o.customer_id = c.id WHERE c.id = 42 ORDER BY o.id`),
	stop("A total of one customer: Postgres computes it, on that shard",
		`SELECT count(*), sum(amount) FROM orders WHERE customer_id = 42`),
	stop("Two customers on any shards: only the shards that can hold them are asked",
		`SELECT id, name FROM customers WHERE id IN (7, 42) ORDER BY id`),
	stop("The largest orders of all: every shard sorts, the router merges and cuts",
		`SELECT customer_id, id, amount FROM orders ORDER BY amount DESC, customer_id, id LIMIT 5`),
	stop("A range of days: partitions outside it are not asked",
		`SELECT at, id, what FROM events WHERE at BETWEEN '2025-03-01' AND '2025-03-04' ORDER BY at, id`),
	stop("A list with a default: 'jp' has no partition of its own",
		`SELECT country, id, email FROM users WHERE country = 'jp' ORDER BY id LIMIT 3`),
	stop("Composite: the region by list, then the user by hash",
		`SELECT region, user_id, seen::date FROM sessions WHERE region = 'eu' ORDER BY user_id LIMIT 3`),
	stop("An unsharded table stands on the home shard", `SELECT name, value FROM settings ORDER BY name LIMIT 3`),
	stop("A table pinned to another shard", `SELECT id, entry FROM audit_log ORDER BY id LIMIT 3`),
	stop("A directory: each tenant has an entry that says where it is; a new one gets the next shard in turn",
		`INSERT INTO tenants (tenant_id, name) VALUES (9, 'Iris') ON CONFLICT (tenant_id) DO UPDATE SET name = excluded.name`,
		`SHOW ENTRIES FROM tenants LIMIT 4`,
		`SELECT tenant_id, name FROM tenants WHERE tenant_id = 2`),
	stop("A reference table: every shard has all countries, so the join stays where the users are",
		`SELECT u.id, u.email, c.name, c.currency FROM users u JOIN countries c ON c.code = u.country ORDER BY u.id LIMIT 4`),
	stop("It is written on the home shard and, in the same transaction, on all others",
		`UPDATE countries SET currency = 'EUR' WHERE code = 'it' RETURNING code, name, currency`),
	stop("One INSERT for several shards: all of its rows or none",
		`INSERT INTO accounts (id, owner, balance) VALUES (1, 'Ada', 500), (1001, 'Cleo', 500), (2001, 'Eve', 500) `+
			`ON CONFLICT (id) DO UPDATE SET balance = excluded.balance RETURNING id, owner, balance`),
	stop("Money between two shards: the balances before", transferBalances).adding("balance"),
	stop("The transfer: one transaction that writes on both",
		`BEGIN`,
		`UPDATE accounts SET balance = balance - 120 WHERE id = 1`,
		`UPDATE accounts SET balance = balance + 120 WHERE id = 1001`,
		`COMMIT`),
	stop("It was committed in two phases: one shard prepared, the other one decided; this is its decision, and nothing is left prepared",
		`SELECT split_part(gid, '/', 6) AS decided_by, participants AS prepared, outcome FROM shardyard.decision ORDER BY decided_at DESC LIMIT 1`,
		`SHOW TRANSACTIONS`),
	stop("The balances after: the sum is the same", transferBalances).adding("balance"),
	stop("What is not proven right is refused, with the reason",
		`SELECT city, count(*) FROM customers GROUP BY city`),
}

// transferBalances asks for both accounts of the transfer, in one snapshot over their shards.
const transferBalances = `SELECT id, owner, balance FROM accounts WHERE id IN (1, 1001) ORDER BY id`

// runTour asks each question through the router and writes what was asked, where it
// went and what came back. A refusal is an answer; a lost connection is an error.
func runTour(ctx context.Context, connString string, out io.Writer) error {
	conn, err := pgx.Connect(ctx, connString)
	if err != nil {
		return fmt.Errorf("connect to the router: %w", err)
	}
	defer closeConn(ctx, conn)
	for i, stop := range tour {
		fmt.Fprintf(out, "\n%d. %s\n", i+1, stop.about)
		for _, sql := range stop.sql {
			fmt.Fprintf(out, "   %s\n", sql)
			if err := showStatement(ctx, conn, sql, stop.sum, out); err != nil {
				return fmt.Errorf("tour stop %d: %w", i+1, err)
			}
		}
	}
	return nil
}

// showStatement runs one statement and prints where it went and the answer.
func showStatement(ctx context.Context, conn *pgx.Conn, sql, sum string, out io.Writer) error {
	if goesToShards(sql) {
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
	answer, err := textRows(ctx, conn, sql)
	if err != nil {
		return reportRefusal(err, out)
	}
	if len(answer.header) == 0 {
		fmt.Fprintf(out, "     %s\n", answer.tag)
		return nil
	}
	writeTable(out, answer.header, answer.rows)
	if sum == "" {
		return nil
	}
	total, err := answer.sum(sum)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "     sum of %s: %d\n", sum, total)
	return nil
}

// goesToShards tells what EXPLAIN can explain.
func goesToShards(sql string) bool {
	first, _, _ := strings.Cut(sql, " ")
	return first != "SHOW" && first != "BEGIN" && first != "COMMIT"
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
	plan, err := textRows(ctx, conn, "EXPLAIN "+sql)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, row := range plan.rows {
		if rest, ok := strings.CutPrefix(row[0], "Shardyard: "); ok {
			lines = append(lines, rest)
		}
	}
	return lines, nil
}

// answer is what a statement gave, as text.
type answer struct {
	header []string // empty where the statement returns no rows
	rows   [][]string
	tag    string
}

// sum adds up a column of whole numbers.
func (a answer) sum(column string) (int64, error) {
	at := slices.Index(a.header, column)
	if at < 0 {
		return 0, fmt.Errorf("add up %s: no such column", column)
	}
	var total int64
	for _, row := range a.rows {
		value, err := strconv.ParseInt(row[at], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("add up %s: %w", column, err)
		}
		total += value
	}
	return total, nil
}

// textRows runs one statement in the simple protocol.
func textRows(ctx context.Context, conn *pgx.Conn, sql string) (answer, error) {
	results := conn.PgConn().Exec(ctx, sql)
	var a answer
	for results.NextResult() {
		result := results.ResultReader()
		for _, field := range result.FieldDescriptions() {
			a.header = append(a.header, field.Name)
		}
		for result.NextRow() {
			row := make([]string, len(result.Values()))
			for i, value := range result.Values() {
				row[i] = string(value)
			}
			a.rows = append(a.rows, row)
		}
		tag, err := result.Close()
		if err != nil {
			return answer{}, errors.Join(err, results.Close())
		}
		a.tag = tag.String()
	}
	return a, results.Close()
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
	if len(rows) == 0 {
		fmt.Fprintln(out, "     (no rows)")
	}
}
