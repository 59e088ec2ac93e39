// Package node assembles one router process from its parts: the directory in etcd, the
// pools, the planner, the fence, the performer of sharding statements, the server. It also
// registers shards, which `shardyard shard add` and `shardyard dev` do.
//
// It owns the order in which the parts start and stop, and nothing else. It may import
// directory and its subpackages, planner, rebalance/worker, router and its subpackages.
package node
