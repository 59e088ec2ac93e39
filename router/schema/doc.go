// Package schema changes what lives where: it performs the sharding statements (SHARD TABLE …), runs DDL
// on tables that several shards hold, and answers SHOW SHARDS, SHOW TABLES and SHOW PARTITIONS.
//
// Every change goes the same way. It is checked against the home shard's catalog; a hold on the tables is
// published, so that when every router has acknowledged it nothing is in flight on them; each shard does
// its part in one transaction and prepares it; the change of the map is the decision, published by
// compare-and-swap; the prepared parts are committed; the hold is cleared. Recover finishes or undoes what
// a router left behind at any of these steps, from the hold alone.
//
// It may import directory, directory/etcd, directory/fence, planner/catalog, planner/shardsql,
// router/catalogs, router/pgerr and migrations.
package schema
