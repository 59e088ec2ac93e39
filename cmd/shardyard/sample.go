package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// sampleSchema is the shop of `shardyard dev --sample`. The tables are created on the
// home shard, as on any Postgres, and then sharded one by one.
var sampleSchema = []string{
	`CREATE TABLE customers (
	   id int PRIMARY KEY, name text NOT NULL, city text NOT NULL, joined date NOT NULL)`,
	`SHARD TABLE customers BY HASH (id) PARTITIONS 16`,

	`CREATE TABLE orders (
	   customer_id int NOT NULL, id int NOT NULL,
	   item text NOT NULL, amount numeric(10,2) NOT NULL, ordered_at timestamptz NOT NULL,
	   PRIMARY KEY (customer_id, id))`,
	`SHARD TABLE orders BY HASH (customer_id) COLOCATE WITH customers`,
	`ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers (id)`,

	`CREATE TABLE events (
	   at date NOT NULL, id int NOT NULL, what text NOT NULL, PRIMARY KEY (at, id))`,
	`SHARD TABLE events BY RANGE (at) (
	   PARTITION y2024 VALUES LESS THAN ('2025-01-01') PLACEMENT POLICY = s1,
	   PARTITION y2025 VALUES LESS THAN ('2026-01-01') PLACEMENT POLICY = s2,
	   PARTITION later VALUES LESS THAN (MAXVALUE)     PLACEMENT POLICY = s3)`,

	`CREATE TABLE users (
	   country text NOT NULL, id int NOT NULL, email text NOT NULL, PRIMARY KEY (country, id))`,
	`SHARD TABLE users BY LIST (country) (
	   PARTITION eu VALUES IN ('de', 'fr', 'it') PLACEMENT POLICY = s1,
	   PARTITION us VALUES IN ('us')             PLACEMENT POLICY = s2,
	   PARTITION other DEFAULT                   PLACEMENT POLICY = s3)`,

	`CREATE TABLE sessions (
	   region text NOT NULL, user_id int NOT NULL, token uuid NOT NULL, seen timestamptz NOT NULL,
	   PRIMARY KEY (region, user_id))`,
	`SHARD TABLE sessions BY LIST (region) SUBPARTITION BY HASH (user_id) SUBPARTITIONS 4 (
	   PARTITION eu VALUES IN ('eu'),
	   PARTITION us VALUES IN ('us'),
	   PARTITION other DEFAULT)`,

	`CREATE TABLE settings (name text PRIMARY KEY, value text NOT NULL)`,

	`CREATE TABLE audit_log (id int PRIMARY KEY, at timestamptz NOT NULL, entry text NOT NULL)`,
	`SHARD TABLE audit_log ON s3`,
}

// sampleAdditions came to the shop later: a folder of --data may have a shop without them.
var sampleAdditions = []string{
	`CREATE TABLE countries (code text PRIMARY KEY, name text NOT NULL, currency text NOT NULL)`,
	`INSERT INTO countries (code, name, currency) VALUES ('br', 'Brazil', 'BRL'), ('de', 'Germany', 'EUR'),
	   ('fr', 'France', 'EUR'), ('it', 'Italy', 'EUR'), ('jp', 'Japan', 'JPY'), ('us', 'United States', 'USD')`,
	`SHARD TABLE countries AS REFERENCE`,
	`ALTER TABLE users ADD FOREIGN KEY (country) REFERENCES countries (code)`,

	`CREATE TABLE accounts (
	   id int PRIMARY KEY, owner text NOT NULL, balance bigint NOT NULL CHECK (balance >= 0))`,
	`SHARD TABLE accounts BY RANGE (id) (
	   PARTITION north VALUES LESS THAN (1000)     PLACEMENT POLICY = s1,
	   PARTITION south VALUES LESS THAN (2000)     PLACEMENT POLICY = s2,
	   PARTITION later VALUES LESS THAN (MAXVALUE) PLACEMENT POLICY = s3)`,
	`INSERT INTO accounts (id, owner, balance) VALUES (1, 'Ada', 500), (2, 'Bo', 500), (1001, 'Cleo', 500),
	   (1002, 'Dan', 500), (2001, 'Eve', 500), (2002, 'Finn', 500)`,

	`CREATE TABLE tenants (tenant_id int PRIMARY KEY, name text NOT NULL)`,
	`SHARD TABLE tenants BY DIRECTORY (tenant_id) ASSIGN ROUND ROBIN`,
	`INSERT INTO tenants (tenant_id, name) VALUES (1, 'Acme'), (2, 'Bolt'), (3, 'Crate'), (4, 'Dune'),
	   (5, 'Ember'), (6, 'Flint'), (7, 'Grove'), (8, 'Helm')`,
}

// Rows of the sample, ten thousand in all.
const (
	sampleCustomers         = 1000
	sampleOrdersPerCustomer = 6
	sampleEvents            = 1480
	sampleUsers             = 900
	sampleSessions          = 500
	sampleSettings          = 20
	sampleAudit             = 80
	sampleAdded             = 20 // by sampleAdditions
	sampleRows              = sampleCustomers*(1+sampleOrdersPerCustomer) + sampleEvents + sampleUsers + sampleSessions +
		sampleSettings + sampleAudit + sampleAdded
	// sampleWriters is how many connections fill the tables at once.
	sampleWriters = 12
)

