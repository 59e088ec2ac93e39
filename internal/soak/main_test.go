package soak

import (
	"flag"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/testbed"
)

var (
	clientsFor = flag.Duration("clients.for", 4*time.Second, "how long TestClients runs")
	clientsN   = flag.Int("clients.n", 120, "how many clients TestClients has")
	soakFor    = flag.Duration("soak.for", 6*time.Second, "how long TestSoak runs")
	seedFlag   = flag.Uint64("soak.seed", 0, "seed of the clients' choices; 0: any")
)

var cluster *testbed.Cluster

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(testbed.Main(m, devcluster.Config{Shards: 3, BurnOIDs: true, Etcd: true}, &cluster))
}
