// Command shardyard is the whole product in one binary: the router (serve), a cluster for
// development (dev), and the commands that look after a cluster (shard, table, map, ping).
//
// It owns flags, configuration and the reading of the environment, and the sample shop of dev.
// It may import everything.
package main
