package schema

import (
	"fmt"

	"github.com/shardyard/shardyard/directory"
	"github.com/shardyard/shardyard/router/pgerr"
)

// unnumbered is the default, on the other shards, of a column that a sequence of the home shard numbers: it raises an
// error, so that a row which no router has numbered gets neither NULL nor a number that another row has.
const unnumbered = "shardyard.unnumbered()"

// numbered is the definition of a sharded table on the other shards: the routers give its rows their numbers.
func (d *definition) numbered() *definition {
	return d.with(func(c *columnDef) {
		if c.isNumbered() {
			c.Default = unnumbered
		}
	})
}

// isNumbered reports whether a sequence numbers the column.
func (c *columnDef) isNumbered() bool {
	return !c.Generated && (c.Identity || usesSequence(c.Default) || c.Default == unnumbered)
}

// checkNumbers refuses that a column of a sharded table gets a sequence: each shard would make one of its own.
func checkNumbers(table *directory.Table, before, after *definition) error {
	if table.Kind != directory.TableSharded {
		return nil
	}
	for i := range after.Columns {
		c := &after.Columns[i]
		if !c.isNumbered() {
			continue
		}
		was := false
		for j := range before.Columns {
			was = was || before.Columns[j].Number == c.Number && before.Columns[j].isNumbered()
		}
		if !was {
			return pgerr.Unsupported(fmt.Sprintf("a sequence for column %q of sharded table %q is not supported", c.Name, table.Name.Name),
				"Give the column its sequence before SHARD TABLE.")
		}
	}
	return nil
}
