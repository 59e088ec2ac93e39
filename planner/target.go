package planner

import "github.com/shardyard/shardyard/directory"

// Targets finds the shards of one execution of the plan. It is pure and does not allocate for one key
// on one shard. An error is a *Error: a refusal (0A000) when the values lead to several shards and the
// statement may not run on several, 23514 when a row to be stored has no partition, 40001 when the map
// is not the one the plan was made under.
func (pl *Plan) Targets(a Args) (Target, error) {
	return Target{Shards: []directory.ShardID{a.Map.Home}, Whole: true}, nil
}

// Describer is a shard that can Parse and Describe the statement before its values are known.
func (pl *Plan) Describer(m *directory.Map) directory.ShardID {
	return m.Home
}

// Number evaluates the value of a LIMIT or OFFSET: null is true for NULL, which means no limit. ok is
// false when the text is no such number; a shard says the error then.
func (r *ValueRef) Number(a Args) (n int64, null, ok bool) {
	return 0, true, false
}
