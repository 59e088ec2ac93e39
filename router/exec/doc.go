// Package exec runs the plans of one session on the shards: it holds the session's server connections
// and its transaction, relays answers as frames, scatters and merges, copies, and translates the OIDs of
// user types to those of the home shard.
//
// It owns what happens between a plan and the frames that answer it. It knows nothing of the client's
// named statements and portals, variables or authentication: those are package router's.
//
// It may import planner and its subpackages, directory, router/backend, router/commit, router/merge, router/metrics,
// router/wire and router/pgerr.
package exec
