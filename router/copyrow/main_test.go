package copyrow

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/internal/devcluster"
)

var cluster *devcluster.Cluster

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(devcluster.Main(m, devcluster.Config{Shards: 1}, &cluster))
}