// createSample builds and fills the shop through the router at connString, and
// reports progress. It does nothing where the shop is there already.
func createSample(ctx context.Context, connString string, seed uint64, progress func(done, total int)) error {
	conn, err := pgx.Connect(ctx, connString)
	if err != nil {
		return fmt.Errorf("connect to the router: %w", err)
	}
	defer closeConn(ctx, conn)
	var shop, additions bool
	err = conn.QueryRow(ctx, `SELECT to_regclass('public.audit_log') IS NOT NULL, to_regclass('public.tenants') IS NOT NULL`).
		Scan(&shop, &additions)
	if err != nil {
		return fmt.Errorf("look for the sample: %w", err)
	}
	if !shop {
		if err := runStatements(ctx, conn, sampleSchema); err != nil {
			return err
		}
	}
	if !additions {
		if err := runStatements(ctx, conn, sampleAdditions); err != nil {
			return err
		}
	}
	if shop {
		return nil
	}
	return fillSample(ctx, connString, sampleBatches(seed), progress)
}

func runStatements(ctx context.Context, conn *pgx.Conn, statements []string) error {
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement, pgx.QueryExecModeSimpleProtocol); err != nil {
			return fmt.Errorf("create the sample: %w\n%s", err, statement)
		}
	}
	return nil
}

// fillSample runs the batches, each in a transaction on one shard.
func fillSample(ctx context.Context, connString string, batches []*pgx.Batch, progress func(done, total int)) error {
	queue := make(chan *pgx.Batch)
	finished := make(chan int)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(queue)
		for _, batch := range batches {
			select {
			case queue <- batch:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range sampleWriters {
		group.Go(func() error { return runBatches(ctx, connString, queue, finished) })
	}
	counted := make(chan struct{})
	go func() {
		defer close(counted)
		done := sampleAdded
		for rows := range finished {
			done += rows
			progress(done, sampleRows)
		}
	}()
	err := group.Wait()
	close(finished)
	<-counted
	return err
}

func runBatches(ctx context.Context, connString string, queue <-chan *pgx.Batch, finished chan<- int) error {
	conn, err := pgx.Connect(ctx, connString)
	if err != nil {
		return fmt.Errorf("connect to the router: %w", err)
	}
	defer closeConn(ctx, conn)
	for batch := range queue {
		if err := conn.SendBatch(ctx, batch).Close(); err != nil {
			return fmt.Errorf("fill the sample: %w", err)
		}
		finished <- batch.Len()
	}
	return nil
}

// sampleBatches makes the rows, grouped so that those of one batch stand on one shard.
func sampleBatches(seed uint64) []*pgx.Batch {
	random := rand.New(rand.NewPCG(seed, 0))
	var batches []*pgx.Batch
	single := func(sql string, args ...any) {
		b := &pgx.Batch{}
		b.Queue(sql, args...)
		batches = append(batches, b)
	}
	for id := 1; id <= sampleCustomers; id++ {
		batches = append(batches, customerBatch(random, id))
	}
	firstDay := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	for id := 1; id <= sampleEvents; id++ {
		single(`INSERT INTO events (at, id, what) VALUES ($1, $2, $3)`,
			firstDay.AddDate(0, 0, random.IntN(3*365)), id, pick(random, "login", "search", "basket", "checkout"))
	}
	for id := 1; id <= sampleUsers; id++ {
		single(`INSERT INTO users (country, id, email) VALUES ($1, $2, $3)`,
			pick(random, "de", "fr", "it", "us", "jp", "br"), id, fmt.Sprintf("user%d@example.com", id))
	}
	for id := 1; id <= sampleSessions; id++ {
		single(`INSERT INTO sessions (region, user_id, token, seen) VALUES ($1, $2, $3, $4)`,
			pick(random, "eu", "us", "asia"), id, sampleUUID(random), firstDay.Add(time.Duration(random.IntN(1e6))*time.Minute))
	}
	for i := 1; i <= sampleSettings; i++ {
		single(`INSERT INTO settings (name, value) VALUES ($1, $2)`, fmt.Sprintf("setting_%02d", i), fmt.Sprint(random.IntN(100)))
	}
	for i := 1; i <= sampleAudit; i++ {
		single(`INSERT INTO audit_log (id, at, entry) VALUES ($1, $2, $3)`,
			i, firstDay.Add(time.Duration(i)*time.Hour), pick(random, "price changed", "user blocked", "refund given"))
	}
	return batches
}

// customerBatch is one customer with the orders, which are colocated with it.
func customerBatch(random *rand.Rand, id int) *pgx.Batch {
	batch := &pgx.Batch{}
	day := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, random.IntN(700))
	batch.Queue(`INSERT INTO customers (id, name, city, joined) VALUES ($1, $2, $3, $4)`,
		id, fmt.Sprintf("%s %s", pick(random, "Ada", "Bo", "Cleo", "Dan", "Eve"), pick(random, "Adams", "Berg", "Costa", "Diaz")),
		pick(random, "Berlin", "Lyon", "Oslo", "Porto", "Turin"), day)
	for order := 1; order <= sampleOrdersPerCustomer; order++ {
		batch.Queue(`INSERT INTO orders (customer_id, id, item, amount, ordered_at) VALUES ($1, $2, $3, $4::text::numeric, $5)`,
			id, order, pick(random, "lamp", "chair", "desk", "shelf", "rug"),
			fmt.Sprintf("%d.%02d", 5+random.IntN(500), random.IntN(100)), day.Add(time.Duration(random.IntN(200*24))*time.Hour))
	}
	return batch
}

func sampleUUID(random *rand.Rand) string {
	hi, lo := random.Uint64(), random.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", hi>>32, hi>>16&0xffff, hi&0xfff, lo>>48&0xfff, lo&0xffffffffffff)
}

func pick(random *rand.Rand, choices ...string) string { return choices[random.IntN(len(choices))] }

// closeConn says goodbye even where ctx has ended.
func closeConn(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // the connection is gone either way
}
