package clients

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// shopSchema is a database with sharded, pinned and ordinary tables.
const shopSchema = `
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, feels mood DEFAULT 'ok', joined date);
SHARD TABLE customers BY HASH (id) PARTITIONS 16;
CREATE TABLE orders (customer_id int NOT NULL, id int NOT NULL, item text, amount numeric(10,2), PRIMARY KEY (customer_id, id), CHECK (amount >= 0));
SHARD TABLE orders BY HASH (customer_id) COLOCATE WITH customers;
ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers (id);
CREATE INDEX orders_item ON orders (item) WHERE amount > 10;
CREATE TABLE plain (id int PRIMARY KEY, v text, at timestamptz DEFAULT '2024-01-02 03:04:05+00');
COMMENT ON TABLE plain IS 'stands on one shard';
CREATE UNIQUE INDEX plain_v ON plain (lower(v));
CREATE VIEW short AS SELECT id, v FROM plain WHERE id < 3;
CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n * 2';
CREATE SEQUENCE numbers;
INSERT INTO plain (id, v) SELECT g, 'v' || g FROM generate_series(1, 5) g;
`

// shopCustomers have the ids from 1 on; each has two orders.
const shopCustomers = 40

var shopOnce sync.Once

// ensureShop makes the databases shop, with the sharded tables, and corner, with the same where nothing is sharded.
// They serve several tests, which leave them as they were.
func ensureShop(t *testing.T) {
	t.Helper()
	shopOnce.Do(func() {
		var script strings.Builder
		script.WriteString(shopSchema)
		for id := 1; id <= shopCustomers; id++ {
			mood := []string{"sad", "ok", "happy"}[id%3]
			fmt.Fprintf(&script, "INSERT INTO customers VALUES (%d, 'name %d', '%s', date '2024-01-01' + %d);\n", id, id, mood, id)
			for n := 1; n <= 2; n++ {
				fmt.Fprintf(&script, "INSERT INTO orders VALUES (%d, %d, 'item, \"%d\"', %d.50);\n", id, n, n, id)
			}
		}
		newDatabase(t, "shop", script.String())
		newDatabase(t, "corner", withoutSharding(shopSchema))
	})
}
