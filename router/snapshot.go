package router

import (
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
