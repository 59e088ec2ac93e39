package devcluster

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// ownerMode names, in the environment, what a child of this test binary is to do after it has started a cluster; see
// TestServersEndWithTheirOwner.
const ownerMode = "SHARDYARD_TEST_OWNER_MODE"

func TestMain(m *testing.M) {
	if mode := os.Getenv(ownerMode); mode != "" {
		ownCluster(mode)
	}
	goleak.VerifyTestMain(m)
}

// ownCluster is the child: it starts a cluster, says so on standard output, and ends in the way mode names.
func ownCluster(mode string) {
	cluster, err := Start(context.Background(), Config{Shards: 2, Replicas: 1})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	fmt.Println(cluster.Dir())
	for _, pid := range cluster.postmasters() {
		fmt.Println(pid)
	}
	fmt.Println("started")
	switch mode {
	case "exit":
		os.Exit(4)
	case "panic":
		panic("as the test asked")
	case "pause":
		if err := cluster.PauseShard(0); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(5)
		}
		os.Exit(4)
	default:
		time.Sleep(10 * time.Minute) // the test sends a signal
	}
}

// postmasters returns the pids of the servers that run.
func (c *Cluster) postmasters() []int {
	var pids []int
	for _, shard := range c.shards {
		for _, s := range shard.all() {
			if s.run != nil && s.run.isAlive() {
				pids = append(pids, s.run.cmd.Process.Pid)
			}
		}
	}
	return pids
}
