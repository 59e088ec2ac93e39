package router

import (
	"context"
	"strings"

	"github.com/shardyard/shardyard/planner"
	"github.com/shardyard/shardyard/router/exec"
	"github.com/shardyard/shardyard/router/pgerr"
)

// snapshotSetting is a setting of the router itself: no server hears of it.
const (
	snapshotSetting = "shardyard.snapshot"
	defaultSnapshot = "cluster"
)

// snapshotModes are its values.
var snapshotModes = map[string]exec.SnapshotMode{
	defaultSnapshot: exec.ClusterSnapshot, "shard": exec.ShardSnapshot, "off": exec.NoSnapshot,
}

// snapshotValue is a value of the setting as SHOW returns it. Like those of Postgres's enums it is read in any case.
func snapshotValue(text string) (string, *pgerr.Error) {
	value := strings.ToLower(text)
	if _, ok := snapshotModes[value]; !ok {
		return "", pgerr.Newf("22023", "invalid value for parameter %q: %q", snapshotSetting, text).
			WithHint("Available values: cluster, shard, off.")
	}
	return value, nil
}

// mayUse checks that the transaction may run a statement on these shards. At the first one that needs a snapshot a REPEATABLE
// READ transaction takes those of all shards; SHOW and LOCK TABLE need none, so what they wait for is seen.
func (c *Session) mayUse(ctx context.Context, plan *planner.Plan, shards []directoryShard) error {
	if (plan.Kind == planner.Show || plan.Tag == "LOCK TABLE") && !c.x.Serializable() {
		return nil
	}
	return c.x.MayUse(ctx, shards, c.readOnly(plan))
}

// setSnapshot is SET and RESET of shardyard.snapshot.
func (c *Session) setSnapshot(s *planner.Setting) error {
	value := ""
	if !s.Default {
		checked, err := snapshotValue(s.Value)
		if err != nil {
			return err
		}
		value = checked
	}
	c.assign(s, value)
	return nil
}
