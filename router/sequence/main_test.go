package sequence

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/internal/devcluster"
	"github.com/shardyard/shardyard/internal/testbed"
)

var cluster *testbed.Cluster

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(testbed.Main(m, devcluster.Config{Shards: 1}, &cluster))
}
