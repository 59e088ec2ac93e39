// Package catalog is what the planner knows about one database: an immutable Snapshot of its
// relations, functions, types, operators and schemas as the home shard describes them, and for every
// other shard the OIDs under which that shard knows the same user types.
//
// The package is pure: package router/catalogs reads pg_catalog and hands the rows over as Data. It
// resolves names along a search path as Postgres does, and answers with sound over-approximations
// where an answer needs reading code (which relations a function may reach).
//
// It may import package directory and nothing else of ours.
package catalog
