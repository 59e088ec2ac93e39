// Package shardsql parses the sharding statements: SHARD TABLE, ALTER SHARD
// TABLE, UNSHARD TABLE, SHARD FUNCTION, and SHOW SHARDS, TABLES, PARTITIONS.
//
// The partition clause that stands behind SHARD TABLE t BY and ALTER SHARD
// TABLE t is parsed by TiDB's parser (docs/decisions/two-parsers.md); what its
// grammar lacks is parsed here, over the tokens of planner/lexer. TiDB never
// sees a name or a literal of the user: they are replaced by placeholders
// first, so MySQL's rules about quotes, backslashes and comments cannot change
// a value.
//
// The package is pure and imports planner/lexer only.
package shardsql
