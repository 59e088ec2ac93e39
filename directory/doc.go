// Package directory is the whole truth about where rows live: the immutable
// [Map] of one database (shards, groups, partitions, tables, holds and moves),
// the partitioning methods, the key types with their order and hash, and the
// changes that lead from one map to the next.
//
// It owns
//   - the map and its index ([NewMap], [Map.Table], [Group.Locate], [Group.Prune]);
//   - key values: reading them as Postgres does ([ParseText], [ParseBinary]),
//     storing them as Postgres would ([Coerce]), comparing ([Compare]) and
//     hashing them ([KeyHash]);
//   - [Change]: Map → Map, with the epoch one higher, and [Check]: every invariant;
//   - the map's JSON ([Encode], [Decode]).
//
// It is pure: it takes time and randomness as input, starts no goroutine and
// imports nothing of Shardyard and no net, os, etcd or slog. Everything here is
// immutable after construction and safe for concurrent use.
package directory
