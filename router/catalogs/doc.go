// Package catalogs reads pg_catalog into a catalog.Snapshot: everything about one database from its home
// shard, and from every other shard the OIDs of the user types there.
//
// It may import directory, planner/catalog and pgx.
package catalogs
